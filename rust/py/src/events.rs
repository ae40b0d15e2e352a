//! Where the notifications come from.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rtpproxy_relay::client::NotifyListener;

/// The notifications for one door, in bounded queues; any thread may take them.
pub(crate) enum Events {
    /// From the relay in this process.
    #[cfg(target_os = "linux")]
    InProcess {
        /// All of them.
        events: rtpproxy_relay::notifier::Events,
        /// The number of those that tell of recordings.
        recordings: u32,
    },
    /// From a relay that connects to us.
    Listeners {
        /// For timeouts.
        timeouts: Option<Listener>,
        /// For recordings.
        recordings: Option<Listener>,
    },
}

/// A notification.
#[derive(Debug)]
pub(crate) enum Notification {
    /// A session timed out: its tag.
    Timeout(Vec<u8>),
    /// Something became of a recording: a line of JSON.
    Recording(Vec<u8>),
}

impl Events {
    /// The next notification; `None` if none came in time, `Some(None)` at the end.
    pub(crate) fn take(&self, wait: Duration) -> Option<Option<Notification>> {
        match self {
            #[cfg(target_os = "linux")]
            Self::InProcess { events, recordings } => match events.next_within(wait) {
                Ok(notice) => notice.map(|notice| {
                    let text = without_line_feed(notice.text);
                    let is_recording = notice.number == *recordings;
                    Some(if is_recording {
                        Notification::Recording(text)
                    } else {
                        Notification::Timeout(text)
                    })
                }),
                Err(_) => Some(None),
            },
            Self::Listeners { timeouts, recordings } => {
                let timeouts = timeouts.as_ref().map(|listener| (listener, Notification::Timeout as Kind));
                let recordings =
                    recordings.as_ref().map(|listener| (listener, Notification::Recording as Kind));
                match (timeouts, recordings) {
                    (Some(one), Some(other)) => take_either(&[one, other], wait),
                    (Some((listener, kind)), None) | (None, Some((listener, kind))) => {
                        listener.take(wait).map(|line| line.map(kind))
                    }
                    (None, None) => Some(None),
                }
            }
        }
    }

    /// How many were lost because the queue was full.
    pub(crate) fn lost(&self) -> u64 {
        match self {
            #[cfg(target_os = "linux")]
            Self::InProcess { events, .. } => events.lost(),
            Self::Listeners { timeouts, recordings } => {
                let listeners = [timeouts, recordings].into_iter().flatten();
                listeners.filter_map(Listener::get).map(|listener| listener.lost()).sum()
            }
        }
    }

    /// Closes listeners.
    pub(crate) fn close(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::InProcess { .. } => {}
            Self::Listeners { timeouts, recordings } => {
                [timeouts, recordings].into_iter().flatten().for_each(Listener::close);
            }
        }
    }
}

type Kind = fn(Vec<u8>) -> Notification;

/// Looks at two listeners in turn.
fn take_either(listeners: &[(&Listener, Kind); 2], wait: Duration) -> Option<Option<Notification>> {
    let deadline = Instant::now() + wait;
    loop {
        for (listener, kind) in listeners {
            if let Some(line) = listener.take(wait.min(TURN)) {
                return Some(line.map(kind));
            }
        }
        if Instant::now() >= deadline {
            return None;
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
    fn close(&self) {
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

/// How long one of two listeners is waited for.
const TURN: Duration = Duration::from_millis(10);
