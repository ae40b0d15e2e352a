//! Messages to capture servers: HEP, version 3 (the protocol of Homer), as bytes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::time::Wall;

/// An RTCP packet for a capture server.
#[derive(Clone, Copy, Debug)]
pub struct HepMessage<'a> {
    /// The call.
    pub call_id: &'a [u8],
    /// When the packet arrived.
    pub at: Wall,
    /// Who sent it.
    pub src: SocketAddr,
    /// Where it arrived.
    pub dst: SocketAddr,
    /// The number of the capture agent. Its lower 16 bits are sent, as the upper half of the field: what the
    /// C program sends on common machines, and servers that know its calls expect.
    pub capture_id: u32,
    /// The reports as JSON.
    pub payload: &'a [u8],
}

impl HepMessage<'_> {
    /// Adds the message to `buffer`, which is as before after an error.
    ///
    /// ```text
    /// "HEP3", length of the message in 2 bytes, then chunks, each:
    /// +---------------+---------------+---------------+-------------
    /// | vendor 0      | type          | length + 6    | value ...
    /// +---------------+---------------+---------------+-------------
    /// ```
    ///
    /// # Errors
    ///
    /// [`HepTooLong`] when it does not fit into the 65,535 bytes that its length can tell.
    pub fn encode(&self, buffer: &mut Vec<u8>) -> Result<(), HepTooLong> {
        let start = buffer.len();
        buffer.extend(b"HEP3\0\0");
        let written = self.write_chunks(buffer).and_then(|()| {
            let len = u16_of(buffer.len() - start)?;
            buffer[start + 4..start + 6].copy_from_slice(&len.to_be_bytes());
            Ok(())
        });
        if written.is_err() {
            buffer.truncate(start);
        }
        written
    }

    fn write_chunks(&self, buffer: &mut Vec<u8>) -> Result<(), HepTooLong> {
        let seconds = (self.at.0 / NANOS_PER_S) as u32;
        let microseconds = (self.at.0 % NANOS_PER_S / 1000) as u32;
        let [_, _, high, low] = self.capture_id.to_be_bytes();
        let is_v4 = self.src.is_ipv4() && self.dst.is_ipv4();

        chunk(buffer, FAMILY, &[if is_v4 { AF_INET } else { AF_INET6 }])?;
        chunk(buffer, PROTOCOL, &[UDP])?;
        chunk(buffer, SRC_PORT, &self.src.port().to_be_bytes())?;
        chunk(buffer, DST_PORT, &self.dst.port().to_be_bytes())?;
        chunk(buffer, SECONDS, &seconds.to_be_bytes())?;
        chunk(buffer, MICROSECONDS, &microseconds.to_be_bytes())?;
        chunk(buffer, CONTENT, &[RTCP_AS_JSON])?;
        chunk(buffer, CAPTURE_ID, &[high, low, 0, 0])?;
        chunk(buffer, CALL_ID, self.call_id)?;
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                chunk(buffer, SRC_V4, &src.octets())?;
                chunk(buffer, DST_V4, &dst.octets())?;
            }
            (src, dst) => {
                chunk(buffer, SRC_V6, &v6(src).octets())?;
                chunk(buffer, DST_V6, &v6(dst).octets())?;
            }
        }
        chunk(buffer, PAYLOAD, self.payload)
    }
}

/// A message whose length cannot be told: longer than 65,535 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes are too many for a HEP message")]
pub struct HepTooLong {
    /// The length that was too much, of the message or of a part of it, in bytes.
    len: usize,
}

fn chunk(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) -> Result<(), HepTooLong> {
    let len = u16_of(value.len() + CHUNK_HEADER_LEN)?;
    buffer.extend([0, 0]);
    buffer.extend(kind.to_be_bytes());
    buffer.extend(len.to_be_bytes());
    buffer.extend(value);
    Ok(())
}

