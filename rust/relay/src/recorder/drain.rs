//! The recorder thread: empties the ways of all workers into the files.

use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use foldhash::{HashMap, HashMapExt};
use rtpproxy_core::recording::{EndReason, RecordingEvent, RecordingId};
use rtpproxy_core::time::{Mono, Now, Wall};

use super::finish::Job;
use super::gather::Gathered;
use super::journal::Journal;
use super::journal::sync::Work;
use super::period::Periods;
use super::queue::{Chunk, Entry, Item, Note, Outlet, PacketHead};
use super::recording::{Recording, Shared};
use crate::preroll::{Kept, Preroll};

/// The state of the thread.
pub(super) struct Drain {
    outlets: Vec<Outlet>,
    /// What came from each worker and waits for older packets.
    gathered: Vec<Gathered>,
    /// By the number of the worker and its number for the recording.
    recordings: HashMap<(usize, RecordingId), Box<Recording>>,
    /// Packets from before a recording that are not worked off yet, by the number of the worker: what else it sends
    /// waits behind them.
    prerolls: Vec<Option<Box<Preroll>>>,
    shared: Shared,
    /// The finishers of the folders, by [`Site`].
    finished: Vec<Sender<Job>>,
    periods: Periods,
    /// One for each worker, in that layout.
    journals: Vec<Journal>,
    swept: Instant,
}

impl Drain {
    /// A drain for the other ends of `outlets`, one for each worker; `finished` leads to a finisher for each site.
    ///
    /// In the journal layout, `syncs` lead to what makes segments durable, for each site; otherwise there are none.
    pub(super) fn new(
        outlets: Vec<Outlet>,
        shared: Shared,
        finished: Vec<Sender<Job>>,
        syncs: &[Sender<Work>],
    ) -> Self {
        let gathered = outlets.iter().map(|_| Gathered::default()).collect();
        let workers = if syncs.is_empty() { 0 } else { outlets.len() };
        let journals = (0..workers).map(|worker| Journal::new(worker, syncs.to_vec())).collect();
        let periods = Periods::of(shared.config.flush);
        let prerolls = outlets.iter().map(|_| None).collect();
        let swept = Instant::now();
        let recordings = HashMap::new();
        Self { outlets, gathered, recordings, prerolls, shared, finished, journals, periods, swept }
    }

