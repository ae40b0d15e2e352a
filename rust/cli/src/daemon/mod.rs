//! The process around the relay: its start, its signals, its end.
//!
//! What can fail for want of rights or of a free address comes while the operator still watches: modules are
//! opened and control sockets bound first, then the process goes to the background; log, nice level, pid file, less rights,
//! threads; at last the pid is written and the starting process may end.

mod pid_file;
mod signals;
mod sys;

use std::thread;
use std::time::Duration;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use rtpproxy_relay::config::ControlSpec;
use rtpproxy_relay::control::{self, Bound, SocketOptions};
use rtpproxy_relay::modules::Modules;
use rtpproxy_relay::{Relay, RelayHandle};

use crate::complain;
use crate::identity::Identity;
use crate::logging::{self, Flush, LineClock, Syslog, Targets};
use crate::settings::{Note, ProcessSettings, Settings};
use pid_file::PidFile;
use signals::Signals;

/// Runs the relay until a signal or the end of a slow shutdown; gives back the exit status.
///
/// In the background the calling process ends inside, and the one that returns is its child.
///
/// # Errors
/// What hindered the start, for the operator.
pub(crate) fn serve(settings: Settings) -> Result<i32, String> {
    let process = &settings.process;
    if let Some(warning) = guard_root(process, &settings.control)? {
        complain(&warning);
    }
    limit_open_files(process.open_files)?;
    let modules = Modules::open(&settings.relay.modules, settings.relay.resolve_names)
        .map_err(|error| error.to_string())?;
    let bound =
        control::bind(&settings.control, &socket_options(process)).map_err(|error| error.to_string())?;
    let starter = if process.foreground {
        None
    } else {
        match sys::enter_background(process.chdir) {
            Ok(starter) => Some(starter),
            Err(error) => {
                control::discard(bound);
                return Err(format!("can't go to the background: {error}"));
            }
        }
    };
    let (running, flush) = Running::start(settings, bound, modules)?;
    if let Some(starter) = starter {
        starter.release(running.redirect).map_err(|error| format!("can't leave the terminal: {error}"))?;
    }
    let status = running.attend();
    drop(flush);
    Ok(status)
}

/// The started relay with what belongs to its process.
struct Running {
    relay: Relay,
    signals: Signals,
    pid_file: Option<PidFile>,
    redirect: bool,
    /// The end of standard input may begin the slow shutdown.
    stdio: bool,
}

impl Running {
    fn start(settings: Settings, bound: Vec<Bound>, modules: Modules) -> Result<(Self, Flush), String> {
        let Settings { relay: config, control, process, notes } = settings;
        let start = || {
            // Blocked before any thread exists: all of them inherit it.
            let signals = Signals::block().map_err(|error| format!("can't receive signals: {error}"))?;
            set_nice(process.nice)?;
            let flush = start_log(&process)?;
            for note in &notes {
                note.log();
            }
            let pid_file = PidFile::open(&process.pid_file)
                .inspect_err(|error| {
                    tracing::error!(%error, "can't open the pid file {}", process.pid_file.display());
                })
                .unwrap_or(None);
            if let Some(identity) = &process.identity {
                give_up_root(identity, process.scheduling.is_some())?;
            }
            allow_core_dumps();
            Ok((signals, flush, pid_file))
        };
        let (signals, flush, mut pid_file) = match start() {
            Ok(started) => started,
            Err(error) => {
                control::discard(bound);
                return Err(error);
            }
        };
        let relay = Relay::start_with(config, bound, modules).map_err(|error| {
            tracing::error!(crit = true, "the relay cannot start: {error}");
            error.to_string()
        })?;
        if let Some(file) = &mut pid_file {
            file.write();
        }
        tracing::info!("rtpproxy {} started, pid {}", env!("CARGO_PKG_VERSION"), std::process::id());
        let stdio = control.iter().any(|spec| matches!(spec, ControlSpec::Stdio { .. }));
        Ok((Self { relay, signals, pid_file, redirect: process.redirect, stdio }, flush))
    }

    fn attend(self) -> i32 {
        self.wait_for_end();
        let Self { relay, signals, pid_file, .. } = self;
        let ending = thread::spawn(move || relay.shutdown());
        while !ending.is_finished() {
            if let Some(signal) = signals.next(Some(ENDING_POLL))
                && signals::ends(signal)
            {
                std::process::exit(128 + signal as i32);
            }
        }
        drop(pid_file);
        tracing::info!("rtpproxy ended");
        0
    }

