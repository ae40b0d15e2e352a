//! Sealed files: recordings that are encrypted from their first byte on.
//!
//! A sealed file is a [`Head`] and chunks. The head holds the key of the file, encrypted for those who may read it,
//! and remarks in the clear; each chunk holds what one flush wrote, encrypted with AES-256-GCM. docs/encryption.md
//! draws both.
//!
//! A chunk stands for itself: what was cut off behind it or damaged before it does no harm to it. It is bound to
//! its file and its place there, so that none can be changed, moved, repeated or taken out unnoticed, and the last
//! one says that it is. A checksum tells a whole chunk from a torn one without the key.
//!
//! [`Sealer`] makes chunks, [`Chunks`] walks through them without the key, [`Unsealer`] reads what is in them.
//!
//! ```
//! use std::io::Read;
//! use rtpproxy_core::salvage::Format;
//! use rtpproxy_core::sealed::{Chunks, Head, Key, Sealer, Unsealer};
//!
//! let key = Key::new([7; 32]);
//! let head = Head { format: Format::Pcapng, id: [1; 16], comments: vec![], sealed_key: b"for Alice".to_vec() };
//! let mut file = head.to_bytes();
//! let mut sealer = Sealer::new(&key, &file);
//! sealer.seal(b"hello", &mut file);
//! sealer.written();
//! sealer.seal_last(&mut file);
//!
//! let mut text = String::new();
//! let mut unsealer = Unsealer::new(Chunks::new(&file[..])?, &key);
//! unsealer.read_to_string(&mut text)?;
//! assert_eq!((text.as_str(), unsealer.state().is_complete), ("hello", true));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod read;

use std::fmt;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::salvage::Format;

pub use read::{Chunk, Chunks, Event, OpenError, State, Unsealer};

/// What a sealed file begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is sealed in it.
    pub format: Format,
    /// A number that no other file has.
    pub id: [u8; 16],
    /// Remarks that everybody may read: `NAME: VALUE`.
    pub comments: Vec<String>,
    /// The key, encrypted for those who may read the file.
    pub sealed_key: Vec<u8>,
}

impl Head {
    /// The head as bytes. Remarks that are too long or too many are cut.
    ///
    /// # Panics
    ///
    /// If the sealed key has more than a mebibyte.
    pub fn to_bytes(&self) -> Vec<u8> {
        assert!(
            self.sealed_key.len() <= SEALED_KEY_MAX,
            "the sealed key has {} bytes",
            self.sealed_key.len()
        );
        let comments = &self.comments[..self.comments.len().min(COMMENTS_MAX)];
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&[VERSION, format_number(self.format)]);
        out.extend_from_slice(&(comments.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.id);
        for comment in comments {
            let comment = &comment[..comment.floor_char_boundary(COMMENT_LEN_MAX)];
            out.extend_from_slice(&(comment.len() as u16).to_be_bytes());
            out.extend_from_slice(comment.as_bytes());
        }
        out.extend_from_slice(&self.sealed_key);
        let len = out.len() + CHECKSUM_LEN;
        out[LEN_AT..FIXED_AT].copy_from_slice(&(len as u32).to_be_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out
    }

    /// How long the head is that begins like this.
    fn measure(start: &[u8; FIXED_AT]) -> Result<usize, HeadError> {
        let (magic, len) = start.split_at(LEN_AT);
        if magic != MAGIC {
            return Err(HeadError::NotSealed);
        }
        let len = u32::from_be_bytes(len.try_into().expect("four bytes")) as usize;
        if (HEAD_LEN_MIN..=HEAD_LEN_MAX).contains(&len) { Ok(len) } else { Err(HeadError::Damaged) }
    }

    fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(HeadError::Damaged)?;
        if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
            return Err(HeadError::Damaged);
        }
        let mut rest = &body[FIXED_AT..];
        let [version, format, high, low] = take(&mut rest)?;
        if version != VERSION {
            return Err(HeadError::Version(version));
        }
        let format = format_of(format).ok_or(HeadError::Format(format))?;
        let id = take(&mut rest)?;
        let mut comments = Vec::new();
        for _ in 0..u16::from_be_bytes([high, low]) {
            let len = usize::from(u16::from_be_bytes(take(&mut rest)?));
            let (comment, behind) = rest.split_at_checked(len).ok_or(HeadError::Damaged)?;
            comments.push(String::from_utf8_lossy(comment).into_owned());
            rest = behind;
        }
        Ok(Self { format, id, comments, sealed_key: rest.to_vec() })
    }
}

