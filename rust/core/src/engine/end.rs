//! The end of a session: what it held is given back, and its figures are counted, logged and accounted.

use tracing::info;

use super::Engine;
use crate::accounting::{LegEnd, PipeEnd, SessionEnd};
use crate::effects::{Effect, Out};
use crate::recording::EndReason;
use crate::session::{PipeCounts, Session, Side, Stream, leg_of};
use crate::time::Now;

impl Engine {
    /// Takes a session out of the tables and winds it up.
    pub(super) fn remove(&mut self, now: Now, key: usize, reason: EndReason, out: &mut Out) {
        self.end_recordings(now, key, reason, out);
        let session = self.take(key);
        out.effects.extend(session.taps.iter().copied().map(Effect::TapEnd));
        for side in &session.sides {
            if let Some(pair) = side.pair {
                self.close_pair(pair.id, out);
            }
        }
        self.end_players(&session);
        self.count_end(now, &session);
        log_end(&session);
        if self.config.accounting {
            out.push(Effect::Ended(Box::new(account(now, session))));
        }
    }

    fn count_end(&mut self, now: Now, session: &Session) {
        let stats = &mut self.stats;
        stats.nsess_destroyed += 1;
        stats.total_duration += now.mono.since(session.created.mono).as_secs_f64();
        if session.complete {
            let heard = |stream: fn(&Side) -> &Stream| {
                session.sides.iter().filter(|side| stream(side).packets > 0).count()
            };
            match heard(|side| &side.rtp) {
                0 => stats.nsess_nortp += 1,
                1 => stats.nsess_owrtp += 1,
                _ => {}
            }
            match heard(|side| &side.rtcp) {
                0 => stats.nsess_nortcp += 1,
                1 => stats.nsess_owrtcp += 1,
                _ => {}
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
    let [callee, caller] = &session.sides;
    for (name, counts, callee, caller) in
        [("RTP", session.rtp, &callee.rtp, &caller.rtp), ("RTCP", session.rtcp, &callee.rtcp, &caller.rtcp)]
    {
        info!(
            call_id = %call_id,
            "{name} stats: {} in from callee, {} in from caller, {} relayed, {} dropped, {} ignored",
            callee.packets, caller.packets, counts.relayed, counts.dropped, counts.ignored,
        );
    }
    for side in [1, 0] {
        let stream = &session.sides[side].rtp;
        let (Some(first), Some(last)) = (stream.first_packet, stream.last_packet) else { continue };
        let since = |at: Now| at.mono.since(session.created.mono).as_secs_f64();
        info!(
            call_id = %call_id,
            "RTP times of the {}: first packet {:.3} s after the start, last {:.3} s, longest gap {:.3} s",
            leg_of(side).name(), since(first), since(last), stream.longest_gap_s,
        );
    }
    for side in [1, 0] {
        let report = session.sides[side].analyzer.report();
        let Some(ssrc) = report.ssrc_last else { continue };
        info!(
            call_id = %call_id,
            "RTP stream from {}: SSRC=0x{ssrc:08X}, ssrc_changes={}, psent={}, precvd={}, plost={}, pdups={}",
            leg_of(side).name(), report.ssrc_changes, report.nsent, report.nrcvd, report.nlost as i64,
            report.ndups,
        );
    }
    let port = |side: usize| session.sides[side].pair.map_or(0, |pair| pair.port);
    info!(call_id = %call_id, "session on ports {}/{} is cleaned up", port(0), port(1));
}

fn account(now: Now, session: Session) -> SessionEnd {
    let pipe = |counts: PipeCounts| PipeEnd { relayed: counts.relayed, dropped: counts.dropped };
    let [callee, caller] = &session.sides;
    SessionEnd {
        uid: session.uid,
        setup: session.created.wall,
        teardown: now.wall,
        rtp: pipe(session.rtp),
        rtcp: pipe(session.rtcp),
        callee: account_leg(callee),
        caller: account_leg(caller),
        call_id: session.call_id,
        from_tag: session.from_tag,
    }
}

fn account_leg(side: &Side) -> LegEnd {
    LegEnd {
        rtp_packets: side.rtp.packets,
        rtcp_packets: side.rtcp.packets,
        first_rtp: side.rtp.first_packet.map(|at| at.wall),
        last_rtp: side.rtp.last_packet.map(|at| at.wall),
        report: side.analyzer.report(),
        jitter: side.analyzer.jitter(),
        rtp_remote: side.rtp.latch.remote(),
        rtcp_remote: side.rtcp.latch.remote(),
        on_hold: side.on_hold,
        holds: side.holds,
    }
}