    /// Works until something is sent on `stop`, or its sender dropped; then writes and closes everything.
    pub(super) fn run(mut self, stop: &Receiver<()>) {
        loop {
            self.shared.watch.work_begins();
            let is_behind = self.drain();
            self.sweep(Instant::now());
            self.shared.watch.work_ends();
            let is_stopped = if is_behind {
                stop.try_recv() != Err(TryRecvError::Empty)
            } else {
                let is_idle = self.recordings.is_empty() && self.journals.iter().all(Journal::is_idle);
                let pause = if is_idle { IDLE_POLL } else { self.periods.poll };
                stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout)
            };
            if is_stopped {
                return self.close();
            }
        }
    }

    /// Takes a share of each way; true if there is more.
    pub(super) fn drain(&mut self) -> bool {
        let now = Instant::now();
        let mut is_behind = false;
        for worker in 0..self.outlets.len() {
            if !self.work_off(worker) {
                is_behind = true;
                continue;
            }
            for taken in 1..=ITEMS_A_ROUND {
                let Some(item) = self.outlets[worker].next() else { break };
                let item = match item {
                    Item::Preroll(preroll) => {
                        self.preroll(worker, preroll, now);
                        is_behind = true;
                        break;
                    }
                    item => item,
                };
                if let Some(empty) = self.gathered[worker].take(item, now) {
                    self.outlets[worker].give_back(empty);
                }
                is_behind |= taken == ITEMS_A_ROUND;
            }
            self.release(worker, now, false);
        }
        is_behind
    }

    /// Takes a share of the packets from before a recording; true if none are left.
    fn work_off(&mut self, worker: usize) -> bool {
        let Some(mut preroll) = self.prerolls[worker].take() else { return true };
        let now = Instant::now();
        for _ in 0..PACKETS_A_ROUND {
            let id = preroll.to;
            let Some(Kept { leg, channel, at, src, dst, payload }) = preroll.next() else { return true };
            self.entry(worker, Entry::Packet(&PacketHead { id, leg, channel, at, src, dst }, payload), now);
        }
        self.prerolls[worker] = Some(preroll);
        false
    }

    /// Begins with the packets from before a recording, whose start has come before them.
    fn preroll(&mut self, worker: usize, mut preroll: Box<Preroll>, now: Instant) {
        self.release(worker, now, false);
        if let Some(recording) = self.recordings.get_mut(&(worker, preroll.to)) {
            recording.preroll(&mut preroll);
        } else if let Some(journal) = self.journals.get_mut(worker) {
            journal.preroll(&mut preroll);
        }
        self.prerolls[worker] = Some(preroll);
    }

    /// Carries out what a worker has told, as far as nothing older is to come, or `all`.
    fn release(&mut self, worker: usize, now: Instant, all: bool) {
        let mut gathered = std::mem::take(&mut self.gathered[worker]);
        if !gathered.is_empty() {
            let is_much = gathered.chunks() * Chunk::SIZE > self.shared.budget.limit() / HELD_DIVISOR;
            let all = all || is_much || gathered.is_overdue(now, self.periods.order);
            let mut empty = Vec::new();
            gathered.release(all, |entry| self.entry(worker, entry, now), |chunk| empty.push(chunk));
            for chunk in empty {
                self.outlets[worker].give_back(chunk);
            }
        }
        self.gathered[worker] = gathered;
        self.hand_over_left();
    }

    fn entry(&mut self, worker: usize, entry: Entry<'_>, now: Instant) {
        match entry {
            Entry::Note(note) => self.note(worker, note, now),
            Entry::Packet(packet, payload) => {
                if let Some(recording) = self.recordings.get_mut(&(worker, packet.id)) {
                    recording.packet(&mut self.shared, packet, payload, now);
                } else if let Some(journal) = self.journals.get_mut(worker) {
                    journal.packet(&mut self.shared, packet, payload, now);
                }
            }
        }
    }

    fn note(&mut self, worker: usize, note: Note, now: Instant) {
        match note {
            Note::Event(event) => self.event(worker, *event, now),
            Note::Dropped(dropped) => {
                if let Some(recording) = self.recordings.get_mut(&(worker, dropped.id)) {
                    recording.dropped(&dropped);
                } else if let Some(journal) = self.journals.get_mut(worker) {
                    journal.dropped(&dropped);
                }
            }
        }
    }

    fn event(&mut self, worker: usize, event: RecordingEvent, now: Instant) {
        let key = (worker, event.id());
        if let RecordingEvent::Start(start) = event {
            let shared = &mut self.shared;
            if let Some(journal) = self.journals.get_mut(worker).filter(|_| Journal::takes(&start)) {
                return journal.start(*start, shared, now);
            }
            shared.running = self.recordings.len();
            self.recordings.entry(key).or_insert_with(|| Box::new(Recording::new(*start, shared, now)));
            return;
        }
        let Some(recording) = self.recordings.get_mut(&key) else {
            return self.journal_event(worker, event, now);
        };
        match event {
            RecordingEvent::Start(_) => {}
            RecordingEvent::Facts { to_tag, legs, .. } => recording.facts(to_tag, *legs),
            RecordingEvent::Mark { at, mark, .. } => recording.mark(at, &mark),
            RecordingEvent::End { at, reason, .. } => {
                recording.end(&mut self.shared, at, reason, now);
                let is_complete = recording.is_complete(now, false);
                self.hand_over_left();
                if is_complete && let Some(recording) = self.recordings.remove(&key) {
                    self.hand_over(*recording);
                }
            }
        }
    }

    fn journal_event(&mut self, worker: usize, event: RecordingEvent, now: Instant) {
        let Some(journal) = self.journals.get_mut(worker) else { return };
        match event {
            RecordingEvent::Start(_) => {}
            RecordingEvent::Facts { id, to_tag, legs } => journal.facts(id, to_tag, *legs),
            RecordingEvent::Mark { id, at, mark } => journal.mark(id, at, &mark),
            RecordingEvent::End { id, at, reason } => journal.end(id, &mut self.shared, at, reason, now),
        }
    }

    /// Does what is due, from time to time.
    pub(super) fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) < self.periods.sweep {
            return;
        }
        self.swept = now;
        for worker in 0..self.outlets.len() {
            self.release(worker, now, false);
        }
        for recording in self.recordings.values_mut() {
            if let Some(job) = recording.tick(&mut self.shared, now) {
                hand_over(&self.finished, job);
            }
        }
        self.hand_over_left();
        self.hand_over_complete(false);
        for journal in &mut self.journals {
            journal.tick(&mut self.shared, now);
        }
        let is_refusing = self.recordings.values().any(|recording| recording.is_in_trouble())
            || self.journals.iter().any(Journal::is_in_trouble);
        self.shared.watch.set_refusing(is_refusing);
    }

    fn hand_over_left(&mut self) {
        for job in self.shared.left.drain(..) {
            hand_over(&self.finished, job);
        }
    }

    fn hand_over_complete(&mut self, at_once: bool) {
        let now = Instant::now();
        let complete: Vec<_> =
            self.recordings.extract_if(|_, recording| recording.is_complete(now, at_once)).collect();
        for (_, recording) in complete {
            self.hand_over(*recording);
        }
    }

    fn hand_over(&mut self, recording: Recording) {
        for job in recording.complete(&mut self.shared, Instant::now()).into_iter().flatten() {
            hand_over(&self.finished, job);
        }
    }

    /// Writes everything that was handed over, and ends what has not ended.
    fn close(mut self) {
        while self.drain() {}
        let (now, at) = (Instant::now(), wall_clock());
        for worker in 0..self.outlets.len() {
            self.release(worker, now, true);
        }
        for recording in self.recordings.values_mut() {
            recording.end(&mut self.shared, at, EndReason::Shutdown, now);
        }
        self.hand_over_left();
        self.hand_over_complete(true);
        for journal in self.journals {
            journal.close(&mut self.shared, at, now);
        }
    }
}

fn hand_over(finished: &[Sender<Job>], job: Job) {
    // The finishers live until we drop the senders.
    let _ = finished[job.site as usize].send(job);
}

/// The time of an end that no worker told of. Only its wall time is used.
fn wall_clock() -> Now {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { mono: Mono::default(), wall: Wall(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)) }
}

/// How long the thread sleeps while nothing is recorded.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// How much of a worker's way is taken before the next one's turn.
const ITEMS_A_ROUND: usize = 64;
/// What part of the memory for packets may be filled with what waits for that.
const HELD_DIVISOR: usize = 4;
/// How many packets from before a recording are worked off before the others' turn.
const PACKETS_A_ROUND: usize = 4096;
