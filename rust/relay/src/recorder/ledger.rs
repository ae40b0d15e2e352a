//! What is known of every recording, for whoever asks: its state and its counters.
//!
//! The recorder and the finisher write it, a few times a second for each recording and at each change. Whoever
//! reads it takes a lock that is never held while a disk works, so it can be read while the disk stands still.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rtpproxy_core::command::{NotifyTarget, Tag};
use rtpproxy_core::recording::{Coverage, RecordingStart};
use rtpproxy_core::time::Wall;
use serde::{Serialize, Serializer};

use super::events::{Event, EventKind, EventQueue};
use super::sidecar::rfc3339;
use super::tally::Tally;
use crate::notifier::NotifyHandle;

/// How a recording is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordingState {
    /// It was asked for, and has no file yet.
    Starting,
    /// Packets go into its file.
    Recording,
    /// The disk does not take it, or is too slow for it: packets wait in memory, or are missing.
    Degraded,
    /// A command stopped it for a while.
    Paused,
    /// It ended; its files have their names, and the sidecar is there.
    Finished,
    /// It was given up.
    Failed,
}

impl RecordingState {
    /// The states of recordings that have not ended.
    pub const RUNNING: [Self; 4] = [Self::Starting, Self::Recording, Self::Degraded, Self::Paused];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Recording => "recording",
            Self::Degraded => "degraded",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }

    /// True for the last state of a recording.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Finished | Self::Failed)
    }
}

/// One recording as it is now. As JSON it has the names of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordingStatus {
    /// Counts the recordings of this relay, from 1.
    pub number: u64,
    /// How it is doing.
    pub state: RecordingState,
    /// Why it is degraded or failed.
    pub cause: Option<Arc<str>>,
    /// The call; long ones are shortened, the exact one is in the file.
    pub call_id: Arc<str>,
    /// The tag the session was created with, likewise.
    pub from_tag: Arc<str>,
    /// The other tag, once known.
    pub to_tag: Option<Arc<str>>,
    /// Whose packets, if not both parties'.
    pub leg: Option<&'static str>,
    /// When it was asked for: RFC 3339, UTC.
    pub requested: Arc<str>,
    /// Its first file, by the name it has now.
    #[serde(serialize_with = "lossy")]
    pub file: Option<Arc<Path>>,
    /// The JSON file beside it, once it is there.
    #[serde(serialize_with = "lossy")]
    pub sidecar: Option<Arc<Path>>,
    /// Packets recorded.
    pub packets: u64,
    /// Their payload.
    pub bytes: u64,
    /// Packets that should be in the file and are not.
    pub dropped: u64,
    /// Places in the file where packets are missing.
    pub gaps: u64,
}

/// The recordings of a relay: those that run, and the last that ended.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    rows: Mutex<Rows>,
    totals: Totals,
    /// The disk does not answer, so what seems to be recorded waits in memory.
    is_stalled: AtomicBool,
    queues: Vec<EventQueue>,
    /// Subscribers in this process, as this target of notifications, once there are some.
    process: OnceLock<(NotifyHandle, u32)>,
}

impl Ledger {
    /// A ledger whose changes go into `queues`.
    pub(super) fn new(queues: Vec<EventQueue>) -> Arc<Self> {
        Arc::new(Self { queues, ..Self::default() })
    }

    /// From now on changes go to subscribers in this process too, as lines for the target `number`.
    pub(super) fn tell_process(&self, notify: NotifyHandle, number: u32) {
        // Whoever was first has chosen the number.
        let _ = self.process.set((notify, number));
    }

    /// Enters a recording that starts.
    pub(super) fn enter(self: &Arc<Self>, start: &RecordingStart) -> Entry {
        self.totals.started.fetch_add(1, Ordering::Relaxed);
        let mut rows = self.rows();
        rows.entered += 1;
        let number = rows.entered;
        let row = Arc::new(Row(Mutex::new(Live::new(number, start))));
        rows.running.insert(number, Arc::clone(&row));
        Entry { ledger: Arc::clone(self), row, is_part: false }
    }

    /// The recordings with a number above `after`, in their order.
    pub(super) fn recordings(&self, after: u64) -> Vec<RecordingStatus> {
        let rows = self.rows();
        let mut found: Vec<Arc<Row>> = rows.ended.iter().chain(rows.running.values()).cloned().collect();
        drop(rows);
        found.retain(|row| row.live().status.number > after);
        let mut recordings: Vec<_> = found.iter().map(|row| row.live().status.clone()).collect();
        recordings.sort_unstable_by_key(|status| status.number);
        // One that ended in between may be there twice.
        recordings.dedup_by_key(|status| status.number);
        recordings
    }

