//! What a recording has seen, for the totals at the end of a file and for its sidecar.

use std::net::SocketAddr;
use std::time::Duration;

use rtpproxy_core::recording::{Channel, Leg, Mark};
use rtpproxy_core::rtp::RtpView;
use rtpproxy_core::time::{Now, Wall};

use super::queue::{Dropped, PacketHead};
use crate::preroll;

/// Counts and history of one recording. Every list is bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    streams: [Stream; 4],
    /// Where packets are missing.
    pub(super) gaps: Vec<Gap>,
    /// From when to when the recording was paused; an open end at the end of the recording.
    pub(super) pauses: Vec<(Wall, Option<Wall>)>,
    /// Marks other than pauses.
    pub(super) marks: Vec<(Wall, Mark)>,
    /// How many gaps, pauses and marks did not fit the lists.
    pub(super) omitted: u64,
    /// Frames of the head and of later changes, which are not packets.
    pub(super) synthetic_frames: u64,
    /// Packets counted as recorded that the disk refused to the end.
    pub(super) unsaved: u64,
    /// What it holds from before it was asked for.
    pub(super) preroll: Option<Preroll>,
}

/// What a recording holds from before it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Preroll {
    /// When the first packet came; `None` if all were lost.
    pub(super) from: Option<Wall>,
    /// How many packets the memory still had.
    pub(super) packets: u64,
    /// How many of that time it had lost to its limit.
    pub(super) lost: u64,
}

/// What one party sent on one port.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    /// Packets in the file.
    pub(super) packets: u64,
    /// Their payloads, in bytes.
    pub(super) bytes: u64,
    /// Packets that were to be recorded and are not.
    pub(super) dropped: u64,
    /// When the first of the file came.
    pub(super) first: Option<Wall>,
    /// When the last of the file came.
    pub(super) last: Option<Wall>,
    /// Where they came from, each once.
    pub(super) sources: Vec<SocketAddr>,
    /// The SSRCs of RTP, each once.
    pub(super) ssrcs: Vec<u32>,
    /// The payload types of RTP, each once.
    pub(super) payload_types: Vec<u8>,
}

/// A place where packets are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Whose.
    pub(super) leg: Leg,
    /// On which port.
    pub(super) channel: Channel,
    /// When the first missing one came.
    pub(super) from: Wall,
    /// When the last missing one came.
    pub(super) to: Wall,
    /// How many.
    pub(super) packets: u64,
    /// Why.
    pub(super) cause: String,
}

impl Preroll {
    /// Of packets that are about to be read.
    pub(super) fn of(preroll: &mut preroll::Preroll) -> Self {
        Self { from: preroll.first(), packets: preroll.packets(), lost: preroll.lost }
    }

    /// The words for a file and the log, about a recording that was `asked` for then.
    pub(super) fn text(&self, asked: Wall) -> String {
        let Self { from, packets, lost } = self;
        let before = Duration::from_nanos(from.map_or(0, |from| asked.0.saturating_sub(from.0)));
        let seconds = before.as_secs_f64();
        let mut text = format!("preroll: {seconds:.3} s from before the command, {packets} packets");
        if *lost > 0 {
            text.push_str(&format!("; {lost} more were lost, as the memory for them was used up"));
        }
        text
    }
}

impl Tally {
    /// What `leg` sent on `channel`.
    pub(super) fn stream(&self, leg: Leg, channel: Channel) -> &Stream {
        &self.streams[index(leg, channel)]
    }

    /// The sum of a figure over all streams.
    pub(super) fn sum(&self, figure: impl Fn(&Stream) -> u64) -> u64 {
        self.streams.iter().map(figure).sum()
    }

    /// When the first packet of the recording came.
    pub(super) fn first(&self) -> Option<Wall> {
        self.streams.iter().filter_map(|stream| stream.first).min()
    }

    /// When the last packet of the recording came.
    pub(super) fn last(&self) -> Option<Wall> {
        self.streams.iter().filter_map(|stream| stream.last).max()
    }

    /// Counts a packet that went into the file.
    pub(super) fn packet(&mut self, packet: &PacketHead, payload: &[u8]) {
        let stream = &mut self.streams[index(packet.leg, packet.channel)];
        let at = packet.at.wall;
        stream.packets += 1;
        stream.bytes += payload.len() as u64;
        stream.first = Some(stream.first.map_or(at, |first| first.min(at)));
        stream.last = Some(stream.last.map_or(at, |last| last.max(at)));
        note(&mut stream.sources, packet.src);
        if packet.channel == Channel::Rtp
            && let Ok(rtp) = RtpView::parse(payload)
        {
            note(&mut stream.ssrcs, rtp.ssrc());
            note(&mut stream.payload_types, rtp.payload_type());
        }
    }

