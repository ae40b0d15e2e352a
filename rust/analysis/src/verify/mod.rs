//! Whether recordings are whole, and if not, what is missing and where.
//!
//! A recording is compared with its sidecar (docs/recording-files.md), and its files are read from end to end.

mod inspect;
mod survey;

use std::fmt;
use std::io;
use std::path::Path;

use chrono::{DateTime, SecondsFormat};
use rtpproxy_core::time::Wall;
use serde::Serialize;
use serde_json::Value;

pub use self::inspect::{Damage, Inspection, expected_format};
pub(crate) use self::survey::files_of_sidecar;
pub use self::survey::{Sidecar, SurveyError, Unit, is_being_written, sidecar_of, survey, without_part};
use crate::journal::WrongIndex;
use crate::unlock::Identities;

/// What is to be said of a recording.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Its first file, or its sidecar if it names none.
    pub recording: String,
    /// Nothing is wrong.
    pub is_whole: bool,
    /// Whole packets that were found. `None` if it is encrypted and no identity opens all of it.
    pub packets: Option<u64>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// Something that is wrong with a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Of what sort.
    pub kind: Kind,
    /// In which file, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where damage begins, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// How many bytes are damaged, or packets missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// In words.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{file}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// The sorts of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file that a sidecar names is not there, or a part of a long recording.
    Missing,
    /// Nothing says what should be in the files.
    NoSidecar,
    /// The sidecar cannot be understood.
    BadSidecar,
    /// No process writes it any more, and none has finished it.
    Unfinished,
    /// The beginning of the file is not one of its format.
    NoHead,
    /// The compressed data is damaged: what is behind that cannot be read.
    Broken,
    /// Damage, and packets behind it.
    Hole,
    /// Damage up to the end.
    Torn,
    /// Packets that are not what was sent.
    Corrupt,
    /// An index of a segment of a journal does not say what is in it.
    Index,
    /// The file is not the one that the sidecar was written for.
    Changed,
    /// The files hold other packets than the sidecar says.
    Packets,
    /// Packets that were never written, as the sidecar says.
    Dropped,
    /// Packets that a repair could not save.
    Lost,
    /// It is encrypted, and no identity that was given opens it.
    Locked,
}

