//! How far arrival times stray from timestamps (RFC 3550, section 6.4.1).

use crate::time::Wall;

/// The interarrival jitter of a stream, in units of its RTP clock; all 0 while it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Jitter {
    /// Now, of the source that appeared last.
    pub last: f64,
    /// The highest value of any source.
    pub max: f64,
    /// The mean of the values after each packet, over all sources.
    pub avg: f64,
}

/// Measures the jitter of each source of a stream.
///
/// Ten sources are told apart; when one more appears, the oldest only lives on in the maximum and the mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct JitterMeter {
    newest: Option<Source>,
    /// The sources before it, oldest first; most calls have none, so it takes no room in the analyzer.
    older: Vec<Source>,
    folded: Folded,
}

impl JitterMeter {
    /// Takes in a packet.
    ///
    /// `clock` is the rate of its payload type in Hz, if that is known; `restarted` says that its sequence
    /// number starts a new sequence.
    pub(super) fn packet(
        &mut self,
        ssrc: u32,
        clock: Option<u32>,
        timestamp: u32,
        arrival: Wall,
        restarted: bool,
    ) {
        let source = self.source(ssrc);
        if let Some(rate) = clock {
            let arrival = (arrival.seconds() * f64::from(rate)) as u64;
            source.packet(Moment { arrival, timestamp }, restarted);
        }
    }

    /// The jitter of all sources; none before any of them had two packets to compare.
    pub(super) fn measured(&self) -> Option<Jitter> {
        let sources = self.newest.iter().chain(&self.older);
        let is_known = self.folded.updates > 0 || sources.into_iter().any(|source| source.counted >= 2);
        is_known.then(|| self.summary())
    }

    pub(super) fn summary(&self) -> Jitter {
        let mut all = self.folded;
        let mut last = None;
        for source in self.newest.iter().chain(self.older.iter().rev()).filter(|source| source.counted >= 2) {
            last = last.or(Some(source.jitter));
            all.add(source);
        }
        let avg = if all.updates > 0 { all.sum / all.updates as f64 } else { 0.0 };
        Jitter { last: last.unwrap_or(0.0), max: all.max, avg }
    }

    fn source(&mut self, ssrc: u32) -> &mut Source {
        if self.newest.as_ref().is_none_or(|newest| newest.ssrc != ssrc) {
            if let Some(index) = self.older.iter().position(|source| source.ssrc == ssrc) {
                return &mut self.older[index];
            }
            if let Some(previous) = self.newest.take() {
                self.keep(previous);
            }
        }
        self.newest.get_or_insert_with(|| Source::new(ssrc))
    }

    fn keep(&mut self, source: Source) {
        if self.older.len() + 1 == MAX_SOURCES {
            self.folded.add(&self.older.remove(0));
        }
        self.older.push(source);
    }
}

/// The jitter of one source.
#[derive(Clone, Debug, PartialEq)]
struct Source {
    ssrc: u32,
    /// The latest timestamps, a ring.
    recent: [u32; RECENT],
    /// How many timestamps were ever put into it.
    remembered: usize,
    /// What the next packet is measured against; meaningless while nothing is counted.
    reference: Moment,
    /// The first packet and each one that changed `jitter`.
    counted: u64,
    jitter: f64,
    max: f64,
    /// The sum of `jitter` after each change.
    sum: f64,
}

impl Source {
    fn new(ssrc: u32) -> Self {
        Self {
            ssrc,
            recent: [0; RECENT],
            remembered: 0,
            reference: Moment { arrival: 0, timestamp: 0 },
            counted: 0,
            jitter: 0.0,
            max: 0.0,
            sum: 0.0,
        }
    }

    fn packet(&mut self, now: Moment, restarted: bool) {
        if self.recent[..self.remembered.min(RECENT)].contains(&now.timestamp) {
            // Further packets of a frame, or an event that goes on: they say nothing of the jitter. But a
            // call may begin with a burst of them, and then the last one is the better reference.
            if self.counted == 1 {
                self.reference = now;
            }
            return;
        }
        self.remember(now.timestamp);
        let reference = std::mem::replace(&mut self.reference, now);
        if self.counted == 0 {
            self.counted = 1;
        } else if !restarted && let Some(deviation) = deviation(reference, now) {
            self.counted += 1;
            self.jitter += (deviation as f64 - self.jitter) / 16.0;
            self.max = self.max.max(self.jitter);
            self.sum += self.jitter;
        }
    }

    fn remember(&mut self, timestamp: u32) {
        self.recent[self.remembered % RECENT] = timestamp;
        self.remembered += 1;
    }
}

/// When a packet was received and when it was sampled, both in units of the RTP clock.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Moment {
    arrival: u64,
    timestamp: u32,
}

