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
use tracing::info;

use crate::command::{CallId, Party};
use crate::config::EngineConfig;
use crate::effects::{Effect, MediaPort, Out, PairId, SessionEnd};
use crate::recording::{Channel, EndReason};
use crate::session::Session;
use crate::stats::Stats;
use crate::time::{Mono, Now};

mod commands;
mod copy;
mod dtmf;
mod fork;
mod offer;
mod packet;
mod play;
mod query;
mod record;
mod subs;
mod timeouts;
mod transfer;

use play::Appointment;
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

    /// Takes a session out of the tables and winds it up.
    fn remove(&mut self, now: Now, key: usize, reason: EndReason, out: &mut Out) {
        self.end_recordings(now, key, reason, out);
        let session = self.take(key);
        for side in &session.sides {
            if let Some(pair) = side.pair {
                self.close_pair(pair.id, out);
            }
        }
        self.end_players(&session);
        self.count_end(now, &session);
        log_end(&session);
        out.push(Effect::Ended(Box::new(SessionEnd {
            call_id: session.call_id,
            from_tag: session.from_tag,
            timed_out: reason == EndReason::Timeout,
        })));
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

    fn count_end(&mut self, now: Now, session: &Session) {
        let stats = &mut self.stats;
        stats.nsess_destroyed += 1;
        stats.total_duration += now.mono.since(session.created.mono).as_secs_f64();
        if session.complete {
            let silent = |channel: Channel| {
                let heard = |side: usize| match channel {
                    Channel::Rtp => session.sides[side].rtp.packets > 0,
                    Channel::Rtcp => session.sides[side].rtcp.packets > 0,
                };
                (heard(0), heard(1))
            };
            match silent(Channel::Rtp) {
                (false, false) => stats.nsess_nortp += 1,
                (true, true) => {}
                _ => stats.nsess_owrtp += 1,
            }
            match silent(Channel::Rtcp) {
                (false, false) => stats.nsess_nortcp += 1,
                (true, true) => {}
                _ => stats.nsess_owrtcp += 1,
            }
        }
        for side in &session.sides {
            let report = side.analyzer.report();
            stats.rtpa_nsent = stats.rtpa_nsent.wrapping_add(report.nsent);
            stats.rtpa_nrcvd += report.nrcvd;
            stats.rtpa_ndups += report.ndups;
            stats.rtpa_nlost = stats.rtpa_nlost.wrapping_add(report.nlost);
            stats.rtpa_perrs += report.perrs;
            let queued = side.resizer.as_ref().map_or(0, |resizer| resizer.queued());
            stats.npkts_resizer_discard += queued as u64;
        }
    }
}

/// The lines that the log shows at the end of a session.
fn log_end(session: &Session) {
    let call_id = &session.call_id;
    for (name, counts) in [("RTP", &session.rtp), ("RTCP", &session.rtcp)] {
        info!(
            call_id = %call_id,
            "{name} stats: {} in from callee, {} in from caller, {} relayed, {} dropped, {} ignored",
            if name == "RTP" { session.sides[0].rtp.packets } else { session.sides[0].rtcp.packets },
            if name == "RTP" { session.sides[1].rtp.packets } else { session.sides[1].rtcp.packets },
            counts.relayed, counts.dropped, counts.ignored,
        );
    }
    for side in [1, 0] {
        let stream = &session.sides[side].rtp;
        let (Some(first), Some(last)) = (stream.first_packet, stream.last_packet) else { continue };
        let since = |at: Mono| at.since(session.created.mono).as_secs_f64();
        info!(
            call_id = %call_id,
            "RTP times of the {}: first packet {:.3} s after the start, last {:.3} s, longest gap {:.3} s",
            crate::session::leg_of(side).name(), since(first), since(last), stream.longest_gap_s,
        );
    }
    for side in [1, 0] {
        let report = session.sides[side].analyzer.report();
        let Some(ssrc) = report.ssrc_last else { continue };
        info!(
            call_id = %call_id,
            "RTP stream from {}: SSRC=0x{ssrc:08X}, ssrc_changes={}, psent={}, precvd={}, plost={}, pdups={}",
            crate::session::leg_of(side).name(), report.ssrc_changes, report.nsent, report.nrcvd,
            report.nlost as i64, report.ndups,
        );
    }
    let port = |side: usize| session.sides[side].pair.map_or(0, |pair| pair.port);
    info!(call_id = %call_id, "session on ports {}/{} is cleaned up", port(0), port(1));
}

/// Sessions are looked at once a second.
const TICK: Duration = Duration::from_secs(1);
