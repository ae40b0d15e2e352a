//! The state of the recording folders, known without touching the disk.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rtpproxy_core::host::FolderState;
use tracing::{error, info};

use super::files::{Folder, Site, Space};
use crate::config::{MinFree, RecordConfig};

/// What is known of the folders of recordings: probed at start and each second, by a thread for each place.
///
/// A disk that does not answer within a second counts as troubled, as does one that is full.
pub struct FolderWatch {
    /// The base of all times.
    epoch: Instant,
    /// By [`Site`]; none without a recording folder.
    places: Vec<Place>,
    /// Since when the recorder has been working without a pause, in milliseconds after `epoch`; 0: it is not.
    working_ms: AtomicU64,
    /// The disk refuses what the recorder writes.
    is_refusing: AtomicBool,
    min_free: Option<MinFree>,
}

impl FolderWatch {
    /// The state as of now: that of the better place. Does not block.
    pub fn state(&self) -> FolderState {
        let states: Vec<u8> = self.places.iter().map(|place| self.state_of(place)).collect();
        let is_ready = states.contains(&READY) && !self.is_working_long();
        if states.iter().all(|&state| state == UNUSABLE) {
            FolderState::Unusable
        } else if is_ready && !self.is_refusing.load(Ordering::Relaxed) {
            FolderState::Ready
        } else {
            FolderState::Troubled
        }
    }

    /// The state without a recording folder.
    pub(super) fn unusable() -> Arc<Self> {
        Arc::new(Self::new(Vec::new(), None))
    }

    /// Starts probing the folders of `config`; ends when the sender is dropped. Waits for the first answers, a
    /// second at most.
    pub(super) fn start(config: &RecordConfig) -> io::Result<(Arc<Self>, Sender<()>)> {
        let main = config.folder.iter().chain(&config.spool).cloned().collect();
        let fallback = config.fallback.iter().map(|path| vec![path.clone()]);
        let places = std::iter::once(main).chain(fallback).map(Place::new).collect();
        let watch = Arc::new(Self::new(places, config.min_free));
        let (stop, stopped) = bounded(0);
        let (answered, answers) = bounded(watch.places.len());
        for index in 0..watch.places.len() {
            let (watch, stopped, answered) = (Arc::clone(&watch), stopped.clone(), answered.clone());
            thread::Builder::new().name("recorder-probe".to_owned()).spawn(move || {
                watch.probe_for_ever(&watch.places[index], &stopped, &answered);
            })?;
        }
        let deadline = Instant::now() + ANSWER_MAX;
        for _ in &watch.places {
            // On a timeout the disk is stalled, and the state says so.
            let _ = answers.recv_deadline(deadline);
        }
        Ok((watch, stop))
    }

    /// Two places that nobody probes.
    #[cfg(test)]
    pub(super) fn unprobed() -> Arc<Self> {
        let places = [(); 2].map(|()| Place::new(Vec::new()));
        Arc::new(Self::new(places.into(), Some(MinFree::Percent(5))))
    }

    /// As if a probe had found that.
    #[cfg(test)]
    pub(super) fn set_low(&self, site: Site, is_low: bool) {
        self.places[site as usize].is_low.store(is_low, Ordering::Relaxed);
    }

    /// The recorder begins to work, perhaps on the disk.
    pub(super) fn work_begins(&self) {
        self.working_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// The recorder waits for more to do.
    pub(super) fn work_ends(&self) {
        self.working_ms.store(0, Ordering::Relaxed);
    }

    /// Says whether the disk refuses what the recorder writes.
    pub(super) fn set_refusing(&self, is_refusing: bool) {
        self.is_refusing.store(is_refusing, Ordering::Relaxed);
    }

    /// An error that says so if less of the disk is free than has to stay free.
    pub(super) fn lack(&self, site: Site) -> Option<io::Error> {
        let place = self.places.get(site as usize)?;
        place.is_low.load(Ordering::Relaxed).then(|| {
            let min_free = self.min_free.map(|min_free| min_free.to_string()).unwrap_or_default();
            io::Error::new(io::ErrorKind::StorageFull, format!("less than {min_free} of the disk is free"))
        })
    }

    fn new(places: Vec<Place>, min_free: Option<MinFree>) -> Self {
        let (working_ms, is_refusing) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { epoch: Instant::now(), places, working_ms, is_refusing, min_free }
    }

    fn probe_for_ever(&self, place: &Place, stopped: &Receiver<()>, answered: &Sender<()>) {
        let mut last: Option<Result<(), String>> = None;
        loop {
            place.asked_ms.store(self.elapsed_ms(), Ordering::Relaxed);
            let (state, finding) = self.probe(place);
            place.probed.store(state, Ordering::Relaxed);
            place.was_usable.fetch_or(state != UNUSABLE, Ordering::Relaxed);
            place.asked_ms.store(0, Ordering::Relaxed);
            // Only the first answers are waited for.
            let _ = answered.try_send(());
            match &finding {
                Err(reason) if last.as_ref() != Some(&finding) => error!("recording folder: {reason}"),
                Ok(()) if matches!(last, Some(Err(_))) => {
                    info!("recording folder: {}: usable again", place.folders[0].display());
                }
                Ok(()) | Err(_) => {}
            }
            last = Some(finding);
            if stopped.recv_timeout(PROBE_PERIOD) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn probe(&self, place: &Place) -> (u8, Result<(), String>) {
        let was_low = place.is_low.load(Ordering::Relaxed);
        let mut is_low = false;
        let mut worst = (READY, Ok(()));
        for path in &place.folders {
            let (state, reason) = match Folder::open(path).and_then(|folder| folder.probe()) {
                Ok(space) if self.min_free.is_some_and(|min_free| is_lacking(space, min_free, was_low)) => {
                    is_low = true;
                    let min_free = self.min_free.map(|min_free| min_free.to_string()).unwrap_or_default();
                    (TROUBLED, format!("less than {min_free} of the disk is free"))
                }
                Ok(Space { free: 0, .. }) => (TROUBLED, "the disk is full".to_owned()),
                Ok(_) => continue,
                Err(error) if is_lasting(error.kind()) => (UNUSABLE, error.to_string()),
                Err(error) => (TROUBLED, error.to_string()),
            };
            if worst.0 < state {
                worst = (state, Err(format!("{}: {reason}", path.display())));
            }
        }
        place.is_low.store(is_low, Ordering::Relaxed);
        worst
    }

    /// One of the constants below. A folder that could be used once may come back.
    fn state_of(&self, place: &Place) -> u8 {
        match place.probed.load(Ordering::Relaxed) {
            UNUSABLE if place.was_usable.load(Ordering::Relaxed) => TROUBLED,
            READY if self.is_unanswered(place) => TROUBLED,
            state => state,
        }
    }

    /// True while the disk does not answer: that of the recorder's present work, or every one.
    pub(super) fn is_stalled(&self) -> bool {
        let is_unanswered = |place| self.is_unanswered(place);
        self.is_working_long() || (!self.places.is_empty() && self.places.iter().all(is_unanswered))
    }

    fn is_working_long(&self) -> bool {
        self.is_long_ago(&self.working_ms)
    }

    fn is_unanswered(&self, place: &Place) -> bool {
        self.is_long_ago(&place.asked_ms)
    }

    fn is_long_ago(&self, since_ms: &AtomicU64) -> bool {
        let since = since_ms.load(Ordering::Relaxed);
        since > 0 && self.elapsed_ms().saturating_sub(since) >= ANSWER_MAX.as_millis() as u64
    }

    /// Never 0, which stands for none.
    fn elapsed_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64 + 1
    }
}

impl fmt::Debug for FolderWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FolderWatch").field(&self.state()).finish()
    }
}

