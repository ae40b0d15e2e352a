//! Whether the indexes of a segment say what its blocks are.

use std::collections::{BTreeMap, BTreeSet};

use rtpproxy_core::journal::{Entry, Figures, Index, Member, Record};
use rtpproxy_core::salvage::{Origin, Packet, Piece};
use rtpproxy_core::time::Wall;

use super::segment::Owners;

/// An index that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongIndex {
    /// Where it is, in bytes.
    pub at: u64,
    /// What is wrong.
    pub text: String,
}

/// Compares the indexes of a segment with its blocks, which are given one after the other.
#[derive(Debug, Default)]
pub(crate) struct IndexCheck {
    recordings: Owners<Figures>,
    /// The blocks since the last index.
    part: Vec<Block>,
    /// The indexes that were written at once, and are just read.
    group: Option<Group>,
    previous: Option<u64>,
    /// The lists of all recordings name these.
    listed: BTreeSet<u32>,
    wrong: Vec<WrongIndex>,
    /// What follows is not to be compared: there was damage, or too much without an index.
    is_over: bool,
}

/// One of a recording.
#[derive(Debug)]
struct Block {
    at: u64,
    len: u64,
    first_interface: u32,
    figures: Figures,
}

#[derive(Debug)]
struct Group {
    at: u64,
    to: u64,
    /// What is in the part of the segment, by first interfaces, and not listed yet.
    recordings: BTreeMap<u32, Part>,
}

/// What a part of a segment has of a recording.
#[derive(Debug, Default)]
struct Part {
    figures: Figures,
    blocks: Vec<(u64, u64)>,
}

impl IndexCheck {
    /// Takes in the next piece of the segment.
    pub(crate) fn piece(&mut self, at: u64, bytes: &[u8], what: &Piece<'_>) {
        if self.is_over {
            return;
        }
        let len = bytes.len() as u64;
        match Record::parse(bytes) {
            Some(Record::Index(index)) => return self.index(at, index),
            Some(Record::Member(member)) => {
                self.recordings.add(&member);
                return self.note(at, len, member.first_interface, Figures::default());
            }
            None => {}
        }
        match what {
            Piece::Packet(packet) => {
                self.note(at, len, packet.interface, figures(packet));
            }
            Piece::Interface { number } => self.note(at, len, *number, Figures::default()),
            Piece::Totals { interface } => self.note(at, len, *interface, Figures::default()),
            Piece::Head { .. } | Piece::Other => {}
        }
    }

    /// There is damage: no index is right behind it.
    pub(crate) fn stop(&mut self) {
        self.is_over = true;
    }

    /// What is wrong, the first of it.
    pub(crate) fn finish(mut self) -> Vec<WrongIndex> {
        self.end_group();
        if !self.is_over && !self.listed.is_empty() {
            let at = self.previous.unwrap_or_default();
            for (member, _) in self.recordings.into_list() {
                if !self.listed.contains(&member.first_interface) {
                    complain(
                        &mut self.wrong,
                        at,
                        format!("the list of all recordings lacks {}", name(&member)),
                    );
                }
            }
        }
        self.wrong
    }

    fn note(&mut self, at: u64, len: u64, interface: u32, figures: Figures) {
        self.end_group();
        let Some((member, total)) = self.recordings.of(interface) else { return };
        *total = total.plus(figures);
        self.part.push(Block { at, len, first_interface: member.first_interface, figures });
        self.is_over = self.part.len() > BLOCKS_MAX;
    }

    fn index(&mut self, at: u64, index: Index) {
        if index.at != at {
            self.complain(at, format!("it says that it is at {}", index.at));
        }
        if index.previous != self.previous {
            let text = |place: Option<u64>| place.map_or("none".to_owned(), |at| format!("the one at {at}"));
            let (said, is) = (text(index.previous), text(self.previous));
            self.complain(at, format!("the one before it is {is}, and it says {said}"));
        }
        self.previous = Some(at);
        if self.group.as_ref().is_some_and(|group| group.to != index.to) {
            self.end_group();
        }
        if index.is_directory {
            index.entries.iter().for_each(|entry| self.total(at, entry));
            return;
        }
        let mut group = self.group.take().unwrap_or_else(|| self.begin_group(at, &index));
        for entry in &index.entries {
            let part = group.recordings.remove(&entry.first_interface).unwrap_or_default();
            self.entry(at, entry, &part);
        }
        self.group = Some(group);
    }

