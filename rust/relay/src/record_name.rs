//! Names of recordings out of call-ids and templates: safe, and different for different calls.
//!
//! Call-ids and tags are bytes from the network. Only `/`, NUL, control bytes, `%` and a leading dot are
//! replaced, by `%XX`, so that ordinary ids stay readable and any id can be read back from its name.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::{self, Write};
use std::os::unix::ffi::OsStringExt;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Local, Utc};
use rtpproxy_core::time::Wall;
use sha2::{Digest, Sha256};

/// A template for the names of recordings (`--record-name`; docs/recording-files.md).
///
/// ```
/// use rtpproxy_relay::record_name::RecordName;
///
/// assert!(RecordName::parse("%Y/%m/%d/%{call-id}=%{from-tag}").is_ok());
/// let error = RecordName::parse("%Y/%{caller}").unwrap_err().to_string();
/// assert!(error.contains("at character 4: there is no field %{caller}"), "{error}");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RecordName {
    text: String,
    /// The folders, then the name.
    components: Vec<Vec<Piece>>,
}

impl RecordName {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// If there is an unknown field in it, if it could lead out of the folder of recordings, or if it has more than
    /// 16 folders.
    pub fn parse(text: &str) -> Result<Self, RecordNameError> {
        let refused = |(at, reason): (usize, String)| RecordNameError {
            template: text.escape_debug().to_string(),
            at: text[..at].chars().count() + 1,
            reason,
        };
        let components = Parser::default().run(text).map_err(refused)?;
        Ok(Self { text: text.to_owned(), components })
    }

    /// The folders of a recording below that of all recordings, and the stem of its name.
    pub(crate) fn render(&self, values: &Values<'_>) -> (Vec<OsString>, Vec<u8>) {
        let mut components: Vec<_> = self.components.iter().map(|pieces| component(pieces, values)).collect();
        let stem = components.pop().unwrap_or_default();
        (components.into_iter().map(OsString::from_vec).collect(), stem)
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record name {template} is invalid at character {at}: {reason}")]
pub struct RecordNameError {
    template: String,
    /// From 1.
    at: usize,
    reason: String,
}

/// What the fields of a template stand for.
#[derive(Clone, Debug)]
pub(crate) struct Values<'a> {
    /// When the recording was asked for.
    pub(crate) start: Wall,
    /// The call.
    pub(crate) call_id: &'a [u8],
    /// The tag that the session was created with.
    pub(crate) from_tag: &'a [u8],
    /// The other one, if it is known at the start.
    pub(crate) to_tag: Option<&'a [u8]>,
    /// What the media of a call share.
    pub(crate) call: Vec<u8>,
    /// Whose packets.
    pub(crate) leg: &'static str,
    /// Counts the recordings of the relay.
    pub(crate) number: u64,
}

impl Values<'_> {
    fn of(&self, field: Field) -> Cow<'_, [u8]> {
        match field {
            Field::CallId => self.call_id.into(),
            Field::FromTag => self.from_tag.into(),
            Field::ToTag => self.to_tag.unwrap_or(UNKNOWN).into(),
            Field::Call => self.call.as_slice().into(),
            Field::Leg => self.leg.as_bytes().into(),
            Field::Number => self.number.to_string().into_bytes().into(),
        }
    }
}

/// Replaces what could lead out of a folder. `compat`: `%` stays.
pub(crate) fn escaped(name: &[u8], compat: bool) -> Vec<u8> {
    let mut safe = Vec::with_capacity(name.len());
    let is_escaped = |byte| is_never_in_names(byte) || (byte == b'%' && !compat);
    escape(name, is_escaped, &mut safe);
    safe
}

