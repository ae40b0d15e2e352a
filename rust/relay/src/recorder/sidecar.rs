//! The JSON file beside a recording that says what is in it.

use std::net::SocketAddr;

use chrono::{DateTime, SecondsFormat};
use rtpproxy_core::command::Tag;
use rtpproxy_core::journal::Member;
use rtpproxy_core::recording::{Channel, Coverage, Leg, LegFacts, Mark, RecordingStart};
use rtpproxy_core::salvage::Format;
use rtpproxy_core::time::Wall;
use serde::Serialize;

use super::names::without_media_number;
use super::tally::{Preroll, Stream, Tally};
use crate::config::RecordFormat;

/// What the sidecar says. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sidecar {
    /// Of this layout.
    version: u32,
    /// `None`, like other facts below, if the recording was recovered and its files do not tell.
    call_id: Option<String>,
    /// The exact bytes in hexadecimal, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id_hex: Option<String>,
    /// The same for all media of a call.
    call: Option<String>,
    from_tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_tag_hex: Option<String>,
    to_tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_tag_hex: Option<String>,
    scope: Option<&'static str>,
    /// Whose packets, if not both parties'.
    #[serde(skip_serializing_if = "Option::is_none")]
    leg: Option<&'static str>,
    format: &'static str,
    /// The files with the packets; filled in when they have their names.
    pub(super) files: Vec<FileFacts>,
    pub(super) requested: Option<String>,
    /// What was said before that, if any of it is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    preroll: Option<PrerollFacts>,
    first_packet: Option<String>,
    last_packet: Option<String>,
    /// `None`, like what is told of them below, if they cannot be counted: the files are encrypted.
    packets: Option<u64>,
    /// Of payload.
    bytes: Option<u64>,
    /// Packets that should be in the files and are not.
    dropped: Option<u64>,
    /// Packets counted above that the disk refused to the end.
    unsaved: u64,
    synthetic_frames: Option<u64>,
    /// Of the segment of a journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<SegmentFacts>,
    legs: Option<Legs>,
    gaps: Vec<GapFacts>,
    pauses: Vec<Pause>,
    marks: Vec<MarkFacts>,
    /// Gaps, pauses and marks that were too many to keep.
    omitted: u64,
    ended: Ended,
    /// What became of a recording whose process did not end it.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<Recovered>,
    /// The number of this file of a recording that is rotated, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<u32>,
    /// The name of the file before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<String>,
    /// The name of the file after this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
    /// Why the files are as they were written, if they were to be converted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_converted: Option<String>,
    /// The file before this one, in the other folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) moved_from: Option<String>,
    /// The file after this one, in the other folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) moved_to: Option<String>,
}

