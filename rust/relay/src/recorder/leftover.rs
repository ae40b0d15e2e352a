//! One file that an earlier process did not finish: what is in it, and its end put right.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use rtpproxy_core::command::{CallId, Tag};
use rtpproxy_core::compression;
use rtpproxy_core::file_name::{Compression, Encryption};
use rtpproxy_core::journal::Record;
use rtpproxy_core::pcap::{self, Resolution};
use rtpproxy_core::pcapng;
use rtpproxy_core::recording::{Channel, Leg, LegFacts, RecordingId};
use rtpproxy_core::rtcp;
use rtpproxy_core::salvage::{Event, Format, Hole, Origin, Packet, Piece, Salvage};
use rtpproxy_core::sealed::{self, Chunks, HeadError, OpenError};
use rtpproxy_core::time::{Mono, Now, Wall};
use sha2::{Digest, Sha256};

use super::queue::{Dropped, PacketHead};
use super::sidecar::{hex, rfc3339, unhex};
use super::tally::{self, Tally};

/// What the name of a file tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hints {
    /// How it was begun; its first bytes count more.
    pub(super) format: Format,
    /// Whose packets it holds, if not both parties'.
    pub(super) leg: Option<Leg>,
    /// It holds RTCP alone.
    pub(super) is_rtcp: bool,
    /// It was converted, so it is complete.
    pub(super) compression: Option<Compression>,
    /// It is encrypted, with a key that nobody has.
    pub(super) encryption: Option<Encryption>,
}

impl Hints {
    /// It was made of another file.
    pub(super) fn is_converted(self) -> bool {
        self.compression.is_some() || self.encryption == Some(Encryption::Age)
    }
}

/// A file that was put right.
#[derive(Clone, Debug)]
pub(super) struct Mended {
    /// In bytes.
    pub(super) len: u64,
    /// In hexadecimal.
    pub(super) sha256: String,
    /// The length of its content, if it is compressed.
    pub(super) content_len: Option<u64>,
}

/// What the files of a recording tell of it, one after the other.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The call.
    pub(super) call_id: Option<CallId>,
    /// The tag that the session was created with.
    pub(super) from_tag: Option<Tag>,
    /// The other party's.
    pub(super) to_tag: Option<Tag>,
    /// When the recording was asked for.
    pub(super) start: Option<String>,
    /// The format of the last file.
    pub(super) format: Option<Format>,
    /// Packets.
    pub(super) tally: Tally,
    /// What packets tell of the parties.
    pub(super) legs: [LegFacts; 2],
    /// There are packets of which nobody knows whose they are.
    pub(super) is_anonymous: bool,
    /// It is the segment of a journal.
    pub(super) is_journal: bool,
    /// How many recordings that tells of.
    pub(super) recordings: usize,
    /// How many bytes were cut off.
    pub(super) cut_bytes: u64,
    /// There are encrypted files, whose packets cannot be counted, and one was last written then.
    pub(super) sealed: Option<Wall>,
    /// Damage before the ends, with the number of the file.
    pub(super) holes: Vec<(usize, Hole)>,
    files: usize,
    /// When the last packet of each stream came.
    last: [Option<Wall>; 4],
}

/// The end of a file as it was found.
#[derive(Debug, Default)]
struct End {
    /// Up to where it makes sense.
    len: u64,
    has_head: bool,
    is_native: bool,
    interfaces: u32,
    has_totals: bool,
    start: Option<Wall>,
}

