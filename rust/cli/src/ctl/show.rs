//! Replies as bytes, as tables, and as JSON.

use std::borrow::Cow;
use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use rtpproxy_core::command::{ErrorCode, Info, Reply, StatValue, SubResult};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::dialog::Exchange;
use super::guide::{COUNTERS, FIGURES, meaning};

/// What replies look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The bytes that came.
    Raw,
    /// Tables, and words for codes.
    Readable,
    /// One line of JSON each.
    Json,
}

/// Writes the reply to standard output, at once.
pub(super) fn print(exchange: &Exchange, form: Form) -> io::Result<()> {
    let shown = match form {
        Form::Raw => exchange.bytes.clone(),
        Form::Readable => readable(exchange).into_bytes(),
        Form::Json => json(exchange)?,
    };
    let mut output = io::stdout().lock();
    output.write_all(&shown)?;
    output.flush()
}

/// The reply for people, with its last line feed.
pub(super) fn readable(exchange: &Exchange) -> String {
    if let Some(recordings) = &exchange.recordings {
        return table_of(recordings);
    }
    let line = printable(&exchange.bytes);
    let text = match &exchange.reply {
        Some(Reply::Error(code)) => format!("{code}: {}", code.text()),
        Some(Reply::NoSession) => format!("0: {NO_SESSION}"),
        Some(Reply::Feature(true)) => "1: the relay can do that".to_owned(),
        Some(Reply::Feature(false)) => "0: the relay cannot do that".to_owned(),
        Some(Reply::Results { main, subs }) => with_results(line, main, subs),
        Some(reply) => Figures::of(reply).map_or(line, |figures| figures.table(None).to_string()),
        None => line,
    };
    text + "\n"
}

fn table_of(recordings: &[serde_json::Value]) -> String {
    if recordings.is_empty() {
        return "nothing is or was recorded\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    if table.width().is_some_and(|columns| columns >= COLUMNS_MIN) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(["state", "call-id", "packets", "dropped", "file", "cause"]);
    for recording in recordings {
        let cell = |name: &str| match &recording[name] {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => printable(text.as_bytes()),
            value => value.to_string(),
        };
        table.add_row(["state", "call_id", "packets", "dropped", "file", "cause"].map(cell));
    }
    for column in table.column_iter_mut().skip(2).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// A reply as it came, but without what would steer the terminal.
fn printable(reply: &[u8]) -> String {
    let mut text = String::new();
    for symbol in String::from_utf8_lossy(reply).trim_end().chars() {
        if symbol.is_control() && symbol != '\n' {
            text.extend(symbol.escape_default());
        } else {
            text.push(symbol);
        }
    }
    text
}

/// The reply for programs: one line.
pub(super) fn json(exchange: &Exchange) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line::of(exchange))?;
    line.push(b'\n');
    Ok(line)
}

/// Figures with their names, in the order of the reply.
#[derive(Debug, PartialEq)]
pub(super) struct Figures<'a> {
    rows: Vec<(&'a str, StatValue)>,
    title: &'static str,
    meanings: &'static [(&'static str, &'static str)],
}

impl<'a> Figures<'a> {
    /// Those in a reply; `None` if it has none.
    pub(super) fn of(reply: &'a Reply) -> Option<Self> {
        let (rows, title, meanings) = match reply {
            Reply::Info(info) => (lines(info), "relay", &[][..]),
            Reply::Stats { values, .. } => (named(values), "session", FIGURES),
            Reply::Counters { values, .. } => (named(values), "counter", COUNTERS),
            _ => return None,
        };
        (!rows.is_empty()).then_some(Self { rows, title, meanings })
    }

