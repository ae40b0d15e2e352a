//! pcapng ([`crate::pcapng`]).

use super::{Measure, Origin, Packet, Piece, chunk};
use crate::frame;
use crate::journal::{BLOCK_TYPE, Record};
use crate::pcapng::{INTERFACE_NAMES, SYNTHETIC_NAME, interface_of};
use crate::recording::{Channel, Leg};
use crate::time::Wall;

pub(super) fn is_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(&SECTION.to_be_bytes())
}

#[derive(Debug, Default)]
pub(super) struct Layout {
    /// None before the first section.
    order: Option<Order>,
    /// By their numbers; none for those that are lost.
    interfaces: Vec<Option<Interface>>,
    /// Descriptions may be lost: those of our recorder are assumed for them.
    is_holed: bool,
}

impl Layout {
    pub(super) fn measure(&self, window: &[u8]) -> Measure {
        let Some(head) = chunk::<HEAD_LEN>(window, 0) else { return Measure::More(HEAD_LEN) };
        let Some(order) = self.order_of(&head) else {
            return Measure::Damaged("no section where one should begin");
        };
        let (kind, len) = (order.word_at(&head, 0), order.word_at(&head, 4) as usize);
        if len < EMPTY_BLOCK_LEN || !len.is_multiple_of(4) || len > BLOCK_MAX {
            return Measure::Damaged("a block of an impossible length");
        }
        let Some(block) = window.get(..len) else { return Measure::More(len) };
        if order.word(block, len - 4) != Some(len as u32) {
            return Measure::Damaged("a block whose two lengths differ");
        }
        let body = &block[8..len - 4];
        let is_right = match kind {
            INTERFACE => Interface::parse(order, body).is_some(),
            ENHANCED_PACKET => self.is_packet(order, body),
            _ => true,
        };
        if is_right {
            Measure::Whole(len)
        } else {
            Measure::Damaged("a block that is not what it says it is")
        }
    }

    pub(super) fn resembles(&self, window: &[u8]) -> Measure {
        let Some(head) = chunk::<HEAD_LEN>(window, 0) else { return Measure::More(HEAD_LEN) };
        let is_known = self.order_of(&head).is_some_and(|order| KNOWN.contains(&order.word_at(&head, 0)));
        if is_known { self.measure(window) } else { Measure::Damaged("no block that is known") }
    }

    pub(super) fn parse<'a>(&self, piece: &'a [u8]) -> Piece<'a> {
        let Some(order) = chunk::<HEAD_LEN>(piece, 0).and_then(|head| self.order_of(&head)) else {
            return Piece::Other;
        };
        let body = &piece[8..piece.len() - 4];
        let number = || order.word(body, 0).unwrap_or_default();
        match order.word_at(piece, 0) {
            SECTION => Piece::Head {
                comments: comments(order, body.get(SECTION_OPTIONS_AT..).unwrap_or_default()),
                is_native: order == Order::NATIVE,
            },
            INTERFACE => Piece::Interface { number: self.number_of(order, body) },
            ENHANCED_PACKET => self.packet(order, body).map_or(Piece::Other, Piece::Packet),
            TOTALS => Piece::Totals { interface: number() },
            _ => Piece::Other,
        }
    }

    pub(super) fn accept(&mut self, piece: &[u8], what: &Piece<'_>) {
        match what {
            Piece::Head { .. } => {
                self.order = chunk(piece, 8).and_then(Order::of);
                self.interfaces.clear();
                self.is_holed = false;
            }
            Piece::Interface { number } => {
                let number = *number as usize;
                let interface =
                    self.order.and_then(|order| Interface::parse(order, &piece[8..piece.len() - 4]));
                if self.interfaces.len() <= number {
                    self.interfaces.resize(number + 1, None);
                }
                self.interfaces[number] = interface;
            }
            // Those of a journal may be lost too; it says the number of the next one.
            Piece::Other if self.is_holed => {
                if let Some(Record::Member(member)) = Record::parse(piece) {
                    let next = self.interfaces.len().max(member.first_interface as usize);
                    self.interfaces.resize(next.min(INTERFACES_MAX), None);
                }
            }
            _ => {}
        }
    }

    pub(super) fn note_hole(&mut self) {
        self.is_holed = true;
        self.order.get_or_insert(Order::NATIVE);
    }

    /// The byte order of the block that begins with `head`.
    fn order_of(&self, head: &[u8; HEAD_LEN]) -> Option<Order> {
        if is_magic(head) { chunk(head, 8).and_then(Order::of) } else { self.order }
    }

    /// The number of an interface that is described now: the next one, but for ours behind a hole, whose names
    /// tell.
    fn number_of(&self, order: Order, body: &[u8]) -> u32 {
        let next = self.interfaces.len() as u32;
        if !self.is_holed {
            return next;
        }
        let origin = Interface::parse(order, body).map_or(Origin::Unnamed, |interface| interface.origin);
        (next..=SYNTHETIC).find(|number| usual(*number) == origin).unwrap_or(next)
    }

    fn interface(&self, number: u32) -> Option<Interface> {
        match self.interfaces.get(number as usize) {
            Some(Some(interface)) => Some(*interface),
            _ if self.is_holed && number <= SYNTHETIC => {
                Some(Interface { is_ethernet: true, rate: 1_000_000_000, origin: usual(number) })
            }
            _ => None,
        }
    }

    fn is_packet(&self, order: Order, body: &[u8]) -> bool {
        let (Some(number), Some(len)) = (order.word(body, 0), order.word(body, 12)) else { return false };
        self.interface(number).is_some() && body.len() >= PACKET_HEADER_LEN.saturating_add(len as usize)
    }

    fn packet<'a>(&self, order: Order, body: &'a [u8]) -> Option<Packet<'a>> {
        let word = |at| order.word(body, at);
        let (number, high, low, len) = (word(0)?, word(4)?, word(8)?, word(12)? as usize);
        let interface = self.interface(number)?;
        let (frame, behind) = body.get(PACKET_HEADER_LEN..)?.split_at_checked(len)?;
        let behind = behind.get(len.next_multiple_of(4) - len..).unwrap_or_default();
        let dropped = options(order, behind).find(|(code, _)| *code == OPTION_DROPPED);
        Some(Packet {
            at: interface.time(u64::from(high) << 32 | u64::from(low)),
            interface: number,
            origin: interface.origin,
            dropped: dropped.and_then(|(_, value)| order.long(value)).unwrap_or_default(),
            comments: comments(order, behind),
            datagram: if interface.is_ethernet { frame::datagram(frame) } else { None },
        })
    }
}

