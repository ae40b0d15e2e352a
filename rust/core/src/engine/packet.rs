//! The road of a packet, in the numbered steps of docs/protocol.md (media).

use std::net::SocketAddr;

use tracing::{info, warn};

use super::dtmf::watch;
use super::{Arrival, Engine};
use crate::config::EngineConfig;
use crate::effects::{
    CapturedRtcp, Effect, KeptPacket, MediaPort, Out, Packet, Payload, RecordPacket, TappedPacket,
};
use crate::latch::{Seen, Verdict};
use crate::recording::{Channel, Mark, RecordingId};
use crate::resizer::Inserted;
use crate::rtp::RtpView;
use crate::session::{Session, leg_of};
use crate::time::Now;

impl Engine {
    /// Takes one datagram; `now` is when the kernel received it.
    ///
    /// The common case adds one [`Effect::Send`] of the received bytes. Nothing here allocates but a list of
    /// effects that grows for the first time.
    pub fn handle_packet(&mut self, now: Now, arrival: Arrival, packet: &mut Packet, out: &mut Out) {
        let owner = self.by_pair.get(arrival.port.pair.0 as usize).copied().flatten();
        let Some((key, side)) = owner else { return };
        let session = &mut self.sessions[key];

        // 1. Until both parties can be reached, packets are read and thrown away.
        if !session.complete {
            self.stats.npkts_discard += 1;
            return;
        }
        self.stats.npkts_rcvd += 1;

        // 2. May this source speak for the party?
        let channel = arrival.port.channel;
        let rtp = match channel {
            Channel::Rtp => RtpView::parse(packet.payload()).ok(),
            Channel::Rtcp => None,
        };
        let verdict = latch(now, session, side, channel, arrival.from, rtp.as_ref().map(Seen::from));
        if !verdict.accepts() {
            session.pipe(channel).ignored += 1;
            self.stats.npkts_discard += 1;
            refused(now, session, side, channel, arrival.from, out);
            return;
        }

        // 3. ICE, SRTP and the demultiplexing of RTCP have their place here.
        // 4. Count and analyze.
        analyze(now, session, side, channel, rtp.as_ref());
        if verdict != Verdict::Accept {
            moved(now, session, side, channel, verdict, out);
        }

        // A prompt may have waited for the address of this party.
        if channel == Channel::Rtp && session.sides[side].player.is_some() {
            self.rouse(now.mono, key, side);
        }

        // 5. The resizer keeps the packet and gives others, at its own pace.
        if channel == Channel::Rtp && self.sessions[key].sides[side].resizer.is_some() {
            self.resize(now, (key, side), &arrival, packet.payload(), rtp.as_ref(), out);
        } else {
            let passing =
                Passing { arrival: &arrival, payload: Payload::Received, received: packet.payload() };
            self.forward(now, (key, side), &passing, out);
        }
    }

    /// Step 5 for a party with a resizer.
    fn resize(
        &mut self,
        now: Now,
        (key, side): (usize, usize),
        arrival: &Arrival,
        received: &[u8],
        rtp: Option<&RtpView<'_>>,
        out: &mut Out,
    ) {
        let Some(mut resizer) = self.sessions[key].sides[side].resizer.take() else { return };
        let inserted = rtp.map_or(Inserted::Passed, |rtp| resizer.insert(now.mono, received, rtp));
        if inserted == Inserted::Passed {
            let passing = Passing { arrival, payload: Payload::Received, received };
            self.forward(now, (key, side), &passing, out);
        } else {
            self.stats.npkts_resizer_in += 1;
            self.stats.npkts_resizer_discard += u64::from(inserted == Inserted::Discarded);
        }
        while let Some(range) = resizer.next(now.mono, &mut out.scratch) {
            self.stats.npkts_resizer_out += 1;
            let passing = Passing { arrival, payload: Payload::Scratch(range), received };
            self.forward(now, (key, side), &passing, out);
        }
        self.sessions[key].sides[side].resizer = Some(resizer);
    }

