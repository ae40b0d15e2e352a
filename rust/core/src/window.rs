//! A stretch of a source that is walked through from its beginning to its end.

use std::io::{self, Read};

/// What was read of a source and is not done with.
#[derive(Debug)]
pub(crate) struct Window<R> {
    source: R,
    is_source_empty: bool,
    /// From `start` on.
    bytes: Vec<u8>,
    start: usize,
    at: u64,
}

impl<R: Read> Window<R> {
    /// A window that has read nothing of `source`, whose next byte is the one at `at`.
    pub(crate) fn new(source: R, at: u64) -> Self {
        Self { source, is_source_empty: false, bytes: Vec::new(), start: 0, at }
    }

    /// Where in the source it begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// What is in it.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// What was discarded last and stays until something is read.
    pub(crate) fn discarded(&self, len: usize) -> &[u8] {
        &self.bytes[self.start - len..self.start]
    }

    /// Whether the source has no more than what is in it.
    pub(crate) fn is_all(&self) -> bool {
        self.is_source_empty
    }

    /// Is done with the next `len` bytes, which are in it.
    pub(crate) fn discard(&mut self, len: usize) {
        self.start += len;
        self.at += len as u64;
    }

    /// Reads until there are `len` bytes; false if the source has not so many.
    pub(crate) fn fill(&mut self, len: usize) -> io::Result<bool> {
        if self.rest().len() >= len {
            return Ok(true);
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        while self.bytes.len() < len && !self.is_source_empty {
            let wanted = READ_LEN.max(len - self.bytes.len());
            let read = self.source.by_ref().take(wanted as u64).read_to_end(&mut self.bytes)?;
            self.is_source_empty = read < wanted;
        }
        Ok(self.bytes.len() >= len)
    }
}

const READ_LEN: usize = 64 << 10;
