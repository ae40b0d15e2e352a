//! `rtpproxy demo`: a call through the relay and into a file, all on the loopback interface.

mod clip;
mod phone;
mod recording;
mod report;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use chrono::Local;
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use rtpproxy_core::addr::LocalAddr;
use rtpproxy_core::config::{EngineConfig, FrontConfig, LatchMode, ListenAddr};
use rtpproxy_core::front::Origin;
use rtpproxy_core::recording::Leg;
use rtpproxy_relay::config::{Config, RecordConfig};
use rtpproxy_relay::{Relay, RelayHandle};

use crate::logging::{self, Level, Targets};
use crate::say;
use phone::{Heard, Phone};
use recording::Recording;
use report::LegReport;

/// Holds a call of two built-in phones through a relay on 127.0.0.1, records it, and shows what happened.
#[derive(Debug, Parser)]
#[command(name = "rtpproxy demo", bin_name = "rtpproxy demo", max_term_width = 110)]
pub(crate) struct Demo {
    /// Length of the call.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Folder for the recording; made if it is missing.
    #[arg(long, default_value = "calls")]
    dir: PathBuf,
    /// Who may speak for a party.
    #[arg(long, value_enum, default_value_t = Latch::Nat)]
    latch: Latch,
}

/// Latching modes by their names.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Latch {
    /// Only the signalled address.
    Strict,
    /// The signalled address first, then a stranger that behaves like a phone.
    Nat,
    /// The rules of the C program.
    Legacy,
}

impl Demo {
    /// Runs it and gives back the exit status: 0 if every packet arrived and is in the recording.
    pub(crate) fn run(&self) -> i32 {
        match self.hold_call() {
            Ok(()) => 0,
            Err(error) => {
                crate::complain(&format!("demo: {error}"));
                1
            }
        }
    }

    fn hold_call(&self) -> Result<(), String> {
        std::fs::create_dir_all(&self.dir).map_err(|error| format!("{}: {error}", self.dir.display()))?;
        let targets = Targets { stderr: true, syslog: None };
        let _log = logging::start(Level::Warn, None, targets)?;
        let relay = Relay::start(self.config(), Vec::new()).map_err(|error| error.to_string())?;
        let call_id = format!("demo-{}", Local::now().format("%Y%m%d-%H%M%S-%3f"));
        let outcome = self.talk(&relay.handle(), &call_id);
        // The recording is complete only when the relay has ended.
        relay.shutdown();
        let call = outcome?;
        let recording = Recording::read(&self.dir, &call_id)?;
        let legs = call.legs(&recording);
        say(&format!("\n{}\n{}\n", report::legs(&legs), report::counters(&call.counters)));
        describe(&recording.path);
        let faults = report::faults(&legs);
        if faults.is_empty() {
            say("Every packet arrived, and the recording holds them all.\n");
            Ok(())
        } else {
            Err(faults.join("; "))
        }
    }

    fn config(&self) -> Config {
        let localhost = LocalAddr::plain(std::net::Ipv4Addr::LOCALHOST.into());
        let latch = match self.latch {
            Latch::Strict => LatchMode::Strict,
            Latch::Nat => LatchMode::Nat,
            Latch::Legacy => LatchMode::Legacy,
        };
        Config {
            engine: EngineConfig { latch, ..EngineConfig::default() },
            front: FrontConfig {
                listen: vec![ListenAddr { label: None, addr: localhost }],
                ..FrontConfig::default()
            },
            workers: Some(1),
            record: RecordConfig { folder: Some(self.dir.clone()), ..RecordConfig::default() },
            ..Config::default()
        }
    }