    /// Steps 6 to 9: where a packet that the party of `side` sent goes.
    fn forward(&mut self, now: Now, (key, side): (usize, usize), passing: &Passing<'_>, out: &mut Out) {
        let session = &mut self.sessions[key];
        let channel = passing.arrival.port.channel;
        // 6. The player: who hears a prompt hears nothing else. What the parties of a fork say goes nowhere.
        let hears_prompt = channel == Channel::Rtp && session.sides[1 - side].player.is_some();
        if hears_prompt || session.is_fork() {
            session.pipe(channel).dropped += 1;
            self.stats.npkts_discard += 1;
            return;
        }

        // 7. Witnesses: recordings, copies, modules and forks.
        witness(&self.config, now, session, side, passing, out);
        let is_hidden = watch(side, &mut session.sides[side], passing, out);
        if !session.forks.is_empty() {
            self.fork(now, (key, side), passing, out);
        }
        let session = &mut self.sessions[key];
        if is_hidden {
            session.pipe(channel).dropped += 1;
            self.stats.npkts_discard += 1;
            return;
        }

        // 8. Multiplexing and encryption have their place here.
        // 9. Relay.
        session.touch(side);
        let peer = &mut session.sides[1 - side];
        let via = peer.pair.map(|pair| MediaPort { pair: pair.id, channel });
        let to = peer.stream(channel).latch.destination(now.mono);
        let (Some(via), Some(to)) = (via, to) else {
            session.pipe(channel).dropped += 1;
            self.stats.npkts_discard += 1;
            return;
        };
        for _ in 0..passing.copies(&self.config) {
            out.push(Effect::Send { payload: passing.payload.clone(), via, to });
        }
        // A packet that is sent twice is one packet all the same.
        session.pipe(channel).relayed += 1;
        self.stats.npkts_relayed += 1;
    }
}

/// A packet on its way through the steps 6 to 9.
pub(super) struct Passing<'a> {
    /// Where it came from.
    pub(super) arrival: &'a Arrival,
    /// Its bytes.
    pub(super) payload: Payload,
    /// What [`Payload::Received`] means.
    pub(super) received: &'a [u8],
}

impl Passing<'_> {
    /// The bytes, where they may lie in [`Out::scratch`].
    pub(super) fn bytes<'a>(&'a self, scratch: &'a [u8]) -> &'a [u8] {
        match &self.payload {
            Payload::Received => self.received,
            Payload::Scratch(range) => &scratch[range.clone()],
        }
    }

    /// How often it is sent.
    pub(super) fn copies(&self, config: &EngineConfig) -> u64 {
        let len = match &self.payload {
            Payload::Received => self.received.len(),
            Payload::Scratch(range) => range.len(),
        };
        if config.double_send && len < DOUBLE_BELOW_BYTES { 2 } else { 1 }
    }
}

fn latch(
    now: Now,
    session: &mut Session,
    side: usize,
    channel: Channel,
    from: SocketAddr,
    seen: Option<Seen>,
) -> Verdict {
    let side = &mut session.sides[side];
    match channel {
        Channel::Rtp => {
            let before = side.rtp.latch.remote();
            let verdict = side.rtp.latch.rtp_packet(now.mono, from, seen);
            // A source that is settled where it was signalled says nothing new about RTCP.
            if side.rtp.latch.remote() != before {
                side.rtcp.latch.guess_rtcp(&side.rtp.latch);
            }
            verdict
        }
        Channel::Rtcp => {
            let host = side.rtp.latch.host();
            side.rtcp.latch.rtcp_packet(now.mono, from, host)
        }
    }
}

fn analyze(now: Now, session: &mut Session, side: usize, channel: Channel, rtp: Option<&RtpView<'_>>) {
    let side = &mut session.sides[side];
    side.stream(channel).count(now);
    match (channel, rtp) {
        (Channel::Rtp, Some(rtp)) => {
            if side.analyzer.packet(rtp, now.wall).ssrc_changed {
                side.rtp.latch.ssrc_changed(now.mono, Seen::from(rtp));
            }
        }
        (Channel::Rtp, None) => side.analyzer.parse_error(),
        (Channel::Rtcp, _) => {}
    }
}

/// Tells the log and the recordings that a stream found its source or moved.
fn moved(now: Now, session: &mut Session, side: usize, channel: Channel, verdict: Verdict, out: &mut Out) {
    let leg = leg_of(side);
    let stream = session.sides[side].stream(channel);
    let Some(to) = stream.latch.remote() else { return };
    if stream.moves_told >= MOVES_TOLD_MAX {
        return;
    }
    stream.moves_told += 1;
    let mark = match verdict {
        Verdict::Relatched { from } => {
            info!(
                call_id = %session.call_id,
                "{channel} of the {} moved from {from} to {to}", leg.name()
            );
            Mark::Relatched { leg, channel, from, to }
        }
        _ => {
            info!(call_id = %session.call_id, "{channel} of the {} latched to {to}", leg.name());
            Mark::Latched { leg, channel, source: to }
        }
    };
    mark_all(now, session, &mark, out);
}

