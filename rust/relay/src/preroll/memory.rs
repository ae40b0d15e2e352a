//! How much memory all that is kept may take, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::ring::Block;

/// The memory for what is kept, and what the workers tell each other of it: never a lock, and nothing for a packet,
/// only for a block of them.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    /// What the worker with the largest holder leaves to others while they ask for it, in bytes.
    reserve: usize,
    used: AtomicUsize,
    sessions: AtomicU64,
    lost: AtomicU64,
    workers: Box<[Share]>,
}

/// What one worker lets the others know.
#[derive(Debug, Default)]
struct Share {
    /// Blocks of its largest holder.
    largest: AtomicUsize,
    /// Blocks that others would have of it.
    asked: AtomicUsize,
}

/// The figures of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrerollFigures {
    /// Bytes in use, also of what the recorder has not written yet.
    pub(crate) used_bytes: u64,
    /// How many there may be.
    pub(crate) limit_bytes: u64,
    /// Sessions of which something is kept.
    pub(crate) sessions: u64,
    /// Packets that were lost to the limit before their time.
    pub(crate) lost: u64,
}

impl Memory {
    /// At most `limit` bytes for so many workers.
    pub(crate) fn new(limit: usize, workers: usize) -> Arc<Self> {
        let reserve =
            if workers > 1 { (limit / 64).max(2 * workers * Block::SIZE).min(limit / 8) } else { 0 };
        Arc::new(Self {
            limit,
            reserve,
            used: AtomicUsize::new(0),
            sessions: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            workers: (0..workers).map(|_| Share::default()).collect(),
        })
    }

    /// The figures as they are now.
    pub(crate) fn figures(&self) -> PrerollFigures {
        PrerollFigures {
            used_bytes: self.used.load(Ordering::Relaxed) as u64,
            limit_bytes: self.limit as u64,
            sessions: self.sessions.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// Takes `bytes`, if there are so many left.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let room = |used: usize| Some(used + bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    /// Gives them back.
    pub(super) fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts packets that were lost to the limit.
    pub(super) fn lose(&self, packets: u64) {
        self.lost.fetch_add(packets, Ordering::Relaxed);
    }

    /// Something is kept of one more session.
    pub(super) fn enter(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing is kept of one of them any more.
    pub(super) fn leave(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// Lets the others know how many blocks the largest holder of `worker` has.
    pub(super) fn tell_largest(&self, worker: usize, blocks: usize) {
        self.workers[worker].largest.store(blocks, Ordering::Relaxed);
    }

    /// Whether only the reserve is left.
    pub(super) fn is_tight(&self) -> bool {
        self.used.load(Ordering::Relaxed) + self.reserve >= self.limit
    }

    /// How many blocks the largest holder of the workers other than `worker` has. If that is more than one above `blocks`,
    /// that worker is asked for a block, and gives it up when it gets to it.
    pub(super) fn ask_others(&self, worker: usize, blocks: usize) -> usize {
        let others = self.workers.iter().enumerate().filter(|(number, _)| *number != worker);
        let largest = others.map(|(_, share)| (share.largest.load(Ordering::Relaxed), share));
        let Some((most, share)) = largest.max_by_key(|(most, _)| *most) else { return 0 };
        if most > blocks + 1 {
            share.asked.fetch_add(1, Ordering::Relaxed);
        }
        most
    }

    /// How many blocks others would have of `worker`; from then on none.
    pub(super) fn take_asked(&self, worker: usize) -> usize {
        let asked = &self.workers[worker].asked;
        if asked.load(Ordering::Relaxed) == 0 { 0 } else { asked.swap(0, Ordering::Relaxed) }
    }
}
