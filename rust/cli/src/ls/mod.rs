//! `rtpproxy ls`: which recordings there are.

mod when;

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Parser;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use rtpproxy_analysis::listing::{self, Entry, State};
use rtpproxy_analysis::unlock::Identities;
use rtpproxy_core::time::Wall;

use crate::complain;

/// Lists recordings: finished, running, interrupted and damaged ones, sorted by their start.
///
/// What is said comes from the sidecars, and from the heads of files without one. Times are UTC. In patterns * stands for
/// any text and ? for any character. A TIME is 2026-11-22T18:00:00Z, or a day as 2026-11-22, or so long before now as -2h
/// (d, h, m, s).
#[derive(Debug, Parser)]
#[command(name = "rtpproxy ls", bin_name = "rtpproxy ls", max_term_width = 110)]
pub(crate) struct Ls {
    /// Folders with recordings, however deep.
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Only calls with such a call-id.
    #[arg(long, value_name = "PATTERN")]
    call_id: Option<String>,
    /// Only calls in which a party has such a tag, with or without the number of the medium (;1).
    #[arg(long, value_name = "PATTERN")]
    tag: Option<String>,
    /// Only recordings that start at this time or later.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Only recordings that start before this time, or until the end of this day.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// File with a secret key of age or ssh that opens encrypted journals; repeatable.
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// Print a line of JSON for each recording.
    #[arg(long)]
    json: bool,
}

impl Ls {
    /// Runs it and gives back the exit status: 0 if all folders could be read.
    pub(crate) fn run(&self) -> i32 {
        match self.list() {
            Ok(status) => status,
            Err(error) => {
                complain(&format!("ls: {error}"));
                1
            }
        }
    }

    fn list(&self) -> Result<i32, String> {
        let now = Utc::now();
        let from = self.from.as_deref().map(|text| when::start(text, now)).transpose()?;
        let to = self.to.as_deref().map(|text| when::end(text, now)).transpose()?;
        let wants = |entry: &Entry| self.wants_ids(entry) && is_between(entry.start, from, to);
        let identities = Identities::read(&self.identity).map_err(|error| error.to_string())?;
        let bar = progress();
        let (entries, errors) = listing::list(&self.folders, &identities, &wants, &|| bar.inc(1));
        bar.finish_and_clear();
        for error in &errors {
            complain(&format!("ls: {error}"));
        }
        match self.print(&entries) {
            // A reader that has seen enough is no fault.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.to_string()),
            _ => {}
        }
        Ok(i32::from(!errors.is_empty()))
    }

    fn wants_ids(&self, entry: &Entry) -> bool {
        let fits = |pattern: &Option<String>, id: &Option<String>| match (pattern, id) {
            (None, _) => true,
            (Some(pattern), Some(id)) => {
                matches(pattern, id) || id.split_once(';').is_some_and(|(id, _)| matches(pattern, id))
            }
            (Some(_), None) => false,
        };
        let is_call = match (&self.call_id, &entry.call_id) {
            (Some(pattern), Some(id)) => matches(pattern, id),
            (pattern, _) => pattern.is_none(),
        };
        is_call && (fits(&self.tag, &entry.from_tag) || fits(&self.tag, &entry.to_tag))
    }

    fn print(&self, entries: &[Entry]) -> io::Result<()> {
        let stdout = io::stdout();
        if !self.json && stdout.is_terminal() {
            return print_tables(entries);
        }
        let mut output = BufWriter::new(stdout.lock());
        for entry in entries {
            if self.json {
                serde_json::to_writer(&mut output, entry)?;
            } else {
                output.write_all(line(entry).as_bytes())?;
            }
            output.write_all(b"\n")?;
        }
        output.flush()
    }
}

fn is_between(start: Option<Wall>, from: Option<Wall>, to: Option<Wall>) -> bool {
    match start {
        Some(start) => from.is_none_or(|from| start >= from) && to.is_none_or(|to| start < to),
        None => from.is_none() && to.is_none(),
    }
}

/// Whether a text is as a pattern with `*` and `?` says.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut done) = (0, 0);
    // The last star, and up to where the text is taken for it.
    let mut star = None;
    while done < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, done));
                at += 1;
            }
            Some(symbol) if *symbol == '?' || *symbol == text[done] => {
                at += 1;
                done += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                (at, done) = (place + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|symbol| *symbol == '*')
}

/// One line with a tab between the columns.
fn line(entry: &Entry) -> String {
    let columns = [
        entry.state.name().to_owned(),
        or_dash(entry.start.map(listing::time_text)),
        or_dash(entry.duration.map(|duration| format!("{:.3}", duration.as_secs_f64()))),
        or_dash(entry.call_id.as_ref()),
        or_dash(entry.from_tag.as_ref()),
        or_dash(entry.to_tag.as_ref()),
        or_dash(entry.caller),
        or_dash(entry.callee),
        or_dash(entry.packets),
        or_dash(entry.missing),
        entry.size.to_string(),
        or_dash(entry.ended.as_ref()),
        entry.path.display().to_string(),
        or_dash(entry.error.as_ref()),
    ];
    columns.map(|column| printable(&column)).join("\t")
}