/// Tells of a refused source, each once and only so many.
fn refused(now: Now, session: &mut Session, side: usize, channel: Channel, from: SocketAddr, out: &mut Out) {
    let leg = leg_of(side);
    let stream = session.sides[side].stream(channel);
    if !stream.refusals_told.is_new(from) {
        return;
    }
    let expected = stream.latch.remote();
    warn!(
        call_id = %session.call_id,
        "{channel} for the {} refused: it comes from {from}, expected is {}",
        leg.name(), expected.map_or_else(|| "no address yet".to_owned(), |addr| addr.to_string())
    );
    mark_all(now, session, &Mark::Refused { leg, channel, source: from }, out);
}

/// Writes a mark into every recording of the session.
pub(super) fn mark_all(now: Now, session: &Session, mark: &Mark, out: &mut Out) {
    for id in recordings_of(session) {
        out.push(Effect::Recording(crate::recording::RecordingEvent::Mark {
            id,
            at: now,
            mark: mark.clone(),
        }));
    }
}

/// The recordings of a session, each once.
pub(super) fn recordings_of(session: &Session) -> impl Iterator<Item = RecordingId> + use<> {
    let call = session.recording.map(|recording| recording.id);
    let [callee, caller] = [session.sides[0].recording(), session.sides[1].recording()];
    let callee = callee.filter(|id| Some(*id) != caller);
    [call, caller, callee].into_iter().flatten()
}

/// Copies an accepted packet into the recordings that cover it or into the memory for later ones, to the hosts
/// that get what this party sends, into live taps, and RTCP to capture servers.
pub(super) fn witness(
    config: &EngineConfig,
    now: Now,
    session: &Session,
    side: usize,
    passing: &Passing<'_>,
    out: &mut Out,
) {
    let &Passing { arrival, ref payload, .. } = passing;
    let channel = arrival.port.channel;
    if channel == Channel::Rtcp && config.capture_rtcp {
        let (src, dst) = recorded_addresses(session, side, false, arrival);
        let call_id = session.call_id.clone();
        out.push(Effect::Rtcp(CapturedRtcp { call_id, at: now.wall, src, dst, payload: payload.clone() }));
    }
    for id in &session.taps {
        let (src, dst) = recorded_addresses(session, side, false, arrival);
        let (leg, at, payload) = (leg_of(side), now.wall, payload.clone());
        out.push(Effect::Tap(TappedPacket { id: *id, leg, channel, at, src, dst, payload }));
    }
    let call = session.recording.filter(|recording| !recording.paused).map(|recording| (recording.id, false));
    let own = session.sides[side].file.map(|file| (file.id, file.single));
    for receiver in &session.sides[side].receivers {
        let to = match channel {
            Channel::Rtp => Some(receiver.rtp),
            Channel::Rtcp => receiver.rtcp,
        };
        if let Some(to) = to {
            let via = MediaPort { pair: receiver.pair.id, channel };
            out.push(Effect::Copy { payload: payload.clone(), via, to });
        }
    }
    if channel == Channel::Rtcp && !config.record_rtcp {
        return;
    }
    for (id, single) in [call, own].into_iter().flatten() {
        let (src, dst) = recorded_addresses(session, side, single, arrival);
        out.push(Effect::Record(RecordPacket {
            id,
            leg: leg_of(side),
            channel,
            at: now,
            src,
            dst,
            payload: payload.clone(),
        }));
    }
    if let Some(id) = session.sides[side].kept {
        let (src, dst) = recorded_addresses(session, side, false, arrival);
        out.push(Effect::Keep(KeptPacket { id, channel, at: now, src, dst, payload: payload.clone() }));
    }
}

/// From the party to our port; RTCP of a single file shows the outgoing copy, as the C program writes it.
fn recorded_addresses(
    session: &Session,
    side: usize,
    single: bool,
    arrival: &Arrival,
) -> (SocketAddr, SocketAddr) {
    let own = &session.sides[side];
    let is_rtcp = arrival.port.channel == Channel::Rtcp;
    let port_of = |port: u16| if is_rtcp { port + 1 } else { port };
    if is_rtcp && single {
        let peer = &session.sides[1 - side];
        if let (Some(pair), Some(to)) = (peer.pair, peer.rtcp.latch.remote()) {
            return (SocketAddr::new(peer.local.ip, port_of(pair.port)), to);
        }
    }
    let port = own.pair.map_or(0, |pair| port_of(pair.port));
    (arrival.from, SocketAddr::new(arrival.to.unwrap_or(own.local.ip), port))
}

/// `-2` sends packets shorter than this twice.
const DOUBLE_BELOW_BYTES: usize = 128;

/// At most this many moves are told of for a stream: in legacy two sources may take it from each other with
/// every packet.
const MOVES_TOLD_MAX: u8 = 64;
