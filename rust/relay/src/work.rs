//! Threads that do what must not hold up others, each behind a bounded queue.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

/// What such a thread is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadKind {
    /// Its name.
    pub(crate) name: &'static str,
    /// Things that may wait for it.
    pub(crate) queue_max: usize,
    /// How long the end of the relay waits for it.
    pub(crate) end_patience: Duration,
    /// What the log says if that was not long enough.
    pub(crate) too_late: &'static str,
}

/// Starts a thread that does `run`, until there is no more [`Work::next`].
pub(crate) fn start<T: Send + Sync + 'static>(
    kind: ThreadKind,
    run: impl FnOnce(&Work<T>) + Send + 'static,
) -> io::Result<(WorkQueue<T>, WorkThread)> {
    let (stop, stopped) = bounded(0);
    let (finish, finished) = bounded(0);
    let (queue, work) = queue(kind.queue_max, stopped);
    thread::Builder::new().name(kind.name.to_owned()).spawn(move || {
        run(&work);
        drop(finish);
    })?;
    Ok((queue, WorkThread { stop: Some(stop), finished, give_up: None, kind }))
}

fn queue<T>(max: usize, stopped: Receiver<()>) -> (WorkQueue<T>, Work<T>) {
    let (into, queue) = bounded(max);
    let counts = Arc::new(Counts::default());
    (WorkQueue { into, counts: Arc::clone(&counts) }, Work { queue, stopped, counts })
}

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct WorkQueue<T> {
    into: Sender<Arc<T>>,
    counts: Arc<Counts>,
}

impl<T> WorkQueue<T> {
    /// Never waits. What there is no room for is counted and lost.
    pub(crate) fn add(&self, item: Arc<T>) {
        if self.into.try_send(item).is_err() {
            self.counts.lose(1);
        }
    }

    /// What became of all things so far that do not wait.
    pub(crate) fn outcome(&self) -> Outcome {
        let Counts { done, lost, .. } = &*self.counts;
        Outcome { done: done.load(Ordering::Relaxed), lost: lost.load(Ordering::Relaxed) }
    }
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { into: self.into.clone(), counts: Arc::clone(&self.counts) }
    }
}

/// What became of what was queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Done, and well.
    pub(crate) done: u64,
    /// Lost.
    pub(crate) lost: u64,
}

impl Outcome {
    /// The sum; `None` over no queue.
    pub(crate) fn sum(outcomes: impl Iterator<Item = Self>) -> Option<Self> {
        outcomes.reduce(|sum, other| Self { done: sum.done + other.done, lost: sum.lost + other.lost })
    }
}

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    lost: AtomicU64,
    /// Those of `lost` that nobody was told of.
    untold: AtomicU64,
}

impl Counts {
    fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
        self.untold.fetch_add(count, Ordering::Relaxed);
    }
}

/// The other end of the queue.
#[derive(Debug)]
pub(crate) struct Work<T> {
    queue: Receiver<Arc<T>>,
    stopped: Receiver<()>,
    counts: Arc<Counts>,
}

impl<T> Work<T> {
    /// Waits for something to do; `None` when the relay has ended and all is done.
    pub(crate) fn next(&self) -> Option<Arc<T>> {
        select! {
            recv(self.queue) -> item => item.ok(),
            recv(self.stopped) -> _ => self.queue.try_recv().ok(),
        }
    }

    /// What waits now.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Arc<T>> {
        self.queue.try_iter()
    }

    /// Waits so long, but not beyond the end of the relay. Whether it has ended.
    pub(crate) fn ends_within(&self, patience: Duration) -> bool {
        self.stopped.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }

    /// Counts what was taken and is done.
    pub(crate) fn succeed(&self, count: u64) {
        self.counts.done.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts what was taken and is lost.
    pub(crate) fn lose(&self, count: u64) {
        self.counts.lose(count);
    }

    /// How much was lost since this was asked last.
    pub(crate) fn take_lost(&self) -> u64 {
        self.counts.untold.swap(0, Ordering::Relaxed)
    }
}

