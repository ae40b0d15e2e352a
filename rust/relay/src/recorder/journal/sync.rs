//! Making segments durable while they are written.
//!
//! One `fdatasync` a second covers all recordings of a worker. A thread does it, as it takes milliseconds and the
//! recorder must go on draining. A recording that has ended is finished when its end is durable.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tracing::warn;

use super::super::finish::Job;
use super::call::Ended;

/// Something to make durable.
#[derive(Debug)]
pub(in crate::recorder) struct Work {
    /// The segment; `None` if it was given before.
    pub(super) file: Option<Arc<File>>,
    /// Recordings that are finished then.
    pub(super) written: Vec<Ended>,
    /// What to do with a segment that is complete.
    pub(super) job: Option<Box<Job>>,
    /// Dropped when all is done.
    pub(super) _token: Option<Arc<()>>,
}

/// Works until all senders are gone. Jobs go on to `finished`.
pub(in crate::recorder) fn run(works: &Receiver<Work>, finished: &Sender<Job>) {
    let mut failed: Vec<(Work, u32)> = Vec::new();
    let mut retry_at = Instant::now();
    loop {
        let first = if failed.is_empty() {
            works.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            works.recv_deadline(retry_at)
        };
        let is_last_try = matches!(first, Err(RecvTimeoutError::Disconnected));
        let mut batch = Vec::new();
        if is_last_try || Instant::now() >= retry_at {
            batch.append(&mut failed);
            retry_at = Instant::now() + RETRY_PERIOD;
        }
        batch.extend(first.into_iter().chain(works.try_iter()).map(|work| (work, 0)));
        for (work, tries) in batch {
            failed.extend(make_durable(work, tries, is_last_try, finished));
        }
        if is_last_try {
            return;
        }
    }
}

/// Does a work, or gives it back to be tried again.
fn make_durable(
    mut work: Work,
    tries: u32,
    is_last_try: bool,
    finished: &Sender<Job>,
) -> Option<(Work, u32)> {
    let outcome = work.file.as_ref().map_or(Ok(()), |file| file.sync_data());
    if let Err(error) = &outcome
        && !is_last_try
        && tries < TRIES_MAX
    {
        if tries == 0 {
            warn!("a segment of the journal is not durable yet: {error}");
        }
        work.written.iter().for_each(|ended| ended.waits(error));
        return Some((work, tries + 1));
    }
    settle(work.written, &outcome);
    // The finisher needs the file for itself.
    work.file = None;
    if let Some(job) = work.job {
        // The finisher lives until we drop the sender.
        let _ = finished.send(*job);
    }
    None
}

fn settle(written: Vec<Ended>, outcome: &io::Result<()>) {
    for ended in written {
        match outcome {
            Ok(()) => ended.finished(),
            Err(error) => ended.failed(&error.to_string()),
        }
    }
}

/// How long to wait before what failed is tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// How often it is tried again.
const TRIES_MAX: u32 = 60;
