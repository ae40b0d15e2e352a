//! A file that is encrypted while it is written ([`rtpproxy_core::sealed`]).

use std::fs::File;
use std::io::{self, Read, Write};

use rtpproxy_core::salvage::Format;
use rtpproxy_core::sealed::{Chunks, Head, Key, Sealer, Unsealer};

use crate::recipients::Recipients;

/// The key of a file, which is in memory alone, and what was sealed with it.
#[derive(Debug)]
pub(super) struct Seal {
    key: Key,
    sealer: Sealer,
    /// As long as it is not in the file.
    head: Option<Vec<u8>>,
    /// How much is in the file, in bytes, and how much with what was sealed last.
    len: u64,
    next_len: u64,
    /// The file ends with what was sealed.
    is_closed: bool,
}

impl Seal {
    /// A seal for a new file with a recording of this format, that `recipients` can open. Everybody can read
    /// `comments`.
    pub(super) fn new(recipients: &Recipients, format: Format, comments: Vec<String>) -> io::Result<Self> {
        let key = Key::made_by(getrandom::fill)?;
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        let sealed_key = recipients.encrypt(key.bytes())?;
        let head = Head { format, id, comments, sealed_key }.to_bytes();
        let sealer = Sealer::new(&key, &head);
        Ok(Self { key, sealer, head: Some(head), len: 0, next_len: 0, is_closed: false })
    }

    /// What is to be written for `plain`. Until [`Self::written`] is called it counts as not written.
    pub(super) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = self.head.clone().unwrap_or_default();
        self.sealer.seal(plain, &mut out);
        self.next_len = self.len + plain.len() as u64;
        out
    }

    /// Appends to `file` what it ends with, unless that is there, and says how many bytes that was. After an error
    /// what was written of it has to be cut off.
    pub(super) fn close(&mut self, file: &mut File) -> io::Result<u64> {
        if self.is_closed {
            return Ok(0);
        }
        let mut out = self.head.clone().unwrap_or_default();
        self.sealer.seal_last(&mut out);
        self.next_len = self.len;
        file.write_all(&out)?;
        self.written();
        self.is_closed = true;
        Ok(out.len() as u64)
    }

    /// How many bytes were sealed.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// What is in the file.
    pub(super) fn open<R: Read>(&self, file: R) -> io::Result<Unsealer<R>> {
        Ok(Unsealer::new(Chunks::new(file)?, &self.key))
    }

    /// What was sealed last is in the file.
    pub(super) fn written(&mut self) {
        self.head = None;
        self.len = self.next_len;
        self.sealer.written();
    }
}
