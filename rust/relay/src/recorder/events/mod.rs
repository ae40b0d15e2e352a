//! Telling others what becomes of recordings: lines of JSON, or a program for each that is finished.
//!
//! Each target has a thread of its own behind a bounded queue, so none can hold up the recorder or another one.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rtpproxy_core::time::Wall;
use serde::Serialize;

use super::ledger::{RecordingState, RecordingStatus};
use super::sidecar::rfc3339;
use crate::config::RecordEvents;
use crate::work::{self, Outcome, ThreadKind, WorkQueue, WorkThread};
use lines::Lines;
use programs::Programs;

mod lines;
mod programs;

/// What happened to a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EventKind {
    /// It has its file.
    Started,
    /// The disk does not take it, or is too slow for it.
    Degraded,
    /// A command stopped it for a while.
    Paused,
    /// It goes on.
    Resumed,
    /// One of its files is finished, and it goes on in the next one.
    Rotated,
    /// It ended; its files have their names, and the sidecar is there.
    Finished,
    /// It was given up.
    Failed,
}

impl EventKind {
    /// Whether it is that of a file, or the last files, that are complete.
    fn is_finished(self) -> bool {
        matches!(self, Self::Rotated | Self::Finished)
    }

    /// What it means that a recording leaves one state for another; `has_started`: it had its file before.
    pub(super) fn of(was: RecordingState, now: RecordingState, has_started: bool) -> Option<Self> {
        match now {
            _ if was == now => None,
            RecordingState::Starting => None,
            RecordingState::Recording if has_started => Some(Self::Resumed),
            RecordingState::Recording => Some(Self::Started),
            RecordingState::Degraded => Some(Self::Degraded),
            RecordingState::Paused => Some(Self::Paused),
            RecordingState::Finished => Some(Self::Finished),
            RecordingState::Failed => Some(Self::Failed),
        }
    }
}

/// An event on its way.
#[derive(Debug)]
pub(super) struct Event {
    kind: EventKind,
    /// With its line feed.
    line: Vec<u8>,
    sidecar: Option<Arc<Path>>,
}

impl Event {
    /// An event of the recording that `status` tells of, which was in the state `was` before.
    pub(super) fn new(kind: EventKind, at: Wall, was: RecordingState, status: &RecordingStatus) -> Self {
        let told = Told { event: kind, at: rfc3339(at), was, recording: status };
        let mut line = serde_json::to_vec(&told).expect("its fields are texts and numbers");
        line.push(b'\n');
        Self { kind, line, sidecar: status.sidecar.clone() }
    }
}

impl Event {
    /// As JSON, with a line feed.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }
}

#[derive(Serialize)]
struct Told<'a> {
    event: EventKind,
    at: String,
    was: RecordingState,
    #[serde(flatten)]
    recording: &'a RecordingStatus,
}

/// The way to one target.
#[derive(Debug)]
pub(super) struct EventQueue {
    events: WorkQueue<Event>,
    /// It wants sidecars, each as soon as it is there.
    only_finished: bool,
}

impl EventQueue {
    /// Queues an event that concerns the target. If there is no room it is counted and lost.
    pub(super) fn add(&self, event: &Arc<Event>) {
        if !self.only_finished || (event.kind.is_finished() && event.sidecar.is_some()) {
            self.events.add(Arc::clone(event));
        }
    }

    /// What became of events; a program that failed counts as lost.
    pub(super) fn outcome(&self) -> Outcome {
        self.events.outcome()
    }
}

/// Starts the thread for a target.
///
/// # Errors
///
/// The file cannot be opened, there is no such program, or there can be no further thread.
pub(super) fn start(target: &RecordEvents) -> io::Result<(EventQueue, WorkThread)> {
    let (events, thread) = match target {
        RecordEvents::Unix(path) => {
            let mut lines = Lines::to_socket(path.clone());
            work::start(THREAD, move |work| lines.run(work))?
        }
        RecordEvents::File(path) => {
            let mut lines = Lines::to_file(path.clone())?;
            work::start(THREAD, move |work| lines.run(work))?
        }
        RecordEvents::Exec(program) => {
            let mut programs = Programs::of(program)?;
            work::start(THREAD, move |work| programs.run(work))?
        }
    };
    Ok((EventQueue { events, only_finished: matches!(target, RecordEvents::Exec(_)) }, thread))
}

const THREAD: ThreadKind = ThreadKind {
    name: "record-events",
    queue_max: 4096,
    end_patience: Duration::from_secs(12),
    too_late: "record events: the target does not take them; the last ones are lost",
};
