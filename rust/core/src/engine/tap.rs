//! Live taps: whoever runs the engine gets what a session receives, as it comes.

use super::Engine;
use crate::command::{CallId, Party};
use crate::effects::TapId;
use crate::session::TAPS_MAX;

/// Why a session cannot be tapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapError {
    /// There is no such session.
    #[error("session not found")]
    NotFound,
    /// It has as many taps as it may have.
    #[error("a session has {TAPS_MAX} taps at most")]
    TooMany,
    /// Nobody is there to do it: the relay is at its end.
    #[error("the relay is about to end")]
    Gone,
}

impl Engine {
    /// Taps the session that the tags mean: from now on each packet that its witnesses see is an
    /// [`Effect::Tap`](crate::effects::Effect::Tap), until there is an
    /// [`Effect::TapEnd`](crate::effects::Effect::TapEnd).
    ///
    /// # Errors
    ///
    /// There is no such session, or it has too many taps.
    pub fn tap(&mut self, party: &Party, id: TapId) -> Result<(), TapError> {
        let (key, _) = self.find(party).ok_or(TapError::NotFound)?;
        let taps = &mut self.sessions[key].taps;
        if taps.len() >= TAPS_MAX {
            return Err(TapError::TooMany);
        }
        taps.push(id);
        Ok(())
    }

    /// Takes a tap off, if there is still a session of that call that has it.
    pub fn untap(&mut self, call_id: &CallId, id: TapId) {
        for key in self.sessions_of(call_id) {
            self.sessions[key].taps.retain(|tap| *tap != id);
        }
    }
}
