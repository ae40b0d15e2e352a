//! `rtpproxy verify`: whether recordings are whole.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Parser;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressStyle};
use rtpproxy_analysis::unlock::Identities;
use rtpproxy_analysis::verify::{self, Unit, Verdict};

use crate::{complain, say};

/// Checks recordings: all is well, or what is missing and where.
///
/// Files are read from end to end and compared with their sidecars. Exit status: 0 if all recordings are whole, 1 if
/// something is wrong with one, 2 if something cannot be read.
#[derive(Debug, Parser)]
#[command(name = "rtpproxy verify", bin_name = "rtpproxy verify", max_term_width = 110)]
pub(crate) struct Verify {
    /// Recordings, and folders with recordings, however deep.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Print a line of JSON for each recording.
    #[arg(long)]
    json: bool,
    /// Recordings need no sidecar, as those of --compat have none.
    #[arg(long)]
    no_sidecar: bool,
    /// File with a secret key of age or ssh that opens encrypted recordings; repeatable.
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
}

impl Verify {
    /// Runs it and gives back the exit status.
    pub(crate) fn run(&self) -> i32 {
        let units = verify::survey(&self.paths).map_err(|error| error.to_string());
        let identities = Identities::read(&self.identity).map_err(|error| error.to_string());
        let (units, identities) = match units.and_then(|units| Ok((units, identities?))) {
            Ok(given) => given,
            Err(error) => {
                complain(&format!("verify: {error}"));
                return UNREADABLE;
            }
        };
        if units.is_empty() {
            complain("verify: there are no recordings (.pcapng, .pcap, .rtp, .rtcp) in what was given");
            return UNREADABLE;
        }
        let is_table = !self.json && io::stdout().is_terminal();
        let bar = bytes_bar(&units, "Checking");
        let mut status = WHOLE;
        let mut verdicts = Vec::new();
        for unit in &units {
            match verify::verify(unit, !self.no_sidecar, &identities, &|read| bar.inc(read)) {
                Ok(verdict) => {
                    status = status.max(if verdict.is_whole { WHOLE } else { WRONG });
                    if is_table {
                        verdicts.push(verdict);
                    } else {
                        bar.suspend(|| say(&if self.json { json(&verdict) } else { line(&verdict) }));
                    }
                }
                Err(error) => {
                    status = UNREADABLE;
                    bar.suspend(|| complain(&format!("verify: {error}")));
                }
            }
        }
        bar.finish_and_clear();
        if is_table {
            say(&table(&verdicts));
        }
        status
    }
}

/// A bar over the bytes of all files, on a terminal.
pub(crate) fn bytes_bar(units: &[Unit], verb: &'static str) -> ProgressBar {
    let files = units.iter().flat_map(|unit| &unit.files);
    let size: u64 = files.filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum();
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style).with_message(verb)
}

fn json(verdict: &Verdict) -> String {
    serde_json::to_string(verdict).expect("a verdict has no keys that JSON lacks") + "\n"
}

fn line(verdict: &Verdict) -> String {
    let Verdict { recording, is_whole, packets, problems, notes } = verdict;
    let state = if *is_whole { "whole" } else { "WRONG" };
    let told = problems.iter().map(ToString::to_string).chain(notes.iter().cloned());
    let sum = packets.map(|packets| format!("{packets} packets"));
    let all = sum.into_iter().chain(told).collect::<Vec<_>>().join("; ");
    printable(&format!("{state} {recording}: {all}")) + "\n"
}

fn table(verdicts: &[Verdict]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    if table.width().is_some_and(|columns| columns >= COLUMNS_MIN) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(["", "recording", "packets", "what there is to know"]);
    for Verdict { recording, is_whole, packets, problems, notes } in verdicts {
        let state = if *is_whole { "whole" } else { "WRONG" };
        let told = problems.iter().map(ToString::to_string).chain(notes.iter().cloned());
        let told = told.collect::<Vec<_>>().join("\n");
        let packets = packets.map_or_else(|| "?".to_owned(), |packets| packets.to_string());
        table.add_row([state, &printable(recording), &packets, &printable(&told)]);
    }
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let wrong = verdicts.iter().filter(|verdict| !verdict.is_whole).count();
    let sum = match (verdicts.len(), wrong) {
        (1, 0) => "The recording is whole.".to_owned(),
        (all, 0) => format!("All {all} recordings are whole."),
        (all, wrong) => format!("Something is wrong with {wrong} of {all} recordings."),
    };
    format!("{table}\n{sum}\n")
}

/// A text without what would steer the terminal: names come from the network.
pub(crate) fn printable(text: &str) -> String {
    let steers = |symbol: char| symbol.is_control() && symbol != '\n';
    text.chars().map(|symbol| if steers(symbol) { '\u{fffd}' } else { symbol }).collect()
}

/// On a narrower terminal, lines that are too long are better than columns of a letter each.
const COLUMNS_MIN: u16 = 60;
/// Exit statuses.
const WHOLE: i32 = 0;
const WRONG: i32 = 1;
const UNREADABLE: i32 = 2;
