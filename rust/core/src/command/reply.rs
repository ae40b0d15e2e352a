//! Replies as values and as text.

use std::{fmt, str};

use super::ErrorCode;

/// The longest reply, in bytes, with its line feed.
pub const REPLY_MAX: usize = 1024;

/// The longest reply to `?recordings`, in bytes, with its line feed; one recording may be longer.
pub const RECORDINGS_MAX: usize = 7680;

/// What `Q` shows if no names are given.
pub const QUERY_DEFAULT: [&str; 5] = ["ttl", "npkts_ina", "npkts_ino", "nrelayed", "ndropped"];

/// Every figure that `Q` can be asked for.
pub const QUERY_FIGURES: [&str; 14] = [
    "ttl",
    "npkts_ina",
    "npkts_ino",
    "nrelayed",
    "ndropped",
    "longest_ipi",
    "rtpa_nsent",
    "rtpa_nrcvd",
    "rtpa_ndups",
    "rtpa_nlost",
    "rtpa_perrs",
    "rtpa_jlast",
    "rtpa_jmax",
    "rtpa_javg",
];

/// Stands before each result of a sub-command.
const SEPARATOR: &str = " && ";

/// The version of the protocol.
const VERSION: &str = "20040107";

/// A figure in a reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StatValue {
    /// `%d`
    Signed(i64),
    /// `%lu`
    Count(u64),
    /// `%f`: six decimals.
    Real(f64),
}

/// The answer to `U` and `L`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaReply {
    /// The RTP port; RTCP is one above.
    pub port: u16,
    /// The address, unless it is the wildcard: advertised text, or the numeric form.
    pub addr: Option<Box<str>>,
    /// The local address is IPv6; shown only behind an address.
    pub ipv6: bool,
}

/// The answer to `I`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Info {
    /// Sessions created since the start.
    pub sessions_created: u64,
    /// Sessions now.
    pub sessions_active: u64,
    /// RTP streams now.
    pub streams_active: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Packets relayed and played.
    pub packets_transmitted: u64,
    /// The load, if it was asked for (`Il`).
    pub load: Option<f64>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `0`: done.
    Done,
    /// `20040107`
    Version,
    /// `1` or `0`
    Feature(bool),
    /// A port was given.
    Media(MediaReply),
    /// `0` of an `L` without its session; counts as an error.
    NoSession,
    /// `Q`: names and values; names are shown with `v`.
    Stats {
        /// Show the names.
        verbose: bool,
        /// The figures.
        values: Vec<(Box<str>, StatValue)>,
    },
    /// `I`
    Info(Info),
    /// `G`
    Counters {
        /// Show the names.
        verbose: bool,
        /// The figures.
        values: Vec<(Box<str>, StatValue)>,
    },
    /// `?recordings`: an object of JSON, in one line.
    Recordings(Box<str>),
    /// `E<n>`
    Error(ErrorCode),
    /// The answer to a command, and what its sub-commands have to tell; made by [`Reply::with_results`].
    Results {
        /// The answer to the command itself, which is no error.
        main: Box<Self>,
        /// Of each sub-command in order, up to the last that has something to tell.
        subs: Vec<SubResult>,
    },
}

/// What a sub-command tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubResult {
    /// It was done. Shown, as `0`, only in front of others.
    Done,
    /// `-1`: it failed, and with that those behind it were left out.
    Failed,
    /// It was done and answers this: words without `&&`, which is no number below 1.
    Text(Box<str>),
}

/// What kind of answer a command expects: needed to read one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// `0`
    Done,
    /// `V`
    Version,
    /// `VF`
    Feature,
    /// `U`
    Media,
    /// `L`: as `U`, and `0` is [`Reply::NoSession`].
    Lookup,
    /// `Q` with these names.
    Stats(Vec<Box<str>>),
    /// `I`: five lines, six with the load.
    Info {
        /// With the load.
        load: bool,
    },
    /// `G` with these names.
    Counters(Vec<Box<str>>),
    /// `?recordings`
    Recordings,
}

