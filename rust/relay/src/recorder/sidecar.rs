//! The JSON file beside a recording that says what is in it.

use std::net::SocketAddr;

use chrono::{DateTime, SecondsFormat};
use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg, Mark, RecordingStart};
use rtpproxy_core::time::{Now, Wall};
use serde::Serialize;

use super::names::without_media_number;
use super::tally::{Stream, Tally};
use crate::config::RecordFormat;

/// What the sidecar says. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sidecar {
    /// Of this layout.
    version: u32,
    call_id: String,
    /// The exact bytes in hexadecimal, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id_hex: Option<String>,
    /// The same for all media of a call.
    call: String,
    from_tag: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_tag_hex: Option<String>,
    to_tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_tag_hex: Option<String>,
    scope: &'static str,
    /// Whose packets, if not both parties'.
    #[serde(skip_serializing_if = "Option::is_none")]
    leg: Option<&'static str>,
    format: &'static str,
    /// The files with the packets; filled in when they have their names.
    pub(super) files: Vec<FileFacts>,
    requested: String,
    first_packet: Option<String>,
    last_packet: Option<String>,
    packets: u64,
    /// Of payload.
    bytes: u64,
    /// Packets that should be in the files and are not.
    dropped: u64,
    /// Packets counted above that the disk refused to the end.
    unsaved: u64,
    synthetic_frames: u64,
    legs: Legs,
    gaps: Vec<GapFacts>,
    pauses: Vec<Pause>,
    marks: Vec<MarkFacts>,
    /// Gaps, pauses and marks that were too many to keep.
    omitted: u64,
    ended: Ended,
}

impl Sidecar {
    /// The sidecar of a recording that ended, without its files.
    pub(super) fn new(
        start: &RecordingStart,
        format: RecordFormat,
        tally: &Tally,
        ended: (Now, EndReason),
    ) -> Self {
        let (scope, leg) = match &start.coverage {
            Coverage::Call => ("call", None),
            Coverage::Stream(leg) => ("stream", Some(leg.name())),
            Coverage::SingleFile | Coverage::NamedSingleFile { .. } => ("single-file", None),
            Coverage::Named { leg, .. } => ("named", Some(leg.name())),
        };
        let call_id = start.call_id.as_bytes();
        let from_tag = start.from_tag.as_bytes();
        Self {
            version: 1,
            call_id: start.call_id.to_string(),
            call_id_hex: hex_unless_utf8(call_id),
            call: call_key(call_id, from_tag),
            from_tag: start.from_tag.to_string(),
            from_tag_hex: hex_unless_utf8(from_tag),
            to_tag: start.to_tag.as_ref().map(ToString::to_string),
            to_tag_hex: start.to_tag.as_ref().and_then(|tag| hex_unless_utf8(tag.as_bytes())),
            scope,
            leg,
            format: match format {
                RecordFormat::Pcapng => "pcapng",
                RecordFormat::Pcap => "pcap",
                RecordFormat::Adhoc => "adhoc",
            },
            files: Vec::new(),
            requested: rfc3339(start.at.wall),
            first_packet: tally.first().map(rfc3339),
            last_packet: tally.last().map(rfc3339),
            packets: tally.sum(|stream| stream.packets),
            bytes: tally.sum(|stream| stream.bytes),
            dropped: tally.sum(|stream| stream.dropped),
            unsaved: tally.unsaved,
            synthetic_frames: tally.synthetic_frames,
            legs: Legs {
                caller: LegReport::new(Leg::Caller, start, tally),
                callee: LegReport::new(Leg::Callee, start, tally),
            },
            gaps: tally.gaps.iter().map(GapFacts::from).collect(),
            pauses: tally.pauses.iter().map(Pause::from).collect(),
            marks: tally.marks.iter().filter_map(MarkFacts::new).collect(),
            omitted: tally.omitted,
            ended: Ended { at: rfc3339(ended.0.wall), reason: ended.1.name() },
        }
    }
}

/// One file of packets.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FileFacts {
    /// Its name. Bytes that are not UTF-8 are replaced.
    pub(super) name: String,
    /// The exact bytes in hexadecimal, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name_hex: Option<String>,
    /// In bytes.
    pub(super) size: u64,
    /// Of the whole file, in hexadecimal.
    pub(super) sha256: String,
}

/// `bytes` in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The exact bytes of an id, if its text form has lost some.
pub(super) fn hex_unless_utf8(id: &[u8]) -> Option<String> {
    str::from_utf8(id).is_err().then(|| hex(id))
}