    /// How many recordings are in each of [`RecordingState::RUNNING`].
    pub(super) fn running(&self) -> [u64; 4] {
        let rows: Vec<Arc<Row>> = self.rows().running.values().cloned().collect();
        let states: Vec<_> = rows.iter().map(|row| row.live().status.state).collect();
        RecordingState::RUNNING.map(|state| states.iter().filter(|&&is| is == state).count() as u64)
    }

    /// The figures of all recordings.
    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The ways to those who are told of changes.
    pub(super) fn queues(&self) -> &[EventQueue] {
        &self.queues
    }

    /// Says whether the disk answers. While it does not, what is being recorded counts as degraded.
    pub(super) fn set_stalled(&self, is_stalled: bool) {
        if self.is_stalled.swap(is_stalled, Ordering::Relaxed) == is_stalled {
            return;
        }
        let rows: Vec<Arc<Row>> = self.rows().running.values().cloned().collect();
        for row in rows {
            self.settle(&mut row.live());
        }
    }

    /// Brings the state of a recording up to date, and tells of it if it has changed.
    fn settle(&self, live: &mut Live) {
        let (state, cause) = match live.base {
            RecordingState::Starting | RecordingState::Recording
                if self.is_stalled.load(Ordering::Relaxed) =>
            {
                (RecordingState::Degraded, Some(NO_ANSWER))
            }
            state => (state, live.cause.as_deref()),
        };
        if live.status.cause.as_deref() != cause {
            live.status.cause = cause.map(Arc::from);
        }
        let was = live.status.state;
        if was == state {
            return;
        }
        live.status.state = state;
        let Some(kind) = EventKind::of(was, state, live.has_started) else { return };
        live.has_started |= kind == EventKind::Started;
        self.tell(kind, was, &live.status);
    }

    fn tell(&self, kind: EventKind, was: RecordingState, status: &RecordingStatus) {
        let process = self.process.get();
        if self.queues.is_empty() && process.is_none() {
            return;
        }
        let event = Arc::new(Event::new(kind, wall_clock(), was, status));
        for queue in &self.queues {
            queue.add(&event);
        }
        if let Some((notify, number)) = process {
            notify.send(NotifyTarget::InProcess(*number), event.line().to_vec());
        }
    }

    fn retire(&self, number: u64) {
        let mut rows = self.rows();
        if let Some(row) = rows.running.remove(&number) {
            if rows.ended.len() >= ENDED_MAX {
                rows.ended.pop_front();
            }
            rows.ended.push_back(row);
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The figures of all recordings since the start.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Recordings begun.
    pub(super) started: AtomicU64,
    /// Recordings finished.
    pub(super) finished: AtomicU64,
    /// Recordings given up.
    pub(super) failed: AtomicU64,
    /// Packets recorded.
    pub(super) packets: AtomicU64,
    /// Their payload, in bytes.
    pub(super) payload_bytes: AtomicU64,
    /// Bytes written to files.
    pub(super) written_bytes: AtomicU64,
    /// Packets that the recorder could not keep, as the disk refused.
    pub(super) refused: AtomicU64,
    /// Attempts to open, write or finish a file that failed.
    pub(super) errors: AtomicU64,
    /// When the last of them failed, in seconds since 1970; 0 if none did.
    pub(super) last_error_s: AtomicU64,
}

impl Totals {
    /// Counts something that the disk refused.
    pub(super) fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.last_error_s.store(wall_clock().0 / 1_000_000_000, Ordering::Relaxed);
    }
}

/// What a recording says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// [`RecordingStatus::packets`]
    pub(super) packets: u64,
    /// [`RecordingStatus::bytes`]
    pub(super) bytes: u64,
    /// [`RecordingStatus::dropped`]
    pub(super) dropped: u64,
    /// [`RecordingStatus::gaps`]
    pub(super) gaps: u64,
}

impl Figures {
    /// Those of a tally.
    pub(super) fn of(tally: &Tally) -> Self {
        Self {
            packets: tally.sum(|stream| stream.packets) - tally.unsaved,
            bytes: tally.sum(|stream| stream.bytes),
            dropped: tally.sum(|stream| stream.dropped) + tally.unsaved,
            gaps: tally.gaps.len() as u64,
        }
    }

    /// The sum of both.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            dropped: self.dropped + other.dropped,
            gaps: self.gaps + other.gaps,
        }
    }
}

