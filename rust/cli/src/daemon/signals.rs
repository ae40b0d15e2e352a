//! Signals, read one by one instead of interrupting.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The signals that the daemon acts on. SIGPIPE is ignored by every Rust program already.
pub(super) struct Signals {
    queue: SignalFd,
}

impl Signals {
    /// Blocks the signals for this thread and those it starts from now on, and opens their queue.
    pub(super) fn block() -> nix::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGHUP);
        for signal in ENDING {
            set.add(*signal);
        }
        set.thread_block()?;
        let queue = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { queue })
    }

    /// The next signal; `None` after `limit`, or after an interruption.
    pub(super) fn next(&self, limit: Option<Duration>) -> Option<Signal> {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut queue = [PollFd::from_borrowed_fd(self.queue.as_fd(), PollFlags::IN)];
        poll(&mut queue, limit.as_ref()).ok()?;
        let info = self.queue.read_signal().ok()??;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }
}

/// True if `signal` ends the process.
pub(super) fn ends(signal: Signal) -> bool {
    ENDING.contains(&signal)
}

const ENDING: &[Signal] = &[
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];