/// A time for people, in UTC with nanoseconds.
pub(super) fn rfc3339(at: Wall) -> String {
    let nanos = i64::try_from(at.0).unwrap_or(i64::MAX);
    DateTime::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// What all media of a call have in common: the call-id without the `-N` that Sippy's B2BUA adds for each
/// medium, and the tag without its `;N`.
///
/// A longer number is no medium's.
fn call_key(call_id: &[u8], from_tag: &[u8]) -> String {
    let digits = call_id.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let stem = call_id[..call_id.len() - digits].strip_suffix(b"-");
    let call_id = stem.filter(|_| (1..=2).contains(&digits)).unwrap_or(call_id);
    let key = [call_id, b"=", without_media_number(from_tag)].concat();
    String::from_utf8_lossy(&key).into_owned()
}

#[derive(Clone, Debug, Serialize)]
struct Legs {
    caller: LegReport,
    callee: LegReport,
}

#[derive(Clone, Debug, Serialize)]
struct LegReport {
    /// The address that came with `U` or `L`.
    signalled: Option<SocketAddr>,
    /// Where the party was sent to at the end.
    remote: Option<SocketAddr>,
    /// The relay's address that the party sends to.
    local: Option<SocketAddr>,
    /// The payload types that were signalled.
    codecs: Vec<u8>,
    rtp: StreamReport,
    rtcp: StreamReport,
}

impl LegReport {
    fn new(leg: Leg, start: &RecordingStart, tally: &Tally) -> Self {
        let facts = match leg {
            Leg::Caller => &start.legs[0],
            Leg::Callee => &start.legs[1],
        };
        Self {
            signalled: facts.signalled,
            remote: facts.remote,
            local: facts.local.map(SocketAddr::from),
            codecs: facts.codecs.clone(),
            rtp: StreamReport::from(tally.stream(leg, Channel::Rtp)),
            rtcp: StreamReport::from(tally.stream(leg, Channel::Rtcp)),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct StreamReport {
    packets: u64,
    bytes: u64,
    dropped: u64,
    first: Option<String>,
    last: Option<String>,
    sources: Vec<SocketAddr>,
    ssrcs: Vec<u32>,
    payload_types: Vec<u8>,
}

impl From<&Stream> for StreamReport {
    fn from(stream: &Stream) -> Self {
        Self {
            packets: stream.packets,
            bytes: stream.bytes,
            dropped: stream.dropped,
            first: stream.first.map(rfc3339),
            last: stream.last.map(rfc3339),
            sources: stream.sources.clone(),
            ssrcs: stream.ssrcs.clone(),
            payload_types: stream.payload_types.clone(),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct GapFacts {
    leg: &'static str,
    channel: &'static str,
    from: String,
    to: String,
    packets: u64,
    cause: String,
}

impl From<&super::tally::Gap> for GapFacts {
    fn from(gap: &super::tally::Gap) -> Self {
        Self {
            leg: gap.leg.name(),
            channel: channel_name(gap.channel),
            from: rfc3339(gap.from),
            to: rfc3339(gap.to),
            packets: gap.packets,
            cause: gap.cause.clone(),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Pause {
    from: String,
    to: Option<String>,
}

impl From<&(Wall, Option<Wall>)> for Pause {
    fn from((from, to): &(Wall, Option<Wall>)) -> Self {
        Self { from: rfc3339(*from), to: to.map(rfc3339) }
    }
}

#[derive(Clone, Debug, Serialize)]
struct MarkFacts {
    at: String,
    event: &'static str,
    leg: &'static str,
    channel: &'static str,
    source: SocketAddr,
    /// The source before.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<SocketAddr>,
}

impl MarkFacts {
    /// `None` for pauses, which have a list of their own.
    fn new((at, mark): &(Wall, Mark)) -> Option<Self> {
        let (event, leg, channel, source, before) = match *mark {
            Mark::Latched { leg, channel, source } => ("latched", leg, channel, source, None),
            Mark::Relatched { leg, channel, from, to } => ("relatched", leg, channel, to, Some(from)),
            Mark::Refused { leg, channel, source } => ("refused", leg, channel, source, None),
            Mark::Paused | Mark::Resumed => return None,
        };
        let (leg, channel) = (leg.name(), channel_name(channel));
        Some(Self { at: rfc3339(*at), event, leg, channel, source, before })
    }
}

#[derive(Clone, Debug, Serialize)]
struct Ended {
    at: String,
    reason: &'static str,
}

/// A mark in words, for comments.
pub(super) fn mark_text(at: Wall, mark: &Mark) -> String {
    let at = rfc3339(at);
    match mark {
        Mark::Latched { leg, channel, source } => {
            format!("latched at {at}: {} {} comes from {source}", leg.name(), channel_name(*channel))
        }
        Mark::Relatched { leg, channel, from, to } => {
            format!("relatched at {at}: {} {} moved from {from} to {to}", leg.name(), channel_name(*channel))
        }
        Mark::Refused { leg, channel, source } => {
            format!("refused at {at}: {source} is not {} {}", leg.name(), channel_name(*channel))
        }
        Mark::Paused => format!("paused at {at}"),
        Mark::Resumed => format!("resumed at {at}"),
    }
}

/// The word for a channel.
pub(super) fn channel_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Rtp => "rtp",
        Channel::Rtcp => "rtcp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_of_one_call_share_a_key() {
        assert_eq!(call_key(b"abc@host-0", b"tag"), "abc@host=tag");
        assert_eq!(call_key(b"abc@host-12", b"tag;3"), "abc@host=tag");
        assert_eq!(call_key(b"abc12", b"tag"), "abc12=tag");
        assert_eq!(call_key(b"20261122-195054", b"tag"), "20261122-195054=tag");
        assert_eq!(call_key(b"abc-", b"tag"), "abc-=tag");
        assert_eq!(call_key(b"12", b"tag;1"), "12=tag");
    }
}
