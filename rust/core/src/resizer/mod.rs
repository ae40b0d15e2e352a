//! Packets of another length: the `z` modifier of `U` and `L` (docs/protocol.md, packet length).
//!
//! A [`Resizer`] takes the RTP packets of one party with [`Resizer::insert`] and gives rebuilt ones with
//! [`Resizer::next`]. It cuts and joins payloads between the frames of their codec, and never decodes. Payload
//! types whose frames it does not know are left to the caller, to be relayed as they came.
//!
//! Times are ticks of 8000 Hz, the RTP clock of every codec known here.

use std::collections::VecDeque;
use std::ops::Range;

use crate::effects::Packet;
use crate::rtp::{MARKER_BIT, PADDING_BIT, RtpView};
use crate::time::Mono;

mod durations;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It waits for [`Resizer::next`].
    Queued,
    /// Its time is over, or there is a packet for that time already: it is thrown away.
    Discarded,
    /// Nothing is known of its payload type, or its payload is no whole number of frames: relay it as it is.
    Passed,
}

/// The packets of one party that wait to be rebuilt.
#[derive(Clone, Debug, PartialEq)]
pub struct Resizer {
    packet_ms: u16,
    /// By era, then by timestamp. Packets of one era do not overlap.
    queue: VecDeque<Queued>,
    queued_ticks: u32,
    queued_bytes: usize,
    source: Option<Source>,
    /// The end of what was sent of the source's era, as a timestamp.
    sent_until: Option<u32>,
    next_sequence: Option<u16>,
}

/// The stretch of the stream whose timestamps go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    /// Counts the stretches. What is left of an earlier one is sent at once.
    era: u32,
    ssrc: u32,
    /// The highest timestamp so far.
    newest: u32,
    /// What to add to our clock to get the timestamp that is being sent there now, as far as arrivals tell.
    offset: u32,
}

/// A packet, or what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Queued {
    era: u32,
    timestamp: u32,
    ticks: u32,
    /// The datagram without padding.
    bytes: Box<[u8]>,
    header_len: usize,
    /// The end of what was sent of it, `header_len` at first.
    sent_len: usize,
}

impl Resizer {
    /// A resizer that makes packets of `packet_ms`, 1 to 999.
    pub fn new(packet_ms: u16) -> Self {
        Self {
            packet_ms,
            queue: VecDeque::new(),
            queued_ticks: 0,
            queued_bytes: 0,
            source: None,
            sent_until: None,
            next_sequence: None,
        }
    }

    /// Makes packets of `packet_ms`, 1 to 999, from now on.
    pub fn set_packet_ms(&mut self, packet_ms: u16) {
        self.packet_ms = packet_ms;
    }

    /// How many packets wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Takes a packet that arrived at `now`; `rtp` is the view of `datagram`.
    ///
    /// Whatever becomes of it, [`Self::next`] should be asked afterwards until it has no more: at most
    /// [`QUEUED_PACKETS_MAX`] packets with [`QUEUED_BYTES_MAX`] bytes are left waiting then.
    pub fn insert(&mut self, now: Mono, datagram: &[u8], rtp: &RtpView<'_>) -> Inserted {
        let Some(ticks) = durations::duration(rtp.payload_type(), rtp.payload()) else {
            return Inserted::Passed;
        };
        let timestamp = rtp.timestamp();
        let mut source = self.source_of(now, rtp);
        self.source = Some(source);
        if self.sent_until.is_some_and(|end| is_before(timestamp, end)) {
            return Inserted::Discarded;
        }
        let Some(at) = self.place(source.era, timestamp, ticks) else { return Inserted::Discarded };
        source.hear(now, timestamp, self.target(rtp.payload_type()));
        self.source = Some(source);

        let len = rtp.header_len() + rtp.payload().len();
        self.queued_ticks += ticks;
        self.queued_bytes += len;
        self.queue.insert(
            at,
            Queued {
                era: source.era,
                timestamp,
                ticks,
                bytes: datagram[..len].into(),
                header_len: rtp.header_len(),
                sent_len: rtp.header_len(),
            },
        );
        Inserted::Queued
    }