/// Why a file has no head that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The file does not begin like a sealed one.
    #[error("it is not a sealed file")]
    NotSealed,
    /// The file ends inside its head.
    #[error("the file ends inside its head: nothing can be read without it")]
    Cut,
    /// The head is not what was written.
    #[error("the head of the file is damaged: nothing can be read without it")]
    Damaged,
    /// The file is of a later layout.
    #[error("it is a sealed file of version {0}, which this program does not know")]
    Version(u8),
    /// The file holds something else.
    #[error("what is sealed in the file is of kind {0}, which this program does not know")]
    Format(u8),
}

/// The key of one file. It is wiped from memory when it is dropped, and stays in one place until then: what is moved
/// leaves copies behind.
pub struct Key(Box<Zeroizing<[u8; Self::LEN]>>);

impl Key {
    /// Its length in bytes.
    pub const LEN: usize = 32;

    /// A key of random bytes, which must never be used for a second file.
    pub fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(Box::new(Zeroizing::new(bytes)))
    }

    /// A key that `fill` makes where it stays.
    ///
    /// # Errors
    ///
    /// Those of `fill`.
    pub fn made_by<E>(fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self::new([0; Self::LEN]);
        fill(&mut key.0[..])?;
        Ok(key)
    }

    /// A key as it was encrypted; `None` if it has not the length of one.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let mut key = Self::new([0; Self::LEN]);
        key.0.copy_from_slice(bytes);
        Some(key)
    }

    /// Its bytes, to be encrypted.
    pub fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Makes the chunks of one file.
pub struct Sealer {
    lock: Lock,
    /// The number of the first chunk that is not in the file yet.
    number: u64,
    /// The number behind the chunks that were made last.
    next: u64,
    /// How often chunks were made that did not reach the file.
    attempt: u32,
}

impl Sealer {
    /// A sealer for the file that begins with `head`.
    pub fn new(key: &Key, head: &[u8]) -> Self {
        Self { lock: Lock::new(key, head), number: 0, next: 0, attempt: 0 }
    }

    /// Appends `plain` to `out` as chunks. Until [`Self::written`] is called they count as not made: those that are
    /// made next take their places, under nonces of their own.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.begin();
        for plain in plain.chunks(PLAIN_MAX) {
            self.chunk(plain, false, out);
        }
    }

    /// Appends the chunk that ends the file. It holds nothing.
    pub fn seal_last(&mut self, out: &mut Vec<u8>) {
        self.begin();
        self.chunk(&[], true, out);
    }

    /// What was made last is in the file.
    pub fn written(&mut self) {
        self.number = self.next;
    }

    fn begin(&mut self) {
        if self.next != self.number {
            self.next = self.number;
            self.attempt = self.attempt.checked_add(1).expect("a write is tried once a second");
        }
    }

    fn chunk(&mut self, plain: &[u8], is_last: bool, out: &mut Vec<u8>) {
        let len = plain.len() + TAG_LEN;
        let mut header = Header { len, is_last, number: self.next, attempt: self.attempt, checksum: 0 };
        let at = out.len();
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(plain);
        self.lock.close(&header, out, at + HEADER_LEN);
        header.checksum = header.checksum_with(&out[at + HEADER_LEN..]);
        out[at..at + HEADER_LEN].copy_from_slice(&header.to_bytes());
        self.next += 1;
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("number", &self.number).finish_non_exhaustive()
    }
}

/// What stands before the encrypted bytes of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    /// Of the encrypted bytes with their tag.
    len: usize,
    is_last: bool,
    number: u64,
    attempt: u32,
    /// Of the fields before and the encrypted bytes.
    checksum: u32,
}

