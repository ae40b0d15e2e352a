//! A relay as a child process: this program, on the loopback interface.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rtpproxy_relay::client::{Client, ClientOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::flags::VARIABLE_PREFIX;

/// The process. It is killed if nobody stops it.
#[derive(Debug)]
pub(super) struct ChildRelay {
    child: Child,
    client: Client,
    recordings: PathBuf,
    errors: PathBuf,
}

impl ChildRelay {
    /// Starts it, with all its files in `folder`; `records`: it has a folder for recordings.
    pub(super) fn start(folder: &Path, records: bool, workers: Option<u32>) -> Result<Self, String> {
        let [socket, recordings, errors] = ["control", "recordings", "errors"].map(|name| folder.join(name));
        std::fs::create_dir(&recordings).map_err(|error| format!("{}: {error}", recordings.display()))?;
        let log = std::fs::File::create(&errors).map_err(|error| format!("{}: {error}", errors.display()))?;
        let mut command = this_program()?;
        command.args(["-f", "-F", "-l", "127.0.0.1", "-d", "WARN"]);
        command.arg("-s").arg(&socket).arg("-p").arg(folder.join("pid"));
        if records {
            command.arg("-r").arg(&recordings);
        }
        if let Some(workers) = workers {
            command.args(["--workers", &workers.to_string()]);
        }
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(VARIABLE_PREFIX.as_bytes()) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|error| format!("the relay cannot be started: {error}"))?;
        let address = format!("unix:{}", socket.display());
        let client =
            Client::connect(&address, ClientOptions::default()).map_err(|error| error.to_string())?;
        let mut relay = Self { child, client, recordings, errors };
        relay.await_answer(&socket)?;
        Ok(relay)
    }

    /// Its number.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Gives a command; an error reply is an error.
    pub(super) fn command(&mut self, text: &str) -> Result<String, String> {
        let reply = self
            .client
            .command(text.as_bytes(), None)
            .map_err(|error| self.with_its_words(&error.to_string()))?;
        let reply = String::from_utf8_lossy(&reply).trim_end().to_owned();
        if reply.is_empty() || reply.starts_with('E') {
            return Err(self.with_its_words(&format!("\"{text}\" was answered with \"{reply}\"")));
        }
        Ok(reply)
    }

    /// Gives a command that opens a port; returns the port.
    pub(super) fn media_port(&mut self, text: &str) -> Result<u16, String> {
        let reply = self.command(text)?;
        let port = reply.split_whitespace().next().and_then(|port| port.parse().ok());
        port.ok_or_else(|| format!("\"{text}\" was answered with \"{reply}\""))
    }

    /// One of its counters.
    pub(super) fn counter(&mut self, name: &str) -> Result<u64, String> {
        let reply = self.command(&format!("G {name}"))?;
        let value = reply.split_whitespace().next().and_then(|value| value.parse().ok());
        value.ok_or_else(|| format!("\"G {name}\" was answered with \"{reply}\""))
    }

    /// Waits until so many recordings are finished; returns how many packets they hold by their sidecars.
    pub(super) fn await_recordings(&mut self, calls: u32) -> Result<u64, String> {
        let patience = FINISH_MAX + FINISH_MAX_PER_CALL * calls;
        let deadline = Instant::now() + patience;
        loop {
            let sidecars = self.sidecars()?;
            if sidecars.len() >= calls as usize {
                return sidecars.iter().map(|path| packets_of(path)).sum();
            }
            if Instant::now() >= deadline {
                let done = sidecars.len();
                let text = format!("only {done} of {calls} recordings were finished after {patience:?}");
                return Err(self.with_its_words(&text));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Ends it.
    pub(super) fn stop(mut self) -> Result<(), String> {
        kill_process(self.pid(), Signal::TERM)
            .map_err(|error| format!("the relay cannot be stopped: {error}"))?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() {
            Ok(())
        } else {
            Err(self.with_its_words(&format!("the relay ended with {status}")))
        }
    }

    fn await_answer(&mut self, socket: &Path) -> Result<(), String> {
        let deadline = Instant::now() + START_MAX;
        while !socket.exists() || self.client.command(b"V", None).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.with_its_words(&format!("the relay ended with {status}")));
            }
            if Instant::now() >= deadline {
                return Err(self.with_its_words("the relay does not answer"));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn sidecars(&self) -> Result<Vec<PathBuf>, String> {
        let entries = std::fs::read_dir(&self.recordings).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(|error| format!("{}: {error}", self.recordings.display()))?;
        let paths = entries.iter().map(std::fs::DirEntry::path);
        Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect())
    }

    /// An error, with what the relay itself has to say.
    fn with_its_words(&self, text: &str) -> String {
        let words = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let last: Vec<_> = words.lines().rev().take(LINES_SHOWN).collect();
        last.iter().rfold(text.to_owned(), |text, line| format!("{text}\n  {line}"))
    }
}

impl Drop for ChildRelay {
    fn drop(&mut self) {
        // After `stop`, both fail, as they should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that runs this program again: the binary, or what Python was told to run.
fn this_program() -> Result<Command, String> {
    let words: Vec<OsString> = env::args_os().take_while(|word| word != "bench").collect();
    match words.split_first() {
        Some((python, script)) if !script.is_empty() => {
            let mut command = Command::new(python);
            command.args(script);
            Ok(command)
        }
        _ => Ok(Command::new(env::current_exe().map_err(|error| format!("where this program is: {error}"))?)),
    }
}

fn packets_of(sidecar: &Path) -> Result<u64, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{}: {error}", sidecar.display());
    let text = std::fs::read(sidecar).map_err(|error| unreadable(&error))?;
    let sidecar: serde_json::Value = serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
    sidecar["packets"].as_u64().ok_or_else(|| unreadable(&"there is no number of packets"))
}

const PAUSE: Duration = Duration::from_millis(20);
const START_MAX: Duration = Duration::from_secs(20);
/// How long the ends of all recordings may take, and for each call.
const FINISH_MAX: Duration = Duration::from_secs(30);
const FINISH_MAX_PER_CALL: Duration = Duration::from_millis(50);
const LINES_SHOWN: usize = 5;
