//! Sessions as values, so that a call can move to another engine.

use super::Engine;
use super::packet::recordings_of;
use crate::command::CallId;
use crate::effects::{PairId, TapId};
use crate::host::OpenedPair;
use crate::recording::KeptId;
use crate::session::{Session, Side};

/// All sessions of one call, taken out of an engine with everything that is known of them.
#[derive(Clone, Debug, PartialEq)]
pub struct CallState {
    sessions: Vec<Session>,
}

impl CallState {
    /// The socket pairs that belong to the call.
    pub fn pairs(&self) -> impl Iterator<Item = OpenedPair> {
        self.sessions.iter().flat_map(|session| &session.sides).flat_map(Side::pairs)
    }

    /// The taps of its sessions.
    pub fn taps(&self) -> impl Iterator<Item = TapId> {
        self.sessions.iter().flat_map(|session| session.taps.iter().copied())
    }

    /// Under which names its packets are kept for later recordings.
    pub fn kept(&self) -> impl Iterator<Item = KeptId> {
        self.sessions.iter().flat_map(|session| &session.sides).filter_map(|side| side.kept)
    }
}

impl Engine {
    /// True if there is a session of the call.
    pub fn has_call(&self, call_id: &CallId) -> bool {
        self.by_call.contains_key(call_id)
    }

    /// True if the call can leave without a loss: nothing records it, and it has no part in a fork.
    pub fn can_leave(&self, call_id: &CallId) -> bool {
        self.sessions_of(call_id).into_iter().all(|key| {
            let session = &self.sessions[key];
            recordings_of(session).next().is_none() && session.forks.is_empty() && !session.is_fork()
        })
    }

    /// Takes a call out. Its sockets stay open and are the caller's to hand on; `None` if it is unknown. Forks
    /// into and out of the call end.
    pub fn export(&mut self, call_id: &CallId) -> Option<CallState> {
        let keys = self.by_call.get(call_id)?.clone();
        let mut sessions: Vec<Session> = keys.into_iter().map(|key| self.take(key)).collect();
        for session in &mut sessions {
            session.forks.clear();
        }
        let state = CallState { sessions };
        for pair in state.pairs() {
            if let Some(owner) = self.by_pair.get_mut(pair.id.0 as usize) {
                *owner = None;
            }
        }
        Some(state)
    }

    /// Takes a call in. `place` tells the handle that each pair has here.
    pub fn import(&mut self, state: CallState, mut place: impl FnMut(OpenedPair) -> PairId) {
        for mut session in state.sessions {
            for side in &mut session.sides {
                for pair in side.pairs_mut() {
                    pair.id = place(*pair);
                }
            }
            let pairs = [session.sides[0].pair, session.sides[1].pair];
            let key = self.insert(session);
            for (side, pair) in pairs.iter().enumerate() {
                if let Some(pair) = pair {
                    self.claim_pair(pair.id, key, side);
                }
            }
            self.keep_appointments(key);
        }
    }
}
