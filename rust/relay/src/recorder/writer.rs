//! Writing one file through a buffer of whole records, so that the file can always be read.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::disk::RecordFile;
use super::queue::{Budget, Loan};

/// What a [`Writer`] needs of a file opened to append.
pub(super) trait Storage {
    /// Appends some of `bytes` and says how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the file to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Whether it has no name any more, so that nobody will find what is in it.
    fn is_removed(&self) -> bool;
    /// What is to be appended for `plain`, if it is not `plain` itself: it is encrypted. It counts once
    /// [`Self::sealed_is_written`] is called.
    fn seal(&mut self, plain: &[u8]) -> Option<Vec<u8>>;
    /// All that was sealed last was appended.
    fn sealed_is_written(&mut self);
}

/// An append-only file with a buffer that is written from time to time.
///
/// When the disk refuses a write, or as long as there is no file, what was appended waits: in a buffer that grows
/// while [`Budget`] has memory to lend. A write that failed is cut back to the last flush and tried again each
/// second. Nothing may be appended while [`Self::has_room`] is false.
#[derive(Debug)]
pub(super) struct Writer<S = RecordFile> {
    storage: Option<S>,
    /// Whole records that are not in the file yet.
    buffer: Vec<u8>,
    /// A buffer of this many bytes is full.
    buffer_size: usize,
    /// How long a record stays in there.
    period: Duration,
    /// What it may be larger while it cannot be written.
    loan: Loan,
    /// How many packets are in the buffer.
    packets: u64,
    dirty_since: Option<Instant>,
    /// Bytes in the file.
    len: u64,
    /// The same before they were encrypted.
    plain_len: u64,
    /// The file may be longer than `len`.
    is_torn: bool,
    /// The last write failed as the file has no name any more.
    is_lost: bool,
    digest: Option<Sha256>,
    retry_at: Option<Instant>,
}

/// A file that its writer has left.
#[derive(Debug)]
pub(super) struct Written<S = RecordFile> {
    /// The file.
    pub(super) storage: S,
    /// How much of it counts, in bytes.
    pub(super) len: u64,
    /// It may be longer than that.
    pub(super) is_torn: bool,
    /// Of what counts.
    pub(super) sha256: Option<[u8; 32]>,
}

/// What a flush came to.
#[derive(Debug)]
pub(super) enum Flush {
    /// Everything is in the file.
    Done,
    /// Everything is in the file, after failures.
    Recovered,
    /// The disk refuses, as it did the last time.
    StillFailing,
    /// The disk refuses.
    Failed(io::Error),
}

impl<S: Storage> Writer<S> {
    /// A writer without a file that writes after `buffer_size` bytes at once, and after `period`; `hashed`: with a
    /// SHA-256 of everything written.
    pub(super) fn new(buffer_size: usize, period: Duration, hashed: bool, budget: &Arc<Budget>) -> Self {
        Self {
            storage: None,
            buffer: Vec::new(),
            buffer_size,
            period,
            loan: Loan::new(budget),
            packets: 0,
            dirty_since: None,
            len: 0,
            plain_len: 0,
            is_torn: false,
            is_lost: false,
            digest: hashed.then(Sha256::new),
            retry_at: None,
        }
    }

    /// Gives it an empty file. What waits is written to it.
    pub(super) fn attach(&mut self, storage: S) {
        self.storage = Some(storage);
        self.retry_at = None;
    }

    /// Takes its file away, if it has one. What is not in there waits for the next one, which has to begin with
    /// `header`.
    pub(super) fn detach(&mut self, header: &[u8]) -> Option<Written<S>> {
        let storage = self.storage.take()?;
        if self.len > 0 {
            self.buffer.splice(0..0, header.iter().copied());
        }
        (self.retry_at, self.is_lost) = (None, false);
        self.plain_len = 0;
        let hasher = self.digest.as_mut().map(std::mem::take);
        let (len, is_torn) = (std::mem::take(&mut self.len), std::mem::take(&mut self.is_torn));
        Some(Written { storage, len, is_torn, sha256: hasher.map(|digest| digest.finalize().into()) })
    }

    /// Whether more can be appended: false while nothing can be written and there is no memory to wait in.
    pub(super) fn has_room(&mut self) -> bool {
        let is_stuck = self.retry_at.is_some() || self.storage.is_none();
        !is_stuck || self.buffer.len() < self.buffer_size + self.loan.bytes || self.loan.extend()
    }

    /// Appends what `encode` writes: whole records with `packets` packets.
    pub(super) fn append(&mut self, now: Instant, packets: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        // Room for the record that makes it full, too, so that the buffer need not grow for it.
        let size = self.buffer_size + self.loan.bytes;
        self.buffer.reserve_exact(size.saturating_sub(self.buffer.len()) + RECORD_SIZE_USUAL);
        encode(&mut self.buffer);
        self.packets += packets;
        self.dirty_since.get_or_insert(now);
    }

