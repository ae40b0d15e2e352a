//! Classic pcap ([`crate::pcap`]).

use super::{Measure, Origin, Packet, Piece, chunk, is_near};
use crate::frame;
use crate::pcap::{FILE_HEADER_LEN, RECORD_HEADER_LEN};
use crate::time::Wall;

pub(super) fn is_magic(bytes: &[u8]) -> bool {
    chunk(bytes, 0).is_some_and(|magic: [u8; 4]| {
        let magic = u32::from_be_bytes(magic);
        [MICRO, NANO].into_iter().any(|known| magic == known || magic == known.swap_bytes())
    })
}

#[derive(Debug, Default)]
pub(super) struct Layout {
    head: Option<Head>,
    /// The head is damaged: a file of this machine is assumed.
    is_head_lost: bool,
    last: Option<Wall>,
    /// Packets are missing since `last`.
    is_behind_hole: bool,
}

/// What the head of a file says.
#[derive(Clone, Copy, Debug)]
struct Head {
    is_big_endian: bool,
    /// Nanoseconds in the unit of the fraction; none until a packet tells.
    unit: Option<u32>,
    link: u16,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let magic = u32::from_be_bytes(chunk(bytes, 0)?);
        let is_big_endian = magic == MICRO || magic == NANO;
        let magic = if is_big_endian { magic } else { magic.swap_bytes() };
        let unit = match magic {
            MICRO => 1000,
            NANO => 1,
            _ => return None,
        };
        let mut head = Self { is_big_endian, unit: Some(unit), link: 0 };
        // The upper half holds flags.
        head.link = head.word(bytes, 20)? as u16;
        Some(head)
    }

    fn word(&self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = chunk(bytes, at)?;
        Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn record(&self, bytes: &[u8]) -> Option<Record> {
        let word = |at| self.word(bytes, at);
        let (seconds, fraction, len, original) = (word(0)?, word(4)?, word(8)?, word(12)?);
        let unit = self.unit.unwrap_or(if fraction < 1_000_000 { 1000 } else { 1 });
        let nanos = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * u64::from(unit);
        Some(Record { at: Wall(nanos), fraction, unit, len: len as usize, original: original as usize })
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug)]
struct Record {
    at: Wall,
    fraction: u32,
    unit: u32,
    len: usize,
    original: usize,
}

impl Layout {
    pub(super) fn measure(&self, window: &[u8]) -> Measure {
        let Some(head) = self.head() else {
            if window.len() < FILE_HEADER_LEN {
                return Measure::More(FILE_HEADER_LEN);
            }
            return match Head::parse(window) {
                Some(_) => Measure::Whole(FILE_HEADER_LEN),
                None => Measure::Damaged("no head of a pcap file"),
            };
        };
        let Some(record) = head.record(window) else { return Measure::More(RECORD_HEADER_LEN) };
        if window[..RECORD_HEADER_LEN] == [0; RECORD_HEADER_LEN] {
            return Measure::Damaged("zeros where a packet should begin");
        }
        let Record { fraction, unit, len, original, .. } = record;
        if len > original || original > PACKET_MAX {
            return Measure::Damaged("a packet of an impossible length");
        }
        if u64::from(fraction) * u64::from(unit) >= 1_000_000_000 {
            return Measure::Damaged("an impossible time");
        }
        if !self.is_behind_hole && self.last.is_some_and(|last| !is_near(record.at, last)) {
            return Measure::Damaged("a time far from the one before");
        }
        let end = RECORD_HEADER_LEN + len;
        let Some(frame) = window.get(RECORD_HEADER_LEN..end) else { return Measure::More(end) };
        if head.link == ETHERNET && ip_len(frame).is_some_and(|ip| !is_fitting(ip, len, original)) {
            return Measure::Damaged("a packet of another length than its record");
        }
        Measure::Whole(end)
    }

