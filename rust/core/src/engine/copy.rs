//! `C`: what one party sends, copied to a file of a given name or to another host.

use std::net::{IpAddr, SocketAddr};

use tracing::{error, info};

use super::Engine;
use crate::command::{ErrorCode, MediaReply, Party, Reply};
use crate::config::RecordScope;
use crate::effects::{Effect, Out};
use crate::front::CopyTo;
use crate::host::{Host, OpenedPair};
use crate::recording::Coverage;
use crate::session::{RECEIVERS_MAX, Receiver, leg_of};
use crate::time::Now;

/// The letters of a `C`.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopyLetters {
    /// `s`
    pub(super) single_file: bool,
    /// `p`
    pub(super) report_port: bool,
}

impl Engine {
    pub(super) fn copy(
        &mut self,
        now: Now,
        party: &Party,
        letters: CopyLetters,
        target: Option<&CopyTo>,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Reply {
        let Some((key, found)) = self.find(party) else { return Reply::Error(ErrorCode::NOT_FOUND) };
        let side = 1 - found;
        self.sessions[key].learn_to_tag(&party.from_tag, party.to_tag.as_ref());
        let copied = match target {
            Some(CopyTo::Host { to, from, port }) => {
                let to = (*to, *port);
                return self.copy_to_host(now, (key, side), to, *from, letters.report_port, host, out);
            }
            Some(CopyTo::File(name)) if !letters.report_port => {
                self.copy_to_file(now, (key, side), name, letters.single_file, host, out)
            }
            Some(CopyTo::File(_)) => Err("a file has no port to tell"),
            Some(CopyTo::Name { .. } | CopyTo::Nowhere) | None => Err("the target cannot be reached"),
        };
        match copied {
            Ok(()) => Reply::Done,
            Err(reason) => {
                error!(call_id = %party.call_id, "can't copy: {reason}");
                Reply::Error(ErrorCode::RECORD_TARGET)
            }
        }
    }

    /// `?uncopy`: one host gets no more copies of what the party sends.
    pub(super) fn stop_copy(&mut self, party: &Party, target: Option<&CopyTo>, out: &mut Out) -> Reply {
        let Some((key, found)) = self.find(party) else { return Reply::Error(ErrorCode::NOT_FOUND) };
        let Some(CopyTo::Host { to, port, .. }) = target else {
            return Reply::Error(ErrorCode::RECORD_TARGET);
        };
        let rtp = copy_ports(*port, self.config.record_rtcp).map(|(rtp, _)| SocketAddr::new(*to, rtp));
        let session = &mut self.sessions[key];
        let receivers = &mut session.sides[1 - found].receivers;
        let Some(at) = receivers.iter().position(|receiver| Some(receiver.rtp) == rtp) else {
            return Reply::Error(ErrorCode::NOT_FOUND);
        };
        let receiver = receivers.remove(at);
        let (leg, to) = (leg_of(1 - found).name(), receiver.rtp);
        info!(call_id = %session.call_id, "copies of the {leg} to {to} stopped");
        out.push(Effect::Close(receiver.pair.id));
        Reply::Done
    }

    fn copy_to_file(
        &mut self,
        now: Now,
        (key, side): (usize, usize),
        name: &[u8],
        single_file: bool,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Result<(), &'static str> {
        let single =
            single_file && self.config.single_file && self.config.record_scope == RecordScope::Stream;
        if single && self.sessions[key].sides[side].is_copied() {
            return Err("that side is recorded already");
        }
        let started = if single {
            self.join_or_start(now, key, side, Coverage::NamedSingleFile { name: name.into() }, host, out)
        } else {
            let coverage = Coverage::Named { leg: leg_of(side), name: name.into() };
            self.start_beside(now, key, side, coverage, host, out)
        };
        if started { Ok(()) } else { Err("no recording folder that can be written to (-r)") }
    }

    /// The pair is taken before the port is looked at, as the C program does, so that sequential ports come in
    /// the same order.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request, used once")]
    fn copy_to_host(
        &mut self,
        now: Now,
        (key, side): (usize, usize),
        (to, port): (IpAddr, Option<u64>),
        from: IpAddr,
        report_port: bool,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Reply {
        let (rtcp, one_copy) = (self.config.record_rtcp, self.config.one_copy);
        let session = &mut self.sessions[key];
        let call_id = &session.call_id;
        let pair = match host.open_pair(now, from) {
            Ok(pair) => pair,
            Err(error) => {
                error!(call_id = %call_id, "can't open ports for copies on {from}: {error}");
                return Reply::Error(ErrorCode::RECORD_TARGET);
            }
        };
        let own = &mut session.sides[side];
        match copy_ports(port, rtcp).map(|ports| receiver(to, ports, pair)) {
            _ if one_copy && own.is_copied() => out.push(Effect::Close(pair.id)),
            Some(new) if own.receivers.iter().any(|known| known.rtp == new.rtp) => {
                out.push(Effect::Close(pair.id));
            }
            Some(new) if own.receivers.len() < RECEIVERS_MAX => {
                let (leg, to) = (leg_of(side).name(), new.rtp);
                info!(call_id = %call_id, "copies of the {leg} go to {to} from port {}", pair.port);
                own.receivers.push(new);
            }
            // As in the C program, a party that has a copy takes any port.
            None if own.is_copied() => out.push(Effect::Close(pair.id)),
            refused => {
                let reason =
                    if refused.is_some() { "there are 8 receivers already" } else { "the port is none" };
                error!(call_id = %call_id, "can't copy: {reason}");
                out.push(Effect::Close(pair.id));
                return Reply::Error(ErrorCode::RECORD_TARGET);
            }
        }
        if !report_port {
            return Reply::Done;
        }
        Reply::Media(MediaReply {
            port: pair.port,
            addr: Some(from.to_string().into()),
            ipv6: from.is_ipv6(),
        })
    }
}

fn receiver(to: IpAddr, (rtp, rtcp): (u16, Option<u16>), pair: OpenedPair) -> Receiver {
    let at = |port| SocketAddr::new(to, port);
    Receiver { pair, rtp: at(rtp), rtcp: rtcp.map(at) }
}

/// The ports for RTP and RTCP. Without RTCP a port above 65535 is cut to 16 bits, as everywhere in the protocol.
fn copy_ports(port: Option<u64>, rtcp: bool) -> Option<(u16, Option<u16>)> {
    let port = port?;
    if !rtcp {
        return Some((port as u16, None));
    }
    let rtp = u16::try_from(port).ok().filter(|port| *port > 0)?;
    Some((rtp, Some(rtp.checked_add(1)?)))
}