impl Moment {
    /// How long the packet travelled, but for a constant.
    fn transit(self, wrapped: u64) -> u64 {
        self.arrival.wrapping_sub(u64::from(self.timestamp) + wrapped)
    }
}

/// By how much the time of travel changed; none if the timestamps leapt, which is no matter of the network.
fn deviation(before: Moment, now: Moment) -> Option<u64> {
    let elapsed = now.arrival.abs_diff(before.arrival);
    let mut wrapped = 0;
    if let Some(back) = before.timestamp.checked_sub(now.timestamp).filter(|&back| back > 0) {
        if back > HALF_CYCLE {
            wrapped = TIMESTAMP_CYCLE;
        } else if is_leap(back, elapsed, LEAP_BACK) {
            return None;
        }
    } else if is_leap(now.timestamp - before.timestamp, elapsed, LEAP_FORWARD) {
        return None;
    }
    let change = now.transit(wrapped).wrapping_sub(before.transit(0));
    Some((change as i64).unsigned_abs())
}

/// Packets of the same tick cannot be compared with the time that passed.
fn is_leap(by: u32, elapsed: u64, limit: u64) -> bool {
    elapsed != 0 && u64::from(by) > elapsed.saturating_mul(limit)
}

/// What is left of sources that are no longer told apart, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Folded {
    max: f64,
    sum: f64,
    updates: u64,
}

impl Folded {
    fn add(&mut self, source: &Source) {
        self.max = self.max.max(source.max);
        self.sum += source.sum;
        self.updates += source.counted.saturating_sub(1);
    }
}

