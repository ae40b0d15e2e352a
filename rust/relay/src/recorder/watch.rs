//! The state of the recording folder, known without touching the disk.

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

use super::files::Folder;

/// What is known of the folders of recordings: probed at start and each second by a thread of its own.
///
/// A disk that does not answer within a second counts as troubled, as does one that is full.
pub struct FolderWatch {
    /// The base of the times below.
    epoch: Instant,
    probed: AtomicU8,
    /// When the probe that has no answer yet was sent, in milliseconds after `epoch`; 0: none.
    asked_ms: AtomicU64,
    /// Since when the recorder has been working without a pause, as above.
    working_ms: AtomicU64,
    /// The disk refuses what the recorder writes.
    is_refusing: AtomicBool,
}

impl FolderWatch {
    /// The state as of now. Does not block.
    pub fn state(&self) -> FolderState {
        match self.probed.load(Ordering::Relaxed) {
            UNUSABLE => FolderState::Unusable,
            READY if !self.is_stalled() && !self.is_refusing.load(Ordering::Relaxed) => FolderState::Ready,
            _ => FolderState::Troubled,
        }
    }

    /// The state without a recording folder.
    pub(super) fn unusable() -> Arc<Self> {
        Arc::new(Self::new(UNUSABLE))
    }

    /// Starts probing `folders`; ends when the sender is dropped. Waits for the first answer, a second at
    /// most.
    pub(super) fn start(folders: Vec<PathBuf>) -> io::Result<(Arc<Self>, Sender<()>)> {
        let watch = Arc::new(Self::new(TROUBLED));
        let (stop, stopped) = bounded(0);
        let (answered, first_answer) = bounded(1);
        let probed = Arc::clone(&watch);
        thread::Builder::new().name("recorder-probe".to_owned()).spawn(move || {
            probed.probe_for_ever(&folders, &stopped, &answered);
        })?;
        // On a timeout the disk is stalled, and the state says so.
        let _ = first_answer.recv_timeout(ANSWER_MAX);
        Ok((watch, stop))
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

    fn new(state: u8) -> Self {
        Self {
            epoch: Instant::now(),
            probed: AtomicU8::new(state),
            asked_ms: AtomicU64::new(0),
            working_ms: AtomicU64::new(0),
            is_refusing: AtomicBool::new(false),
        }
    }

    fn probe_for_ever(&self, folders: &[PathBuf], stopped: &Receiver<()>, answered: &Sender<()>) {
        let mut last: Option<Result<(), String>> = None;
        loop {
            self.asked_ms.store(self.elapsed_ms(), Ordering::Relaxed);
            let (state, finding) = probe(folders);
            self.probed.store(state, Ordering::Relaxed);
            self.asked_ms.store(0, Ordering::Relaxed);
            // Only the first answer is waited for.
            let _ = answered.try_send(());
            match &finding {
                Err(reason) if last.as_ref() != Some(&finding) => error!("recording folder: {reason}"),
                Ok(()) if matches!(last, Some(Err(_))) => info!("recording folder: usable again"),
                Ok(()) | Err(_) => {}
            }
            last = Some(finding);
            if stopped.recv_timeout(PROBE_PERIOD) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn is_stalled(&self) -> bool {
        let now = self.elapsed_ms();
        [&self.asked_ms, &self.working_ms].into_iter().any(|since| {
            let since = since.load(Ordering::Relaxed);
            since > 0 && now.saturating_sub(since) >= ANSWER_MAX.as_millis() as u64
        })
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

fn probe(folders: &[PathBuf]) -> (u8, Result<(), String>) {
    for path in folders {
        let (state, reason) = match Folder::open(path).and_then(|folder| folder.probe()) {
            Ok(free) if free > 0 => continue,
            Ok(_) => (TROUBLED, "the disk is full".to_owned()),
            Err(error) if is_lasting(error.kind()) => (UNUSABLE, error.to_string()),
            Err(error) => (TROUBLED, error.to_string()),
        };
        return (state, Err(format!("{}: {reason}", path.display())));
    }
    (READY, Ok(()))
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
        let mut watch = FolderWatch::new(READY);
        watch.work_begins();
        assert_eq!(watch.state(), FolderState::Ready);
        watch.epoch -= ANSWER_MAX;
        assert_eq!(watch.state(), FolderState::Troubled);
        watch.work_ends();
        assert_eq!(watch.state(), FolderState::Ready);
    }

    #[test]
    fn a_probe_without_an_answer_means_trouble() {
        let mut watch = FolderWatch::new(READY);
        watch.asked_ms.store(watch.elapsed_ms(), Ordering::Relaxed);
        assert_eq!(watch.state(), FolderState::Ready);
        watch.epoch -= ANSWER_MAX;
        assert_eq!(watch.state(), FolderState::Troubled);
    }

    #[test]
    fn a_disk_that_refuses_means_trouble() {
        let watch = FolderWatch::new(READY);
        watch.set_refusing(true);
        assert_eq!(watch.state(), FolderState::Troubled);
    }
}
