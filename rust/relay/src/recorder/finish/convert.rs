//! Compressing and encrypting ended recordings: from the file that was written to another one.
//!
//! A thread of its own does it with low priority, one file after the other, so that recordings that need none of it do
//! not wait. The new file and the sidecar are on the disk before the old one goes; only then does the finisher give it
//! its name. Whatever goes wrong before that, the old file is finished as it is, so nothing is lost by it. After a
//! crash, a new file that has its old one beside it, and no sidecar, counts as not complete.
//!
//! A file that was encrypted while it was written is decrypted on the way, in memory, and encrypted as a file of age.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use age::stream::StreamWriter;
use crossbeam_channel::{Receiver, Sender, unbounded};
use rtpproxy_core::compression::Compressor;
use rtpproxy_core::file_name::{Compression, Encryption, FileName};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::super::files::{file_mode, part_name};
use super::super::sidecar::hex;
use super::{Closed, Content, Job, Source};
use crate::config::{Recipients, RecordConfig};

/// The way to the thread. When it is dropped, the thread ends soon: what it cannot convert in a few seconds stays as
/// it was written.
#[derive(Debug)]
pub(in crate::recorder) struct Converter {
    queue: Sender<Job>,
    converted: Receiver<Job>,
    end: Arc<OnceLock<Instant>>,
    figures: Arc<Conversions>,
}

impl Converter {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(in crate::recorder) fn start(
        recipe: Recipe,
        figures: &Arc<Conversions>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, jobs) = unbounded();
        let (done, converted) = unbounded();
        let end = Arc::default();
        let worker = Worker { recipe, end: Arc::clone(&end), figures: Arc::clone(figures) };
        let thread = thread::Builder::new()
            .name("recorder-convert".to_owned())
            .spawn(move || worker.run(&jobs, &done))?;
        Ok((Self { queue, converted, end, figures: Arc::clone(figures) }, thread))
    }

    /// Where recordings come back, converted or as they were.
    pub(super) fn converted(&self) -> &Receiver<Job> {
        &self.converted
    }

    /// Lets a recording wait for the thread. It is given back if that has ended.
    pub(super) fn give(&self, mut job: Job) -> Option<Job> {
        if self.queue.len() >= OPEN_MAX {
            // Each takes a descriptor that calls may need. They are locked again when it is their turn.
            job.files.iter_mut().for_each(|closed| closed.file = None);
        }
        self.figures.waiting.fetch_add(1, Ordering::Relaxed);
        let refused = self.queue.send(job).err()?;
        self.figures.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(Job { is_settled: true, ..refused.into_inner() })
    }
}

impl Drop for Converter {
    fn drop(&mut self) {
        // It is set here only.
        let _ = self.end.set(Instant::now() + END_MAX);
    }
}

/// What files are converted to.
#[derive(Clone, Debug)]
pub(in crate::recorder) struct Recipe {
    compression: Option<Compression>,
    /// For whom they are encrypted.
    recipients: Option<Recipients>,
}

impl Recipe {
    /// That of `config`; `None` if files stay as they were written.
    pub(in crate::recorder) fn of(config: &RecordConfig) -> Option<Self> {
        let (compression, recipients) = (config.compress, config.encrypt.clone());
        (compression.is_some() || recipients.is_some()).then_some(Self { compression, recipients })
    }

    /// What that adds to a name.
    fn envelope(&self) -> String {
        let compression = self.compression.map_or("", Compression::suffix);
        let encryption = self.recipients.as_ref().map_or("", |_| Encryption::Age.suffix());
        [compression, encryption].concat()
    }
}

/// Figures of conversions.
#[derive(Debug, Default)]
pub(in crate::recorder) struct Conversions {
    /// Recordings that wait, or are being converted.
    pub(in crate::recorder) waiting: AtomicU64,
    /// Recordings that were converted.
    pub(in crate::recorder) done: AtomicU64,
    /// Recordings that were not, and are finished as they were written.
    pub(in crate::recorder) failed: AtomicU64,
}

