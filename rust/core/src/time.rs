//! Instants as the shell hands them in.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A reading of a clock that never goes back, in nanoseconds from an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// The time from `earlier` to `self`; zero if `earlier` is the later one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

/// Wall-clock time in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub u64);

impl Wall {
    /// Seconds since the Unix epoch.
    pub fn seconds(self) -> f64 {
        // Whole and fraction apart: nanoseconds of today are too many for the 53 bits of a double.
        (self.0 / 1_000_000_000) as f64 + (self.0 % 1_000_000_000) as f64 / 1e9
    }

    /// The time that is so many seconds after the Unix epoch; none if it is before that or beyond the year
    /// 2500.
    ///
    /// What [`Self::seconds`] says of it are the same seconds, if these are of this century.
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        if !(0.0..SECONDS_MAX).contains(&seconds) {
            return None;
        }
        let whole = seconds.trunc();
        let nanos = ((seconds - whole) * 1e9).round();
        Some(Self(whole as u64 * 1_000_000_000 + nanos as u64))
    }
}

/// One moment on both clocks: timers run on `mono`, files carry `wall`.
///
/// For a packet both are the moment the kernel received it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The clock for timers.
    pub mono: Mono,
    /// The clock for files and people.
    pub wall: Wall,
}

impl Add<Duration> for Now {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self { mono: self.mono + span, wall: Wall(self.wall.0.saturating_add(nanos(span))) }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Late in the year 2500.
const SECONDS_MAX: f64 = 16.75e9;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seconds_that_are_no_time_are_refused() {
        for seconds in [-0.001, f64::NAN, f64::INFINITY, 17e9] {
            assert_eq!(Wall::from_seconds(seconds), None);
        }
        assert_eq!(Wall::from_seconds(0.0), Some(Wall(0)));
        assert_eq!(Wall::from_seconds(1.5), Some(Wall(1_500_000_000)));
    }

    proptest! {
        #[test]
        fn seconds_of_this_century_survive(seconds in 946_684_800.0..4_102_444_800.0) {
            prop_assert_eq!(Wall::from_seconds(seconds).unwrap().seconds(), seconds);
        }
    }
}
