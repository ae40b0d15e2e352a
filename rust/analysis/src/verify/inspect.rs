//! What is in one file, sound or not.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rtpproxy_core::compression::{Broken, Content};
use rtpproxy_core::file_name::{Compression, FileName};
use rtpproxy_core::salvage::{Event, Format, Hole, Origin, Packet, Piece, Salvage};
use rtpproxy_core::time::Wall;
use sha2::{Digest, Sha256};

use crate::content::UpToDamage;

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
    /// Reads a file in bounded memory. Each read tells `progress` its bytes.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn of(path: &Path, progress: &dyn Fn(u64)) -> io::Result<Self> {
        let source = Hashed { file: File::open(path)?, digest: Sha256::new(), size: 0, progress };
        let mut content = Content::new(source)?;
        let mut salvage = Salvage::new(UpToDamage(&mut content), expected_format(path))?;
        let mut found = Self {
            format: salvage.format(),
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
            has_head: salvage.format() == Format::Adhoc,
        };
        let mut last = None;
        while let Some(event) = salvage.next()? {
            match &event {
                Event::Piece { at, bytes, .. } => found.content_size = at + bytes.len() as u64,
                Event::Hole(hole) | Event::Tail(hole) => found.content_size = hole.at + hole.len,
            }
            match event {
                Event::Piece { what: Piece::Head { .. }, .. } => found.has_head = true,
                Event::Piece { what: Piece::Packet(packet), .. } if packet.origin != Origin::Synthetic => {
                    last = Some(packet.at);
                    found.packet(&packet);
                }
                Event::Piece { .. } => {}
                Event::Hole(hole) if found.holes.len() < HOLES_MAX => {
                    found.holes.push(Damage { hole, after: last, before: None });
                }
                Event::Hole(_) => found.holes_more += 1,
                Event::Tail(hole) => found.tail = Some(Damage { hole, after: last, before: None }),
            }
        }
        drop(salvage);
        found.compression = content.compression();
        found.broken = content.broken().cloned();
        // Behind damage, and behind what was looked at ahead of it.
        let source = content.source_mut();
        io::copy(source, &mut io::sink())?;
        found.size = source.size;
        found.sha256 =
            std::mem::take(&mut source.digest).finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(found)
    }

    /// Whether readers stop before the end of the file, or at its beginning.
    pub fn is_damaged(&self) -> bool {
        !self.holes.is_empty() || self.tail.is_some() || !self.has_head || self.broken.is_some()
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