struct Worker {
    recipe: Recipe,
    /// When the relay ends, without waiting for more.
    end: Arc<OnceLock<Instant>>,
    figures: Arc<Conversions>,
}

impl Worker {
    fn run(&self, jobs: &Receiver<Job>, done: &Sender<Job>) {
        // Of this thread alone. Without permission it works as fast as the others.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        for mut job in jobs {
            let outcome = self.convert(&mut job);
            job.is_settled = true;
            let counter = match outcome {
                Ok(()) => &self.figures.done,
                Err(error) => {
                    let call_id = job.call_id.as_ref().map(tracing::field::display);
                    warn!(call_id, file = %job.path().display(), "recording is kept as it was written: {error}");
                    job.sidecar.not_converted = Some(error.to_string());
                    &self.figures.failed
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
            self.figures.waiting.fetch_sub(1, Ordering::Relaxed);
            // The finisher waits for us.
            let _ = done.send(job);
        }
    }

    /// Puts new files in the place of those of the recording. After an error they are as they were.
    fn convert(&self, job: &mut Job) -> io::Result<()> {
        let is_spooled = !Arc::ptr_eq(&job.spool, &job.target);
        if is_spooled {
            // Empty since the start of the recording, the folder may have been removed.
            job.target = job.target.renewed()?;
        }
        let mut made = Vec::with_capacity(job.files.len());
        let outcome = (0..job.files.len())
            .try_for_each(|index| {
                made.push(self.convert_file(job, index)?);
                Ok(())
            })
            .and_then(|()| job.target.sync());
        if let Err(error) = outcome {
            for new in made.iter().flatten() {
                // The first error tells more than one of cleaning up.
                let _ = job.target.remove(&new.part);
            }
            return Err(error);
        }
        for (closed, new) in job.files.iter_mut().zip(made) {
            if let Some(new) = new {
                *closed = new;
            }
        }
        if is_spooled && job.files.iter().all(|closed| closed.content.is_some()) {
            job.spool = Arc::clone(&job.target);
        }
        Ok(())
    }

    /// Makes the new file for one of the recording; none if that is what it should be.
    fn convert_file(&self, job: &Job, index: usize) -> io::Result<Option<Closed>> {
        let closed = &job.files[index];
        if closed.content.is_some() || is_locked(closed) {
            return Ok(None);
        }
        let lock = match &closed.file {
            Some(file) => Arc::clone(file),
            None => Arc::new(job.spool.take_over(&closed.part)?.ok_or_else(taken)?),
        };
        if job.target.probe()?.free < closed.len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let envelope = self.recipe.envelope();
        let part = converted_part(&closed.part, &envelope);
        let source = job.spool.read(&closed.part)?;
        let file = job.target.create(&part, file_mode(false)).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => taken(),
            _ => error,
        })?;
        let (len, written) = match &closed.seal {
            None => (closed.len, self.fill(&file, source.take(closed.len), closed.len)),
            Some(seal) => {
                let opened = seal.open(source.take(closed.len));
                (seal.len(), opened.and_then(|source| self.fill(&file, source, seal.len())))
            }
        };
        let content = Some(Content { compression: self.recipe.compression, len });
        let written = written.and_then(|facts| {
            file.sync_data()?;
            Ok(facts)
        });
        let Written { len, sha256 } = written.inspect_err(|_| {
            // The first error tells more than one of cleaning up.
            let _ = job.target.remove(&part);
        })?;
        let new = Closed::new((Arc::new(file), part), len, false, Some(sha256));
        let source = Source { folder: Arc::clone(&job.spool), part: closed.part.clone(), _lock: lock };
        Ok(Some(Closed { envelope, content, source: Some(source), ..new }))
    }

    /// Writes the `len` bytes of `source` into `file`, converted.
    fn fill(&self, file: &File, mut source: impl Read, len: u64) -> io::Result<Written> {
        let mut sink: Box<dyn Sink> = Box::new(Hashed { file, digest: Sha256::new(), len: 0 });
        if let Some(recipients) = &self.recipe.recipients {
            sink = Box::new(Encrypted(recipients.writer(sink)?));
        }
        if let Some(compression) = self.recipe.compression {
            sink = Box::new(Compressed::new(sink, compression, len)?);
        }
        let mut buffer = vec![0; BUFFER_LEN];
        let mut copied = 0;
        loop {
            if self.end.get().is_some_and(|end| Instant::now() >= *end) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the relay ended first"));
            }
            let read = source.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            sink.write_all(&buffer[..read])?;
            copied += read as u64;
        }
        if copied != len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
        }
        sink.finish()
    }
}

