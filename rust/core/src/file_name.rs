//! The names of the files of a recording, and what they tell.
//!
//! ```text
//! STEM[.NNN][.o|.a].CONTENT[.zst|.gz][.age|.sealed][.part]
//! ```
//!
//! STEM is the name of the recording, `NNN` the number of its part if it is rotated, `.o` and `.a` the leg of which
//! it holds the packets, if not of both: what the caller sends, and the callee. The sidecar of a recording has its
//! stem, number and leg, and `.json`. What is not written to its end has `.part` behind all of it.
//!
//! ```
//! use rtpproxy_core::file_name::{Compression, Content, FileName};
//!
//! let name = FileName::parse(b"call=tag.002.o.pcapng.zst").expect("a recording");
//! assert_eq!((name.stem, name.number), (&b"call=tag"[..], Some(2)));
//! assert_eq!(name.compression, Some(Compression::Zstd));
//! assert_eq!(name.sidecar().to_bytes(), b"call=tag.002.o.json");
//! ```

use crate::recording::Leg;
use crate::salvage::Format;

/// The parts of a name. Every name has one way to be parsed, and [`FileName::to_bytes`] gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName<'a> {
    /// The recording.
    pub stem: &'a [u8],
    /// Which part of a rotated recording, from 1.
    pub number: Option<u32>,
    /// Whose packets, if not both parties'.
    pub leg: Option<Leg>,
    /// What is in it.
    pub content: Content,
    /// How that is compressed.
    pub compression: Option<Compression>,
    /// How that is encrypted.
    pub encryption: Option<Encryption>,
    /// It is being written, or its writer did not come to the end.
    pub is_part: bool,
}

/// What a file of a recording holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Packets as pcapng.
    Pcapng,
    /// Packets as classic pcap.
    Pcap,
    /// RTP in the format of the C program.
    Rtp,
    /// RTCP in that format.
    Rtcp,
    /// What is to be known of the files beside it.
    Sidecar,
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard (RFC 8878).
    Zstd,
    /// gzip (RFC 1952).
    Gzip,
}

/// How a file is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// As the program `age` does it.
    Age,
    /// As the recorder does it while it writes.
    Sealed,
}

impl<'a> FileName<'a> {
    /// The parts of a name; `None` if it is no name of a recording's file.
    pub fn parse(name: &'a [u8]) -> Option<Self> {
        let (rest, is_part) = cut(name, PART);
        let (rest, encryption) = cut_any(rest, &ENCRYPTIONS);
        let (rest, compression) = cut_any(rest, &COMPRESSIONS);
        let (rest, content) = cut_any(rest, &CONTENTS);
        let content = content?;
        if content == Content::Sidecar && (compression.is_some() || encryption.is_some()) {
            return None;
        }
        let (rest, leg) = cut_any(rest, &LEGS);
        let (stem, number) = cut_number(rest);
        Some(Self { stem, number, leg, content, compression, encryption, is_part })
    }

    /// The name.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.stem, self.suffix().as_bytes()].concat()
    }

    /// What follows the stem.
    pub fn suffix(&self) -> String {
        let number = self.number.map(|number| format!(".{number:03}")).unwrap_or_default();
        let leg = self.leg.map_or("", |leg| of(&LEGS, leg));
        let content = of(&CONTENTS, self.content);
        let compression = self.compression.map_or("", Compression::suffix);
        let encryption = self.encryption.map_or("", Encryption::suffix);
        let part = if self.is_part { PART } else { "" };
        [&number, leg, content, compression, encryption, part].concat()
    }

    /// The name of the sidecar that belongs to the file.
    pub fn sidecar(&self) -> Self {
        Self { content: Content::Sidecar, ..self.plain() }
    }

    /// The name of what is in the file: complete, not compressed, not encrypted.
    pub fn plain(&self) -> Self {
        Self { compression: None, encryption: None, is_part: false, ..*self }
    }

    /// Whether there are packets in the file.
    pub fn has_packets(&self) -> bool {
        self.content != Content::Sidecar
    }
}

impl Content {
    /// The format of the packets; a sidecar has none.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::Pcapng => Some(Format::Pcapng),
            Self::Pcap => Some(Format::Pcap),
            Self::Rtp | Self::Rtcp => Some(Format::Adhoc),
            Self::Sidecar => None,
        }
    }
}

impl Compression {
    /// The end that it gives a name.
    pub fn suffix(self) -> &'static str {
        of(&COMPRESSIONS, self)
    }

    /// The word for options and sidecars.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

impl Encryption {
    /// The end that it gives a name.
    pub fn suffix(self) -> &'static str {
        of(&ENCRYPTIONS, self)
    }

    /// The word for sidecars.
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Sealed => "sealed",
        }
    }
}

/// The end of the name of a file that is not complete.
pub const PART: &str = ".part";

fn cut<'a>(name: &'a [u8], suffix: &str) -> (&'a [u8], bool) {
    name.strip_suffix(suffix.as_bytes()).map_or((name, false), |rest| (rest, true))
}

fn cut_any<'a, T: Copy>(name: &'a [u8], table: &[(&str, T)]) -> (&'a [u8], Option<T>) {
    let found = table.iter().find_map(|(suffix, what)| Some((name.strip_suffix(suffix.as_bytes())?, *what)));
    found.map_or((name, None), |(rest, what)| (rest, Some(what)))
}

/// Three digits or, from 1000 on, as many as it takes.
fn cut_number(name: &[u8]) -> (&[u8], Option<u32>) {
    let found = name.iter().rposition(|&byte| byte == b'.').and_then(|dot| {
        let digits = str::from_utf8(&name[dot + 1..]).ok()?;
        let number = digits.parse().ok().filter(|number| *number > 0)?;
        (format!("{number:03}") == digits).then_some((&name[..dot], number))
    });
    found.map_or((name, None), |(rest, number)| (rest, Some(number)))
}