impl Reply {
    /// True for what counts as an error: an error code, and an `L` that found nothing.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_) | Self::NoSession)
    }

    /// The text of the answer with its line feed, [`REPLY_MAX`] bytes at most; recordings are told at any length.
    ///
    /// An answer that would be longer becomes an error: E26 of `Q`, E25 of `G`, E81 of all others. Results of
    /// sub-commands that do not fit give way to ` && -1`.
    pub fn encode(&self) -> Vec<u8> {
        let text = self.text();
        if let Self::Results { main, subs } = self {
            let fits = text.len() <= REPLY_MAX;
            return if fits { with_results(text.into_bytes(), subs) } else { main.encode() };
        }
        if text.len() <= REPLY_MAX || matches!(self, Self::Recordings(_)) {
            text
        } else {
            Self::Error(self.too_long()).text()
        }
        .into_bytes()
    }

    /// Adds what sub-commands tell; those at the end that have nothing to tell are left out.
    pub fn with_results(self, mut subs: Vec<SubResult>) -> Self {
        let shown = subs.iter().rposition(|result| *result != SubResult::Done).map_or(0, |last| last + 1);
        subs.truncate(shown);
        if subs.is_empty() { self } else { Self::Results { main: Box::new(self), subs } }
    }

    /// Reads the answer to a command of `kind`, with the results of its sub-commands; white space behind it is
    /// ignored.
    pub fn parse(text: &[u8], kind: &ReplyKind) -> Result<Self, BadReply> {
        let bad = || BadReply { text: String::from_utf8_lossy(text).trim_end().into() };
        let line = str::from_utf8(text).map_err(|_| bad())?.trim_ascii_end();
        if let Some(code) = line.strip_prefix('E').and_then(number) {
            return Ok(Self::Error(ErrorCode(code)));
        }
        if *kind == ReplyKind::Recordings {
            return if line.starts_with('{') { Ok(Self::Recordings(line.into())) } else { Err(bad()) };
        }
        let mut parts = line.split(SEPARATOR);
        let main = parts.next().map(str::trim_ascii_end).filter(|main| is_one(main));
        let main = main.and_then(|main| answer(main, kind));
        let subs: Option<Vec<SubResult>> = parts.map(result).collect();
        main.zip(subs).map(|(main, subs)| main.with_results(subs)).ok_or_else(bad)
    }

    fn text(&self) -> String {
        match self {
            Self::Done | Self::NoSession => "0\n".into(),
            Self::Version => format!("{VERSION}\n"),
            Self::Feature(known) => format!("{}\n", u8::from(*known)),
            Self::Media(media) => format!("{media}\n"),
            Self::Stats { verbose, values } | Self::Counters { verbose, values } => {
                let figures =
                    values.iter().map(
                        |(name, value)| {
                            if *verbose { format!("{name}={value}") } else { value.to_string() }
                        },
                    );
                figures.collect::<Vec<_>>().join(" ") + "\n"
            }
            Self::Info(info) => info.to_string(),
            Self::Recordings(line) => format!("{line}\n"),
            Self::Error(code) => format!("{code}\n"),
            // Results are written by `encode`, which knows the limit.
            Self::Results { main, .. } => main.text(),
        }
    }

    fn too_long(&self) -> ErrorCode {
        match self {
            Self::Stats { .. } => ErrorCode::QUERY_TOO_LONG,
            Self::Counters { .. } => ErrorCode::COUNTERS_TOO_LONG,
            _ => ErrorCode::INTERNAL_FAILURE,
        }
    }
}

impl fmt::Display for MediaReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.addr {
            None => write!(f, "{}", self.port),
            Some(addr) => write!(f, "{} {addr}{}", self.port, if self.ipv6 { " 6" } else { "" }),
        }
    }
}

impl fmt::Display for SubResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("0"),
            Self::Failed => f.write_str("-1"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for StatValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(value) => write!(f, "{value}"),
            Self::Count(value) => write!(f, "{value}"),
            Self::Real(value) => write!(f, "{value:.6}"),
        }
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sessions created: {}", self.sessions_created)?;
        writeln!(f, "active sessions: {}", self.sessions_active)?;
        writeln!(f, "active streams: {}", self.streams_active)?;
        writeln!(f, "packets received: {}", self.packets_received)?;
        writeln!(f, "packets transmitted: {}", self.packets_transmitted)?;
        self.load.map_or(Ok(()), |load| writeln!(f, "average load: {load:.6}"))
    }
}

/// A text that does not answer the command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected reply {text:?}")]
pub struct BadReply {
    /// What came.
    pub text: String,
}

/// The text `main`, which ends in a line feed, with the results that fit behind it.
fn with_results(mut main: Vec<u8>, subs: &[SubResult]) -> Vec<u8> {
    main.pop();
    let failed = format!("{SEPARATOR}{}", SubResult::Failed);
    // How long the text was before each result: where it can be cut.
    let mut cuts = Vec::with_capacity(subs.len());
    for sub in subs {
        cuts.push(main.len());
        main.extend_from_slice(format!("{SEPARATOR}{sub}").as_bytes());
    }
    if main.len() >= REPLY_MAX {
        let cut = cuts.iter().rev().find(|cut| **cut + failed.len() < REPLY_MAX);
        main.truncate(*cut.unwrap_or(&cuts[0]));
        if main.len() + failed.len() < REPLY_MAX {
            main.extend_from_slice(failed.as_bytes());
        }
    }
    main.push(b'\n');
    main
}