    /// Returns on a signal that ends the process, or when the slow shutdown has come to its end.
    fn wait_for_end(&self) {
        let handle = self.relay.handle();
        loop {
            if drained(&handle) {
                tracing::info!("no session is left: ending");
                return;
            }
            let limit = (self.stdio || handle.is_draining()).then_some(DRAINING_POLL);
            match self.signals.next(limit) {
                Some(Signal::SIGHUP) => {
                    tracing::info!("got SIGHUP: no new sessions, ending with the last one");
                    handle.drain();
                }
                Some(signal) if signals::ends(signal) => {
                    tracing::info!("got {signal}: ending");
                    return;
                }
                _ => {}
            }
        }
    }
}

impl Note {
    fn log(&self) {
        match self {
            Self::Info(text) => tracing::info!("{text}"),
            Self::Warn(text) => tracing::warn!("{text}"),
        }
    }
}

fn drained(handle: &RelayHandle) -> bool {
    handle.is_draining() && handle.active_sessions() == 0
}

/// Root must be meant: a UDP control socket hands the rights of root to anyone who can reach it.
///
/// # Errors
/// So it would be here. Without such a socket there is a warning, if root is not meant.
pub(crate) fn guard_root(
    process: &ProcessSettings,
    control: &[ControlSpec],
) -> Result<Option<String>, String> {
    if !rustix::process::getuid().is_root() || process.identity.is_some() || process.allow_root {
        return Ok(None);
    }
    if control.iter().any(|spec| matches!(spec, ControlSpec::Udp(_))) {
        return Err("a UDP control socket as root is refused: use -u to give up root, or -F to insist".into());
    }
    Ok(Some("warning: running as root; use -u to give it up, or -F to do without this warning".into()))
}

fn limit_open_files(limit: Option<u64>) -> Result<(), String> {
    let Some(limit) = limit else { return Ok(()) };
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)
        .map_err(|error| format!("can't limit open files to {limit}: {}", error.desc()))
}

fn socket_options(process: &ProcessSettings) -> SocketOptions {
    let identity = process.identity.as_ref();
    let named_group = identity.is_some_and(Identity::group_is_named);
    SocketOptions {
        uid: identity.and_then(Identity::uid),
        gid: identity.map(Identity::gid),
        mode: Some(process.socket_mode).filter(|mode| named_group && *mode != 0),
    }
}

fn start_log(process: &ProcessSettings) -> Result<Flush, String> {
    let stderr = process.foreground || !process.redirect;
    let syslog = (!process.foreground).then(|| Syslog::new(process.log_facility));
    if let Err(error) = sys::report_crashes(stderr, syslog.as_ref()) {
        complain(&format!("warning: crashes will not be logged: {error}"));
    }
    let form = std::env::var("RTPP_LOG_TFORM").ok();
    let clock = LineClock::from_env(form.as_deref(), std::env::var("RTPP_LOG_TSTART").ok().as_deref());
    logging::start(process.log_level, clock, Targets { stderr, syslog })
}

fn set_nice(level: Option<i32>) -> Result<(), String> {
    let Some(level) = level else { return Ok(()) };
    rustix::process::setpriority_process(None, level)
        .map_err(|error| format!("can't set the nice level to {level}: {error}"))
}

fn give_up_root(identity: &Identity, realtime: bool) -> Result<(), String> {
    if realtime {
        // The workers ask for real-time scheduling when root is gone already; this keeps it allowed.
        if let Err(error) = setrlimit(Resource::RLIMIT_RTPRIO, PRIORITY_MAX, PRIORITY_MAX) {
            tracing::error!("can't keep the right to real-time scheduling: {}", error.desc());
        }
    }
    identity.assume().map_err(|error| format!("can't give up root: {}", error.desc()))
}

fn allow_core_dumps() {
    let unlimited = setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY);
    // Without root only the soft limit can be raised.
    let raised = unlimited.or_else(|_| {
        let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
        setrlimit(Resource::RLIMIT_CORE, hard, hard)
    });
    if let Err(error) = raised {
        tracing::warn!("can't allow core dumps: {}", error.desc());
    }
}

/// How often a slow shutdown looks whether sessions are left.
const DRAINING_POLL: Duration = Duration::from_millis(100);
/// How often the end looks whether it is complete.
const ENDING_POLL: Duration = Duration::from_millis(10);
/// The highest real-time priority of Linux (sched(7)).
const PRIORITY_MAX: u64 = 99;
