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
//! | `gather` | what came from a worker, in the order of time |
//! | `recording` | one recording: files, marks, its end |
//! | `gaps` | packets that are missing, and other remarks for the next packet |
//! | `journal` | the other layout: all recordings of a worker in one file after the other |
//! | `head` | the synthetic SIP frames |
//! | `formats`, `tally` | packets as bytes; totals |
//! | `writer`, `files`, `names` | one file; the folders; safe names |
//! | `period` | how the time until a packet is in its file is shared out |
//! | `seal` | one file that is encrypted |
//! | `disk` | a thread to wait for a disk in place of the recorder |
//! | `finish/`, `sidecar` | what happens after the last packet; `convert` compresses and encrypts |
//! | `recover`, `leftover` | what an earlier process has left: all recordings, one file |
//! | `retention` | removes old recordings |
//! | `ledger`, `events` | what others see of recordings, and are told |
//! | `watch` | whether the folder can be used, for the answers to commands |

mod claim;
mod disk;
mod drain;
mod events;
mod files;
mod finish;
mod formats;
mod gaps;
mod gather;
mod head;
mod journal;
mod ledger;
mod leftover;
mod names;
mod period;
mod queue;
mod recording;
mod recover;
mod resume;
mod retention;
mod seal;
mod sidecar;
mod tally;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rtpproxy_core::host::FolderState;
use tracing::{error, info};

use self::drain::Drain;
use self::events::EventQueue;
use self::files::{Folders, Site};
use self::finish::{Conversions, Converter, Recipe};
use self::ledger::Ledger;
pub use self::ledger::{RecordingState, RecordingStatus};
use self::queue::Budget;
pub use self::queue::RecorderTap;
use self::recording::Shared;
use self::retention::Retention;
pub use self::watch::FolderWatch;
use crate::config::{RecordConfig, RecordLayout};
use crate::notifier::NotifyHandle;
use crate::work::{Outcome, WorkThreads};

/// The threads behind all recordings.
#[derive(Debug)]
pub struct Recorder {
    watch: Arc<FolderWatch>,
    view: RecorderView,
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
            let view = RecorderView::default();
            return Ok((Self { watch: FolderWatch::unusable(), view, threads: None }, taps));
        };
        let mut queues = Vec::new();
        let mut listeners = WorkThreads(Vec::new());
        for target in &config.events {
            let (queue, listener) = events::start(target)
                .map_err(|error| io::Error::new(error.kind(), format!("record events {target}: {error}")))?;
            queues.push(queue);
            listeners.0.push(listener);
        }
        let ledger = Ledger::new(queues);
        let (watch, probe) = FolderWatch::start(&config)?;
        let retention = Retention::start(&config)?;
        let budget = Budget::new(config.buffer_bytes, workers);
        let (taps, outlets) = (0..workers).map(|_| queue::way(&budget)).unzip();
        let mut finished = Vec::new();
        let mut finishers = Vec::new();
        let conversions = Arc::<Conversions>::default();
        let recipe = Recipe::of(&config);
        // A disk that does not answer must not keep the other one waiting.
        for _ in 0..if config.fallback.is_some() { 2 } else { 1 } {
            let (jobs_in, jobs) = unbounded();
            finished.push(jobs_in);
            let converter = match recipe.clone() {
                None => None,
                Some(recipe) => {
                    let (converter, thread) = Converter::start(recipe, &conversions)?;
                    finishers.push(thread);
                    Some(converter)
                }
            };
            finishers.push(spawn("recorder-finish", move || finish::run(&jobs, converter))?);
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
            ledger: Arc::clone(&ledger),
            left: Vec::new(),
        };
        let mut syncs = Vec::new();
        let mut syncing = Vec::new();
        if shared.config.layout == RecordLayout::Journal {
            for finished in &finished {
                let (works_in, works) = unbounded();
                let finished = finished.clone();
                syncs.push(works_in);
                syncing.push(spawn("recorder-sync", move || journal::sync::run(&works, &finished))?);
            }
        }
        let drain = Drain::new(outlets, shared, finished, &syncs);
        drop(syncs);
        let overseer = Overseer { watch: Arc::clone(&watch), ledger: Arc::clone(&ledger) };
        let ended = stopped.clone();
        let overseer = spawn("recorder-watch", move || overseer.run(&ended))?;
        let drain = spawn("recorder", move || drain.run(&stopped))?;
        let threads =
            Threads { stop, probe, retention, drain, syncing, recovery, overseer, finishers, listeners };
        let view = RecorderView(Some(Viewed { ledger, watch: Arc::clone(&watch), budget, conversions }));
        Ok((Self { watch, view, threads: Some(threads) }, taps))
    }

    /// What others may know of recordings.
    pub(crate) fn view(&self) -> RecorderView {
        self.view.clone()
    }

    /// The state of the recording folder.
    pub fn folder(&self) -> Arc<FolderWatch> {
        Arc::clone(&self.watch)
    }

    /// Writes everything that the taps were given, closes all files and ends the threads.
    ///
    /// The taps should be dropped or flushed before. A disk that does not answer is waited for 30 s.
    pub fn shutdown(self) {
        let Some(threads) = self.threads else {
            return;
        };
        let Threads { stop, probe, retention, drain, syncing, recovery, overseer, finishers, listeners } =
            threads;
        drop((stop, probe));
        if let Some(retention) = retention {
            retention.stop();
        }
        let deadline = Instant::now() + SHUTDOWN_MAX;
        for thread in [overseer, drain].into_iter().chain(syncing).chain(recovery).chain(finishers) {
            join(thread, deadline);
        }
        // Now they have heard of every recording.
        drop(listeners);
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
    /// For each place, in the journal layout; they end after the recorder.
    syncing: Vec<JoinHandle<()>>,
    /// For each place; none with `compat`, whose files have their names from the start.
    recovery: Vec<JoinHandle<()>>,
    /// For each place; they end after the others.
    finishers: Vec<JoinHandle<()>>,
    overseer: JoinHandle<()>,
    /// Those who are told of recordings.
    listeners: WorkThreads,
}

