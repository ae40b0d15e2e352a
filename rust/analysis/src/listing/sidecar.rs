//! A recording as its sidecar tells it (docs/recording-files.md).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use chrono::DateTime;
use rtpproxy_core::time::Wall;
use serde::Deserialize;
use serde_json::Value;

use super::{Entry, State};

/// What a sidecar tells.
pub(super) struct Read {
    pub(super) entry: Entry,
    /// The names of its files.
    pub(super) files: Vec<OsString>,
    /// The file before is in another folder.
    pub(super) has_moved_in: bool,
    /// The file after is in this folder.
    pub(super) goes_on_here: bool,
}

/// Reads the sidecar `name`: the recording, and the names of its files. `None` if it is some other JSON; an error in
/// words if it cannot be understood.
pub(super) fn read(folder: &Path, name: &OsStr) -> Result<Option<Read>, String> {
    let text = fs::read(folder.join(name)).map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if value.get("version").is_none() || value.get("files").is_none() {
        return Ok(None);
    }
    let sidecar = Sidecar::deserialize(value).map_err(|error| error.to_string())?;
    let files: Option<Vec<_>> = sidecar.files.iter().map(File::name).collect();
    let files = files.ok_or("it names a file in a way that is not understood")?;
    let has_moved_in = sidecar.moved_from.is_some();
    let goes_on_here = sidecar.next.is_some() && sidecar.moved_to.is_none();
    Ok(Some(Read { entry: sidecar.entry(folder, name, &files), files, has_moved_in, goes_on_here }))
}

/// The fields that matter here.
#[derive(Deserialize)]
struct Sidecar {
    call_id: Option<String>,
    from_tag: Option<String>,
    to_tag: Option<String>,
    files: Vec<File>,
    requested: Option<String>,
    first_packet: Option<String>,
    last_packet: Option<String>,
    /// Null if nobody could count them.
    #[serde(deserialize_with = "Option::deserialize")]
    packets: Option<u64>,
    #[serde(default)]
    dropped: Option<u64>,
    #[serde(default)]
    unsaved: u64,
    legs: Option<Legs>,
    ended: Ended,
    recovered: Option<Recovered>,
    part: Option<u32>,
    next: Option<String>,
    moved_from: Option<String>,
    moved_to: Option<String>,
}

impl Sidecar {
    fn entry(self, folder: &Path, name: &OsStr, files: &[OsString]) -> Entry {
        let (first, last) = (time(self.first_packet.as_deref()), time(self.last_packet.as_deref()));
        let (size, error) = self.look_at(folder, files);
        let state = match (&error, &self.recovered) {
            (Some(_), _) => State::Damaged,
            (None, Some(_)) => State::Interrupted,
            (None, None) => State::Finished,
        };
        let [caller, callee] =
            self.legs.map_or([None, None], |legs| [legs.caller, legs.callee].map(|leg| leg.source()));
        let elapsed = |(first, last): (Wall, Wall)| Duration::from_nanos(last.0.saturating_sub(first.0));
        Entry {
            path: folder.join(files.first().map_or(name, OsString::as_os_str)),
            state,
            start: first.or_else(|| time(self.requested.as_deref())),
            duration: first.zip(last).map(elapsed),
            call_id: self.call_id,
            from_tag: self.from_tag,
            to_tag: self.to_tag,
            caller,
            callee,
            packets: self.packets.map(|packets| packets.saturating_sub(self.unsaved)),
            missing: self.packets.map(|_| self.dropped.unwrap_or_default().saturating_add(self.unsaved)),
            size,
            ended: Some(self.ended.reason),
            part: self.part,
            error,
        }
    }

    /// The size of the files, and what is wrong with them.
    fn look_at(&self, folder: &Path, files: &[OsString]) -> (u64, Option<String>) {
        let (mut size, mut error) = (0, None);
        for (file, name) in self.files.iter().zip(files) {
            let shown = name.to_string_lossy();
            match fs::symlink_metadata(folder.join(name)) {
                Ok(metadata) => {
                    size += metadata.len();
                    if metadata.len() != file.size {
                        let (len, expected) = (metadata.len(), file.size);
                        error.get_or_insert(format!("{shown} has {len} bytes instead of {expected}"));
                    }
                }
                Err(reason) if reason.kind() == io::ErrorKind::NotFound => {
                    error.get_or_insert(format!("{shown} is not there"));
                }
                Err(reason) => {
                    error.get_or_insert(format!("{shown}: {reason}"));
                }
            }
        }
        let holes = self.recovered.as_ref().map_or(0, |recovered| recovered.holes.len());
        if holes > 0 {
            error.get_or_insert(format!("it is damaged in {holes} places"));
        }
        (size, error)
    }
}

#[derive(Deserialize)]
struct File {
    name: String,
    name_hex: Option<String>,
    size: u64,
}

impl File {
    /// `None` if it leads to another folder.
    fn name(&self) -> Option<OsString> {
        let name = match &self.name_hex {
            Some(hex) => OsString::from_vec(unhex(hex)?),
            None => self.name.clone().into(),
        };
        (Path::new(&name).file_name() == Some(&name)).then_some(name)
    }
}

#[derive(Deserialize)]
struct Legs {
    caller: Leg,
    callee: Leg,
}

#[derive(Deserialize)]
struct Leg {
    signalled: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    rtp: Stream,
}

impl Leg {
    /// Where the party sent from, or else where it said it would.
    fn source(&self) -> Option<SocketAddr> {
        self.rtp.sources.last().copied().or(self.remote).or(self.signalled)
    }
}

#[derive(Deserialize)]
struct Stream {
    sources: Vec<SocketAddr>,
}

#[derive(Deserialize)]
struct Ended {
    reason: String,
}

#[derive(Deserialize)]
struct Recovered {
    #[serde(default)]
    holes: Vec<Value>,
}

fn time(text: Option<&str>) -> Option<Wall> {
    let nanos = DateTime::parse_from_rfc3339(text?).ok()?.timestamp_nanos_opt()?;
    u64::try_from(nanos).ok().map(Wall)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}
