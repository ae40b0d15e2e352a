//! pcapng: blocks of a length that stands at both ends.

use rtpproxy_core::pcapng::{INTERFACE_NAMES, SYNTHETIC_NAME, interface_of};
use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::time::Wall;

use super::frame::{self, Link};
use super::{CaptureError, Headers, Origin, Packet, Record, chunk};

pub(super) fn is_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(&SECTION.to_be_bytes())
}

#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    order: ByteOrder,
    /// Those of the section so far.
    interfaces: Vec<Interface>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, order: ByteOrder::Little, interfaces: Vec::new() }
    }

    pub(super) fn next(&mut self) -> Option<Record<'a>> {
        while self.at < self.bytes.len() {
            match self.block() {
                Ok(Some(record)) => return Some(record),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    /// Reads a block; none if it holds no packet.
    fn block(&mut self) -> Result<Option<Record<'a>>, CaptureError> {
        let at = self.at;
        let cut = CaptureError::Cut { what: "a block", at };
        let Some(head) = chunk::<8>(self.bytes, at) else { return Err(cut) };
        if head.starts_with(&SECTION.to_be_bytes()) {
            let Some(magic) = chunk(self.bytes, at + 8) else { return Err(cut) };
            self.order = ByteOrder::of(magic)
                .ok_or(CaptureError::Broken { reason: "a section in no byte order", at: at + 8 })?;
            self.interfaces.clear();
        }
        let kind = self.order.word(&head, 0).expect("there are 8 bytes");
        let len = self.order.word(&head, 4).expect("there are 8 bytes") as usize;
        if len < EMPTY_BLOCK_LEN || !len.is_multiple_of(4) {
            return Err(CaptureError::Broken { reason: "a block of an impossible length", at });
        }
        let Some(block) = self.bytes.get(at..at.saturating_add(len)) else { return Err(cut) };
        let (body, tail) = block[8..].split_at(len - EMPTY_BLOCK_LEN);
        if self.order.word(tail, 0) != Some(len as u32) {
            return Err(CaptureError::Broken { reason: "a block whose two lengths differ", at });
        }
        self.at += len;
        let broken = CaptureError::Broken { reason: "a block that is too short for what it holds", at };
        match kind {
            INTERFACE => self.interfaces.push(Interface::parse(self.order, body).ok_or(broken)?),
            ENHANCED_PACKET => return self.enhanced_packet(body, at).map(Ok).map(Some),
            // Both have no time, so they cannot be placed in a stream.
            SIMPLE_PACKET | OBSOLETE_PACKET => return Ok(Some(Ok(None))),
            _ => {}
        }
        Ok(None)
    }

    fn enhanced_packet(&self, body: &'a [u8], at: usize) -> Result<Option<Packet<'a>>, CaptureError> {
        let word = |offset| self.order.word(body, offset);
        let (Some(number), Some(high), Some(low), Some(len)) = (word(0), word(4), word(8), word(12)) else {
            return Err(CaptureError::Broken { reason: "a packet block without a packet", at });
        };
        let interface = self
            .interfaces
            .get(number as usize)
            .ok_or(CaptureError::Broken { reason: "a packet of an interface that is not described", at })?;
        let frame = body
            .get(PACKET_HEADER_LEN..PACKET_HEADER_LEN.saturating_add(len as usize))
            .ok_or(CaptureError::Broken { reason: "a packet longer than its block", at })?;
        let ticks = u64::from(high) << 32 | u64::from(low);
        Ok(frame::datagram(interface.link, frame, Headers::Read).map(|datagram| Packet {
            at: interface.time(ticks),
            source: datagram.source,
            destination: Some(datagram.destination),
            origin: interface.origin,
            payload: datagram.payload,
        }))
    }
}

#[derive(Clone, Copy, Debug)]
enum ByteOrder {
    Big,
    Little,
}

impl ByteOrder {
    fn of(magic: [u8; 4]) -> Option<Self> {
        match u32::from_be_bytes(magic) {
            BYTE_ORDER_MAGIC => Some(Self::Big),
            magic if magic == BYTE_ORDER_MAGIC.swap_bytes() => Some(Self::Little),
            _ => None,
        }
    }

    fn word(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = chunk(bytes, at)?;
        Some(match self {
            Self::Big => u32::from_be_bytes(bytes),
            Self::Little => u32::from_le_bytes(bytes),
        })
    }

    fn half(self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = chunk(bytes, at)?;
        Some(match self {
            Self::Big => u16::from_be_bytes(bytes),
            Self::Little => u16::from_le_bytes(bytes),
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: Link,
    /// Ticks of its time stamps in a second.
    rate: u64,
    /// Seconds to add to them.
    offset: i64,
    origin: Origin,
}

impl Interface {
    fn parse(order: ByteOrder, body: &[u8]) -> Option<Self> {
        let link = Link(order.half(body, 0)?);
        let mut interface = Self { link, rate: 1_000_000, offset: 0, origin: Origin::Unnamed };
        let mut options = body.get(8..)?;
        while let (Some(code), Some(len)) = (order.half(options, 0), order.half(options, 2)) {
            let len = usize::from(len);
            let value = options.get(4..4 + len)?;
            match (code, value) {
                (OPTION_END, _) => break,
                (OPTION_NAME, name) => interface.origin = origin(name),
                (OPTION_RESOLUTION, &[exponent]) => interface.rate = rate(exponent)?,
                (OPTION_OFFSET, value) => interface.offset = offset(order, value)?,
                _ => {}
            }
            options = options.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(interface)
    }

    fn time(&self, ticks: u64) -> Wall {
        let seconds = i128::from(ticks / self.rate) + i128::from(self.offset);
        let nanos = i128::from(ticks % self.rate) * 1_000_000_000 / i128::from(self.rate);
        let time = (seconds * 1_000_000_000 + nanos).clamp(0, i128::from(u64::MAX));
        Wall(time as u64)
    }
}

fn origin(name: &[u8]) -> Origin {
    // Some writers count the end of a C string in.
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    if name == SYNTHETIC_NAME.as_bytes() {
        return Origin::Synthetic;
    }
    let streams = [Channel::Rtp, Channel::Rtcp]
        .into_iter()
        .flat_map(|channel| [Leg::Caller, Leg::Callee].map(|leg| (leg, channel)));
    for (leg, channel) in streams {
        if INTERFACE_NAMES[interface_of(leg, channel) as usize].as_bytes() == name {
            return Origin::Leg(leg, channel);
        }
    }
    Origin::Unnamed
}

/// The ticks in a second: a power of 2 or of 10.
fn rate(exponent: u8) -> Option<u64> {
    let (base, exponent) = if exponent & 0x80 == 0 { (10_u64, exponent) } else { (2, exponent & 0x7f) };
    base.checked_pow(exponent.into())
}

fn offset(order: ByteOrder, value: &[u8]) -> Option<i64> {
    let bytes = chunk(value, 0)?;
    Some(match order {
        ByteOrder::Big => i64::from_be_bytes(bytes),
        ByteOrder::Little => i64::from_le_bytes(bytes),
    })
}

/// The same in both byte orders.
const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const EMPTY_BLOCK_LEN: usize = 12;
const PACKET_HEADER_LEN: usize = 20;

const OPTION_END: u16 = 0;
const OPTION_NAME: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;
