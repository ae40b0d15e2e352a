//! What was kept, on its way into a recording.

use rtpproxy_core::recording::{Leg, RecordingId};
use rtpproxy_core::time::{Mono, Now, Wall};

use super::ring::{Cursor, Kept, Ring};

/// The packets from before a recording, those of both parties in the order of time.
#[derive(Debug)]
pub(crate) struct Preroll {
    /// The recording.
    pub(crate) to: RecordingId,
    /// When it was asked for.
    pub(crate) asked: Now,
    /// Packets of that time that were lost to the limit.
    pub(crate) lost: u64,
    cursors: Vec<Cursor>,
}

impl Preroll {
    /// What came at `since` or later.
    pub(super) fn new(
        to: RecordingId,
        asked: Now,
        since: Mono,
        rings: impl Iterator<Item = (Leg, Ring)>,
    ) -> Self {
        let mut lost = 0;
        let cursors = rings.map(|(leg, ring)| {
            lost += ring.lost(since);
            ring.into_cursor(leg, since)
        });
        let cursors = cursors.collect();
        Self { to, asked, lost, cursors }
    }

    /// How many packets are left.
    pub(crate) fn packets(&self) -> u64 {
        self.cursors.iter().map(Cursor::packets).sum()
    }

    /// When the next one came.
    pub(crate) fn first(&mut self) -> Option<Wall> {
        self.cursors.iter_mut().filter_map(Cursor::peek).map(|at| at.wall).min()
    }

    /// The next packet. What is read is freed.
    pub(crate) fn next(&mut self) -> Option<Kept<'_>> {
        let times = self.cursors.iter_mut().enumerate();
        let times = times.filter_map(|(number, cursor)| Some((cursor.peek()?.wall, number)));
        let (_, number) = times.min()?;
        self.cursors[number].next()
    }
}
