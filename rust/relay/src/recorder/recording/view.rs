//! What others see of a recording.

use super::super::ledger::{Figures, RecordingState};
use super::Recording;

impl Recording {
    /// Lets others see how it is doing.
    pub(super) fn publish(&self) {
        let (state, cause) = match (&self.trouble, self.gaps.cause()) {
            (Some(trouble), _) => (RecordingState::Degraded, Some(trouble.cause.as_str())),
            (None, _) if self.place.is_none() => (RecordingState::Starting, None),
            (None, _) if self.is_paused => (RecordingState::Paused, None),
            (None, Some(cause)) => (RecordingState::Degraded, Some(cause)),
            (None, None) => (RecordingState::Recording, None),
        };
        self.entry.update(state, cause, self.figures());
    }

    /// What is recorded and missing, in this folder and in those it had before.
    pub(super) fn figures(&self) -> Figures {
        let waiting = self.files.iter().map(|file| Figures::of(&file.pending));
        let mut figures = waiting.fold(self.earlier.plus(Figures::of(&self.tally)), Figures::plus);
        figures.dropped += self.gaps.packets();
        figures
    }
}
