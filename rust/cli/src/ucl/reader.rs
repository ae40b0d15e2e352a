//! Text to [`Object`].

use super::atom::atom;
use super::{Entry, Node, Object, SyntaxError, Value};

/// Reads a whole text. An empty one is an empty object.
///
/// # Errors
///
/// The first place that is not understood.
pub(crate) fn parse(text: &str) -> Result<Object, SyntaxError> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    if text.starts_with('\u{feff}') {
        reader.at = '\u{feff}'.len_utf8();
    }
    reader.skip()?;
    match reader.peek() {
        Some('{') => {
            let object = reader.braced_object()?;
            reader.skip_separators()?;
            match reader.peek() {
                None => Ok(object),
                Some(_) => Err(reader.error("something follows the last brace")),
            }
        }
        Some('[') => Err(reader.error("the outermost value is an array, it must be an object")),
        _ => reader.entries(None),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Values that are open around this place.
    depth: usize,
}

type Read<T> = Result<T, SyntaxError>;

impl<'a> Reader<'a> {
    /// Entries up to the brace that closes those of an object that opened at `open`, or to the end of the text.
    fn entries(&mut self, open: Option<usize>) -> Read<Object> {
        let mut entries = Vec::new();
        loop {
            self.skip_separators()?;
            match (self.peek(), open) {
                (None, None) => break,
                (None, Some(open)) => return Err(error_at(open, "the brace is not closed")),
                (Some('}'), Some(_)) => {
                    self.next();
                    break;
                }
                (Some('}'), None) => return Err(self.error("the brace closes nothing")),
                (Some(_), _) => entries.push(self.entry()?),
            }
        }
        Ok(Object(entries))
    }

    /// A key with its value and what separates it from the next one.
    fn entry(&mut self) -> Read<Entry> {
        let at = self.at;
        let key = self.key()?;
        let newline = self.skip()?;
        let node = match self.peek() {
            Some('=' | ':') => {
                self.next();
                self.skip()?;
                self.value()?
            }
            Some('{' | '[') => self.value()?,
            Some(_) if !newline && self.is_key_before_brace() => {
                self.enter()?;
                let at = self.at;
                let inner = self.entry()?;
                self.depth -= 1;
                return Ok(Entry { key, at, node: Node { at, value: Value::Object(Object(vec![inner])) } });
            }
            Some(first) if !newline && !is_end(first) => self.value()?,
            _ => return Err(error_at(at, format!("the key {key} has no value"))),
        };
        self.end_of_value(&node.value, "}")?;
        Ok(Entry { key, at, node })
    }

    fn key(&mut self) -> Read<String> {
        match self.peek() {
            Some('"' | '\'') => self.quoted(),
            Some('.') => Err(self.error("macros such as .include are not supported")),
            Some(first) if is_key(first) => Ok(self.take_while(is_key).to_owned()),
            Some(other) => Err(self.error(format!("a key was expected, not {other:?}"))),
            None => Err(self.error("a key was expected")),
        }
    }

    /// Whether what stands here is another key: there is a brace behind it in this line.
    fn is_key_before_brace(&self) -> bool {
        let mut quote = None;
        for c in self.text[self.at..].chars() {
            match (c, quote) {
                ('\n' | '\r', _) | (',' | ';' | '#' | '}' | ']' | '=' | ':', None) => return false,
                ('{' | '[', None) => return true,
                (_, Some(open)) if c == open => quote = None,
                ('"' | '\'', None) => quote = Some(c),
                _ => {}
            }
        }
        false
    }

    fn value(&mut self) -> Read<Node> {
        let at = self.at;
        let value = match self.peek() {
            Some('{') => Value::Object(self.braced_object()?),
            Some('[') => Value::Array(self.array()?),
            Some('"' | '\'') => Value::Text(self.quoted()?),
            Some(first) if !is_end(first) => self.bare()?,
            _ => return Err(self.error("a value was expected")),
        };
        Ok(Node { at, value })
    }

    fn braced_object(&mut self) -> Read<Object> {
        let open = self.at;
        self.enter()?;
        self.next();
        let object = self.entries(Some(open))?;
        self.depth -= 1;
        Ok(object)
    }

    fn array(&mut self) -> Read<Vec<Node>> {
        let open = self.at;
        self.enter()?;
        self.next();
        let mut nodes = Vec::new();
        loop {
            self.skip_separators()?;
            match self.peek() {
                None => return Err(error_at(open, "the bracket is not closed")),
                Some(']') => break,
                Some(_) => {
                    let node = self.value()?;
                    self.end_of_value(&node.value, "]")?;
                    nodes.push(node);
                }
            }
        }
        self.next();
        self.depth -= 1;
        Ok(nodes)
    }

    /// What ends a value: a separator, a line end, or `closing`. Braces and brackets end by themselves.
    fn end_of_value(&mut self, value: &Value, closing: &str) -> Read<()> {
        let newline = self.skip()?;
        let ended = match self.peek() {
            None => true,
            Some(next) => newline || matches!(next, ',' | ';') || closing.contains(next),
        };
        if ended || matches!(value, Value::Object(_) | Value::Array(_)) {
            return Ok(());
        }
        Err(self.error("the value before ends here, but ; or a line end is missing"))
    }

