//! The way from a worker to the recorder thread: copies of packets in re-used chunks, and events between
//! them, in order.
//!
//! ```text
//! worker                                                        recorder thread
//! RecorderTap ──► chunks of packets and events, in order ──► ring ──► Outlet
//!             ◄── emptied chunks ◄──────────────────────── ring ◄──
//! ```
//!
//! A new chunk is allocated only when none came back and the process-wide [`Budget`] has room, so memory
//! grows only while the disk stalls. Without a chunk the copy of a packet is dropped and counted, and the
//! count travels ahead of the next thing that is told of that stream.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use rtpproxy_core::effects::RecordPacket;
use rtpproxy_core::recording::{Channel, Leg, RecordingEvent, RecordingId};
use rtpproxy_core::time::{Mono, Now, Wall};

use crate::preroll::Preroll;

/// A worker's end: copies packets and events towards the recorder, without ever blocking.
///
/// There is no allocation for a packet as long as the recorder keeps up, and no wake-up of another thread.
/// A tap of a relay without a recording folder swallows everything.
pub struct RecorderTap {
    inlet: Option<Inlet>,
}

impl RecorderTap {
    /// Copies one packet of a recording, or counts it as dropped when there is no memory for it.
    pub fn packet(&mut self, record: &RecordPacket, payload: &[u8]) {
        if let Some(inlet) = &mut self.inlet {
            inlet.packet(record, payload);
        }
    }

    /// Tells of an event, behind all packets given so far. Never lost.
    pub fn event(&mut self, event: RecordingEvent) {
        if let Some(inlet) = &mut self.inlet {
            inlet.event(event);
        }
    }

    /// Gives the packets from before a recording, behind its start, as they are: nothing is copied. Their memory counts
    /// where they were kept.
    pub(crate) fn preroll(&mut self, preroll: Box<Preroll>) {
        if let Some(inlet) = &mut self.inlet {
            inlet.hand_over();
            inlet.push(Item::Preroll(preroll));
        }
    }

    /// Hands over what has waited for 20 ms; call it at the end of each batch. All packets that
    /// came until `settled` have been given.
    ///
    /// Returns when to call it again at the latest, if anything is left.
    pub fn flush(&mut self, now: Mono, settled: Wall) -> Option<Mono> {
        let inlet = self.inlet.as_mut()?;
        inlet.settled = settled;
        inlet.flush(now)
    }

    /// A tap that leads nowhere.
    pub(super) fn closed() -> Self {
        Self { inlet: None }
    }
}

/// A way from one worker to the recorder, with at most `budget` bytes on it over all workers.
pub(super) fn way(budget: &Arc<Budget>) -> (RecorderTap, Outlet) {
    let (full, items) = rtrb::RingBuffer::new(budget.limit / Chunk::SIZE + RING_RESERVE);
    let (spare, empty) = rtrb::RingBuffer::new(SPARE_CHUNKS);
    let remainder = Arc::new(Mutex::new(VecDeque::new()));
    let inlet = Inlet {
        open: None,
        full,
        empty,
        overflow: VecDeque::new(),
        budget: Arc::clone(budget),
        dropped: HashMap::new(),
        settled: Wall::default(),
        remainder: Arc::clone(&remainder),
    };
    (RecorderTap { inlet: Some(inlet) }, Outlet { items, spare, remainder })
}

/// How much memory all chunks of the process may take.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// Packets that found no room.
    dropped: AtomicU64,
}

impl Budget {
    /// A budget of `bytes`, but never so small that a worker could get no chunk at all.
    pub(super) fn new(bytes: usize, workers: usize) -> Arc<Self> {
        let limit = bytes.max(workers * CHUNKS_MIN * Chunk::SIZE);
        Arc::new(Self { limit, used: AtomicUsize::new(0), dropped: AtomicU64::new(0) })
    }