/// What others may know of recordings, while the disk stands still too. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecorderView(Option<Viewed>);

#[derive(Clone, Debug)]
struct Viewed {
    ledger: Arc<Ledger>,
    watch: Arc<FolderWatch>,
    budget: Arc<Budget>,
    conversions: Arc<Conversions>,
}

impl RecorderView {
    /// The recordings with a number above `after`, in their order: those that run, and the last that ended.
    pub(crate) fn recordings(&self, after: u64) -> Vec<RecordingStatus> {
        self.0.as_ref().map_or_else(Vec::new, |viewed| viewed.ledger.recordings(after))
    }

    /// Tells subscribers in this process of changes, as lines of JSON for the target `number`.
    pub(crate) fn tell_process(&self, notify: NotifyHandle, number: u32) {
        if let Some(viewed) = &self.0 {
            viewed.ledger.tell_process(notify, number);
        }
    }

    /// The figures of the recorder; `None` without a recording folder.
    pub(crate) fn figures(&self) -> Option<RecorderFigures> {
        let Viewed { ledger, watch, budget, conversions } = self.0.as_ref()?;
        let totals = ledger.totals();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let events = Outcome::sum(ledger.queues().iter().map(EventQueue::outcome)).unwrap_or_default();
        Some(RecorderFigures {
            running: ledger.running(),
            started: get(&totals.started),
            finished: get(&totals.finished),
            failed: get(&totals.failed),
            packets: get(&totals.packets),
            payload_bytes: get(&totals.payload_bytes),
            written_bytes: get(&totals.written_bytes),
            dropped_by_disk: get(&totals.refused),
            dropped_by_memory: budget.dropped(),
            errors: get(&totals.errors),
            last_error_s: get(&totals.last_error_s),
            queue_bytes: budget.used() as u64,
            queue_bytes_max: budget.limit() as u64,
            folder: watch.state(),
            events_delivered: events.done,
            events_lost: events.lost,
            conversions_waiting: get(&conversions.waiting),
            converted: get(&conversions.done),
            not_converted: get(&conversions.failed),
        })
    }
}

/// The figures of the recorder since the start, and as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecorderFigures {
    /// Recordings in each of [`RecordingState::RUNNING`].
    pub(crate) running: [u64; 4],
    /// Recordings begun.
    pub(crate) started: u64,
    /// Recordings finished.
    pub(crate) finished: u64,
    /// Recordings given up.
    pub(crate) failed: u64,
    /// Packets recorded.
    pub(crate) packets: u64,
    /// Their payload.
    pub(crate) payload_bytes: u64,
    /// Bytes written to files.
    pub(crate) written_bytes: u64,
    /// Packets left out as the disk refused them.
    pub(crate) dropped_by_disk: u64,
    /// Packets left out as the memory for packets that wait was used up.
    pub(crate) dropped_by_memory: u64,
    /// Attempts to open, write or finish a file that failed.
    pub(crate) errors: u64,
    /// When the last of them failed, in seconds since 1970; 0 if none did.
    pub(crate) last_error_s: u64,
    /// Memory for packets that wait.
    pub(crate) queue_bytes: u64,
    /// How much of it there may be.
    pub(crate) queue_bytes_max: u64,
    /// The folder.
    pub(crate) folder: FolderState,
    /// Events delivered.
    pub(crate) events_delivered: u64,
    /// Events lost.
    pub(crate) events_lost: u64,
    /// Recordings that wait to be compressed.
    pub(crate) conversions_waiting: u64,
    /// Recordings that were.
    pub(crate) converted: u64,
    /// Recordings that should have been, and are as they were written.
    pub(crate) not_converted: u64,
}

/// Notices a disk that does not answer, which the threads that wait for it cannot.
struct Overseer {
    watch: Arc<FolderWatch>,
    ledger: Arc<Ledger>,
}

impl Overseer {
    /// Works until the sender of `stopped` is dropped.
    fn run(&self, stopped: &Receiver<()>) {
        let mut was_stalled = false;
        while stopped.recv_timeout(OVERSIGHT_PERIOD) == Err(RecvTimeoutError::Timeout) {
            let is_stalled = self.watch.is_stalled();
            match (was_stalled, is_stalled) {
                (false, true) => error!("recording folder: the disk does not answer: packets wait in memory"),
                (true, false) => info!("recording folder: the disk answers again"),
                _ => {}
            }
            self.ledger.set_stalled(is_stalled);
            was_stalled = is_stalled;
        }
    }
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

/// How often it is looked whether the disk answers.
const OVERSIGHT_PERIOD: Duration = Duration::from_millis(250);
/// How long the disk may take for everything that is left.
const SHUTDOWN_MAX: Duration = Duration::from_secs(30);
