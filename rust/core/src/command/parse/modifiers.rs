//! The modifiers of `U` and `L`.

use std::net::IpAddr;
use std::str;

use super::Rules;
use crate::addr::{Family, parse_numeric};
use crate::command::{ErrorCode, LocalSpec, Modifier, Modifiers};

/// Parses what is glued to `U` or `L`, from left to right; the first offender decides the error code.
pub(super) fn parse(text: &[u8], rules: &mut dyn Rules) -> Result<Modifiers, ErrorCode> {
    let mut list = Vec::new();
    let mut rest = text;
    while let Some((&letter, behind)) = rest.split_first() {
        let (modifier, remaining) = one(letter, behind, &list)?;
        rules.modifier(&list, &modifier)?;
        list.push(modifier);
        rest = remaining;
    }
    Ok(Modifiers(list))
}

/// The modifier of `letter`, and what is left of the text `behind` it.
fn one<'a>(letter: u8, behind: &'a [u8], earlier: &[Modifier]) -> Result<(Modifier, &'a [u8]), ErrorCode> {
    let modifier = match letter.to_ascii_lowercase() {
        b'a' => Modifier::Asymmetric,
        b's' => Modifier::Symmetric,
        b'e' => Modifier::External,
        b'i' => Modifier::Internal,
        b'6' => Modifier::Ipv6,
        b'w' => Modifier::Weak,
        b'n' => Modifier::NewPort,
        b'z' => return repacketize(behind),
        b'c' => return codecs(behind, earlier),
        b'l' => return local(behind),
        b'r' => {
            let (ip, remaining) = address(behind, ErrorCode::ROUTE_SYNTAX)?;
            return Ok((Modifier::RouteTo(ip.ok_or(ErrorCode::NO_ROUTE)?), remaining));
        }
        _ => return Err(ErrorCode::MODIFIER),
    };
    Ok((modifier, behind))
}

fn repacketize(text: &[u8]) -> Result<(Modifier, &[u8]), ErrorCode> {
    let unsigned = text.strip_prefix(b"+").unwrap_or(text);
    let (digits, remaining) = split_run(unsigned, |byte| byte.is_ascii_digit());
    str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .filter(|milliseconds| (1..=999).contains(milliseconds))
        .map(|milliseconds| (Modifier::Repacketize(milliseconds), remaining))
        .ok_or(ErrorCode::REPACKETIZE)
}

fn codecs<'a>(text: &'a [u8], earlier: &[Modifier]) -> Result<(Modifier, &'a [u8]), ErrorCode> {
    let (list, remaining) = split_run(text, |byte| byte.is_ascii_digit() || byte == b',');
    let repeated = earlier.iter().any(|modifier| matches!(modifier, Modifier::Codecs(_)));
    if list.is_empty() || repeated {
        return Err(ErrorCode::CODECS);
    }
    Ok((Modifier::Codecs(String::from_utf8_lossy(list).into()), remaining))
}

fn local(text: &[u8]) -> Result<(Modifier, &[u8]), ErrorCode> {
    let (spec, remaining) = if let Some(inner) = text.strip_prefix(b"{") {
        let (label, remaining) = bracketed(inner, b'}').ok_or(ErrorCode::LOCAL_SYNTAX)?;
        // Labels are configured as text, so one that is not text is unknown.
        (str::from_utf8(label).ok().map(|label| LocalSpec::Label(label.into())), remaining)
    } else {
        let (ip, remaining) = address(text, ErrorCode::LOCAL_SYNTAX)?;
        (ip.map(LocalSpec::Addr), remaining)
    };
    Ok((Modifier::Local(spec.ok_or(ErrorCode::LOCAL_UNKNOWN)?), remaining))
}

/// An address as it stands behind `l` and `r`: digits and dots, or hexadecimal digits and colons in
/// brackets. `malformed` says that it is neither; no address that it looks right but means nothing.
fn address(text: &[u8], malformed: ErrorCode) -> Result<(Option<IpAddr>, &[u8]), ErrorCode> {
    let (digits, remaining, family) = if let Some(inner) = text.strip_prefix(b"[") {
        let (digits, remaining) = bracketed(inner, b']').ok_or(malformed)?;
        if !digits.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b':') {
            return Err(malformed);
        }
        (digits, remaining, Family::V6)
    } else {
        let (digits, remaining) = split_run(text, |byte| byte.is_ascii_digit() || byte == b'.');
        (digits, remaining, Family::V4)
    };
    if digits.is_empty() {
        return Err(malformed);
    }
    Ok((parse_numeric(digits, family), remaining))
}

/// What stands before the first `close`, and what behind it.
fn bracketed(text: &[u8], close: u8) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|&byte| byte == close)?;
    Some((&text[..end], &text[end + 1..]))
}

/// The leading bytes that `belongs` accepts, and the rest.
fn split_run(text: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|&byte| !belongs(byte)).unwrap_or(text.len()))
}