impl Sidecar {
    /// The sidecar of a recording that ended, without its files.
    pub(super) fn new(
        start: &RecordingStart,
        format: RecordFormat,
        tally: &Tally,
        (ended_at, reason): (Wall, &'static str),
    ) -> Self {
        let (scope, leg) = match &start.coverage {
            Coverage::Call => ("call", None),
            Coverage::Stream(leg) => ("stream", Some(leg.name())),
            Coverage::SingleFile | Coverage::NamedSingleFile { .. } => ("single-file", None),
            Coverage::Named { leg, .. } => ("named", Some(leg.name())),
        };
        let tags = Ids {
            call_id: Some(start.call_id.as_bytes()),
            from_tag: Some(start.from_tag.as_bytes()),
            to_tag: start.to_tag.as_ref().map(Tag::as_bytes),
        };
        let ended = Ended { at: Some(rfc3339(ended_at)), reason };
        let mut sidecar = Self::of(&tags, format_of(format), tally, ended);
        sidecar.scope = Some(scope);
        sidecar.leg = leg;
        sidecar.requested = Some(rfc3339(start.at.wall));
        sidecar.legs = Some(Legs::new(&start.legs, tally));
        sidecar
    }

    /// The sidecar of the segment of a journal, without its file. It begins at `start` and has so many `recordings`.
    pub(super) fn segment(
        worker: usize,
        recordings: usize,
        start: Wall,
        tally: &Tally,
        (ended_at, reason): (Wall, &'static str),
    ) -> Self {
        let ended = Ended { at: Some(rfc3339(ended_at)), reason };
        let mut sidecar = Self::of(&Ids::default(), Format::Pcapng, tally, ended);
        sidecar.format = JOURNAL;
        sidecar.requested = Some(rfc3339(start));
        sidecar.segment = Some(SegmentFacts { worker: Some(worker), recordings });
        sidecar
    }

    /// Whether it is that of a segment.
    pub(super) fn is_segment(&self) -> bool {
        self.format == JOURNAL
    }

    /// Says that what was recovered is a segment with so many recordings.
    pub(super) fn set_segment(&mut self, recordings: usize) {
        self.format = JOURNAL;
        self.segment = Some(SegmentFacts { worker: None, recordings });
        self.legs = None;
    }

    /// The sidecar of a recording that a process did not end, without its files. `legs` are `None` if nobody
    /// knows whose packets these are.
    pub(super) fn recovered(
        ids: &Ids<'_>,
        format: Format,
        tally: &Tally,
        legs: Option<&[LegFacts; 2]>,
        recovered: Recovered,
    ) -> Self {
        let ended = Ended { at: tally.last().map(rfc3339), reason: "interrupted" };
        let mut sidecar = Self::of(ids, format, tally, ended);
        sidecar.legs = legs.map(|legs| Legs::new(legs, tally));
        sidecar.recovered = Some(recovered);
        sidecar
    }

    /// Says nothing of packets, as nobody could look into the files, which were last written then.
    pub(super) fn forget_packets(&mut self, written: Wall) {
        (self.packets, self.bytes, self.dropped, self.synthetic_frames) = (None, None, None, None);
        self.legs = None;
        self.ended.at = Some(rfc3339(written));
    }

    fn of(ids: &Ids<'_>, format: Format, tally: &Tally, ended: Ended) -> Self {
        let text = |id: &[u8]| String::from_utf8_lossy(id).into_owned();
        Self {
            version: 1,
            call_id: ids.call_id.map(text),
            call_id_hex: ids.call_id.and_then(hex_unless_utf8),
            call: ids.call_id.zip(ids.from_tag).map(|(call_id, from_tag)| text(&call_key(call_id, from_tag))),
            from_tag: ids.from_tag.map(text),
            from_tag_hex: ids.from_tag.and_then(hex_unless_utf8),
            to_tag: ids.to_tag.map(text),
            to_tag_hex: ids.to_tag.and_then(hex_unless_utf8),
            scope: None,
            leg: None,
            format: format.name(),
            files: Vec::new(),
            requested: None,
            preroll: tally.preroll.as_ref().map(PrerollFacts::from),
            first_packet: tally.first().map(rfc3339),
            last_packet: tally.last().map(rfc3339),
            packets: Some(tally.sum(|stream| stream.packets)),
            bytes: Some(tally.sum(|stream| stream.bytes)),
            dropped: Some(tally.sum(|stream| stream.dropped)),
            unsaved: tally.unsaved,
            synthetic_frames: Some(tally.synthetic_frames),
            segment: None,
            legs: None,
            gaps: tally.gaps.iter().map(GapFacts::from).collect(),
            pauses: tally.pauses.iter().map(Pause::from).collect(),
            marks: tally.marks.iter().filter_map(MarkFacts::new).collect(),
            omitted: tally.omitted,
            ended,
            recovered: None,
            part: None,
            previous: None,
            next: None,
            not_converted: None,
            moved_from: None,
            moved_to: None,
        }
    }
}

/// The ids of a call, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ids<'a> {
    pub(super) call_id: Option<&'a [u8]>,
    pub(super) from_tag: Option<&'a [u8]>,
    pub(super) to_tag: Option<&'a [u8]>,
}

/// What there is in the segment of a journal: the segment itself tells of each recording.
#[derive(Clone, Copy, Debug, Serialize)]
struct SegmentFacts {
    /// `None` if it was recovered.
    worker: Option<usize>,
    recordings: usize,
}

/// What became of a recording whose process did not end it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Recovered {
    /// When.
    pub(super) at: String,
    /// How many bytes were cut off the ends of the files: records that were not whole.
    pub(super) cut_bytes: u64,
    /// Where the files are damaged before their ends. It was left as it is.
    pub(super) holes: Vec<HoleFacts>,
}