/// The place of one recording in the ledger.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    ledger: Arc<Ledger>,
    row: Arc<Row>,
    /// It is that of a file after which the recording goes on.
    is_part: bool,
}

impl Entry {
    /// The same place, for a file after which the recording goes on: what becomes of that file is not what becomes of
    /// the recording.
    pub(super) fn of_part(&self) -> Self {
        Self { is_part: true, ..self.clone() }
    }

    /// The ledger it is in.
    pub(super) fn totals(&self) -> &Totals {
        &self.ledger.totals
    }

    /// Counts the recordings of this relay, from 1.
    pub(super) fn number(&self) -> u64 {
        self.row.live().status.number
    }

    /// The recording has this file now.
    pub(super) fn set_file(&self, file: PathBuf) {
        self.row.live().status.file = Some(file.into());
    }

    /// The other tag is known.
    pub(super) fn set_to_tag(&self, tag: &Tag) {
        self.row.live().status.to_tag = Some(shortened(tag.as_bytes()));
    }

    /// How the recording is doing, and why if that is not well.
    pub(super) fn update(&self, state: RecordingState, cause: Option<&str>, figures: Figures) {
        self.count(figures);
        let mut live = self.row.live();
        live.set(state, cause);
        self.ledger.settle(&mut live);
    }

    /// What is recorded and missing by now.
    pub(super) fn count(&self, figures: Figures) {
        let mut live = self.row.live();
        let Figures { packets, bytes, dropped, gaps } = figures;
        let totals = &self.ledger.totals;
        totals.packets.fetch_add(packets.saturating_sub(live.status.packets), Ordering::Relaxed);
        totals.payload_bytes.fetch_add(bytes.saturating_sub(live.status.bytes), Ordering::Relaxed);
        (live.status.packets, live.status.bytes) = (packets, bytes);
        (live.status.dropped, live.status.gaps) = (dropped, gaps);
    }

    /// It ended, and cannot be finished yet.
    pub(super) fn waits(&self, cause: &str) {
        if self.is_part {
            return;
        }
        let mut live = self.row.live();
        live.set(RecordingState::Degraded, Some(cause));
        self.ledger.settle(&mut live);
    }

    /// It ended well; `sidecar` is there, unless it has none.
    pub(super) fn finished(&self, file: PathBuf, sidecar: Option<PathBuf>) {
        let mut live = self.row.live();
        if self.is_part {
            let (file, sidecar) = (Some(Arc::from(file)), sidecar.map(Arc::from));
            let state = live.status.state;
            self.ledger.tell(
                EventKind::Rotated,
                state,
                &RecordingStatus { file, sidecar, ..live.status.clone() },
            );
            return;
        }
        live.status.file = Some(file.into());
        live.status.sidecar = sidecar.map(Arc::from);
        self.ledger.totals.finished.fetch_add(1, Ordering::Relaxed);
        self.end(live, RecordingState::Finished, None);
    }

    /// It was given up.
    pub(super) fn failed(&self, cause: &str) {
        if self.is_part {
            return;
        }
        self.ledger.totals.failed.fetch_add(1, Ordering::Relaxed);
        self.end(self.row.live(), RecordingState::Failed, Some(cause));
    }

    fn end(&self, mut live: MutexGuard<'_, Live>, state: RecordingState, cause: Option<&str>) {
        live.set(state, cause);
        self.ledger.settle(&mut live);
        let number = live.status.number;
        drop(live);
        self.ledger.retire(number);
    }
}

#[derive(Debug, Default)]
struct Rows {
    /// How many recordings there have been.
    entered: u64,
    running: BTreeMap<u64, Arc<Row>>,
    ended: VecDeque<Arc<Row>>,
}

#[derive(Debug)]
struct Row(Mutex<Live>);

impl Row {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Live {
    /// As others see it.
    status: RecordingStatus,
    /// As the recorder sees it, who does not see a disk that keeps it waiting.
    base: RecordingState,
    cause: Option<Arc<str>>,
    /// It was in the state `recording` before.
    has_started: bool,
}

impl Live {
    fn new(number: u64, start: &RecordingStart) -> Self {
        let leg = match &start.coverage {
            Coverage::Call | Coverage::SingleFile | Coverage::NamedSingleFile { .. } => None,
            Coverage::Stream(leg) | Coverage::Named { leg, .. } => Some(leg.name()),
        };
        let status = RecordingStatus {
            number,
            state: RecordingState::Starting,
            cause: None,
            call_id: shortened(start.call_id.as_bytes()),
            from_tag: shortened(start.from_tag.as_bytes()),
            to_tag: start.to_tag.as_ref().map(|tag| shortened(tag.as_bytes())),
            leg,
            requested: rfc3339(start.at.wall).into(),
            file: None,
            sidecar: None,
            packets: 0,
            bytes: 0,
            dropped: 0,
            gaps: 0,
        };
        Self { status, base: RecordingState::Starting, cause: None, has_started: false }
    }

