//! Reading a segment: by its indexes where there are some, block by block where there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rtpproxy_core::compression::Content;
use rtpproxy_core::journal::{BLOCK_TYPE, Figures, Index, Member, Record};
use rtpproxy_core::pcapng;
use rtpproxy_core::salvage::{Event, Format, Piece, Salvage};
use rtpproxy_core::sealed::State;

use super::cut::{PacketBlock, end_of};
use crate::content::{Ending, UpToDamage};
use crate::unlock::{Identities, Kind, Unlocked};
use crate::verify::without_part;

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    /// The length at which it is read, though it may grow.
    len: u64,
    /// Places in it are not those that the indexes tell: it is compressed or encrypted, and read from its beginning.
    is_packed: bool,
    identities: Identities,
    /// The indexes, in the order of the file. What they tell of lies before each without a gap.
    indexes: Vec<Index>,
    /// Where what no index tells of begins again.
    tail: u64,
}

/// What is in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    /// A recording, maybe told more than once.
    Member(&'a Member),
    /// A block of something else.
    Block(&'a [u8]),
}

impl Segment {
    /// Opens a segment, which may get its final name meanwhile, with `identities` if it is encrypted.
    pub(super) fn open(path: &Path, identities: &Identities) -> io::Result<(Self, PathBuf)> {
        let (file, path) = match (File::open(path), without_part(path)) {
            (Err(error), Some(finished)) if error.kind() == ErrorKind::NotFound => {
                (File::open(&finished)?, finished)
            }
            (file, _) => (file?, path.to_owned()),
        };
        let len = file.metadata()?.len();
        let identities = identities.clone();
        let mut segment = Self { file, len, is_packed: false, identities, indexes: Vec::new(), tail: len };
        segment.is_packed = {
            let mut content = segment.content()?;
            content.compression().is_some() || content.source_mut().kind() != Kind::Plain
        };
        if !segment.is_packed {
            segment.read_indexes()?;
        }
        Ok((segment, path))
    }

    /// The recordings in it with their figures, each time it tells of them, and what damage hid others.
    pub(super) fn members(&self) -> io::Result<(Members, Option<String>)> {
        if let Some(directory) = self.directory() {
            let entries = directory.iter().flat_map(|index| &index.entries);
            let members = entries.filter_map(|entry| Some((entry.member.clone()?, entry.figures)));
            return Ok((members.collect(), None));
        }
        let mut members = Owners::default();
        let damage = self.scan(self.begin(), &mut |found| take_in(found, &mut members))?;
        for entry in self.parts().flat_map(|index| &index.entries) {
            entry.member.iter().for_each(|member| members.add(member));
            if let Some((_, figures)) = members.of(entry.first_interface) {
                *figures = figures.plus(entry.figures);
            }
        }
        self.walk(self.tail, self.len, &mut |found| take_in(found, &mut members))?;
        Ok((members.into_list(), damage))
    }

    /// Gives what may be of recordings that `wants` wants to `visit`, in order, among others.
    pub(super) fn visit(
        &self,
        wants: &dyn Fn(&Member) -> bool,
        visit: &mut dyn FnMut(Found<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut error = None;
        let mut keep = |found: Found<'_>| {
            if error.is_none() {
                error = visit(found).err();
            }
        };
        let mut wanted = BTreeSet::new();
        self.scan(self.begin(), &mut |found| {
            if let Found::Member(member) = found
                && wants(member)
            {
                wanted.insert(member.first_interface);
            }
            keep(found);
        })?;
        for index in self.parts() {
            for member in index.entries.iter().filter_map(|entry| entry.member.as_ref()) {
                if wants(member) {
                    wanted.insert(member.first_interface);
                    // The block that tells of it may be damaged.
                    keep(Found::Member(member));
                }
            }
            let entries = index.entries.iter().filter(|entry| wanted.contains(&entry.first_interface));
            let mut stretches: Vec<_> = entries.flat_map(|entry| entry.stretches.iter().copied()).collect();
            stretches.sort_unstable();
            // Those of two recordings may overlap.
            let mut done = 0;
            for (at, len) in stretches {
                done = self.walk(at.max(done), at + len, &mut keep)?.max(done);
            }
        }
        self.walk(self.tail, self.len, &mut keep)?;
        error.map_or(Ok(()), Err)
    }

    /// The lists of all recordings, if the segment ends with them.
    fn directory(&self) -> Option<&[Index]> {
        let last = self.indexes.last().filter(|index| index.is_directory && self.tail == self.len)?;
        let begin = self.indexes.partition_point(|index| index.at < last.from || !index.is_directory);
        let is_whole = begin > 0 || self.indexes[0].previous.is_none();
        is_whole.then(|| &self.indexes[begin..])
    }

    /// The indexes that say where packets are.
    fn parts(&self) -> impl Iterator<Item = &Index> {
        self.indexes.iter().filter(|index| !index.is_directory)
    }

    /// Where what the indexes tell of begins.
    fn begin(&self) -> u64 {
        self.indexes.first().map_or(self.len, |index| index.from)
    }

    /// Follows the indexes from the last one on. What is wrong with one ends that, as they are not needed.
    fn read_indexes(&mut self) -> io::Result<()> {
        let mut next = self.last_index()?;
        while let Some((index, end)) = next {
            let is_possible = index.from <= index.to && index.to <= index.at;
            // One after the other they tell of the segment without a gap: those written at once, or what follows.
            let is_next = self.indexes.last().is_none_or(|later: &Index| {
                let is_with =
                    end == later.at && index.to == later.to && !index.is_directory | later.is_directory;
                is_with || (later.at == later.to && end == later.from)
            });
            if !is_possible || !is_next {
                break;
            }
            if self.indexes.is_empty() {
                self.tail = end;
            }
            next = match index.previous.filter(|previous| *previous < index.at) {
                Some(previous) => self.index(previous, &mut Window::default())?,
                None => None,
            };
            self.indexes.push(index);
        }
        self.indexes.reverse();
        Ok(())
    }

    /// The last index of the segment and where it ends, if it is not too far from the end.
    fn last_index(&self) -> io::Result<Option<(Index, u64)>> {
        let (mut chunk, mut window) = (Window::default(), Window::default());
        let mut looked_at = 0;
        let mut end = self.len;
        while end > 0 && looked_at < REACH {
            let from = end.saturating_sub(CHUNK as u64) & !3;
            let len = (end - from) as usize;
            let bytes = chunk.get(&self.file, from, len, len)?;
            let bytes = &bytes[..len.min(bytes.len())];
            looked_at += end - from;
            for place in (0..bytes.len()).step_by(4).rev() {
                if pcapng::word(bytes, place) == Some(BLOCK_TYPE) {
                    let at = from + place as u64;
                    if let Some(found) = self.index(at, &mut window)? {
                        return Ok(Some(found));
                    }
                    looked_at += window.bytes.len() as u64;
                }
            }
            end = from;
        }
        Ok(None)
    }

    /// The index at a place and where it ends; none if there is none.
    fn index(&self, at: u64, window: &mut Window) -> io::Result<Option<(Index, u64)>> {
        let Some(block) = self.block(at, BLOCK_MIN, window)? else { return Ok(None) };
        let end = at + block.len() as u64;
        Ok(match Record::parse(block) {
            Some(Record::Index(index)) if index.at == at => Some((index, end)),
            _ => None,
        })
    }

    /// The whole block at a place, of a type that is ours; none if there is none. Reads `ahead` at once, in bytes.
    fn block<'a>(&self, at: u64, ahead: usize, window: &'a mut Window) -> io::Result<Option<&'a [u8]>> {
        let head = window.get(&self.file, at, HEAD, ahead)?;
        let (Some(kind), Some(len)) = (pcapng::word(head, 0), pcapng::word(head, 4)) else { return Ok(None) };
        let len = len as usize;
        if !KINDS.contains(&kind) || !len.is_multiple_of(4) || !(BLOCK_MIN..=BLOCK_MAX).contains(&len) {
            return Ok(None);
        }
        let block = window.get(&self.file, at, len, ahead)?;
        Ok(block.get(..len).filter(|block| pcapng::word(block, len - 4) == Some(len as u32)))
    }

    /// Looks through a part that begins with a block, over what is damaged. Gives back where the last block ends.
    fn walk(&self, mut at: u64, end: u64, visit: &mut dyn FnMut(Found<'_>)) -> io::Result<u64> {
        let mut window = Window::default();
        let end = end.min(self.len);
        while at < end {
            let ahead = (end - at).min(CHUNK as u64) as usize;
            match self.block(at, ahead, &mut window)? {
                Some(block) => {
                    at += block.len() as u64;
                    give(block, visit);
                }
                None => at += 4,
            }
        }
        Ok(at)
    }

    /// Looks through the beginning of the segment, damaged or not; gives back what was wrong with how it is compressed or
    /// encrypted. That the last chunk is missing of a sealed file that is being written, or was, is not wrong.
    fn scan(&self, end: u64, visit: &mut dyn FnMut(Found<'_>)) -> io::Result<Option<String>> {
        if end == 0 {
            return Ok(None);
        }
        let mut content = self.content()?;
        let limit = if self.is_packed { u64::MAX } else { end };
        let mut salvage = Salvage::new(UpToDamage(&mut content).take(limit), Some(Format::Pcapng))?;
        while let Some(event) = salvage.next()? {
            match event {
                Event::Piece { what: Piece::Head { is_native: false, .. }, .. } => {
                    let text = "it was written by a machine of the other byte order";
                    return Err(io::Error::new(ErrorKind::InvalidData, text));
                }
                Event::Piece { bytes, .. } => give(bytes, visit),
                Event::Hole(_) | Event::Tail(_) => {}
            }
        }
        drop(salvage);
        let broken = content.broken().map(ToString::to_string);
        let source = content.source_mut();
        let holes = source.sealed().and_then(holes);
        Ok(source.cut().map(str::to_owned).or(holes).or(broken))
    }

    /// What it holds, from its beginning.
    fn content(&self) -> io::Result<Content<Ending<At<'_>>>> {
        let mut file = Unlocked::new(At { file: &self.file, at: 0 }, &self.identities)?;
        file.leave_out_damage();
        Content::new(Ending::of(file))
    }
}

