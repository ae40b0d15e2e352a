//! How the time for which a packet may be in memory alone (`--record-flush`) is shared out.

use std::time::Duration;

/// The shares of that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Periods {
    /// How long packets wait for older ones, while the worker does not say that there are none.
    pub(super) order: Duration,
    /// How long the first packets wait for the other party.
    pub(super) head: Duration,
    /// How long a record stays in the buffer of a file.
    pub(super) buffer: Duration,
    /// How often files are looked after.
    pub(super) sweep: Duration,
    /// How long the recorder sleeps while something is recorded: workers do not wake it.
    pub(super) poll: Duration,
}

impl Periods {
    /// The shares of `flush`.
    pub(super) fn of(flush: Duration) -> Self {
        let order = (flush / 5).min(Duration::from_millis(200));
        let sweep = (flush / 10).min(Duration::from_millis(100));
        let poll = (flush / 20).min(Duration::from_millis(50));
        Self {
            order,
            head: (flush / 2).min(Duration::from_millis(500)),
            buffer: flush.saturating_sub(order + sweep + poll),
            sweep,
            poll,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_in_memory_alone_no_longer_than_that() {
        for flush in [100, 250, 1000, 5000, 60_000].map(Duration::from_millis) {
            let Periods { order, head, buffer, sweep, poll } = Periods::of(flush);
            assert_eq!(order + buffer + sweep + poll, flush);
            assert!(poll < sweep && head <= flush / 2, "{flush:?}");
        }
    }
}