fn u16_of(len: usize) -> Result<u16, HepTooLong> {
    u16::try_from(len).map_err(|_| HepTooLong { len })
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Vendor, type and length.
const CHUNK_HEADER_LEN: usize = 6;

const FAMILY: u16 = 1;
const PROTOCOL: u16 = 2;
const SRC_V4: u16 = 3;
const DST_V4: u16 = 4;
const SRC_V6: u16 = 5;
const DST_V6: u16 = 6;
const SRC_PORT: u16 = 7;
const DST_PORT: u16 = 8;
const SECONDS: u16 = 9;
const MICROSECONDS: u16 = 10;
const CONTENT: u16 = 11;
const CAPTURE_ID: u16 = 12;
const PAYLOAD: u16 = 15;
const CALL_ID: u16 = 17;

/// The address families, as Linux numbers them.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The IP protocol.
const UDP: u8 = 17;
/// The content type.
const RTCP_AS_JSON: u8 = 5;

const NANOS_PER_S: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(message: &HepMessage<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn over_ipv4() {
        let message = HepMessage {
            call_id: b"call-1",
            at: Wall(1_700_000_000_123_456_789),
            src: "192.0.2.1:4001".parse().unwrap(),
            dst: "198.51.100.2:35001".parse().unwrap(),
            capture_id: 101,
            payload: b"{}",
        };
        let expected = [
            b"HEP3\0\x71".as_slice(),
            b"\0\0\0\x01\0\x07\x02",
            b"\0\0\0\x02\0\x07\x11",
            b"\0\0\0\x07\0\x08\x0f\xa1",
            b"\0\0\0\x08\0\x08\x88\xb9",
            b"\0\0\0\x09\0\x0a\x65\x53\xf1\x00",
            b"\0\0\0\x0a\0\x0a\x00\x01\xe2\x40",
            b"\0\0\0\x0b\0\x07\x05",
            b"\0\0\0\x0c\0\x0a\x00\x65\x00\x00",
            b"\0\0\0\x11\0\x0ccall-1",
            b"\0\0\0\x03\0\x0a\xc0\x00\x02\x01",
            b"\0\0\0\x04\0\x0a\xc6\x33\x64\x02",
            b"\0\0\0\x0f\0\x08{}",
        ];
        let expected = expected.concat();
        assert_eq!(encoded(&message), expected);
        assert_eq!(expected.len(), 0x71);
    }

    #[test]
    fn over_ipv6_without_reports() {
        let message = HepMessage {
            call_id: b"c",
            at: Wall(1_999_999_999),
            src: "[2001:db8::1]:4001".parse().unwrap(),
            dst: "[::1]:35001".parse().unwrap(),
            capture_id: 0x0003_0201,
            payload: b"",
        };
        let bytes = encoded(&message);
        assert_eq!(bytes[6..13], *b"\0\0\0\x01\0\x07\x0a");
        let times = [b"\0\0\0\x09\0\x0a\0\0\0\x01".as_slice(), b"\0\0\0\x0a\0\x0a\x00\x0f\x42\x3f"].concat();
        assert_eq!(bytes[36..56], times);
        assert_eq!(bytes[63..73], *b"\0\0\0\x0c\0\x0a\x02\x01\0\0");
        let ends = [
            b"\0\0\0\x05\0\x16\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01".as_slice(),
            b"\0\0\0\x06\0\x16\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01",
            b"\0\0\0\x0f\0\x06",
        ];
        assert!(bytes.ends_with(&ends.concat()));
    }

    #[test]
    fn too_long_is_refused_and_leaves_nothing() {
        let payload = vec![b'x'; 65_535];
        let message = HepMessage {
            call_id: b"c",
            at: Wall(0),
            src: "192.0.2.1:1".parse().unwrap(),
            dst: "192.0.2.2:2".parse().unwrap(),
            capture_id: 1,
            payload: &payload,
        };
        let mut bytes = b"before".to_vec();
        for len in [65_535, 65_529, 65_500] {
            assert!(HepMessage { payload: &payload[..len], ..message }.encode(&mut bytes).is_err());
            assert_eq!(bytes, b"before");
        }
        HepMessage { payload: &payload[..65_400], ..message }.encode(&mut bytes).unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([bytes[10], bytes[11]])), bytes.len() - 6);
    }

    proptest! {
        #[test]
        fn chunks_end_where_the_message_does(
            call_id in prop::collection::vec(any::<u8>(), 0..300),
            payload in prop::collection::vec(any::<u8>(), 0..2000),
            src: SocketAddr,
            dst: SocketAddr,
        ) {
            let at = Wall(1_700_000_000_000_000_000);
            let bytes =
                encoded(&HepMessage { call_id: &call_id, at, src, dst, capture_id: 7, payload: &payload });
            let mut rest = &bytes[6..];
            let mut found = Vec::new();
            while let Some((&[0, 0, 0, kind, high, low], _)) = rest.split_first_chunk() {
                let (chunk, behind) = rest.split_at(usize::from(u16::from_be_bytes([high, low])));
                found.push((kind, chunk[6..].to_vec()));
                rest = behind;
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(found.len(), 12);
            prop_assert!(found.contains(&(17, call_id)) && found.contains(&(15, payload)));
        }
    }
}
