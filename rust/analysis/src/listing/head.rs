//! A recording as the beginning of its file tells it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use rtpproxy_core::compression::Content;
use rtpproxy_core::file_name::FileName;
use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::salvage::{Event, Format, Hole, Origin, Packet, Piece, Salvage};
use rtpproxy_core::sealed::Chunks;
use rtpproxy_core::time::Wall;

use super::{Entry, State};
use crate::unlock::{Kind as Encryption, peek};
use crate::verify::is_being_written;

/// Looks at the file, whose name has these parts.
pub(super) fn read(path: &Path, name: &FileName<'_>) -> Entry {
    let mut entry = Entry { path: path.to_owned(), ..Entry::default() };
    if let Err(error) = look(path, name, &mut entry) {
        entry.state = State::Damaged;
        entry.error = Some(error.to_string());
    }
    if entry.call_id.is_none() {
        (entry.call_id, entry.from_tag) = ids_of_name(name.stem).unzip();
    }
    entry
}

fn look(path: &Path, name: &FileName<'_>, entry: &mut Entry) -> io::Result<()> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    entry.size = metadata.len();
    let is_written = is_being_written(path)?;
    entry.state = match (is_written, name.is_part) {
        (true, _) => State::Running,
        (false, true) => State::Interrupted,
        (false, false) => State::Finished,
    };
    let expected = name.content.format().unwrap_or(Format::Adhoc);
    // Of a recording that is being written, the beginning may not be there yet; ad-hoc files have no head.
    if entry.size == 0 && (is_written || expected == Format::Adhoc) {
        return Ok(());
    }
    let (kind, file) = peek(file)?;
    match kind {
        Encryption::Plain => walk(Content::new(file)?.take(HEAD_LEN), expected, name.leg, entry)?,
        Encryption::Sealed => {
            let chunks = Chunks::new(file)?;
            chunks.head().comments.iter().for_each(|text| comment(text, entry));
        }
        // What there is to know stands in its name, and in its sidecar.
        Encryption::Age => {}
    }
    if is_written && let (Some(start), Ok(changed)) = (entry.start, metadata.modified()) {
        let since_epoch = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        entry.duration = since_epoch.checked_sub(Duration::from_nanos(start.0));
    }
    Ok(())
}

fn walk(file: impl Read, expected: Format, whole: Option<Leg>, entry: &mut Entry) -> io::Result<()> {
    let mut salvage = Salvage::new(file, Some(expected))?;
    let mut is_empty = true;
    while let Some(event) = salvage.next()? {
        match event {
            Event::Piece { what: Piece::Head { comments, .. }, .. } => {
                comments.into_iter().for_each(|text| comment(text, entry));
            }
            Event::Piece { what: Piece::Packet(packet), .. } => take_in(&packet, whole, entry),
            Event::Piece { .. } => {}
            Event::Hole(Hole { at: 0, reason, .. }) | Event::Tail(Hole { at: 0, reason, .. }) => {
                return Err(io::Error::other(format!("it is no {} file: {reason}", expected.name())));
            }
            // Damage further on is found by those who read all of it; the tail is where we stop reading.
            Event::Hole(_) | Event::Tail(_) => {}
        }
        is_empty = false;
        if entry.caller.is_some() && entry.callee.is_some() {
            break;
        }
    }
    if is_empty { Err(io::Error::other("it is empty")) } else { Ok(()) }
}

fn take_in(packet: &Packet<'_>, whole: Option<Leg>, entry: &mut Entry) {
    packet.comments.iter().for_each(|text| comment(text, entry));
    let leg = match packet.origin {
        Origin::Synthetic => return,
        Origin::Leg(leg, Channel::Rtp) => Some(leg),
        Origin::Leg(_, Channel::Rtcp) => None,
        Origin::Unnamed => whole,
    };
    entry.start.get_or_insert(packet.at);
    let Some(datagram) = &packet.datagram else { return };
    match leg {
        Some(Leg::Caller) => entry.caller.get_or_insert(datagram.src),
        Some(Leg::Callee) => entry.callee.get_or_insert(datagram.src),
        None => return,
    };
}

/// Takes in a remark that names the call or a tag.
fn comment(text: &str, entry: &mut Entry) {
    let Some((name, id)) = text.split_once(": ") else { return };
    if name == "start" {
        entry.start = entry.start.or_else(|| time_of(id));
        return;
    }
    let known = match name {
        "call-id" => &mut entry.call_id,
        "from-tag" => &mut entry.from_tag,
        "to-tag" => &mut entry.to_tag,
        _ => return,
    };
    *known = Some(id.to_owned());
}

fn time_of(text: &str) -> Option<Wall> {
    let nanos = DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt()?;
    u64::try_from(nanos).ok().map(Wall)
}

/// The call-id and the caller's tag, of which a recorder makes names.
fn ids_of_name(stem: &[u8]) -> Option<(String, String)> {
    let text = str::from_utf8(stem).ok()?;
    let text = text.strip_suffix(".recovered").unwrap_or(text);
    let (call_id, tag) = text.rsplit_once('=')?;
    Some((unescaped(call_id), unescaped(tag)))
}

/// A text with `%XX` replaced by what it stands for.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let hex = behind.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        let escaped = hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%');
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How much of the content of a file is read.
const HEAD_LEN: u64 = 64 << 10;