    /// Appends the next rebuilt packet to `out`, if it is time for one: where it lies there.
    ///
    /// Its header is that of the first packet in it, with a sequence number counted here.
    pub fn next(&mut self, now: Mono, out: &mut Vec<u8>) -> Option<Range<usize>> {
        let first = self.queue.front()?;
        let (era, payload_type, mut end) = (first.era, first.payload_type(), first.timestamp);
        let target = self.target(payload_type);
        if !self.is_due(now, first, target) {
            return None;
        }
        let start = out.len();
        let sequence = *self.next_sequence.get_or_insert(first.sequence());
        self.next_sequence = Some(sequence.wrapping_add(1));
        first.write_header(sequence, out);

        let mut missing = target;
        while let Some(packet) = self.queue.front_mut() {
            if (packet.era, packet.payload_type(), packet.timestamp) != (era, payload_type, end) {
                break;
            }
            let payload = packet.payload();
            let (len, ticks) = durations::front(payload_type, payload, missing);
            let size = out.len() - start + len;
            if missing < target && size > Packet::MAX_PAYLOAD {
                break;
            }
            out.extend_from_slice(&payload[..len]);
            end = end.wrapping_add(ticks);
            missing = missing.saturating_sub(ticks);
            self.queued_ticks -= ticks;
            let is_whole = len == payload.len();
            let ends_speech = is_whole && durations::ends_speech(payload_type, payload);
            if is_whole {
                self.queued_bytes -= packet.bytes.len();
                self.queue.pop_front();
            } else {
                packet.cut(len, ticks);
            }
            if missing == 0 || ends_speech {
                break;
            }
        }
        if self.source.is_some_and(|source| source.era == era) {
            self.sent_until = Some(end);
        }
        Some(start..out.len())
    }

    /// The duration of the packets to make of this payload type.
    fn target(&self, payload_type: u8) -> u32 {
        let wanted = u32::from(self.packet_ms) * TICKS_PER_MS;
        wanted.max(1).next_multiple_of(durations::granularity(payload_type))
    }

    /// The source as it is with this packet. One with another SSRC, or with a timestamp from elsewhere, begins
    /// a new era.
    fn source_of(&mut self, now: Mono, rtp: &RtpView<'_>) -> Source {
        let (ssrc, timestamp) = (rtp.ssrc(), rtp.timestamp());
        let is_near = |newest: u32| {
            let ahead = timestamp.wrapping_sub(newest);
            ahead.min(ahead.wrapping_neg()) <= JUMP_TICKS
        };
        match self.source {
            Some(source) if source.ssrc == ssrc && is_near(source.newest) => source,
            old => {
                self.sent_until = None;
                let era = old.map_or(0, |old| old.era.wrapping_add(1));
                Source { era, ssrc, newest: timestamp, offset: offset(now, timestamp) }
            }
        }
    }

    /// Where in the queue a packet belongs; `None` if it would overlap another one.
    fn place(&self, era: u32, timestamp: u32, ticks: u32) -> Option<usize> {
        let is_behind = |other: &Queued| other.era != era || !is_before(timestamp, other.timestamp);
        let at = self.queue.iter().rposition(is_behind).map_or(0, |before| before + 1);
        let before = at.checked_sub(1).map(|before| &self.queue[before]).filter(|other| other.era == era);
        let overlaps = before.is_some_and(|other| is_before(timestamp, other.end()))
            || self
                .queue
                .get(at)
                .is_some_and(|other| is_before(other.timestamp, timestamp.wrapping_add(ticks)));
        (!overlaps).then_some(at)
    }