/// What one sub-command tells; `None` if that is nothing.
fn result(text: &str) -> Option<SubResult> {
    // At the end of a line white space means nothing, so it means nothing here either.
    let text = text.trim_ascii();
    match number::<i32>(text) {
        Some(0) => Some(SubResult::Done),
        Some(code) if code < 0 => Some(SubResult::Failed),
        Some(_) | None => (!text.is_empty() && is_one(text)).then(|| SubResult::Text(text.into())),
    }
}

/// Whether a part of a reply has no word that would read as another separator.
fn is_one(part: &str) -> bool {
    part.split_ascii_whitespace().all(|word| word != SEPARATOR.trim_ascii())
}

/// An answer that is no error.
fn answer(line: &str, kind: &ReplyKind) -> Option<Reply> {
    let verbose = line.contains('=');
    match kind {
        ReplyKind::Done => (line == "0").then_some(Reply::Done),
        ReplyKind::Version => (line == VERSION).then_some(Reply::Version),
        ReplyKind::Feature => match line {
            "1" => Some(Reply::Feature(true)),
            "0" => Some(Reply::Feature(false)),
            _ => None,
        },
        ReplyKind::Lookup if line == "0" => Some(Reply::NoSession),
        ReplyKind::Media | ReplyKind::Lookup => media(line).map(Reply::Media),
        ReplyKind::Stats(names) if names.is_empty() => {
            let names: Vec<Box<str>> = QUERY_DEFAULT.iter().map(|&name| name.into()).collect();
            figures(line, &names).map(|values| Reply::Stats { verbose, values })
        }
        ReplyKind::Stats(names) => figures(line, names).map(|values| Reply::Stats { verbose, values }),
        // Read before, as its texts may hold what looks like a separator.
        ReplyKind::Recordings => None,
        ReplyKind::Info { load } => info(line, *load).map(Reply::Info),
        ReplyKind::Counters(names) => figures(line, names).map(|values| Reply::Counters { verbose, values }),
    }
}

/// `PORT`, `PORT ADDR`, `PORT ADDR 6`; a port of 0 is none.
fn media(line: &str) -> Option<MediaReply> {
    let mut words = line.split(' ');
    let port = words.next().and_then(number).filter(|&port| port > 0)?;
    let addr = words.next();
    let ipv6 = match words.next() {
        None => false,
        Some("6") => true,
        Some(_) => return None,
    };
    let complete = words.next().is_none() && addr != Some("");
    complete.then(|| MediaReply { port, addr: addr.map(Into::into), ipv6 })
}

/// The values of `names`, each perhaps behind its name.
fn figures(line: &str, names: &[Box<str>]) -> Option<Vec<(Box<str>, StatValue)>> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    if words.len() != names.len() {
        return None;
    }
    let figures = words.iter().zip(names).map(|(word, name)| {
        let value = if word.contains('=') { word.strip_prefix(&**name)?.strip_prefix('=')? } else { word };
        Some((name.clone(), figure(name, value)?))
    });
    figures.collect()
}

/// The time to live is the only figure that is signed, and only figures with a point are not whole.
fn figure(name: &str, text: &str) -> Option<StatValue> {
    if text.contains('.') {
        real(text).map(StatValue::Real)
    } else if name == "ttl" {
        number(text).map(StatValue::Signed)
    } else {
        number(text).map(StatValue::Count)
    }
}

fn info(text: &str, load: bool) -> Option<Info> {
    let mut lines = text.lines();
    let mut next = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(": ");
    let info = Info {
        sessions_created: number(next("sessions created")?)?,
        sessions_active: number(next("active sessions")?)?,
        streams_active: number(next("active streams")?)?,
        packets_received: number(next("packets received")?)?,
        packets_transmitted: number(next("packets transmitted")?)?,
        load: if load { Some(real(next("average load")?)?) } else { None },
    };
    lines.next().is_none().then_some(info)
}

fn real(text: &str) -> Option<f64> {
    number(text).filter(|number: &f64| number.is_finite())
}

