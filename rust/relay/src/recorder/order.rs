//! Packets of one recording in the order of their time stamps.
//!
//! A worker that was kept from its sockets finds several packets in each and reads them in turn, so those of
//! one stream may come before older ones of another.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::head::Held;

/// Packets that wait for older ones.
#[derive(Debug)]
pub(super) struct Order {
    /// How much older a packet may be than one that came before it.
    span: Duration,
    /// The oldest first.
    waiting: VecDeque<Held>,
    last_push: Option<Instant>,
}

impl Order {
    /// An order in which packets wait for those that are older by up to `span`.
    pub(super) fn new(span: Duration) -> Self {
        Self { span, waiting: VecDeque::new(), last_push: None }
    }

    /// Lets a packet wait.
    pub(super) fn push(&mut self, held: Held, now: Instant) {
        let is_older = |known: &Held| known.packet.at.wall <= held.packet.at.wall;
        let place = self.waiting.iter().rposition(is_older).map_or(0, |older| older + 1);
        self.waiting.insert(place, held);
        self.last_push = Some(now);
    }

    /// The oldest packet, if it has waited long enough for others.
    pub(super) fn pop_due(&mut self) -> Option<Held> {
        let at = |held: Option<&Held>| held.map(|held| held.packet.at.wall.0);
        let (oldest, newest) = (at(self.waiting.front())?, at(self.waiting.back())?);
        if newest - oldest >= self.span.as_nanos() as u64 { self.pop() } else { None }
    }

    /// The oldest packet.
    pub(super) fn pop(&mut self) -> Option<Held> {
        self.waiting.pop_front()
    }

    /// Whether packets wait although none has come for a while.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let is_quiet = |since: Instant| now.saturating_duration_since(since) >= self.span;
        !self.waiting.is_empty() && self.last_push.is_some_and(is_quiet)
    }
}