    /// How many bytes there may be.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// How many there are.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many packets found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let room = |used: usize| Some(used + bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    /// Takes no more than half of everything, so that workers can go on.
    fn lend(&self, bytes: usize) -> bool {
        let room = |used: usize| Some(used + bytes).filter(|&sum| sum <= self.limit / 2);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Memory of the [`Budget`] for what waits behind the queue, given back when dropped.
#[derive(Debug)]
pub(super) struct Loan {
    budget: Arc<Budget>,
    /// How much it is.
    pub(super) bytes: usize,
}

impl Loan {
    /// Nothing yet.
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Borrows some more, if there is some.
    pub(super) fn extend(&mut self) -> bool {
        let has_more = self.budget.lend(LOAN_STEP);
        self.bytes += if has_more { LOAN_STEP } else { 0 };
        has_more
    }

    /// Gives everything back.
    pub(super) fn repay(&mut self) {
        self.budget.give(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.repay();
    }
}

/// What travels over the ring.
#[derive(Debug)]
pub(super) enum Item {
    /// Several entries.
    Chunk(Box<Chunk>),
    /// A note that found no chunk to be in.
    Note(Note),
    /// The packets from before a recording.
    Preroll(Box<Preroll>),
}

/// What was told of a recording.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    /// A packet.
    Packet(&'a PacketHead, &'a [u8]),
    /// What happened between packets.
    Note(Note),
}

/// What happens between packets.
#[derive(Debug)]
pub(super) enum Note {
    /// Something happened to a recording.
    Event(Box<RecordingEvent>),
    /// Packets are missing here.
    Dropped(Box<Dropped>),
}

impl Note {
    /// The recording it is about.
    pub(super) fn id(&self) -> RecordingId {
        match self {
            Self::Event(event) => event.id(),
            Self::Dropped(dropped) => dropped.id,
        }
    }
}

/// One entry of a chunk.
#[derive(Debug)]
pub(super) enum Arrived<'a> {
    /// A packet, and its number for [`Chunk::packet`].
    Packet(usize, &'a PacketHead),
    /// What happened between packets, taken out of the chunk.
    Note(Note),
}

/// What is known of a recorded packet besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PacketHead {
    /// The recording.
    pub(super) id: RecordingId,
    /// Who sent it.
    pub(super) leg: Leg,
    /// On which port.
    pub(super) channel: Channel,
    /// When the kernel received it.
    pub(super) at: Now,
    /// From where.
    pub(super) src: SocketAddr,
    /// To which of our addresses.
    pub(super) dst: SocketAddr,
}

/// Packets of one stream that were not copied for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    /// The recording.
    pub(super) id: RecordingId,
    /// Who sent them.
    pub(super) leg: Leg,
    /// On which port.
    pub(super) channel: Channel,
    /// How many.
    pub(super) packets: u64,
    /// When the first came.
    pub(super) first: Now,
    /// When the last came.
    pub(super) last: Now,
}

/// Packets one after the other, in memory of a fixed size.
#[derive(Debug)]
pub(super) struct Chunk {
    entries: Vec<Stored>,
    bytes: Vec<u8>,
    /// What [`RecorderTap::flush`] was told last.
    settled: Wall,
    budget: Arc<Budget>,
}

impl Chunk {
    /// The memory of a chunk, in bytes.
    pub(super) const SIZE: usize = Self::BYTES + Self::ENTRIES * size_of::<Stored>();
    /// Room for payloads: two of the largest, or 112 of a usual 20 ms of G.711.
    const BYTES: usize = 20 << 10;
    const ENTRIES: usize = 112;

    fn new(budget: &Arc<Budget>) -> Option<Box<Self>> {
        budget.take(Self::SIZE).then(|| {
            Box::new(Self {
                entries: Vec::with_capacity(Self::ENTRIES),
                bytes: Vec::with_capacity(Self::BYTES),
                settled: Wall::default(),
                budget: Arc::clone(budget),
            })
        })
    }

    /// The entries, in order.
    pub(super) fn arrivals(&mut self) -> impl Iterator<Item = Arrived<'_>> {
        self.entries.iter_mut().enumerate().filter_map(|(index, stored)| match stored {
            Stored::Packet(head, _) => Some(Arrived::Packet(index, head)),
            Stored::Note(note) => note.take().map(Arrived::Note),
        })
    }

    /// The packet with this number.
    pub(super) fn packet(&self, index: usize) -> (&PacketHead, &[u8]) {
        match &self.entries[index] {
            Stored::Packet(head, payload) => {
                (head, &self.bytes[payload.start as usize..payload.end as usize])
            }
            Stored::Note(_) => unreachable!("only packets have been given such numbers"),
        }
    }

    /// When it was handed over, all packets that came until then had been.
    pub(super) fn settled(&self) -> Wall {
        self.settled
    }

    /// Whether a packet of `len` bytes and a note on dropped ones still fit.
    fn has_room(&self, len: usize) -> bool {
        self.entries.len() + 2 <= Self::ENTRIES && self.bytes.len() + len <= Self::BYTES
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.budget.give(Self::SIZE);
    }
}

