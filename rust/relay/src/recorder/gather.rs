//! What came from a worker, in the order of time.
//!
//! A worker that was kept from its sockets finds several packets in each and reads them in turn, so those of
//! one stream may come before older ones of another. What came waits in its chunk until the worker has said that nothing
//! older is left, or has waited long enough; then the packets of a recording are taken one after the other, straight out
//! of the memory they came in.

use std::time::{Duration, Instant};

use foldhash::HashMap;
use rtpproxy_core::recording::RecordingEvent;
use rtpproxy_core::time::Wall;
use slab::Slab;

use super::queue::{Arrived, Chunk, Entry, Item, Note};

/// Packets and notes that wait for older ones.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Those that hold packets that wait.
    chunks: Slab<Held>,
    notes: Slab<Note>,
    /// In the order in which they came.
    waiting: Vec<Waiting>,
    /// Nothing older is to come.
    settled: Wall,
    /// The place of each recording among those that wait, by its number: in the order in which they came first.
    places: HashMap<u64, u32>,
}

impl Gathered {
    /// Takes what came next. An empty chunk comes back at once.
    pub(super) fn take(&mut self, item: Item, now: Instant) -> Option<Box<Chunk>> {
        let mut chunk = match item {
            Item::Chunk(chunk) => chunk,
            Item::Note(note) => {
                self.waiting.push(Waiting::note(note, &mut self.notes));
                return None;
            }
            Item::Preroll(_) => unreachable!("these are in order already and do not come here"),
        };
        self.settled = chunk.settled();
        let place = self.chunks.vacant_key();
        let mut packets = 0;
        for arrived in chunk.arrivals() {
            match arrived {
                Arrived::Packet(index, packet) => {
                    let what = What::Packet { chunk: place as u32, index: index as u32 };
                    self.waiting.push(Waiting { id: packet.id.0, place: 0, at: packet.at.wall, what });
                    packets += 1;
                }
                Arrived::Note(note) => self.waiting.push(Waiting::note(note, &mut self.notes)),
            }
        }
        if packets == 0 {
            return Some(chunk);
        }
        self.chunks.insert(Held { chunk, packets, since: now });
        None
    }

    /// Whether something waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many chunks are held.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Whether something has waited for `span`.
    pub(super) fn is_overdue(&self, now: Instant, span: Duration) -> bool {
        self.chunks.iter().any(|(_, held)| now.saturating_duration_since(held.since) >= span)
    }

    /// Gives what has no older ones to wait for, or everything: recording by recording, the one that came first before the
    /// others, since it may be that a later one takes its name; the packets of each in the order of time, notes where
    /// they came between them. Chunks that are empty then go to `back`.
    pub(super) fn release(
        &mut self,
        all: bool,
        mut give: impl FnMut(Entry<'_>),
        mut back: impl FnMut(Box<Chunk>),
    ) {
        let until = if all { LATER } else { self.settled };
        let mut waiting = std::mem::take(&mut self.waiting);
        self.places.clear();
        for waiting in &mut waiting {
            let next = self.places.len() as u32;
            waiting.place = *self.places.entry(waiting.id).or_insert(next);
        }
        waiting.sort_by_key(|waiting| waiting.place);
        for same in waiting.chunk_by_mut(|one, next| one.id == next.id) {
            self.date_notes(same);
            same.sort_by_key(|waiting| waiting.at);
            for waiting in same.iter_mut().take_while(|waiting| waiting.at <= until) {
                match std::mem::replace(&mut waiting.what, What::Nothing) {
                    What::Nothing => {}
                    What::Note(place) => give(Entry::Note(self.notes.remove(place as usize))),
                    What::Packet { chunk, index } => {
                        let held = &mut self.chunks[chunk as usize];
                        let (packet, payload) = held.chunk.packet(index as usize);
                        give(Entry::Packet(packet, payload));
                        held.packets -= 1;
                        if held.packets == 0 {
                            back(self.chunks.remove(chunk as usize).chunk);
                        }
                    }
                }
            }
        }
        waiting.retain(|waiting| waiting.what != What::Nothing);
        self.waiting = waiting;
    }

    /// Gives the notes of a recording the time of the newest packet before them: what waits then waits for a packet.
    fn date_notes(&self, same: &mut [Waiting]) {
        let mut newest = Wall::default();
        for waiting in same {
            match waiting.what {
                What::Note(place) if waiting.at == LATER => {
                    waiting.at = match &self.notes[place as usize] {
                        Note::Event(event) if matches!(**event, RecordingEvent::Start(_)) => Wall::default(),
                        Note::Event(_) => newest,
                        // The next packet of that stream is the one to say it.
                        Note::Dropped(dropped) => newest.min(dropped.last.wall),
                    };
                }
                What::Note(_) | What::Packet { .. } | What::Nothing => {}
            }
            newest = newest.max(waiting.at);
        }
    }
}

#[derive(Debug)]
struct Held {
    chunk: Box<Chunk>,
    /// How many of its packets wait.
    packets: u32,
    /// When it came.
    since: Instant,
}

/// Small, as it is sorted for every packet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: u64,
    /// That of its recording.
    place: u32,
    at: Wall,
    what: What,
}

impl Waiting {
    fn note(note: Note, notes: &mut Slab<Note>) -> Self {
        Self { id: note.id().0, place: 0, at: LATER, what: What::Note(notes.insert(note) as u32) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Packet {
        chunk: u32,
        index: u32,
    },
    Note(u32),
    /// It was given.
    Nothing,
}

/// After everything else.
const LATER: Wall = Wall(u64::MAX);
