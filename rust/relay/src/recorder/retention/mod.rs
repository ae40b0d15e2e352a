//! Removing old recordings: those that ended too long ago, and the oldest while all take more space than they
//! may.
//!
//! A thread of its own does it, in rounds, at the lowest priority and with a bounded number of files a second.
//! Each round looks at all files anew ([`survey`]), as programs of others may add, move and remove them, and
//! then removes what has to go ([`sweep`]). Only what the sidecar of a finished recording names is removed.

mod survey;
mod sweep;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rtpproxy_core::time::Wall;
use tracing::{error, info, warn};

use self::survey::Survey;
use self::sweep::{Outcome, sweep};
use super::files::Folder;
use crate::config::RecordConfig;

/// The thread that removes recordings.
#[derive(Debug)]
pub(super) struct Retention {
    /// The thread ends when it is dropped.
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Retention {
    /// Starts the thread, if `config` limits what is kept. Without sidecars (`compat`) nothing tells recordings
    /// from other files, and nothing is removed.
    pub(super) fn start(config: &RecordConfig) -> io::Result<Option<Self>> {
        let Some(mut keeper) = Keeper::new(config) else { return Ok(None) };
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new().name("recorder-keep".to_owned()).spawn(move || {
            // Of this thread alone, as it is on Linux; without it the work is merely less polite.
            let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
            let mut pace = Pace::new(&stopped, PAUSE);
            while keeper.round(wall_clock(), &mut pace).is_ok() && pace.rest(ROUND_PERIOD).is_ok() {}
        })?;
        Ok(Some(Self { stop, thread }))
    }

    /// Ends the thread, unless the disk does not let it: it has nothing to lose.
    pub(super) fn stop(self) {
        drop(self.stop);
        for _ in 0..STOP_TRIES {
            if self.thread.is_finished() {
                return;
            }
            thread::sleep(STOP_TRY);
        }
    }
}

/// What may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    max_age: Option<Duration>,
    quota_bytes: Option<u64>,
}

/// What the thread knows.
#[derive(Debug)]
struct Keeper {
    /// Those that recordings end up in.
    folders: Vec<PathBuf>,
    limits: Limits,
    survey: Survey,
    /// What was last complained of, which is said once.
    complaint: Option<String>,
}

impl Keeper {
    fn new(config: &RecordConfig) -> Option<Self> {
        let limits = Limits { max_age: config.max_age, quota_bytes: config.quota_bytes };
        let is_limited = limits.max_age.is_some() || limits.quota_bytes.is_some();
        let folder = config.folder.clone().filter(|_| is_limited && !config.compat)?;
        let folders = [folder].into_iter().chain(config.fallback.clone()).collect();
        Some(Self { folders, limits, survey: Survey::default(), complaint: None })
    }

    /// Looks at everything once and removes what has to go.
    fn round(&mut self, now: Wall, pace: &mut Pace<'_>) -> Result<(), Stopped> {
        // Of one that cannot be opened the log says so already: it is probed each second.
        let roots: Vec<_> = self.folders.iter().filter_map(|path| Folder::open(path).ok()).collect();
        self.survey.renew(&roots, pace)?;
        let (recordings, written_bytes) = (self.survey.oldest_first(), self.survey.written_bytes());
        let outcome =
            sweep(&recordings, written_bytes, self.limits, now, |recording| recording.remove(&roots, pace));
        self.report(&outcome);
        if outcome.is_stopped { Err(Stopped) } else { Ok(()) }
    }

    fn report(&mut self, outcome: &Outcome) {
        let Outcome { too_old, over_quota, bytes, .. } = *outcome;
        if too_old + over_quota > 0 {
            info!(too_old, over_quota, bytes, "old recordings removed");
        }
        let complaint = outcome.complaint(&self.limits);
        if self.complaint == complaint {
            return;
        }
        match &complaint {
            Some(text) if outcome.error.is_some() => error!("{text}"),
            Some(text) => warn!("{text}"),
            None => {}
        }
        self.complaint = complaint;
    }
}

/// How fast the files are gone through.
#[derive(Debug)]
struct Pace<'a> {
    stop: &'a Receiver<()>,
    pause: Duration,
    /// Steps since the last pause.
    steps: u32,
}

impl<'a> Pace<'a> {
    fn new(stop: &'a Receiver<()>, pause: Duration) -> Self {
        Self { stop, pause, steps: 0 }
    }

    /// Before so many accesses to the disk.
    fn step(&mut self, steps: u32) -> Result<(), Stopped> {
        self.steps += steps;
        if self.steps < STEPS_AT_ONCE {
            return Ok(());
        }
        self.steps = 0;
        self.rest(self.pause)
    }

    fn rest(&mut self, pause: Duration) -> Result<(), Stopped> {
        match self.stop.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }
}

/// The thread is to end.
#[derive(Debug)]
struct Stopped;

fn wall_clock() -> Wall {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

/// How long to wait after a round.
const ROUND_PERIOD: Duration = Duration::from_secs(10);
/// Accesses to the disk before a pause, so that there are less than 4000 a second.
const STEPS_AT_ONCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(25);
const LOWEST_PRIORITY: i32 = 19;
/// How long the end of the relay waits for the thread.
const STOP_TRIES: u32 = 100;
const STOP_TRY: Duration = Duration::from_millis(2);
