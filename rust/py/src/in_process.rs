//! A relay in this process.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rtpproxy_core::command::{Command, NotifyTarget, Party, Reply};
use rtpproxy_core::config::NotifySpec;
use rtpproxy_core::front::Origin;
use rtpproxy_relay::control::{self, SocketOptions};
use rtpproxy_relay::tap::{AttachedTap, TapError, TapLimits};
use rtpproxy_relay::{Relay, RelayHandle};

use crate::error;
use crate::events::Events;
use crate::wait;

/// What `U` calls the notification target that leads to Python.
pub(crate) const NOTIFY_TARGET: &[u8] = b"in-process:python";

/// The number of the in-process target for timeouts.
const TIMEOUTS: u32 = 0;
/// That for recordings.
const RECORDINGS: u32 = 1;

/// A relay and the way into it.
pub(crate) struct InProcess {
    handle: RelayHandle,
    /// `None` once closed.
    relay: Mutex<Option<Relay>>,
    closed: AtomicBool,
    events: Events,
    /// Threads do not survive a fork.
    process: u32,
}

impl InProcess {
    /// Starts a relay with the settings that these options of the command line mean.
    pub(crate) fn start(py: Python<'_>, options: Vec<OsString>) -> PyResult<Self> {
        let (mut config, control) = rtpproxy_cli::relay_settings(options).map_err(PyValueError::new_err)?;
        let target = NotifyTarget::InProcess(TIMEOUTS);
        config.front.notify.push(NotifySpec::Fixed { name: NOTIFY_TARGET.into(), target });
        let start = move || {
            let bound =
                control::bind(&control, &SocketOptions::default()).map_err(|error| error.to_string())?;
            Relay::start(config, bound).map_err(|error| error.to_string())
        };
        let relay = wait::off_thread(py, start)?.map_err(error::not_started)?;
        let handle = relay.handle();
        let events = Events::InProcess { events: handle.subscribe(), recordings: RECORDINGS };
        let process = std::process::id();
        Ok(Self { handle, relay: Mutex::new(Some(relay)), closed: AtomicBool::new(false), events, process })
    }

    /// Executes a typed command.
    pub(crate) fn call(&self, py: Python<'_>, command: Command) -> PyResult<Reply> {
        self.ask(py, move |handle| handle.execute_command(command))
    }

    /// Executes a raw command.
    pub(crate) fn command(&self, py: Python<'_>, text: &[u8]) -> PyResult<Vec<u8>> {
        self.ask(py, |handle| handle.execute(text, Origin::default()))
    }

    /// Taps a session.
    pub(crate) fn tap(
        &self,
        py: Python<'_>,
        party: Party,
        limits: TapLimits,
    ) -> PyResult<Result<AttachedTap, TapError>> {
        self.ask(py, move |handle| handle.tap(party, limits))
    }

    /// Has recordings told of among the notifications from now on.
    pub(crate) fn announce_recordings(&self) {
        self.handle.announce_recordings(RECORDINGS);
    }

    /// The notifications that `U` asked for.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// Shuts the relay down; recordings are complete when it returns.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.closed.store(true, Ordering::Release);
        let relay = self.relay.lock().unwrap_or_else(PoisonError::into_inner).take();
        relay.map_or(Ok(()), |relay| wait::off_thread(py, move || relay.shutdown()))
    }

    fn ask<T: Send>(&self, py: Python<'_>, ask: impl FnOnce(&RelayHandle) -> T + Send) -> PyResult<T> {
        let open = || !self.closed.load(Ordering::Acquire);
        let reply = open().then(|| py.detach(|| ask(&self.handle)));
        // What a relay answers while it goes down does not count.
        reply.filter(|_| open()).ok_or_else(|| error::closed("the relay is closed"))
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        let relay = self.relay.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if self.process == std::process::id() {
            Python::attach(|py| py.detach(|| drop(relay)));
        } else {
            // In a child process there are no threads to join, and the files of the sockets are the parent's.
            std::mem::forget(relay);
        }
    }
}