    /// Sets the call up, lets the phones talk, and ends it.
    fn talk(&self, relay: &RelayHandle, call_id: &str) -> Result<Call, String> {
        let open = |leg| Phone::open(leg).map_err(|error| format!("no ports for a phone: {error}"));
        let phones = [open(Leg::Caller)?, open(Leg::Callee)?];
        let ports = [port_of(&phones[0])?, port_of(&phones[1])?];
        say("Set-up, as a SIP proxy does it over a control socket:\n");
        // The reply to the one party's address is what the other party sends to.
        let for_callee = media_port(relay, &format!("Uc0 {call_id} 127.0.0.1 {} alice", ports[0]))?;
        let for_caller = media_port(relay, &format!("Lc0 {call_id} 127.0.0.1 {} alice bob", ports[1]))?;
        command(relay, &format!("R {call_id} alice bob"))?;
        let heard = self.ring(phones, [for_caller, for_callee])?;
        say("End:\n");
        let names = "npkts_ina npkts_ino nrelayed ndropped rtpa_nsent rtpa_nrcvd rtpa_nlost rtpa_jmax";
        let counters = command(relay, &format!("Qv {call_id} alice bob {names}"))?;
        command(relay, &format!("D {call_id} alice bob"))?;
        Ok(Call { ports, heard, counters })
    }

    fn ring(&self, phones: [Phone; 2], relay_ports: [u16; 2]) -> Result<[Heard; 2], String> {
        let frames = self.seconds * FRAMES_A_SECOND;
        let progress = AtomicU64::new(0);
        let [caller, callee] = phones;
        let heard = thread::scope(|scope| {
            let callee = scope.spawn(|| callee.call(relay_ports[1], frames, &AtomicU64::new(0)));
            let caller = scope.spawn(|| caller.call(relay_ports[0], frames, &progress));
            show_progress(frames, &progress, || caller.is_finished());
            [caller.join(), callee.join()]
        });
        let [caller, callee] = heard.map(|heard| {
            let heard = heard.map_err(|_| io::Error::other("its thread failed"));
            heard.flatten().map_err(|error| format!("a phone: {error}"))
        });
        Ok([caller?, callee?])
    }
}

/// What is known of the call when it is over.
struct Call {
    ports: [u16; 2],
    heard: [Heard; 2],
    counters: String,
}

impl Call {
    fn legs(&self, recording: &Recording) -> [LegReport; 2] {
        [(Leg::Caller, 0, 1), (Leg::Callee, 1, 0)].map(|(leg, this, other): (Leg, usize, usize)| LegReport {
            name: leg.name(),
            port: self.ports[this],
            heard: self.heard[this].clone(),
            expected: self.heard[other].rtp_sent,
            latched: recording.latched(leg.name()),
            recorded_rtp: recording.packets_from(self.ports[this]),
            recorded_rtcp: recording.packets_from(self.ports[this] + 1),
        })
    }
}

fn port_of(phone: &Phone) -> Result<u16, String> {
    phone.port().map_err(|error| format!("a phone: {error}"))
}

/// Gives a command that opens a port; returns the port.
fn media_port(relay: &RelayHandle, text: &str) -> Result<u16, String> {
    let reply = command(relay, text)?;
    let port = reply.split_whitespace().next().and_then(|port| port.parse().ok()).filter(|port| *port > 0);
    port.ok_or_else(|| format!("\"{text}\" was answered with \"{reply}\""))
}

/// Gives a command, shows it with its reply, and refuses an error.
fn command(relay: &RelayHandle, text: &str) -> Result<String, String> {
    let reply = relay.execute(text.as_bytes(), Origin::default());
    let reply = String::from_utf8_lossy(&reply).trim_end().to_owned();
    say(&format!("  {text}\n    {reply}\n"));
    if reply.is_empty() || reply.starts_with('E') {
        return Err(format!("\"{text}\" was refused: {reply}"));
    }
    Ok(reply)
}

/// Shows how far the call is, on a terminal only.
fn show_progress(frames: u64, progress: &AtomicU64, is_over: impl Fn() -> bool) {
    let style = ProgressStyle::with_template("Talking {wide_bar} {elapsed_precise}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(frames).with_style(style);
    while !is_over() {
        bar.set_position(progress.load(Ordering::Relaxed));
        thread::sleep(PROGRESS_STEP);
    }
    bar.finish_and_clear();
}

fn describe(path: &Path) {
    let path = path.display();
    say(&format!(
        "Recording: {path}\n\
         \x20 See and hear it:  wireshark '{path}'   (Telephony > VoIP Calls > Play Streams)\n\
         \x20 On a terminal:    tshark -r '{path}' -q -z rtp,streams\n\n"
    ));
}

const FRAMES_A_SECOND: u64 = 50;
const PROGRESS_STEP: Duration = Duration::from_millis(50);