/// Whether it is encrypted and nobody has the key: it was recovered.
fn is_locked(closed: &Closed) -> bool {
    let name = FileName::parse(closed.part.as_bytes());
    closed.seal.is_none() && name.is_some_and(|name| name.encryption.is_some())
}

/// Where bytes go on their way to a file. Only [`Sink::finish`] makes what is there complete.
trait Sink: Write {
    /// Writes what is left, here and further on.
    fn finish(self: Box<Self>) -> io::Result<Written>;
}

/// What a sink has written to its file.
struct Written {
    len: u64,
    /// In hexadecimal.
    sha256: String,
}

/// The last sink: the file.
struct Hashed<'a> {
    file: &'a File,
    digest: Sha256,
    len: u64,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for Hashed<'_> {
    fn finish(self: Box<Self>) -> io::Result<Written> {
        Ok(Written { len: self.len, sha256: hex(&self.digest.finalize()) })
    }
}

/// A sink that compresses for the next one.
struct Compressed<'a>(Compressor<Box<dyn Sink + 'a>>);

impl<'a> Compressed<'a> {
    fn new(next: Box<dyn Sink + 'a>, compression: Compression, len: u64) -> io::Result<Self> {
        Compressor::new(next, compression, Some(len)).map(Self)
    }
}

impl Write for Compressed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Sink for Compressed<'_> {
    fn finish(self: Box<Self>) -> io::Result<Written> {
        self.0.finish()?.finish()
    }
}

/// A sink that encrypts for the next one.
struct Encrypted<'a>(StreamWriter<Box<dyn Sink + 'a>>);

impl Write for Encrypted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Sink for Encrypted<'_> {
    fn finish(self: Box<Self>) -> io::Result<Written> {
        self.0.finish()?.finish()
    }
}

/// What a converted file is called before it has its name: as the one that it is made of, so that after a crash both
/// are found together.
fn converted_part(source: &OsStr, envelope: &str) -> OsString {
    let plain = FileName::parse(source.as_bytes()).map(|name| name.plain().to_bytes());
    let mut name = OsString::from_vec(plain.unwrap_or_else(|| source.as_bytes().to_vec()));
    name.push(envelope);
    part_name(&name)
}

fn taken() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "another process has taken the file")
}

/// Above 0 is below others.
const NICENESS: i32 = 10;
/// How many recordings wait with open files, which keeps other processes away from them.
const OPEN_MAX: usize = 256;
/// How long conversions go on when the relay ends.
const END_MAX: Duration = Duration::from_secs(5);
const BUFFER_LEN: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(compression: Compression) -> Worker {
        let recipe = Recipe { compression: Some(compression), recipients: None };
        Worker { recipe, end: Arc::default(), figures: Arc::default() }
    }

    #[test]
    fn when_the_relay_ends_conversions_do() {
        let worker = worker(Compression::Zstd);
        let file = tempfile::tempfile().unwrap();
        assert!(worker.fill(&file, &b"abc"[..], 3).is_ok());
        worker.end.set(Instant::now()).unwrap();
        let error = worker.fill(&file, &b"abc"[..], 3).err().unwrap();
        assert_eq!(error.to_string(), "the relay ended first");
    }

    #[test]
    fn a_file_that_has_become_shorter_is_not_converted() {
        for compression in [Compression::Zstd, Compression::Gzip] {
            let file = tempfile::tempfile().unwrap();
            assert!(worker(compression).fill(&file, &b"abc"[..], 4).is_err());
        }
    }

    #[test]
    fn a_full_disk_ends_the_conversion() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let error = worker(Compression::Gzip).fill(&file, &[7; 100_000][..], 100_000).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