/// Tables of bounded size, so that many recordings need no more memory than their entries.
fn print_tables(entries: &[Entry]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    for entries in entries.chunks(ROWS_OF_TABLE) {
        writeln!(output, "{}", table(entries))?;
    }
    let damaged = entries.iter().filter(|entry| entry.state == State::Damaged).count();
    let bytes = entries.iter().map(|entry| entry.size).sum();
    let recordings = if entries.len() == 1 { "recording" } else { "recordings" };
    let of_them = if damaged > 0 { format!(", {damaged} damaged") } else { String::new() };
    writeln!(output, "{} {recordings}, {}{of_them}", entries.len(), BinaryBytes(bytes))
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["start (UTC)", "length", "call-id", "parties", "packets", "lost", "size", "state"]);
    for entry in entries {
        let start = entry.start.map(|start| DateTime::from_timestamp_nanos(start.0 as i64));
        let parties = match (entry.caller, entry.callee) {
            (None, None) => "-".to_owned(),
            (caller, callee) => format!("{}\n{}", or_dash(caller), or_dash(callee)),
        };
        let state = match (&entry.error, &entry.ended) {
            (Some(error), _) => format!("{}: {error}", entry.state.name()),
            (None, Some(ended)) if ended != entry.state.name() => format!("{}: {ended}", entry.state.name()),
            (None, _) => entry.state.name().to_owned(),
        };
        table.add_row([
            or_dash(start.map(|start| start.format("%Y-%m-%d %H:%M:%S"))),
            or_dash(entry.duration.map(clock)),
            // A recording that does not say its call is found by its name.
            printable(entry.call_id.as_ref().unwrap_or(&entry.path.display().to_string())),
            parties,
            or_dash(entry.packets),
            or_dash(entry.missing),
            BinaryBytes(entry.size).to_string(),
            printable(&state),
        ]);
    }
    for column in [1, 4, 5, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Hours, minutes and seconds.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A text without what would steer the terminal or look like another column: ids come from the network.
fn printable(text: &str) -> String {
    text.chars().map(|symbol| if symbol.is_control() { '\u{fffd}' } else { symbol }).collect()
}

/// On a terminal, what has been looked at so far.
fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} recordings");
    ProgressBar::new_spinner().with_style(style.expect("the template is right"))
}

const ROWS_OF_TABLE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text) in [
            ("abc", "abc"),
            ("*", ""),
            ("a*", "a"),
            ("*@host", "x@host"),
            ("a*c*e", "abcbcde"),
            ("**", "x"),
            ("?é?", "aéb"),
            ("a*b", "a*b"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("abc", "abcd"), ("", "a"), ("?", ""), ("a*c", "ab"), ("*a", "ab"), ("A", "a")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_tag_is_found_with_and_without_its_medium() {
        let entry = Entry {
            call_id: Some("x".into()),
            from_tag: Some("f;1".into()),
            to_tag: Some("t".into()),
            ..Entry::default()
        };
        let finds = |tag: &str| Ls::parse_from(["ls", ".", "--tag", tag]).wants_ids(&entry);
        assert!(finds("f") && finds("f;1") && finds("t") && finds("*"));
        assert!(!finds("x") && !finds("f;2"));
        assert!(!Ls::parse_from(["ls", ".", "--tag", "*"]).wants_ids(&Entry::default()));
    }

    #[test]
    fn a_line_is_one_line() {
        let entry = Entry {
            call_id: Some("a\tb\n\u{1b}[2J".into()),
            duration: Some(Duration::from_millis(1500)),
            ..Entry::default()
        };
        let line = line(&entry);
        let columns: Vec<_> = line.split('\t').collect();
        assert_eq!(columns.len(), 14);
        assert_eq!(columns[..4], ["finished", "-", "1.500", "a\u{fffd}b\u{fffd}\u{fffd}[2J"]);
    }

    #[test]
    fn a_table_says_what_is_wrong() {
        let error = Some("it is empty".to_owned());
        let entry = Entry { path: "x.pcapng".into(), state: State::Damaged, error, ..Entry::default() };
        let duration = Some(Duration::from_secs(3725));
        let text = table(&[entry, Entry { duration, ..Entry::default() }]).to_string();
        assert!(text.contains("x.pcapng") && text.contains("damaged: it is empty"), "{text}");
        assert!(text.contains("1:02:05"), "{text}");
    }
}
