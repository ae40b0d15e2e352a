//! `rtpproxy bench`: what a packet costs a relay, and what it costs more if it is recorded.
//!
//! Each round starts a relay as a process of its own and lets the phones of [`load`] talk through it. Plain
//! and recorded rounds take turns, so that whatever else the machine does hits both.

mod load;
mod relay;
mod report;
mod usage;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{complain, say};
use load::{Load, Stream};
use relay::ChildRelay;
use report::{Kind, Report, Round};
use usage::{Cpu, Memory};

/// Measures the CPU time a packet costs the relay, plain and recorded, and the memory of a call.
///
/// A relay is started as a process of its own; built-in phones hold calls of G.711 through it on 127.0.0.1. Plain and
/// recorded rounds take turns, each with a new relay. What is counted is the CPU time of the relay alone: while
/// the calls last, and of recordings also what their end takes (sync, name, sidecar). Setting up and taking down calls is
/// not counted. The load takes about as much CPU time as the relay and is not counted either.
#[derive(Debug, Parser, Serialize)]
#[command(name = "rtpproxy bench", bin_name = "rtpproxy bench", max_term_width = 110)]
pub(crate) struct Bench {
    /// Calls at the same time, each with 50 packets a second in both directions.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=7000))]
    calls: u32,
    /// Length of a round.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Pairs of rounds, one plain and one recorded each.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Media threads of the relay; as many as it takes by itself unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: Option<u32>,
    /// Folder on the disk that recordings are to be written to. What is written is removed again.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Print the figures of every round as JSON.
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

impl Bench {
    /// Runs it and gives back the exit status: 0 if the figures mean something, as packets went through.
    pub(crate) fn run(&self) -> i32 {
        match self.measure() {
            Ok(report) => {
                say(&if self.json { report.json() } else { report.text() });
                0
            }
            Err(error) => {
                complain(&format!("bench: {error}"));
                1
            }
        }
    }

    fn measure(&self) -> Result<Report<'_>, String> {
        let bar = self.progress_bar();
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            for kind in [Kind::Plain, Kind::Recorded] {
                rounds.push(self.round(kind, &bar)?);
            }
        }
        bar.finish_and_clear();
        let is_in_memory = usage::is_in_memory(&self.dir);
        Ok(Report { bench: self, is_in_memory, rounds })
    }

    /// One round: its relay lives in here.
    fn round(&self, kind: Kind, bar: &ProgressBar) -> Result<Round, String> {
        let folder = Folder::new(&self.dir)?;
        let mut relay = ChildRelay::start(&folder.0, kind == Kind::Recorded, self.workers)?;
        let idle = Memory::of(relay.pid())?;
        let streams = self.set_up(kind, &mut relay)?;
        let load = Load::start(streams)?;
        wait(WARM_UP, bar);
        let (before, sent_before) = (Cpu::of(relay.pid())?, load.sent());
        let since = Instant::now();
        wait(Duration::from_secs(self.seconds), bar);
        let (after, sent_after) = (Cpu::of(relay.pid())?, load.sent());
        let elapsed = since.elapsed();
        let memory = Memory::of(relay.pid())?;
        let heard = load.stop()?;
        let relayed = relay.counter("npkts_relayed")?;
        let talk_end = Cpu::of(relay.pid())?;
        self.take_down(&mut relay)?;
        let recorded = match kind {
            Kind::Plain => None,
            Kind::Recorded => Some(relay.await_recordings(self.calls)?),
        };
        let finishing = Cpu::of(relay.pid())?.since(&talk_end);
        relay.stop()?;
        Ok(Round {
            kind,
            elapsed,
            packets: sent_after - sent_before,
            talking: after.since(&before),
            finishing,
            memory: memory.since(&idle),
            sent: heard.sent,
            heard: heard.heard,
            relayed,
            recorded,
            latest: heard.latest,
        })
    }

    /// Sets the calls up as a SIP server does; returns what their phones send.
    fn set_up(&self, kind: Kind, relay: &mut ChildRelay) -> Result<Vec<Stream>, String> {
        let mut streams = Vec::with_capacity(2 * self.calls as usize);
        for call in 0..self.calls {
            let (mut caller, mut callee) = (Stream::open()?, Stream::open()?);
            let for_callee = relay.media_port(&format!("Uc0 bench-{call} 127.0.0.1 {} a", caller.port()?))?;
            let for_caller =
                relay.media_port(&format!("Lc0 bench-{call} 127.0.0.1 {} a b", callee.port()?))?;
            caller.connect(for_caller)?;
            callee.connect(for_callee)?;
            streams.extend([caller, callee]);
            if kind == Kind::Recorded {
                relay.command(&format!("R bench-{call} a b"))?;
            }
        }
        Ok(streams)
    }

    fn take_down(&self, relay: &mut ChildRelay) -> Result<(), String> {
        (0..self.calls).try_for_each(|call| relay.command(&format!("D bench-{call} a b")).map(drop))
    }

    /// Over the seconds in which calls are held, on a terminal.
    fn progress_bar(&self) -> ProgressBar {
        let style = ProgressStyle::with_template("Measuring {wide_bar} about {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let round = WARM_UP + Duration::from_secs(self.seconds);
        ProgressBar::new(u64::from(self.rounds) * 2 * steps(round)).with_style(style)
    }
}

/// A folder of a round, removed with everything in it.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    /// A new folder in `dir`.
    fn new(dir: &Path) -> Result<Self, String> {
        let number = getrandom::u32().map_err(|error| error.to_string())?;
        // The relay works in another folder.
        let dir = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
        let path = dir.join(format!("rtpproxy-bench-{number:08x}"));
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            complain(&format!("bench: {} cannot be removed: {error}", self.0.display()));
        }
    }
}

fn wait(span: Duration, bar: &ProgressBar) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        thread::sleep(PROGRESS_STEP.min(end.saturating_duration_since(Instant::now())));
        bar.inc(1);
    }
}

fn steps(span: Duration) -> u64 {
    u64::try_from(span.as_millis().div_ceil(PROGRESS_STEP.as_millis())).unwrap_or(u64::MAX)
}

/// How long calls last before it counts: files are created, sources found, buffers filled.
const WARM_UP: Duration = Duration::from_secs(2);
const PROGRESS_STEP: Duration = Duration::from_millis(100);