/// Replaces the end of a long name by a digest of the whole, without cutting a character in two.
pub(crate) fn bounded(mut name: Vec<u8>) -> Vec<u8> {
    if name.len() <= NAME_MAX {
        return name;
    }
    let digest = Sha256::digest(&name);
    let is_inside_char = |at: usize| str::from_utf8(&name).is_ok_and(|text| !text.is_char_boundary(at));
    let cut = (NAME_KEPT - 3..=NAME_KEPT).rev().find(|&at| !is_inside_char(at)).unwrap_or(NAME_KEPT);
    name.truncate(cut);
    name.push(b'~');
    for byte in &digest[..8] {
        name.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    name
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    /// A part of the start of the recording.
    Time {
        items: Vec<Item<'static>>,
        is_local: bool,
    },
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    CallId,
    FromTag,
    ToTag,
    Call,
    Leg,
    Number,
}

/// What a template has shown so far.
#[derive(Debug, Default)]
struct Parser {
    components: Vec<Vec<Piece>>,
    /// The one that is being read, and where it began, in bytes.
    pieces: Vec<Piece>,
    began: usize,
    /// Where `%{local:` stands, until its `}`.
    local: Option<usize>,
}

/// A place in bytes, and what is wrong there.
type Wrong = (usize, String);

impl Parser {
    fn run(mut self, text: &str) -> Result<Vec<Vec<Piece>>, Wrong> {
        let mut at = 0;
        while let Some(next) = text[at..].chars().next() {
            at += match next {
                '/' => self.slash(at)?,
                '%' => self.percent(&text[at..], at)?,
                '}' if self.local.take().is_some() => 1,
                _ if next.is_ascii_control() => {
                    return Err((at, "a control character cannot be in a name".to_owned()));
                }
                _ => self.text(next, at)?,
            };
        }
        if let Some(at) = self.local {
            return Err((at, "%{local: has no }".to_owned()));
        }
        self.end_component(text.len())?;
        Ok(self.components)
    }

    fn slash(&mut self, at: usize) -> Result<usize, Wrong> {
        if at == 0 {
            return Err((
                at,
                "it is a path in the folder of recordings and cannot begin with a /".to_owned(),
            ));
        }
        if self.components.len() == FOLDERS_MAX {
            return Err((at, format!("there are more than {FOLDERS_MAX} folders")));
        }
        self.end_component(at)?;
        self.began = at + 1;
        Ok(1)
    }

    fn end_component(&mut self, at: usize) -> Result<(), Wrong> {
        if self.pieces.is_empty() {
            return Err((at.min(self.began), "a name is empty".to_owned()));
        }
        self.components.push(std::mem::take(&mut self.pieces));
        Ok(())
    }

    fn text(&mut self, next: char, at: usize) -> Result<usize, Wrong> {
        match self.pieces.last_mut() {
            None if next == '.' => {
                return Err((at, "a name cannot begin with a dot".to_owned()));
            }
            Some(Piece::Text(text)) => text.push(next),
            Some(Piece::Time { .. } | Piece::Field(_)) | None => self.pieces.push(Piece::Text(next.into())),
        }
        Ok(next.len_utf8())
    }

    /// Takes what begins with a `%`; gives back its length.
    fn percent(&mut self, rest: &str, at: usize) -> Result<usize, Wrong> {
        if rest.starts_with("%%") {
            self.text('%', at)?;
            return Ok(2);
        }
        if rest.starts_with(LOCAL) {
            if self.local.is_some() {
                return Err((at, "%{local: is inside another one".to_owned()));
            }
            self.local = Some(at);
            return Ok(LOCAL.len());
        }
        if let Some(inner) = rest.strip_prefix("%{") {
            let (name, _) = inner.split_once('}').ok_or_else(|| (at, "%{ has no }".to_owned()))?;
            let field = FIELDS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
                let known = FIELDS.map(|(name, _)| format!("%{{{name}}}")).join(", ");
                (
                    at,
                    format!(
                        "there is no field %{{{}}}, only {known} and %{{local:...}}",
                        name.escape_debug()
                    ),
                )
            })?;
            self.pieces.push(Piece::Field(field.1));
            return Ok("%{}".len() + name.len());
        }
        let (items, len) = time_items(rest).map_err(|reason| (at, reason))?;
        self.pieces.push(Piece::Time { items, is_local: self.local.is_some() });
        Ok(len)
    }
}

/// The field of `strftime` at the beginning of a text, and how long it is.
fn time_items(text: &str) -> Result<(Vec<Item<'static>>, usize), String> {
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8());
    for end in ends.take(TIME_FIELD_MAX).skip(1) {
        let Ok(items) = StrftimeItems::new(&text[..end]).parse_to_owned() else { continue };
        let field = &text[..end];
        // Some can only be read.
        let sample = time_text(&items, false, Wall(0)).ok_or_else(|| format!("there is no field {field}"))?;
        return match sample.bytes().find(|&byte| is_never_in_names(byte)) {
            None => Ok((items, end)),
            Some(byte) => Err(format!("{field} gives {:?}, which cannot be in a name", char::from(byte))),
        };
    }
    let field: String = text.chars().take(2).collect();
    Err(match field.as_str() {
        "%" => "a % stands alone; a percent sign is written %%".to_owned(),
        _ => format!("there is no field {}", field.escape_debug()),
    })
}

