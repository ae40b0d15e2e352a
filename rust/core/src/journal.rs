//! Segments of a journal: pcapng files in which many recordings are written at the same time.
//!
//! Each recording has [`INTERFACES`] interfaces of a segment. Before they are described stands a block that says
//! whose they are ([`Member`]); now and then comes one that says where the packets of each recording are
//! ([`Index`]). Both are of [`BLOCK_TYPE`], one of those that the format leaves to everybody's own use, so other
//! readers pass over them. The first byte of their bodies tells which it is, the second is the version, 1.
//!
//! The last block of a segment is an index, and each index names the one before it. Blocks behind the last one
//! (the segment is being written, or its writer was killed) have to be looked through one by one, like all of
//! them if an index is damaged: nothing is in an index only.

use std::net::SocketAddr;

use crate::command::{CallId, Tag};
use crate::pcapng;
use crate::recording::{EndReason, Leg};
use crate::time::Wall;

/// The type of our blocks.
pub const BLOCK_TYPE: u32 = 0x8000_6a72;

/// How many interfaces a recording has, in the order of [`pcapng::INTERFACE_NAMES`], then the synthetic one.
pub const INTERFACES: u32 = pcapng::INTERFACE_NAMES.len() as u32 + 1;

/// A recording in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The number of its first interface.
    pub first_interface: u32,
    /// Counts the recordings of the relay, from 1.
    pub recording: u64,
    /// Whose packets, if not both parties'.
    pub leg: Option<Leg>,
    /// When it was asked for.
    pub start: Wall,
    /// The call.
    pub call_id: CallId,
    /// The tag the session was created with.
    pub from_tag: Tag,
    /// The other tag, if it was known.
    pub to_tag: Option<Tag>,
}

impl Member {
    /// Appends the block, and behind it the descriptions of the interfaces: `CALLID caller` and so on, with
    /// `comments` at the first one.
    pub fn tell(&self, comments: &[&str], out: &mut Vec<u8>) {
        let mut body = vec![MEMBER, VERSION];
        self.encode(&mut body);
        pcapng::block(BLOCK_TYPE, &body, out);
        let call_id = String::from_utf8_lossy(self.call_id.as_bytes());
        let from_tag = String::from_utf8_lossy(self.from_tag.as_bytes());
        let description = format!("recording {}, from-tag {from_tag}", self.recording);
        let mut comments = comments;
        for kind in pcapng::INTERFACE_NAMES.into_iter().chain([pcapng::SYNTHETIC_NAME]) {
            let name = format!("{call_id} {kind}");
            pcapng::described_interface(&name, &description, comments, out);
            comments = &[];
        }
    }

    /// Whether an interface is one of its own.
    pub fn has(&self, interface: u32) -> bool {
        (self.first_interface..self.first_interface.saturating_add(INTERFACES)).contains(&interface)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        number(self.first_interface.into(), out);
        number(self.recording, out);
        out.push(match self.leg {
            None => 0,
            Some(Leg::Caller) => 1,
            Some(Leg::Callee) => 2,
        });
        number(self.start.0, out);
        text(self.call_id.as_bytes(), out);
        text(self.from_tag.as_bytes(), out);
        out.push(u8::from(self.to_tag.is_some()));
        if let Some(tag) = &self.to_tag {
            text(tag.as_bytes(), out);
        }
    }

    fn decode(bytes: &mut Bytes<'_>) -> Option<Self> {
        Some(Self {
            first_interface: bytes.number()?.try_into().ok()?,
            recording: bytes.number()?,
            leg: match bytes.byte()? {
                0 => None,
                1 => Some(Leg::Caller),
                2 => Some(Leg::Callee),
                _ => return None,
            },
            start: Wall(bytes.number()?),
            call_id: bytes.text()?.into(),
            from_tag: bytes.text()?.into(),
            to_tag: match bytes.byte()? {
                0 => None,
                _ => Some(bytes.text()?.into()),
            },
        })
    }
}

/// Packets of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many.
    pub packets: u64,
    /// Their payloads, in bytes.
    pub bytes: u64,
    /// How many should be there and are not.
    pub dropped: u64,
    /// When the first one came.
    pub first: Option<Wall>,
    /// When the last one came.
    pub last: Option<Wall>,
    /// Where the caller and the callee last sent RTP from.
    pub parties: [Option<SocketAddr>; 2],
    /// Why the recording ended, if it did.
    pub end: Option<EndReason>,
}

impl Figures {
    /// Those of a packet with a payload of so many bytes: the `stream`, by the number of its interface, that it is of,
    /// its time, where it came from, and how many are missing before it.
    pub fn of_packet(stream: u32, at: Wall, from: Option<SocketAddr>, bytes: usize, dropped: u64) -> Self {
        let party = |number| from.filter(|_| stream == number);
        let parties = [party(0), party(1)];
        Self { packets: 1, bytes: bytes as u64, dropped, first: Some(at), last: Some(at), parties, end: None }
    }