fn number<T: str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of_names(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|&name| name.into()).collect()
    }

    #[test]
    fn replies_and_their_text() {
        let media = |port, addr: Option<&str>, ipv6| {
            Reply::Media(MediaReply { port, addr: addr.map(Into::into), ipv6 })
        };
        let stats = |verbose, names: &[&str], values: &[StatValue]| Reply::Stats {
            verbose,
            values: kind_of_names(names).into_iter().zip(values.iter().copied()).collect(),
        };
        let default = [60, 0, 1, 2, 3].map(StatValue::Count);
        let default = [&[StatValue::Signed(60)], &default[1..]].concat();
        let jitter = [StatValue::Count(u64::MAX), StatValue::Real(12.5)];
        let names = ["rtpa_nlost", "rtpa_javg"];
        let rows = [
            (Reply::Done, ReplyKind::Done, "0\n"),
            (Reply::Version, ReplyKind::Version, "20040107\n"),
            (Reply::Feature(true), ReplyKind::Feature, "1\n"),
            (Reply::Feature(false), ReplyKind::Feature, "0\n"),
            (Reply::NoSession, ReplyKind::Lookup, "0\n"),
            (Reply::Recordings("{\"a\":\"b && c\"}".into()), ReplyKind::Recordings, "{\"a\":\"b && c\"}\n"),
            (media(35000, None, false), ReplyKind::Media, "35000\n"),
            (media(35000, Some("192.0.2.1"), false), ReplyKind::Lookup, "35000 192.0.2.1\n"),
            (media(35000, Some("::1"), true), ReplyKind::Media, "35000 ::1 6\n"),
            (stats(false, &QUERY_DEFAULT, &default), ReplyKind::Stats(vec![]), "60 0 1 2 3\n"),
            (
                stats(true, &QUERY_DEFAULT, &default),
                ReplyKind::Stats(vec![]),
                "ttl=60 npkts_ina=0 npkts_ino=1 nrelayed=2 ndropped=3\n",
            ),
            (
                stats(false, &names, &jitter),
                ReplyKind::Stats(kind_of_names(&names)),
                "18446744073709551615 12.500000\n",
            ),
            (
                Reply::Counters { verbose: true, values: vec![("pps_in".into(), StatValue::Real(0.0))] },
                ReplyKind::Counters(kind_of_names(&["pps_in"])),
                "pps_in=0.000000\n",
            ),
            (Reply::Counters { verbose: false, values: vec![] }, ReplyKind::Counters(vec![]), "\n"),
            (Reply::Error(ErrorCode::NOT_FOUND), ReplyKind::Done, "E50\n"),
        ];
        for (reply, kind, text) in rows {
            assert_eq!(String::from_utf8(reply.encode()).unwrap(), text);
            assert_eq!(Reply::parse(text.as_bytes(), &kind), Ok(reply), "{text}");
        }
    }

    #[test]
    fn info_has_a_line_for_each_figure() {
        let info = Info {
            sessions_created: 5,
            sessions_active: 1,
            streams_active: 2,
            packets_received: 100,
            packets_transmitted: 99,
            load: None,
        };
        let text = "sessions created: 5\nactive sessions: 1\nactive streams: 2\npackets received: 100\n\
                    packets transmitted: 99\n";
        let kind = |load| ReplyKind::Info { load };
        assert_eq!(Reply::Info(info).encode(), text.as_bytes());
        assert_eq!(Reply::parse(text.as_bytes(), &kind(false)), Ok(Reply::Info(info)));
        assert!(Reply::parse(text.as_bytes(), &kind(true)).is_err());
        let text = format!("{text}average load: 0.000000\n");
        let loaded = Reply::Info(Info { load: Some(0.0), ..info });
        assert_eq!(loaded.encode(), text.as_bytes());
        assert_eq!(Reply::parse(text.as_bytes(), &kind(true)), Ok(loaded));
        assert!(Reply::parse(text.as_bytes(), &kind(false)).is_err());
    }

    #[test]
    fn white_space_around_a_result_means_nothing() {
        let reply = Reply::parse(b"4 &&  text \t && 0\n", &ReplyKind::Media).unwrap();
        assert_eq!(reply.encode(), b"4 && text\n");
        let again = Reply::parse(&reply.encode(), &ReplyKind::Media).unwrap();
        assert_eq!(again.encode(), reply.encode());
        assert!(Reply::parse(b"4 && a &&  && b\n", &ReplyKind::Media).is_err());
        assert!(Reply::parse(b"4 && a && && b\n", &ReplyKind::Media).is_err());
    }

    #[test]
    fn errors_answer_every_kind() {
        let names = || kind_of_names(&["ttl"]);
        let kinds = [
            ReplyKind::Done,
            ReplyKind::Version,
            ReplyKind::Feature,
            ReplyKind::Media,
            ReplyKind::Lookup,
            ReplyKind::Stats(names()),
            ReplyKind::Info { load: true },
            ReplyKind::Counters(names()),
        ];
        for kind in kinds {
            let reply = Reply::parse(b"E72\n", &kind);
            assert_eq!(reply, Ok(Reply::Error(ErrorCode::NO_PORT)));
            assert!(reply.unwrap().is_error());
        }
        assert!(Reply::NoSession.is_error());
        assert!(!Reply::Done.is_error());
    }

    #[test]
    fn texts_that_do_not_answer() {
        let rows = [
            (ReplyKind::Done, "1"),
            (ReplyKind::Done, ""),
            (ReplyKind::Done, "E"),
            (ReplyKind::Done, "E70000"),
            (ReplyKind::Version, "20050101"),
            (ReplyKind::Feature, "2"),
            (ReplyKind::Media, "0"),
            (ReplyKind::Media, "70000"),
            (ReplyKind::Media, "5 ::1 7"),
            (ReplyKind::Media, "5  6"),
            (ReplyKind::Lookup, "5 ::1 6 6"),
            (ReplyKind::Stats(vec![]), "1 2 3 4"),
            (ReplyKind::Stats(vec![]), "1 2 3 4 x"),
            (ReplyKind::Counters(kind_of_names(&["a"])), "b=1"),
            (ReplyKind::Counters(kind_of_names(&["a"])), "-1"),
            (ReplyKind::Counters(kind_of_names(&["a"])), "1.0e999"),
        ];
        for (kind, text) in rows {
            let bad = BadReply { text: text.into() };
            assert_eq!(Reply::parse(text.as_bytes(), &kind), Err(bad), "{kind:?}");
        }
        assert!(Reply::parse(b"\xff", &ReplyKind::Done).is_err());
    }

    #[test]
    fn results_stand_behind_the_answer() {
        let text = |text: &str| SubResult::Text(text.into());
        let rows = [
            (vec![], "0\n"),
            (vec![SubResult::Done, SubResult::Done], "0\n"),
            (vec![SubResult::Done, text("a b"), SubResult::Done], "0 && 0 && a b\n"),
            (vec![text("12002"), SubResult::Failed], "0 && 12002 && -1\n"),
        ];
        for (results, written) in rows {
            let reply = Reply::Done.with_results(results);
            assert_eq!(reply.encode(), written.as_bytes());
            assert_eq!(Reply::parse(written.as_bytes(), &ReplyKind::Done), Ok(reply));
        }
        let other_codes = Reply::parse(b"0 && -7 && 00 && x\n", &ReplyKind::Done).unwrap();
        assert_eq!(other_codes.encode(), b"0 && -1 && 0 && x\n");
        for bad in ["E5 && 0", "1 && x", "0 &&", "0 &&  && x"] {
            assert!(Reply::parse(bad.as_bytes(), &ReplyKind::Done).is_err(), "{bad}");
        }
    }

    #[test]
    fn results_that_do_not_fit_give_way_to_a_failure() {
        let written = |lens: &[usize]| {
            let texts = lens.iter().map(|len| SubResult::Text("x".repeat(*len).into()));
            String::from_utf8(Reply::Done.with_results(texts.collect()).encode()).unwrap()
        };
        // `0 && ` and the line feed take 6 bytes.
        assert_eq!(written(&[REPLY_MAX - 6]).len(), REPLY_MAX);
        assert_eq!(written(&[REPLY_MAX - 5]), "0 && -1\n");
        assert_eq!(written(&[1, REPLY_MAX]), "0 && x && -1\n");
        assert_eq!(written(&[REPLY_MAX - 6, 1]), "0 && -1\n", "the failure needs room as well");
        let long =
            Reply::Stats { verbose: true, values: vec![("n".repeat(1019).into(), StatValue::Count(1))] };
        let shown = long.clone().with_results(vec![SubResult::Failed]).encode();
        assert_eq!(shown, long.encode(), "there is no room even for that");
    }

    #[test]
    fn a_reply_that_would_be_too_long_is_an_error() {
        let values = |name_len: usize| vec![("n".repeat(name_len).into(), StatValue::Count(1))];
        let longest = Reply::Stats { verbose: true, values: values(REPLY_MAX - 3) };
        assert_eq!(longest.encode().len(), REPLY_MAX);
        let rows = [
            (Reply::Stats { verbose: true, values: values(REPLY_MAX - 2) }, "E26\n"),
            (Reply::Counters { verbose: true, values: values(REPLY_MAX - 2) }, "E25\n"),
            (
                Reply::Media(MediaReply { port: 5, addr: Some("a".repeat(REPLY_MAX).into()), ipv6: false }),
                "E81\n",
            ),
        ];
        for (reply, text) in rows {
            assert_eq!(reply.encode(), text.as_bytes());
        }
    }
}