/// Looks at a recording, with `identities` if it is encrypted. Each read tells `progress` its bytes.
///
/// # Errors
///
/// When a file is there and cannot be read.
pub fn verify(
    unit: &Unit,
    needs_sidecar: bool,
    identities: &Identities,
    progress: &dyn Fn(u64),
) -> Result<Verdict, UnreadableError> {
    let is_recovered = matches!(&unit.sidecar, Sidecar::Read(_, json) if json["recovered"].is_object());
    let mut check = Check {
        is_one_of_many: unit.files.len() > 1,
        is_recovered,
        identities: identities.clone(),
        ..Check::default()
    };
    if needs_sidecar && unit.sidecar == Sidecar::Missing {
        check.problem(Kind::NoSidecar, None, "there is no sidecar, so nothing says what should be in it");
    }
    if let Sidecar::Broken(path, reason) = &unit.sidecar {
        check.problem(Kind::BadSidecar, None, format!("the sidecar {} is of no use: {reason}", name(path)));
    }
    for (index, file) in unit.files.iter().enumerate() {
        let listed = match &unit.sidecar {
            Sidecar::Read(_, json) => Some(&json["files"][index]),
            Sidecar::Missing | Sidecar::Broken(..) => None,
        };
        check
            .file(file, listed, progress)
            .map_err(|error| UnreadableError { path: file.display().to_string(), error })?;
    }
    if let Sidecar::Read(_, json) = &unit.sidecar {
        check.sidecar(json);
    }
    if let Some(text) = &unit.missing {
        check.problem(Kind::Missing, None, text.as_str());
    }
    check.notes.extend(unit.follows.clone());
    Ok(Verdict {
        recording: unit.path().display().to_string(),
        is_whole: check.problems.is_empty(),
        packets: (!check.is_locked).then_some(check.packets),
        problems: check.problems,
        notes: check.notes,
    })
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct UnreadableError {
    path: String,
    error: io::Error,
}

#[derive(Debug, Default)]
struct Check {
    problems: Vec<Problem>,
    notes: Vec<String>,
    is_one_of_many: bool,
    /// Its process did not end it.
    is_recovered: bool,
    identities: Identities,
    /// A file is encrypted, and no identity opens it.
    is_locked: bool,
    /// A file is missing, is still being written, or cannot be opened: what there is cannot be counted.
    is_partial: bool,
    packets: u64,
    bytes: u64,
}

impl Check {
    fn file(&mut self, path: &Path, listed: Option<&Value>, progress: &dyn Fn(u64)) -> io::Result<()> {
        if without_part(path).is_some() {
            if is_being_written(path)? {
                self.is_partial = true;
                self.notes.push("it is being written".to_owned());
                return Ok(());
            }
            let text =
                "it was not finished, and nobody writes it: a relay that starts with this folder recovers it";
            self.problem(Kind::Unfinished, Some(path), text);
            if expected_format(path).is_none() {
                return Ok(());
            }
        }
        let found = match Inspection::of(path, &self.identities, progress) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.is_partial = true;
                self.problem(Kind::Missing, Some(path), format!("{} is not there", name(path)));
                return Ok(());
            }
            other => other?,
        };
        self.packets += found.packets;
        self.bytes += found.bytes;
        self.encryption(path, &found);
        self.structure(path, &found, listed.is_some());
        if let Some(listed) = listed {
            self.against(path, &found, listed);
        }
        Ok(())
    }

    fn encryption(&mut self, path: &Path, found: &Inspection) {
        if let Some(reason) = &found.locked {
            self.is_locked = true;
            self.is_partial = true;
            if self.identities.is_empty() {
                self.notes.push(format!("its packets are not checked: {reason}"));
            } else {
                self.problem(Kind::Locked, Some(path), reason);
            }
        }
        if let Some(reason) = &found.cut {
            self.problem(Kind::Torn, Some(path), reason);
        }
        if found.is_open && found.tail.is_none() && without_part(path).is_none() && !self.is_recovered {
            self.problem(
                Kind::Torn,
                Some(path),
                "it was cut off: the last chunk of the sealed file is missing",
            );
        }
    }

    fn structure(&mut self, path: &Path, found: &Inspection, is_ours: bool) {
        if !found.has_head {
            self.problem(Kind::NoHead, Some(path), format!("it does not begin like {}", found.format.name()));
        }
        if let Some(broken) = &found.broken {
            self.problem(Kind::Broken, Some(path), broken.to_string());
            if let Some(problem) = self.problems.last_mut() {
                problem.at = Some(broken.at);
            }
        }
        for damage in &found.holes {
            self.damage(Kind::Hole, path, damage);
        }
        if found.holes_more > 0 {
            let text = format!("{} further places are damaged", found.holes_more);
            self.problem(Kind::Hole, Some(path), text);
        }
        if let Some(damage) = &found.tail {
            self.damage(Kind::Torn, path, damage);
        }
        found.indexes.iter().for_each(|wrong| self.index(path, wrong));
        // Captures taken on the sending machine often lack checksums; recordings never do.
        if found.corrupt > 0 && is_ours {
            let text = format!("{} packets have wrong checksums", found.corrupt);
            self.problem(Kind::Corrupt, Some(path), text);
        }
    }

    fn index(&mut self, path: &Path, wrong: &WrongIndex) {
        let WrongIndex { at, text } = wrong;
        self.problem(Kind::Index, Some(path), format!("the index at {at} is wrong: {text}"));
        if let Some(problem) = self.problems.last_mut() {
            problem.at = Some(*at);
        }
    }

    fn damage(&mut self, kind: Kind, path: &Path, damage: &Damage) {
        let Damage { hole, after, before } = damage;
        let what = if hole.is_zeros { "zeros" } else { hole.reason };
        let place = match (after.map(time), before.map(time)) {
            (Some(after), Some(before)) => format!(", between {after} and {before}"),
            (Some(after), None) => format!(", after {after}"),
            (None, Some(before)) => format!(", before {before}"),
            (None, None) => String::new(),
        };
        let end = if kind == Kind::Torn { " at the end" } else { "" };
        let text = format!("{} bytes at {}{end} cannot be read ({what}){place}", hole.len, hole.at);
        self.problem(kind, Some(path), text);
        if let Some(problem) = self.problems.last_mut() {
            (problem.at, problem.count) = (Some(hole.at), Some(hole.len));
        }
    }

    /// Compares a file with what the sidecar says of it.
    fn against(&mut self, path: &Path, found: &Inspection, listed: &Value) {
        match listed["size"].as_u64() {
            Some(size) if size != found.size => {
                let text = format!("it has {} bytes, and had {size} when it was finished", found.size);
                self.problem(Kind::Changed, Some(path), text);
            }
            _ if listed["sha256"] != found.sha256.as_str() => {
                self.problem(
                    Kind::Changed,
                    Some(path),
                    "it was changed: its SHA-256 is not that of the sidecar",
                );
            }
            _ => {}
        }
    }

    /// Compares all files with the sums of the sidecar, and takes in what else that says.
    fn sidecar(&mut self, json: &Value) {
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let saved = number(&json["packets"]).saturating_sub(number(&json["unsaved"]));
        // Of recovered ones that are encrypted nobody knows.
        if json["packets"].is_null() {
            self.is_partial = true;
        }
        if !self.is_partial && saved != self.packets {
            let text = format!("{} packets are in it, and {saved} should be", self.packets);
            self.problem(Kind::Packets, None, text);
        } else if !self.is_partial && number(&json["unsaved"]) == 0 && number(&json["bytes"]) != self.bytes {
            let text =
                format!("its packets have {} bytes, and should have {}", self.bytes, number(&json["bytes"]));
            self.problem(Kind::Packets, None, text);
        }
        self.dropped(json);
        let unsaved = number(&json["unsaved"]);
        if unsaved > 0 {
            self.counted(
                Kind::Dropped,
                unsaved,
                format!("{unsaved} packets were refused by the disk at the end"),
            );
        }
        let lost = number(&json["repaired"]["lost_packets"]);
        if lost > 0 {
            self.counted(Kind::Lost, lost, format!("{lost} packets could not be saved when it was repaired"));
        }
        if json["ended"]["reason"] == "interrupted" {
            self.notes.push("the relay ended before the call: the last second may be missing".to_owned());
        }
    }

    fn dropped(&mut self, json: &Value) {
        let dropped = json["dropped"].as_u64().unwrap_or_default();
        let mut told = 0;
        for gap in json["gaps"].as_array().into_iter().flatten() {
            let text = |key: &str| gap[key].as_str().unwrap_or("?").to_owned();
            let packets = gap["packets"].as_u64().unwrap_or_default();
            let [leg, channel, from, to, cause] = ["leg", "channel", "from", "to", "cause"].map(text);
            told += packets;
            let text = format!(
                "{packets} packets of {leg} {channel} were not written, from {from} to {to}: {cause}"
            );
            self.counted(Kind::Dropped, packets, text);
        }
        if dropped > told {
            let rest = dropped - told;
            self.counted(Kind::Dropped, rest, format!("{rest} packets were not written"));
        }
    }

    fn counted(&mut self, kind: Kind, count: u64, text: String) {
        self.problem(kind, None, text);
        if let Some(problem) = self.problems.last_mut() {
            problem.count = Some(count);
        }
    }

    fn problem(&mut self, kind: Kind, path: Option<&Path>, text: impl Into<String>) {
        let file = path.filter(|_| self.is_one_of_many).map(name);
        self.problems.push(Problem { kind, file, at: None, count: None, text: text.into() });
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn time(at: Wall) -> String {
    let nanos = i64::try_from(at.0).unwrap_or(i64::MAX);
    DateTime::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Millis, true)
}
