//! The system's log: datagrams to `/dev/log`, as syslog(3) sends them.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Local};

use super::level::{Facility, Level};

/// A connection to the system's log that is made when the first line comes, and again when it broke.
#[derive(Debug)]
pub(crate) struct Syslog {
    facility: Facility,
    path: PathBuf,
    /// Where lines go when nobody listens.
    console: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    /// The log of this machine.
    pub(crate) fn new(facility: Facility) -> Self {
        Self { facility, path: "/dev/log".into(), console: "/dev/console".into(), socket: None }
    }

    /// A connection of its own, for a line that cannot wait for the writing thread.
    pub(crate) fn connect(&self) -> Option<UnixDatagram> {
        connect(&self.path)
    }

    /// A line as it is sent.
    pub(crate) fn datagram_now(&self, level: Level, text: &str) -> String {
        self.datagram(level, text, Local::now())
    }

    pub(super) fn write(&mut self, level: Level, text: &str) {
        let datagram = self.datagram_now(level, text);
        // The logging daemon may have been restarted: one more try on a fresh connection.
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = self.connect();
            }
            match &self.socket {
                Some(socket) if socket.send(datagram.as_bytes()).is_ok() => return,
                _ => self.socket = None,
            }
        }
        let console = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(&self.console);
        if let Ok(mut console) = console {
            // The last resort failed too: the line is lost.
            let _ = console.write_all(format!("rtpproxy[{}]: {text}\r\n", std::process::id()).as_bytes());
        }
    }

    fn datagram(&self, level: Level, text: &str, at: DateTime<Local>) -> String {
        let priority = self.facility.0 << 3 | level.severity();
        format!("<{priority}>{} rtpproxy[{}]: {text}", at.format("%b %e %H:%M:%S"), std::process::id())
    }
}

fn connect(path: &Path) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(path).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    #[test]
    fn a_datagram_has_priority_time_and_process() {
        let syslog = Syslog::new(Facility::parse("LOCAL1").unwrap());
        let at = Local.with_ymd_and_hms(2026, 1, 2, 3, 4, 5).unwrap();
        let expected = format!("<139>Jan  2 03:04:05 rtpproxy[{}]: text", std::process::id());
        assert_eq!(syslog.datagram(Level::Err, "text", at), expected);
    }

    #[test]
    fn lines_arrive_also_after_the_log_was_restarted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut syslog = Syslog {
            facility: Facility::default(),
            path: path.clone(),
            console: folder.path().join("console"),
            socket: None,
        };
        let mut buffer = [0; 256];
        for text in ["one", "two"] {
            let _ = std::fs::remove_file(&path);
            let listener = UnixDatagram::bind(&path).unwrap();
            syslog.write(Level::Info, text);
            let length = listener.recv(&mut buffer).unwrap();
            let line = std::str::from_utf8(&buffer[..length]).unwrap();
            assert!(line.starts_with("<30>") && line.ends_with(text), "{line}");
        }
    }

    #[test]
    fn without_a_listener_lines_go_to_the_console() {
        let folder = tempfile::tempdir().unwrap();
        let console = folder.path().join("console");
        std::fs::write(&console, "").unwrap();
        let mut syslog = Syslog {
            facility: Facility::default(),
            path: folder.path().join("log"),
            console: console.clone(),
            socket: None,
        };
        syslog.write(Level::Crit, "alone");
        assert!(std::fs::read_to_string(&console).unwrap().contains("alone"));
    }
}
