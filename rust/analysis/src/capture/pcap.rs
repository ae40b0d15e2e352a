//! Classic pcap.

use rtpproxy_core::time::Wall;

use super::frame::{self, Link};
use super::{CaptureError, Headers, Origin, Packet, Record, chunk};

pub(super) fn is_magic(bytes: &[u8]) -> bool {
    chunk(bytes, 0).is_some_and(|magic: [u8; 4]| MAGICS.contains(&u32::from_be_bytes(magic)))
}

/// What the head of a file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    is_big_endian: bool,
    has_nanoseconds: bool,
    link: Link,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CaptureError> {
        let header: [u8; FILE_HEADER_LEN] =
            chunk(bytes, 0).ok_or(CaptureError::Cut { what: "the head of a pcap file", at: 0 })?;
        let is_big_endian = matches!(header[0], 0xa1);
        let word = |at: usize| word(is_big_endian, &header, at).expect("the header has 24 bytes");
        let version = word(4);
        let (major, minor) =
            if is_big_endian { (version >> 16, version & 0xffff) } else { (version & 0xffff, version >> 16) };
        if (major, minor) != (2, 4) {
            return Err(CaptureError::Broken { reason: "a pcap version other than 2.4", at: 4 });
        }
        // The upper half holds flags.
        let link = Link(word(20) as u16);
        if !link.is_known() {
            return Err(CaptureError::Broken { reason: "a link type that carries no IP", at: 20 });
        }
        Ok(Self { is_big_endian, has_nanoseconds: word(0) == MAGIC_NANO, link })
    }

    /// Whether the C program reads such a file.
    fn is_original(self) -> bool {
        self.is_big_endian == cfg!(target_endian = "big") && !self.has_nanoseconds && self.link.is_original()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    header: Option<Header>,
    headers: Headers,
}

impl<'a> Reader<'a> {
    /// A reader of a file whose header was found right.
    pub(super) fn new(bytes: &'a [u8], headers: Headers) -> Self {
        Self { bytes, at: FILE_HEADER_LEN, header: Header::parse(bytes).ok(), headers }
    }

    pub(super) fn next(&mut self) -> Option<Record<'a>> {
        let header = self.header?;
        if self.headers == Headers::Fixed && !header.is_original() {
            let reason = "a kind of pcap that only rtpproxy extract reads";
            return Some(Err(CaptureError::Broken { reason, at: 0 }));
        }
        (self.at < self.bytes.len()).then(|| self.record(header))
    }

    fn record(&mut self, header: Header) -> Record<'a> {
        let at = self.at;
        let word = |offset| word(header.is_big_endian, self.bytes, at + offset);
        let (Some(seconds), Some(fraction), Some(len)) = (word(0), word(4), word(8)) else {
            return Err(CaptureError::Cut { what: "the header of a packet", at });
        };
        let start = at + RECORD_HEADER_LEN;
        let end = start.saturating_add(len as usize);
        let frame = self.bytes.get(start..end).ok_or(CaptureError::Cut { what: "a packet", at })?;
        self.at = end;
        let unit = if header.has_nanoseconds { 1 } else { 1000 };
        let at = Wall(u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit);
        Ok(frame::datagram(header.link, frame, self.headers).map(|datagram| Packet {
            at,
            source: datagram.source,
            destination: Some(datagram.destination),
            origin: Origin::Unnamed,
            payload: datagram.payload,
        }))
    }
}

fn word(is_big_endian: bool, bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = chunk(bytes, at)?;
    Some(if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
}

const MAGIC_MICRO: u32 = 0xa1b2_c3d4;
const MAGIC_NANO: u32 = 0xa1b2_3c4d;
const MAGICS: [u32; 4] = [MAGIC_MICRO, MAGIC_NANO, MAGIC_MICRO.swap_bytes(), MAGIC_NANO.swap_bytes()];
const FILE_HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 16;
