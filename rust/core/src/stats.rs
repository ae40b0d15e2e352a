//! Counters: what `G`, `I` and the metrics show.

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