const MAX_SOURCES: usize = 10;
const RECENT: usize = 10;
const TIMESTAMP_CYCLE: u64 = 1 << 32;
const HALF_CYCLE: u32 = 1 << 31;
/// A timestamp that falls back by more than this times the time that passed is a leap.
const LEAP_BACK: u64 = 50;
/// The same forward.
const LEAP_FORWARD: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of a packet of 20 ms at 8,000 Hz, in ticks.
    const FRAME: u32 = 160;

    /// Packets of one source at 8,000 Hz; arrivals are in ticks, half a tick late against rounding.
    #[derive(Default)]
    struct Stream {
        meter: JitterMeter,
    }

    impl Stream {
        fn packet(&mut self, timestamp: u32, arrival: u64) {
            self.from(1, timestamp, arrival, false);
        }

        fn reset(&mut self, timestamp: u32, arrival: u64) {
            self.from(1, timestamp, arrival, true);
        }

        fn from(&mut self, ssrc: u32, timestamp: u32, arrival: u64, restarted: bool) {
            let tick = 1_000_000_000 / 8_000;
            let arrival = Wall(1_700_000_000_000_000_000 + arrival * tick + tick / 2);
            self.meter.packet(ssrc, Some(8_000), timestamp, arrival, restarted);
        }

        /// The jitter after each deviation in turn, by RFC 3550.
        fn assert_deviations(&self, deviations: &[f64]) {
            let mut expected = Jitter::default();
            let mut sum = 0.0;
            for deviation in deviations {
                expected.last += (deviation - expected.last) / 16.0;
                expected.max = expected.max.max(expected.last);
                sum += expected.last;
            }
            expected.avg = sum / deviations.len() as f64;
            assert_eq!(self.meter.summary(), expected);
        }
    }

    #[test]
    fn nothing_is_known_of_one_packet() {
        let mut stream = Stream::default();
        stream.packet(0, 0);
        assert_eq!(stream.meter.summary(), Jitter::default());
    }

    #[test]
    fn an_even_stream_has_none() {
        let mut stream = Stream::default();
        for n in 0..100 {
            stream.packet(n * FRAME, u64::from(n * FRAME));
        }
        assert_eq!(stream.meter.summary(), Jitter::default());
    }

    #[test]
    fn each_deviation_counts_a_sixteenth() {
        let mut stream = Stream::default();
        stream.packet(0, 0);
        stream.packet(FRAME, 200);
        stream.packet(2 * FRAME, 320);
        stream.packet(3 * FRAME, 481);
        stream.assert_deviations(&[40.0, 40.0, 1.0]);
    }

    #[test]
    fn types_without_a_clock_are_not_measured() {
        let mut meter = JitterMeter::default();
        for n in 0..10 {
            meter.packet(1, None, n * 1000, Wall(0), false);
        }
        assert_eq!(meter.summary(), Jitter::default());
    }

    #[test]
    fn a_timestamp_seen_lately_is_skipped() {
        let mut stream = Stream::default();
        stream.packet(0, 0);
        stream.packet(FRAME, 160);
        stream.packet(FRAME, 10_000);
        stream.packet(0, 20_000);
        stream.packet(2 * FRAME, 320);
        stream.assert_deviations(&[0.0, 0.0]);
    }

    #[test]
    fn a_timestamp_is_forgotten_after_ten_others() {
        let mut stream = Stream::default();
        for n in 0..=10 {
            stream.packet(n * FRAME, u64::from(n * FRAME));
        }
        stream.packet(0, 1600 + 32);
        let back = f64::from(10 * FRAME + 32);
        assert_eq!(stream.meter.summary().last, back / 16.0);

        let mut stream = Stream::default();
        for n in 0..10 {
            stream.packet(n * FRAME, u64::from(n * FRAME));
        }
        stream.packet(0, 1600 + 32);
        assert_eq!(stream.meter.summary().last, 0.0);
    }

    #[test]
    fn repetitions_of_the_first_timestamp_move_the_reference() {
        let mut stream = Stream::default();
        stream.packet(0, 0);
        stream.packet(0, 1_000);
        stream.packet(FRAME, 1_160);
        stream.packet(FRAME, 5_000);
        stream.packet(2 * FRAME, 1_320);
        stream.assert_deviations(&[0.0, 0.0]);
    }

    #[test]
    fn a_restarted_sequence_is_a_new_reference() {
        let mut stream = Stream::default();
        stream.packet(0, 0);
        stream.packet(FRAME, 160);
        stream.reset(50_000, 320);
        stream.packet(50_000 + FRAME, 480);
        stream.assert_deviations(&[0.0, 0.0]);
    }

    #[test]
    fn the_timestamp_may_wrap() {
        let mut stream = Stream::default();
        stream.packet(u32::MAX - 59, 0);
        stream.packet(100, 176);
        stream.packet(100 + FRAME, 336);
        stream.assert_deviations(&[16.0, 0.0]);
    }

    #[test]
    fn a_timestamp_that_falls_far_back_is_a_new_reference() {
        // 10 ticks passed: back by 500 is measured, by 501 not.
        for (back, deviations) in [(500, [510.0, 0.0].as_slice()), (501, &[0.0])] {
            let mut stream = Stream::default();
            stream.packet(10_000, 0);
            stream.packet(10_000 - back, 10);
            stream.packet(10_000 - back + FRAME, 170);
            stream.assert_deviations(deviations);
        }
    }

    #[test]
    fn a_timestamp_that_leaps_far_ahead_is_a_new_reference() {
        for (ahead, deviations) in [(10_240, [10_230.0, 0.0].as_slice()), (10_241, &[0.0])] {
            let mut stream = Stream::default();
            stream.packet(10_000, 0);
            stream.packet(10_000 + ahead, 10);
            stream.packet(10_000 + ahead + FRAME, 170);
            stream.assert_deviations(deviations);
        }
    }

    #[test]
    fn packets_of_one_tick_are_measured_however_far_apart() {
        let mut stream = Stream::default();
        stream.packet(0, 0);
        stream.packet(5_000, 0);
        stream.assert_deviations(&[5_000.0]);
    }

    #[test]
    fn the_last_value_is_that_of_the_newest_measured_source() {
        let mut stream = Stream::default();
        for (ssrc, late) in [(1, 160), (2, 320)] {
            stream.from(ssrc, 0, 0, false);
            stream.from(ssrc, FRAME, u64::from(FRAME) + late, false);
        }
        let summary = stream.meter.summary();
        assert_eq!(summary, Jitter { last: 20.0, max: 20.0, avg: 15.0 });
        // The first source goes on, and a third one says nothing yet: the second stays the newest measured.
        stream.from(1, 2 * FRAME, 480 + 800, false);
        stream.from(3, 0, 0, false);
        assert_eq!(stream.meter.summary().last, 20.0);
        assert_eq!(stream.meter.summary().max, 10.0 + (800.0 - 10.0) / 16.0);
    }

    #[test]
    fn sources_beyond_ten_live_on_in_maximum_and_mean() {
        let mut stream = Stream::default();
        for ssrc in 0..40 {
            stream.from(ssrc, 0, 0, false);
            stream.from(ssrc, FRAME, u64::from(FRAME) + if ssrc == 0 { 1600 } else { 160 }, false);
        }
        assert_eq!(stream.meter.older.len(), MAX_SOURCES - 1);
        assert_eq!(
            stream.meter.summary(),
            Jitter { last: 10.0, max: 100.0, avg: (100.0 + 39.0 * 10.0) / 40.0 }
        );
        // The first source was forgotten: it starts anew instead of being measured against its old packets.
        stream.from(0, 2 * FRAME, 9_999, false);
        assert_eq!(stream.meter.summary().last, 10.0);
    }
}