impl Findings {
    /// Takes in what `file` holds, cuts off what is not whole at its end, and closes it as its format asks for.
    /// One that was compressed stays as it is.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, is compressed and damaged, or if `is_stopped`.
    pub(super) fn mend(
        &mut self,
        file: &File,
        hints: Hints,
        is_stopped: &dyn Fn() -> bool,
    ) -> io::Result<Mended> {
        let source = Stoppable { file, is_stopped };
        let content_len = match hints.compression {
            _ if hints.encryption.is_some() => {
                self.sealed = self.sealed.max(Some(wall(file.metadata()?.modified()?)));
                self.format = Some(hints.format);
                // One of age is complete: what it was made of is gone.
                if hints.encryption == Some(Encryption::Sealed) {
                    let end = self.scan_sealed(source, hints.format)?;
                    self.cut(file, end)?;
                }
                None
            }
            None => {
                let end = self.scan(source, hints)?;
                self.close(file, &end)?;
                None
            }
            Some(compression) => {
                let content = compression::Content::new(source)?;
                if content.compression() != Some(compression) {
                    return Err(io::Error::other(format!("it is not {} data", compression.name())));
                }
                Some(self.scan(content, hints)?.len)
            }
        };
        let mut file = file;
        file.rewind()?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; BUFFER_LEN];
        let mut len = 0;
        loop {
            let read = Stoppable { file, is_stopped }.read(&mut buffer)?;
            if read == 0 {
                self.files += 1;
                return Ok(Mended { len, sha256: hex(&digest.finalize()), content_len });
            }
            digest.update(&buffer[..read]);
            len += read as u64;
        }
    }

    /// Cuts a file back to where it makes sense, and writes what it lacks there.
    fn close(&mut self, mut file: &File, end: &End) -> io::Result<()> {
        self.cut(file, end.len)?;
        file.write_all(&self.missing_end(end))
    }

    fn cut(&mut self, file: &File, end: u64) -> io::Result<()> {
        let before = file.metadata()?.len();
        if end < before {
            file.set_len(end)?;
            self.cut_bytes += before - end;
        }
        Ok(())
    }

    fn scan(&mut self, source: impl Read, hints: Hints) -> io::Result<End> {
        let mut salvage = Salvage::new(source, Some(hints.format))?;
        let format = salvage.format();
        self.format = Some(format);
        let mut end = End::default();
        while let Some(event) = salvage.next()? {
            match event {
                Event::Piece { at, bytes, what } => {
                    end.len = at + bytes.len() as u64;
                    match what {
                        Piece::Head { comments, is_native } => {
                            comments.iter().for_each(|comment| self.comment(comment));
                            (end.has_head, end.is_native) = (true, is_native);
                        }
                        Piece::Interface { number } => end.interfaces = end.interfaces.max(number + 1),
                        Piece::Packet(packet) => {
                            end.start.get_or_insert(packet.at);
                            self.packet(&packet, hints);
                        }
                        Piece::Totals { .. } => end.has_totals = true,
                        Piece::Other => {
                            self.recordings += usize::from(is_member(bytes));
                        }
                    }
                }
                Event::Tail(tail) if tail.at > 0 && (tail.is_zeros || tail.len <= TORN_MAX) => {}
                Event::Hole(hole) => self.hole(hole),
                // No torn record: it might not be ours, so it stays.
                Event::Tail(tail) => {
                    self.hole(tail);
                    end.len = tail.at + tail.len;
                }
            }
        }
        Ok(end)
    }

    /// Up to where a sealed file makes sense, without its key.
    fn scan_sealed(&mut self, source: Stoppable<'_>, format: Format) -> io::Result<u64> {
        self.format = Some(format);
        let len = source.file.metadata()?.len();
        let mut chunks = match Chunks::new(source) {
            Ok(chunks) => chunks,
            Err(OpenError::Io(error)) => return Err(error),
            // Nothing can be read without the head, and nobody has the key.
            Err(OpenError::Head(HeadError::Cut)) => return Ok(0),
            Err(OpenError::Head(_)) if len == 0 => return Ok(0),
            Err(OpenError::Head(_)) => {
                self.hole(Hole { at: 0, len, reason: "the head is damaged", is_zeros: false });
                return Ok(len);
            }
        };
        self.format = Some(chunks.head().format);
        let comments = chunks.head().comments.clone();
        comments.iter().for_each(|comment| self.comment(comment));
        let mut end = chunks.head_len();
        while let Some(event) = chunks.next()? {
            match event {
                sealed::Event::Chunk(chunk) => end = chunk.at + chunk.len,
                sealed::Event::Tail(tail) if tail.is_zeros || tail.len <= SEALED_TORN_MAX => {}
                sealed::Event::Hole(hole) | sealed::Event::Tail(hole) => {
                    self.hole(hole);
                    end = hole.at + hole.len;
                }
            }
        }
        Ok(end)
    }

    fn hole(&mut self, hole: Hole) {
        if self.holes.len() < HOLES_MAX {
            self.holes.push((self.files, hole));
        }
    }

    /// What the file lacks behind its last whole piece.
    fn missing_end(&self, end: &End) -> Vec<u8> {
        let mut out = Vec::new();
        match self.format {
            // Nothing was written: an empty recording that can be read is better than none.
            Some(Format::Pcap) if end.len == 0 => pcap::file_header(Resolution::Micro, &mut out),
            Some(Format::Pcapng) if end.len == 0 => {
                pcapng::section(&["nothing was recorded before the relay ended"], &mut out);
                pcapng::INTERFACE_NAMES.into_iter().for_each(|name| pcapng::interface(name, &mut out));
            }
            Some(Format::Pcapng) if end.has_head && end.is_native && !end.has_totals && !self.is_journal => {
                self.totals(end, &mut out);
            }
            _ => {}
        }
        out
    }

    fn totals(&self, end: &End, out: &mut Vec<u8>) {
        let last = self.tally.last().unwrap_or_default();
        let start = end.start.unwrap_or(last);
        let mut comments: &[&str] = &["the relay ended before this recording; it was recovered"];
        for (leg, channel) in STREAMS {
            let interface = pcapng::interface_of(leg, channel);
            if interface < end.interfaces {
                let stream = self.tally.stream(leg, channel);
                let received = stream.packets + stream.dropped;
                pcapng::statistics(interface, start, last, received, stream.dropped, comments, out);
                comments = &[];
            }
        }
    }

    fn comment(&mut self, text: &str) {
        if self.is_journal {
            // It is one of many calls'.
            return;
        }
        let Some((name, id)) = text.split_once(": ") else { return };
        match name {
            "call-id" => self.call_id = Some(id_bytes(id).as_slice().into()),
            "from-tag" => self.from_tag = Some(id_bytes(id).as_slice().into()),
            "start" => self.start = Some(id.to_owned()),
            "to-tag" => self.to_tag = Some(id_bytes(id).as_slice().into()),
            _ => {}
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, hints: Hints) {
        packet.comments.iter().for_each(|comment| self.comment(comment));
        let Some(datagram) = packet.datagram else { return };
        let usual =
            || if hints.is_rtcp || rtcp::is_rtcp(datagram.payload) { Channel::Rtcp } else { Channel::Rtp };
        let (leg, channel) = match (packet.origin, hints.leg) {
            (Origin::Synthetic, _) => {
                self.tally.synthetic_frames += 1;
                return;
            }
            (Origin::Leg(leg, channel), _) => (leg, channel),
            (Origin::Unnamed, Some(leg)) => (leg, usual()),
            (Origin::Unnamed, None) => {
                self.is_anonymous = true;
                (Leg::Caller, usual())
            }
        };
        let last = self.last[tally::index(leg, channel)].replace(packet.at);
        if packet.dropped > 0 {
            let (first, last) = (now(last.unwrap_or(packet.at)), now(packet.at));
            let dropped = Dropped { id: NOBODY, leg, channel, packets: packet.dropped, first, last };
            let cause = packet.comments.iter().find_map(|text| gap_cause(text)).unwrap_or_default();
            self.tally.dropped(&dropped, cause);
        }
        let dst = datagram.dst.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        let head = PacketHead { id: NOBODY, leg, channel, at: now(packet.at), src: datagram.src, dst };
        self.tally.packet(&head, datagram.payload);
        if channel == Channel::Rtp {
            let facts = &mut self.legs[usize::from(leg == Leg::Callee)];
            facts.remote = Some(datagram.src);
            facts.local = datagram.dst.map(|dst| (dst.ip(), dst.port()));
        }
    }
}

