//! How many sessions the process may have, and how many it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open descriptors as far as the process may; returns it.
pub(crate) fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let current = if raised.is_ok() { limit.maximum } else { limit.current };
    current.and_then(|current| usize::try_from(current).ok()).unwrap_or(usize::MAX)
}

/// The sessions of all workers.
#[derive(Debug)]
pub(crate) struct Sessions {
    active: AtomicUsize,
    warn_above: usize,
    warned: AtomicBool,
}

impl Sessions {
    /// No sessions, in a process that may open `descriptors` files.
    pub(crate) fn new(descriptors: usize) -> Self {
        let warn_above = descriptors / DESCRIPTORS_PER_SESSION / 5 * 4;
        Self { active: AtomicUsize::new(0), warn_above, warned: AtomicBool::new(false) }
    }

    /// Sessions now.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    fn change(&self, from: usize, to: usize) {
        let before = self.active.fetch_add(to.wrapping_sub(from), Ordering::AcqRel);
        let active = before.wrapping_add(to).wrapping_sub(from);
        if active > self.warn_above && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("{active} sessions: more than 80 % of what the limit of open files allows");
        }
    }
}

/// The part of one worker in [`Sessions`]; dropping it takes them off.
#[derive(Debug)]
pub(crate) struct Share {
    sessions: Arc<Sessions>,
    mine: usize,
}

impl Share {
    /// A worker without sessions.
    pub(crate) fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions, mine: 0 }
    }

    /// The worker has `count` sessions now.
    pub(crate) fn set(&mut self, count: usize) {
        if count != self.mine {
            self.sessions.change(self.mine, count);
            self.mine = count;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Two pairs of media sockets, and one for a recording.
const DESCRIPTORS_PER_SESSION: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_go_with_their_worker() {
        let sessions = Arc::new(Sessions::new(100));
        let mut one = Share::new(sessions.clone());
        let mut two = Share::new(sessions.clone());
        one.set(7);
        two.set(5);
        one.set(3);
        assert_eq!(sessions.active(), 8);
        drop(two);
        assert_eq!(sessions.active(), 3);
    }

    #[test]
    fn the_warning_comes_above_four_fifths() {
        let sessions = Arc::new(Sessions::new(50));
        let mut share = Share::new(sessions.clone());
        share.set(8);
        assert!(!sessions.warned.load(Ordering::Relaxed));
        share.set(9);
        assert!(sessions.warned.load(Ordering::Relaxed));
    }
}
