//! The real binary, run as an operator runs it.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Patience with a process on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The binary with a clean environment.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtpproxy"));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"RTPP") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the binary to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    binary().args(args).stdin(Stdio::null()).output().unwrap()
}

/// True if the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A folder of its own, with the arguments of a harmless relay that uses it.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.path("pid")
    }

    /// The binary with a control socket and a pid file in the folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = binary();
        command.args(["-F", "-l", "127.0.0.1", "--workers", "1"]).arg("-s").arg(self.socket());
        command.arg("-p").arg(self.pid_file()).args(args).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it in the foreground and waits until it answers.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::wait_for(self.command(args).arg("-f").spawn().unwrap(), self.socket())
    }
}

/// A relay in the foreground. Killed on drop.
pub(crate) struct Running {
    child: Child,
    socket: PathBuf,
}

impl Running {
    pub(crate) fn wait_for(child: Child, socket: PathBuf) -> Self {
        let mut running = Self { child, socket };
        until("the relay answers", || {
            assert!(running.child.try_wait().unwrap().is_none(), "it ended: {}", running.stderr());
            UnixStream::connect(&running.socket).is_ok()
        });
        assert_eq!(running.ask("V"), "20040107\n");
        running
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends one command and returns the reply.
    pub(crate) fn ask(&self, command: &str) -> String {
        ask(&self.socket, command)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    /// Waits for the end and returns the status and all of standard error.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let mut status = None;
        until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap(), self.stderr())
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text).unwrap();
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A relay in the background, by its pid file. Killed on drop.
pub(crate) struct Background(pub(crate) i32);

impl Background {
    pub(crate) fn from_pid_file(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        Self(text.strip_suffix('\n').expect("a line").parse().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(self.0, signal);
    }

    pub(crate) fn is_alive(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        // Nobody may be there to reap it.
        !status.is_empty() && !status.contains("State:\tZ")
    }

    pub(crate) fn wait_for_end(&self) {
        until("the daemon ends", || !self.is_alive());
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.is_alive() {
            self.signal(Signal::KILL);
        }
    }
}

/// Sends one command over a UNIX socket and returns the reply.
pub(crate) fn ask(socket: &Path, command: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(command.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn send_signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}
