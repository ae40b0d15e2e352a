//! Forks: what the parties of one session send is sent to those of another one as well.

use tracing::info;

use super::dtmf::watch;
use super::packet::{Passing, witness};
use super::subs::Place;
use super::{Arrival, Engine};
use crate::command::{Party, SubResult};
use crate::effects::{Effect, MediaPort, Out};
use crate::session::Fork;
use crate::time::Now;

impl Engine {
    /// The sub-command `C`: from now on what `source` receives goes to the parties at `place` as well.
    pub(super) fn fork_from(&mut self, source: &Party, place: Place) -> SubResult {
        let target = &self.sessions[place.key];
        let found = self.find(source).filter(|(key, _)| *key != place.key);
        let Some((key, found)) = found else {
            info!(
                call_id = %target.call_id,
                "can't fork: session {} {} is not found, or is this one", source.call_id, source.from_tag
            );
            return SubResult::Failed;
        };
        info!(call_id = %target.call_id, "media of {} {} goes here too", source.call_id, source.from_tag);
        let fork = Fork { target: place.key, first_to: if found == 0 { place.side } else { 1 - place.side } };
        let forks = &mut self.sessions[key].forks;
        forks.retain(|other| other.target != place.key);
        forks.push(fork);
        let sources = &mut self.sessions[place.key].sources;
        if !sources.contains(&key) {
            sources.push(key);
        }
        SubResult::Done
    }

    /// Sends an accepted packet to the forks of its session.
    ///
    /// To a fork it is as if the other party of the fork had sent it: that one's witnesses see it. It is
    /// not forked on.
    pub(super) fn fork(
        &mut self,
        now: Now,
        (key, side): (usize, usize),
        passing: &Passing<'_>,
        out: &mut Out,
    ) {
        let channel = passing.arrival.port.channel;
        for at in 0..self.sessions[key].forks.len() {
            let fork = self.sessions[key].forks[at];
            let target = &mut self.sessions[fork.target];
            let (to_side, from_side) = (fork.to_side(side), 1 - fork.to_side(side));
            let (Some(via), Some(_)) = (target.sides[to_side].pair, target.sides[from_side].pair) else {
                continue;
            };
            let to = target.sides[to_side].stream(channel).latch.destination(now.mono);
            let arrival = Arrival { to: None, ..*passing.arrival };
            let passing = Passing { arrival: &arrival, payload: passing.payload.clone(), ..*passing };
            witness(&self.config, now, target, from_side, &passing, out);
            if watch(from_side, &mut target.sides[from_side], &passing, out) {
                continue;
            }
            target.touch(from_side);
            let Some(to) = to else { continue };
            for _ in 0..passing.copies(&self.config) {
                let via = MediaPort { pair: via.id, channel };
                out.push(Effect::Send { payload: passing.payload.clone(), via, to });
            }
        }
    }
}
