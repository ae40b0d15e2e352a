//! Which worker owns a call: the hash of its call-id says so, except for calls that were forked into.
//!
//! A fork must not cross workers. So a call that another one is forked into lives with that one, and an
//! exception is kept as long as it does.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use rtpproxy_core::command::{CallId, Command, SubCommand};

/// The places of all calls.
#[derive(Debug)]
pub(crate) struct Placement {
    places: Mutex<Places>,
}

impl Placement {
    /// Places on so many workers, at least one.
    pub(crate) fn new(workers: usize) -> Self {
        let places =
            Places { hasher: RandomState::default(), workers, guests: HashMap::new(), sweep_at: SWEEP_MIN };
        Self { places: Mutex::new(places) }
    }

    /// Looks places up or changes them. Whoever holds this while handing a job to a worker knows that the call
    /// is there when the job is done.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The places of all calls, locked.
#[derive(Debug)]
pub(crate) struct Places {
    hasher: RandomState,
    workers: usize,
    guests: HashMap<CallId, Guest>,
    /// Exceptions of calls that are gone are looked for when there are so many.
    sweep_at: usize,
}

impl Places {
    /// The worker of a call, by its number; and if that is an exception, what keeps it.
    pub(crate) fn of(&mut self, call_id: &CallId) -> (usize, Option<Stay>) {
        match self.guests.get(call_id) {
            Some(guest) if guest.is_there() => (guest.worker, Some(guest.stay.clone())),
            Some(_) => {
                self.guests.remove(call_id);
                (self.home(call_id), None)
            }
            None => (self.home(call_id), None),
        }
    }

    /// From now on the call is with that worker. The exception lasts as long as a copy of what is returned.
    pub(crate) fn settle(&mut self, call_id: &CallId, worker: usize) -> Option<Stay> {
        self.guests.remove(call_id);
        if worker == self.home(call_id) {
            return None;
        }
        if self.guests.len() >= self.sweep_at {
            self.guests.retain(|_, guest| guest.is_there());
            self.sweep_at = (self.guests.len() * 2).max(SWEEP_MIN);
        }
        let stay = Stay(Arc::default());
        self.guests.insert(call_id.clone(), Guest { worker, stay: stay.clone() });
        Some(stay)
    }

    fn home(&self, call_id: &CallId) -> usize {
        (self.hasher.hash_one(call_id.as_bytes()) % self.workers as u64) as usize
    }
}

/// The call whose worker a command's call has to be with: the first that it forks.
pub(crate) fn companion(command: &Command) -> Option<&CallId> {
    command.subs().iter().find_map(|sub| match sub {
        SubCommand::Fork(source) => Some(&source.call_id),
        _ => None,
    })
}

/// Keeps an exception. Every job for the call carries one, and its worker keeps one while there is a session.
#[derive(Clone, Debug)]
pub(crate) struct Stay(Arc<()>);

#[derive(Debug)]
struct Guest {
    worker: usize,
    stay: Stay,
}

impl Guest {
    /// True if the worker has a session of the call, or a job for it is on the way. New copies are made under
    /// the lock only, so that a false stays false.
    fn is_there(&self) -> bool {
        Arc::strong_count(&self.stay.0) > 1
    }
}

/// Fewer exceptions than this are not worth a look.
const SWEEP_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A call-id that the hash places on that worker.
    fn call_at(places: &Places, worker: usize) -> CallId {
        let mut ids = (0..).map(|number| CallId::from(&*format!("call{number}")));
        ids.find(|id| places.home(id) == worker).unwrap()
    }

    /// Settles a call on the other of two workers.
    fn abroad(places: &mut Places, call: &CallId) -> Option<Stay> {
        let other = 1 - places.home(call);
        places.settle(call, other)
    }

    #[test]
    fn an_exception_lasts_as_long_as_anything_keeps_it() {
        let placement = Placement::new(4);
        let mut places = placement.lock();
        let call = call_at(&places, 1);
        assert!(matches!(places.of(&call), (1, None)));
        let stay = places.settle(&call, 3);
        let (worker, another) = places.of(&call);
        assert_eq!(worker, 3);
        drop(stay);
        assert_eq!(places.of(&call).0, 3);
        drop(another);
        assert!(matches!(places.of(&call), (1, None)));
        assert!(places.guests.is_empty());
        assert!(places.settle(&call, 1).is_none(), "home is no exception");
    }

    #[test]
    fn forgotten_exceptions_are_swept() {
        let placement = Placement::new(2);
        let mut places = placement.lock();
        let calls: Vec<CallId> = (0..1000).map(|number| CallId::from(&*format!("call{number}"))).collect();
        let kept: Vec<Stay> = calls[..10].iter().filter_map(|call| abroad(&mut places, call)).collect();
        for call in &calls[10..] {
            abroad(&mut places, call);
        }
        assert!(places.guests.len() <= SWEEP_MIN, "{}", places.guests.len());
        assert!(calls[..10].iter().all(|call| places.of(call).0 != places.home(call)));
        drop(kept);
    }
}
