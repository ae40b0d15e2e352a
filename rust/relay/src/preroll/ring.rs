//! Packets of one party, the oldest first, in blocks of memory.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rtpproxy_core::effects::KeptPacket;
use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::time::{Mono, Now, Wall};

use super::Memory;

/// The last packets of one party.
#[derive(Debug)]
pub(crate) struct Ring {
    blocks: VecDeque<Arc<Block>>,
    /// The last packet of the first block: how the sweep finds what is too old without following pointers.
    oldest: Mono,
    losses: Losses,
}

impl Ring {
    /// A ring without memory.
    pub(super) fn new() -> Self {
        Self { blocks: VecDeque::new(), oldest: Mono(u64::MAX), losses: Losses::default() }
    }

    /// How many blocks it has.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Adds a packet; false if the last block has no room for it.
    pub(super) fn append(&mut self, packet: &KeptPacket, payload: &[u8]) -> bool {
        // A block that a recording has got as well stays as it is.
        let Some(block) = self.blocks.back_mut().and_then(Arc::get_mut) else { return false };
        let is_in = block.append(packet, payload);
        if is_in && self.blocks.len() == 1 {
            self.oldest = packet.at.mono;
        }
        is_in
    }

    /// Adds an empty block.
    pub(super) fn add(&mut self, block: Arc<Block>) {
        self.blocks.push_back(block);
        self.note_oldest();
    }

    /// Takes the oldest block.
    pub(super) fn pop(&mut self) -> Option<Arc<Block>> {
        let block = self.blocks.pop_front();
        self.note_oldest();
        block
    }

    /// Whether there are blocks without a packet from `since` on.
    pub(super) fn is_too_old(&self, since: Mono) -> bool {
        self.oldest < since
    }

    /// Takes the oldest block if it has no packet from `since` on.
    pub(super) fn pop_too_old(&mut self, since: Mono) -> Option<Arc<Block>> {
        if self.is_too_old(since) { self.pop() } else { None }
    }

    /// Remembers that `packets`, the last one of `last`, were lost to the limit. They matter for `span`.
    pub(super) fn lose(&mut self, last: Mono, packets: u64, span: Duration) {
        self.losses.add(last, packets, span);
    }

    /// How many packets were lost to the limit that came at `since` or later.
    pub(super) fn lost(&self, since: Mono) -> u64 {
        self.losses.sum(since)
    }

    /// The same packets for somebody else.
    pub(super) fn share(&self) -> Self {
        Self { blocks: self.blocks.clone(), oldest: self.oldest, losses: self.losses.clone() }
    }

    /// Reads it from its first packet that came at `since` or later.
    pub(super) fn into_cursor(self, leg: Leg, since: Mono) -> Cursor {
        let packets = self.blocks.iter().map(|block| u64::from(block.packets)).sum();
        let mut cursor = Cursor { leg, blocks: self.blocks, at: 0, packets };
        while cursor.peek().is_some_and(|at| at.mono < since) {
            cursor.next();
        }
        cursor
    }

    fn note_oldest(&mut self) {
        self.oldest = match self.blocks.front() {
            Some(block) if block.packets > 0 => block.last,
            Some(_) | None => Mono(u64::MAX),
        };
    }
}

/// Some packets of one party, in memory that goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Block {
    /// For each packet its head, then its payload.
    bytes: Vec<u8>,
    /// The heads name them by number.
    routes: Vec<Route>,
    packets: u32,
    /// When the last packet came.
    last: Mono,
    size: usize,
    memory: Arc<Memory>,
}

impl Block {
    /// The usual block: all its memory, in bytes.
    pub(super) const SIZE: usize = 4096;
    const OVERHEAD: usize = size_of::<Self>() + 2 * size_of::<usize>() + ROUTES_MAX * size_of::<Route>();

    /// What a block that can hold a packet of `len` bytes takes: only very long packets have larger ones of their own.
    pub(super) fn size_for(len: usize) -> usize {
        Self::SIZE.max(Self::OVERHEAD + HEAD_LEN + len)
    }

    /// An empty block, if there is memory for it.
    pub(super) fn new(memory: &Arc<Memory>, size: usize) -> Option<Arc<Self>> {
        memory.take(size).then(|| {
            Arc::new(Self {
                bytes: Vec::with_capacity(size - Self::OVERHEAD),
                routes: Vec::with_capacity(ROUTES_MAX),
                packets: 0,
                last: Mono(0),
                size,
                memory: Arc::clone(memory),
            })
        })
    }