/// A part of a file that cannot be read.
#[derive(Clone, Debug, Serialize)]
pub(super) struct HoleFacts {
    /// In which of the files, from 0.
    pub(super) file: usize,
    /// Where it begins, in bytes.
    pub(super) at: u64,
    /// Its length.
    pub(super) bytes: u64,
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
    /// How it is compressed, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compression: Option<&'static str>,
    /// How long its content is, in bytes, if it is not as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_size: Option<u64>,
    /// How it is encrypted, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encryption: Option<&'static str>,
}

/// The format of files as those who read them call it.
pub(super) fn format_of(format: RecordFormat) -> Format {
    match format {
        RecordFormat::Pcapng => Format::Pcapng,
        RecordFormat::Pcap => Format::Pcap,
        RecordFormat::Adhoc => Format::Adhoc,
    }
}

/// `bytes` in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the section of a file says of its recording.
pub(super) fn section_comments(start: &RecordingStart) -> Vec<String> {
    let RecordingStart { call_id, from_tag, to_tag, at, .. } = start;
    let mut comments = vec![id_text("call-id", call_id.as_bytes()), id_text("from-tag", from_tag.as_bytes())];
    comments.extend(to_tag.as_ref().map(|tag| id_text("to-tag", tag.as_bytes())));
    comments.push(format!("start: {}", rfc3339(at.wall)));
    comments
}

/// What the interfaces of a recording in a segment say of it.
pub(super) fn member_comments(member: &Member) -> Vec<String> {
    let Member { recording, leg, start, call_id, from_tag, to_tag, .. } = member;
    let mut comments = vec![id_text("call-id", call_id.as_bytes()), id_text("from-tag", from_tag.as_bytes())];
    comments.extend(to_tag.as_ref().map(|tag| id_text("to-tag", tag.as_bytes())));
    comments.push(format!("start: {}", rfc3339(*start)));
    comments.push(format!("recording: {recording}"));
    comments.extend(leg.map(|leg| format!("leg: {}", leg.name())));
    comments
}

/// An id for a comment, with its exact bytes if it is no text.
pub(super) fn id_text(name: &str, id: &[u8]) -> String {
    let text = String::from_utf8_lossy(id);
    match hex_unless_utf8(id) {
        None => format!("{name}: {text}"),
        Some(hex) => format!("{name}: {text} (hex {hex})"),
    }
}

/// The bytes that [`hex`] has made a text of.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
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
pub(super) fn call_key(call_id: &[u8], from_tag: &[u8]) -> Vec<u8> {
    let digits = call_id.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let stem = call_id[..call_id.len() - digits].strip_suffix(b"-");
    let call_id = stem.filter(|_| (1..=2).contains(&digits)).unwrap_or(call_id);
    [call_id, b"=", without_media_number(from_tag)].concat()
}

#[derive(Clone, Debug, Serialize)]
struct PrerollFacts {
    from: Option<String>,
    packets: u64,
    lost: u64,
}

impl From<&Preroll> for PrerollFacts {
    fn from(preroll: &Preroll) -> Self {
        let Preroll { from, packets, lost } = *preroll;
        Self { from: from.map(rfc3339), packets, lost }
    }
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

impl Legs {
    fn new([caller, callee]: &[LegFacts; 2], tally: &Tally) -> Self {
        Self {
            caller: LegReport::new(Leg::Caller, caller, tally),
            callee: LegReport::new(Leg::Callee, callee, tally),
        }
    }
}

impl LegReport {
    fn new(leg: Leg, facts: &LegFacts, tally: &Tally) -> Self {
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
    at: Option<String>,
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

/// The format of segments.
const JOURNAL: &str = "journal";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_of_one_call_share_a_key() {
        assert_eq!(call_key(b"abc@host-0", b"tag"), b"abc@host=tag");
        assert_eq!(call_key(b"abc@host-12", b"tag;3"), b"abc@host=tag");
        assert_eq!(call_key(b"abc12", b"tag"), b"abc12=tag");
        assert_eq!(call_key(b"20261122-195054", b"tag"), b"20261122-195054=tag");
        assert_eq!(call_key(b"abc-", b"tag"), b"abc-=tag");
        assert_eq!(call_key(b"12", b"tag;1"), b"12=tag");
    }
}