    /// A table as wide as the terminal allows: with a column for `rates`, one for each figure, or for what the
    /// figures mean.
    pub(super) fn table(&self, rates: Option<&[Option<f64>]>) -> Table {
        let mut table = Table::new();
        let mut header = vec![self.title, "value"];
        header.extend(rates.map(|_| "per second"));
        let has_meanings = rates.is_none() && !self.meanings.is_empty();
        header.extend(has_meanings.then_some("meaning"));
        table.load_style(UTF8_FULL_CONDENSED);
        if table.width().is_some_and(|columns| columns >= COLUMNS_MIN) {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        table.set_header(header);
        for (at, (name, value)) in self.rows.iter().enumerate() {
            let mut row = vec![(*name).to_owned(), value.to_string()];
            row.extend(rates.map(|rates| rates[at].map_or(String::new(), |rate| format!("{rate:.1}"))));
            if has_meanings {
                row.push(meaning(self.meanings, name).unwrap_or_default().to_owned());
            }
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1).take(1 + usize::from(rates.is_some())) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// How much each figure grew a second since `before`, `seconds` ago; `None` for what does not count up.
    pub(super) fn rates(&self, before: &[StatValue], seconds: f64) -> Vec<Option<f64>> {
        let mut before = before.iter();
        let rate = |(_, now): &(&str, StatValue)| match (before.next(), now) {
            (Some(StatValue::Count(before)), StatValue::Count(now)) => {
                Some(now.checked_sub(*before)? as f64 / seconds)
            }
            _ => None,
        };
        self.rows.iter().map(rate).collect()
    }

    pub(super) fn values(&self) -> Vec<StatValue> {
        self.rows.iter().map(|(_, value)| *value).collect()
    }
}

fn named(values: &[(Box<str>, StatValue)]) -> Vec<(&str, StatValue)> {
    values.iter().map(|(name, value)| (&**name, *value)).collect()
}

fn lines(info: &Info) -> Vec<(&'static str, StatValue)> {
    let mut lines = vec![
        ("sessions created", StatValue::Count(info.sessions_created)),
        ("active sessions", level(info.sessions_active)),
        ("active streams", level(info.streams_active)),
        ("packets received", StatValue::Count(info.packets_received)),
        ("packets transmitted", StatValue::Count(info.packets_transmitted)),
    ];
    lines.extend(info.load.map(|load| ("average load", StatValue::Real(load))));
    lines
}

/// What rises and falls, and so has no rate.
fn level(value: u64) -> StatValue {
    StatValue::Signed(value.try_into().unwrap_or(i64::MAX))
}

/// `line`, with a table in the place of figures, and told which sub-command failed.
fn with_results(line: String, main: &Reply, subs: &[SubResult]) -> String {
    let mut text = match Figures::of(main) {
        Some(figures) => {
            let results: String = subs.iter().map(|result| format!(" && {result}")).collect();
            format!("{}\n{}", figures.table(None), results.trim_start())
        }
        None => line,
    };
    if let Some(at) = subs.iter().position(|result| *result == SubResult::Failed) {
        text += &format!("\nsub-command {} failed; those behind it were left out", at + 1);
    }
    text
}

/// A line of JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    command: Cow<'a, str>,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Refusal>,
    /// What sub-commands tell, up to the last that has something to tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sub_results: Vec<String>,
}

impl<'a> Line<'a> {
    fn of(exchange: &'a Exchange) -> Self {
        let command = String::from_utf8_lossy(exchange.command.trim_ascii());
        let mut line =
            Self { command, ok: exchange.is_done(), result: None, error: None, sub_results: vec![] };
        line.result = exchange.recordings.as_deref().map(Value::Recordings);
        let reply = match &exchange.reply {
            Some(Reply::Results { main, subs }) => {
                line.sub_results = subs.iter().map(ToString::to_string).collect();
                Some(&**main)
            }
            reply => reply.as_ref(),
        };
        match reply {
            Some(Reply::Error(code)) => line.error = Some(Refusal::of(*code)),
            Some(Reply::NoSession) => line.error = Some(Refusal { code: "0".to_owned(), text: NO_SESSION }),
            Some(reply) => line.result = Value::of(reply, &exchange.bytes),
            None if line.result.is_some() => {}
            None => line.result = Some(Value::text(&exchange.bytes)),
        }
        line
    }
}

/// What a command was answered; nothing in the place of a `0`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Known(bool),
    Recordings(&'a [serde_json::Value]),
    Text(Cow<'a, str>),
    Media {
        port: u16,
        addr: Option<&'a str>,
        ipv6: bool,
    },
    #[serde(serialize_with = "as_object")]
    Figures(Vec<(&'a str, StatValue)>),
}

impl<'a> Value<'a> {
    fn of(reply: &'a Reply, bytes: &'a [u8]) -> Option<Self> {
        Some(match reply {
            Reply::Done => return None,
            Reply::Feature(known) => Self::Known(*known),
            Reply::Media(media) => {
                Self::Media { port: media.port, addr: media.addr.as_deref(), ipv6: media.ipv6 }
            }
            _ => Figures::of(reply).map_or_else(|| Self::text(bytes), |figures| Self::Figures(figures.rows)),
        })
    }

    fn text(bytes: &'a [u8]) -> Self {
        Self::Text(String::from_utf8_lossy(bytes.trim_ascii_end()))
    }
}

/// Why a command was refused.
#[derive(Debug, Serialize)]
struct Refusal {
    code: String,
    text: &'static str,
}

impl Refusal {
    fn of(code: ErrorCode) -> Self {
        Self { code: code.to_string(), text: code.text() }
    }
}

fn as_object<S: Serializer>(rows: &[(&str, StatValue)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(Some(rows.len()))?;
    for (name, value) in rows {
        object.serialize_key(&name.replace(' ', "_"))?;
        match value {
            StatValue::Signed(value) => object.serialize_value(value)?,
            StatValue::Count(value) => object.serialize_value(value)?,
            StatValue::Real(value) => object.serialize_value(value)?,
        }
    }
    object.end()
}

/// The width from which on a table is fitted to its terminal. Some claim to have none at all.
const COLUMNS_MIN: u16 = 40;
/// What a `0` means as the answer to `L`.
const NO_SESSION: &str = "no such session";

#[cfg(test)]
mod tests {
    use rtpproxy_core::command::{AnyRules, parse};

    use super::*;

    fn exchange(command: &str, reply: &str) -> Exchange {
        let kind = parse(command.as_bytes(), &mut AnyRules).ok().map(|command| command.reply_kind());
        Exchange::new(command.as_bytes(), reply.as_bytes().to_vec(), kind.as_ref())
    }

    #[test]
    fn codes_get_words_and_figures_get_tables() {
        for (command, reply, expected) in [
            ("V", "20040107\n", "20040107\n"),
            ("VF 1", "0\n", "0: the relay cannot do that\n"),
            ("VF 20081102", "1\n", "1: the relay can do that\n"),
            ("D c f", "0\n", "0\n"),
            ("D c f", "E50\n", "E50: session or stream not found\n"),
            ("nonsense", "E0\n", "E0: unknown command letter\n"),
            ("L c 0 0 f t", "0\n", "0: no such session\n"),
            ("L c 0 0 f t", "35000 192.0.2.1\n", "35000 192.0.2.1\n"),
            (
                "U c 0 0 f t && S ttl=1 && S tos=1",
                "35000 192.0.2.1 && 0 && -1\n",
                "35000 192.0.2.1 && 0 && -1\nsub-command 2 failed; those behind it were left out\n",
            ),
            ("V", "something new\n", "something new\n"),
            ("V", "\x1b[2Jcleared\n", "\\u{1b}[2Jcleared\n"),
        ] {
            assert_eq!(readable(&exchange(command, reply)), expected, "{command}");
        }
        let table = readable(&exchange("Q c f t ttl && S ttl=1", "60 && -1\n"));
        assert!(table.contains("│ ttl") && table.contains("&& -1\nsub-command 1 failed"), "{table}");
    }

    #[test]
    fn programs_get_types() {
        for (command, reply, expected) in [
            ("V", "20040107\n", r#"{"command":"V","ok":true,"result":"20040107"}"#),
            ("VF 1", "0\n", r#"{"command":"VF 1","ok":true,"result":false}"#),
            ("X", "0\n", r#"{"command":"X","ok":true}"#),
            (
                "D c f",
                "E50\n",
                r#"{"command":"D c f","ok":false,"error":{"code":"E50","text":"session or stream not found"}}"#,
            ),
            (
                "L c 0 0 f t",
                "0\n",
                r#"{"command":"L c 0 0 f t","ok":false,"error":{"code":"0","text":"no such session"}}"#,
            ),
            (
                "U c 0 0 f t && S ttl=1 && L 0 0",
                "35000 ::1 6 && 0 && 35002 ::1 6\n",
                concat!(
                    r#"{"command":"U c 0 0 f t && S ttl=1 && L 0 0","ok":true,"#,
                    r#""result":{"port":35000,"addr":"::1","ipv6":true},"sub_results":["0","35002 ::1 6"]}"#
                ),
            ),
            (
                "Q c f t ttl rtpa_javg",
                "-1 2.500000\n",
                r#"{"command":"Q c f t ttl rtpa_javg","ok":true,"result":{"ttl":-1,"rtpa_javg":2.5}}"#,
            ),
            ("G nope", "what\n", r#"{"command":"G nope","ok":true,"result":"what"}"#),
        ] {
            let line = json(&exchange(command, reply)).unwrap();
            assert_eq!(String::from_utf8(line).unwrap(), format!("{expected}\n"));
        }
        let info = "sessions created: 1\nactive sessions: 2\nactive streams: 3\npackets received: 4\n\
                    packets transmitted: 5\naverage load: 0.000000\n";
        let line = String::from_utf8(json(&exchange("Il", info)).unwrap()).unwrap();
        assert!(line.contains(r#""packets_transmitted":5,"average_load":0.0"#), "{line}");
    }

    #[test]
    fn rates_are_those_of_counts_that_grow() {
        let reply = exchange("Q c f t ttl nrelayed ndropped rtpa_javg", "58 300 1 2.0\n").reply.unwrap();
        let figures = Figures::of(&reply).unwrap();
        let before =
            [StatValue::Signed(60), StatValue::Count(200), StatValue::Count(5), StatValue::Real(1.0)];
        let rates = figures.rates(&before, 2.0);
        assert_eq!(rates, [None, Some(50.0), None, None]);
        let table = figures.table(Some(&rates)).to_string();
        assert!(table.contains("per second") && table.contains("50.0"), "{table}");
    }
}
