//! Settings from the environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::defs::{Form, Opt, Reach, VARIABLE_PREFIX, options};
use super::given::{Entry, Origin, Value, absolute};

/// What the environment says.
pub(super) struct Variables {
    /// A value, or what is wrong with it, for each variable that is not empty.
    pub(super) entries: Vec<Result<Entry, String>>,
    /// A remark on each variable that begins as ours do and is none.
    pub(super) unknown: Vec<String>,
}

/// Reads the variables of the table out of `environment`. One that is empty counts as not set.
pub(super) fn read(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Variables {
    let mut variables = Variables { entries: Vec::new(), unknown: Vec::new() };
    for (name, text) in environment {
        if !name.as_bytes().starts_with(VARIABLE_PREFIX.as_bytes()) || text.is_empty() {
            continue;
        }
        match settable().find(|option| name == option.variable().as_str()) {
            Some(option) => variables.entries.push(entry(option, &text)),
            None => variables.unknown.push(unknown(&name.to_string_lossy())),
        }
    }
    variables.unknown.sort();
    variables
}

fn settable() -> impl Iterator<Item = &'static Opt> {
    options().filter(|option| option.reach >= Reach::Variable)
}

fn entry(option: &'static Opt, text: &OsStr) -> Result<Entry, String> {
    let origin = Origin::Variable(option.variable());
    let value = match option.form {
        Form::Switch | Form::LooseSwitch(_) => match text.as_bytes() {
            b"0" | b"false" => Value::Switch(false),
            b"1" | b"true" => Value::Switch(true),
            _ => return Err(format!("{origin}: {}: neither 0 nor 1", text.to_string_lossy())),
        },
        Form::Texts(_) => Value::Texts(
            text.as_bytes()
                .split(|byte| b" ,\t\n".contains(byte))
                .filter(|word| !word.is_empty())
                .map(|word| OsString::from_vec(word.to_vec()))
                .collect(),
        ),
        Form::File(_) | Form::Folder(_) => Value::Texts(vec![absolute(text)]),
        Form::Number(_) | Form::Bytes(_) | Form::Word(..) | Form::Text(_) => {
            Value::Texts(vec![text.to_owned()])
        }
    };
    Ok(Entry { option, value, origin })
}

fn unknown(name: &str) -> String {
    let known = settable().map(Opt::variable);
    match super::given::nearest(name, known) {
        Some(near) => format!("the variable {name} has no meaning here; is {near} meant?"),
        None => format!("the variable {name} has no meaning here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(pairs: &[(&str, &str)]) -> Variables {
        read(pairs.iter().map(|(name, text)| (OsString::from(name), OsString::from(text))))
    }

    fn one(name: &str, text: &str) -> Result<Value, String> {
        read_all(&[(name, text)]).entries.remove(0).map(|entry| entry.value)
    }

    fn texts(texts: &[&str]) -> Value {
        Value::Texts(texts.iter().map(OsString::from).collect())
    }

    #[test]
    fn values_are_read_by_their_form() {
        for (name, text, value) in [
            ("RTPPROXY_TTL", "30", texts(&["30"])),
            ("RTPPROXY_COMPAT", "1", Value::Switch(true)),
            ("RTPPROXY_COMPAT", "false", Value::Switch(false)),
            ("RTPPROXY_PID_FILE", "/run/pid", texts(&["/run/pid"])),
            ("RTPPROXY_LISTEN", "127.0.0.1, a@127.0.0.2", texts(&["127.0.0.1", "a@127.0.0.2"])),
            ("RTPPROXY_NOTIFY", "/a\n/b", texts(&["/a", "/b"])),
            ("RTPPROXY_SETTINGS", "/etc/x.toml", texts(&["/etc/x.toml"])),
        ] {
            assert_eq!(one(name, text).unwrap(), value, "{name}={text}");
        }
        assert_eq!(one("RTPPROXY_COMPAT", "maybe").unwrap_err(), "RTPPROXY_COMPAT: maybe: neither 0 nor 1");
    }

    #[test]
    fn a_relative_path_starts_here() {
        let here = std::env::current_dir().unwrap().join("calls");
        assert_eq!(one("RTPPROXY_RECORD_DIR", "calls").unwrap(), texts(&[here.to_str().unwrap()]));
    }

    #[test]
    fn what_is_not_ours_is_no_more_than_remarked_on() {
        let variables = read_all(&[
            ("RTPPROXY_TLL", "3"),
            ("RTPPROXY_SERVICE_HOST", "10.0.0.1"),
            ("RTPPROXY_VERSION", "1"),
            ("RTPPROXY_TTL", ""),
            ("RTPPROXY_WORDS", ""),
            ("HOME", "/"),
        ]);
        assert!(variables.entries.is_empty());
        assert_eq!(
            variables.unknown,
            [
                "the variable RTPPROXY_SERVICE_HOST has no meaning here",
                "the variable RTPPROXY_TLL has no meaning here; is RTPPROXY_TTL meant?",
                "the variable RTPPROXY_VERSION has no meaning here",
            ]
        );
    }
}
