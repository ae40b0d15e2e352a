//! Settings from a file: [TOML](https://toml.io/en/v1.0.0), one key for each option, no sections.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeInteger, DeTable, DeValue};

use super::defs::{Form, Opt, Reach, option, options};
use super::given::{Entry, Origin, Value, absolute, nearest};
use crate::modules::reason;

/// Reads the file at `path`: for each key a value, or what is wrong with it, in the order of the file.
///
/// # Errors
/// It cannot be read, or it is not TOML.
pub(super) fn read(path: &Path) -> Result<Vec<Result<Entry, String>>, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("{}: can't read the settings: {}", path.display(), reason(&error)))?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Result<Entry, String>>, String> {
    let table = DeTable::parse(text).map_err(|error| {
        let (line, column) = position(text, error.span());
        format!("{}:{line}:{column}: {}", path.display(), error.message())
    })?;
    let mut pairs: Vec<_> = table.get_ref().iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    let entries = pairs.into_iter().map(|(key, value)| {
        let (line, _) = position(text, Some(key.span()));
        let name = key.get_ref().as_ref();
        match option(name).filter(|option| option.reach == Reach::File) {
            Some(option) => {
                let origin = Origin::File(path.to_owned(), line, option.key);
                match read_value(option, value.get_ref()) {
                    Ok(value) => Ok(Entry { option, value, origin }),
                    Err(error) => Err(format!("{origin}: {error}")),
                }
            }
            None => Err(format!("{}:{line}: {}", path.display(), unknown(name, value.get_ref()))),
        }
    });
    Ok(entries.collect())
}

fn read_value(option: &Opt, value: &DeValue<'_>) -> Result<Value, String> {
    let unfit = || format!("expected {}, found {}", expected(option.form), found(value));
    let one = |text: &str| Ok(Value::Texts(vec![text.into()]));
    match (option.form, value) {
        (Form::Switch | Form::LooseSwitch(_), DeValue::Boolean(on)) => Ok(Value::Switch(*on)),
        (Form::Number(_) | Form::Bytes(_), DeValue::Integer(number)) => one(&decimal(number)),
        (Form::Bytes(_) | Form::Word(..) | Form::Text(_) | Form::Texts(_), DeValue::String(text)) => {
            one(text)
        }
        (Form::File(_) | Form::Folder(_), DeValue::String(text)) => {
            Ok(Value::Texts(vec![absolute(OsStr::new(text.as_ref()))]))
        }
        (Form::Texts(_), DeValue::Array(items)) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(OsString::from(text.as_ref())),
                other => Err(format!("expected strings, found {}", found(other))),
            });
            Ok(Value::Texts(texts.collect::<Result<_, _>>()?))
        }
        _ => Err(unfit()),
    }
}

/// The number in decimal, whatever it was written in.
fn decimal<'a>(number: &'a DeInteger<'_>) -> Cow<'a, str> {
    match i64::from_str_radix(number.as_str(), number.radix()) {
        Ok(value) => value.to_string().into(),
        // Too large for any option, which will say so.
        Err(_) => number.as_str().into(),
    }
}

fn expected(form: Form) -> &'static str {
    match form {
        Form::Switch | Form::LooseSwitch(_) => "true or false",
        Form::Number(_) => "an integer",
        Form::Bytes(_) => "an integer, or a string such as \"64M\"",
        Form::Word(..) | Form::Text(_) | Form::File(_) | Form::Folder(_) => "a string",
        Form::Texts(_) => "an array of strings",
    }
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn unknown(name: &str, value: &DeValue<'_>) -> String {
    if matches!(value, DeValue::Table(_)) {
        return format!("{name}: settings have no sections: write every key at the top");
    }
    let known = || options().filter(|option| option.reach == Reach::File);
    // Letters and names of the command line are likely mistakes.
    let spelled = known().find(|option| {
        option.long == Some(name) || option.short.is_some_and(|letter| name.chars().eq([letter]))
    });
    match spelled
        .map(|option| option.key.to_owned())
        .or_else(|| nearest(name, known().map(|known| known.key)))
    {
        Some(near) => format!("{name}: unknown key; is {near} meant?"),
        None => format!("{name}: unknown key"),
    }
}

/// Line and column of the start of `span`, both from 1.
fn position(text: &str, span: Option<Range<usize>>) -> (usize, usize) {
    let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<Result<(&'static str, Value), String>> {
        let entries = parse(Path::new("x.toml"), text).unwrap();
        entries.into_iter().map(|entry| entry.map(|entry| (entry.option.key, entry.value))).collect()
    }

    fn texts(texts: &[&str]) -> Value {
        Value::Texts(texts.iter().map(OsString::from).collect())
    }

    #[test]
    fn values_have_types() {
        let text = r#"
            ttl = 30
            control_mode = 0o660 # octal
            compat = false
            record_buffer = "16M"
            listen = ["127.0.0.1", "a@127.0.0.2"]
            notify = "unix:/run/n.sock"
            pid_file = "/run/pid"
        "#;
        let expected = [
            ("ttl", texts(&["30"])),
            ("control_mode", texts(&["432"])),
            ("compat", Value::Switch(false)),
            ("record_buffer", texts(&["16M"])),
            ("listen", texts(&["127.0.0.1", "a@127.0.0.2"])),
            ("notify", texts(&["unix:/run/n.sock"])),
            ("pid_file", texts(&["/run/pid"])),
        ];
        assert_eq!(entries(text), expected.map(Ok));
        assert_eq!(entries("record_buffer = 1_048_576"), [Ok(("record_buffer", texts(&["1048576"])))]);
        let here = std::env::current_dir().unwrap().join("calls");
        assert_eq!(entries("record_dir = 'calls'"), [Ok(("record_dir", texts(&[here.to_str().unwrap()])))]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, message) in [
            ("ttl = \"30\"", "x.toml:1: ttl: expected an integer, found a string"),
            ("\n\nlatch = 3", "x.toml:3: latch: expected a string, found an integer"),
            ("compat = 1", "x.toml:1: compat: expected true or false, found an integer"),
            ("listen = [1]", "x.toml:1: listen: expected strings, found an integer"),
            ("tos = 1.5", "x.toml:1: tos: expected an integer, found a float"),
            ("log = 1979-05-27", "x.toml:1: log: expected a string, found a date"),
            ("record-format = 'pcap'", "x.toml:1: record-format: unknown key; is record_format meant?"),
            ("T = 3", "x.toml:1: T: unknown key; is ttl meant?"),
            ("tttl = 3", "x.toml:1: tttl: unknown key; is ttl meant?"),
            ("colour = 'red'", "x.toml:1: colour: unknown key"),
            ("check = true", "x.toml:1: check: unknown key"),
            ("settings = 'y'", "x.toml:1: settings: unknown key"),
            (
                "[recording]\npcap = true",
                "x.toml:1: recording: settings have no sections: write every key at the top",
            ),
        ] {
            assert_eq!(entries(text), [Err(message.to_owned())], "{text}");
        }
    }

    #[test]
    fn what_is_not_toml_is_refused_at_its_place() {
        for (text, place) in
            [("ttl = ", "x.toml:1:7: "), ("ttl = 1\nttl = 2", "x.toml:2:1: "), ("a = 1\nb c", "x.toml:2:")]
        {
            let error = parse(Path::new("x.toml"), text).unwrap_err();
            assert!(error.starts_with(place) && error.lines().count() == 1, "{error}");
        }
    }
}
