//! Sessions as values, so that a call can move to another engine.

use super::Engine;
use crate::command::CallId;
use crate::effects::PairId;
use crate::host::OpenedPair;
use crate::session::Session;

/// All sessions of one call, taken out of an engine with everything that is known of them.
#[derive(Clone, Debug, PartialEq)]
pub struct CallState {
    sessions: Vec<Session>,
}

impl CallState {
    /// The socket pairs that belong to the call.
    pub fn pairs(&self) -> impl Iterator<Item = OpenedPair> {
        self.sessions.iter().flat_map(|session| &session.sides).filter_map(|side| side.pair)
    }
}

impl Engine {
    /// Takes a call out. Its sockets stay open and are the caller's to hand on; `None` if it is unknown.
    pub fn export(&mut self, call_id: &CallId) -> Option<CallState> {
        let keys = self.by_call.get(call_id)?.clone();
        let sessions: Vec<Session> = keys.into_iter().map(|key| self.take(key)).collect();
        let state = CallState { sessions };
        for pair in state.pairs() {
            self.by_pair[pair.id.0 as usize] = None;
        }
        Some(state)
    }

    /// Takes a call in. `place` tells the handle that each pair has here.
    pub fn import(&mut self, state: CallState, mut place: impl FnMut(OpenedPair) -> PairId) {
        for mut session in state.sessions {
            for side in &mut session.sides {
                if let Some(pair) = &mut side.pair {
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
