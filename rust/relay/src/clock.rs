//! The clocks of a worker, and the way from a packet's kernel stamp to both of them.

use rtpproxy_core::time::{Mono, Now, Wall};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The present moment.
pub(crate) fn now() -> Now {
    Now {
        mono: Mono(nanos(clock_gettime(ClockId::Monotonic))),
        wall: Wall(nanos(clock_gettime(ClockId::Realtime))),
    }
}

/// Both clocks, sampled once for a batch of packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    now: Now,
    /// The wall clock was set since the last batch: stamps of this one may be of either time.
    jumped: bool,
}

impl Batch {
    /// A batch that starts `now`, after `earlier`.
    pub(crate) fn new(now: Now, earlier: Now) -> Self {
        let drift = offset(now).abs_diff(offset(earlier));
        let allowed = SLEW_NS_MAX + now.mono.since(earlier.mono).as_nanos() as u64 / SLEW_DIVISOR;
        Self { now, jumped: drift > allowed }
    }

    /// When a packet with this kernel stamp arrived.
    ///
    /// The kernel stamps by the wall clock; what timers and gaps are made of is moved to the clock that
    /// nobody sets. A stamp that cannot be true counts as now.
    pub(crate) fn arrival(&self, stamp: Option<Wall>) -> Now {
        let Some(stamp) = stamp else { return self.now };
        if stamp.0.abs_diff(self.now.wall.0) > AGE_NS_MAX {
            return self.now;
        }
        if self.jumped {
            return Now { wall: stamp, ..self.now };
        }
        let mono = self.now.mono.0.saturating_add_signed(stamp.0.wrapping_sub(self.now.wall.0) as i64);
        Now { mono: Mono(mono), wall: stamp }
    }
}

/// The wall clock less the monotonic one.
fn offset(now: Now) -> i64 {
    now.wall.0.wrapping_sub(now.mono.0) as i64
}

fn nanos(time: Timespec) -> u64 {
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Older packets do not wait in a socket: their stamp is of another time.
const AGE_NS_MAX: u64 = 1_000_000_000;

/// Two readings, one after the other, may be this far apart when the thread was interrupted between them.
const SLEW_NS_MAX: u64 = 1_000_000;

/// A clock that is slewed, not set, drifts by at most 1 in 1000 (adjtimex allows half of that).
const SLEW_DIVISOR: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: Now = Now { mono: Mono(100 * SECOND), wall: Wall(1_700_000_000 * SECOND) };

    fn at(mono_ns: u64, wall_ns: i64) -> Now {
        Now { mono: Mono(START.mono.0 + mono_ns), wall: Wall(START.wall.0.saturating_add_signed(wall_ns)) }
    }

    #[test]
    fn a_stamp_is_moved_to_the_monotonic_clock() {
        let batch = Batch::new(at(5_000_000, 5_000_000), START);
        let stamp = Wall(START.wall.0 + 1_000_000);
        assert_eq!(batch.arrival(Some(stamp)), at(1_000_000, 1_000_000));
        assert_eq!(batch.arrival(None), at(5_000_000, 5_000_000));
    }

    #[test]
    fn a_packet_may_arrive_after_the_sample() {
        let batch = Batch::new(START, START);
        assert_eq!(batch.arrival(Some(Wall(START.wall.0 + 700))), at(700, 700));
    }

    #[test]
    fn a_stamp_of_another_time_counts_as_now() {
        let batch = Batch::new(START, START);
        assert_eq!(batch.arrival(Some(Wall(START.wall.0 - 2 * SECOND))), START);
        assert_eq!(batch.arrival(Some(Wall(START.wall.0 + 2 * SECOND))), START);
    }

    #[test]
    fn the_batch_after_a_jump_of_the_wall_clock_arrives_now() {
        let now = at(1_000_000, -400_000_000);
        let batch = Batch::new(now, START);
        assert_eq!(batch.arrival(Some(START.wall)), Now { wall: START.wall, mono: now.mono });
        let next = Batch::new(at(2_000_000, -399_000_000), now);
        assert_eq!(next.arrival(Some(Wall(now.wall.0))), now);
    }
}
