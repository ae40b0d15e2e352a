//! The names of recordings: safe, and different for different calls.
//!
//! Call-ids and tags are bytes from the network. Only `/`, NUL, control bytes, `%` and a leading dot are
//! replaced, by `%XX`, so that ordinary ids stay readable and any id can be read back from its name.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use rtpproxy_core::recording::{Channel, Coverage, Leg, RecordingStart};
use sha2::{Digest, Sha256};

use crate::config::{RecordConfig, RecordFormat};

/// The files of a recording: names that differ only in what follows the stem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    stem: Vec<u8>,
    /// One for all packets, or one for RTP and one for RTCP.
    suffixes: Vec<&'static str>,
    sidecar_suffix: &'static str,
}

impl Names {
    /// The names for a recording that starts.
    pub(super) fn new(start: &RecordingStart, config: &RecordConfig) -> Self {
        let coverage = &start.coverage;
        let stem = match coverage {
            Coverage::Named { name, .. } => name.to_vec(),
            Coverage::Call | Coverage::Stream(_) | Coverage::SingleFile => {
                let tag = start.from_tag.as_bytes();
                let tag = if cuts_media_number(coverage, config) { without_media_number(tag) } else { tag };
                [start.call_id.as_bytes(), b"=", tag].concat()
            }
        };
        let mut suffixes = suffixes(coverage, config);
        if !start.rtcp {
            suffixes.truncate(1);
        }
        let sidecar_suffix = match coverage {
            Coverage::Stream(Leg::Caller) => ".o.json",
            Coverage::Stream(Leg::Callee) => ".a.json",
            Coverage::Call | Coverage::SingleFile | Coverage::Named { .. } => ".json",
        };
        Self { stem: bounded(escaped(&stem, config.compat)), suffixes, sidecar_suffix }
    }

    /// How many files of packets there are: one, or two when RTCP has its own.
    pub(super) fn files(&self) -> usize {
        self.suffixes.len()
    }

    /// Which of the files a packet goes to. `ours`: it was sent by the recorded party.
    ///
    /// What the other party sends, when both share a recording, goes to the first file as a whole.
    pub(super) fn file_of(&self, ours: bool, channel: Channel) -> usize {
        usize::from(self.suffixes.len() > 1 && ours && channel == Channel::Rtcp)
    }

    /// The name of file `index` at the `attempt`th try to find a free one, from 1.
    pub(super) fn file(&self, index: usize, attempt: u32) -> OsString {
        self.with(attempt, self.suffixes[index])
    }

    /// The name of the sidecar that belongs to the files of the same attempt.
    pub(super) fn sidecar(&self, attempt: u32) -> OsString {
        self.with(attempt, self.sidecar_suffix)
    }

    fn with(&self, attempt: u32, suffix: &str) -> OsString {
        let mut name = self.stem.clone();
        if attempt > 1 {
            name.extend_from_slice(format!("-{attempt}").as_bytes());
        }
        name.extend_from_slice(suffix.as_bytes());
        OsString::from_vec(name)
    }
}

/// A tag up to its first `;`.
pub(super) fn without_media_number(tag: &[u8]) -> &[u8] {
    tag.split(|&byte| byte == b';').next().unwrap_or_default()
}

fn cuts_media_number(coverage: &Coverage, config: &RecordConfig) -> bool {
    config.compat
        || match config.format {
            RecordFormat::Pcapng => false,
            RecordFormat::Pcap => *coverage != Coverage::Call,
            RecordFormat::Adhoc => true,
        }
}

fn suffixes(coverage: &Coverage, config: &RecordConfig) -> Vec<&'static str> {
    let like_c =
        config.compat && config.format != RecordFormat::Pcapng || config.format == RecordFormat::Adhoc;
    match (config.format, coverage) {
        (RecordFormat::Pcapng, Coverage::Stream(Leg::Caller)) => vec![".o.pcapng"],
        (RecordFormat::Pcapng, Coverage::Stream(Leg::Callee)) => vec![".a.pcapng"],
        (RecordFormat::Pcapng, _) => vec![".pcapng"],
        (_, Coverage::Stream(Leg::Caller)) => vec![".o.rtp", ".o.rtcp"],
        (_, Coverage::Stream(Leg::Callee)) => vec![".a.rtp", ".a.rtcp"],
        (_, Coverage::Named { .. }) if like_c => vec![".rtp", ".rtcp"],
        (RecordFormat::Adhoc, _) => vec![".rtp", ".rtcp"],
        (RecordFormat::Pcap, _) => vec![".pcap"],
    }
}

fn escaped(name: &[u8], compat: bool) -> Vec<u8> {
    let mut safe = Vec::with_capacity(name.len());
    for (index, &byte) in name.iter().enumerate() {
        let is_unsafe = byte == b'/' || byte.is_ascii_control();
        if is_unsafe || (byte == b'%' && !compat) || (byte == b'.' && index == 0) {
            safe.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            safe.push(byte);
        }
    }
    safe
}

/// Replaces the end of a long name by a digest of the whole, without cutting a character in two.
fn bounded(mut name: Vec<u8>) -> Vec<u8> {
    if name.len() <= STEM_MAX {
        return name;
    }
    let digest = Sha256::digest(&name);
    let is_inside_char = |at: usize| str::from_utf8(&name).is_ok_and(|text| !text.is_char_boundary(at));
    let cut = (STEM_KEPT - 3..=STEM_KEPT).rev().find(|&at| !is_inside_char(at)).unwrap_or(STEM_KEPT);
    name.truncate(cut);
    name.push(b'~');
    for byte in &digest[..8] {
        name.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    name
}

/// The longest stem that stays as it is, in bytes.
const STEM_MAX: usize = 200;
/// What stays of a longer one, in bytes.
const STEM_KEPT: usize = 160;
