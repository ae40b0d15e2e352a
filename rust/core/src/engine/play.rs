//! `P` and `S`: prompts, and the packets they make (docs/protocol.md, P and S).

use std::cmp::Reverse;
use std::net::SocketAddr;

use tracing::{error, info};

use super::dtmf::watch;
use super::packet::Passing;
use super::{Arrival, Engine};
use crate::command::{ErrorCode, Party, Reply};
use crate::effects::{Effect, MediaPort, Out, Payload};
use crate::host::Host;
use crate::player::{Player, Prompt, SESSION_CODECS, playable};
use crate::recording::Channel;
use crate::session::{Session, Side, leg_of};
use crate::time::{Mono, Now};

/// A packet of a player that is to be sent at a time. Void if the player has another one in mind by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Appointment {
    at: Mono,
    session: usize,
    side: usize,
}

impl Engine {
    /// `P`: the party of the first tag hears the prompt.
    pub(super) fn play(
        &mut self,
        now: Now,
        party: &Party,
        count: i32,
        prompt: &[u8],
        codecs: &[u8],
        host: &mut dyn Host,
    ) -> Reply {
        let Some((key, found)) = self.find(party) else { return Reply::Error(ErrorCode::NOT_FOUND) };
        let listener = 1 - found;
        self.stop_player(key, listener);
        let session = &mut self.sessions[key];
        let side = &mut session.sides[listener];
        let (codecs, ptime_ms) = if codecs == SESSION_CODECS {
            let Some(list) = &side.codecs else { return Reply::Error(ErrorCode::MODIFIER) };
            (list.as_bytes(), side.prompt_ptime_ms)
        } else {
            (codecs, None)
        };
        if count == 0 {
            return Reply::Done;
        }
        let found = playable(codecs).find_map(|number| Prompt::new(number, host.prompt(number)?));
        let Some(found) = found else {
            error!(
                call_id = %session.call_id,
                "can't play {}: no file for any codec of \"{}\"", prompt.escape_ascii(), codecs.escape_ascii()
            );
            return Reply::Error(ErrorCode::PLAYER);
        };
        info!(
            call_id = %session.call_id,
            "the {} hears the prompt {} in payload type {}",
            leg_of(listener).name(), prompt.escape_ascii(), found.payload_type()
        );
        side.player = Some(Box::new(Player::new(found, count, ptime_ms, || host.random())));
        self.stats.nplrs_created += 1;
        self.rouse(now.mono, key, listener);
        Reply::Done
    }

    /// `S`: whatever the party hears ends.
    pub(super) fn stop_play(&mut self, party: &Party) -> Reply {
        let Some((key, found)) = self.find(party) else { return Reply::Error(ErrorCode::NOT_FOUND) };
        self.stop_player(key, 1 - found);
        Reply::Done
    }

    /// Starts a player that waited, if its listener can be reached now.
    pub(super) fn rouse(&mut self, now: Mono, key: usize, listener: usize) {
        let side = &mut self.sessions[key].sides[listener];
        let is_reachable = road(side, now).is_some();
        if let Some(player) = &mut side.player
            && player.due().is_none()
            && is_reachable
        {
            player.start(now);
            self.appointments.push(Reverse(Appointment { at: now, session: key, side: listener }));
        }
    }

    /// Takes over the appointments of a session that came from another engine.
    pub(super) fn keep_appointments(&mut self, key: usize) {
        for (side, listener) in self.sessions[key].sides.iter().enumerate() {
            if let Some(at) = listener.player.as_ref().and_then(|player| player.due()) {
                self.appointments.push(Reverse(Appointment { at, session: key, side }));
            }
        }
    }

    /// When the next packet of a prompt is to be sent.
    pub(super) fn next_appointment(&self) -> Option<Mono> {
        self.appointments.peek().map(|Reverse(appointment)| appointment.at)
    }

    /// Sends all packets of prompts that are due.
    pub(super) fn play_due(&mut self, now: Now, out: &mut Out) {
        while let Some(&Reverse(appointment)) = self.appointments.peek()
            && appointment.at <= now.mono
        {
            self.appointments.pop();
            self.keep(now, appointment, out);
        }
    }

    /// Counts the players of a session that ends.
    pub(super) fn end_players(&mut self, session: &Session) {
        let players = session.sides.iter().filter(|side| side.player.is_some()).count();
        self.stats.nplrs_destroyed += players as u64;
    }

    /// Sends the packet that an appointment is about, in the steps 7 to 9 of a packet of the other party.
    fn keep(&mut self, now: Now, appointment: Appointment, out: &mut Out) {
        let Appointment { at, session: key, side: listener } = appointment;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let side = &mut session.sides[listener];
        let road = road(side, now.mono);
        let Some(player) = side.player.as_mut().filter(|player| player.due() == Some(at)) else { return };
        let Some((via, to)) = road else {
            player.wait();
            return;
        };
        let Some(range) = player.next_packet(now.mono, &mut out.scratch) else {
            info!(call_id = %session.call_id, "the prompt for the {} has ended", leg_of(listener).name());
            self.stop_player(key, listener);
            return;
        };
        if let Some(at) = player.due() {
            self.appointments.push(Reverse(Appointment { at, ..appointment }));
        }
        self.stats.npkts_played += 1;
        let side = &session.sides[listener];
        let from = SocketAddr::new(side.local.ip, side.pair.map_or(0, |pair| pair.port));
        let arrival = Arrival { port: via, from, to: None };
        let passing = Passing { arrival: &arrival, payload: Payload::Scratch(range), received: &[] };
        // 7. No recording shows prompts, but others see them as what the other party sends.
        let sender = 1 - listener;
        let is_hidden = watch(sender, &mut session.sides[sender], &passing, out);
        if !session.forks.is_empty() {
            self.fork(now, (key, sender), &passing, out);
        }
        if is_hidden {
            return;
        }
        // 8. Multiplexing and encryption have their place here.
        // 9. Send.
        self.sessions[key].touch(sender);
        for _ in 0..passing.copies(&self.config) {
            out.push(Effect::Send { payload: passing.payload.clone(), via, to });
        }
    }

    fn stop_player(&mut self, key: usize, listener: usize) {
        if self.sessions[key].sides[listener].player.take().is_some() {
            self.stats.nplrs_destroyed += 1;
        }
    }
}

/// From which port and to which address RTP for a party is sent.
fn road(side: &Side, now: Mono) -> Option<(MediaPort, SocketAddr)> {
    let via = MediaPort { pair: side.pair?.id, channel: Channel::Rtp };
    Some((via, side.rtp.latch.destination(now)?))
}
