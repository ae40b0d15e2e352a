//! Reading sealed files, damaged ones too.

use std::io::{self, Read};

use super::{FIXED_AT, HEADER_LEN, Head, HeadError, Header, Key, Lock, MARKER};
use crate::salvage::Hole;
use crate::window::Window;

/// What comes next in a sealed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole chunk.
    Chunk(Chunk<'a>),
    /// Bytes that are no chunk, with a whole one behind them.
    Hole(Hole),
    /// The same up to the end of the file.
    Tail(Hole),
}

/// A whole chunk of a sealed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Where it begins, in bytes from the start of the file.
    pub at: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The file was closed behind it.
    pub is_last: bool,
    /// How many chunks are missing before it.
    pub missing: u64,
    header: Header,
    sealed: &'a [u8],
}

/// A walk through a sealed file, for which no key is needed.
#[derive(Debug)]
pub struct Chunks<R> {
    window: Window<R>,
    head: Head,
    head_bytes: Vec<u8>,
    /// The number that the next chunk should have; none behind the last one.
    next: Option<u64>,
    /// How many bytes were checked of what looked like chunks and was none.
    in_vain: u64,
}

impl<R: Read> Chunks<R> {
    /// A walk through `source` from its beginning.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or does not begin with a head that can be used.
    pub fn new(mut source: R) -> Result<Self, OpenError> {
        let mut head_bytes = Vec::new();
        source.by_ref().take(FIXED_AT as u64).read_to_end(&mut head_bytes)?;
        let start = head_bytes.first_chunk().ok_or(if super::is_magic(&head_bytes) {
            HeadError::Cut
        } else {
            HeadError::NotSealed
        })?;
        let len = Head::measure(start)?;
        source.by_ref().take((len - FIXED_AT) as u64).read_to_end(&mut head_bytes)?;
        if head_bytes.len() < len {
            return Err(HeadError::Cut.into());
        }
        let head = Head::parse(&head_bytes)?;
        Ok(Self { window: Window::new(source, len as u64), head, head_bytes, next: Some(0), in_vain: 0 })
    }

    /// The head of the file.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The length of the head in bytes, which is where the chunks begin.
    pub fn head_len(&self) -> u64 {
        self.head_bytes.len() as u64
    }

    /// Whether the chunk was met that closes the file.
    pub fn is_complete(&self) -> bool {
        self.next.is_none()
    }

    /// What comes next; none at the end. Every byte behind the head is in exactly one event.
    ///
    /// # Errors
    ///
    /// When the source cannot be read.
    #[expect(clippy::should_implement_trait, reason = "what it gives lives in the window")]
    pub fn next(&mut self) -> io::Result<Option<Event<'_>>> {
        if !self.window.fill(1)? {
            return Ok(None);
        }
        let header = match self.measure(0)? {
            Ok(header) => header,
            Err(reason) => return self.skip(reason).map(Some),
        };
        let at = self.window.at();
        let missing = header.number - self.next.unwrap_or_default();
        self.next = if header.is_last { None } else { header.number.checked_add(1) };
        self.window.discard(HEADER_LEN + header.len);
        let sealed = self.window.discarded(header.len);
        let len = (HEADER_LEN + header.len) as u64;
        Ok(Some(Event::Chunk(Chunk { at, len, is_last: header.is_last, missing, header, sealed })))
    }

    /// The header of the whole chunk `offset` bytes from here, or what is wrong.
    fn measure(&mut self, offset: usize) -> io::Result<Result<Header, &'static str>> {
        if !self.window.fill(offset + HEADER_LEN)? {
            return Ok(Err(CUT));
        }
        let bytes = self.window.rest()[offset..].first_chunk().expect("it was filled");
        let Some(header) = Header::parse(bytes) else { return Ok(Err("no chunk where one should begin")) };
        if self.next.is_none_or(|next| header.number < next) {
            return Ok(Err("a chunk that should not follow here"));
        }
        let begin = offset + HEADER_LEN;
        if self.in_vain > IN_VAIN_MAX.saturating_add(IN_VAIN_SHARE * self.window.at()) {
            return Ok(Err("too much that looks like chunks and is none"));
        }
        if !self.window.fill(begin + header.len)? {
            return Ok(Err(CUT));
        }
        if header.checksum_with(&self.window.rest()[begin..begin + header.len]) == header.checksum {
            return Ok(Ok(header));
        }
        self.in_vain += header.len as u64;
        Ok(Err("a chunk whose checksum is wrong"))
    }

    /// Looks for the next whole chunk.
    fn skip(&mut self, reason: &'static str) -> io::Result<Event<'static>> {
        let mut hole = Hole { at: self.window.at(), len: 0, reason, is_zeros: false };
        let mut zeros = 0;
        let is_tail = loop {
            self.pass(1, &mut hole, &mut zeros);
            if !self.window.fill(MARKER.len())? {
                self.pass(self.window.rest().len(), &mut hole, &mut zeros);
                break true;
            }
            let place = self.window.rest().windows(MARKER.len()).position(|bytes| bytes == MARKER);
            let passed = place.unwrap_or_else(|| self.window.rest().len() - (MARKER.len() - 1));
            // The next byte is passed at the start of the loop.
            self.pass(if place.is_some() { passed } else { passed - 1 }, &mut hole, &mut zeros);
            if place.is_some() && self.measure(0)?.is_ok() {
                break false;
            }
        };
        hole.is_zeros = 2 * zeros >= hole.len;
        Ok(if is_tail { Event::Tail(hole) } else { Event::Hole(hole) })
    }

    fn pass(&mut self, len: usize, hole: &mut Hole, zeros: &mut u64) {
        *zeros += self.window.rest()[..len].iter().filter(|byte| **byte == 0).count() as u64;
        hole.len += len as u64;
        self.window.discard(len);
    }
}