fn time_text(items: &[Item<'static>], is_local: bool, at: Wall) -> Option<String> {
    let utc = DateTime::<Utc>::from_timestamp_nanos(i64::try_from(at.0).unwrap_or(i64::MAX));
    let mut text = String::new();
    if is_local {
        write!(text, "{}", utc.with_timezone(&Local).format_with_items(items.iter())).ok()?;
    } else {
        write!(text, "{}", utc.format_with_items(items.iter())).ok()?;
    }
    Some(text)
}

fn component(pieces: &[Piece], values: &Values<'_>) -> Vec<u8> {
    let mut name = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => escape(text.as_bytes(), is_escaped_in_text, &mut name),
            Piece::Time { items, is_local } => {
                let text = time_text(items, *is_local, values.start).unwrap_or_default();
                escape(text.as_bytes(), is_escaped_in_text, &mut name);
            }
            // What the network says does not end where a `=` of the template tells values apart.
            Piece::Field(field) => {
                let is_escaped = |byte| is_escaped_in_text(byte) || byte == b'=';
                let is_escaped: &dyn Fn(u8) -> bool =
                    if *field == Field::Call { &is_escaped_in_text } else { &is_escaped };
                escape(&values.of(*field), is_escaped, &mut name);
            }
        }
    }
    if name.is_empty() {
        name.extend_from_slice(UNKNOWN);
    }
    bounded(name)
}

/// Appends `bytes` to a name, with `%XX` for what `is_escaped`, and for a dot at its beginning.
fn escape(bytes: &[u8], is_escaped: impl Fn(u8) -> bool, name: &mut Vec<u8>) {
    for &byte in bytes {
        if is_escaped(byte) || (byte == b'.' && name.is_empty()) {
            name.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            name.push(byte);
        }
    }
}

fn is_escaped_in_text(byte: u8) -> bool {
    is_never_in_names(byte) || byte == b'%'
}

fn is_never_in_names(byte: u8) -> bool {
    byte == b'/' || byte.is_ascii_control()
}