/// A running thread. Dropping it waits until it has dealt with all that was queued, but not for ever.
#[derive(Debug)]
pub(crate) struct WorkThread {
    stop: Option<Sender<()>>,
    finished: Receiver<()>,
    /// When it is waited for no longer, once it was told to end.
    give_up: Option<Instant>,
    kind: ThreadKind,
}

impl WorkThread {
    /// Tells it that the relay has ended, and waits for nothing.
    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            drop(stop);
            self.give_up = Some(Instant::now() + self.kind.end_patience);
        }
    }
}

impl Drop for WorkThread {
    fn drop(&mut self) {
        self.stop();
        let ended = self.give_up.map(|give_up| self.finished.recv_deadline(give_up));
        if ended == Some(Err(RecvTimeoutError::Timeout)) {
            tracing::error!("{}", self.kind.too_late);
        }
    }
}

/// Several of them. Dropping them ends them, and waits no longer for all than for the most patient one.
#[derive(Debug)]
pub(crate) struct WorkThreads(pub(crate) Vec<WorkThread>);

impl Drop for WorkThreads {
    fn drop(&mut self) {
        // All are told before the first one is waited for.
        self.0.iter_mut().for_each(WorkThread::stop);
    }
}

#[cfg(test)]
impl<T> WorkQueue<T> {
    /// How many were lost and not told of.
    pub(crate) fn lost(&self) -> u64 {
        self.counts.untold.load(Ordering::Relaxed)
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.into.is_empty()
    }
}

#[cfg(test)]
impl<T> Work<T> {
    /// That of a relay that has ended, with the way to it.
    pub(crate) fn of_relay_that_ended() -> (WorkQueue<T>, Self) {
        queue(16, bounded(0).1)
    }

    /// That of a relay that has ended, with nothing to do.
    pub(crate) fn ended() -> Self {
        Self::of_relay_that_ended().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let (_stop, stopped) = bounded(0);
        let (queue, work) = queue(2, stopped);
        for item in 0..5 {
            queue.add(Arc::new(item));
        }
        assert_eq!((queue.lost(), work.waiting().count()), (3, 2));
        work.lose(1);
        assert_eq!((work.take_lost(), work.take_lost()), (4, 0));
        work.succeed(2);
        assert_eq!(queue.outcome(), Outcome { done: 2, lost: 4 });
    }

    #[test]
    fn the_end_waits_for_what_is_queued_but_not_for_ever() {
        let kind = ThreadKind {
            name: "test",
            queue_max: 10,
            end_patience: Duration::from_millis(50),
            too_late: "too late",
        };
        let (told, done) = bounded(10);
        let (queue, thread) = start(kind, move |work: &Work<u32>| {
            while let Some(item) = work.next() {
                assert!(told.send(*item).is_ok());
            }
        })
        .unwrap();
        for item in 0..10 {
            queue.add(Arc::new(item));
        }
        drop(thread);
        assert_eq!(done.try_iter().collect::<Vec<u32>>(), (0..10).collect::<Vec<u32>>());

        let (hold, held) = bounded::<()>(0);
        let (_queue, stuck) = start(kind, move |_: &Work<u32>| assert!(held.recv().is_ok())).unwrap();
        drop(stuck);
        assert!(hold.send(()).is_ok(), "the thread still runs");
    }

    #[test]
    fn the_end_waits_for_all_at_a_time() {
        let kind = ThreadKind {
            name: "test",
            queue_max: 1,
            end_patience: Duration::from_millis(500),
            too_late: "too late",
        };
        let (_hold, held) = bounded::<()>(0);
        let stuck = || {
            let held = held.clone();
            start(kind, move |_: &Work<u32>| assert!(held.recv().is_err())).unwrap().1
        };
        let threads = WorkThreads((0..4).map(|_| stuck()).collect());
        let started = Instant::now();
        drop(threads);
        assert!((500..1500).contains(&started.elapsed().as_millis()));
    }
}