/// Why a sealed file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its head cannot be used.
    #[error(transparent)]
    Head(#[from] HeadError),
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io(error) => error,
            OpenError::Head(error) => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// Reads what is in a sealed file, up to its last whole chunk.
///
/// A chunk that is damaged or is not what was written ends the reading with an error, unless it is to be left out
/// ([`Self::leave_out_damage`]). That the file ends too early is no error: [`Self::state`] has it.
pub struct Unsealer<R> {
    chunks: Chunks<R>,
    lock: Lock,
    leaves_out: bool,
    state: State,
    plain: Vec<u8>,
    /// How much of it was given.
    given: usize,
}

/// What an [`Unsealer`] has met so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The chunk that closes the file was met.
    pub is_complete: bool,
    /// Places that were left out, the first of them.
    pub holes: Vec<Hole>,
    /// Further such places.
    pub holes_more: u64,
    /// Chunks that are missing in the file.
    pub missing: u64,
    /// What is not whole at the end.
    pub tail: Option<Hole>,
}

impl<R: Read> Unsealer<R> {
    /// A reader of the file that `chunks` was just opened for.
    pub fn new(chunks: Chunks<R>, key: &Key) -> Self {
        let lock = Lock::new(key, &chunks.head_bytes);
        Self { chunks, lock, leaves_out: false, state: State::default(), plain: Vec::new(), given: 0 }
    }

    /// Reads on behind chunks that are damaged.
    pub fn leave_out_damage(&mut self) {
        self.leaves_out = true;
    }

    /// What was met so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes the next chunk; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let expected = self.chunks.next;
        let hole = match self.chunks.next()? {
            None => return Ok(false),
            Some(Event::Tail(hole)) => {
                self.state.tail = Some(hole);
                return Ok(false);
            }
            Some(Event::Hole(hole)) => hole,
            Some(Event::Chunk(chunk)) => {
                self.plain.clear();
                self.plain.extend_from_slice(chunk.sealed);
                self.given = 0;
                let (at, len, missing) = (chunk.at, chunk.len, chunk.missing);
                if self.lock.open(&chunk.header, &mut self.plain) {
                    self.state.is_complete |= chunk.is_last;
                    self.state.missing += missing;
                    if missing > 0 && !self.leaves_out {
                        return Err(broken(&format!("{missing} chunks are missing"), at));
                    }
                    return Ok(true);
                }
                self.plain.clear();
                // It may have any number, which says nothing of those behind it.
                self.chunks.next = expected;
                Hole { at, len, reason: "a chunk that is not what was written there", is_zeros: false }
            }
        };
        if !self.leaves_out {
            return Err(broken(hole.reason, hole.at));
        }
        if self.state.holes.len() < HOLES_MAX {
            self.state.holes.push(hole);
        } else {
            self.state.holes_more += 1;
        }
        Ok(true)
    }
}

impl<R: Read> Read for Unsealer<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.plain.len() {
            if !self.advance()? {
                return Ok(0);
            }
        }
        let read = (&self.plain[self.given..]).read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

fn broken(reason: &str, at: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the sealed file is damaged: {reason}, at byte {at}"))
}

/// Why a chunk at the end is none.
const CUT: &str = "the file ends inside a chunk";
/// A file of headers that announce long chunks may not cost more time than its length times this, and so many bytes.
/// In a damaged file that nobody made for it, each byte is checked in vain once at most.
const IN_VAIN_SHARE: u64 = 4;
const IN_VAIN_MAX: u64 = 16 << 20;
/// How many holes are told.
const HOLES_MAX: usize = 256;
