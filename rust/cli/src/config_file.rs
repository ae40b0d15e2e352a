//! The file of `--config`: which modules there are, and how each is set up (docs/modules.md).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rtpproxy_core::config::ModuleKind;
use rtpproxy_relay::config::{AcctCsvConfig, HepConfig, HepTransport, Module};

use crate::modules;
use crate::ucl::{self, Entry, Node, Object, Position, Value};

/// Reads the modules that the file names, in its order.
///
/// # Errors
///
/// The message for the operator: file, place, section, key, value.
pub(crate) fn modules(path: &Path) -> Result<Vec<Module>, String> {
    let shown = path.display();
    let text = read(path)
        .map_err(|error| format!("{shown}: can't read the configuration: {}", modules::reason(&error)))?;
    let placed = |at: usize, reason: String| format!("{shown}:{}: {reason}", Position::of(&text, at));
    let top = ucl::parse(&text).map_err(|error| placed(error.at, error.reason))?;
    if top.0.is_empty() {
        return Err(format!("{shown}: the configuration is empty"));
    }
    understand(&top).map_err(|fault| placed(fault.at, fault.reason))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(SIZE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SIZE_MAX {
        return Err(io::Error::other(format!("it has more than {SIZE_MAX} bytes")));
    }
    Ok(text)
}

/// What is wrong with a value, and where.
#[derive(Debug)]
struct Fault {
    at: usize,
    reason: String,
}

impl Fault {
    fn new(at: usize, place: &str, reason: impl std::fmt::Display) -> Self {
        Self { at, reason: format!("{place}: {reason}") }
    }
}

fn understand(top: &Object) -> Result<Vec<Module>, Fault> {
    let mut modules = Vec::new();
    for entry in top.0.iter().filter(|entry| entry.key == "modules") {
        for sections in objects(&entry.node, "modules")? {
            for entry in &sections.0 {
                let place = format!("modules.{}", entry.key);
                for section in objects(&entry.node, &place)? {
                    modules.push(Section { place: &place, entry, keys: section }.module()?);
                }
            }
        }
    }
    Ok(modules)
}

/// The object, or those in the array, that a value is. Keys that are there several times make an array in UCL.
fn objects<'a>(node: &'a Node, place: &str) -> Result<Vec<&'a Object>, Fault> {
    let one = |node: &'a Node| match &node.value {
        Value::Object(object) => Ok(object),
        other => Err(Fault::new(node.at, place, format_args!("must be an object, not {}", other.kind()))),
    };
    match &node.value {
        Value::Array(nodes) => nodes.iter().map(one).collect(),
        _ => Ok(vec![one(node)?]),
    }
}

/// The section of one module.
struct Section<'a> {
    /// How messages call it.
    place: &'a str,
    entry: &'a Entry,
    keys: &'a Object,
}

