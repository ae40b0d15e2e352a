//! Modules by name, as `--dso` and the configuration file have them. They are built in: nothing is loaded.

use std::ffi::OsStr;
use std::fs;
use std::io;

use nix::errno::Errno;
use rtpproxy_core::config::ModuleKind;
use rtpproxy_relay::config::{AcctCsvConfig, Module};

/// The module that a value of `--dso` means: its name, or a path that ends in `rtpp_NAME.so`.
///
/// # Errors
///
/// The message for the operator.
pub(crate) fn from_dso(value: &OsStr) -> Result<Module, String> {
    match named(value)? {
        ModuleKind::AcctCsv => Ok(Module::AcctCsv(AcctCsvConfig::default())),
        ModuleKind::AcctRtcpHep => {
            Err(format!("{}: requires configuration: name it in the file of --config", value.display()))
        }
        ModuleKind::CatchDtmf => Ok(Module::CatchDtmf),
    }
}

/// The module that this text means, whether or not there is such a file.
///
/// # Errors
///
/// The message for the operator.
pub(crate) fn named(value: &OsStr) -> Result<ModuleKind, String> {
    let shown = value.display();
    match value.to_str().and_then(|text| find(text).or_else(|| find(inner_name(text)?))) {
        Some((_, Some(kind))) => Ok(*kind),
        Some((name, None)) => Err(format!("{shown}: {}", missing(name))),
        None => {
            fs::canonicalize(value).map_err(|error| format!("realpath: {shown}: {}", reason(&error)))?;
            let known = known();
            Err(format!(
                "{shown}: not a module of this program, and others cannot be loaded; there are {known}"
            ))
        }
    }
}

/// The module of this name.
///
/// # Errors
///
/// The message for the operator.
pub(crate) fn by_name(name: &str) -> Result<ModuleKind, String> {
    match find(name) {
        Some((_, Some(kind))) => Ok(*kind),
        Some((name, None)) => Err(missing(name)),
        None => Err(format!("no module has this name; there are {}", known())),
    }
}

/// The name of a kind of module.
pub(crate) fn name(kind: ModuleKind) -> &'static str {
    let named = NAMES.iter().find(|(_, known)| *known == Some(kind));
    named.map(|(name, _)| *name).expect("every kind of module has a name")
}

fn missing(name: &str) -> String {
    format!("module {name} is not part of this version")
}

fn known() -> String {
    let known = NAMES.iter().filter(|(_, kind)| kind.is_some()).map(|(name, _)| *name);
    known.collect::<Vec<_>>().join(", ")
}

fn find(name: &str) -> Option<&'static (&'static str, Option<ModuleKind>)> {
    NAMES.iter().find(|(known, _)| *known == name)
}

/// The name in `/any/folder/rtpp_NAME.so` or `rtpp_NAME_debug.so`.
fn inner_name(path: &str) -> Option<&str> {
    let file = path.rsplit('/').next()?;
    let name = file.strip_prefix("rtpp_")?.strip_suffix(".so")?;
    Some(name.strip_suffix("_debug").unwrap_or(name))
}

/// What went wrong, in the words of the system and without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_owned())
}

/// The modules of the C program, and which of them are in here.
const NAMES: [(&str, Option<ModuleKind>); 5] = [
    ("acct_csv", Some(ModuleKind::AcctCsv)),
    ("acct_rtcp_hep", Some(ModuleKind::AcctRtcpHep)),
    ("catch_dtmf", Some(ModuleKind::CatchDtmf)),
    ("dtls_gw", None),
    ("ice_lite", None),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Result<ModuleKind, String> {
        named(OsStr::new(text))
    }

    #[test]
    fn a_module_is_known_by_its_name_and_by_the_name_of_its_file() {
        for text in [
            "acct_csv",
            "rtpp_acct_csv.so",
            "/usr/local/lib/rtpproxy/rtpp_acct_csv.so",
            "../modules/acct_csv/.libs/rtpp_acct_csv_debug.so",
        ] {
            assert_eq!(kind(text), Ok(ModuleKind::AcctCsv), "{text}");
        }
        assert_eq!(kind("catch_dtmf"), Ok(ModuleKind::CatchDtmf));
        assert_eq!(kind("/x/rtpp_acct_rtcp_hep.so"), Ok(ModuleKind::AcctRtcpHep));
    }

    #[test]
    fn what_is_not_there_is_named_as_the_c_program_does() {
        for text in ["none", "/nonexistent/rtpp_none.so", "/x/acct_csv", "rtpp_acct_csv", ""] {
            assert_eq!(kind(text), Err(format!("realpath: {text}: No such file or directory")));
        }
    }

    #[test]
    fn a_file_that_is_no_module_of_ours_is_refused() {
        let error = kind("/bin/sh").unwrap_err();
        assert!(
            error.starts_with("/bin/sh: not a module")
                && error.ends_with("acct_csv, acct_rtcp_hep, catch_dtmf")
        );
        for name in ["dtls_gw", "/x/rtpp_ice_lite.so"] {
            assert!(kind(name).unwrap_err().ends_with("is not part of this version"), "{name}");
        }
    }

    #[test]
    fn a_module_with_settings_needs_the_file() {
        let dso = |text: &str| from_dso(OsStr::new(text));
        assert_eq!(dso("acct_csv"), Ok(Module::AcctCsv(AcctCsvConfig::default())));
        assert_eq!(dso("catch_dtmf"), Ok(Module::CatchDtmf));
        assert!(dso("acct_rtcp_hep").unwrap_err().starts_with("acct_rtcp_hep: requires configuration"));
    }
}