/// A byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Big,
    Little,
}

impl Order {
    const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };

    fn of(magic: [u8; 4]) -> Option<Self> {
        match u32::from_be_bytes(magic) {
            BYTE_ORDER_MAGIC => Some(Self::Big),
            magic if magic == BYTE_ORDER_MAGIC.swap_bytes() => Some(Self::Little),
            _ => None,
        }
    }

    fn half(self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = chunk(bytes, at)?;
        Some(if self == Self::Big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn word(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = chunk(bytes, at)?;
        Some(if self == Self::Big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// The word of a block that was found long enough.
    fn word_at(self, block: &[u8], at: usize) -> u32 {
        self.word(block, at).unwrap_or_default()
    }

    fn long(self, bytes: &[u8]) -> Option<u64> {
        let bytes = chunk(bytes, 0)?;
        Some(if self == Self::Big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }
}

/// What is known of an interface.
#[derive(Clone, Copy, Debug)]
struct Interface {
    is_ethernet: bool,
    /// Ticks of its time stamps in a second.
    rate: u64,
    origin: Origin,
}

impl Interface {
    fn parse(order: Order, body: &[u8]) -> Option<Self> {
        let link = order.half(body, 0)?;
        let mut interface = Self { is_ethernet: link == 1, rate: 1_000_000, origin: Origin::Unnamed };
        for (code, value) in options(order, body.get(8..)?) {
            match (code, value) {
                (OPTION_NAME, name) => interface.origin = origin(name),
                (OPTION_RESOLUTION, &[exponent]) => interface.rate = rate(exponent)?,
                _ => {}
            }
        }
        Some(interface)
    }

    fn time(&self, ticks: u64) -> Wall {
        let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(self.rate);
        Wall(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The options of a block, up to their end or to one that is damaged.
fn options(order: Order, mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (code, len) = (order.half(bytes, 0)?, usize::from(order.half(bytes, 2)?));
        let value = bytes.get(4..4 + len)?;
        bytes = bytes.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        (code != OPTION_END).then_some((code, value))
    })
}

fn comments(order: Order, bytes: &[u8]) -> Vec<&str> {
    let comments = options(order, bytes).filter(|(code, _)| *code == OPTION_COMMENT);
    comments.filter_map(|(_, text)| str::from_utf8(text).ok()).collect()
}

fn origin(name: &[u8]) -> Origin {
    // In the segment of a journal, the call-id stands before it.
    let name = INTERFACE_NAMES.iter().rev().chain([&SYNTHETIC_NAME]).find_map(|usual| {
        let before = name.strip_suffix(usual.as_bytes())?;
        (before.is_empty() || before.ends_with(b" ")).then_some(*usual)
    });
    (0..=SYNTHETIC).find(|number| Some(usual_name(*number)) == name).map_or(Origin::Unnamed, usual)
}

/// What our recorder gives an interface of this number to.
fn usual(number: u32) -> Origin {
    let streams = [Channel::Rtp, Channel::Rtcp].into_iter();
    let mut streams = streams.flat_map(|channel| [Leg::Caller, Leg::Callee].map(|leg| (leg, channel)));
    match streams.find(|(leg, channel)| interface_of(*leg, *channel) == number) {
        Some((leg, channel)) => Origin::Leg(leg, channel),
        None if number == SYNTHETIC => Origin::Synthetic,
        None => Origin::Unnamed,
    }
}

fn usual_name(number: u32) -> &'static str {
    INTERFACE_NAMES.get(number as usize).copied().unwrap_or(SYNTHETIC_NAME)
}

/// The ticks in a second: a power of 2 or of 10.
fn rate(exponent: u8) -> Option<u64> {
    let (base, exponent) = if exponent & 0x80 == 0 { (10_u64, exponent) } else { (2, exponent & 0x7f) };
    base.checked_pow(exponent.into())
}

/// The same in both byte orders.
const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const TOTALS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
/// What counts behind damage: sections, interfaces, packets of both kinds, names, totals, blocks of journals.
const KNOWN: [u32; 7] = [SECTION, INTERFACE, 3, 4, TOTALS, ENHANCED_PACKET, BLOCK_TYPE];
/// The number of the interface that is nobody's.
const SYNTHETIC: u32 = INTERFACE_NAMES.len() as u32;

/// More than a segment of a journal has; nothing that a damaged file says makes us take more memory.
const INTERFACES_MAX: usize = 1 << 20;

const HEAD_LEN: usize = 12;
const EMPTY_BLOCK_LEN: usize = 12;
const PACKET_HEADER_LEN: usize = 20;
/// Behind byte order, version and length of the section.
const SECTION_OPTIONS_AT: usize = 16;
/// A packet with 16 of the longest options.
const BLOCK_MAX: usize = 17 << 16;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_NAME: u16 = 2;
const OPTION_DROPPED: u16 = 4;
const OPTION_RESOLUTION: u16 = 9;