impl Section<'_> {
    fn module(&self) -> Result<Module, Fault> {
        self.refuse_repetition()?;
        match self.kind()? {
            ModuleKind::AcctCsv => {
                self.refuse_unknown(&[])?;
                Ok(Module::AcctCsv(AcctCsvConfig::default()))
            }
            ModuleKind::CatchDtmf => {
                self.refuse_unknown(&[])?;
                Ok(Module::CatchDtmf)
            }
            ModuleKind::AcctRtcpHep => {
                self.refuse_unknown(&["capt_host", "capt_port", "capt_ptype", "capt_id"])?;
                Ok(Module::AcctRtcpHep(self.hep()?))
            }
        }
    }

    /// The module that `load` names, or else the section itself.
    fn kind(&self) -> Result<ModuleKind, Fault> {
        match self.text("load")? {
            Some((path, at)) => {
                modules::named(path.as_ref()).map_err(|reason| Fault::new(at, &self.of("load"), reason))
            }
            None => modules::by_name(&self.entry.key)
                .map_err(|reason| Fault::new(self.entry.at, self.place, reason)),
        }
    }

    fn hep(&self) -> Result<HepConfig, Fault> {
        let mut config = HepConfig::default();
        if let Some((host, at)) = self.text("capt_host")? {
            if host.is_empty() {
                return Err(Fault::new(at, &self.of("capt_host"), "must not be empty"));
            }
            config.host = host.to_owned();
        }
        if let Some(port) = self.integer("capt_port", 1, u16::MAX)? {
            config.port = port;
        }
        if let Some((transport, at)) = self.text("capt_ptype")? {
            config.transport = match transport.to_ascii_lowercase().as_str() {
                "udp" => HepTransport::Udp,
                "tcp" => HepTransport::Tcp,
                _ => {
                    let reason = format!("{transport:?} is not possible, choose udp or tcp");
                    return Err(Fault::new(at, &self.of("capt_ptype"), reason));
                }
            };
        }
        if let Some(id) = self.integer("capt_id", 0, u32::MAX)? {
            config.capture_id = id;
        }
        Ok(config)
    }

    fn text(&self, key: &str) -> Result<Option<(&str, usize)>, Fault> {
        match self.find(key) {
            None => Ok(None),
            Some(Node { at, value: Value::Text(text) }) => Ok(Some((text, *at))),
            Some(other) => Err(self.wrong_kind(key, other, "a string")),
        }
    }

    fn integer<T>(&self, key: &str, min: T, max: T) -> Result<Option<T>, Fault>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        match self.find(key) {
            None => Ok(None),
            Some(Node { at, value: Value::Integer(number) }) => {
                let fits = T::try_from(*number).ok().filter(|number| (&min..=&max).contains(&number));
                let reason = || format!("{number} is out of range, {min} to {max} are possible");
                fits.map(Some).ok_or_else(|| Fault::new(*at, &self.of(key), reason()))
            }
            Some(other) => Err(self.wrong_kind(key, other, "an integer")),
        }
    }

    fn wrong_kind(&self, key: &str, node: &Node, wanted: &str) -> Fault {
        Fault::new(node.at, &self.of(key), format_args!("must be {wanted}, not {}", node.value.kind()))
    }

    fn find(&self, key: &str) -> Option<&Node> {
        self.keys.0.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    fn refuse_repetition(&self) -> Result<(), Fault> {
        let keys = &self.keys.0;
        let again =
            keys.iter().enumerate().find(|(n, entry)| keys[..*n].iter().any(|it| it.key == entry.key));
        again.map_or(Ok(()), |(_, entry)| Err(Fault::new(entry.at, &self.of(&entry.key), "is there twice")))
    }

    fn refuse_unknown(&self, known: &[&str]) -> Result<(), Fault> {
        let is_known = |entry: &&Entry| entry.key == "load" || known.contains(&entry.key.as_str());
        match self.keys.0.iter().find(|entry| !is_known(entry)) {
            None => Ok(()),
            Some(entry) => {
                let words = [&["load"], known].concat().join(", ");
                Err(Fault::new(
                    entry.at,
                    &self.of(&entry.key),
                    format_args!("unknown key; there are: {words}"),
                ))
            }
        }
    }

    fn of(&self, key: &str) -> String {
        format!("{}.{key}", self.place)
    }
}

