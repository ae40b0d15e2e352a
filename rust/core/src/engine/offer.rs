//! `U` and `L`: sessions are created, completed and updated.

use tracing::{error, info};

use super::Engine;
use super::subs::{Answered, Place};
use crate::addr::LocalAddr;
use crate::command::{ErrorCode, MediaAddr, MediaReply, Modifier, Modifiers, Offer, Reply};
use crate::effects::{Effect, Out};
use crate::front::{LocalChoice, Request};
use crate::host::{Host, OpenError};
use crate::recording::KeptId;
use crate::resizer::Resizer;
use crate::session::{Notify, Session, Side, leg_of, payload_types};
use crate::time::Now;

impl Engine {
    pub(super) fn update(
        &mut self,
        now: Now,
        offer: &Offer,
        request: &Request,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Answered {
        let Some(choice) = &request.locals else { return Err(Reply::Error(ErrorCode::INTERNAL_FAILURE)) };
        let notify = offer
            .notify
            .as_ref()
            .and_then(|args| Some(Notify { target: request.notify.clone()?, tag: args.tag.clone() }));
        match self.find(&offer.party) {
            Some((key, side)) => {
                self.amend(now, key, side, offer, choice, host, out).map_err(Reply::Error)?;
                let session = &mut self.sessions[key];
                session.strong |= !offer.modifiers.has(&Modifier::Weak);
                session.notify = notify;
                Ok(self.answer(key, side))
            }
            None if self.draining => Err(Reply::Error(ErrorCode::DRAINING)),
            None => self.create(now, offer, choice, notify, host, out),
        }
    }

    pub(super) fn lookup(
        &mut self,
        now: Now,
        offer: &Offer,
        request: &Request,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Answered {
        let Some(choice) = &request.locals else { return Err(Reply::Error(ErrorCode::INTERNAL_FAILURE)) };
        let Some((key, found)) = self.find(&offer.party) else {
            info!(call_id = %offer.party.call_id, "lookup request failed: session {} not found", offer.party.from_tag);
            return Err(Reply::NoSession);
        };
        let side = 1 - found;
        self.amend(now, key, side, offer, choice, host, out).map_err(Reply::Error)?;
        Ok(self.answer(key, side))
    }

    /// What `U` and `L` have in common for a session that was found: `side` gets its ports and a weak reference,
    /// and the party of the other side is described.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    pub(super) fn amend(
        &mut self,
        now: Now,
        key: usize,
        side: usize,
        offer: &Offer,
        choice: &LocalChoice,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Result<(), ErrorCode> {
        self.claim_side(now, key, side, offer, choice, host, out)?;
        self.sessions[key].weak[side] |= offer.modifiers.has(&Modifier::Weak);
        self.describe(now, key, 1 - side, offer, out);
        Ok(())
    }

    fn create(
        &mut self,
        now: Now,
        offer: &Offer,
        choice: &LocalChoice,
        notify: Option<Notify>,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Answered {
        let locals = new_locals(choice);
        let pair = match host.open_pair(now, locals[0].ip) {
            Ok(pair) => pair,
            Err(error) => {
                log_no_ports(offer, &locals[0], error);
                return Err(Reply::Error(ErrorCode::NO_PORT));
            }
        };
        let party = &offer.party;
        let mut session =
            Session::new(&self.config, now, party.call_id.clone(), party.from_tag.clone(), locals);
        if self.config.accounting {
            // Others read these numbers, and not all of them have 64 bits without a sign.
            session.uid = host.random() & i64::MAX as u64;
        }
        session.sides[0].pair = Some(pair);
        session.weak[0] = offer.modifiers.has(&Modifier::Weak);
        session.strong = !session.weak[0];
        session.notify = notify;
        if self.config.preroll {
            let number = host.random();
            for (side, state) in session.sides.iter_mut().enumerate() {
                state.kept = Some(KeptId { number, leg: leg_of(side) });
            }
        }
        let key = self.insert(session);
        self.claim_pair(pair.id, key, 0);
        self.stats.nsess_created += 1;
        info!(call_id = %party.call_id, "new session {} on port {} created", party.from_tag, pair.port);
        self.describe(now, key, 1, offer, out);
        if self.config.record_all {
            self.record_from_start(now, key, host, out);
        }
        Ok(self.answer(key, 0))
    }

    /// Gives the replied side a socket pair if it has none or a new one was asked for.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request, used once")]
    fn claim_side(
        &mut self,
        now: Now,
        key: usize,
        side: usize,
        offer: &Offer,
        choice: &LocalChoice,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Result<(), ErrorCode> {
        let renew = offer.modifiers.has(&Modifier::NewPort);
        let session = &mut self.sessions[key];
        if session.sides[side].pair.is_some() && !renew {
            session.touch_both();
            return Ok(());
        }
        // The address is remembered even if it cannot be bound.
        if let Some(local) = replacement(choice, renew) {
            session.sides[side].local = local.clone();
        }
        let local = session.sides[side].local.clone();
        let pair = host.open_pair(now, local.ip).map_err(|error| {
            log_no_ports(offer, &local, error);
            ErrorCode::NO_PORT_OTHER_SIDE
        })?;
        let old = session.sides[side].pair.replace(pair);
        if !session.complete {
            session.complete = true;
            self.stats.nsess_complete += 1;
        }
        session.touch_both();
        info!(
            call_id = %session.call_id,
            "session {}: port {} for the {}", session.from_tag, pair.port, leg_of(side).name()
        );
        if let Some(tos) = session.sides[side].tos {
            out.push(Effect::SetTos { pair: pair.id, tos });
        }
        self.claim_pair(pair.id, key, side);
        if let Some(old) = old {
            self.close_pair(old.id, out);
        }
        Ok(())
    }

    /// Takes over what the command says of a party.
    fn describe(&mut self, now: Now, key: usize, side: usize, offer: &Offer, out: &mut Out) {
        let asymmetric = offer.modifiers.asymmetric().unwrap_or(self.config.asymmetric);
        let session = &mut self.sessions[key];
        if let Some(to_tag) = &offer.party.to_tag {
            let other = if *to_tag == session.from_tag { &offer.party.from_tag } else { to_tag };
            session.to_tag = Some(other.clone());
        }
        let party = &mut session.sides[side];
        set_codecs(party, &offer.modifiers);
        self.stats.npkts_resizer_discard += set_packet_ms(party, offer.modifiers.packet_ms());
        party.rtp.latch.set_asymmetric(asymmetric);
        party.rtcp.latch.set_asymmetric(asymmetric);
        match offer.media {
            MediaAddr::Unknown => {}
            MediaAddr::Hold => {
                party.on_hold = true;
                party.holds += 1;
                party.rtp.latch.hold();
                party.rtcp.latch.hold();
            }
            MediaAddr::At(addr) => {
                party.on_hold = false;
                party.rtp.latch.signal(now.mono, addr);
                // The port arithmetic is that of 16-bit numbers, as in the C program.
                let rtcp = std::net::SocketAddr::new(addr.ip(), addr.port().wrapping_add(1));
                party.rtcp.latch.signal(now.mono, rtcp);
            }
        }
        session.sides[1 - side].prompt_ptime_ms = offer.modifiers.packet_ms();
        for listener in [0, 1] {
            self.rouse(now.mono, key, listener);
        }
        self.update_facts(key, out);
    }

    /// The answer of a `U` or `L` that opened `side`; sub-commands start at the party of the other one.
    fn answer(&self, key: usize, side: usize) -> (Reply, Place) {
        (Reply::Media(self.media_reply(key, side)), Place { key, side: 1 - side })
    }

    pub(super) fn media_reply(&self, key: usize, side: usize) -> MediaReply {
        let side = &self.sessions[key].sides[side];
        let local = &side.local;
        let addr = (!local.ip.is_unspecified()).then(|| match &local.advertised {
            Some(text) => Box::from(&**text),
            None => local.ip.to_string().into_boxed_str(),
        });
        MediaReply { port: side.pair.map_or(0, |pair| pair.port), addr, ipv6: local.ip.is_ipv6() }
    }
}

/// The addresses of a new session: toward the callee, toward the caller.
fn new_locals(choice: &LocalChoice) -> [LocalAddr; 2] {
    if let Some(local) = &choice.replace {
        return [local.clone(), local.clone()];
    }
    let caller = choice.directions.first().unwrap_or(&choice.default);
    let callee = choice.directions.get(1).unwrap_or(&choice.default);
    [callee.clone(), caller.clone()]
}

/// The address that replaces a side's own in an existing session.
fn replacement(choice: &LocalChoice, renew: bool) -> Option<&LocalAddr> {
    choice.replace.as_ref().or_else(|| if renew { choice.directions.get(1) } else { None })
}

fn set_codecs(party: &mut Side, modifiers: &Modifiers) {
    party.codecs = modifiers.codecs().map(Into::into);
    party.rtp.latch.set_payload_types(&payload_types(party.codecs.as_deref()));
}

/// Rebuilds packets of the party from now on, or no longer; how many were waiting and are lost.
fn set_packet_ms(party: &mut Side, packet_ms: Option<u16>) -> u64 {
    let Some(packet_ms) = packet_ms else {
        return party.resizer.take().map_or(0, |resizer| resizer.queued() as u64);
    };
    party.resizer.get_or_insert_with(|| Box::new(Resizer::new(packet_ms))).set_packet_ms(packet_ms);
    0
}

fn log_no_ports(offer: &Offer, local: &LocalAddr, error: OpenError) {
    error!(call_id = %offer.party.call_id, "can't open media ports on {}: {error}", local.ip);
}