    /// Those of a recording that ended, without packets.
    pub fn of_end(end: Option<EndReason>) -> Self {
        Self { end, ..Self::default() }
    }

    /// Those of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
            dropped: self.dropped.saturating_add(other.dropped),
            first: self.first.into_iter().chain(other.first).min(),
            last: self.last.max(other.last),
            parties: [0, 1].map(|party| other.parties[party].or(self.parties[party])),
            end: other.end.or(self.end),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let [first, last] = [self.first, self.last].map(|at| at.unwrap_or_default().0);
        for value in [self.packets, self.bytes, self.dropped, first, last.saturating_sub(first)] {
            number(value, out);
        }
        for party in self.parties {
            text(party.map(|addr| addr.to_string()).unwrap_or_default().as_bytes(), out);
        }
        text(self.end.map_or("", EndReason::name).as_bytes(), out);
    }

    fn decode(bytes: &mut Bytes<'_>) -> Option<Self> {
        let [packets, bytes_, dropped, first, length] =
            [bytes.number()?, bytes.number()?, bytes.number()?, bytes.number()?, bytes.number()?];
        let [first, last] = [first, first.saturating_add(length)].map(|at| (at > 0).then_some(Wall(at)));
        let mut word = || str::from_utf8(bytes.text()?).ok();
        let parties = [word()?, word()?].map(|addr| addr.parse().ok());
        let end = EndReason::of_name(word()?);
        Some(Self { packets, bytes: bytes_, dropped, first, last, parties, end })
    }
}

/// What an index says of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// By which it is known.
    pub first_interface: u32,
    /// The recording, if it is told of in this part of the segment.
    pub member: Option<Member>,
    /// Its packets in this part of the segment.
    pub figures: Figures,
    /// Stretches of the segment with all its blocks in this part, and maybe those of others: from which byte on,
    /// and how many bytes.
    pub stretches: Vec<(u64, u64)>,
}

/// Where the recordings of a part of a segment are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Where this block stands itself; anywhere else it is of no use.
    pub at: u64,
    /// Where the one before it stands.
    pub previous: Option<u64>,
    /// The part of the segment, from this byte.
    pub from: u64,
    /// Up to this one.
    pub to: u64,
    /// It is one of those at the end that list all recordings of the segment, with the figures of all of it.
    pub is_directory: bool,
    /// The recordings.
    pub entries: Vec<Entry>,
}

impl Index {
    /// Appends the block, of which [`Self::at`] is the place.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = vec![INDEX, VERSION];
        for value in [self.at, self.previous.unwrap_or(0), self.from, self.to, self.is_directory.into()] {
            number(value, &mut body);
        }
        number(self.entries.len() as u64, &mut body);
        for entry in &self.entries {
            number(entry.first_interface.into(), &mut body);
            body.push(u8::from(entry.member.is_some()));
            if let Some(member) = &entry.member {
                member.encode(&mut body);
            }
            entry.figures.encode(&mut body);
            number(entry.stretches.len() as u64, &mut body);
            let mut end = self.from;
            for (at, len) in &entry.stretches {
                number(at - end, &mut body);
                number(*len, &mut body);
                end = at + len;
            }
        }
        pcapng::block(BLOCK_TYPE, &body, out);
    }

    fn decode(bytes: &mut Bytes<'_>) -> Option<Self> {
        let at = bytes.number()?;
        let previous = Some(bytes.number()?).filter(|at| *at > 0);
        let (from, to) = (bytes.number()?, bytes.number()?);
        let is_directory = bytes.number()? == 1;
        let mut entries = Vec::new();
        for _ in 0..bytes.number()? {
            let first_interface = bytes.number()?.try_into().ok()?;
            let member = if bytes.byte()? == 0 { None } else { Some(Member::decode(bytes)?) };
            let figures = Figures::decode(bytes)?;
            let mut stretches = Vec::new();
            let mut end = from;
            for _ in 0..bytes.number()? {
                let (gap, len) = (bytes.number()?, bytes.number()?);
                let at = end.checked_add(gap)?;
                end = at.checked_add(len).filter(|end| *end <= to)?;
                stretches.push((at, len));
            }
            entries.push(Entry { first_interface, member, figures, stretches });
        }
        Some(Self { at, previous, from, to, is_directory, entries })
    }
}

/// What one of our blocks says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Whose the next interfaces are.
    Member(Member),
    /// Where recordings are.
    Index(Index),
}