/// What was left out of a sealed file.
fn holes(state: &State) -> Option<String> {
    let count = (state.holes.len() as u64 + state.holes_more).max(state.missing.min(1));
    (count > 0)
        .then(|| format!("{count} places in the encrypted file are damaged: what was there is missing"))
}

/// Recordings with their figures.
pub(super) type Members = Vec<(Member, Figures)>;

/// Recordings, each with something of its own, by the interfaces of their packets.
#[derive(Debug)]
pub(super) struct Owners<T> {
    list: Vec<(Member, T)>,
    /// Their places in the list, by their first interfaces; where two say the same, the later one.
    places: BTreeMap<u32, usize>,
}

impl<T> Default for Owners<T> {
    fn default() -> Self {
        Self { list: Vec::new(), places: BTreeMap::new() }
    }
}

impl<T: Default> Owners<T> {
    /// Adds one, if it is not there.
    pub(super) fn add(&mut self, member: &Member) {
        let known = self.places.get(&member.first_interface).map(|place| &self.list[*place].0);
        if known != Some(member) {
            self.places.insert(member.first_interface, self.list.len());
            self.list.push((member.clone(), T::default()));
        }
    }

    /// The one whose packets an interface has.
    pub(super) fn of(&mut self, interface: u32) -> Option<&mut (Member, T)> {
        let (_, place) = self.places.range(..=interface).next_back()?;
        self.list.get_mut(*place).filter(|(member, _)| member.has(interface))
    }