/// Bytes. Files like this have a few hundred.
const SIZE_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Module>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        std::fs::write(&path, text).unwrap();
        let shown = path.display().to_string();
        modules(&path).map_err(|error| error.strip_prefix(&shown).expect("the name of the file").to_owned())
    }

    fn hep(host: &str, port: u16, transport: HepTransport, capture_id: u32) -> Module {
        Module::AcctRtcpHep(HepConfig { host: host.into(), port, transport, capture_id })
    }

    #[test]
    fn modules_come_in_the_order_of_the_file() {
        let text = "modules {
            catch_dtmf { load = /usr/local/lib/rtpproxy/rtpp_catch_dtmf.so }
            acct_csv {}
            acct_rtcp_hep { load = /x/rtpp_acct_rtcp_hep.so; capt_host = 192.0.2.1; capt_port = 9061;
                            capt_ptype = TCP; capt_id = 4294967295 }
            catch_dtmf { }
        }";
        let csv = Module::AcctCsv(AcctCsvConfig::default());
        let all =
            [Module::CatchDtmf, csv, hep("192.0.2.1", 9061, HepTransport::Tcp, u32::MAX), Module::CatchDtmf];
        assert_eq!(read(text).unwrap(), all);
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        assert_eq!(
            read("modules { acct_rtcp_hep {} }").unwrap(),
            [hep("10.0.0.1", 9060, HepTransport::Udp, 101)]
        );
    }

    #[test]
    fn json_is_read_too() {
        let text =
            r#"{"modules": {"acct_rtcp_hep": [{"capt_host": "a", "capt_id": 0}, {"capt_host": "b"}]}}"#;
        assert_eq!(
            read(text).unwrap(),
            [hep("a", 9060, HepTransport::Udp, 0), hep("b", 9060, HepTransport::Udp, 101)]
        );
    }

    #[test]
    fn a_section_may_have_any_name_if_it_says_what_to_load() {
        assert_eq!(read("modules { mine { load = catch_dtmf } }").unwrap(), [Module::CatchDtmf]);
    }

    #[test]
    fn other_keys_of_the_file_are_not_looked_at() {
        assert_eq!(read("else { x = [1, { y = z }] }; modules {}; more = 1").unwrap(), []);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, message) in [
            ("", ": the configuration is empty"),
            (" # nothing\n", ": the configuration is empty"),
            ("modules = 5", ":1:11: modules: must be an object, not an integer"),
            ("modules { acct_csv = on }", ":1:22: modules.acct_csv: must be an object, not a boolean"),
            (
                "modules {\n  acct_csv {\n    file = x\n  }\n}",
                ":3:5: modules.acct_csv.file: unknown key; there are: load",
            ),
            (
                "modules { acct_csv { load = 5 } }",
                ":1:29: modules.acct_csv.load: must be a string, not an integer",
            ),
            (
                "modules { a { load = /x/none.so } }",
                ":1:22: modules.a.load: realpath: /x/none.so: No such file or directory",
            ),
            (
                "modules { catch_dtmf { load = a; load = b } }",
                ":1:34: modules.catch_dtmf.load: is there twice",
            ),
            (
                "modules { ice_lite {} }",
                ":1:11: modules.ice_lite: module ice_lite is not part of this version",
            ),
            (
                "modules { nat {} }",
                ":1:11: modules.nat: no module has this name; there are acct_csv, acct_rtcp_hep, catch_dtmf",
            ),
            ("modules {\n\tacct_csv {\n", ":2:11: the brace is not closed"),
        ] {
            assert_eq!(read(text).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn values_of_the_capture_server_are_checked() {
        for (keys, message) in [
            ("capt_host = 5", "capt_host: must be a string, not an integer"),
            ("capt_host = \"\"", "capt_host: must not be empty"),
            ("capt_port = 0", "capt_port: 0 is out of range, 1 to 65535 are possible"),
            ("capt_port = 65536", "capt_port: 65536 is out of range, 1 to 65535 are possible"),
            ("capt_port = \"9060\"", "capt_port: must be an integer, not a string"),
            ("capt_port = 1.5", "capt_port: must be an integer, not a number with a fraction"),
            ("capt_ptype = sctp", "capt_ptype: \"sctp\" is not possible, choose udp or tcp"),
            ("capt_ptype = [udp]", "capt_ptype: must be a string, not an array"),
            ("capt_id = -1", "capt_id: -1 is out of range, 0 to 4294967295 are possible"),
            ("capt_id = 4294967296", "capt_id: 4294967296 is out of range, 0 to 4294967295 are possible"),
            ("capt_id = {}", "capt_id: must be an integer, not an object"),
            (
                "capt_hots = x",
                "capt_hots: unknown key; there are: load, capt_host, capt_port, capt_ptype, capt_id",
            ),
        ] {
            let error = read(&format!("modules {{ acct_rtcp_hep {{ {keys} }} }}")).unwrap_err();
            assert!(error.ends_with(&format!(": modules.acct_rtcp_hep.{message}")), "{keys}: {error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = modules(Path::new("/nonexistent/c")).unwrap_err();
        assert!(error.starts_with("/nonexistent/c: can't read the configuration: No such file"), "{error}");
        assert!(modules(Path::new("/")).is_err());
        assert!(modules(Path::new("/dev/zero")).unwrap_err().contains("more than 1048576 bytes"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        std::fs::write(&path, b"modules { \xff }").unwrap();
        assert!(modules(&path).unwrap_err().contains("UTF-8"));
    }
}
