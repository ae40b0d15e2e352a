//! A relay behind a control socket.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;

use pyo3::prelude::*;
use rtpproxy_core::command::{Command, Reply};
use rtpproxy_relay::client::{Client, ClientError, ClientOptions, NotifyListener};

use crate::error;
use crate::events::{Events, Listener};
use crate::wait;

/// A connection in a thread of its own, so that a signal can end the wait for a slow relay. The commands of
/// many threads go through it one after another.
pub(crate) struct Socket {
    /// `None` once closed.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    closed: AtomicBool,
    /// What `U` calls the place where timeouts are listened for, if there is one.
    notify_target: Option<Box<[u8]>>,
    /// `None` if nothing is listened for.
    events: Option<Events>,
    tap_address: Option<Ipv4Addr>,
}

type Job = Box<dyn FnOnce(&mut Client) + Send>;

impl Socket {
    /// Connects to `address`, and listens at `events` for timeouts, at `record_events` for what becomes of
    /// recordings.
    pub(crate) fn connect(
        py: Python<'_>,
        address: String,
        options: ClientOptions,
        events: Option<&str>,
        record_events: Option<&str>,
        tap_address: Option<Ipv4Addr>,
    ) -> PyResult<Self> {
        let client =
            wait::off_thread(py, move || Client::connect(&address, options))?.map_err(error::client)?;
        let tap_address = tap_address.or_else(|| client.local_address());
        let timeouts = events.map(listen).transpose()?;
        let notify_target = timeouts.as_ref().map(|listener| listener.target().as_bytes().into());
        let recordings = record_events.map(listen).transpose()?.map(Listener::new);
        let timeouts = timeouts.map(Listener::new);
        let hears = timeouts.is_some() || recordings.is_some();
        let events = hears.then_some(Events::Listeners { timeouts, recordings });
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name("rtpproxy-client".to_owned()).spawn(move || {
            let mut client = client;
            for job in queue {
                job(&mut client);
            }
        })?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            closed: AtomicBool::new(false),
            notify_target,
            events,
            tap_address,
        })
    }

    /// Where taps may listen, so that the relay reaches them.
    pub(crate) fn tap_address(&self) -> Option<Ipv4Addr> {
        self.tap_address
    }

    /// Executes a typed command.
    pub(crate) fn call(&self, py: Python<'_>, command: Command) -> PyResult<Reply> {
        self.ask(py, move |client| client.call(&command))
    }

    /// Executes a raw command.
    pub(crate) fn command(&self, py: Python<'_>, text: Vec<u8>) -> PyResult<Vec<u8>> {
        self.ask(py, move |client| client.command(&text, None))
    }

    /// What `U` calls the place where notifications are listened for, if there is one.
    pub(crate) fn notify_target(&self) -> Option<Box<[u8]>> {
        self.notify_target.clone()
    }

    /// The notifications that `U` asked for, if there is a place to listen for them.
    pub(crate) fn events(&self) -> Option<&Events> {
        self.events.as_ref()
    }

    /// Lets the connection go. Whoever waits for a reply is told.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(events) = &self.events {
            events.close();
        }
    }

    fn ask<T: Send + 'static>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&mut Client) -> Result<T, ClientError> + Send + 'static,
    ) -> PyResult<T> {
        let (done, reply) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |client| drop(done.send(ask(client))));
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if jobs.is_none_or(|jobs| jobs.send(job).is_err()) {
            return Err(closed());
        }
        let reply = wait::in_slices(py, None, move |slice| match reply.recv_timeout(slice) {
            Ok(reply) => Some(Some(reply)),
            Err(RecvTimeoutError::Timeout) if !self.closed.load(Ordering::Acquire) => None,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Some(None),
        })?;
        reply.flatten().ok_or_else(closed)?.map_err(error::client)
    }
}

fn listen(address: &str) -> PyResult<NotifyListener> {
    NotifyListener::bind(address).map_err(|error| error::not_started(error.to_string()))
}

fn closed() -> PyErr {
    error::closed("the client is closed")
}
