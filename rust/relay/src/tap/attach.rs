//! Taps of the sessions of a relay in this process.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use rtpproxy_core::command::{CallId, Party};
use rtpproxy_core::effects::TapId;
pub use rtpproxy_core::engine::TapError;

use super::{Tap, TapLimits, tap};
use crate::RelayHandle;
use crate::dispatch::Job;

impl RelayHandle {
    /// Taps the session that the tags mean, as for `Q`: what its parties send from now on can be taken, as
    /// recordings get it. It ends with the session, or when what is returned is dropped.
    ///
    /// # Errors
    ///
    /// There is no such session, or it has too many taps; [`TapError::Gone`] if the relay is at its end.
    pub fn tap(&self, party: Party, limits: TapLimits) -> Result<AttachedTap, TapError> {
        let id = TapId(NEXT_ID.fetch_add(1, Ordering::Relaxed));
        let (inlet, tap) = tap(limits);
        let (answer, answered) = mpsc::sync_channel(1);
        let call_id = party.call_id.clone();
        let process = std::process::id();
        let attached = AttachedTap { tap, handle: self.clone(), call_id: call_id.clone(), id, process };
        self.send_job(&call_id, Job::Tap { party, id, inlet: Box::new(inlet), answer });
        answered.recv().unwrap_or(Err(TapError::Gone)).map(|()| attached)
    }
}

/// A [`Tap`] of a session. Dropping it takes it off, but not in a child process, which has no threads that could.
#[derive(Debug)]
pub struct AttachedTap {
    tap: Tap,
    handle: RelayHandle,
    call_id: CallId,
    id: TapId,
    /// The one it was made in.
    process: u32,
}

impl AttachedTap {
    /// Closes the tap and takes it off.
    pub fn close(&self) {
        self.tap.close();
        self.handle.send_job(&self.call_id, Job::Untap { call_id: self.call_id.clone(), id: self.id });
    }
}

impl Deref for AttachedTap {
    type Target = Tap;

    fn deref(&self) -> &Tap {
        &self.tap
    }
}

impl Drop for AttachedTap {
    fn drop(&mut self) {
        // A lock may have been held by a thread that the child does not have.
        if self.process == std::process::id() {
            self.close();
        }
    }
}

/// Never used twice in a process, so that a call can move with its taps.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