impl Record {
    /// Reads a whole block in the byte order of this machine; none if it is not one of ours, or damaged.
    pub fn parse(block: &[u8]) -> Option<Self> {
        if pcapng::word(block, 0)? != BLOCK_TYPE {
            return None;
        }
        let mut bytes = Bytes(block.get(8..block.len().checked_sub(4)?)?);
        match (bytes.byte()?, bytes.byte()?) {
            (MEMBER, VERSION) => Member::decode(&mut bytes).map(Record::Member),
            (INDEX, VERSION) => Index::decode(&mut bytes).map(Record::Index),
            _ => None,
        }
    }
}

/// The beginning of the names of all segments.
pub const NAME: &str = "journal-";

/// Whether a name is that of a segment, or of its sidecar: `journal-20261122T195054.123Z-w0.pcapng`.
pub fn is_segment(name: &[u8]) -> bool {
    name.strip_prefix(NAME.as_bytes()).is_some_and(|rest| {
        let is_like = |(byte, like): (&u8, &u8)| match like {
            b'0' => byte.is_ascii_digit(),
            like => byte == like,
        };
        rest.len() > LIKE.len() && rest.iter().zip(LIKE).all(is_like)
    })
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?.try_into().ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(text)
    }
}

/// Seven bits in each byte, the lowest first; all but the last have the eighth bit.
fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn text(bytes: &[u8], out: &mut Vec<u8>) {
    number(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

const MEMBER: u8 = 1;
const INDEX: u8 = 2;
const VERSION: u8 = 1;
/// How a name goes on; 0 is any digit.
const LIKE: &[u8] = b"00000000T000000.000Z-w0";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(first_interface: u32, call_id: &[u8]) -> Member {
        Member {
            first_interface,
            recording: 7,
            leg: Some(Leg::Callee),
            start: Wall(1_700_000_000_000_000_000),
            call_id: call_id.into(),
            from_tag: "f".into(),
            to_tag: Some("t".into()),
        }
    }

    #[test]
    fn a_member_is_read_back_and_described_for_others() {
        let mut out = Vec::new();
        pcapng::section(&[], &mut out);
        let begin = out.len();
        member(0, b"a@b").tell(&["call-id: a@b"], &mut out);
        let len = pcapng::word(&out[begin..], 4).unwrap() as usize;
        assert_eq!(Record::parse(&out[begin..begin + len]), Some(Record::Member(member(0, b"a@b"))));

        let mut reader = pcap_file::pcapng::PcapNgReader::new(&out[..]).unwrap();
        while let Some(block) = reader.next_block() {
            block.unwrap();
        }
        assert_eq!(reader.interfaces().len(), INTERFACES as usize);
        let text = format!("{:?}", reader.interfaces());
        assert!(text.contains("a@b callee rtcp") && text.contains("call-id: a@b"), "{text}");
    }

    #[test]
    fn only_names_of_segments_are_taken_for_such() {
        assert!(is_segment(b"journal-20261122T195054.123Z-w0.pcapng"));
        assert!(is_segment(b"journal-20261122T195054.123Z-w12.recovered.json"));
        assert!(!is_segment(b"journal-20261122T195054.123Z-w0"));
        assert!(!is_segment(b"journal-of-alice=1.pcapng"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            at in 0_u64.., previous in 1_u64.., stretches in prop::collection::vec((0_u64..9999, 0_u64..999), 0..9),
            call_id in prop::collection::vec(0_u8.., 0..50), packets in 0_u64.., is_directory: bool,
            caller: Option<SocketAddr>,
        ) {
            let mut to = 1000;
            let stretches = stretches.into_iter().map(|(gap, len)| {
                let at = to + gap;
                to = at + len;
                (at, len)
            }).collect();
            // The scope of an address is not written.
            let caller = caller.map(|addr| SocketAddr::new(addr.ip(), addr.port()));
            let (first, last, end) = (Some(Wall(5)), Some(Wall(9)), Some(EndReason::Timeout));
            let parties = [caller, Some(([192, 0, 2, 1], 5).into())];
            let figures = Figures { packets, first, last, parties, end, ..Figures::default() };
            let member = Some(member(40, &call_id));
            let entries = vec![Entry { first_interface: 40, member, figures, stretches }, Entry::default()];
            let index = Index { at, previous: Some(previous), from: 1000, to, is_directory, entries };
            let mut out = Vec::new();
            index.encode(&mut out);
            prop_assert_eq!(out.len() % 4, 0);
            prop_assert_eq!(Record::parse(&out), Some(Record::Index(index)));
        }

        #[test]
        fn no_bytes_panic(body in prop::collection::vec(0_u8.., 0..200)) {
            for kind in [MEMBER, INDEX] {
                let mut out = Vec::new();
                pcapng::block(BLOCK_TYPE, &[&[kind, VERSION], &body[..]].concat(), &mut out);
                let _ = Record::parse(&out);
            }
            let _ = Record::parse(&body);
        }
    }
}
