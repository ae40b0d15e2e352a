//! Waiting without the GIL, and not longer than until a signal wants to be heard.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::error;

/// Calls `attempt` with a time to wait until it gives something, the deadline is over (`None`), or Python wants
/// to raise an exception for a signal.
pub(crate) fn in_slices<T: Send>(
    py: Python<'_>,
    deadline: Option<Instant>,
    mut attempt: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<Option<T>> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let slice = left.unwrap_or(SLICE).min(SLICE);
        if let Some(value) = py.detach(|| attempt(slice)) {
            return Ok(Some(value));
        }
        py.check_signals()?;
        if left.is_some_and(|left| left <= slice) {
            return Ok(None);
        }
    }
}

/// Runs `work` in a thread of its own and waits for it. If a signal ends the wait, the work goes on.
pub(crate) fn off_thread<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (done, result) = mpsc::sync_channel(1);
    thread::Builder::new().name("rtpproxy-work".to_owned()).spawn(move || drop(done.send(work())))?;
    let value = in_slices(py, None, move |slice| match result.recv_timeout(slice) {
        Ok(value) => Some(Some(value)),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(None),
    })?;
    value.flatten().ok_or_else(|| error::other("the work ended without a result"))
}

/// How long a signal may go unheard.
const SLICE: Duration = Duration::from_millis(100);