    /// Compares what is said of all of a recording.
    fn total(&mut self, at: u64, entry: &Entry) {
        self.listed.insert(entry.first_interface);
        let Some((member, figures)) = self.recordings.of(entry.first_interface) else {
            return self
                .complain(at, format!("it lists interface {}, which is nobody's", entry.first_interface));
        };
        if entry.member.as_ref() != Some(member) {
            let text = format!("it lists {} as another recording", name(member));
            self.complain(at, text);
        } else if counted(&entry.figures) != counted(figures) {
            let (said, is) = (entry.figures.packets, figures.packets);
            let text = format!("{} has {is} packets, and it says {said}, or of another time", name(member));
            self.complain(at, text);
        }
    }

    /// Compares what is said of a recording in a part of the segment.
    fn entry(&mut self, at: u64, entry: &Entry, part: &Part) {
        let Some((member, _)) = self.recordings.of(entry.first_interface) else {
            return self
                .complain(at, format!("it lists interface {}, which is nobody's", entry.first_interface));
        };
        let is_found = |(at, len): &(u64, u64)| {
            let next = entry.stretches.partition_point(|(begin, _)| begin <= at);
            let stretch = next.checked_sub(1).map(|last| entry.stretches[last]);
            stretch.is_some_and(|(begin, known)| at + len <= begin.saturating_add(known))
        };
        let name = name(member);
        if let Some((block, _)) = part.blocks.iter().find(|block| !is_found(block)) {
            self.complain(at, format!("it does not lead to what is at {block} of {name}"));
        } else if counted(&entry.figures) != counted(&part.figures) {
            let (said, is) = (entry.figures.packets, part.figures.packets);
            self.complain(
                at,
                format!("there are {is} packets of {name}, and it says {said}, or of another time"),
            );
        }
    }

    fn begin_group(&mut self, at: u64, index: &Index) -> Group {
        let mut recordings: BTreeMap<_, Part> = BTreeMap::new();
        // What is in front of the first one may be looked through.
        for block in self.part.drain(..).filter(|block| block.at >= index.from) {
            let part = recordings.entry(block.first_interface).or_default();
            part.figures = part.figures.plus(block.figures);
            part.blocks.push((block.at, block.len));
        }
        Group { at, to: index.to, recordings }
    }

    fn end_group(&mut self) {
        let Some(Group { at, recordings, .. }) = self.group.take() else { return };
        for first_interface in recordings.into_keys() {
            if let Some((member, _)) = self.recordings.of(first_interface) {
                let text = format!("it does not list {}, which is in front of it", name(member));
                self.complain(at, text);
            }
        }
    }

    fn complain(&mut self, at: u64, text: String) {
        complain(&mut self.wrong, at, text);
    }
}

fn complain(wrong: &mut Vec<WrongIndex>, at: u64, text: String) {
    if wrong.len() < WRONG_MAX {
        wrong.push(WrongIndex { at, text });
    }
}

fn figures(packet: &Packet<'_>) -> Figures {
    if packet.origin == Origin::Synthetic {
        return Figures::default();
    }
    let bytes = packet.datagram.map_or(0, |datagram| datagram.payload.len());
    Figures::of_packet(packet.interface, packet.at, None, bytes, packet.dropped)
}

/// What the packets themselves tell: those that are missing may be told at the end.
fn counted(figures: &Figures) -> (u64, u64, Option<Wall>, Option<Wall>) {
    (figures.packets, figures.bytes, figures.first, figures.last)
}

fn name(member: &Member) -> String {
    let call_id = String::from_utf8_lossy(member.call_id.as_bytes());
    format!("recording {} of {call_id}", member.recording)
}

/// How many blocks without an index are compared: those of a second are far fewer.
const BLOCKS_MAX: usize = 4 << 20;
/// How many faults are told.
const WRONG_MAX: usize = 20;
