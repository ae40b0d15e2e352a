//! The names of the files of a recording, and the folder they are in.

use std::borrow::Cow;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use chrono::DateTime;
use rtpproxy_core::command::Tag;
use rtpproxy_core::file_name::{Encryption, FileName, PART};
use rtpproxy_core::journal;
use rtpproxy_core::recording::{Channel, Coverage, Leg, RecordingStart};
use rtpproxy_core::time::Wall;

use super::sidecar::call_key;
use crate::config::{RecordConfig, RecordFormat};
use crate::record_name::{RecordName, Values, bounded, escaped};

/// The files of a recording: names that differ only in what follows the stem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Below the folder of recordings, from the outermost on; mostly none.
    folders: Vec<OsString>,
    stem: Vec<u8>,
    /// One for all packets, or one for RTP and one for RTCP.
    suffixes: Vec<Cow<'static, str>>,
    sidecar_suffix: Cow<'static, str>,
    /// The number of the file of a recording that is rotated, from 1.
    part: Option<u32>,
    /// The attempts before this one have been left to other recordings.
    first_attempt: u32,
    /// The files are encrypted while they are written.
    is_sealed: bool,
}

impl Names {
    /// The names for the recording `number` of this relay.
    pub(super) fn new(start: &RecordingStart, number: u64, config: &RecordConfig) -> Self {
        let coverage = &start.coverage;
        let (folders, stem) = match (coverage, &config.name) {
            (Coverage::Named { name, .. } | Coverage::NamedSingleFile { name }, _) => {
                (Vec::new(), bounded(escaped(name, config.compat)))
            }
            (_, Some(template)) => {
                let (folders, stem) = by_template(template, start, number);
                (folders, without_suffix(stem))
            }
            (Coverage::Call | Coverage::Stream(_) | Coverage::SingleFile, None) => {
                let tag = start.from_tag.as_bytes();
                let tag = if cuts_media_number(coverage, config) { without_media_number(tag) } else { tag };
                let stem = [start.call_id.as_bytes(), b"=", tag].concat();
                let stem = bounded(escaped(&stem, config.compat));
                (Vec::new(), if config.compat { stem } else { without_suffix(stem) })
            }
        };
        let mut suffixes: Vec<_> = suffixes(coverage, config).into_iter().map(Cow::Borrowed).collect();
        if !start.rtcp {
            suffixes.truncate(1);
        }
        let sidecar_suffix = match coverage {
            Coverage::Stream(Leg::Caller) => ".o.json",
            Coverage::Stream(Leg::Callee) => ".a.json",
            Coverage::Call
            | Coverage::SingleFile
            | Coverage::Named { .. }
            | Coverage::NamedSingleFile { .. } => ".json",
        };
        let sidecar_suffix = sidecar_suffix.into();
        let part = config.is_rotating().then_some(1);
        let is_sealed = config.encrypt.is_some();
        Self { folders, stem, suffixes, sidecar_suffix, part, first_attempt: 1, is_sealed }
    }

    /// The names of the segment of `worker` that begins at `at`.
    pub(super) fn segment(at: Wall, worker: usize, config: &RecordConfig) -> Self {
        let begin = DateTime::from_timestamp_nanos(i64::try_from(at.0).unwrap_or(i64::MAX));
        let begin = begin.format("%Y%m%dT%H%M%S%.3fZ");
        let stem = format!("{}{begin}-w{worker}", journal::NAME).into_bytes();
        let suffixes = vec![Cow::Borrowed(".pcapng")];
        let sidecar_suffix = ".json".into();
        let (folders, part, is_sealed) = (Vec::new(), None, config.encrypt.is_some());
        Self { folders, stem, suffixes, sidecar_suffix, part, first_attempt: 1, is_sealed }
    }

    /// The names for files that an earlier process has left, which begin with `stem`. They stay in their folder.
    pub(super) fn recovered(stem: &[u8], suffixes: Vec<String>, sidecar_suffix: String) -> Self {
        let stem = stem.strip_suffix(RECOVERED.as_bytes()).unwrap_or(stem);
        let stem = [stem, RECOVERED.as_bytes()].concat();
        let suffixes = suffixes.into_iter().map(Cow::Owned).collect();
        let sidecar_suffix = sidecar_suffix.into();
        // The suffixes of a rotated one begin with the number.
        let (folders, part, first_attempt, is_sealed) = (Vec::new(), None, 1, false);
        Self { folders, stem, suffixes, sidecar_suffix, part, first_attempt, is_sealed }
    }

