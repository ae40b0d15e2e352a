//! `rtpproxy extract --call`: a call out of a journal.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rtpproxy_analysis::audio::AudioFormat;
use rtpproxy_analysis::journal::{self, Call};
use rtpproxy_analysis::listing::time_text;
use rtpproxy_analysis::recording;
use rtpproxy_analysis::unlock::Identities;

use super::{Extract, is_folder, progress};
use crate::{complain, say};

/// Writes the capture or the audio of the call; true if all went well.
pub(super) fn extract(
    options: &Extract,
    wanted: &str,
    format: AudioFormat,
    identities: &Identities,
) -> Result<bool, String> {
    let (call, is_well) = find(options, wanted, identities)?;
    let is_capture = options.capture
        || options
            .output
            .as_ref()
            .is_some_and(|output| output.extension().is_some_and(|end| end == "pcapng"));
    let suffix = if is_capture { "pcapng" } else { format.suffix() };
    let name = format!("{}.{suffix}", file_name(&call));
    let output = match &options.output {
        None => PathBuf::from(name),
        Some(folder) if is_folder(folder) => folder.join(name),
        Some(file) => file.clone(),
    };
    if !options.force && output.exists() {
        return Err(format!("{}: it exists; --force replaces it", output.display()));
    }
    if call.segments.contains(&output) {
        return Err(format!("{}: this is the journal itself", output.display()));
    }
    // Beside the output, where others may read no more than that; half a file would pass for a whole one.
    let capture = output.with_file_name(format!(".rtpproxy-extract-{}.pcapng", std::process::id()));
    let outcome = cut(&call, &capture, identities).and_then(|report| {
        if is_capture {
            fs::rename(&capture, &output).map_err(|error| format!("{}: {error}", output.display()))?;
            return Ok(format!("{}: {report}", output.display()));
        }
        let recordings =
            recording::find(std::slice::from_ref(&capture)).map_err(|error| error.to_string())?;
        let recording = recordings.first().ok_or("nothing was recorded")?;
        options.extract(recording, &output, format, &Identities::default())
    });
    let _ = fs::remove_file(&capture);
    say(&outcome?);
    Ok(is_well)
}

/// The call that is meant, and whether all of the journal could be read.
fn find(options: &Extract, wanted: &str, identities: &Identities) -> Result<(Call, bool), String> {
    let segments = journal::segments(&options.recordings).map_err(|error| error.to_string())?;
    if segments.is_empty() {
        return Err("there are no segments of a journal (journal-*.pcapng) in what was given".to_owned());
    }
    let bar = progress(segments.len());
    let fits = |id: &[u8]| String::from_utf8_lossy(id).contains(wanted);
    let (mut calls, errors) =
        journal::calls(&segments, identities, &|id| fits(id.as_bytes()), &|| bar.inc(1));
    bar.finish_and_clear();
    for error in &errors {
        complain(&error.to_string());
    }
    if calls.iter().any(|call| call.call_id.as_bytes() == wanted.as_bytes()) {
        calls.retain(|call| call.call_id.as_bytes() == wanted.as_bytes());
    }
    if let Some(tag) = &options.from_tag {
        calls.retain(|call| call.from_tag.as_bytes() == tag.as_bytes());
    }
    let text = |id: &[u8]| String::from_utf8_lossy(id).into_owned();
    match <[Call; 1]>::try_from(calls) {
        Ok([call]) => Ok((call, errors.is_empty())),
        Err(none) if none.is_empty() => {
            let tag = options.from_tag.as_ref().map(|tag| format!(" and the tag {tag}")).unwrap_or_default();
            let segments = segments.len();
            let readable = if errors.is_empty() { "" } else { ", as far as they can be read" };
            Err(format!("there is no call {wanted}{tag} in the {segments} segments{readable}"))
        }
        Err(several) => {
            let list = several.iter().take(LISTED_MAX).map(|call| {
                let (call_id, from_tag) = (text(call.call_id.as_bytes()), text(call.from_tag.as_bytes()));
                let packets = call.figures.packets;
                format!("\n  {} {call_id} {from_tag} ({packets} packets)", time_text(call.start))
            });
            let list: String = list.collect();
            let count = several.len();
            Err(format!("{count} calls are meant by {wanted}; give the whole call-id, or --from-tag:{list}"))
        }
    }
}

/// Writes the packets of the call, and says how many they are.
fn cut(call: &Call, path: &Path, identities: &Identities) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut out = BufWriter::new(create(path).map_err(failed)?);
    let figures = call.cut(&mut out, identities).map_err(|error| error.to_string())?;
    out.flush().map_err(failed)?;
    let (segments, packets, dropped) = (call.segments.len(), figures.packets, figures.dropped);
    let missing = if dropped > 0 { format!(", {dropped} are missing") } else { String::new() };
    Ok(format!("{packets} packets out of {segments} segments{missing}"))
}

fn create(path: &Path) -> std::io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The name of a file for the call, that is one in any folder.
fn file_name(call: &Call) -> String {
    let id = [call.call_id.as_bytes(), b"=", call.from_tag.as_bytes()].concat();
    let text = String::from_utf8_lossy(&id);
    let safe = text.chars().map(|char| if char == '/' || char.is_control() { '_' } else { char });
    let mut name: String = safe.take(NAME_CHARS_MAX).collect();
    if name.starts_with('.') {
        name.replace_range(..1, "_");
    }
    name
}

/// How many calls are listed when several are meant.
const LISTED_MAX: usize = 20;
/// Fewer than a file name may have bytes.
const NAME_CHARS_MAX: usize = 60;
