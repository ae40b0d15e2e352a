//! What is in one file, sound or not.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rtpproxy_core::compression::{Broken, Content};
use rtpproxy_core::file_name::{Compression, FileName};
use rtpproxy_core::salvage::{Event, Format, Hole, Origin, Packet, Piece, Salvage};
use rtpproxy_core::sealed::{self, Chunks, State};
use rtpproxy_core::time::Wall;
use sha2::{Digest, Sha256};

use crate::content::{Ending, UpToDamage};
use crate::journal::{IndexCheck, WrongIndex};
use crate::unlock::{Identities, Kind as Encryption, UnlockError, Unlocked, peek};

/// What was found in a file.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Its format.
    pub format: Format,
    /// Its length in bytes.
    pub size: u64,
    /// How it is compressed.
    pub compression: Option<Compression>,
    /// The length of its content in bytes; as far as it can be read, if it is compressed.
    pub content_size: u64,
    /// Where it is compressed and damaged. Places below are in its content.
    pub broken: Option<Broken>,
    /// The SHA-256 of all of it, in hexadecimal.
    pub sha256: String,
    /// Whole packets, without those that the recorder made up.
    pub packets: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
    /// Packets whose UDP checksum is wrong.
    pub corrupt: u64,
    /// Damage with something whole behind it, the first of it.
    pub holes: Vec<Damage>,
    /// Further holes.
    pub holes_more: u64,
    /// Damage at the end.
    pub tail: Option<Damage>,
    /// The file has the beginning that its format asks for.
    pub has_head: bool,
    /// How it is encrypted.
    pub encryption: Encryption,
    /// Why nobody could look into it: it is encrypted. Holes and the tail are then those of a sealed file's chunks.
    pub locked: Option<String>,
    /// It is a sealed file that was not closed.
    pub is_open: bool,
    /// Why an encrypted file could not be read to its end.
    pub cut: Option<String>,
    /// Indexes of a segment of a journal that do not say what is in it, the first of them.
    pub indexes: Vec<WrongIndex>,
}

/// A place that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where, and what is wrong.
    pub hole: Hole,
    /// When the last packet before it came.
    pub after: Option<Wall>,
    /// When the first packet behind it came.
    pub before: Option<Wall>,
}

