//! Looking up the names of hosts that commands name, away from every thread that others wait for.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rtpproxy_core::addr::Family;

use crate::hostport;

/// Looks names up, each on a thread of its own.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    /// False if only numeric addresses are taken.
    names: bool,
    running: Arc<AtomicUsize>,
    /// The last look-up took too long: the next ones get less time, since a caller may hold up others.
    is_stalled: Arc<AtomicBool>,
}

impl Resolver {
    /// A resolver; without `names` it finds nothing (`--no_resolve`).
    pub(crate) fn new(names: bool) -> Self {
        Self { names, running: Arc::default(), is_stalled: Arc::default() }
    }

    /// Looks up the IPv4 address of `host`, then calls `done` with it, on another thread or on this one. A name
    /// service that does not answer in time counts as one that does not know the host. `done` is dropped if the
    /// system refuses a thread.
    pub(crate) fn look_up(&self, host: Box<str>, done: impl FnOnce(Option<IpAddr>) + Send + 'static) {
        self.look_up_with(|host| hostport::lookup(host, 0, Family::V4, true), host, done);
    }

    fn look_up_with(
        &self,
        ask: impl FnOnce(&str) -> Result<SocketAddr, String> + Send + 'static,
        host: Box<str>,
        done: impl FnOnce(Option<IpAddr>) + Send + 'static,
    ) {
        if !self.names {
            tracing::error!("{host}: names are not looked up (--no_resolve)");
            return done(None);
        }
        if self.running.fetch_add(1, Ordering::AcqRel) >= LOOKUPS_MAX {
            self.running.fetch_sub(1, Ordering::AcqRel);
            tracing::error!("{host}: not looked up, as {LOOKUPS_MAX} names are being looked up already");
            return done(None);
        }
        let (running, is_stalled) = (Running(Arc::clone(&self.running)), Arc::clone(&self.is_stalled));
        spawn(move || {
            let patience = if is_stalled.load(Ordering::Relaxed) { STALLED_PATIENCE } else { PATIENCE };
            let found = ask_for(ask, host.clone(), running, Arc::clone(&is_stalled)).recv_timeout(patience);
            let found = found.unwrap_or_else(|_| {
                is_stalled.store(true, Ordering::Relaxed);
                Err(format!("{host}: the name service does not answer"))
            });
            if let Err(error) = &found {
                tracing::error!("{error}");
            }
            done(found.ok().map(|addr| addr.ip()));
        });
    }
}

/// Asks the name service on a thread of its own, which nobody has to wait for.
fn ask_for(
    ask: impl FnOnce(&str) -> Result<SocketAddr, String> + Send + 'static,
    host: Box<str>,
    running: Running,
    is_stalled: Arc<AtomicBool>,
) -> mpsc::Receiver<Result<SocketAddr, String>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    spawn(move || {
        let start = Instant::now();
        let found = ask(&host);
        // An answer that came too late for its command tells about the service all the same.
        is_stalled.store(start.elapsed() >= PATIENCE, Ordering::Relaxed);
        drop(running);
        drop(sender.send(found));
    });
    receiver
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name("lookup".to_owned()).spawn(work) {
        tracing::error!("no thread to look up a name: {error}");
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

/// How long a name service may take. A SIP server waits about as long for a reply.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long it may take once it did not answer, until it does again.
const STALLED_PATIENCE: Duration = Duration::from_millis(50);

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

    /// Looks a name up that the name service answers when the test says so.
    fn look_up_slowly(resolver: &Resolver) -> (mpsc::Sender<()>, mpsc::Receiver<Option<IpAddr>>) {
        let (answer, wait) = mpsc::channel::<()>();
        let (sender, found) = mpsc::channel();
        let ask = move |_: &str| {
            let _ = wait.recv();
            Ok(SocketAddr::from(([192, 0, 2, 1], 0)))
        };
        resolver.look_up_with(ask, "host".into(), move |addr| sender.send(addr).unwrap());
        (answer, found)
    }

    #[test]
    fn nobody_waits_long_for_a_service_that_does_not_answer() {
        let resolver = Resolver::new(true);
        let start = Instant::now();
        let (answer, found) = look_up_slowly(&resolver);
        assert_eq!(found.recv_timeout(PATIENCE * 5), Ok(None));
        assert!(start.elapsed() >= PATIENCE);

        let start = Instant::now();
        let (quicker, found) = look_up_slowly(&resolver);
        assert_eq!(found.recv(), Ok(None));
        assert!(start.elapsed() < PATIENCE);
        assert_eq!(resolver.running.load(Ordering::Acquire), 2);

        // What is slow no more gets its time again.
        drop(quicker);
        let deadline = Instant::now() + PATIENCE * 5;
        while resolver.is_stalled.load(Ordering::Relaxed) && Instant::now() < deadline {
            thread::yield_now();
        }
        let (now, found) = look_up_slowly(&resolver);
        thread::sleep(STALLED_PATIENCE * 2);
        drop(now);
        assert_eq!(found.recv(), Ok(Some(IpAddr::from([192, 0, 2, 1]))));
        drop(answer);
    }
}
