//! Events as lines of JSON, to a UNIX socket or at the end of a file.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::Event;
use crate::work::Work;

/// Lines to one target, one after the other.
pub(super) struct Lines {
    path: PathBuf,
    output: Output,
    /// The log knows already that the target takes none.
    is_failing: bool,
}

enum Output {
    /// Connected, or not yet.
    Socket(Option<Socket>),
    /// Opened anew for each line, so that it may be moved away.
    File,
}

impl Lines {
    /// To whoever listens at `path`, now or later.
    pub(super) fn to_socket(path: PathBuf) -> Self {
        Self { path, output: Output::Socket(None), is_failing: false }
    }

    /// To the end of the file `path`, which is made if it is missing.
    pub(super) fn to_file(path: PathBuf) -> io::Result<Self> {
        open_for_append(&path)?;
        Ok(Self { path, output: Output::File, is_failing: false })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match &mut self.output {
            Output::File => append(&self.path, line),
            Output::Socket(connection) => {
                if let Some(socket) = connection
                    && send(socket, line).is_ok()
                {
                    return Ok(());
                }
                // A part of the line may be there: nothing can follow it on this connection.
                *connection = None;
                let socket = connect(&self.path)?;
                send(&socket, line)?;
                *connection = Some(socket);
                Ok(())
            }
        }
    }

    /// Delivers until the relay ends, and then what is left.
    pub(super) fn run(&mut self, work: &Work<Event>) {
        while let Some(event) = work.next() {
            if self.write_patiently(&event.line, work) {
                work.succeed(1);
            } else {
                // The target is no more likely to take the rest.
                work.lose(1 + work.waiting().count() as u64);
            }
            let lost = work.take_lost();
            if lost > 0 {
                tracing::error!("record events: {lost} for {} were lost", self.path.display());
            }
        }
    }

    /// Tries until it works; false if the relay ended first.
    fn write_patiently(&mut self, line: &[u8], work: &Work<Event>) -> bool {
        loop {
            let Err(error) = self.write(line) else {
                if std::mem::take(&mut self.is_failing) {
                    tracing::warn!("record events: {} takes them again", self.path.display());
                }
                return true;
            };
            if !std::mem::replace(&mut self.is_failing, true) {
                tracing::error!("record events: {}: {error}; they wait", self.path.display());
            }
            if work.ends_within(RETRY_AFTER) {
                return false;
            }
        }
    }
}

fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Bounds the connect too: it waits while the listener's backlog is full.
    socket.set_write_timeout(Some(WRITE_PATIENCE))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn send(socket: &Socket, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match socket.send_with_flags(line, libc::MSG_NOSIGNAL) {
            Ok(sent) => line = &line[sent..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut file = open_for_append(path)?;
    let len = file.metadata()?.len();
    file.write_all(line).inspect_err(|_| {
        // A torn line would spoil the next one too. What hinders writing does not hinder this.
        let _ = file.set_len(len);
    })
}

fn open_for_append(path: &Path) -> io::Result<File> {
    // A pipe without a reader must be an error, not a wait.
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK).open(path)
}

/// After a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a listener may take for a line.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);
