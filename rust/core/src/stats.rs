//! Counters: what `G` and `I` show.

use crate::command::StatValue;

/// Counters of one engine, or the sum over all of them (docs/protocol.md, `G`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Sessions created.
    pub nsess_created: u64,
    /// Sessions destroyed.
    pub nsess_destroyed: u64,
    /// Sessions that timed out.
    pub nsess_timeout: u64,
    /// Sessions that became complete.
    pub nsess_complete: u64,
    /// Complete sessions destroyed without an RTP packet from either side.
    pub nsess_nortp: u64,
    /// The same from exactly one side.
    pub nsess_owrtp: u64,
    /// Complete sessions destroyed without an RTCP packet from either side.
    pub nsess_nortcp: u64,
    /// The same from exactly one side.
    pub nsess_owrtcp: u64,
    /// Players created.
    pub nplrs_created: u64,
    /// Players destroyed.
    pub nplrs_destroyed: u64,
    /// Datagrams read on the sockets of complete sessions.
    pub npkts_rcvd: u64,
    /// Packets that players made.
    pub npkts_played: u64,
    /// Packets relayed.
    pub npkts_relayed: u64,
    /// Packets into resizers.
    pub npkts_resizer_in: u64,
    /// Packets out of resizers.
    pub npkts_resizer_out: u64,
    /// Packets that resizers threw away.
    pub npkts_resizer_discard: u64,
    /// Packets dropped, ignored, or read on half-open sessions.
    pub npkts_discard: u64,
    /// Seconds that destroyed sessions lived, in all.
    pub total_duration: f64,
    /// Packets that phones sent, by sequence numbers, over destroyed streams.
    pub rtpa_nsent: u64,
    /// Packets received.
    pub rtpa_nrcvd: u64,
    /// Duplicates.
    pub rtpa_ndups: u64,
    /// Packets lost.
    pub rtpa_nlost: u64,
    /// Packets that are not RTP.
    pub rtpa_perrs: u64,
    /// Packets a second over the last second.
    pub pps_in: f64,
    /// Sessions now.
    pub sessions_active: u64,
}

/// Counters of the control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandStats {
    /// Commands received, without repeated ones.
    pub rcvd: u64,
    /// Repeated datagrams.
    pub rcvd_dups: u64,
    /// Commands that succeeded.
    pub succd: u64,
    /// Commands that failed.
    pub errs: u64,
    /// Replies.
    pub repld: u64,
}

impl Stats {
    /// Adds the figures of another engine.
    pub fn add(&mut self, other: &Self) {
        self.nsess_created += other.nsess_created;
        self.nsess_destroyed += other.nsess_destroyed;
        self.nsess_timeout += other.nsess_timeout;
        self.nsess_complete += other.nsess_complete;
        self.nsess_nortp += other.nsess_nortp;
        self.nsess_owrtp += other.nsess_owrtp;
        self.nsess_nortcp += other.nsess_nortcp;
        self.nsess_owrtcp += other.nsess_owrtcp;
        self.nplrs_created += other.nplrs_created;
        self.nplrs_destroyed += other.nplrs_destroyed;
        self.npkts_rcvd += other.npkts_rcvd;
        self.npkts_played += other.npkts_played;
        self.npkts_relayed += other.npkts_relayed;
        self.npkts_resizer_in += other.npkts_resizer_in;
        self.npkts_resizer_out += other.npkts_resizer_out;
        self.npkts_resizer_discard += other.npkts_resizer_discard;
        self.npkts_discard += other.npkts_discard;
        self.total_duration += other.total_duration;
        self.rtpa_nsent = self.rtpa_nsent.wrapping_add(other.rtpa_nsent);
        self.rtpa_nrcvd += other.rtpa_nrcvd;
        self.rtpa_ndups += other.rtpa_ndups;
        self.rtpa_nlost = self.rtpa_nlost.wrapping_add(other.rtpa_nlost);
        self.rtpa_perrs += other.rtpa_perrs;
        self.pps_in += other.pps_in;
        self.sessions_active += other.sessions_active;
    }

