//! A call out of segments, as a capture of its own.

use std::io::{self, Write};

use rtpproxy_core::frame;
use rtpproxy_core::journal::Figures;
use rtpproxy_core::pcapng::{self, INTERFACE_NAMES, SYNTHETIC_NAME};
use rtpproxy_core::recording::EndReason;
use rtpproxy_core::time::Wall;

use super::Call;
use super::segment::{Found, Owners, Segment};
use crate::listing::time_text;
use crate::unlock::Identities;

impl Call {
    /// Writes everything that was recorded of the call into `out`, as pcapng with an interface for each leg; gives back
    /// how much that is. Encrypted segments are opened with `identities`.
    ///
    /// # Errors
    ///
    /// When a segment cannot be read, or `out` not be written.
    pub fn cut(&self, out: &mut impl Write, identities: &Identities) -> io::Result<Figures> {
        let mut bytes = Vec::new();
        let comments = self.comments();
        pcapng::section(&comments.iter().map(String::as_str).collect::<Vec<_>>(), &mut bytes);
        for name in INTERFACE_NAMES.into_iter().chain([SYNTHETIC_NAME]) {
            pcapng::interface(name, &mut bytes);
        }
        out.write_all(&bytes)?;
        let mut cut = Cut::default();
        for path in &self.segments {
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            let (segment, _) = Segment::open(path, identities).map_err(named)?;
            let visited = segment.visit(&|member| self.is(member), &mut |found| cut.found(self, found, out));
            visited.map_err(named)?;
            cut.end_segment();
        }
        let comments: Vec<_> = cut.comments.iter().map(String::as_str).collect();
        bytes.clear();
        let (start, end) = (cut.sum.first.unwrap_or(self.start), cut.sum.last.unwrap_or(self.start));
        for (number, (packets, dropped)) in (0..).zip(cut.packets.into_iter().zip(cut.dropped)) {
            let comments = if number == 0 { &comments[..] } else { &[] };
            pcapng::statistics(
                number,
                start,
                end,
                packets.saturating_add(dropped),
                dropped,
                comments,
                &mut bytes,
            );
        }
        out.write_all(&bytes)?;
        cut.sum.dropped = cut.dropped.into_iter().fold(0, u64::saturating_add);
        Ok(cut.sum)
    }

    fn comments(&self) -> Vec<String> {
        let text = |id: &[u8]| String::from_utf8_lossy(id).into_owned();
        let mut comments = vec![
            format!("call-id: {}", text(self.call_id.as_bytes())),
            format!("from-tag: {}", text(self.from_tag.as_bytes())),
        ];
        comments.extend(self.to_tag.as_ref().map(|tag| format!("to-tag: {}", text(tag.as_bytes()))));
        comments.push(format!("start: {}", time_text(self.start)));
        comments
    }
}

#[derive(Default)]
struct Cut {
    /// Those of the call in this segment.
    members: Owners<Drops>,
    packets: [u64; STREAMS],
    dropped: [u64; STREAMS],
    sum: Figures,
    comments: Vec<String>,
}

/// How many packets of a recording are missing in a segment.
#[derive(Default)]
struct Drops {
    /// As the packets say.
    counted: [u64; STREAMS],
    /// As the totals say.
    totals: [Option<u64>; STREAMS],
}

impl Cut {
    fn found(&mut self, call: &Call, found: Found<'_>, out: &mut impl Write) -> io::Result<()> {
        match found {
            Found::Member(member) if call.is(member) => self.members.add(member),
            Found::Member(_) => {}
            Found::Block(block) => return self.block(block, out),
        }
        Ok(())
    }