const FIELDS: [(&str, Field); 6] = [
    ("call-id", Field::CallId),
    ("from-tag", Field::FromTag),
    ("to-tag", Field::ToTag),
    ("call", Field::Call),
    ("leg", Field::Leg),
    ("number", Field::Number),
];
const LOCAL: &str = "%{local:";
/// In place of a value that is not known, and of an empty name.
const UNKNOWN: &[u8] = b"-";
/// As deep as recordings are looked for.
const FOLDERS_MAX: usize = 16;
/// The longest field of a time (`%::::z` is none, `%:::z` is one), in characters.
const TIME_FIELD_MAX: usize = 5;
/// The longest name that stays as it is, in bytes.
const NAME_MAX: usize = 200;
/// What stays of a longer one, in bytes.
const NAME_KEPT: usize = 160;

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn date_folders_and_ids() {
        let name = path("%Y/%m/%d/%{call-id}=%{from-tag}", &values(b"1@x", b"f;1"));
        assert_eq!(name, "2026/03/01/1@x=f;1");
        assert_eq!(path("%F/%H%M%S.%3f-%{leg}", &values(b"1", b"f")), "2026-03-01/235958.250-both");
        assert_eq!(path("%{call}/%{to-tag}/%{number}", &values(b"1-2", b"f;3")), "1=f/-/7");
        assert_eq!(path("%j%%%-m%:z}", &values(b"1", b"f")), "060%253+00:00}");
    }

    #[test]
    fn values_stay_in_their_place() {
        let of = |call_id: &[u8]| path("%{call-id}/x=%{call-id}", &values(call_id, b"f"));
        assert_eq!(of(b"../x"), "%2E.%2Fx/x=..%2Fx");
        assert_eq!(of(b".."), "%2E./x=..");
        assert_eq!(of(b"/etc/x\0"), "%2Fetc%2Fx%00/x=%2Fetc%2Fx%00");
        assert_eq!(of(b"a=b%"), "a%3Db%25/x=a%3Db%25");
        assert_eq!(of(b""), "-/x=");
        assert_eq!(of("\u{e9}".as_bytes()), "\u{e9}/x=\u{e9}");
        let long = of(&[b'y'; 300]);
        assert_eq!(long.split('/').map(str::len).collect::<Vec<_>>(), [177, 177]);
    }

    #[test]
    fn local_times_are_those_of_this_machine() {
        let at = DateTime::<Utc>::from_timestamp_nanos(START.0 as i64).with_timezone(&Local);
        let expected = at.format("%Y/%d/%H").to_string();
        assert_eq!(path("%{local:%Y/%d/%H}", &values(b"1", b"f")), expected);
        assert_eq!(path("%{local:%Y}-%H", &values(b"1", b"f")), at.format("%Y-23").to_string());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let deep = "x/".repeat(17) + "x";
        assert!(RecordName::parse(&deep[2..]).is_ok());
        for (template, at, reason) in [
            ("", 1, "a name is empty"),
            ("/x", 1, "it is a path in the folder of recordings and cannot begin with a /"),
            ("\u{e9}/", 3, "a name is empty"),
            ("\u{e9}//x", 3, "a name is empty"),
            ("x/../y", 3, "a name cannot begin with a dot"),
            (".x", 1, "a name cannot begin with a dot"),
            ("a\0b", 2, "a control character cannot be in a name"),
            (deep.as_str(), 34, "there are more than 16 folders"),
            ("%Q", 1, "there is no field %Q"),
            ("x%", 2, "a % stands alone; a percent sign is written %%"),
            ("x%#z", 2, "there is no field %#z"),
            ("%D", 1, "%D gives '/', which cannot be in a name"),
            ("%n", 1, "%n gives '\\n', which cannot be in a name"),
            ("%{call-id", 1, "%{ has no }"),
            ("x%{local:%Y", 2, "%{local: has no }"),
            ("%{local:%{local:%Y}}", 9, "%{local: is inside another one"),
        ] {
            let error = RecordName::parse(template).unwrap_err();
            assert_eq!((error.at, error.reason.as_str()), (at, reason), "{template}");
        }
        assert_eq!(
            RecordName::parse("x/%{host}").unwrap_err().to_string(),
            "record name x/%{host} is invalid at character 3: there is no field %{host}, only %{call-id}, \
             %{from-tag}, %{to-tag}, %{call}, %{leg}, %{number} and %{local:...}"
        );
    }

    proptest! {
        #[test]
        fn no_template_and_no_id_leaves_the_folder(
            template in "([a-z.~ \u{e9}/=-]|%[a-zA-Z+]|%%|%\\{(call-id|from-tag|to-tag|call|leg|number)\\}){1,12}",
            call_id in ids(), tag in ids(), to_tag in prop::option::of(ids()),
        ) {
            let Ok(template) = RecordName::parse(&template) else { return Ok(()) };
            let values = Values { to_tag: to_tag.as_deref(), ..values(&call_id, &tag) };
            let (folders, stem) = template.render(&values);
            prop_assert!(folders.len() <= FOLDERS_MAX);
            for name in folders.iter().map(|folder| folder.as_bytes()).chain([stem.as_slice()]) {
                prop_assert!(!name.is_empty() && name.len() <= NAME_MAX);
                prop_assert!(name[0] != b'.' && !name.iter().any(|&byte| is_never_in_names(byte)));
            }
        }

        #[test]
        fn ids_can_be_read_back(call_id in ids(), tag in ids(), between in "[=/]|=[a-z=]{1,3}|[a-z]/[a-z]=") {
            let template = format!("%Y/%{{call-id}}{between}%{{from-tag}}");
            let (folders, stem) = RecordName::parse(&template).unwrap().render(&values(&call_id, &tag));
            let parts: Vec<_> = folders.iter().map(|folder| folder.as_bytes()).chain([&stem[..]]).collect();
            if parts.iter().all(|part| !part.contains(&b'~')) {
                let name = parts[1..].join(&b'/');
                let at = name.windows(between.len()).position(|part| part == between.as_bytes()).unwrap();
                prop_assert_eq!(unescaped(&name[..at]), call_id);
                prop_assert_eq!(unescaped(&name[at + between.len()..]), tag);
            }
        }

        #[test]
        fn different_ids_have_different_names(
            a in ("[%./2F~a=-]{1,6}", "[%./2F~a=-]{1,6}"),
            b in ("[%./2F~a=-]{1,6}", "[%./2F~a=-]{1,6}"),
            between in "[=/]",
        ) {
            let template = RecordName::parse(&format!("%{{call-id}}{between}%{{from-tag}}")).unwrap();
            let name = |(id, tag): &(String, String)| template.render(&values(id.as_bytes(), tag.as_bytes()));
            prop_assert_eq!(a == b, name(&a) == name(&b));
        }
    }

    fn ids() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(1_u8.., 1..20),
            prop::collection::vec(1_u8.., 190..300),
            "[./%=~2Fa-]{1,8}".prop_map(String::into_bytes),
        ]
    }

    fn values<'a>(call_id: &'a [u8], from_tag: &'a [u8]) -> Values<'a> {
        let call = b"1=f".to_vec();
        Values { start: START, call_id, from_tag, to_tag: None, call, leg: "both", number: 7 }
    }

    fn path(template: &str, values: &Values<'_>) -> String {
        let (folders, stem) = RecordName::parse(template).unwrap().render(values);
        let parts = folders.iter().map(|folder| folder.to_str().unwrap());
        parts.chain([str::from_utf8(&stem).unwrap()]).collect::<Vec<_>>().join("/")
    }

    fn unescaped(name: &[u8]) -> Vec<u8> {
        let mut rest = name;
        let mut raw = Vec::new();
        while let Some((&byte, behind)) = rest.split_first() {
            if byte == b'%' {
                raw.push(u8::from_str_radix(str::from_utf8(&behind[..2]).unwrap(), 16).unwrap());
                rest = &behind[2..];
            } else {
                raw.push(byte);
                rest = behind;
            }
        }
        raw
    }

    /// 2026-03-01T23:59:58.25Z.
    const START: Wall = Wall(1_772_409_598_250_000_000);
}
