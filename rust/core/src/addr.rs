//! Addresses: families, local addresses, and the numeric forms of the protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str;
use std::sync::Arc;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `ip`.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A local address that media ports are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAddr {
    /// The address to bind; may be the wildcard.
    pub ip: IpAddr,
    /// What replies say instead of the address (`=ADV`, `-A`).
    pub advertised: Option<Arc<str>>,
}

impl LocalAddr {
    /// The plain address, advertised as itself.
    pub fn plain(ip: IpAddr) -> Self {
        Self { ip, advertised: None }
    }

    /// The family of the address.
    pub fn family(&self) -> Family {
        Family::of(self.ip)
    }
}

/// Reads a numeric address of `family`.
///
/// IPv4 takes every form of `inet_aton`: one to four parts, each decimal, octal (`0…`) or hexadecimal
/// (`0x…`), of which the last fills the bytes that are left, as in `127.1`. IPv6 takes no zone.
/// `None` if anything stands behind the address, or if it is one of the other family.
pub fn parse_numeric(text: &[u8], family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => parse_v4(text).map(IpAddr::V4),
        Family::V6 => str::from_utf8(text).ok()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    }
}

/// Reads a decimal port number: leading zeros and a `+` are fine, and of a number above 65535 the low
/// 16 bits count.
pub fn parse_port(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0_u16, |port, digit| port.wrapping_mul(10).wrapping_add(u16::from(digit - b'0'))))
}

fn parse_v4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut parts = [0_u32; 4];
    let mut count = 0;
    for part in text.split(|&byte| byte == b'.') {
        *parts.get_mut(count)? = parse_v4_part(part)?;
        count += 1;
    }
    let (leading, last) = (&parts[..count - 1], parts[count - 1]);
    let last_max = u32::MAX.checked_shr(8 * u32::try_from(leading.len()).ok()?)?;
    if last > last_max || leading.iter().any(|&part| part > 0xff) {
        return None;
    }
    let head = leading.iter().zip([24, 16, 8]).fold(0, |bits, (part, shift)| bits | part << shift);
    Some(Ipv4Addr::from_bits(head | last))
}

/// One part between the dots: decimal, octal or hexadecimal by its prefix.
fn parse_v4_part(part: &[u8]) -> Option<u32> {
    let (digits, radix) = match part {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', digits @ ..] if !digits.is_empty() => (digits, 8),
        _ => (part, 10),
    };
    // The parser of integers would take a sign.
    if !digits.first()?.is_ascii_hexdigit() {
        return None;
    }
    u32::from_str_radix(str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_ipv4() {
        let rows = [
            ("192.0.2.1", Some([192, 0, 2, 1])),
            ("127.1", Some([127, 0, 0, 1])),
            ("10.1.258", Some([10, 1, 1, 2])),
            ("2130706433", Some([127, 0, 0, 1])),
            ("0x7f.0.0.1", Some([127, 0, 0, 1])),
            ("0X7F000001", Some([127, 0, 0, 1])),
            ("0177.0.0.01", Some([127, 0, 0, 1])),
            ("0.0.0.0", Some([0, 0, 0, 0])),
            ("255.255.255.255", Some([255; 4])),
            ("255.16777215", Some([255; 4])),
            ("4294967295", Some([255; 4])),
            ("4294967296", None),
            ("255.16777216", None),
            ("256.1.1.1", None),
            ("1.2.3.256", None),
            ("1.2.3.4.5", None),
            ("1.2.3.", None),
            (".1.2.3", None),
            ("1..2.3", None),
            ("1.2.3.08", None),
            ("1.2.3.0x", None),
            ("1.2.3.+4", None),
            ("1.2.3.0x+4", None),
            ("1.2.3.-4", None),
            ("1.2.3.4x", None),
            ("1.2.3.4 ", None),
            ("localhost", None),
            ("::1", None),
            ("", None),
        ];
        for (text, bytes) in rows {
            assert_eq!(parse_numeric(text.as_bytes(), Family::V4), bytes.map(IpAddr::from), "{text}");
        }
    }

    #[test]
    fn forms_of_ipv6() {
        let rows = [
            ("::", true),
            ("::1", true),
            ("2001:DB8::1", true),
            ("::ffff:192.0.2.1", true),
            ("fe80::1%lo", false),
            ("[::1]", false),
            ("::1x", false),
            ("127.0.0.1", false),
            ("", false),
        ];
        for (text, good) in rows {
            assert_eq!(parse_numeric(text.as_bytes(), Family::V6).is_some(), good, "{text}");
        }
        assert_eq!(parse_numeric(b"\xff", Family::V6), None);
    }

    #[test]
    fn ports() {
        let rows = [
            ("0", Some(0)),
            ("65535", Some(65535)),
            ("65536", Some(0)),
            ("70000", Some(4464)),
            ("99999999999999999999999999999999", Some(u16::MAX)),
            ("0005060", Some(5060)),
            ("+5060", Some(5060)),
            ("++1", None),
            ("+", None),
            ("-1", None),
            ("", None),
            ("abc", None),
            ("12345x", None),
            ("0x10", None),
        ];
        for (text, port) in rows {
            assert_eq!(parse_port(text.as_bytes()), port, "{text}");
        }
    }
}
