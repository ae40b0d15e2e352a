//! The thread of a module, and the bounded queue into it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

/// What the thread of a module is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadKind {
    /// Its name.
    pub(super) name: &'static str,
    /// Things that may wait for it.
    pub(super) queue_max: usize,
    /// How long the end of the relay waits for it.
    pub(super) end_patience: Duration,
    /// What the log says if that was not long enough.
    pub(super) too_late: &'static str,
}

/// Starts a thread that does `run`, until there is no more [`Work::next`].
pub(super) fn start<T: Send + Sync + 'static>(
    kind: ThreadKind,
    run: impl FnOnce(&Work<T>) + Send + 'static,
) -> io::Result<(ModuleQueue<T>, ModuleThread)> {
    let (stop, stopped) = bounded(0);
    let (finish, finished) = bounded(0);
    let (queue, work) = queue(kind.queue_max, stopped);
    thread::Builder::new().name(kind.name.to_owned()).spawn(move || {
        run(&work);
        drop(finish);
    })?;
    Ok((queue, ModuleThread { stop: Some(stop), finished, give_up: None, kind }))
}

fn queue<T>(max: usize, stopped: Receiver<()>) -> (ModuleQueue<T>, Work<T>) {
    let (into, queue) = bounded(max);
    let lost = Arc::new(AtomicU64::new(0));
    (ModuleQueue { into, lost: Arc::clone(&lost) }, Work { queue, stopped, lost })
}

/// The way to the thread.
#[derive(Debug)]
pub(super) struct ModuleQueue<T> {
    into: Sender<Arc<T>>,
    lost: Arc<AtomicU64>,
}

impl<T> ModuleQueue<T> {
    /// Never waits. What there is no room for is counted and lost.
    pub(super) fn add(&self, item: Arc<T>) {
        if self.into.try_send(item).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<T> Clone for ModuleQueue<T> {
    fn clone(&self) -> Self {
        Self { into: self.into.clone(), lost: Arc::clone(&self.lost) }
    }
}

/// The other end of the queue.
#[derive(Debug)]
pub(super) struct Work<T> {
    queue: Receiver<Arc<T>>,
    stopped: Receiver<()>,
    lost: Arc<AtomicU64>,
}

impl<T> Work<T> {
    /// Waits for something to do; `None` when the relay has ended and all is done.
    pub(super) fn next(&self) -> Option<Arc<T>> {
        select! {
            recv(self.queue) -> item => item.ok(),
            recv(self.stopped) -> _ => self.queue.try_recv().ok(),
        }
    }

    /// What waits now.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Arc<T>> {
        self.queue.try_iter()
    }

    /// Waits so long, but not beyond the end of the relay. Whether it has ended.
    pub(super) fn ends_within(&self, patience: Duration) -> bool {
        self.stopped.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }

    /// Counts what was taken and is lost.
    pub(super) fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// How much was lost since this was asked last.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

/// A running thread. Dropping it waits until it has dealt with all that was queued, but not for ever.
#[derive(Debug)]
pub(super) struct ModuleThread {
    stop: Option<Sender<()>>,
    finished: Receiver<()>,
    /// When it is waited for no longer, once it was told to end.
    give_up: Option<Instant>,
    kind: ThreadKind,
}

impl ModuleThread {
    /// Tells it that the relay has ended, and waits for nothing.
    pub(super) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            drop(stop);
            self.give_up = Some(Instant::now() + self.kind.end_patience);
        }
    }
}

impl Drop for ModuleThread {
    fn drop(&mut self) {
        self.stop();
        let ended = self.give_up.map(|give_up| self.finished.recv_deadline(give_up));
        if ended == Some(Err(RecvTimeoutError::Timeout)) {
            tracing::error!("{}", self.kind.too_late);
        }
    }
}

#[cfg(test)]
impl<T> ModuleQueue<T> {
    /// How many were lost and not told of.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.into.is_empty()
    }
}

#[cfg(test)]
impl<T> Work<T> {
    /// That of a relay that has ended, with nothing to do.
    pub(super) fn ended() -> Self {
        queue(1, bounded(0).1).1
    }
}

#[cfg(test)]
mod tests {
    use super::super::ModuleThreads;
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
        let threads = ModuleThreads((0..4).map(|_| stuck()).collect());
        let started = Instant::now();
        drop(threads);
        assert!((500..1500).contains(&started.elapsed().as_millis()));
    }
}
