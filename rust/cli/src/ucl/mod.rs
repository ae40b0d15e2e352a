//! The language of configuration files: the part of UCL that nginx-like and JSON files are written in.
//!
//! There are objects with and without braces around the outermost one, `key = value`, `key: value`, `key value`
//! and `key {`, several keys before a brace (`section name {`), values that end at `;`, `,`, a brace or the end
//! of the line, strings with and without quotation marks, numbers with suffixes, `true`/`yes`/`on` and their
//! opposites, `null`, arrays, and the comments `#` and `/* */`, which may be nested. Macros (`.include`),
//! variables (`${NAME}`) and here-documents (`<<EOD`) are refused.

mod atom;
mod reader;

use std::fmt;

pub(crate) use reader::parse;

/// Keys with their values, in the order of the file. The same key may be there several times.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Object(pub(crate) Vec<Entry>);

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where it stands, in bytes from the start of the text.
    pub(crate) at: usize,
    /// The value.
    pub(crate) node: Node,
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Where it begins, in bytes from the start of the text.
    pub(crate) at: usize,
    /// The value.
    pub(crate) value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// `null`
    Null,
    /// `true`, `yes`, `on`, or one of their opposites.
    Bool(bool),
    /// A whole number: `10`, `-1`, `0xff`, `10k` (10,000), `10kb` (10,240).
    Integer(i64),
    /// Any other number; of a time (`10min`) its seconds.
    Real(f64),
    /// Any other text.
    Text(String),
    /// `[…]`
    Array(Vec<Node>),
    /// `{…}`
    Object(Object),
}

impl Value {
    /// What kind of value it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Real(_) => "a number with a fraction",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct SyntaxError {
    /// The place, in bytes from the start of the text.
    pub(crate) at: usize,
    /// What is wrong.
    pub(crate) reason: String,
}

/// A place in a text as editors show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The line, from 1.
    pub(crate) line: usize,
    /// The character in the line, from 1.
    pub(crate) column: usize,
}

impl Position {
    /// The place of the byte `at` of `text`.
    pub(crate) fn of(text: &str, at: usize) -> Self {
        let before = &text.as_bytes()[..at.min(text.len())];
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Self { line, column: String::from_utf8_lossy(&before[start..]).chars().count() + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests;