    fn set(&mut self, state: RecordingState, cause: Option<&str>) {
        self.base = state;
        if self.cause.as_deref() != cause {
            self.cause = cause.map(Arc::from);
        }
    }
}

/// An id as text, cut if it is very long: a list of many must stay small.
fn shortened(id: &[u8]) -> Arc<str> {
    let text = String::from_utf8_lossy(id);
    match text.char_indices().nth(ID_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

fn lossy<S: Serializer>(path: &Option<Arc<Path>>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_deref().map(Path::to_string_lossy).serialize(serializer)
}

fn wall_clock() -> Wall {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

const NO_ANSWER: &str = "the disk does not answer";
/// How many recordings are remembered after their end.
const ENDED_MAX: usize = 100;
/// How much of an id is shown.
const ID_CHARS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use rtpproxy_core::recording::RecordingId;
    use rtpproxy_core::time::Now;

    use super::*;

    fn enter(ledger: &Arc<Ledger>, call_id: &str) -> Entry {
        ledger.enter(&RecordingStart {
            id: RecordingId(1),
            call_id: call_id.into(),
            from_tag: "f".into(),
            to_tag: None,
            coverage: Coverage::Call,
            rtcp: true,
            at: Now::default(),
            legs: Default::default(),
        })
    }

    fn states(ledger: &Ledger) -> Vec<RecordingState> {
        ledger.recordings(0).iter().map(|status| status.state).collect()
    }

    #[test]
    fn what_seems_to_be_recorded_is_degraded_while_the_disk_does_not_answer() {
        let ledger = Ledger::new(Vec::new());
        let entries = ["starting", "recording", "paused"].map(|call_id| enter(&ledger, call_id));
        entries[1].update(RecordingState::Recording, None, Figures::default());
        entries[2].update(RecordingState::Paused, None, Figures::default());
        ledger.set_stalled(true);

        assert_eq!(
            states(&ledger),
            [RecordingState::Degraded, RecordingState::Degraded, RecordingState::Paused]
        );
        assert_eq!(ledger.recordings(1)[0].cause.as_deref(), Some(NO_ANSWER));
        assert_eq!(ledger.running(), [0, 0, 2, 1]);
        entries[2].update(RecordingState::Recording, None, Figures::default());
        assert_eq!(states(&ledger)[2], RecordingState::Degraded);
        ledger.set_stalled(false);
        let expected = [RecordingState::Starting, RecordingState::Recording, RecordingState::Recording];
        assert_eq!(states(&ledger), expected);
        assert_eq!(ledger.recordings(1)[0].cause, None);
    }

    #[test]
    fn totals_never_shrink_and_the_last_that_ended_are_remembered() {
        let ledger = Ledger::new(Vec::new());
        for number in 0..ENDED_MAX + 5 {
            let entry = enter(&ledger, &number.to_string());
            let figures = Figures { packets: 10, bytes: 100, ..Figures::default() };
            entry.update(RecordingState::Recording, None, figures);
            // The disk refused some to the end.
            entry.count(Figures { packets: 8, ..figures });
            if number % 2 == 0 { entry.finished("x".into(), None) } else { entry.failed("y") }
        }
        let count = ENDED_MAX as u64 + 5;
        assert_eq!(ledger.totals().packets.load(Ordering::Relaxed), 10 * count);
        let recordings = ledger.recordings(0);
        assert_eq!((recordings.len(), recordings[0].number), (ENDED_MAX, 6));
        assert_eq!(recordings.last().map(|status| status.packets), Some(8));
        assert_eq!(ledger.recordings(count - 1).len(), 1);
        assert_eq!(ledger.running(), [0; 4]);
    }

    #[test]
    fn long_ids_are_cut() {
        assert_eq!(&*shortened(b"call"), "call");
        let long = "\u{e9}".repeat(ID_CHARS_MAX);
        assert_eq!(&*shortened(long.as_bytes()), long);
        assert_eq!(*shortened(format!("{long}x").as_bytes()), format!("{long}…"));
    }
}
