//! Rounds as figures: a table for people, JSON for programs.

use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use serde_json::{Value, json};

use super::Bench;
use super::usage::{Cpu, Memory};

/// What a round is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Calls are relayed.
    Plain,
    /// All of them are recorded, too.
    Recorded,
}

/// What one round has shown.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) kind: Kind,
    /// How long CPU time was counted.
    pub(super) elapsed: Duration,
    /// Packets sent to the relay meanwhile.
    pub(super) packets: u64,
    /// CPU time meanwhile.
    pub(super) talking: Cpu,
    /// CPU time from the end of the first call to that of the last recording.
    pub(super) finishing: Cpu,
    /// Memory after the calls had lasted that long, above that before.
    pub(super) memory: Memory,
    /// Packets sent from the first to the last.
    pub(super) sent: u64,
    /// Those that the other phones heard.
    pub(super) heard: u64,
    /// Those that the relay says to have relayed.
    pub(super) relayed: u64,
    /// Those that are in recordings, by their sidecars.
    pub(super) recorded: Option<u64>,
    /// How late a phone sent at most.
    pub(super) latest: Duration,
}

impl Round {
    /// CPU time of all threads for a packet in microseconds, without the ends of recordings.
    fn talking_us(&self) -> f64 {
        self.per_packet(self.talking.all)
    }

    /// The same with the ends of recordings, over the packets they are about: those of the whole round.
    fn total_us(&self) -> f64 {
        self.talking_us()
            + micros(self.finishing.recorder + self.finishing.finisher) / self.sent.max(1) as f64
    }

    fn per_packet(&self, span: Duration) -> f64 {
        micros(span) / self.packets.max(1) as f64
    }

    fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.heard)
    }

    fn json(&self, calls: u32) -> Value {
        let per_call = |bytes: i64| bytes as f64 / f64::from(calls);
        json!({
            "kind": self.kind,
            "seconds": self.elapsed.as_secs_f64(),
            "packets": self.packets,
            "us_per_packet": self.total_us(),
            "us_per_packet_without_ends": self.talking_us(),
            "cpu": self.talking,
            "cpu_ends": self.finishing,
            "memory_per_call": {
                "private_dirty": per_call(self.memory.private_dirty),
                "resident": per_call(self.memory.resident),
            },
            "sent": self.sent,
            "heard": self.heard,
            "lost": self.lost(),
            "relayed": self.relayed,
            "recorded": self.recorded,
            "sent_late_ms": self.latest.as_secs_f64() * 1e3,
        })
    }
}

/// All rounds: plain and recorded ones in turn.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) bench: &'a Bench,
    /// The folder is no disk.
    pub(super) is_in_memory: bool,
    pub(super) rounds: Vec<Round>,
}

