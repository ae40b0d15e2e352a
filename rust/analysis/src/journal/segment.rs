//! Reading a segment: by its indexes where there are some, block by block where there are none.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rtpproxy_core::compression::Content;
use rtpproxy_core::journal::{Figures, Index, Member, Record};
use rtpproxy_core::pcapng;
use rtpproxy_core::salvage::{Event, Format, Piece, Salvage};

use crate::verify::without_part;

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    /// The length at which it is read, though it may grow.
    len: u64,
    is_compressed: bool,
    /// The indexes, in the order of the file.
    indexes: Vec<Index>,
    /// Where the blocks begin that no index tells of.
    tail: u64,
}

impl Segment {
    /// Opens a segment, which may get its final name meanwhile.
    pub(super) fn open(path: &Path) -> io::Result<(Self, PathBuf)> {
        let (file, path) = match (File::open(path), without_part(path)) {
            (Err(error), Some(finished)) if error.kind() == ErrorKind::NotFound => {
                (File::open(&finished)?, finished)
            }
            (file, _) => (file?, path.to_owned()),
        };
        let len = file.metadata()?.len();
        let is_compressed = Content::new(&file)?.compression().is_some();
        let mut segment = Self { file, len, is_compressed, indexes: Vec::new(), tail: 0 };
        if !is_compressed {
            segment.read_indexes()?;
        }
        Ok((segment, path))
    }

    /// The recordings in it with their figures, each time it tells of them.
    pub(super) fn members(&self) -> io::Result<Vec<(Member, Figures)>> {
        let is_complete =
            self.indexes.last().is_some_and(|index| index.is_directory && index.to == index.from);
        if is_complete && self.tail == self.len {
            let end = self.indexes.last().map(|index| index.from);
            let directory = self.indexes.iter().filter(|index| index.is_directory && Some(index.from) == end);
            let entries = directory.flat_map(|index| &index.entries);
            return Ok(entries.filter_map(|entry| Some((entry.member.clone()?, entry.figures))).collect());
        }
        let mut members = Vec::new();
        let begin = self.indexes.first().map_or(self.len, |index| index.from);
        self.scan(begin, &mut |block| take_in(block, &mut members))?;
        for entry in self.parts().flat_map(|index| &index.entries) {
            members.extend(entry.member.clone().map(|member| (member, Figures::default())));
            if let Some((_, figures)) =
                members.iter_mut().rfind(|(member, _)| member.first_interface == entry.first_interface)
            {
                *figures = figures.plus(entry.figures);
            }
        }
        self.walk(self.tail, self.len, &mut |block| take_in(block, &mut members))?;
        Ok(members)
    }

    /// Gives the blocks to `visit` that may be of recordings that `wants` wants, in order, among others.
    pub(super) fn visit(
        &self,
        wants: &dyn Fn(&Member) -> bool,
        visit: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut error = None;
        let mut keep = |block: &[u8]| {
            if error.is_none() {
                error = visit(block).err();
            }
        };
        let mut wanted = Vec::new();
        let begin = self.indexes.first().map_or(self.len, |index| index.from);
        self.scan(begin, &mut |block| {
            if let Some(Record::Member(member)) = Record::parse(block)
                && wants(&member)
            {
                wanted.push(member.first_interface);
            }
            keep(block);
        })?;
        for index in self.parts() {
            let told = index.entries.iter().filter(|entry| entry.member.as_ref().is_some_and(wants));
            wanted.extend(told.map(|entry| entry.first_interface));
            let entries = index.entries.iter().filter(|entry| wanted.contains(&entry.first_interface));
            let mut stretches: Vec<_> = entries.flat_map(|entry| entry.stretches.iter().copied()).collect();
            stretches.sort_unstable();
            // Those of two recordings may overlap.
            let mut end = 0;
            for (at, len) in stretches {
                self.walk(at.max(end), at + len, &mut keep)?;
                end = end.max(at + len);
            }
        }
        self.walk(self.tail, self.len, &mut keep)?;
        error.map_or(Ok(()), Err)
    }