impl Inspection {
    /// Reads a file in bounded memory, with `identities` if it is encrypted. Each read tells `progress` its bytes.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn of(path: &Path, identities: &Identities, progress: &dyn Fn(u64)) -> io::Result<Self> {
        let mut source = Hashed { file: File::open(path)?, digest: Sha256::new(), size: 0, progress };
        let expected = expected_format(path);
        let mut found = Self::nothing(expected.unwrap_or(Format::Adhoc));
        match Unlocked::new(&mut source, identities) {
            Ok(unlocked) => {
                found.encryption = unlocked.kind();
                found.content(unlocked, expected)?;
            }
            Err(UnlockError::Io(error)) => return Err(error),
            Err(
                reason @ (UnlockError::NoIdentity | UnlockError::OtherIdentity | UnlockError::Passphrase),
            ) => {
                found.locked = Some(reason.to_string());
                found.chunks(path)?;
            }
            Err(UnlockError::Head(_)) => found.encryption = Encryption::Sealed,
            Err(UnlockError::Damaged | UnlockError::Unknown) => {
                found.encryption = peek(File::open(path)?)?.0;
            }
        }
        // What follows the content belongs to the file, too.
        io::copy(&mut source, &mut io::sink())?;
        found.size = source.size;
        found.sha256 = source.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(found)
    }

    /// Whether readers stop before the end of the file, or at its beginning.
    pub fn is_damaged(&self) -> bool {
        !self.holes.is_empty()
            || self.tail.is_some()
            || !self.has_head
            || self.broken.is_some()
            || self.cut.is_some()
    }

    fn nothing(format: Format) -> Self {
        Self {
            format,
            size: 0,
            compression: None,
            content_size: 0,
            broken: None,
            sha256: String::new(),
            packets: 0,
            bytes: 0,
            corrupt: 0,
            holes: Vec::new(),
            holes_more: 0,
            tail: None,
            has_head: false,
            encryption: Encryption::Plain,
            locked: None,
            is_open: false,
            cut: None,
            indexes: Vec::new(),
        }
    }

    /// Takes in what the packets are in.
    fn content(&mut self, file: Unlocked<impl Read>, expected: Option<Format>) -> io::Result<()> {
        let mut content = Content::new(Ending::of(file))?;
        content.source_mut().leave_out_damage();
        let mut salvage = Salvage::new(UpToDamage(&mut content), expected)?;
        self.format = salvage.format();
        self.has_head = self.format == Format::Adhoc;
        let mut last = None;
        let mut indexes = IndexCheck::default();
        while let Some(event) = salvage.next()? {
            match &event {
                Event::Piece { at, bytes, what } => {
                    self.content_size = at + bytes.len() as u64;
                    if self.format == Format::Pcapng {
                        indexes.piece(*at, bytes, what);
                    }
                }
                Event::Hole(hole) | Event::Tail(hole) => {
                    self.content_size = hole.at + hole.len;
                    indexes.stop();
                }
            }
            match event {
                Event::Piece { what: Piece::Head { .. }, .. } => self.has_head = true,
                Event::Piece { what: Piece::Packet(packet), .. } if packet.origin != Origin::Synthetic => {
                    last = Some(packet.at);
                    self.packet(&packet);
                }
                Event::Piece { .. } => {}
                Event::Hole(hole) => self.hole(hole, last),
                Event::Tail(hole) => self.tail = Some(Damage { hole, after: last, before: None }),
            }
        }
        drop(salvage);
        self.indexes = indexes.finish();
        self.compression = content.compression();
        self.broken = content.broken().cloned();
        let ending = content.source_mut();
        self.cut = ending.cut().map(str::to_owned);
        self.seal(ending.sealed());
        Ok(())
    }

    /// Takes in what was met between the chunks of a sealed file.
    fn seal(&mut self, state: Option<&State>) {
        let Some(state) = state else { return };
        state.holes.iter().for_each(|hole| self.hole(*hole, None));
        self.holes_more += state.holes_more;
        if let Some(hole) = state.tail {
            self.tail = Some(Damage { hole, after: None, before: None });
        }
        if state.missing > 0 && state.holes.is_empty() {
            self.cut.get_or_insert(format!("{} chunks of the sealed file are missing", state.missing));
        }
        self.is_open = !state.is_complete;
    }

    /// Takes in the chunks of a sealed file that nobody can open.
    fn chunks(&mut self, path: &Path) -> io::Result<()> {
        let (kind, file) = peek(File::open(path)?)?;
        self.encryption = kind;
        self.has_head = true;
        if kind != Encryption::Sealed {
            return Ok(());
        }
        let mut chunks = Chunks::new(file)?;
        self.format = chunks.head().format;
        let mut missing = 0;
        while let Some(event) = chunks.next()? {
            match event {
                sealed::Event::Chunk(chunk) => missing += chunk.missing,
                sealed::Event::Hole(hole) => self.hole(hole, None),
                sealed::Event::Tail(hole) => self.tail = Some(Damage { hole, after: None, before: None }),
            }
        }
        if missing > 0 && self.holes.is_empty() {
            self.cut = Some(format!("{missing} chunks of the sealed file are missing"));
        }
        self.is_open = !chunks.is_complete();
        Ok(())
    }

    fn hole(&mut self, hole: Hole, after: Option<Wall>) {
        if self.holes.len() < HOLES_MAX {
            self.holes.push(Damage { hole, after, before: None });
        } else {
            self.holes_more += 1;
        }
    }

    fn packet(&mut self, packet: &Packet<'_>) {
        self.packets += 1;
        if let Some(datagram) = packet.datagram {
            self.bytes += datagram.payload.len() as u64;
            self.corrupt += u64::from(!datagram.is_intact);
        }
        for damage in self.holes.iter_mut().rev().take_while(|damage| damage.before.is_none()) {
            damage.before = Some(packet.at);
        }
    }
}

/// The format that the name of a file tells.
pub fn expected_format(path: &Path) -> Option<Format> {
    FileName::parse(path.file_name()?.as_bytes())?.content.format()
}

/// A file that is hashed while it is read.
struct Hashed<'a> {
    file: File,
    digest: Sha256,
    size: u64,
    progress: &'a dyn Fn(u64),
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.digest.update(&buffer[..read]);
        self.size += read as u64;
        (self.progress)(read as u64);
        Ok(read)
    }
}

/// How many holes of a file are told one by one.
const HOLES_MAX: usize = 100;
