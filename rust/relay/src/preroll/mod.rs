//! The flight recorder: the last seconds of calls, kept in memory for recordings that begin later (docs/recording.md).
//!
//! Each worker has a [`Store`] of its own for the calls it has; all of them together stay within one [`Memory`]. Packets
//! lie in blocks, and everything that costs more than copying a packet happens once for a block: looking for memory,
//! freeing what is too old, making the largest holder give way. A party that speaks steadily fills the block it has just
//! emptied, so nothing is allocated then.
//!
//! When the memory is used up, the party that holds most loses its oldest block. If it is another worker's, that one is asked
//! for a block and gives it up when it gets to it; the worker with the largest holder leaves a reserve to those who ask.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use rtpproxy_core::effects::{HandOver, KeptPacket};
use rtpproxy_core::recording::{KeptId, Leg};
use rtpproxy_core::time::Mono;

mod hand_over;
mod memory;
mod ring;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use self::hand_over::Preroll;
pub(crate) use self::memory::{Memory, PrerollFigures};
use self::ring::Block;
pub(crate) use self::ring::{Kept, Ring};

/// What one worker keeps.
#[derive(Debug)]
pub(crate) struct Store {
    memory: Arc<Memory>,
    /// The number of the worker.
    worker: usize,
    span: Duration,
    rings: HashMap<KeptId, Ring>,
    /// Those that have blocks, by the number of them.
    by_size: BTreeSet<(usize, KeptId)>,
    next_sweep: Mono,
}

impl Store {
    /// A store of the worker with this number that keeps what is not older than `span`.
    pub(crate) fn new(memory: &Arc<Memory>, worker: usize, span: Duration) -> Self {
        Self {
            memory: Arc::clone(memory),
            worker,
            span,
            rings: HashMap::new(),
            by_size: BTreeSet::new(),
            next_sweep: Mono(0),
        }
    }

    /// Keeps a packet, or counts it as lost if there is no memory.
    pub(crate) fn keep(&mut self, packet: &KeptPacket, payload: &[u8]) {
        let (id, now) = (packet.id, packet.at.mono);
        if self.rings.get_mut(&id).is_some_and(|ring| ring.append(packet, payload)) {
            return;
        }
        self.give_what_is_asked(now);
        if !self.rings.contains_key(&id) {
            self.attach(id, Ring::new());
        }
        let before = self.rings[&id].len();
        let block = self.block(id, Block::size_for(payload.len()), now);
        let Some(ring) = self.rings.get_mut(&id) else { return };
        let is_in = block.is_some_and(|block| {
            ring.add(block);
            ring.append(packet, payload)
        });
        if !is_in {
            ring.lose(now, 1, self.span);
            self.memory.lose(1);
        }
        let after = ring.len();
        self.sized(id, before, after);
    }

    /// Gives out what was kept for a recording; `None` if there is nothing to tell.
    pub(crate) fn hand_over(&mut self, order: &HandOver) -> Option<Box<Preroll>> {
        let since = order.at.mono - self.span;
        let ids = order.kept.into_iter().flatten();
        let rings: Vec<(Leg, Ring)> = ids
            .filter_map(|id| {
                let ring = if order.stays { self.rings.get(&id).map(Ring::share) } else { self.detach(id) };
                Some((id.leg, ring?))
            })
            .collect();
        let preroll = Preroll::new(order.to, order.at, since, rings.into_iter());
        (preroll.packets() > 0 || preroll.lost > 0).then(|| Box::new(preroll))
    }

    /// Frees what was kept under a name.
    pub(crate) fn forget(&mut self, id: KeptId) {
        self.detach(id);
    }

    /// Takes out what is kept under a name, for another worker.
    pub(crate) fn detach(&mut self, id: KeptId) -> Option<Ring> {
        let ring = self.rings.remove(&id)?;
        self.sized(id, ring.len(), 0);
        if !self.rings.contains_key(&other_party(id)) {
            self.memory.leave();
        }
        Some(ring)
    }

    /// Takes in what another worker kept.
    pub(crate) fn attach(&mut self, id: KeptId, ring: Ring) {
        if !self.rings.contains_key(&other_party(id)) {
            self.memory.enter();
        }
        self.sized(id, 0, ring.len());
        self.rings.insert(id, ring);
    }

