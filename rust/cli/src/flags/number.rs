//! Values of options that are numbers, read as the C library's strtol(3) reads them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Reads a decimal number: blanks may lead, a sign may stand, nothing may follow the digits. What is too
/// large is the largest there is.
pub(super) fn number(text: &OsStr) -> Option<i64> {
    let blanks = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let text = text.as_bytes();
    let text = &text[text.iter().take_while(|byte| blanks(byte)).count()..];
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(if negative { -value } else { value })
}

/// Reads a count of bytes: digits, then nothing, `K`, `M`, `G` or `T` (powers of 1024).
pub(super) fn bytes(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// Reads a length of time: digits, then `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_strtol_does() {
        for (text, value) in [
            ("0", Some(0)),
            (" \t42", Some(42)),
            ("+7", Some(7)),
            ("-1", Some(-1)),
            ("007", Some(7)),
            ("99999999999999999999", Some(i64::MAX)),
            ("", None),
            ("-", None),
            ("+-1", None),
            ("0x10", None),
            ("1 ", None),
            ("1.5", None),
        ] {
            assert_eq!(number(OsStr::new(text)), value, "{text:?}");
        }
    }

    #[test]
    fn bytes_take_a_unit() {
        assert_eq!(bytes("4096"), Some(4096));
        assert_eq!(bytes("64M"), Some(64 << 20));
        assert_eq!(bytes("2g"), Some(2 << 30));
        assert_eq!(bytes("1T"), Some(1 << 40));
        for text in ["", "M", "-1M", "1P", "1MiB", "99999999999G", "1 M", "+1"] {
            assert_eq!(bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, seconds) in [("30d", 2_592_000), ("12h", 43_200), ("90m", 5_400), ("1s", 1), ("0m", 0)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text:?}");
        }
        for text in ["", "d", "30", "-1d", "1D", "1.5h", "1 h", "1h30m", "+1h", "999999999999999999d"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }
}