    /// The folder that the files are in, one name after the other, below that of all recordings.
    pub(super) fn folders(&self) -> &[OsString] {
        &self.folders
    }

    /// The names of the next files of a recording that is rotated, whose last ones got theirs at the `attempt`th try.
    pub(super) fn next_part(&self, attempt: u32) -> Self {
        Self { part: self.part.map(|part| part + 1), first_attempt: attempt, ..self.clone() }
    }

    /// The number of these files, if the recording is rotated.
    pub(super) fn part(&self) -> Option<u32> {
        self.part
    }

    /// The tries to find free names, in their order.
    pub(super) fn attempts(&self) -> RangeInclusive<u32> {
        self.first_attempt..=ATTEMPTS_MAX
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
        self.with(attempt, &self.suffixes[index])
    }

    /// What it is called while it is written.
    pub(super) fn part_file(&self, index: usize, attempt: u32) -> OsString {
        let mut name = self.file(index, attempt);
        name.push(if self.is_sealed { Encryption::Sealed.suffix() } else { "" });
        name.push(PART);
        name
    }

    /// The path of file `index` in the folder of recordings, if its name is free.
    pub(super) fn path(&self, index: usize) -> PathBuf {
        let mut path: PathBuf = self.folders.iter().collect();
        path.push(self.file(index, 1));
        path
    }

    /// The name of the sidecar that belongs to the files of the same attempt.
    pub(super) fn sidecar(&self, attempt: u32) -> OsString {
        self.with(attempt, &self.sidecar_suffix)
    }

    fn with(&self, attempt: u32, suffix: &str) -> OsString {
        let mut name = self.stem.clone();
        if attempt > 1 {
            name.extend_from_slice(format!("-{attempt}").as_bytes());
        }
        if let Some(part) = self.part {
            name.extend_from_slice(format!(".{part:03}").as_bytes());
        }
        name.extend_from_slice(suffix.as_bytes());
        OsString::from_vec(name)
    }
}

fn by_template(template: &RecordName, start: &RecordingStart, number: u64) -> (Vec<OsString>, Vec<u8>) {
    let (call_id, from_tag) = (start.call_id.as_bytes(), start.from_tag.as_bytes());
    let leg = match &start.coverage {
        Coverage::Stream(leg) | Coverage::Named { leg, .. } => leg.name(),
        Coverage::Call | Coverage::SingleFile | Coverage::NamedSingleFile { .. } => "both",
    };
    template.render(&Values {
        start: start.at.wall,
        call_id,
        from_tag,
        to_tag: start.to_tag.as_ref().map(Tag::as_bytes),
        call: call_key(call_id, from_tag),
        leg,
        number,
    })
}

/// A stem of which no reader takes the end for a suffix, such as the number of a rotated file.
fn without_suffix(mut stem: Vec<u8>) -> Vec<u8> {
    let name = [&stem, b".pcapng".as_slice()].concat();
    let is_cut = FileName::parse(&name).is_some_and(|parsed| parsed.stem.len() < stem.len());
    if let Some(dot) = stem.iter().rposition(|&byte| byte == b'.').filter(|_| is_cut) {
        stem.splice(dot..=dot, *b"%2E");
    }
    stem
}

/// A tag up to its first `;`.
pub(super) fn without_media_number(tag: &[u8]) -> &[u8] {
    tag.split(|&byte| byte == b';').next().unwrap_or_default()
}

fn cuts_media_number(coverage: &Coverage, config: &RecordConfig) -> bool {
    config.compat || config.format == RecordFormat::Adhoc || *coverage != Coverage::Call
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
        (RecordFormat::Pcap, Coverage::NamedSingleFile { .. }) if like_c => vec![""],
        (RecordFormat::Adhoc, _) => vec![".rtp", ".rtcp"],
        (RecordFormat::Pcap, _) => vec![".pcap"],
    }
}