    /// The counter that `G` calls `name`, with its name as text.
    pub fn counter(&self, name: &[u8], commands: &CommandStats) -> Option<(&'static str, StatValue)> {
        use StatValue::{Count, Real};
        let value = match name {
            b"nsess_created" => ("nsess_created", Count(self.nsess_created)),
            b"nsess_destroyed" => ("nsess_destroyed", Count(self.nsess_destroyed)),
            b"nsess_timeout" => ("nsess_timeout", Count(self.nsess_timeout)),
            b"nsess_complete" => ("nsess_complete", Count(self.nsess_complete)),
            b"nsess_nortp" => ("nsess_nortp", Count(self.nsess_nortp)),
            b"nsess_owrtp" => ("nsess_owrtp", Count(self.nsess_owrtp)),
            b"nsess_nortcp" => ("nsess_nortcp", Count(self.nsess_nortcp)),
            b"nsess_owrtcp" => ("nsess_owrtcp", Count(self.nsess_owrtcp)),
            b"nplrs_created" => ("nplrs_created", Count(self.nplrs_created)),
            b"nplrs_destroyed" => ("nplrs_destroyed", Count(self.nplrs_destroyed)),
            b"npkts_rcvd" => ("npkts_rcvd", Count(self.npkts_rcvd)),
            b"npkts_played" => ("npkts_played", Count(self.npkts_played)),
            b"npkts_relayed" => ("npkts_relayed", Count(self.npkts_relayed)),
            b"npkts_resizer_in" => ("npkts_resizer_in", Count(self.npkts_resizer_in)),
            b"npkts_resizer_out" => ("npkts_resizer_out", Count(self.npkts_resizer_out)),
            b"npkts_resizer_discard" => ("npkts_resizer_discard", Count(self.npkts_resizer_discard)),
            b"npkts_discard" => ("npkts_discard", Count(self.npkts_discard)),
            b"total_duration" => ("total_duration", Real(self.total_duration)),
            b"ncmds_rcvd" => ("ncmds_rcvd", Count(commands.rcvd)),
            b"ncmds_rcvd_ndups" => ("ncmds_rcvd_ndups", Count(commands.rcvd_dups)),
            b"ncmds_succd" => ("ncmds_succd", Count(commands.succd)),
            b"ncmds_errs" => ("ncmds_errs", Count(commands.errs)),
            b"ncmds_repld" => ("ncmds_repld", Count(commands.repld)),
            b"rtpa_nsent" => ("rtpa_nsent", Count(self.rtpa_nsent)),
            b"rtpa_nrcvd" => ("rtpa_nrcvd", Count(self.rtpa_nrcvd)),
            b"rtpa_ndups" => ("rtpa_ndups", Count(self.rtpa_ndups)),
            b"rtpa_nlost" => ("rtpa_nlost", Count(self.rtpa_nlost)),
            b"rtpa_perrs" => ("rtpa_perrs", Count(self.rtpa_perrs)),
            b"pps_in" => ("pps_in", Real(self.pps_in)),
            _ => return None,
        };
        Some(value)
    }
}

/// Every counter of `G`.
pub const COUNTERS: [&str; 29] = [
    "nsess_created",
    "nsess_destroyed",
    "nsess_timeout",
    "nsess_complete",
    "nsess_nortp",
    "nsess_owrtp",
    "nsess_nortcp",
    "nsess_owrtcp",
    "nplrs_created",
    "nplrs_destroyed",
    "npkts_rcvd",
    "npkts_played",
    "npkts_relayed",
    "npkts_resizer_in",
    "npkts_resizer_out",
    "npkts_resizer_discard",
    "npkts_discard",
    "total_duration",
    "ncmds_rcvd",
    "ncmds_rcvd_ndups",
    "ncmds_succd",
    "ncmds_errs",
    "ncmds_repld",
    "rtpa_nsent",
    "rtpa_nrcvd",
    "rtpa_ndups",
    "rtpa_nlost",
    "rtpa_perrs",
    "pps_in",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_counter_is_known_by_its_name() {
        for name in COUNTERS {
            let counter = Stats::default().counter(name.as_bytes(), &CommandStats::default());
            assert_eq!(counter.map(|(name, _)| name), Some(name));
        }
    }
}
