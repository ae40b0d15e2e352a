//! A thread that works on a disk in place of the recorder, which waits for it only so long.
//!
//! With a second folder to go to, a disk that stands still must not keep the recorder: what it is asked to write may be
//! written later, or never, and the recording goes on elsewhere.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::seal::Seal;
use super::writer::Storage;

/// The thread; it ends when the last clone is gone.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    work: Sender<Work>,
    /// It has not finished what it was given.
    is_busy: Arc<AtomicBool>,
}

impl Disk {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        // It is given one thing at a time.
        let (work, works): (_, Receiver<Work>) = bounded(1);
        thread::Builder::new().name("recorder-disk".to_owned()).spawn(move || {
            for work in works {
                work();
            }
        })?;
        Ok(Self { work, is_busy: Arc::default() })
    }

    /// Lets the thread do something. What comes of it after more than a second goes to `undo`.
    ///
    /// # Errors
    /// Those of `work`, and [`io::ErrorKind::TimedOut`] if it takes too long: it may be done later. Until then each
    /// call has this error, at once.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) -> io::Result<T> {
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return Err(no_answer());
        }
        let is_busy = Arc::clone(&self.is_busy);
        // Without room in the channel, an answer is either received or undone.
        let (reply, answer) = bounded(0);
        let work = move || {
            let outcome = work();
            is_busy.store(false, Ordering::Release);
            if let Err(late) = reply.send(outcome)
                && let Ok(late) = late.into_inner()
            {
                undo(late);
            }
        };
        self.work.send(Box::new(work)).map_err(|_| no_answer())?;
        answer.recv_timeout(ANSWER_MAX).unwrap_or_else(|_| Err(no_answer()))
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// A file that is written by the recorder, or by a thread in its place.
#[derive(Debug)]
pub(super) struct RecordFile {
    /// Others hold it only while they write to it.
    pub(super) file: Arc<File>,
    /// The thread.
    pub(super) disk: Option<Disk>,
    /// What is written is encrypted.
    pub(super) seal: Option<Seal>,
}

impl RecordFile {
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(disk) = &self.disk else { return work(&self.file) };
        let file = Arc::clone(&self.file);
        disk.run(move || work(&file), drop)
    }
}

impl Storage for RecordFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.disk.is_none() {
            return append(&self.file, bytes);
        }
        let bytes = bytes.to_owned();
        self.run(move |file| append(file, &bytes))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.run(move |file| file.set_len(len))
    }

    fn is_removed(&self) -> bool {
        self.run(is_removed).unwrap_or(false)
    }

    fn seal(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        Some(self.seal.as_mut()?.seal(plain))
    }

    fn sealed_is_written(&mut self) {
        if let Some(seal) = &mut self.seal {
            seal.written();
        }
    }
}

fn append(mut file: &File, bytes: &[u8]) -> io::Result<usize> {
    if is_removed(file)? {
        return Err(io::Error::new(io::ErrorKind::NotFound, REMOVED));
    }
    file.write(bytes)
}

fn is_removed(file: &File) -> io::Result<bool> {
    Ok(rustix::fs::fstat(file)?.st_nlink == 0)
}

/// The error of a disk that takes too long.
pub(super) fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer")
}

/// Why what was in a file is missing.
pub(super) const REMOVED: &str = "the file was removed";
/// How long a disk may take.
const ANSWER_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_stands_still_keeps_nobody_and_what_is_late_is_undone() {
        let disk = Disk::start().unwrap();
        assert_eq!(disk.run(|| Ok(1), drop).unwrap(), 1);
        let (thaw, frozen) = bounded::<()>(0);
        let (undone, late) = bounded(1);
        let stuck = disk.run(
            move || {
                let _ = frozen.recv();
                Ok(2)
            },
            move |value| undone.send(value).unwrap(),
        );
        assert_eq!(stuck.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(disk.run(|| Ok(3), drop).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(thaw);
        assert_eq!(late.recv().unwrap(), 2);
        assert_eq!(disk.run(|| Ok(4), drop).unwrap(), 4);
    }
}