#[derive(Debug)]
enum Stored {
    /// With the place of its payload.
    Packet(PacketHead, Range<u32>),
    /// Until it is taken.
    Note(Option<Note>),
}

/// The recorder's end of a way.
#[derive(Debug)]
pub(super) struct Outlet {
    items: rtrb::Consumer<Item>,
    spare: rtrb::Producer<Box<Chunk>>,
    remainder: Arc<Mutex<VecDeque<Item>>>,
}

impl Outlet {
    /// The next item, in order.
    pub(super) fn next(&mut self) -> Option<Item> {
        // Looked at before the pop: once true, nothing more is pushed, and the remainder is complete.
        let is_last = self.items.is_abandoned();
        self.items.pop().ok().or_else(|| {
            is_last.then(|| self.remainder.lock().unwrap_or_else(PoisonError::into_inner).pop_front())?
        })
    }

    /// Gives a chunk back to the worker. Few are kept, so that memory shrinks after a stall.
    pub(super) fn give_back(&mut self, mut chunk: Box<Chunk>) {
        chunk.clear();
        // A full ring gives the chunk back to us: freed.
        let _ = self.spare.push(chunk);
    }
}

struct Inlet {
    /// The chunk being filled, and since when; never empty.
    open: Option<(Box<Chunk>, Mono)>,
    full: rtrb::Producer<Item>,
    empty: rtrb::Consumer<Box<Chunk>>,
    /// What the ring had no room for. Chunks are bounded by the budget, events are few.
    overflow: VecDeque<Item>,
    budget: Arc<Budget>,
    dropped: HashMap<(RecordingId, Leg, Channel), Dropped>,
    /// All packets that came until then have been given.
    settled: Wall,
    remainder: Arc<Mutex<VecDeque<Item>>>,
}

impl Inlet {
    fn packet(&mut self, record: &RecordPacket, payload: &[u8]) {
        let payload = &payload[..payload.len().min(Chunk::BYTES)];
        if self.open.as_ref().is_some_and(|(chunk, _)| !chunk.has_room(payload.len())) {
            self.hand_over();
        }
        if self.open.is_none() {
            let Some(chunk) = self.empty_chunk() else {
                self.count_dropped(record);
                return;
            };
            self.open = Some((chunk, record.at.mono));
        }
        let missing = self.take_dropped((record.id, record.leg, record.channel));
        let Some((chunk, _)) = &mut self.open else { return };
        chunk.entries.extend(missing.map(|note| Stored::Note(Some(note))));
        let start = chunk.bytes.len() as u32;
        chunk.bytes.extend_from_slice(payload);
        chunk.entries.push(Stored::Packet(PacketHead::of(record), start..chunk.bytes.len() as u32));
    }

    fn event(&mut self, event: RecordingEvent) {
        for leg in [Leg::Caller, Leg::Callee] {
            for channel in [Channel::Rtp, Channel::Rtcp] {
                if let Some(dropped) = self.take_dropped((event.id(), leg, channel)) {
                    self.note(dropped);
                }
            }
        }
        self.note(Note::Event(Box::new(event)));
    }

    /// Puts a note into the open chunk, or on its way alone if there is none with room.
    fn note(&mut self, note: Note) {
        match &mut self.open {
            Some((chunk, _)) if chunk.entries.len() < Chunk::ENTRIES => {
                chunk.entries.push(Stored::Note(Some(note)));
            }
            Some(_) | None => {
                self.hand_over();
                self.push(Item::Note(note));
            }
        }
    }

    fn flush(&mut self, now: Mono) -> Option<Mono> {
        self.retry_overflow();
        if let Some((_, since)) = &self.open
            && now.since(*since) >= CHUNK_AGE
        {
            self.hand_over();
        }
        let retry = (!self.overflow.is_empty()).then_some(now + CHUNK_AGE_MAX);
        self.open.as_ref().map(|(_, since)| *since + CHUNK_AGE_MAX).or(retry)
    }

    fn hand_over(&mut self) {
        if let Some((mut chunk, _)) = self.open.take() {
            chunk.settled = self.settled;
            self.push(Item::Chunk(chunk));
        }
    }

    fn push(&mut self, item: Item) {
        self.retry_overflow();
        if !self.overflow.is_empty() {
            self.overflow.push_back(item);
        } else if let Err(rtrb::PushError::Full(item)) = self.full.push(item) {
            self.overflow.push_back(item);
        }
    }