    /// When [`Self::sweep`] wants to be called at the latest.
    pub(crate) fn deadline(&self) -> Mono {
        if self.by_size.is_empty() { Mono(u64::MAX) } else { self.next_sweep }
    }

    /// Frees, once a second, what has become too old of parties that are silent, and what other workers ask for.
    pub(crate) fn sweep(&mut self, now: Mono) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP_PERIOD;
        self.give_what_is_asked(now);
        let since = now - self.span;
        let mut changed = Vec::new();
        for (id, ring) in self.rings.iter_mut().filter(|(_, ring)| ring.is_too_old(since)) {
            let before = ring.len();
            while ring.pop_too_old(since).is_some() {}
            changed.push((*id, before, ring.len()));
        }
        for (id, before, after) in changed {
            self.sized(id, before, after);
        }
    }

    /// A block for a party that needs one. Where it stands by its size must be told afterwards.
    fn block(&mut self, id: KeptId, size: usize, now: Mono) -> Option<Arc<Block>> {
        let since = now - self.span;
        let ring = self.rings.get_mut(&id)?;
        while let Some(old) = ring.pop_too_old(since) {
            if let Some(block) = Block::reuse(old, size) {
                return Some(block);
            }
        }
        if self.memory.is_tight() {
            let most = self.by_size.last().map_or(0, |(blocks, _)| *blocks);
            if self.memory.ask_others(self.worker, most) + 1 < most {
                return self.oust(id, size, now);
            }
        }
        Block::new(&self.memory, size).or_else(|| self.oust(id, size, now))
    }

    /// A block of the party that holds most, which may be the one that needs it.
    fn oust(&mut self, id: KeptId, size: usize, now: Mono) -> Option<Arc<Block>> {
        for _ in 0..OUSTED_MAX {
            let mine = self.rings.get(&id)?.len();
            let largest = self.by_size.iter().rev().find(|(_, other)| *other != id).copied();
            // More than one above: otherwise two would take one block from each other with every packet.
            let ousted = match largest {
                Some((blocks, other)) if blocks > mine + 1 => {
                    let block = self.lose_oldest(other, now);
                    self.sized(other, blocks, blocks - 1);
                    block
                }
                _ => self.lose_oldest(id, now),
            };
            let block = Block::reuse(ousted?, size).or_else(|| Block::new(&self.memory, size));
            if block.is_some() {
                return block;
            }
        }
        None
    }

    /// Takes the oldest block of a party, and counts what was in it as lost unless its time was over.
    fn lose_oldest(&mut self, id: KeptId, now: Mono) -> Option<Arc<Block>> {
        let ring = self.rings.get_mut(&id)?;
        let block = ring.pop()?;
        let (packets, last) = block.content();
        if last >= now - self.span {
            ring.lose(last, packets, self.span);
            self.memory.lose(packets);
        }
        Some(block)
    }

    /// Gives up the blocks that other workers with smaller holders ask for.
    fn give_what_is_asked(&mut self, now: Mono) {
        for _ in 0..self.memory.take_asked(self.worker) {
            let Some(&(blocks, id)) = self.by_size.last() else { return };
            if blocks == 1 {
                return;
            }
            self.lose_oldest(id, now);
            self.sized(id, blocks, blocks - 1);
        }
    }

    /// Notes that a party has another number of blocks.
    fn sized(&mut self, id: KeptId, before: usize, after: usize) {
        if before == after {
            return;
        }
        if before > 0 {
            self.by_size.remove(&(before, id));
        }
        if after > 0 {
            self.by_size.insert((after, id));
        }
        self.memory.tell_largest(self.worker, self.by_size.last().map_or(0, |(blocks, _)| *blocks));
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        while let Some(id) = self.rings.keys().next().copied() {
            self.detach(id);
        }
    }
}

fn other_party(id: KeptId) -> KeptId {
    KeptId { leg: id.leg.other(), ..id }
}

/// How often it is looked for what silent parties have left.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
/// How many blocks a packet may cost others: the longest one takes the room of three, and recordings may still read
/// what is taken.
const OUSTED_MAX: usize = 4;
