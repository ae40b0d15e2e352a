//! One source on the timeline: when its samples are due, and what fills the gaps.

use std::collections::BTreeMap;

use super::party::{Queued, Source};
use super::{Gaps, RATE};
use crate::codec::{CodecError, Decoder};

/// Makes the decoder of a payload type.
pub(super) type Decoders = fn(u8) -> Result<Box<dyn Decoder>, CodecError>;

/// Gives the samples of one source, in order.
///
/// Timestamps say how long a gap is. They are believed unless they run away from the clock by more than a
/// second; if the clock runs away from them, silence is put in as well.
pub(super) struct Voice<'a> {
    packets: std::slice::Iter<'a, Queued>,
    decoders: Decoders,
    /// Those in use, by payload type.
    open: BTreeMap<u8, Result<Box<dyn Decoder>, CodecError>>,
    gaps: Gaps,
    /// When the first packet arrived, in seconds since the epoch.
    start: f64,
    /// The latest arrival.
    end: f64,
    /// The timestamp that the next packet should have.
    expected: u32,
    /// The timestamp that belongs to `start`.
    reference: u32,
    /// How many samples were given so far, silence included.
    produced: u32,
    /// Samples of silence that are due.
    silence: u32,
    samples: Vec<i16>,
    /// The next of `samples`.
    next: usize,
    undecoded: BTreeMap<String, u64>,
}

impl<'a> Voice<'a> {
    pub(super) fn new(source: &'a Source, gaps: Gaps, decoders: Decoders) -> Self {
        let first = source.packets().first();
        let timestamp = first.map_or(0, |packet| packet.timestamp);
        Self {
            packets: source.packets().iter(),
            decoders,
            open: BTreeMap::new(),
            gaps,
            start: first.map_or(0.0, |packet| packet.at),
            end: source.packets().iter().map(|packet| packet.at).fold(0.0, f64::max),
            expected: timestamp,
            reference: timestamp,
            produced: 0,
            silence: 0,
            samples: Vec::new(),
            next: 0,
            undecoded: BTreeMap::new(),
        }
    }

    /// When its first packet arrived, in seconds since the epoch.
    pub(super) fn start(&self) -> f64 {
        self.start
    }

    /// When its last one did.
    pub(super) fn end(&self) -> f64 {
        self.end
    }

    /// Packets that could not be decoded so far, by the reason.
    pub(super) fn undecoded(&self) -> &BTreeMap<String, u64> {
        &self.undecoded
    }

    /// The next sample; none at the end.
    pub(super) fn sample(&mut self) -> Option<i16> {
        loop {
            if self.silence > 0 {
                self.silence -= 1;
                return Some(0);
            }
            if let Some(&sample) = self.samples.get(self.next) {
                self.next += 1;
                return Some(sample);
            }
            self.advance()?;
        }
    }

    /// Finds out what comes next: silence or a packet; none at the end.
    fn advance(&mut self) -> Option<()> {
        let packet = self.packets.as_slice().first()?;
        let elapsed = packet.at - self.start;
        if f64::from(packet.timestamp.wrapping_sub(self.reference) / RATE) > elapsed + 1.0 {
            self.expected = packet.timestamp;
            self.reference = to_ticks(f64::from(packet.timestamp) - elapsed * f64::from(RATE));
        }
        // Half a cycle ahead is behind: packets that overlap where the timestamps wrap leave no gap of six days.
        let ahead = packet.timestamp.saturating_sub(self.expected);
        if (1..=HALF_CYCLE).contains(&ahead) {
            let gap = ahead.min(GAP_MAX);
            self.expected += gap;
            self.insert(gap);
        } else if elapsed - f64::from(self.produced) / f64::from(RATE) > LAG_MAX {
            let lag = elapsed * f64::from(RATE) - f64::from(self.produced);
            self.insert(to_ticks(lag / 2.0).min(GAP_MAX));
        } else {
            self.packets.next();
            self.decode(packet);
        }
        Some(())
    }

    fn insert(&mut self, gap: u32) {
        self.produced = self.produced.wrapping_add(gap);
        self.silence = if self.gaps == Gaps::Filled { gap } else { 0 };
    }

    fn decode(&mut self, packet: &Queued) {
        self.samples.clear();
        self.next = 0;
        let decoders = self.decoders;
        let decoder = self.open.entry(packet.payload_type).or_insert_with_key(|&number| decoders(number));
        let decoded = match decoder {
            Ok(decoder) => decoder.decode(&packet.payload, &mut self.samples),
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = decoded {
            *self.undecoded.entry(error.to_string()).or_default() += 1;
        }
        self.samples.truncate(SAMPLES_MAX);
        let count = self.samples.len() as u32;
        self.expected = self.expected.wrapping_add(count);
        self.produced = self.produced.wrapping_add(count);
    }
}

/// A double to unsigned ticks as a 64-bit machine truncates it.
fn to_ticks(ticks: f64) -> u32 {
    ticks as i64 as u32
}

const HALF_CYCLE: u32 = 1 << 31;
/// The most samples of silence that are put in at a time.
const GAP_MAX: u32 = 4_000;
/// How far, in seconds, the clock may be ahead of the samples.
const LAG_MAX: f64 = 0.2;
/// The most samples that one packet gives.
const SAMPLES_MAX: usize = 4_096;