    /// The indexes that say where packets are.
    fn parts(&self) -> impl Iterator<Item = &Index> {
        self.indexes.iter().filter(|index| !index.is_directory)
    }

    /// Follows the indexes from the last one on. What is wrong with one ends that, as they are not needed.
    fn read_indexes(&mut self) -> io::Result<()> {
        self.tail = self.len;
        let mut last = [0; 4];
        let mut next = None;
        if self.len >= BLOCK_MIN {
            self.file.read_exact_at(&mut last, self.len - 4)?;
            next = self.len.checked_sub(u32::from_ne_bytes(last).into());
        }
        while let Some(at) = next {
            let Some(Record::Index(index)) = self.block(at)?.as_deref().and_then(Record::parse) else {
                break;
            };
            let is_right = index.at == at && index.from <= index.to && index.to <= at;
            if !is_right || self.indexes.last().is_some_and(|later| index.at >= later.at) {
                break;
            }
            next = index.previous;
            self.indexes.push(index);
        }
        self.indexes.reverse();
        if self.indexes.is_empty() {
            // All of it is looked through from its beginning.
            self.tail = self.len;
        }
        Ok(())
    }

    /// The whole block at a place; none if there is none.
    fn block(&self, at: u64) -> io::Result<Option<Vec<u8>>> {
        let mut head = [0; 8];
        if at + BLOCK_MIN > self.len {
            return Ok(None);
        }
        self.file.read_exact_at(&mut head, at)?;
        let len = pcapng::word(&head, 4).unwrap_or_default();
        let is_possible = len.is_multiple_of(4)
            && (BLOCK_MIN..=BLOCK_MAX).contains(&u64::from(len))
            && at + u64::from(len) <= self.len;
        if !is_possible {
            return Ok(None);
        }
        let mut block = vec![0; len as usize];
        self.file.read_exact_at(&mut block, at)?;
        Ok((pcapng::word(&block, len as usize - 4) == Some(len)).then_some(block))
    }

    /// Looks through a part that begins with a block, up to one that is not whole.
    fn walk(&self, mut at: u64, end: u64, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        while at < end
            && let Some(block) = self.block(at)?
        {
            at += block.len() as u64;
            visit(&block);
        }
        Ok(())
    }

    /// Looks through the beginning of the segment, damaged or not.
    fn scan(&self, end: u64, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        if end == 0 {
            return Ok(());
        }
        let source = At { file: &self.file, at: 0 };
        let limit = if self.is_compressed { u64::MAX } else { end };
        let mut salvage = Salvage::new(Content::new(source)?.take(limit), Some(Format::Pcapng))?;
        while let Some(event) = salvage.next()? {
            match event {
                Event::Piece { what: Piece::Head { is_native: false, .. }, .. } => {
                    let text = "it was written by a machine of the other byte order";
                    return Err(io::Error::new(ErrorKind::InvalidData, text));
                }
                Event::Piece { bytes, .. } => visit(bytes),
                Event::Hole(_) | Event::Tail(_) => {}
            }
        }
        Ok(())
    }
}

/// A file read from a place of its own.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Takes in what a block tells of the recordings.
fn take_in(block: &[u8], members: &mut Vec<(Member, Figures)>) {
    if let Some(Record::Member(member)) = Record::parse(block) {
        members.push((member, Figures::default()));
    }
    let Some(packet) = super::cut::PacketBlock::of(block) else { return };
    let owner = members.iter_mut().rfind(|(member, _)| member.has(packet.interface));
    if let Some((member, figures)) = owner
        && packet.interface - member.first_interface < pcapng::INTERFACE_NAMES.len() as u32
    {
        *figures = figures.plus(packet.figures());
    }
}

const BLOCK_MIN: u64 = 12;
/// More than any of ours has, in bytes.
const BLOCK_MAX: u64 = 17 << 16;
