//! When a worker waits for the next packet, and when it lets packets gather first.

use std::time::Duration;

use rtpproxy_core::time::Mono;

/// How to wait for the next packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until something happens.
    Block,
    /// Not at all: there may be more.
    Look,
    /// This long, whatever arrives on the media sockets, then look.
    Gather(Duration),
}

/// The adaptive tick of one worker.
///
/// Being woken is the dearest part of relaying a packet. So a busy worker is not woken by each one: it empties
/// its sockets, lets about [`PACKETS_PER_TICK`] gather, and empties them again. When fewer than two would
/// gather in the longest tick, every packet is relayed as it comes.
#[derive(Debug)]
pub(crate) struct Pace {
    window_start: Mono,
    window_packets: u32,
    tick: Option<Duration>,
    last: Wait,
    last_packets: u32,
}

impl Pace {
    /// The pace of a worker that has seen nothing yet.
    pub(crate) fn new(now: Mono) -> Self {
        Self { window_start: now, window_packets: 0, tick: None, last: Wait::Block, last_packets: 0 }
    }

    /// Says that the wait before `now` yielded `packets`.
    pub(crate) fn count(&mut self, now: Mono, packets: u32) {
        self.last_packets = packets;
        self.window_packets = self.window_packets.saturating_add(packets);
        let elapsed = now.since(self.window_start);
        if elapsed >= WINDOW {
            let interval = elapsed / self.window_packets.max(1);
            self.tick =
                (interval * 2 <= TICK_MAX).then(|| (interval * PACKETS_PER_TICK).clamp(TICK_MIN, TICK_MAX));
            self.window_start = now;
            self.window_packets = 0;
        }
    }

    /// How to wait next.
    pub(crate) fn next_wait(&mut self) -> Wait {
        self.last = match (self.tick, self.last) {
            (None, _) => Wait::Block,
            (Some(_), _) if self.last_packets > 0 => Wait::Look,
            (Some(tick), Wait::Look) => Wait::Gather(tick),
            // Nothing gathered: the traffic has paused.
            (Some(_), Wait::Gather(_) | Wait::Block) => Wait::Block,
        };
        self.last
    }
}

/// How often the pace is found anew, at most.
const WINDOW: Duration = Duration::from_millis(5);
/// Shorter ticks save nothing.
const TICK_MIN: Duration = Duration::from_micros(250);
/// Longer ones would be heard, in the end, in the sum of a call's delays.
const TICK_MAX: Duration = Duration::from_millis(1);
/// Packets after which the cost of being woken is small beside theirs.
const PACKETS_PER_TICK: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `count` single packets, `interval` apart.
    fn feed(pace: &mut Pace, from: Mono, interval: Duration, count: u32) -> Mono {
        (0..count).fold(from, |now, _| {
            let now = now + interval;
            pace.count(now, 1);
            now
        })
    }

    #[test]
    fn few_packets_are_relayed_as_they_come() {
        let mut pace = Pace::new(Mono(0));
        feed(&mut pace, Mono(0), Duration::from_micros(600), 100);
        assert_eq!(pace.next_wait(), Wait::Block);
    }

    #[test]
    fn the_tick_follows_the_rate_within_its_bounds() {
        for (interval_us, tick_us) in [(500, 1000), (100, 1000), (50, 800), (20, 320), (5, 250)] {
            let mut pace = Pace::new(Mono(0));
            feed(&mut pace, Mono(0), Duration::from_micros(interval_us), 10_000);
            assert_eq!(pace.tick, Some(Duration::from_micros(tick_us)), "{interval_us}");
        }
    }

    #[test]
    fn a_busy_worker_looks_until_it_is_dry_then_gathers_then_blocks() {
        let mut pace = Pace::new(Mono(0));
        let now = feed(&mut pace, Mono(0), Duration::from_micros(100), 1000);
        assert_eq!(pace.next_wait(), Wait::Look);
        pace.count(now, 0);
        assert_eq!(pace.next_wait(), Wait::Gather(TICK_MAX));
        pace.count(now, 3);
        assert_eq!(pace.next_wait(), Wait::Look);
        pace.count(now, 0);
        assert_eq!(pace.next_wait(), Wait::Gather(TICK_MAX));
        pace.count(now, 0);
        assert_eq!(pace.next_wait(), Wait::Block);
    }

    #[test]
    fn after_a_pause_the_first_packet_is_not_held_up() {
        let mut pace = Pace::new(Mono(0));
        let now = feed(&mut pace, Mono(0), Duration::from_micros(100), 1000);
        pace.count(now + Duration::from_secs(1), 1);
        assert_eq!(pace.next_wait(), Wait::Block);
    }
}