impl Report<'_> {
    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let rounds: Vec<_> = self.rounds.iter().map(|round| round.json(self.bench.calls)).collect();
        let report = json!({
            "options": self.bench,
            "dir_in_memory": self.is_in_memory,
            "ratio": spread_json(&self.ratios(Round::total_us)),
            "ratio_without_ends": spread_json(&self.ratios(Round::talking_us)),
            "memory_of_a_recording": self.memory_of_a_recording(),
            "rounds": rounds,
        });
        format!("{report:#}\n")
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["median of the rounds (from, to)", "plain", "recorded"]);
        let us = |figure: fn(&Round) -> f64| move |round: &Round| figure(round);
        self.row(&mut table, "CPU of a packet, µs", 2, us(Round::total_us));
        self.row(&mut table, "  without the ends of recordings", 2, us(Round::talking_us));
        self.row(&mut table, "  media threads", 2, |round| round.per_packet(round.talking.media));
        self.row(&mut table, "  recorder", 2, |round| round.per_packet(round.talking.recorder));
        self.row(&mut table, "  other threads", 2, |round| {
            round.per_packet(round.talking.others() + round.talking.finisher)
        });
        let per_call = |bytes: i64| bytes as f64 / 1024.0 / f64::from(self.bench.calls);
        self.row(&mut table, "memory of a call, KB", 1, |round| per_call(round.memory.private_dirty));
        self.row(&mut table, "packets", 0, |round| round.sent as f64);
        self.row(&mut table, "  lost", 0, |round| round.lost() as f64);
        self.row(&mut table, "  not in the recordings", 0, |round| {
            round.recorded.map_or(0.0, |recorded| round.sent.saturating_sub(recorded) as f64)
        });
        self.row(&mut table, "sent late at most, ms", 1, |round| round.latest.as_secs_f64() * 1e3);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let [from, ratio, to] = spread(&self.ratios(Round::total_us));
        let [_, talking, _] = spread(&self.ratios(Round::talking_us));
        let Bench { calls, seconds, rounds, .. } = self.bench;
        let memory = self.memory_of_a_recording() / 1024.0;
        let warning =
            if self.is_in_memory { "The folder is in memory: nothing waited for a disk.\n" } else { "" };
        format!(
            "{table}\n\
             {calls} calls, {rounds} times {seconds} s plain and recorded.\n\
             Recording all calls costs {ratio:.2} times the CPU of relaying alone ({from:.2} to {to:.2}); {talking:.2} \
             without the ends of recordings.\n\
             A recording takes {memory:.1} KB of memory more than its call.\n{warning}"
        )
    }

    fn row(&self, table: &mut Table, name: &str, digits: usize, figure: impl Fn(&Round) -> f64) {
        let cell = |kind| {
            let [from, median, to] = spread(&self.of(kind, &figure));
            format!("{median:.digits$} ({from:.digits$}, {to:.digits$})")
        };
        table.add_row([name.to_owned(), cell(Kind::Plain), cell(Kind::Recorded)]);
    }

    fn of(&self, kind: Kind, figure: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.rounds.iter().filter(|round| round.kind == kind).map(figure).collect()
    }

    /// Recorded by plain, for each pair of neighbours.
    fn ratios(&self, figure: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.rounds.chunks_exact(2).map(|pair| figure(&pair[1]) / figure(&pair[0])).collect()
    }

    /// Private memory that a recorded call takes more than a plain one, in bytes.
    fn memory_of_a_recording(&self) -> f64 {
        let median = |kind| spread(&self.of(kind, |round| round.memory.private_dirty as f64))[1];
        (median(Kind::Recorded) - median(Kind::Plain)) / f64::from(self.bench.calls)
    }
}

/// The least, the median and the largest.
fn spread(figures: &[f64]) -> [f64; 3] {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        (at(middle.wrapping_sub(1)) + at(middle)) / 2.0
    } else {
        at(middle)
    };
    [at(0), median, at(sorted.len().saturating_sub(1))]
}

fn spread_json(figures: &[f64]) -> Value {
    let [from, median, to] = spread(figures);
    json!({ "median": median, "min": from, "max": to })
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn round(kind: Kind, cpu_ms: u64, private_dirty: i64) -> Round {
        let talking = Cpu { all: Duration::from_millis(cpu_ms), ..Cpu::default() };
        Round {
            kind,
            elapsed: Duration::from_secs(1),
            packets: 1000,
            talking,
            finishing: Cpu { finisher: Duration::from_millis(2), ..Cpu::default() },
            memory: Memory { private_dirty, resident: 2 * private_dirty },
            sent: 2000,
            heard: 1999,
            relayed: 2000,
            recorded: (kind == Kind::Recorded).then_some(1998),
            latest: Duration::from_millis(3),
        }
    }

    #[test]
    fn figures_are_of_packets_and_calls() {
        let bench = Bench::parse_from(["bench", "--calls", "10", "--rounds", "1"]);
        let plain = Round { finishing: Cpu::default(), ..round(Kind::Plain, 10, 10 << 12) };
        let report = Report {
            bench: &bench,
            is_in_memory: true,
            rounds: vec![plain, round(Kind::Recorded, 14, 10 << 13)],
        };
        let value: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(value["ratio"]["median"], 1.5);
        assert_eq!(value["ratio_without_ends"]["median"], 1.4);
        assert_eq!(value["memory_of_a_recording"], 4096.0);
        assert_eq!(value["rounds"][1]["us_per_packet"], 15.0);
        assert_eq!(value["rounds"][1]["lost"], 1);
        let text = report.text();
        assert!(text.contains("costs 1.50 times") && text.contains("in memory"), "{text}");
        assert!(text.contains("4.0 KB of memory more"), "{text}");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), [1.0, 2.5, 4.0]);
    }
}