    /// Counts packets that are missing, as one gap.
    pub(super) fn dropped(&mut self, dropped: &Dropped, cause: &str) {
        let Dropped { leg, channel, packets, first, last, .. } = *dropped;
        self.streams[index(leg, channel)].dropped += packets;
        let (from, to) = (first.wall, last.wall);
        let gap = Gap { leg, channel, from, to, packets, cause: cause.to_owned() };
        push(&mut self.gaps, gap, &mut self.omitted);
    }

    /// Adds what came after it, and empties that.
    pub(super) fn absorb(&mut self, later: &mut Self) {
        for (stream, later) in self.streams.iter_mut().zip(&mut later.streams) {
            stream.absorb(later);
        }
        for gap in later.gaps.drain(..) {
            push(&mut self.gaps, gap, &mut self.omitted);
        }
        for pause in later.pauses.drain(..) {
            push(&mut self.pauses, pause, &mut self.omitted);
        }
        for mark in later.marks.drain(..) {
            push(&mut self.marks, mark, &mut self.omitted);
        }
        self.omitted += std::mem::take(&mut later.omitted);
        self.synthetic_frames += std::mem::take(&mut later.synthetic_frames);
        self.unsaved += std::mem::take(&mut later.unsaved);
        self.preroll = self.preroll.take().or(later.preroll.take());
    }

    /// The tally of the next file of the recording: if it is paused, it still is.
    pub(super) fn next_file(&self) -> Self {
        let open = self.pauses.last().filter(|(_, to)| to.is_none());
        Self { pauses: open.copied().into_iter().collect(), ..Self::default() }
    }

    /// Forgets the packets, which are lost with their file: how many of each stream, and when the first and the last
    /// one came.
    pub(super) fn lose(&mut self) -> Vec<(Leg, Channel, u64, [Wall; 2])> {
        let mut lost = Vec::new();
        self.synthetic_frames = 0;
        for leg in [Leg::Caller, Leg::Callee] {
            for channel in [Channel::Rtp, Channel::Rtcp] {
                let stream = &mut self.streams[index(leg, channel)];
                if let (Some(first), Some(last)) = (stream.first.take(), stream.last.take()) {
                    lost.push((leg, channel, std::mem::take(&mut stream.packets), [first, last]));
                }
                stream.bytes = 0;
            }
        }
        lost
    }

    /// Keeps a mark.
    pub(super) fn mark(&mut self, at: Now, mark: &Mark) {
        match mark {
            Mark::Paused => push(&mut self.pauses, (at.wall, None), &mut self.omitted),
            Mark::Resumed => {
                if let Some((_, to @ None)) = self.pauses.last_mut() {
                    *to = Some(at.wall);
                }
            }
            Mark::Latched { .. } | Mark::Relatched { .. } | Mark::Refused { .. } => {
                push(&mut self.marks, (at.wall, mark.clone()), &mut self.omitted);
            }
        }
    }
}

impl Stream {
    fn absorb(&mut self, later: &mut Self) {
        self.packets += std::mem::take(&mut later.packets);
        self.bytes += std::mem::take(&mut later.bytes);
        self.dropped += std::mem::take(&mut later.dropped);
        let (first, last) = (later.first.take(), later.last.take());
        self.first = self.first.into_iter().chain(first).min();
        self.last = self.last.into_iter().chain(last).max();
        later.sources.drain(..).for_each(|source| note(&mut self.sources, source));
        later.ssrcs.drain(..).for_each(|ssrc| note(&mut self.ssrcs, ssrc));
        later.payload_types.drain(..).for_each(|payload_type| note(&mut self.payload_types, payload_type));
    }
}

/// A number for each stream, below four.
pub(super) fn index(leg: Leg, channel: Channel) -> usize {
    usize::from(leg == Leg::Callee) + 2 * usize::from(channel == Channel::Rtcp)
}

fn note<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if list.len() < IDENTITIES_MAX && !list.contains(&value) {
        list.push(value);
    }
}

fn push<T>(list: &mut Vec<T>, value: T, omitted: &mut u64) {
    if list.len() < HISTORY_MAX {
        list.push(value);
    } else {
        *omitted += 1;
    }
}

/// How many addresses, SSRCs and payload types of a stream are told apart.
const IDENTITIES_MAX: usize = 32;
/// How many gaps, pauses and marks of a recording are kept.
const HISTORY_MAX: usize = 256;