/// A file whose reading ends with an error when the relay does.
struct Stoppable<'a> {
    file: &'a File,
    is_stopped: &'a dyn Fn() -> bool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.is_stopped)() {
            return Err(io::Error::other(Stopped));
        }
        self.file.read(buffer)
    }
}

/// The relay ends.
#[derive(Debug, thiserror::Error)]
#[error("the relay ends")]
pub(super) struct Stopped;

/// When a recording was recovered, for its sidecar.
pub(super) fn now_text() -> String {
    rfc3339(wall(SystemTime::now()))
}

fn wall(time: SystemTime) -> Wall {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

fn is_member(block: &[u8]) -> bool {
    matches!(Record::parse(block), Some(Record::Member(_)))
}

/// The bytes of an id in a comment: its text, unless that has lost some and they stand behind it.
fn id_bytes(text: &str) -> Vec<u8> {
    let exact = text.strip_suffix(')').and_then(|text| text.rsplit_once(" (hex "));
    let exact = exact.and_then(|(text, hex)| Some((text, unhex(hex)?)));
    match exact {
        Some((text, bytes)) if String::from_utf8_lossy(&bytes) == text => bytes,
        _ => text.as_bytes().to_vec(),
    }
}

/// What the comment on a gap says of its cause.
fn gap_cause(comment: &str) -> Option<&str> {
    comment.strip_prefix("gap: ")?.rsplit_once(": ").map(|(_, cause)| cause)
}

fn now(wall: Wall) -> Now {
    Now { mono: Mono::default(), wall }
}

const STREAMS: [(Leg, Channel); 4] = [
    (Leg::Caller, Channel::Rtp),
    (Leg::Callee, Channel::Rtp),
    (Leg::Caller, Channel::Rtcp),
    (Leg::Callee, Channel::Rtcp),
];
/// The number of a recording that no worker has.
const NOBODY: RecordingId = RecordingId(0);
const BUFFER_LEN: usize = 64 << 10;
/// More bytes than the buffer of a file and a record have.
const TORN_MAX: u64 = 1 << 20;
/// More bytes than a chunk of a sealed file has.
const SEALED_TORN_MAX: u64 = 2 << 20;
/// How many holes of a recording are told.
const HOLES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_from_comments() {
        assert_eq!(id_bytes("a@b"), b"a@b");
        assert_eq!(id_bytes("\u{fffd}x (hex ff78)"), b"\xffx");
        // Somebody calls himself so.
        assert_eq!(id_bytes("a (hex ff)"), b"a (hex ff)");
        assert_eq!(id_bytes("a (hex zz)"), b"a (hex zz)");
    }

    #[test]
    fn the_cause_of_a_gap_is_at_its_end() {
        let comment = "gap: 3 packets of caller rtp are missing, from 2026-01-01T00:00:00Z to x: disk full";
        assert_eq!(gap_cause(comment), Some("disk full"));
        assert_eq!(gap_cause("latched at x: y"), None);
    }
}