    /// Empties a block for new packets, if it has this size and nobody else reads it; otherwise it is freed.
    pub(super) fn reuse(mut used: Arc<Self>, size: usize) -> Option<Arc<Self>> {
        let block = Arc::get_mut(&mut used).filter(|block| block.size == size)?;
        block.bytes.clear();
        block.routes.clear();
        block.packets = 0;
        Some(used)
    }

    /// How many packets are in it, and when the last one came.
    pub(super) fn content(&self) -> (u64, Mono) {
        (self.packets.into(), self.last)
    }

    fn append(&mut self, packet: &KeptPacket, payload: &[u8]) -> bool {
        let KeptPacket { channel, at, src, dst, .. } = *packet;
        let Ok(len) = u16::try_from(payload.len()) else { return false };
        if self.bytes.len() + HEAD_LEN + payload.len() > self.size - Self::OVERHEAD {
            return false;
        }
        let route = Route { channel, src, dst };
        let number = self.routes.iter().rposition(|known| *known == route).unwrap_or(self.routes.len());
        if number == ROUTES_MAX {
            return false;
        }
        if number == self.routes.len() {
            self.routes.push(route);
        }
        self.bytes.extend_from_slice(&at.mono.0.to_le_bytes());
        self.bytes.extend_from_slice(&at.wall.0.to_le_bytes());
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.push(number as u8);
        self.bytes.extend_from_slice(payload);
        self.packets += 1;
        self.last = at.mono;
        true
    }

    /// The packet whose head is at `at`, and where the next one is.
    fn read(&self, leg: Leg, at: usize) -> Option<(Kept<'_>, usize)> {
        let (mono, rest) = self.bytes.get(at..)?.split_first_chunk()?;
        let (wall, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (&route, rest) = rest.split_first()?;
        let Route { channel, src, dst } = self.routes[usize::from(route)];
        let payload = &rest[..usize::from(u16::from_le_bytes(*len))];
        let at_time = Now { mono: Mono(u64::from_le_bytes(*mono)), wall: Wall(u64::from_le_bytes(*wall)) };
        let kept = Kept { leg, channel, at: at_time, src, dst, payload };
        Some((kept, at + HEAD_LEN + payload.len()))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.memory.give(self.size);
    }
}

/// A packet that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept<'a> {
    /// Who sent it.
    pub(crate) leg: Leg,
    /// On which port.
    pub(crate) channel: Channel,
    /// When the kernel received it.
    pub(crate) at: Now,
    /// From where.
    pub(crate) src: SocketAddr,
    /// To which of our addresses.
    pub(crate) dst: SocketAddr,
    /// The bytes.
    pub(crate) payload: &'a [u8],
}

/// Reads the packets of a party, and frees what is read.
#[derive(Debug)]
pub(super) struct Cursor {
    leg: Leg,
    blocks: VecDeque<Arc<Block>>,
    /// In the first block.
    at: usize,
    packets: u64,
}

impl Cursor {
    /// How many packets are left.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// When the next packet came.
    pub(super) fn peek(&mut self) -> Option<Now> {
        while self.blocks.front()?.bytes.len() == self.at {
            self.blocks.pop_front();
            self.at = 0;
        }
        self.blocks.front()?.read(self.leg, self.at).map(|(kept, _)| kept.at)
    }

    /// The next packet.
    pub(super) fn next(&mut self) -> Option<Kept<'_>> {
        self.peek()?;
        let (kept, next) = self.blocks.front()?.read(self.leg, self.at)?;
        self.at = next;
        self.packets -= 1;
        Some(kept)
    }
}

/// Where packets come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    channel: Channel,
    src: SocketAddr,
    dst: SocketAddr,
}

/// What was lost to the limit lately: a handful of sums.
#[derive(Clone, Debug, Default)]
struct Losses(VecDeque<(Mono, u64)>);

impl Losses {
    fn add(&mut self, last: Mono, packets: u64, span: Duration) {
        while self.0.front().is_some_and(|(old, _)| last.since(*old) > span) {
            self.0.pop_front();
        }
        let step = (span.as_nanos() as u64 / LOSS_STEPS).max(1);
        match self.0.back_mut() {
            Some((sum_last, sum)) if sum_last.0 / step == last.0 / step => {
                *sum += packets;
                *sum_last = last.max(*sum_last);
            }
            _ => self.0.push_back((last, packets)),
        }
    }

    fn sum(&self, since: Mono) -> u64 {
        self.0.iter().filter(|(last, _)| *last >= since).map(|(_, packets)| packets).sum()
    }
}

/// Both times, the length and the number of the route.
const HEAD_LEN: usize = 8 + 8 + 2 + 1;
/// Routes in a block: usually there is one for RTP and one for RTCP.
const ROUTES_MAX: usize = 4;
/// In how many parts of the time that is kept losses are told apart.
const LOSS_STEPS: u64 = 16;
