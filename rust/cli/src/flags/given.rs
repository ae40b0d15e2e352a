//! What was given, and where.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use super::defs::Opt;

/// The options that are set, each with its value and its origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given(BTreeMap<&'static str, (Value, Origin)>);

/// A value as text, close to how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Of a switch.
    Switch(bool),
    /// Of any other option; several of a repeatable one.
    Texts(Vec<OsString>),
}

/// Where a value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// On the command line, as this option.
    Line(String),
    /// In this variable.
    Variable(String),
    /// In this settings file, on the line with this number, under this key.
    File(PathBuf, usize, &'static str),
}

/// A value from the environment or the settings file.
#[derive(Debug)]
pub(super) struct Entry {
    /// The option it is for.
    pub(super) option: &'static Opt,
    /// The value.
    pub(super) value: Value,
    /// Where it was found.
    pub(super) origin: Origin,
}

impl Given {
    /// The value of the option with this key, and its origin. An empty list is none, wherever it was given.
    pub(crate) fn get(&self, key: &str) -> Option<&(Value, Origin)> {
        self.0.get(key).filter(|(value, _)| *value != Value::Texts(Vec::new()))
    }

    /// The keys of all options that are set.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// True if `option` is set.
    pub(super) fn holds(&self, option: &Opt) -> bool {
        self.0.contains_key(option.key)
    }

    /// Notes an option of the command line.
    pub(super) fn on_the_line(&mut self, option: &'static Opt, value: Option<OsString>) {
        let origin = Origin::Line(option.spelling());
        match (value, self.0.get_mut(option.key)) {
            (Some(value), Some((Value::Texts(values), _))) if option.is_repeatable() => values.push(value),
            (value, _) => {
                let value = value.map_or(Value::Switch(true), |value| Value::Texts(vec![value]));
                self.0.insert(option.key, (value, origin));
            }
        }
    }

    /// Notes what was found in another place.
    pub(super) fn elsewhere(&mut self, entry: Entry) {
        self.0.insert(entry.option.key, (entry.value, entry.origin));
    }

    /// The one of two keys that was given in a stronger place, if both were given and the places differ.
    pub(super) fn stronger<'a>(&self, one: &'a str, other: &'a str) -> Option<&'a str> {
        let (one_at, other_at) = (self.get(one)?.1.rank(), self.get(other)?.1.rank());
        match one_at.cmp(&other_at) {
            Ordering::Less => Some(one),
            Ordering::Equal => None,
            Ordering::Greater => Some(other),
        }
    }

    /// Takes an option for not given.
    pub(super) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }
}

impl Origin {
    fn rank(&self) -> u8 {
        match self {
            Self::Line(_) => 0,
            Self::Variable(_) => 1,
            Self::File(..) => 2,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(option) => f.write_str(option),
            Self::Variable(name) => f.write_str(name),
            Self::File(path, line, key) => write!(f, "{}:{line}: {key}", path.display()),
        }
    }
}

/// The path from the root on; a relative one starts in the present folder.
pub(super) fn absolute(path: &OsStr) -> OsString {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), PathBuf::into_os_string)
}

/// The one of `known` that `name` is most likely meant to be, if one is near.
pub(super) fn nearest<Known: Into<String>>(
    name: &str,
    known: impl IntoIterator<Item = Known>,
) -> Option<String> {
    known
        .into_iter()
        .map(Into::into)
        .map(|known: String| (strsim::damerau_levenshtein(name, &known), known))
        .filter(|(distance, known)| *distance <= TYPOS_MAX && *distance < known.len() - 1)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Letters wrong, missing or too many in a name that may still be guessed.
const TYPOS_MAX: usize = 2;