/// The folders of one [`Site`].
struct Place {
    folders: Vec<PathBuf>,
    probed: AtomicU8,
    was_usable: AtomicBool,
    /// Less is free than has to be.
    is_low: AtomicBool,
    /// When the probe that has no answer yet was sent, in milliseconds after the epoch; 0: none.
    asked_ms: AtomicU64,
}

impl Place {
    fn new(folders: Vec<PathBuf>) -> Self {
        Self {
            folders,
            probed: AtomicU8::new(TROUBLED),
            was_usable: AtomicBool::new(false),
            is_low: AtomicBool::new(false),
            asked_ms: AtomicU64::new(0),
        }
    }
}

/// Whether too little is free. What was too little is so until there is a sixteenth more, lest recordings stop and go
/// each second.
fn is_lacking(space: Space, min_free: MinFree, was_low: bool) -> bool {
    let min = min_free.of(space.total);
    space.free < if was_low { min.saturating_add(min / 16) } else { min }
}

/// Whether the operator has to change something.
fn is_lasting(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(kind, NotFound | NotADirectory | PermissionDenied | ReadOnlyFilesystem)
}

const READY: u8 = 0;
const TROUBLED: u8 = 1;
const UNUSABLE: u8 = 2;
/// How long a disk may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);
const PROBE_PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorder_that_hangs_in_a_write_means_trouble() {
        let mut watch = ready();
        watch.work_begins();
        assert_eq!(watch.state(), FolderState::Ready);
        watch.epoch -= ANSWER_MAX;
        assert_eq!(watch.state(), FolderState::Troubled);
        watch.work_ends();
        assert_eq!(watch.state(), FolderState::Ready);
    }

    #[test]
    fn a_probe_without_an_answer_means_trouble() {
        let mut watch = ready();
        watch.places[0].asked_ms.store(watch.elapsed_ms(), Ordering::Relaxed);
        assert_eq!(watch.state(), FolderState::Ready);
        watch.epoch -= ANSWER_MAX;
        assert_eq!(watch.state(), FolderState::Troubled);
        // Unless there is another place.
        watch.places.push(Place::new(Vec::new()));
        watch.places[1].probed.store(READY, Ordering::Relaxed);
        assert_eq!(watch.state(), FolderState::Ready);
    }

    #[test]
    fn a_disk_that_refuses_means_trouble() {
        let watch = ready();
        watch.set_refusing(true);
        assert_eq!(watch.state(), FolderState::Troubled);
    }

    #[test]
    fn a_folder_that_was_usable_may_come_back() {
        let watch = ready();
        watch.places[0].probed.store(UNUSABLE, Ordering::Relaxed);
        assert_eq!(watch.state(), FolderState::Unusable);
        watch.places[0].was_usable.store(true, Ordering::Relaxed);
        assert_eq!(watch.state(), FolderState::Troubled);
    }

    #[test]
    fn too_little_is_free_until_there_is_some_more() {
        let space = |free| Space { free, total: 10_000 };
        let min_free = MinFree::Percent(16);
        assert!(!is_lacking(space(1600), min_free, false));
        assert!(is_lacking(space(1599), min_free, false));
        assert!(is_lacking(space(1699), min_free, true));
        assert!(!is_lacking(space(1700), min_free, true));
        assert!(is_lacking(space(99), MinFree::Bytes(100), false));
    }

    fn ready() -> FolderWatch {
        let watch = FolderWatch::new(vec![Place::new(Vec::new())], None);
        watch.places[0].probed.store(READY, Ordering::Relaxed);
        watch
    }
}