fn of<T: Copy + PartialEq>(table: &[(&'static str, T)], what: T) -> &'static str {
    table.iter().find(|(_, other)| *other == what).map_or("", |(suffix, _)| suffix)
}

const LEGS: [(&str, Leg); 2] = [(".o", Leg::Caller), (".a", Leg::Callee)];
const CONTENTS: [(&str, Content); 5] = [
    (".pcapng", Content::Pcapng),
    (".pcap", Content::Pcap),
    (".rtp", Content::Rtp),
    (".rtcp", Content::Rtcp),
    (".json", Content::Sidecar),
];
const COMPRESSIONS: [(&str, Compression); 2] = [(".zst", Compression::Zstd), (".gz", Compression::Gzip)];
const ENCRYPTIONS: [(&str, Encryption); 2] = [(".age", Encryption::Age), (".sealed", Encryption::Sealed)];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(name: &str) -> Option<FileName<'_>> {
        FileName::parse(name.as_bytes())
    }

    #[test]
    fn a_name_tells_what_is_in_the_file() {
        let name = parse("a@b=t;1.pcapng").unwrap();
        assert_eq!((name.stem, name.content, name.is_part), (&b"a@b=t;1"[..], Content::Pcapng, false));
        assert_eq!((name.number, name.leg, name.compression, name.encryption), (None, None, None, None));

        let name = parse("x.012.a.rtcp.gz.age.part").unwrap();
        assert_eq!((name.stem, name.number, name.leg), (&b"x"[..], Some(12), Some(Leg::Callee)));
        assert_eq!((name.content, name.content.format()), (Content::Rtcp, Some(Format::Adhoc)));
        assert_eq!(name.compression, Some(Compression::Gzip));
        assert_eq!(name.encryption, Some(Encryption::Age));
        assert!(name.is_part && name.has_packets());

        let name = parse("x.recovered.o.pcapng.sealed").unwrap();
        assert_eq!((name.stem, name.leg), (&b"x.recovered"[..], Some(Leg::Caller)));
        assert_eq!(name.encryption, Some(Encryption::Sealed));

        let name = parse("x.001.json.part").unwrap();
        assert_eq!((name.content.format(), name.number, name.has_packets()), (None, Some(1), false));
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in ["", "x", "x.part", "x.wav", "x.zst", "x.pcapng.part.zst", "x.pcapng.age.gz", "x.json.gz"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_no_number_belongs_to_the_stem() {
        for (name, stem, number) in [
            ("x.1.pcap", "x.1", None),
            ("x.000.pcap", "x.000", None),
            ("x.0001.pcap", "x.0001", None),
            ("x.+01.pcap", "x.+01", None),
            ("x.1234.pcap", "x", Some(1234)),
            ("a@192.0.2.100=t.pcap", "a@192.0.2.100=t", None),
            ("x.99999999999.pcap", "x.99999999999", None),
        ] {
            let parsed = parse(name).unwrap();
            assert_eq!((parsed.stem, parsed.number), (stem.as_bytes(), number), "{name}");
        }
    }

    #[test]
    fn files_of_a_recording_share_a_sidecar() {
        for name in ["x.o.rtp", "x.o.rtcp", "x.o.rtcp.part", "x.o.rtp.zst", "x.o.rtp.gz.age"] {
            assert_eq!(parse(name).unwrap().sidecar().to_bytes(), b"x.o.json", "{name}");
        }
        assert_eq!(parse("x.002.pcapng.zst").unwrap().plain().to_bytes(), b"x.002.pcapng");
    }

    proptest! {
        #[test]
        fn a_name_comes_back_from_its_parts(
            stem in "[-a-z0-9.@=;%]{0,12}",
            number in "|\\.[0-9]{1,5}",
            leg in "|\\.o|\\.a",
            content in "\\.pcapng|\\.pcap|\\.rtp|\\.rtcp|\\.json",
            envelope in "|\\.zst|\\.gz|\\.zst\\.age|\\.gz\\.age|\\.age|\\.sealed",
            part in "|\\.part",
        ) {
            let name = format!("{stem}{number}{leg}{content}{envelope}{part}");
            match parse(&name) {
                Some(parsed) => prop_assert_eq!(parsed.to_bytes(), name.as_bytes()),
                None => prop_assert!(content == ".json" && !envelope.is_empty(), "{}", name),
            }
        }

        #[test]
        fn parts_come_back_from_their_name(
            stem in "[-a-z@=;%]{0,12}",
            number in proptest::option::of(1..=u32::MAX),
            leg in proptest::option::of(prop_oneof![Just(Leg::Caller), Just(Leg::Callee)]),
            content in proptest::sample::select(CONTENTS.map(|(_, content)| content).to_vec()),
            compression in proptest::option::of(prop_oneof![Just(Compression::Zstd), Just(Compression::Gzip)]),
            encryption in proptest::option::of(prop_oneof![Just(Encryption::Age), Just(Encryption::Sealed)]),
            is_part: bool,
        ) {
            let is_sidecar = content == Content::Sidecar;
            let compression = compression.filter(|_| !is_sidecar);
            let encryption = encryption.filter(|_| !is_sidecar);
            let stem = stem.as_bytes();
            let name = FileName { stem, number, leg, content, compression, encryption, is_part };
            let bytes = name.to_bytes();
            prop_assert_eq!(FileName::parse(&bytes), Some(name));
        }

        #[test]
        fn any_bytes_are_a_name_or_none(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(parsed) = FileName::parse(&name) {
                prop_assert_eq!(parsed.to_bytes(), name);
            }
        }
    }
}