    fn block(&mut self, block: &[u8], out: &mut impl Write) -> io::Result<()> {
        let (Some(kind), Some(interface)) = (pcapng::word(block, 0), pcapng::word(block, 8)) else {
            return Ok(());
        };
        let Some((member, drops)) = self.members.of(interface) else { return Ok(()) };
        let number = interface - member.first_interface;
        let stream = number as usize;
        if kind == TOTALS && stream < STREAMS {
            let (dropped, comments) = totals(block);
            drops.totals[stream] = dropped;
            self.comments.extend(comments);
            self.comments.truncate(COMMENTS_MAX);
        }
        let Some(packet) = PacketBlock::of(block) else { return Ok(()) };
        if stream < STREAMS {
            let figures = packet.figures(number);
            let dropped = &mut drops.counted[stream];
            *dropped = dropped.saturating_add(figures.dropped);
            self.packets[stream] += 1;
            self.sum = self.sum.plus(figures);
        }
        let mut block = block.to_owned();
        block[8..12].copy_from_slice(&number.to_ne_bytes());
        out.write_all(&block)
    }

    fn end_segment(&mut self) {
        for (_, Drops { counted, totals }) in std::mem::take(&mut self.members).into_list() {
            for (sum, (counted, total)) in self.dropped.iter_mut().zip(counted.into_iter().zip(totals)) {
                *sum = sum.saturating_add(total.unwrap_or(counted));
            }
        }
    }
}

/// A block with a packet, in the byte order of this machine.
pub(super) struct PacketBlock<'a> {
    pub(super) interface: u32,
    at: Wall,
    frame: &'a [u8],
    options: &'a [u8],
}

impl<'a> PacketBlock<'a> {
    /// None if it is no such block.
    pub(super) fn of(block: &'a [u8]) -> Option<Self> {
        let word = |at| pcapng::word(block, at);
        if word(0)? != PACKET {
            return None;
        }
        let len = word(20)? as usize;
        let body = block.get(28..block.len().checked_sub(4)?)?;
        let frame = body.get(..len)?;
        let options = body.get(len.next_multiple_of(4)..).unwrap_or_default();
        let at = Wall(u64::from(word(12)?) << 32 | u64::from(word(16)?));
        Some(Self { interface: word(8)?, at, frame, options })
    }

    /// Its figures, as one of a stream.
    pub(super) fn figures(&self, stream: u32) -> Figures {
        let datagram = frame::datagram(self.frame);
        let (from, bytes) =
            datagram.map_or((None, 0), |datagram| (Some(datagram.src), datagram.payload.len()));
        let dropped = options(self.options).find_map(number_of(OPTION_DROPPED)).unwrap_or_default();
        Figures::of_packet(stream, self.at, from, bytes, dropped)
    }
}

/// What the totals of an interface say: how many packets are missing, and remarks.
fn totals(block: &[u8]) -> (Option<u64>, Vec<String>) {
    let bytes = block.get(20..block.len().saturating_sub(4)).unwrap_or_default();
    let comments = options(bytes).filter(|(code, _)| *code == OPTION_COMMENT);
    let comments = comments.map(|(_, text)| String::from_utf8_lossy(text).into_owned()).collect();
    (options(bytes).find_map(number_of(OPTION_TOTAL_DROPPED)), comments)
}

/// What the totals of an interface say of the end of the recording.
pub(super) fn end_of(block: &[u8]) -> Option<EndReason> {
    if pcapng::word(block, 0)? != TOTALS {
        return None;
    }
    let (_, comments) = totals(block);
    let reason = |comment: &String| comment.strip_prefix(END)?.split(' ').next().and_then(EndReason::of_name);
    comments.iter().find_map(reason)
}

fn number_of(wanted: u16) -> impl Fn((u16, &[u8])) -> Option<u64> {
    move |(code, value)| (code == wanted).then(|| value.try_into().ok().map(u64::from_ne_bytes)).flatten()
}

fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let half = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes);
        let (code, len) = (half(0)?, usize::from(half(2)?));
        let value = bytes.get(4..4 + len)?;
        bytes = bytes.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        (code != 0).then_some((code, value))
    })
}

const STREAMS: usize = INTERFACE_NAMES.len();
const PACKET: u32 = 6;
const TOTALS: u32 = 5;
/// How the remark begins that tells of the end.
const END: &str = "end: ";
const OPTION_COMMENT: u16 = 1;
const OPTION_DROPPED: u16 = 4;
const OPTION_TOTAL_DROPPED: u16 = 5;
/// How many remarks at the ends of a call are kept.
const COMMENTS_MAX: usize = 256;
