//! Looking up the names of hosts that commands name, away from every thread that others wait for.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rtpproxy_core::addr::Family;

use crate::hostport;

/// Looks names up, each on a thread of its own.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    /// False if only numeric addresses are taken.
    names: bool,
    running: Arc<AtomicUsize>,
}

impl Resolver {
    /// A resolver; without `names` it finds nothing (`--no_resolve`).
    pub(crate) fn new(names: bool) -> Self {
        Self { names, running: Arc::default() }
    }

    /// Looks up the IPv4 address of `host`, then calls `done` with it, on another thread or on this one. `done`
    /// is dropped if the system refuses a thread.
    pub(crate) fn look_up(&self, host: Box<str>, done: impl FnOnce(Option<IpAddr>) + Send + 'static) {
        if !self.names {
            tracing::error!("{host}: names are not looked up (--no_resolve)");
            return done(None);
        }
        if self.running.fetch_add(1, Ordering::AcqRel) >= LOOKUPS_MAX {
            self.running.fetch_sub(1, Ordering::AcqRel);
            tracing::error!("{host}: not looked up, as {LOOKUPS_MAX} names are being looked up already");
            return done(None);
        }
        let running = Running(Arc::clone(&self.running));
        let spawned = thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            let found = hostport::lookup(&host, 0, Family::V4, true);
            drop(running);
            if let Err(error) = &found {
                tracing::error!("{error}");
            }
            done(found.ok().map(|addr| addr.ip()));
        });
        if let Err(error) = spawned {
            tracing::error!("no thread to look up a name: {error}");
        }
    }
}

/// One look-up that runs.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Look-ups at a time: a name service that is down must not collect threads.
const LOOKUPS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn look_up(resolver: &Resolver, host: &str) -> Option<IpAddr> {
        let (sender, receiver) = mpsc::channel();
        resolver.look_up(host.into(), move |found| sender.send(found).unwrap());
        receiver.recv().unwrap()
    }

    #[test]
    fn names_are_looked_up_if_that_is_allowed() {
        let resolver = Resolver::new(true);
        assert_eq!(look_up(&resolver, "localhost"), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(look_up(&resolver, "no-such-host.invalid"), None);
        assert_eq!(look_up(&resolver, "::1"), None, "only IPv4");
        assert_eq!(look_up(&Resolver::new(false), "localhost"), None);
        assert_eq!(resolver.running.load(Ordering::Acquire), 0);
    }

    #[test]
    fn only_so_many_at_a_time() {
        let resolver = Resolver::new(true);
        resolver.running.store(LOOKUPS_MAX, Ordering::Release);
        assert_eq!(look_up(&resolver, "localhost"), None);
        assert_eq!(resolver.running.load(Ordering::Acquire), LOOKUPS_MAX);
    }
}