impl Header {
    /// Reads a header; `None` if it cannot be one.
    fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let mut rest = &bytes[..];
        if take(&mut rest) != Ok(MARKER) {
            return None;
        }
        let word = u32::from_be_bytes(take(&mut rest).ok()?);
        let header = Self {
            len: (word & !LAST) as usize,
            is_last: word & LAST != 0,
            number: u64::from_be_bytes(take(&mut rest).ok()?),
            attempt: u32::from_be_bytes(take(&mut rest).ok()?),
            checksum: u32::from_be_bytes(take(&mut rest).ok()?),
        };
        (TAG_LEN..=PLAIN_MAX + TAG_LEN).contains(&header.len).then_some(header)
    }

    fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MARKER);
        bytes[4..20].copy_from_slice(&self.bound());
        bytes[20..].copy_from_slice(&self.checksum.to_be_bytes());
        bytes
    }

    /// The fields that the encrypted bytes are bound to.
    fn bound(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let word = self.len as u32 | if self.is_last { LAST } else { 0 };
        bytes[..4].copy_from_slice(&word.to_be_bytes());
        bytes[4..].copy_from_slice(&self.nonce());
        bytes
    }

    fn nonce(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..].copy_from_slice(&self.attempt.to_be_bytes());
        bytes
    }

    fn checksum_with(&self, sealed: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.bound());
        hasher.update(sealed);
        hasher.finalize()
    }
}

/// The cipher of one file.
struct Lock {
    /// What it makes of the key stays in one place, too.
    cipher: Box<Aes256Gcm>,
    /// The SHA-256 of the head.
    file: [u8; 32],
}

impl Lock {
    fn new(key: &Key, head: &[u8]) -> Self {
        Self { cipher: Box::new(Aes256Gcm::new(key.bytes().into())), file: Sha256::digest(head).into() }
    }

    /// Encrypts `bytes` from `at` on, and appends the tag.
    fn close(&self, header: &Header, bytes: &mut Vec<u8>, at: usize) {
        let nonce = header.nonce().into();
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce, &self.bound(header), (&mut bytes[at..]).into())
            .expect("a chunk is shorter than the cipher allows");
        bytes.extend_from_slice(&tag);
    }

    /// Decrypts a chunk in place and cuts its tag off; false if it is not what was written there.
    fn open(&self, header: &Header, sealed: &mut Vec<u8>) -> bool {
        self.cipher.decrypt_in_place(&header.nonce().into(), &self.bound(header), sealed).is_ok()
    }

    fn bound(&self, header: &Header) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..32].copy_from_slice(&self.file);
        bytes[32..].copy_from_slice(&header.bound());
        bytes
    }
}

/// Whether a file that begins with `bytes` is a sealed one.
pub fn is_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], HeadError> {
    let (taken, behind) = rest.split_first_chunk().ok_or(HeadError::Damaged)?;
    *rest = behind;
    Ok(*taken)
}

fn format_number(format: Format) -> u8 {
    match format {
        Format::Pcapng => 1,
        Format::Pcap => 2,
        Format::Adhoc => 3,
    }
}

fn format_of(number: u8) -> Option<Format> {
    [Format::Pcapng, Format::Pcap, Format::Adhoc].into_iter().find(|format| format_number(*format) == number)
}

const MAGIC: [u8; 8] = *b"\x89RTPSEAL";
const VERSION: u8 = 1;
/// Where the length of the head stands.
const LEN_AT: usize = MAGIC.len();
/// Where what is behind it begins.
const FIXED_AT: usize = LEN_AT + 4;
const CHECKSUM_LEN: usize = 4;
/// Of a head without comments and key.
const HEAD_LEN_MIN: usize = FIXED_AT + 20 + CHECKSUM_LEN;
const HEAD_LEN_MAX: usize = HEAD_LEN_MIN + COMMENTS_MAX * (2 + COMMENT_LEN_MAX) + SEALED_KEY_MAX;
const COMMENTS_MAX: usize = 64;
const COMMENT_LEN_MAX: usize = 16 << 10;
const SEALED_KEY_MAX: usize = 1 << 20;
/// What a chunk begins with.
const MARKER: [u8; 4] = *b"\xa7CHK";
const HEADER_LEN: usize = 24;
/// In the word with the length: the file ends with this chunk.
const LAST: u32 = 1 << 31;
const TAG_LEN: usize = 16;
/// How many bytes are sealed in one chunk at most.
const PLAIN_MAX: usize = 1 << 20;