    /// All of them, in the order in which they were told.
    pub(super) fn into_list(self) -> Vec<(Member, T)> {
        self.list
    }
}

/// A part of a file that was read at once.
#[derive(Debug, Default)]
struct Window {
    bytes: Vec<u8>,
    at: u64,
}

impl Window {
    /// What is at a place, `len` bytes at least if there are so many. Reads `ahead` bytes if it has to read.
    fn get(&mut self, file: &File, at: u64, len: usize, ahead: usize) -> io::Result<&[u8]> {
        let behind = at.checked_sub(self.at).and_then(|offset| usize::try_from(offset).ok());
        if behind.and_then(|offset| self.bytes.len().checked_sub(offset)).is_none_or(|left| left < len) {
            self.at = at;
            self.bytes.resize(len.max(ahead), 0);
            let read = read_up_to(file, &mut self.bytes, at)?;
            self.bytes.truncate(read);
        }
        Ok(&self.bytes[(at - self.at) as usize..])
    }
}

/// Reads as much as there is.
fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut source = At { file, at };
    let mut done = 0;
    while done < buffer.len() {
        match source.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
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

fn give(block: &[u8], visit: &mut dyn FnMut(Found<'_>)) {
    match Record::parse(block) {
        Some(Record::Member(member)) => visit(Found::Member(&member)),
        Some(Record::Index(_)) => {}
        None => visit(Found::Block(block)),
    }
}

/// Takes in what is told of the recordings.
fn take_in(found: Found<'_>, members: &mut Owners<Figures>) {
    let block = match found {
        Found::Member(member) => return members.add(member),
        Found::Block(block) => block,
    };
    if let Some(packet) = PacketBlock::of(block) {
        if let Some((member, figures)) = members.of(packet.interface)
            && let stream = packet.interface - member.first_interface
            && stream < pcapng::INTERFACE_NAMES.len() as u32
        {
            *figures = figures.plus(packet.figures(stream));
        }
    } else if let (Some(end), Some(interface)) = (end_of(block), pcapng::word(block, 8))
        && let Some((_, figures)) = members.of(interface)
    {
        *figures = figures.plus(Figures::of_end(Some(end)));
    }
}

/// The types of blocks that are in segments: sections, interfaces, their totals, packets, and ours.
const KINDS: [u32; 5] = [0x0a0d_0d0a, 1, 5, 6, BLOCK_TYPE];
/// The type and the length of a block, in bytes.
const HEAD: usize = 8;
/// The shortest block, in bytes.
const BLOCK_MIN: usize = 12;
/// More than any of ours has, in bytes.
const BLOCK_MAX: usize = 17 << 16;
/// How much is read at once, in bytes.
const CHUNK: usize = 256 << 10;
/// How far from the end the last index is looked for, in bytes; further away, all of the segment is looked through.
const REACH: u64 = 128 << 20;