    /// True if a packet is to be made now: there is enough for it, waiting longer does not help, or there is no
    /// room to wait.
    fn is_due(&self, now: Mono, first: &Queued, target: u32) -> bool {
        let Some(source) = self.source else { return true };
        let limit = first.timestamp.wrapping_add((target * 2).max(WAIT_MIN_TICKS));
        self.queued_ticks >= target
            || first.era != source.era
            || !is_before(source.clock(now), limit)
            || self.queue.len() > QUEUED_PACKETS_MAX
            || self.queued_bytes > QUEUED_BYTES_MAX
    }
}

impl Source {
    /// The timestamp that is being sent there now.
    fn clock(&self, now: Mono) -> u32 {
        ticks_of(now).wrapping_add(self.offset)
    }

    /// Learns from a packet that arrived: at once if the clock is behind it, by and by if it is ahead.
    fn hear(&mut self, now: Mono, timestamp: u32, target: u32) {
        if is_before(self.newest, timestamp) {
            self.newest = timestamp;
        }
        let clock = self.clock(now);
        let expected_at = timestamp.wrapping_add(target + LAG_TICKS);
        if is_before(clock, timestamp) {
            self.offset = offset(now, timestamp);
        } else if is_before(expected_at, clock) {
            self.offset = self.offset.wrapping_sub(clock.wrapping_sub(expected_at) / 2);
        }
    }
}

impl Queued {
    fn payload_type(&self) -> u8 {
        self.bytes[1] & !MARKER_BIT
    }

    fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    /// The timestamp behind it.
    fn end(&self) -> u32 {
        self.timestamp.wrapping_add(self.ticks)
    }

    /// What was not sent of it.
    fn payload(&self) -> &[u8] {
        &self.bytes[self.sent_len..]
    }

    /// Takes away what was sent: `len` bytes of `ticks`.
    fn cut(&mut self, len: usize, ticks: u32) {
        self.sent_len += len;
        self.timestamp = self.timestamp.wrapping_add(ticks);
        self.ticks -= ticks;
        self.bytes[1] &= !MARKER_BIT;
    }

    fn write_header(&self, sequence: u16, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes[..self.header_len]);
        out[start] &= !PADDING_BIT;
        out[start + 2..start + 4].copy_from_slice(&sequence.to_be_bytes());
        out[start + 4..start + 8].copy_from_slice(&self.timestamp.to_be_bytes());
    }
}

/// True if `timestamp` comes before `other` (RFC 3550: they wrap around).
fn is_before(timestamp: u32, other: u32) -> bool {
    other.wrapping_sub(timestamp).wrapping_sub(1) < u32::MAX / 2
}

/// Our clock in ticks, which wraps around as timestamps do.
fn ticks_of(now: Mono) -> u32 {
    (now.0 / NANOS_PER_TICK) as u32
}

/// The offset of a source that sends `timestamp` now.
fn offset(now: Mono, timestamp: u32) -> u32 {
    timestamp.wrapping_sub(ticks_of(now)).wrapping_add(SLACK_TICKS)
}

/// At most this many packets wait.
pub const QUEUED_PACKETS_MAX: usize = 256;

/// At most this many bytes wait, headers included.
pub const QUEUED_BYTES_MAX: usize = 16 << 10;

const TICKS_PER_MS: u32 = 8;
const NANOS_PER_TICK: u64 = 125_000;

/// A packet waits for others at least this long, 40 ms.
const WAIT_MIN_TICKS: u32 = 320;

/// How far the clock of a source is set ahead of the packet that tells it, 5 ms.
const SLACK_TICKS: u32 = 40;

/// How late a packet may be before the clock follows it, 20 ms beyond the length of the packets to make.
const LAG_TICKS: u32 = 160;

/// Timestamps that are further apart than this, 10 s, are not of one stretch: the sender began anew. Without
/// this limit a sender whose timestamps jump back would be mute until they are where they were.
const JUMP_TICKS: u32 = 80_000;