    pub(super) fn resembles(&self, window: &[u8], is_all: bool) -> Measure {
        // Where the head is lost, or damage began before it could be, there are packets of this machine.
        let head = self.head.unwrap_or(ASSUMED);
        let Some(record) = head.record(window) else { return Measure::More(RECORD_HEADER_LEN) };
        let is_ethernet = head.link == ETHERNET;
        let is_timely = self.last.is_some_and(|last| is_near(record.at, last));
        if !(is_timely || is_ethernet) || record.len == 0 || record.original > PACKET_MAX {
            return Measure::Damaged("nothing like a packet");
        }
        let frame = window.get(RECORD_HEADER_LEN..).unwrap_or_default();
        if is_ethernet {
            let Some(begin) = frame.get(..ETHERNET_LEN + IPV6_LEN_AT + 2) else {
                return Measure::More(RECORD_HEADER_LEN + ETHERNET_LEN + IPV6_LEN_AT + 2);
            };
            let (len, original) = (record.len, record.original);
            if ip_len(begin).is_none_or(|ip| ip < IPV4_LEN || !is_fitting(ip, len, original)) {
                return Measure::Damaged("nothing like an Ethernet frame with IP");
            }
        }
        let measured = Self { head: Some(head), is_behind_hole: true, ..*self }.measure(window);
        match measured {
            // Either the call was silent for very long, or damage reaches into the time.
            Measure::Whole(len) if !is_timely => match head.record(&window[len..]) {
                None if is_all && self.last.is_none() => measured,
                None => Measure::More(len + RECORD_HEADER_LEN),
                Some(next) if is_near(record.at, next.at) => measured,
                Some(_) => Measure::Damaged("a time of its own"),
            },
            _ => measured,
        }
    }

    pub(super) fn parse<'a>(&self, piece: &'a [u8]) -> Piece<'a> {
        let Some(head) = self.head() else {
            let is_big_endian = Head::parse(piece).is_some_and(|head| head.is_big_endian);
            return Piece::Head {
                comments: Vec::new(),
                is_native: is_big_endian == cfg!(target_endian = "big"),
            };
        };
        let Some(record) = head.record(piece) else { return Piece::Other };
        let frame = &piece[RECORD_HEADER_LEN..];
        let datagram = if head.link == ETHERNET { frame::datagram(frame) } else { None };
        Piece::Packet(Packet {
            at: record.at,
            interface: 0,
            origin: Origin::Unnamed,
            dropped: 0,
            comments: Vec::new(),
            datagram,
        })
    }

    pub(super) fn accept(&mut self, piece: &[u8], what: &Piece<'_>) {
        match what {
            Piece::Head { .. } => self.head = Head::parse(piece),
            Piece::Packet(packet) => {
                (self.last, self.is_behind_hole) = (Some(packet.at), false);
                if let Some(mut head) = self.head() {
                    head.unit = head.unit.or(head.record(piece).map(|record| record.unit));
                    self.head = Some(head);
                }
            }
            _ => {}
        }
    }

    pub(super) fn note_hole(&mut self) {
        self.is_head_lost |= self.head.is_none();
        self.is_behind_hole = true;
    }

    fn head(&self) -> Option<Head> {
        self.head.or(self.is_head_lost.then_some(ASSUMED))
    }
}

/// The length of the IP packet in an Ethernet frame, of which the beginning is enough; none if it is no IP.
fn ip_len(frame: &[u8]) -> Option<usize> {
    let packet = frame.get(ETHERNET_LEN..)?;
    let number = |at| Some(usize::from(u16::from_be_bytes(chunk(packet, at)?)));
    match (u16::from_be_bytes(chunk(frame, 12)?), packet.first()? >> 4) {
        (0x0800, 4) => number(2),
        (0x86dd, 6) => Some(IPV6_LEN + number(IPV6_LEN_AT)?),
        _ => None,
    }
}

/// Whether an IP packet of this length fits a record of `len` bytes of `original` ones: Ethernet may add a little.
fn is_fitting(ip: usize, len: usize, original: usize) -> bool {
    (ETHERNET_LEN + ip..=ETHERNET_LEN + ip + PADDING_MAX).contains(&original)
        && len <= ETHERNET_LEN + ip + PADDING_MAX
}

const MICRO: u32 = 0xa1b2_c3d4;
const NANO: u32 = 0xa1b2_3c4d;
const ASSUMED: Head = Head { is_big_endian: cfg!(target_endian = "big"), unit: None, link: ETHERNET };
const ETHERNET: u16 = 1;
const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// Where an IPv6 header has the length of what follows.
const IPV6_LEN_AT: usize = 4;
/// What fills a short frame up, and what stands behind it.
const PADDING_MAX: usize = 64;
/// What libpcap takes at most.
const PACKET_MAX: usize = 262_144;
