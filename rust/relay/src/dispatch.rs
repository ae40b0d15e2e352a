//! From a request to the worker that answers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use rtpproxy_core::command::{Command, ErrorCode, Reply};
use rtpproxy_core::front::Origin;

/// The way into a running relay. Cheap to clone; may be used from any thread.
///
/// Every request gets exactly one reply, also when the relay is gone (`E81`).
#[derive(Clone)]
pub struct RelayHandle {
    inner: Arc<Inner>,
}

struct Inner {
    draining: AtomicBool,
}

impl RelayHandle {
    /// Executes one command given as text without cookie, and waits for its reply, line feed included.
    pub fn execute(&self, text: &[u8], origin: Origin) -> Vec<u8> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let done = move |reply| {
            let _ = sender.send(reply);
        };
        self.submit(text, origin, Box::new(done));
        receiver.recv().unwrap_or_default()
    }

    /// Executes one command and waits for its reply.
    pub fn execute_command(&self, command: Command) -> Reply {
        let _ = command;
        Reply::Error(ErrorCode::INTERNAL_FAILURE)
    }

    /// Executes one command given as text without cookie. `done` is called once, with the reply and its line
    /// feed, on the caller's thread or on a worker's: it must only hand the reply over.
    pub fn submit(&self, text: &[u8], origin: Origin, done: Box<dyn FnOnce(Vec<u8>) + Send>) {
        let _ = (text, origin);
        done(b"E81\n".to_vec());
    }

    /// Counts a repeated datagram that was answered from the reply cache.
    pub fn repeated(&self) {}

    /// Starts the slow shutdown: new sessions are refused with `E99`, existing ones go on.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// True after [`Self::drain`].
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// Sessions now, over all workers.
    pub fn active_sessions(&self) -> usize {
        0
    }
}