/// How many names are tried for one recording.
const ATTEMPTS_MAX: u32 = 9999;
/// What follows the stem of a recording whose process did not end it.
const RECOVERED: &str = ".recovered";

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;
    use rtpproxy_core::recording::{LegFacts, RecordingId};
    use rtpproxy_core::time::Now;

    use super::*;

    #[test]
    fn ordinary_ids_stay_readable() {
        let names = names(b"1-2345@192.0.2.1", b"tag;1", Coverage::Call, &RecordConfig::default());
        assert_eq!(names.file(0, 1), "1-2345@192.0.2.1=tag;1.pcapng");
        assert_eq!(names.file(0, 2), "1-2345@192.0.2.1=tag;1-2.pcapng");
        assert_eq!(names.sidecar(3), "1-2345@192.0.2.1=tag;1-3.json");
    }

    #[test]
    fn a_template_makes_folders_but_not_for_names_of_commands() {
        let template = RecordName::parse("%Y/%{leg}/%{call}=%{from-tag}").unwrap();
        let config = RecordConfig { name: Some(template), ..RecordConfig::default() };
        let path = |coverage| {
            let names = names(b"a/b-1", b"t;1", coverage, &config);
            names.path(0).into_os_string().into_string().unwrap()
        };
        assert_eq!(path(Coverage::Call), "1970/both/a%2Fb=t=t;1.pcapng");
        assert_eq!(path(Coverage::Stream(Leg::Callee)), "1970/callee/a%2Fb=t=t;1.a.pcapng");
        let name = Coverage::Named { leg: Leg::Caller, name: b"x/y=z".as_slice().into() };
        assert_eq!(path(name), "x%2Fy=z.pcapng");
    }

    #[test]
    fn the_end_of_a_tag_is_not_taken_for_a_suffix() {
        let config = RecordConfig::default();
        let name = |tag| names(b"c", tag, Coverage::Call, &config).file(0, 1);
        assert_eq!(name(b"f.123"), "c=f%2E123.pcapng");
        assert_eq!(name(b"f.002.o"), "c=f.002%2Eo.pcapng");
        assert_eq!(name(b"f.12"), "c=f.12.pcapng");
        let compat = RecordConfig { compat: true, ..RecordConfig::default() };
        assert_eq!(names(b"c", b"f.123", Coverage::Call, &compat).file(0, 1), "c=f.123.pcapng");
        let template = RecordName::parse("%{call-id}.%3f").unwrap();
        let config = RecordConfig { name: Some(template), ..RecordConfig::default() };
        let mut start = start(b"c", b"f", Coverage::Call);
        start.at.wall = Wall(250_000_000);
        assert_eq!(Names::new(&start, 1, &config).file(0, 1), "c%2E250.pcapng");
    }

    #[test]
    fn hostile_ids_stay_inside() {
        let first = |call_id| names(call_id, b"t", Coverage::Call, &RecordConfig::default()).file(0, 1);
        assert_eq!(first(b"../x"), "%2E.%2Fx=t.pcapng");
        assert_eq!(first(b"a/b"), "a%2Fb=t.pcapng");
        assert_eq!(first(b"a%2Fb"), "a%252Fb=t.pcapng");
        assert_eq!(first(b"a\0\n\x7f"), "a%00%0A%7F=t.pcapng");
        assert_eq!(first("\u{e9}\u{4e2d}".as_bytes()), "\u{e9}\u{4e2d}=t.pcapng");
        assert_eq!(first(b"\xff\xfe").as_bytes(), b"\xff\xfe=t.pcapng");
        let compat = RecordConfig { compat: true, ..RecordConfig::default() };
        assert_eq!(names(b"a%/b", b"t;1", Coverage::Call, &compat).file(0, 1), "a%%2Fb=t.pcapng");
    }

    #[test]
    fn each_format_and_coverage_has_its_names() {
        let files = |format, compat, coverage: &Coverage| {
            let config = RecordConfig { format, compat, ..RecordConfig::default() };
            let names = names(b"c", b"f;2", coverage.clone(), &config);
            (0..names.files()).map(|index| names.file(index, 1).into_string().unwrap()).collect::<Vec<_>>()
        };
        let named = Coverage::Named { leg: Leg::Caller, name: b"n".as_slice().into() };
        let both_named = Coverage::NamedSingleFile { name: b"n".as_slice().into() };
        let caller = Coverage::Stream(Leg::Caller);
        let callee = Coverage::Stream(Leg::Callee);
        for (format, compat, coverage, expected) in [
            (RecordFormat::Pcapng, false, &Coverage::Call, &["c=f;2.pcapng"] as &[&str]),
            (RecordFormat::Pcapng, false, &caller, &["c=f.o.pcapng"]),
            (RecordFormat::Pcapng, false, &named, &["n.pcapng"]),
            (RecordFormat::Pcap, false, &Coverage::Call, &["c=f;2.pcap"]),
            (RecordFormat::Pcap, false, &callee, &["c=f.a.rtp", "c=f.a.rtcp"]),
            (RecordFormat::Pcap, false, &Coverage::SingleFile, &["c=f.pcap"]),
            (RecordFormat::Pcap, false, &named, &["n.pcap"]),
            (RecordFormat::Pcap, true, &named, &["n.rtp", "n.rtcp"]),
            (RecordFormat::Pcap, false, &both_named, &["n.pcap"]),
            (RecordFormat::Pcap, true, &both_named, &["n"]),
            (RecordFormat::Pcap, true, &Coverage::SingleFile, &["c=f.pcap"]),
            (RecordFormat::Adhoc, false, &caller, &["c=f.o.rtp", "c=f.o.rtcp"]),
            (RecordFormat::Adhoc, true, &callee, &["c=f.a.rtp", "c=f.a.rtcp"]),
            (RecordFormat::Adhoc, true, &named, &["n.rtp", "n.rtcp"]),
        ] {
            assert_eq!(files(format, compat, coverage), expected, "{format:?} {compat} {coverage:?}");
        }
    }

    #[test]
    fn a_long_name_ends_in_a_digest_and_keeps_characters_whole() {
        let long = |call_id: &str| {
            let names = names(call_id.as_bytes(), b"t", Coverage::Call, &RecordConfig::default());
            names.file(0, 1).into_string().unwrap()
        };
        let name = long(&"x".repeat(300));
        assert!(name.starts_with(&"x".repeat(160)) && name.as_bytes()[160] == b'~');
        assert_eq!(name.len(), 160 + 1 + 16 + ".pcapng".len());
        assert_ne!(name, long(&"x".repeat(301)));
        assert!(long(&"\u{20ac}".repeat(100)).starts_with(&format!("{}~", "\u{20ac}".repeat(53))));
    }

    proptest! {
        #[test]
        fn names_are_safe_and_can_be_read_back(
            call_id in prop::collection::vec(1_u8.., 1..300),
            tag in prop::collection::vec(1_u8.., 1..40),
        ) {
            let name = names(&call_id, &tag, Coverage::Call, &RecordConfig::default()).file(0, 1);
            let stem = name.as_bytes().strip_suffix(b".pcapng").unwrap();
            prop_assert!(!stem.is_empty() && stem.len() <= 202);
            prop_assert!(!stem.contains(&b'/') && !stem.iter().any(u8::is_ascii_control));
            prop_assert_ne!(stem[0], b'.');
            if escaped(&[&call_id[..], b"=", &tag].concat(), false).len() <= 200 {
                prop_assert_eq!(unescaped(stem), [&call_id[..], b"=", &tag].concat());
            }
        }

        #[test]
        fn different_calls_have_different_names(a in "[%./2F~a-]{1,12}", b in "[%./2F~a-]{1,12}") {
            let name = |id: &str| names(id.as_bytes(), b"t", Coverage::Call, &RecordConfig::default());
            prop_assert_eq!(a == b, name(&a) == name(&b));
        }
    }

    fn names(call_id: &[u8], from_tag: &[u8], coverage: Coverage, config: &RecordConfig) -> Names {
        Names::new(&start(call_id, from_tag, coverage), 1, config)
    }

    fn start(call_id: &[u8], from_tag: &[u8], coverage: Coverage) -> RecordingStart {
        RecordingStart {
            id: RecordingId(1),
            call_id: call_id.into(),
            from_tag: from_tag.into(),
            to_tag: None,
            coverage,
            rtcp: true,
            at: Now::default(),
            legs: [LegFacts::default(), LegFacts::default()],
        }
    }

    fn unescaped(name: &[u8]) -> Vec<u8> {
        let mut rest = name;
        let mut raw = Vec::new();
        while let Some((&byte, behind)) = rest.split_first() {
            if byte == b'%' {
                let digits = str::from_utf8(&behind[..2]).unwrap();
                raw.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &behind[2..];
            } else {
                raw.push(byte);
                rest = behind;
            }
        }
        raw
    }
}
