//! `Q`: the figures of one session.

use super::Engine;
use super::subs::{Answered, Place};
use crate::command::{ErrorCode, Party, QUERY_DEFAULT, REPLY_MAX, Reply, StatValue};
use crate::session::Session;

impl Engine {
    pub(super) fn query(&self, party: &Party, modifiers: &[u8], names: &[Box<[u8]>]) -> Answered {
        let Some((key, found)) = self.find(party) else { return Err(Reply::Error(ErrorCode::NOT_FOUND)) };
        let mut verbose = false;
        for modifier in modifiers {
            match modifier.to_ascii_lowercase() {
                b'v' => verbose = true,
                _ => return Err(Reply::Error(ErrorCode::QUERY_MODIFIER)),
            }
        }
        let session = &self.sessions[key];
        let side = 1 - found;
        let stat = |name: &[u8]| stat(session, side, name);
        let values: Option<Vec<_>> = if names.is_empty() {
            QUERY_DEFAULT.iter().map(|name| stat(name.as_bytes())).collect()
        } else {
            names.iter().map(|name| stat(name)).collect()
        };
        let Some(values) = values else { return Err(Reply::Error(ErrorCode::UNKNOWN_STAT)) };
        let reply = Reply::Stats {
            verbose,
            values: values.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        };
        if reply.encode().len() > REPLY_MAX {
            return Err(Reply::Error(ErrorCode::QUERY_TOO_LONG));
        }
        Ok((reply, Place { key, side }))
    }
}

/// The figure `name` of a session, seen from the party that sends to `side`.
fn stat(session: &Session, side: usize, name: &[u8]) -> Option<(&'static str, StatValue)> {
    use StatValue::{Count, Real, Signed};
    let own = &session.sides[side];
    let report = || own.analyzer.report();
    let jitter = || own.analyzer.jitter();
    Some(match name {
        b"ttl" => ("ttl", Signed(session.ttl_s().into())),
        b"npkts_ina" => ("npkts_ina", Count(own.rtp.packets)),
        b"npkts_ino" => ("npkts_ino", Count(session.sides[1 - side].rtp.packets)),
        b"nrelayed" => ("nrelayed", Count(session.rtp.relayed)),
        b"ndropped" => ("ndropped", Count(session.rtp.dropped)),
        b"longest_ipi" => ("longest_ipi", Real(own.rtp.longest_gap_s)),
        b"rtpa_nsent" => ("rtpa_nsent", Count(report().nsent)),
        b"rtpa_nrcvd" => ("rtpa_nrcvd", Count(report().nrcvd)),
        b"rtpa_ndups" => ("rtpa_ndups", Count(report().ndups)),
        b"rtpa_nlost" => ("rtpa_nlost", Count(report().nlost)),
        b"rtpa_perrs" => ("rtpa_perrs", Count(report().perrs)),
        b"rtpa_jlast" => ("rtpa_jlast", Real(jitter().last)),
        b"rtpa_jmax" => ("rtpa_jmax", Real(jitter().max)),
        b"rtpa_javg" => ("rtpa_javg", Real(jitter().avg)),
        _ => return None,
    })
}
