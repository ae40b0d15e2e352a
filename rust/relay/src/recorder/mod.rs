//! Writing recordings, away from the media threads.
//!
//! ```text
//! worker: RecorderTap ──► queue ──► recorder thread: Recording ──► finisher thread
//!         copies packets   ring     encode, buffer, write(2)        sync, rename, sidecar
//! ```
//!
//! Neither a slow disk nor a full one ever delays a worker: copies are dropped when the memory for them is
//! used up, counted for each stream, and the file says how many are missing and where.
//!
//! | module | job |
//! |---|---|
//! | `queue` | the way from a worker to the recorder |
//! | `drain` | the recorder thread |
//! | `recording` | one recording: files, marks, gaps, its end |
//! | `head` | the synthetic SIP frames |
//! | `formats`, `tally` | packets as bytes; totals |
//! | `writer`, `files`, `names` | one file; the folders; safe names |
//! | `disk` | a thread to wait for a disk in place of the recorder |
//! | `finish`, `sidecar` | what happens after the last packet |
//! | `recover`, `leftover` | what an earlier process has left: all recordings, one file |
//! | `retention` | removes old recordings |
//! | `watch` | whether the folder can be used, for the answers to commands |

mod disk;
mod drain;
mod files;
mod finish;
mod formats;
mod head;
mod leftover;
mod names;
mod order;
mod queue;
mod recording;
mod recover;
mod retention;
mod sidecar;
mod tally;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, unbounded};
use tracing::error;

use self::drain::Drain;
use self::files::{Folders, Site};
use self::queue::Budget;
pub use self::queue::RecorderTap;
use self::recording::Shared;
use self::retention::Retention;
pub use self::watch::FolderWatch;
use crate::config::RecordConfig;

/// The threads behind all recordings.
#[derive(Debug)]
pub struct Recorder {
    watch: Arc<FolderWatch>,
    /// `None` without a recording folder.
    threads: Option<Threads>,
}

impl Recorder {
    /// Starts the recorder, with a tap for each of `workers`.
    ///
    /// Without a folder in `config` there are no threads, and the taps swallow what they are given. A folder
    /// that cannot be used is no error: [`FolderWatch`] says so, as long as it lasts.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(config: RecordConfig, workers: usize) -> io::Result<(Self, Vec<RecorderTap>)> {
        let Some(folders) = Folders::new(&config)? else {
            let taps = (0..workers).map(|_| RecorderTap::closed()).collect();
            return Ok((Self { watch: FolderWatch::unusable(), threads: None }, taps));
        };
        let (watch, probe) = FolderWatch::start(&config)?;
        let retention = Retention::start(&config)?;
        let budget = Budget::new(config.buffer_bytes, workers);
        let (taps, outlets) = (0..workers).map(|_| queue::way(&budget)).unzip();
        let mut finished = Vec::new();
        let mut finishers = Vec::new();
        // A disk that does not answer must not keep the other one waiting.
        for _ in 0..if config.fallback.is_some() { 2 } else { 1 } {
            let (jobs_in, jobs) = unbounded();
            finished.push(jobs_in);
            finishers.push(spawn("recorder-finish", move || finish::run(&jobs))?);
        }
        let (stop, stopped) = bounded(1);
        let recovery = finished
            .iter()
            .zip([Site::Main, Site::Fallback])
            .filter_map(|(finished, site)| {
                recover::Recovery::new(&config, site, finished.clone(), stopped.clone())
            })
            .map(|recovery| spawn("recorder-recover", || recovery.run()))
            .collect::<io::Result<Vec<_>>>()?;
        let shared = Shared {
            config,
            folders,
            ip_id: 0,
            running: 0,
            budget: Arc::clone(&budget),
            watch: Arc::clone(&watch),
        };
        let drain = Drain::new(outlets, shared, finished);
        let drain = spawn("recorder", move || drain.run(&stopped))?;
        let threads = Threads { stop, probe, retention, drain, recovery, finishers };
        Ok((Self { watch, threads: Some(threads) }, taps))
    }

    /// The state of the recording folder.
    pub fn folder(&self) -> Arc<FolderWatch> {
        Arc::clone(&self.watch)
    }

    /// Writes everything that the taps were given, closes all files and ends the threads.
    ///
    /// The taps should be dropped or flushed before. A disk that does not answer is waited for 30 s.
    pub fn shutdown(self) {
        let Some(Threads { stop, probe, retention, drain, recovery, finishers }) = self.threads else {
            return;
        };
        drop((stop, probe));
        if let Some(retention) = retention {
            retention.stop();
        }
        let deadline = Instant::now() + SHUTDOWN_MAX;
        for thread in std::iter::once(drain).chain(recovery).chain(finishers) {
            join(thread, deadline);
        }
    }
}

#[derive(Debug)]
struct Threads {
    /// The recorder thread and that of the recovery end when it is dropped.
    stop: Sender<()>,
    /// The probing threads end when it is dropped.
    probe: Sender<()>,
    /// With limits for what is kept.
    retention: Option<Retention>,
    drain: JoinHandle<()>,
    /// For each place; none with `compat`, whose files have their names from the start.
    recovery: Vec<JoinHandle<()>>,
    /// For each place; they end after the others.
    finishers: Vec<JoinHandle<()>>,
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

fn join(thread: JoinHandle<()>, deadline: Instant) {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            error!("the recording disk does not answer: what was not written is lost");
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    if thread.join().is_err() {
        error!("a thread of the recorder panicked: what it had not written is lost");
    }
}

/// How long the disk may take for everything that is left.
const SHUTDOWN_MAX: Duration = Duration::from_secs(30);
