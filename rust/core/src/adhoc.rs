//! The C program's own recording format: no file header, and before each packet 30 packed bytes.
//!
//! All fields but port and address are in host byte order, so a file belongs to machines of one kind.
//!
//! | offset | size | content |
//! |---|---|---|
//! | 0 | 2 | address family: 2 for IPv4, 10 for IPv6 |
//! | 2 | 2 | source port, network order |
//! | 4 | 4 or 16 | source address; IPv4 leaves bytes 8 to 19 zero |
//! | 20 | 8 | double: arrival in seconds since the Unix epoch |
//! | 28 | 2 | length of the packet that follows |

use std::net::{IpAddr, SocketAddr};

use crate::time::Wall;

/// The length of the header before each packet, in bytes.
pub const HEADER_LEN: usize = 30;

/// Appends one packet that `src` sent, with its header. A payload over 65535 bytes is cut.
pub fn record(src: SocketAddr, at: Wall, payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(usize::from(u16::MAX))];
    let mut header = [0; HEADER_LEN];
    header[2..4].copy_from_slice(&src.port().to_be_bytes());
    match src.ip() {
        IpAddr::V4(ip) => {
            header[..2].copy_from_slice(&AF_INET.to_ne_bytes());
            header[4..8].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            header[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
            header[4..20].copy_from_slice(&ip.octets());
        }
    }
    header[20..28].copy_from_slice(&at.seconds().to_ne_bytes());
    header[28..].copy_from_slice(&(payload.len() as u16).to_ne_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
}

/// The numbers of Linux; readers of the format go by them on any system.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_record_is_byte_exact() {
        let mut out = vec![0xee];
        record("192.0.2.10:40000".parse().unwrap(), Wall(1_500_000_000_250_000_000), b"abc", &mut out);
        let mut expected = vec![0xee];
        expected.extend(2_u16.to_ne_bytes());
        expected.extend([0x9c, 0x40, 192, 0, 2, 10]);
        expected.extend([0; 12]);
        // 1500000000.25 = 1.0110… * 2^30: sign 0, exponent 1053 = 0x41d.
        expected.extend(0x41d6_5a0b_c010_0000_u64.to_ne_bytes());
        expected.extend(3_u16.to_ne_bytes());
        expected.extend(b"abc");
        assert_eq!(out, expected);
    }

    #[test]
    fn ipv6_record_is_byte_exact() {
        let mut out = Vec::new();
        record("[2001:db8::a]:1".parse().unwrap(), Wall(0), b"", &mut out);
        let mut expected = Vec::new();
        expected.extend(10_u16.to_ne_bytes());
        expected.extend([0, 1, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a]);
        expected.extend([0; 10]);
        assert_eq!(out, expected);
        assert_eq!(out.len(), HEADER_LEN);
    }

    #[test]
    fn an_oversized_payload_is_cut_where_the_length_field_ends() {
        let mut out = Vec::new();
        record("192.0.2.10:1".parse().unwrap(), Wall(0), &vec![1; 70_000], &mut out);
        assert_eq!(out.len(), HEADER_LEN + 65_535);
        assert_eq!(out[28..30], [0xff, 0xff]);
    }
}
