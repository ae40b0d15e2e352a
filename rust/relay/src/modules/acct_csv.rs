//! `acct_csv`: a line in a CSV file for each session that ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::gethostname;
use rtpproxy_core::accounting::{Node, SessionEnd, csv_header, write_csv};

use crate::work::{ThreadKind, Work, WorkQueue, WorkThread, start};

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct AcctCsv {
    path: PathBuf,
    file: File,
    node: Node,
    /// The log knows already that the file cannot be written.
    failing: bool,
    /// The log knows already that the file was moved away and no other can be made.
    misplaced: bool,
}

impl AcctCsv {
    /// Opens the file or makes it, with its header. An absolute path stays right when the process changes its
    /// working directory.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let name = gethostname()?.to_string_lossy().into_owned();
        let node = Node { name, pid: std::process::id() };
        let file = open_for_append(path)?;
        let mut account = Self { path: path.to_owned(), file, node, failing: false, misplaced: false };
        account.append(b"")?;
        Ok(account)
    }

    /// Starts the thread that writes.
    pub(super) fn start(mut self) -> io::Result<(WorkQueue<SessionEnd>, WorkThread)> {
        // The process that opened the file may have been the one that stayed in the foreground.
        self.node.pid = std::process::id();
        start(THREAD, move |work| self.run(work))
    }

    fn run(&mut self, work: &Work<SessionEnd>) {
        let mut lines = Vec::new();
        while let Some(end) = work.next() {
            lines.clear();
            write_csv(&self.node, &end, &mut lines);
            let mut count = 1;
            for end in work.waiting().take(LINES_AT_ONCE - 1) {
                write_csv(&self.node, &end, &mut lines);
                count += 1;
            }
            if self.append_patiently(&lines, work) {
                work.succeed(count);
            } else {
                work.lose(count);
            }
            let lost = work.take_lost();
            if lost > 0 {
                tracing::error!("acct_csv: {lost} lines for {} were lost", self.path.display());
            }
        }
    }

    /// Tries until it works; false if the relay ended first.
    fn append_patiently(&mut self, lines: &[u8], work: &Work<SessionEnd>) -> bool {
        loop {
            let Err(error) = self.append(lines) else {
                if std::mem::take(&mut self.failing) {
                    tracing::warn!("acct_csv: {} can be written again", self.path.display());
                }
                return true;
            };
            if !std::mem::replace(&mut self.failing, true) {
                tracing::error!("acct_csv: can't write {}: {error}; lines wait", self.path.display());
            }
            if work.ends_within(RETRY_AFTER) {
                return false;
            }
        }
    }

    /// Writes lines behind the last one: all of them, or none.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.follow_the_name()?;
        let lock = Lock::take(&self.file)?;
        let size = self.file.metadata()?.len();
        let header = if size == 0 { csv_header() } else { String::new() };
        let written = (&self.file).write_all(&[header.as_bytes(), lines].concat());
        if written.is_err() {
            // A torn line would spoil the next one too. What hinders writing does not hinder this.
            let _ = self.file.set_len(size);
        }
        drop(lock);
        written
    }

    /// Opens the file anew if another one has its name, or none.
    fn follow_the_name(&mut self) -> io::Result<()> {
        let own = self.file.metadata()?;
        if fs::metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
            return Ok(());
        }
        match open_for_append(&self.path) {
            Ok(file) => {
                self.file = file;
                self.misplaced = false;
            }
            // A process that gave up its rights may not make files here: rather in the old file than nowhere.
            Err(error) if own.nlink() > 0 => {
                if !std::mem::replace(&mut self.misplaced, true) {
                    tracing::error!(
                        "acct_csv: can't open {} again: {error}; lines go to the file that had its name",
                        self.path.display()
                    );
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn open_for_append(path: &Path) -> io::Result<File> {
    // Opening a FIFO would wait for a reader otherwise.
    OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// The lock that writers hold (fcntl(2)): of everything behind the end of the file. It belongs to the open file,
/// so that two relays in one process keep out of each other's way too.
struct Lock<'a>(&'a File);

impl<'a> Lock<'a> {
    /// Takes it, as soon as no other writer has it.
    fn take(file: &'a File) -> io::Result<Self> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        let wanted = region(libc::F_WRLCK, libc::SEEK_END);
        loop {
            match fcntl(file, FcntlArg::F_OFD_SETLK(&wanted)) {
                Ok(_) => return Ok(Self(file)),
                Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < deadline => {
                    thread::sleep(LOCK_RETRY_AFTER);
                }
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    return Err(io::Error::new(ErrorKind::WouldBlock, "another writer holds its lock"));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // The end has moved since: all that is locked begins before it.
        let _ = fcntl(self.0, FcntlArg::F_OFD_SETLK(&region(libc::F_UNLCK, libc::SEEK_SET)));
    }
}

fn region(kind: i32, whence: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: whence as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

const THREAD: ThreadKind = ThreadKind {
    name: "acct-csv",
    // A line takes about half a kilobyte.
    queue_max: 16_384,
    end_patience: Duration::from_secs(10),
    too_late: "acct_csv: the disk does not answer: lines are lost",
};
/// Lines that are written, and may be lost, together.
const LINES_AT_ONCE: usize = 256;
/// After a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long another writer may hold the lock before that is a failure.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How often the lock is tried.
const LOCK_RETRY_AFTER: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rtpproxy_core::accounting::{LegEnd, PipeEnd};
    use rtpproxy_core::time::Wall;

    use super::*;

    fn end(call_id: &str) -> Arc<SessionEnd> {
        Arc::new(SessionEnd {
            uid: 1,
            call_id: call_id.into(),
            from_tag: "f".into(),
            setup: Wall(0),
            teardown: Wall(0),
            rtp: PipeEnd::default(),
            rtcp: PipeEnd::default(),
            callee: LegEnd::default(),
            caller: LegEnd::default(),
        })
    }

    /// The call-ids in the file, behind its one header.
    fn calls(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.strip_prefix(&csv_header()).expect("a header").lines();
        lines.map(|line| line.split(',').nth(4).unwrap().to_owned()).collect()
    }

    fn write(account: &mut AcctCsv, call_id: &str) -> io::Result<()> {
        let mut line = Vec::new();
        write_csv(&account.node, &end(call_id), &mut line);
        account.append(&line)
    }

    #[test]
    fn what_is_queued_is_written_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acct.csv");
        let (queue, thread) = AcctCsv::open(&path).unwrap().start().unwrap();
        let ids: Vec<String> = (0..1000).map(|number| format!("call-{number}")).collect();
        for id in &ids {
            queue.add(end(id));
        }
        // A way into the queue that is still there holds nothing up.
        drop(thread);
        assert_eq!(calls(&path), ids);
    }

    #[test]
    fn lines_are_added_to_a_file_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acct.csv");
        for id in ["a", "b"] {
            write(&mut AcctCsv::open(&path).unwrap(), id).unwrap();
        }
        assert_eq!(calls(&path), ["a", "b"]);
    }

    #[test]
    fn a_file_that_was_moved_removed_or_emptied_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acct.csv");
        let moved = folder.path().join("acct.csv.1");
        let mut account = AcctCsv::open(&path).unwrap();
        write(&mut account, "a").unwrap();
        fs::rename(&path, &moved).unwrap();
        write(&mut account, "b").unwrap();
        assert_eq!((calls(&moved), calls(&path)), (vec!["a".to_owned()], vec!["b".to_owned()]));
        fs::remove_file(&path).unwrap();
        write(&mut account, "c").unwrap();
        assert_eq!(calls(&path), ["c"]);
        File::create(&path).unwrap();
        write(&mut account, "d").unwrap();
        assert_eq!(calls(&path), ["d"]);
    }

    #[test]
    fn without_a_new_file_lines_go_to_the_moved_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inner/acct.csv");
        let moved = folder.path().join("moved");
        fs::create_dir(folder.path().join("inner")).unwrap();
        let mut account = AcctCsv::open(&path).unwrap();
        fs::rename(folder.path().join("inner"), &moved).unwrap();
        write(&mut account, "a").unwrap();
        assert_eq!(calls(&moved.join("acct.csv")), ["a"]);
        fs::remove_dir_all(&moved).unwrap();
        assert_eq!(write(&mut account, "b").unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir(folder.path().join("inner")).unwrap();
        write(&mut account, "c").unwrap();
        assert_eq!(calls(&path), ["c"]);
    }

    #[test]
    fn writers_in_one_process_wait_for_each_other_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acct.csv");
        let (one, mut other) = (AcctCsv::open(&path).unwrap(), AcctCsv::open(&path).unwrap());
        let lock = Lock::take(&one.file).unwrap();
        assert_eq!(write(&mut other, "a").unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(lock);
        write(&mut other, "a").unwrap();
        assert_eq!(calls(&path), ["a"]);
    }

    #[test]
    fn nothing_is_locked_between_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acct.csv");
        let mut account = AcctCsv::open(&path).unwrap();
        write(&mut account, "a").unwrap();
        let own = format!(":{} ", account.file.metadata().unwrap().ino());
        let locks = fs::read_to_string("/proc/locks").unwrap();
        assert!(!locks.lines().any(|line| line.contains("WRITE") && line.contains(&own)), "{locks}");
    }

    #[test]
    fn a_disk_that_fails_is_tried_until_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acct.csv");
        let mut account = AcctCsv::open(&path).unwrap();
        // Appends to a file that is open for reading fail, whoever runs the test.
        account.file = File::open(&path).unwrap();
        let work = Work::ended();
        assert!(!account.append_patiently(b"line\n", &work));
        assert!(account.failing);
        account.file = open_for_append(&path).unwrap();
        assert!(account.append_patiently(b"line\n", &work));
        assert!(!account.failing);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(AcctCsv::open(&folder.path().join("none/acct.csv")).is_err());
        assert!(AcctCsv::open(folder.path()).is_err());
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(AcctCsv::open(&fifo).unwrap_err().raw_os_error(), Some(libc::ENXIO));
    }
}
