//! Writing one file through a buffer of whole records, so that the file can always be read.

use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// What a [`Writer`] needs of a file opened to append.
pub(super) trait Storage {
    /// Appends some of `bytes` and says how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the file to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

impl Storage for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// An append-only file with a buffer, written each second at the latest.
///
/// When the disk refuses a write, what reached it is cut back to the last flush, the buffer is kept and the
/// write tried again each second. Nothing may be appended while [`Self::has_room`] is false.
#[derive(Debug)]
pub(super) struct Writer<S = File> {
    storage: S,
    /// Whole records that are not in the file yet.
    buffer: Vec<u8>,
    /// A buffer of this many bytes is full.
    buffer_size: usize,
    /// How many packets are among them.
    packets: u64,
    dirty_since: Option<Instant>,
    /// Bytes in the file.
    len: u64,
    /// The file may be longer than `len`.
    is_torn: bool,
    digest: Option<Sha256>,
    retry_at: Option<Instant>,
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
    /// A writer for an empty file that writes after `buffer_size` bytes at once; `hashed`: with a SHA-256 of
    /// everything written.
    pub(super) fn new(storage: S, buffer_size: usize, hashed: bool) -> Self {
        Self {
            storage,
            buffer: Vec::new(),
            buffer_size,
            packets: 0,
            dirty_since: None,
            len: 0,
            is_torn: false,
            digest: hashed.then(Sha256::new),
            retry_at: None,
        }
    }

    /// Whether more can be appended: false while the disk refuses and the buffer is full.
    pub(super) fn has_room(&self) -> bool {
        self.retry_at.is_none() || self.buffer.len() < self.buffer_size
    }

    /// Appends what `encode` writes: whole records with `packets` packets.
    pub(super) fn append(&mut self, now: Instant, packets: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        // Room for the record that makes it full, too, so that the buffer need not grow for it.
        self.buffer.reserve(self.buffer_size.saturating_sub(self.buffer.len()) + RECORD_SIZE_USUAL);
        encode(&mut self.buffer);
        self.packets += packets;
        self.dirty_since.get_or_insert(now);
    }

    /// Whether [`Self::flush`] has something to do now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match (self.retry_at, self.dirty_since) {
            (Some(at), _) => now >= at,
            (None, Some(since)) => {
                self.buffer.len() >= self.buffer_size || now.saturating_duration_since(since) >= FLUSH_PERIOD
            }
            (None, None) => false,
        }
    }

    /// Whether the last write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Writes the buffer to the file.
    pub(super) fn flush(&mut self, now: Instant) -> Flush {
        match self.write_buffer() {
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

    /// Gives up what is not in the file, and says how many packets that were.
    pub(super) fn discard(&mut self) -> u64 {
        if self.is_torn && self.storage.truncate(self.len).is_ok() {
            self.is_torn = false;
        }
        self.buffer = Vec::new();
        self.dirty_since = None;
        std::mem::take(&mut self.packets)
    }

    /// The file, its length in bytes and its SHA-256.
    pub(super) fn into_parts(self) -> (S, u64, Option<[u8; 32]>) {
        (self.storage, self.len, self.digest.map(|digest| digest.finalize().into()))
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.storage.truncate(self.len)?;
            self.is_torn = false;
        }
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            match self.storage.append(rest) {
                Ok(0) => return self.cut_back(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.is_torn = true;
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.cut_back(error),
            }
        }
        self.is_torn = false;
        self.len += self.buffer.len() as u64;
        if let Some(digest) = &mut self.digest {
            digest.update(&self.buffer);
        }
        self.buffer.clear();
        self.buffer.shrink_to(self.buffer_size + RECORD_SIZE_USUAL);
        Ok(())
    }

    fn cut_back(&mut self, error: io::Error) -> io::Result<()> {
        if self.is_torn {
            self.storage.truncate(self.len)?;
            self.is_torn = false;
        }
        Err(error)
    }
}

/// More than most records have, in bytes.
const RECORD_SIZE_USUAL: usize = 512;
/// How long a record stays in the buffer: together with the time for which packets wait for older ones, and
/// that between two looks, a second at most.
const FLUSH_PERIOD: Duration = Duration::from_millis(700);
/// How long to wait before the disk is tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_is_cut_back_and_tried_again() {
        let now = Instant::now();
        let mut writer = Writer::new(Tiny { room: 10, ..Tiny::default() }, BUFFER_SIZE, true);
        writer.append(now, 1, |out| out.extend_from_slice(b"12345678"));
        assert!(matches!(writer.flush(now), Flush::Done));
        writer.append(now, 1, |out| out.extend_from_slice(b"abcdef"));
        assert!(matches!(writer.flush(now), Flush::Failed(_)));
        assert_eq!(writer.storage.bytes, b"12345678");
        assert!(!writer.is_due(now));
        assert!(writer.is_due(now + RETRY_PERIOD));
        assert!(matches!(writer.flush(now), Flush::StillFailing));

        writer.storage.room = 100;
        assert!(matches!(writer.flush(now), Flush::Recovered));
        assert!(!writer.is_failing());
        let (storage, len, digest) = writer.into_parts();
        assert_eq!((storage.bytes.as_slice(), len), (b"12345678abcdef".as_slice(), 14));
        assert_eq!(digest.unwrap().as_slice(), Sha256::digest(b"12345678abcdef").as_slice());
    }

    #[test]
    fn a_cut_that_fails_is_made_up_before_the_next_write() {
        let now = Instant::now();
        let mut writer =
            Writer::new(Tiny { room: 3, is_frozen: true, ..Tiny::default() }, BUFFER_SIZE, false);
        writer.append(now, 1, |out| out.extend_from_slice(b"abcdef"));
        assert!(matches!(writer.flush(now), Flush::Failed(_)));
        assert_eq!(writer.storage.bytes, b"abc");
        writer.storage = Tiny { room: 100, bytes: b"abc".to_vec(), is_frozen: false };
        assert!(matches!(writer.flush(now), Flush::Recovered));
        assert_eq!(writer.storage.bytes, b"abcdef");
    }

    #[test]
    fn a_buffer_that_cannot_be_written_stops_growing() {
        let now = Instant::now();
        let mut writer = Writer::new(Tiny::default(), BUFFER_SIZE, false);
        writer.append(now, 1, |out| out.push(0));
        writer.flush(now);
        while writer.has_room() {
            writer.append(now, 1, |out| out.resize(out.len() + 1000, 0));
        }
        assert!(writer.buffer.len() < BUFFER_SIZE + 1000);
        assert_eq!(writer.discard(), 18);
    }

    const BUFFER_SIZE: usize = 16 << 10;

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
    }
}
