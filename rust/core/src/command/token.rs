//! Cutting a request into words.

use super::ErrorCode;

/// The most sub-commands one request may carry.
const SUB_COMMANDS_MAX: usize = 15;
/// The most words a command or a sub-command may have, the command word included.
const WORDS_MAX: usize = 23;

/// The words of a command or of a sub-command; never empty.
pub(super) type Words<'a> = Vec<&'a [u8]>;

/// A request cut at white space and at `&&`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tokens<'a> {
    /// The command.
    pub main: Words<'a>,
    /// The sub-commands.
    pub subs: Vec<Words<'a>>,
}

/// Splits a datagram into its cookie and the command behind it, which may be empty.
///
/// `None` if there is nothing but white space, or if the first word holds a NUL byte and so cannot be
/// sent back: such a datagram is answered without a cookie.
pub fn split_cookie(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = datagram.iter().position(|&byte| !is_separator(byte))?;
    let rest = &datagram[start..];
    let end = rest.iter().position(|&byte| is_separator(byte)).unwrap_or(rest.len());
    let (cookie, command) = rest.split_at(end);
    (!cookie.contains(&0)).then_some((cookie, command))
}

/// Cuts `text` into words. Every refusal is E5: no words, a NUL byte, an empty sub-command, too many of
/// anything.
pub(super) fn split(text: &[u8]) -> Result<Tokens<'_>, ErrorCode> {
    if text.contains(&0) {
        return Err(ErrorCode::TOKEN);
    }
    let mut groups = vec![Words::new()];
    for word in text.split(|&byte| is_separator(byte)).filter(|word| !word.is_empty()) {
        let group = groups.last_mut().expect("there is always a group being filled");
        if word != b"&&" {
            if group.len() == WORDS_MAX {
                return Err(ErrorCode::TOKEN);
            }
            group.push(word);
        } else if group.is_empty() || groups.len() > SUB_COMMANDS_MAX {
            return Err(ErrorCode::TOKEN);
        } else {
            groups.push(Words::new());
        }
    }
    if groups.iter().any(Vec::is_empty) {
        return Err(ErrorCode::TOKEN);
    }
    let subs = groups.split_off(1);
    let main = groups.pop().expect("the first group is the command");
    Ok(Tokens { main, subs })
}

/// True for the bytes between words.
pub(super) fn is_separator(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r' | b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_at_runs_of_white_space() {
        let tokens = split(b" \tU  a\r\nb\n").unwrap();
        assert_eq!(tokens.main, [b"U".as_slice(), b"a", b"b"]);
        assert!(tokens.subs.is_empty());
    }

    #[test]
    fn sub_commands_start_at_a_word_of_two_ampersands() {
        let tokens = split(b"U a && D && S ttl=5").unwrap();
        assert_eq!(tokens.main, [b"U".as_slice(), b"a"]);
        assert_eq!(tokens.subs, [vec![b"D".as_slice()], vec![b"S".as_slice(), b"ttl=5"]]);
        assert!(split(b"U a&& &&b &&&").unwrap().subs.is_empty());
    }

    #[test]
    fn refusals() {
        let rows: [&[u8]; 9] =
            [b"", b" \t\r\n", b"V\0", b"\0", b"&&", b"&& D", b"U &&", b"U && && D", b"U && D &&"];
        for row in rows {
            assert_eq!(split(row), Err(ErrorCode::TOKEN), "{row:?}");
        }
    }

    #[test]
    fn limits() {
        let words = |count: usize| ["w"; 24][..count].join(" ");
        assert!(split(words(23).as_bytes()).is_ok());
        assert_eq!(split(words(24).as_bytes()), Err(ErrorCode::TOKEN));
        assert!(split(format!("U && {}", words(23)).as_bytes()).is_ok());
        assert_eq!(split(format!("U && {}", words(24)).as_bytes()), Err(ErrorCode::TOKEN));
        assert_eq!(split(["U"; 16].join(" && ").as_bytes()).unwrap().subs.len(), 15);
        assert_eq!(split(["U"; 17].join(" && ").as_bytes()), Err(ErrorCode::TOKEN));
    }

    #[test]
    fn cookies() {
        assert_eq!(split_cookie(b"c1 V"), Some((b"c1".as_slice(), b" V".as_slice())));
        assert_eq!(split_cookie(b"  c1\tV\n"), Some((b"c1".as_slice(), b"\tV\n".as_slice())));
        assert_eq!(split_cookie(b"c1"), Some((b"c1".as_slice(), b"".as_slice())));
        for blank in [b"".as_slice(), b" \r\n", b"c\x001 V"] {
            assert_eq!(split_cookie(blank), None);
        }
    }
}
