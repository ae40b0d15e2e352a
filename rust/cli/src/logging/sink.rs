//! The thread that writes log lines, behind a bounded queue.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::level::Level;
use super::syslog::Syslog;

/// Where lines go.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    /// Standard error.
    pub(crate) stderr: bool,
    /// The system's log.
    pub(crate) syslog: Option<Syslog>,
}

/// Waits on drop until the lines are written, for a second at most.
pub(crate) struct Flush(pub(super) Arc<Sink>);

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        if self.0.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_LIMIT);
        }
    }
}

/// The near end of the queue.
pub(crate) struct Sink {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

enum Message {
    Line { level: Level, prefix: String, text: String },
    Flush(SyncSender<()>),
}

impl Sink {
    pub(super) fn start(targets: Targets) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let losses = lost.clone();
        thread::Builder::new().name("log".into()).spawn(move || write_all(targets, &lines, &losses))?;
        Ok(Self { queue, lost })
    }

    pub(super) fn write(&self, level: Level, prefix: &str, text: &str) {
        let line = Message::Line { level, prefix: prefix.to_owned(), text: text.to_owned() };
        if let Err(TrySendError::Full(_)) = self.queue.try_send(line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_all(mut targets: Targets, lines: &Receiver<Message>, losses: &AtomicU64) {
    for message in lines {
        match message {
            Message::Line { level, prefix, text } => {
                targets.write(level, &prefix, &text);
                let lost = losses.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let text =
                        format!("WARN:GLOBAL:sink:{}: {lost} log lines were lost: too many at once", line!());
                    targets.write(Level::Warn, &prefix, &text);
                }
            }
            Message::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

impl Targets {
    fn write(&mut self, level: Level, prefix: &str, text: &str) {
        if self.stderr {
            // A closed standard error leaves nobody to tell.
            let _ = io::stderr().write_all(format!("{prefix}{text}\n").as_bytes());
        }
        if let Some(syslog) = &mut self.syslog {
            syslog.write(level, text);
        }
    }
}

const QUEUE_LINES: usize = 8192;
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
