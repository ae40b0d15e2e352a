//! Where the notifications come from.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rtpproxy_relay::client::NotifyListener;

/// The notifications for one door, in a bounded queue; any thread may take them.
pub(crate) enum Events {
    /// From the relay in this process.
    #[cfg(target_os = "linux")]
    InProcess(rtpproxy_relay::notifier::Events),
    /// From a relay that connects to us.
    Listener(Listener),
}

impl Events {
    /// The next tag; `None` if none came in time, `Some(None)` at the end.
    pub(crate) fn take(&self, wait: Duration) -> Option<Option<Vec<u8>>> {
        match self {
            #[cfg(target_os = "linux")]
            Self::InProcess(events) => match events.next_within(wait) {
                Ok(notice) => notice.map(|notice| Some(without_line_feed(notice.text))),
                Err(_) => Some(None),
            },
            Self::Listener(listener) => listener.take(wait),
        }
    }

    /// How many were lost because the queue was full.
    pub(crate) fn lost(&self) -> u64 {
        match self {
            #[cfg(target_os = "linux")]
            Self::InProcess(events) => events.lost(),
            Self::Listener(listener) => listener.get().map_or(0, |listener| listener.lost()),
        }
    }
}

/// A listener that can be closed while others wait for it.
pub(crate) struct Listener(Mutex<Option<Arc<NotifyListener>>>);

impl Listener {
    /// Takes over an open listener.
    pub(crate) fn new(listener: NotifyListener) -> Self {
        Self(Mutex::new(Some(Arc::new(listener))))
    }

    /// Closes it, as soon as nobody waits for it any more.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn take(&self, wait: Duration) -> Option<Option<Vec<u8>>> {
        match self.get() {
            Some(listener) => listener.next_within(wait).map(Some),
            None => Some(None),
        }
    }

    fn get(&self) -> Option<Arc<NotifyListener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(target_os = "linux")]
fn without_line_feed(mut text: Vec<u8>) -> Vec<u8> {
    text.pop_if(|last| *last == b'\n');
    text
}