    /// A value without quotation marks, which may hold spaces.
    fn bare(&mut self) -> Read<Value> {
        let start = self.at;
        if self.text[start..].starts_with("<<") {
            return Err(
                self.error("here-documents (<<) are not supported, write a string with quotation marks")
            );
        }
        while let Some(next) = self.peek() {
            if is_end(next) || self.text[self.at..].starts_with("/*") {
                break;
            }
            if is_variable(&self.text[self.at..]) {
                return Err(self.error(NO_VARIABLES));
            }
            if next.is_control() && next != '\t' {
                return Err(self.error(format!("{next:?} is not possible here")));
            }
            self.next();
        }
        let word = self.text[start..self.at].trim_end();
        atom(word).map_err(|reason| error_at(start, reason))
    }

    /// A string in quotation marks. Between `'` nothing but `\'` has a meaning of its own.
    fn quoted(&mut self) -> Read<String> {
        let open = self.at;
        let mark = self.next();
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.next() {
                None => return Err(error_at(open, "the quotation mark is not closed")),
                end if end == mark => break,
                Some('\n') if mark == Some('"') => {
                    return Err(error_at(open, "the quotation mark is not closed in its line"));
                }
                Some('\\') if mark == Some('"') => text.push(self.escape(at)?),
                Some('\\') if self.peek() == mark => text.extend(self.next()),
                Some(other) => text.push(other),
            }
        }
        if text.char_indices().any(|(at, _)| is_variable(&text[at..])) {
            return Err(error_at(open, NO_VARIABLES));
        }
        Ok(text)
    }

    /// What stands behind a backslash, which is at `at`, as JSON has it.
    fn escape(&mut self, at: usize) -> Read<char> {
        match self.next() {
            Some(c @ ('"' | '\\' | '/')) => Ok(c),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => self.code_point(at),
            _ => Err(error_at(at, "no escape begins like this")),
        }
    }

    /// The four digits of `\uXXXX`, or two of these that make one character (RFC 8259, section 7).
    fn code_point(&mut self, at: usize) -> Read<char> {
        let wrong = || error_at(at, "\\u needs four hexadecimal digits that make a character");
        let first = self.four_digits().ok_or_else(wrong)?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or_else(wrong);
        }
        if !self.text[self.at..].starts_with("\\u") {
            return Err(wrong());
        }
        self.at += 2;
        let second = self.four_digits().filter(|unit| (0xdc00..0xe000).contains(unit)).ok_or_else(wrong)?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or_else(wrong)
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        let all_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.at += 4;
        u32::from_str_radix(digits, 16).ok().filter(|_| all_hex)
    }

    /// Skips white space, comments, and any number of `;` and `,`.
    fn skip_separators(&mut self) -> Read<()> {
        self.skip()?;
        while let Some(';' | ',') = self.peek() {
            self.next();
            self.skip()?;
        }
        Ok(())
    }

    /// Skips white space and comments; whether a line ended.
    fn skip(&mut self) -> Read<bool> {
        let mut newline = false;
        loop {
            match self.peek() {
                Some('#') => {
                    self.take_while(|c| c != '\n');
                }
                Some('/') if self.text[self.at..].starts_with("/*") => self.skip_comment()?,
                Some(space) if space.is_ascii_whitespace() => {
                    newline |= space == '\n' || space == '\r';
                    self.next();
                }
                _ => return Ok(newline),
            }
        }
    }

    fn skip_comment(&mut self) -> Read<()> {
        let open = self.at;
        let mut depth = 0;
        loop {
            let rest = &self.text[self.at..];
            if rest.starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if rest.starts_with("*/") {
                depth -= 1;
                self.at += 2;
            } else if self.next().is_none() {
                return Err(error_at(open, "the comment is not closed"));
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// One more value is open from here on.
    fn enter(&mut self) -> Read<()> {
        if self.depth == DEPTH_MAX {
            return Err(self.error("values are nested too deeply"));
        }
        self.depth += 1;
        Ok(())
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let len = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn error(&self, reason: impl Into<String>) -> SyntaxError {
        error_at(self.at, reason)
    }
}

fn error_at(at: usize, reason: impl Into<String>) -> SyntaxError {
    SyntaxError { at, reason: reason.into() }
}

/// True if the text would begin with the value of something else where variables exist.
fn is_variable(text: &str) -> bool {
    let name = text.strip_prefix('$');
    name.is_some_and(|name| name.starts_with(|c: char| c == '{' || c == '_' || c.is_ascii_alphabetic()))
}

fn is_key(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')
}

/// True for what ends a value without quotation marks.
fn is_end(c: char) -> bool {
    matches!(c, ',' | ';' | '\n' | '\r' | '#' | '{' | '}' | '[' | ']')
}

const NO_VARIABLES: &str = "variables ($NAME, ${NAME}) are not supported";

/// Values within values.
const DEPTH_MAX: usize = 64;