    fn retry_overflow(&mut self) {
        while !self.full.is_full() {
            let Some(item) = self.overflow.pop_front() else { return };
            if let Err(rtrb::PushError::Full(item)) = self.full.push(item) {
                self.overflow.push_front(item);
                return;
            }
        }
    }

    fn empty_chunk(&mut self) -> Option<Box<Chunk>> {
        self.empty.pop().ok().or_else(|| Chunk::new(&self.budget))
    }

    fn count_dropped(&mut self, record: &RecordPacket) {
        let PacketHead { id, leg, channel, at, .. } = PacketHead::of(record);
        let none = Dropped { id, leg, channel, packets: 0, first: at, last: at };
        let dropped = self.dropped.entry((id, leg, channel)).or_insert(none);
        dropped.packets += 1;
        dropped.last = at;
        self.budget.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn take_dropped(&mut self, key: (RecordingId, Leg, Channel)) -> Option<Note> {
        if self.dropped.is_empty() {
            return None;
        }
        self.dropped.remove(&key).map(|dropped| Note::Dropped(Box::new(dropped)))
    }
}

impl Drop for Inlet {
    /// Leaves behind what the ring has no room for; the recorder reads it after the ring.
    fn drop(&mut self) {
        self.hand_over();
        let mut remainder = self.remainder.lock().unwrap_or_else(PoisonError::into_inner);
        remainder.append(&mut self.overflow);
        let dropped = self.dropped.drain().map(|(_, dropped)| Item::Note(Note::Dropped(Box::new(dropped))));
        remainder.extend(dropped);
    }
}

impl PacketHead {
    fn of(record: &RecordPacket) -> Self {
        let RecordPacket { id, leg, channel, at, src, dst, payload: _ } = *record;
        Self { id, leg, channel, at, src, dst }
    }
}

/// How long a chunk waits for more packets while the worker is awake.
const CHUNK_AGE: Duration = Duration::from_millis(20);
/// How long it waits until the worker has to wake up for it: short against the wait for the disk.
const CHUNK_AGE_MAX: Duration = Duration::from_millis(50);
/// What a worker can have in any case.
const CHUNKS_MIN: usize = 2;
/// How much is borrowed at a time, in bytes.
const LOAN_STEP: usize = 16 << 10;
/// Emptied chunks that wait for the worker, at most.
const SPARE_CHUNKS: usize = 16;
/// Places in the ring besides those for chunks.
const RING_RESERVE: usize = 1024;

#[cfg(test)]
mod tests {
    use rtpproxy_core::effects::Payload;
    use rtpproxy_core::time::Wall;

    use super::*;

    #[test]
    fn memory_does_not_grow_while_the_recorder_keeps_up() {
        let budget = Budget::new(64 << 20, 1);
        let (mut tap, mut outlet) = way(&budget);
        for n in 0..1000 {
            send(&mut tap, n);
            empty(&mut outlet);
        }
        assert!(used(&budget) <= 2);
    }

    #[test]
    fn memory_is_given_back_after_a_stall_and_never_exceeds_the_budget() {
        let budget = Budget::new(100 * Chunk::SIZE + 1, 2);
        let (mut tap, mut outlet) = way(&budget);
        let (mut other_tap, other_outlet) = way(&budget);
        send(&mut other_tap, 0);
        for n in 0..20_000 {
            send(&mut tap, n);
        }
        assert_eq!(used(&budget), 100);
        empty(&mut outlet);
        assert!(used(&budget) <= SPARE_CHUNKS + 2);
        drop((tap, outlet, other_tap, other_outlet));
        assert_eq!(used(&budget), 0);
    }

    fn send(tap: &mut RecorderTap, n: u64) {
        let at = Now { mono: Mono(n * 1_000_000), wall: Wall(n) };
        let record = RecordPacket {
            id: RecordingId(1),
            leg: Leg::Caller,
            channel: Channel::Rtp,
            at,
            src: ([192, 0, 2, 1], 4000).into(),
            dst: ([192, 0, 2, 2], 5000).into(),
            payload: Payload::Received,
        };
        tap.packet(&record, &[0; 172]);
        tap.flush(at.mono, at.wall);
    }

    fn empty(outlet: &mut Outlet) {
        while let Some(item) = outlet.next() {
            if let Item::Chunk(chunk) = item {
                outlet.give_back(chunk);
            }
        }
    }

    /// In chunks.
    fn used(budget: &Budget) -> usize {
        budget.used() / Chunk::SIZE
    }
}
