//! The calls of the kernel that Rust cannot check: fork(2) and signal handlers. All `unsafe` of this crate is
//! here, since no safe crate offers either.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{IntoRawFd, RawFd};
use std::process;
use std::sync::OnceLock;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::logging::{Level, Syslog};

/// The way to tell the process that started the daemon that it runs. Dropping it tells that it does not.
pub(super) struct Starter {
    ready: io::PipeWriter,
}

/// Leaves the terminal: what returns is a new process in a session of its own, in `/` if `chdir` says so.
///
/// The calling process waits inside until [`Starter::release`] and ends with status 0, or with 1 if the new
/// one ends first. It must have one thread only.
///
/// # Errors
/// There can be no new process.
pub(super) fn enter_background(chdir: bool) -> io::Result<Starter> {
    let (mut readiness, ready) = io::pipe()?;
    // SAFETY: no other thread runs yet that could hold a lock: the log, the relay and its runtime are started
    // by the child. A process that called this with threads of its own (an embedding interpreter) leaves them
    // behind; the child touches nothing of theirs.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(ready);
            process::exit(await_child(&mut readiness, child));
        }
        ForkResult::Child => {
            drop(readiness);
            rustix::process::setsid()?;
            if chdir {
                std::env::set_current_dir("/")?;
            }
            Ok(Starter { ready })
        }
    }
}

fn await_child(readiness: &mut io::PipeReader, child: Pid) -> i32 {
    if readiness.read_exact(&mut [0]).is_ok() {
        return 0;
    }
    // It has said what is wrong; a signal leaves no words.
    if let Ok(WaitStatus::Signaled(_, signal, _)) = waitpid(child, None) {
        crate::complain(&format!("the daemon was killed at start: {signal}"));
    }
    1
}

impl Starter {
    /// Gives up standard input, also standard output and error if `redirect` says so, and lets the calling
    /// process end.
    pub(super) fn release(mut self, redirect: bool) -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        if redirect {
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&null)?;
        }
        self.ready.write_all(&[1])
    }
}

/// From now on a signal that means a crash leaves a line in the log before it ends the process.
///
/// # Errors
/// A handler cannot be set.
pub(super) fn report_crashes(stderr: bool, syslog: Option<&Syslog>) -> io::Result<()> {
    let mut reports = Vec::new();
    let syslog = syslog.and_then(|syslog| Some((syslog, syslog.connect()?.into_raw_fd())));
    for signal in CRASHES {
        let text = format!("{}:GLOBAL:sys:{}: got {signal}: the process dies", Level::Crit.name(), line!());
        if stderr {
            reports.push((*signal as i32, libc::STDERR_FILENO, format!("{text}\n").into_bytes()));
        }
        if let Some((syslog, socket)) = syslog {
            reports.push((*signal as i32, socket, syslog.datagram_now(Level::Crit, &text).into_bytes()));
        }
    }
    if REPORTS.set(reports).is_err() {
        return Err(io::Error::other("crashes are reported already"));
    }
    let flags = SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::Handler(die), flags, SigSet::empty());
    for signal in CRASHES {
        // SAFETY: `die` calls only functions that are safe in a signal handler and touches nothing that
        // another thread writes: the reports were set before and never change.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(())
}

/// Writes the lines made before, then dies of the same signal: its default action is restored on entry.
extern "C" fn die(signal: libc::c_int) {
    for (number, target, line) in REPORTS.get().into_iter().flatten() {
        if *number == signal && takes_a_line(*target) {
            // SAFETY: the range lies in a vector that lives as long as the process, and write(2) may be called
            // in a signal handler; a failure leaves nothing to be done.
            let _ = unsafe { libc::write(*target, line.as_ptr().cast(), line.len()) };
        }
    }
    // SAFETY: raise(3) may be called in a signal handler.
    unsafe { libc::raise(signal) };
}

/// Whether a write there returns soon. Where nobody reads, a process that crashed would stay for ever.
fn takes_a_line(target: RawFd) -> bool {
    let mut wanted = libc::pollfd { fd: target, events: libc::POLLOUT, revents: 0 };
    // SAFETY: the one entry lives as long as the call, and poll(2) may be called in a signal handler.
    let ready = unsafe { libc::poll(&raw mut wanted, 1, CRASH_PATIENCE_MS) };
    ready == 1 && wanted.revents & libc::POLLOUT != 0
}

/// Signal, descriptor, and the line to write there.
static REPORTS: OnceLock<Vec<(i32, RawFd, Vec<u8>)>> = OnceLock::new();

/// How long a line about a crash waits for its reader.
const CRASH_PATIENCE_MS: libc::c_int = 100;

const CRASHES: &[Signal] = &[
    Signal::SIGQUIT,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGFPE,
    Signal::SIGBUS,
    Signal::SIGSEGV,
    Signal::SIGSYS,
];
