//! Sessions: commands, packets and time in, replies and effects out.
//!
//! An [`Engine`] belongs to one worker, which calls
//! - [`Engine::handle_packet`] for each datagram from a media port,
//! - [`Engine::handle_command`] for each command of its calls,
//! - [`Engine::handle_timeout`] when [`Engine::next_deadline`] has come,
//!
//! and carries out the effects after each call, before the next one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::RandomState;
use slab::Slab;

use crate::command::{CallId, Party};
use crate::config::EngineConfig;
use crate::effects::{Effect, MediaPort, Out, PairId};
use crate::recording::EndReason;
use crate::session::Session;
use crate::stats::Stats;
use crate::time::{Mono, Now};

mod commands;
mod copy;
mod dtmf;
mod end;
mod fork;
mod offer;
mod packet;
mod play;
mod query;
mod record;
mod subs;
mod tap;
mod timeouts;
mod transfer;

use play::Appointment;
pub use tap::TapError;
pub use transfer::CallState;

/// Where a datagram came from and where it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The media port.
    pub port: MediaPort,
    /// The sender.
    pub from: SocketAddr,
    /// Our address that it was sent to, if the kernel said so.
    pub to: Option<IpAddr>,
}

/// The sessions of one worker.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    sessions: Slab<Session>,
    /// The sessions of each call, in the order of creation.
    by_call: HashMap<CallId, Vec<usize>, RandomState>,
    /// Which session and side each pair belongs to, by [`PairId`].
    by_pair: Vec<Option<(usize, usize)>>,
    stats: Stats,
    draining: bool,
    /// The next packets of players, the soonest on top.
    appointments: BinaryHeap<Reverse<Appointment>>,
    next_tick: Mono,
    rcvd_at_tick: u64,
}

impl Engine {
    /// An engine without sessions. Its seconds are counted from `now`.
    pub fn new(config: EngineConfig, now: Now) -> Self {
        Self {
            config,
            sessions: Slab::new(),
            by_call: HashMap::default(),
            by_pair: Vec::new(),
            stats: Stats::default(),
            draining: false,
            appointments: BinaryHeap::new(),
            next_tick: now.mono + TICK,
            rcvd_at_tick: 0,
        }
    }

    /// The counters, with the number of sessions.
    pub fn stats(&self) -> Stats {
        Stats { sessions_active: self.sessions.len() as u64, ..self.stats }
    }

    /// Refuses new sessions, or takes them again.
    pub fn set_draining(&mut self, on: bool) {
        self.draining = on;
    }

    /// Deletes every session.
    pub fn delete_all(&mut self, now: Now, reason: EndReason, out: &mut Out) {
        let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.remove(now, key, reason, out);
        }
    }

    /// The first session of the call that the tags mean, and its side (docs/protocol.md, tags).
    fn find(&self, party: &Party) -> Option<(usize, usize)> {
        let keys = self.by_call.get(&party.call_id)?;
        keys.iter().find_map(|key| {
            let side = self.sessions[*key].find(&party.from_tag, party.to_tag.as_ref())?;
            Some((*key, side))
        })
    }

    /// The sessions of a call, in the order of creation.
    fn sessions_of(&self, call_id: &CallId) -> Vec<usize> {
        self.by_call.get(call_id).cloned().unwrap_or_default()
    }

    fn insert(&mut self, session: Session) -> usize {
        let call_id = session.call_id.clone();
        let key = self.sessions.insert(session);
        self.by_call.entry(call_id).or_default().push(key);
        key
    }

    fn claim_pair(&mut self, pair: PairId, session: usize, side: usize) {
        let at = pair.0 as usize;
        if self.by_pair.len() <= at {
            self.by_pair.resize(at + 1, None);
        }
        self.by_pair[at] = Some((session, side));
    }

    fn close_pair(&mut self, pair: PairId, out: &mut Out) {
        if let Some(owner) = self.by_pair.get_mut(pair.0 as usize) {
            *owner = None;
        }
        out.push(Effect::Close(pair));
    }

    fn take(&mut self, key: usize) -> Session {
        self.unlist(key);
        let session = self.sessions.remove(key);
        for source in &session.sources {
            if let Some(source) = self.sessions.get_mut(*source) {
                source.forks.retain(|fork| fork.target != key);
            }
        }
        session
    }

    /// Takes a session out of the table by which commands find it.
    fn unlist(&mut self, key: usize) {
        let call_id = &self.sessions[key].call_id;
        if let Some(keys) = self.by_call.get_mut(call_id) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_call.remove(call_id);
            }
        }
    }
}

/// Sessions are looked at once a second.
const TICK: Duration = Duration::from_secs(1);