    /// Whether [`Self::flush`] has something to do now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match (self.retry_at, self.dirty_since) {
            _ if self.storage.is_none() => false,
            (Some(at), _) => now >= at,
            (None, Some(since)) => {
                self.buffer.len() >= self.buffer_size || now.saturating_duration_since(since) >= self.period
            }
            (None, None) => false,
        }
    }

    /// Whether the last write failed as somebody has removed the file.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether somebody has removed the file.
    pub(super) fn is_removed(&self) -> bool {
        self.storage.as_ref().is_some_and(Storage::is_removed)
    }

    /// The bytes that it has with what waits.
    pub(super) fn full_len(&self) -> u64 {
        self.len + self.buffer.len() as u64
    }

    /// The bytes in the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Where the next record will be in the file, or in what is encrypted there.
    pub(super) fn position(&self) -> u64 {
        self.plain_len + self.buffer.len() as u64
    }

    /// The file.
    pub(super) fn storage(&self) -> Option<&S> {
        self.storage.as_ref()
    }

    /// Whether the last write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Writes the buffer to the file.
    pub(super) fn flush(&mut self, now: Instant) -> Flush {
        let outcome = self.write_buffer();
        self.settle(now, outcome)
    }

    /// As if the disk had refused, for a reason of ours.
    pub(super) fn refuse(&mut self, now: Instant, reason: io::Error) -> Flush {
        self.settle(now, Err(reason))
    }

    /// Adds the end of a file of which everything else is written. If the disk refuses, the file ends without it.
    pub(super) fn conclude(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.buffer.is_empty());
        encode(&mut self.buffer);
        if self.write_buffer().is_err() {
            self.buffer.clear();
        }
    }

    /// Gives up what is not in the file, and says how many packets that were.
    pub(super) fn discard(&mut self) -> u64 {
        self.buffer = Vec::new();
        self.loan.repay();
        self.dirty_since = None;
        std::mem::take(&mut self.packets)
    }

    fn settle(&mut self, now: Instant, outcome: io::Result<()>) -> Flush {
        self.is_lost = outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        match outcome {
            Ok(()) => {
                self.dirty_since = None;
                self.packets = 0;
                if self.retry_at.take().is_some() { Flush::Recovered } else { Flush::Done }
            }
            Err(error) => {
                if self.retry_at.replace(now + RETRY_PERIOD).is_some() {
                    Flush::StillFailing
                } else {
                    Flush::Failed(error)
                }
            }
        }
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let Some(storage) = &mut self.storage else { return Err(io::ErrorKind::NotFound.into()) };
        if self.is_torn {
            storage.truncate(self.len)?;
            self.is_torn = false;
        }
        let sealed = if self.buffer.is_empty() { None } else { storage.seal(&self.buffer) };
        let bytes = sealed.as_deref().unwrap_or(&self.buffer);
        let mut rest = bytes;
        while !rest.is_empty() {
            let error = match storage.append(rest) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(written) => {
                    self.is_torn = true;
                    rest = &rest[written..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            // What took too long may be written later.
            self.is_torn |= error.kind() == io::ErrorKind::TimedOut;
            if self.is_torn && storage.truncate(self.len).is_ok() {
                self.is_torn = false;
            }
            return Err(error);
        }
        if sealed.is_some() {
            storage.sealed_is_written();
        }
        self.is_torn = false;
        self.len += bytes.len() as u64;
        self.plain_len += self.buffer.len() as u64;
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        self.buffer.clear();
        self.buffer.shrink_to(self.buffer_size + RECORD_SIZE_USUAL);
        self.loan.repay();
        Ok(())
    }
}

/// More than most records have, in bytes.
pub(super) const RECORD_SIZE_USUAL: usize = 512;
/// How long to wait before the disk is tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_is_cut_back_and_tried_again() {
        let now = Instant::now();
        let mut writer = writer(Tiny { room: 10, ..Tiny::default() });
        writer.append(now, 1, |out| out.extend_from_slice(b"12345678"));
        assert!(matches!(writer.flush(now), Flush::Done));
        writer.append(now, 1, |out| out.extend_from_slice(b"abcdef"));
        assert!(matches!(writer.flush(now), Flush::Failed(_)));
        assert_eq!(tiny(&writer).bytes, b"12345678");
        assert!(!writer.is_due(now));
        assert!(writer.is_due(now + RETRY_PERIOD));
        assert!(matches!(writer.flush(now), Flush::StillFailing));

        writer.storage.as_mut().unwrap().room = 100;
        assert!(matches!(writer.flush(now), Flush::Recovered));
        assert!(!writer.is_failing());
        let Written { storage, len, is_torn, sha256 } = writer.detach(b"").unwrap();
        assert_eq!((storage.bytes.as_slice(), len, is_torn), (b"12345678abcdef".as_slice(), 14, false));
        assert_eq!(sha256.unwrap().as_slice(), Sha256::digest(b"12345678abcdef").as_slice());
    }

    #[test]
    fn a_cut_that_fails_is_made_up_before_the_next_write() {
        let now = Instant::now();
        let mut writer = writer(Tiny { room: 3, is_frozen: true, ..Tiny::default() });
        writer.append(now, 1, |out| out.extend_from_slice(b"abcdef"));
        assert!(matches!(writer.flush(now), Flush::Failed(_)));
        assert_eq!(tiny(&writer).bytes, b"abc");
        writer.storage = Some(Tiny { room: 100, bytes: b"abc".to_vec(), is_frozen: false });
        assert!(matches!(writer.flush(now), Flush::Recovered));
        assert_eq!(tiny(&writer).bytes, b"abcdef");
    }

    #[test]
    fn a_buffer_that_cannot_be_written_stops_growing() {
        let now = Instant::now();
        let mut writer = writer(Tiny::default());
        writer.append(now, 1, |out| out.push(0));
        writer.flush(now);
        while writer.has_room() {
            writer.append(now, 1, |out| out.resize(out.len() + 1000, 0));
        }
        assert!(writer.buffer.len() < BUFFER_SIZE + 1000);
        assert_eq!(writer.discard(), 18);
    }

    #[test]
    fn a_buffer_that_cannot_be_written_grows_while_there_is_memory_and_gives_it_back() {
        let now = Instant::now();
        let budget = Budget::new(1 << 20, 1);
        let mut writer = Writer::new(BUFFER_SIZE, PERIOD, false, &budget);
        let mut kilobytes = 0;
        while writer.has_room() {
            writer.append(now, 1, |out| out.resize(out.len() + 1024, 0));
            kilobytes += 1;
        }
        // The other half of the memory is for the workers.
        assert_eq!(kilobytes, 16 + 512);
        writer.attach(Tiny { room: 1 << 20, ..Tiny::default() });
        assert!(matches!(writer.flush(now), Flush::Done));
        assert!(writer.buffer.capacity() < 2 * BUFFER_SIZE);
        assert_eq!(writer.loan.bytes, 0);
    }

    #[test]
    fn what_waits_goes_to_the_next_file() {
        let now = Instant::now();
        let mut writer = writer(Tiny { room: 3, ..Tiny::default() });
        writer.append(now, 0, |out| out.extend_from_slice(b"HDR"));
        writer.flush(now);
        writer.append(now, 1, |out| out.extend_from_slice(b"abc"));
        assert!(matches!(writer.flush(now), Flush::Failed(_)));
        let first = writer.detach(b"HDR").unwrap();
        assert_eq!((first.storage.bytes.as_slice(), first.len), (b"HDR".as_slice(), 3));
        writer.attach(Tiny { room: 100, ..Tiny::default() });
        assert!(matches!(writer.flush(now), Flush::Done));
        let second = writer.detach(b"HDR").unwrap();
        assert_eq!(second.storage.bytes, b"HDRabc");
        assert_eq!(second.sha256.unwrap().as_slice(), Sha256::digest(b"HDRabc").as_slice());
    }

    fn writer(storage: Tiny) -> Writer<Tiny> {
        let mut writer = Writer::new(BUFFER_SIZE, PERIOD, true, &Budget::new(0, 0));
        writer.attach(storage);
        writer
    }

    fn tiny(writer: &Writer<Tiny>) -> &Tiny {
        writer.storage.as_ref().unwrap()
    }

    const BUFFER_SIZE: usize = 16 << 10;
    const PERIOD: Duration = Duration::from_millis(700);

    /// A disk with room for a few bytes.
    #[derive(Default)]
    struct Tiny {
        bytes: Vec<u8>,
        room: usize,
        is_frozen: bool,
    }

    impl Storage for Tiny {
        fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room - self.bytes.len().min(self.room)).min(4);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn truncate(&mut self, len: u64) -> io::Result<()> {
            if self.is_frozen {
                return Err(io::ErrorKind::Other.into());
            }
            self.bytes.truncate(len as usize);
            Ok(())
        }

        fn is_removed(&self) -> bool {
            false
        }

        fn seal(&mut self, _: &[u8]) -> Option<Vec<u8>> {
            None
        }

        fn sealed_is_written(&mut self) {}
    }
}
