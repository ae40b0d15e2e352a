//! Transcripts: commands and packets in, replies and decisions out, as files in `tests/data/transcripts`.
//!
//! A line of a transcript is one of
//! ```text
//! # a comment
//! % latch legacy            a setting: latch, scope, single_file, ports MIN MAX, notify TARGET, plain, ttl SECONDS,
//!                           module NAME
//! > U c 127.0.0.1 30000 f   a command; the lines below it are the reply
//! + 61                      seconds pass
//! ~ 127.0.0.1:30000 22002 RTP 7 1 -> 22000 127.0.0.1:30100      an RTP packet (SSRC, sequence number) and what
//! ~ 127.0.0.1:30000 22002 text hello -> nothing                 becomes of it; or any text as a datagram;
//! ~ 127.0.0.1:30000 22002 event 8000 5 160 -> nothing           or a telephone event: its timestamp, number and
//! ~ 127.0.0.1:30000 22002 event 8000 5 320 end pt 96 -> nothing duration; with the end bit; of a payload type
//! ! notify unix:/run/n r 1  what the last step reported
//! ```
//! The commands of a transcript without `+`, `~` and `!` are also sent to the real binary (tests/test_transcripts.py).

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rtpproxy_core::command::NotifyTarget;
use rtpproxy_core::config::{EngineConfig, FrontConfig, LatchMode, ModuleKind, NotifySpec, RecordScope};
use rtpproxy_core::effects::Effect;
use support::{Lab, bridge, event, rtp};

#[test]
fn every_transcript_is_followed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/transcripts");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 6, "the transcripts are there");
    for file in files {
        let text = fs::read_to_string(&file).expect("a transcript");
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let steps = Transcript::new(&name, &text).run();
        assert!(steps > 0, "{name} has no steps");
    }
}

struct Transcript<'a> {
    name: &'a str,
    lines: Vec<(usize, &'a str)>,
}

impl<'a> Transcript<'a> {
    fn new(name: &'a str, text: &'a str) -> Self {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
        Self { name, lines: lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect() }
    }

    /// Follows the transcript; how many steps it had.
    fn run(&self) -> usize {
        let settings = self.lines.iter().take_while(|(_, line)| line.starts_with('%')).count();
        let mut lab = lab(self.lines[..settings].iter().map(|(_, line)| line[1..].trim()));
        let mut rest = &self.lines[settings..];
        let mut steps = 0;
        while let Some(((at, line), tail)) = rest.split_first() {
            steps += 1;
            let (kind, step) = line.split_at_checked(2).unwrap_or((line, ""));
            let place = format!("{}:{at}: {line}", self.name);
            rest = tail;
            match kind {
                "> " | ">" => {
                    let reply = tail.iter().take_while(|(_, line)| !is_step(line)).count();
                    let expected: Vec<&str> = tail[..reply].iter().map(|(_, line)| *line).collect();
                    assert_eq!(lab.ask(step), expected.join("\n"), "{place}");
                    rest = &tail[reply..];
                }
                "+ " => lab.pass(Duration::from_secs_f64(step.trim().parse().expect("seconds"))),
                "~ " => {
                    let (packet, expected) = step.split_once(" -> ").expect("`->` and what becomes of it");
                    assert_eq!(send(&mut lab, packet), expected, "{place}");
                }
                "! " => assert_eq!(reported(&lab), step, "{place}"),
                _ => panic!("{place}: what is this?"),
            }
        }
        steps
    }
}

fn is_step(line: &str) -> bool {
    ["> ", "+ ", "~ ", "! "].iter().any(|kind| line.starts_with(kind)) || line == ">"
}

fn lab<'a>(settings: impl Iterator<Item = &'a str>) -> Lab {
    let mut engine = EngineConfig::default();
    let mut front = bridge();
    let mut ports = (22000, 22398);
    for setting in settings {
        let words: Vec<&str> = setting.split_whitespace().collect();
        match words[..] {
            ["latch", "legacy"] => engine.latch = LatchMode::Legacy,
            ["latch", "strict"] => engine.latch = LatchMode::Strict,
            ["scope", "stream"] => engine.record_scope = RecordScope::Stream,
            ["single_file"] => engine.single_file = true,
            ["plain"] => front = FrontConfig { external: None, ..front },
            ["ttl", seconds] => engine.max_ttl_s = seconds.parse().expect("seconds"),
            ["ports", min, max] => ports = (min.parse().expect("a port"), max.parse().expect("a port")),
            ["notify", name] => {
                let path = name.strip_prefix("unix:").expect("a UNIX target");
                let target = NotifyTarget::Unix(path.as_bytes().into());
                front.notify.push(NotifySpec::Fixed { name: name.as_bytes().into(), target });
            }
            ["module", "catch_dtmf"] => front.modules.push(ModuleKind::CatchDtmf),
            ["module", "acct_csv"] => front.modules.push(ModuleKind::AcctCsv),
            _ => panic!("unknown setting: {setting}"),
        }
    }
    Lab::with(engine, front, ports.0, ports.1)
}

fn send(lab: &mut Lab, packet: &str) -> String {
    let mut words = packet.split_whitespace();
    let (from, port) = (words.next().expect("a source"), words.next().expect("a port"));
    let port = port.parse().expect("a port");
    let mut number = || words.next().expect("a word");
    let payload = match number() {
        "RTP" => rtp(0, number().parse().expect("an SSRC"), number().parse().expect("a sequence number")),
        "text" => number().as_bytes().to_vec(),
        "event" => telephone_event(&words.by_ref().collect::<Vec<_>>()),
        other => panic!("unknown payload: {other}"),
    };
    let sent = lab.datagram(from, port, &payload);
    if sent.is_empty() {
        return "nothing".to_owned();
    }
    sent.iter().map(|(port, to)| format!("{port} {to}")).collect::<Vec<_>>().join(", ")
}

fn telephone_event(words: &[&str]) -> Vec<u8> {
    let (facts, more) = words.split_first_chunk().expect("timestamp, number and duration");
    let [timestamp, number, duration] = facts.map(|word| word.parse::<u32>().expect("a number"));
    let payload_type = more.strip_prefix(&["end"]).unwrap_or(more);
    let payload_type = match payload_type {
        [] => 101,
        ["pt", number] => number.parse().expect("a payload type"),
        _ => panic!("unknown words: {more:?}"),
    };
    event(payload_type, timestamp, number as u8, more.first() == Some(&"end"), duration as u16)
}

fn reported(lab: &Lab) -> String {
    let notices = lab.out.effects.iter().filter_map(|effect| match effect {
        Effect::Notify { target: NotifyTarget::Unix(path), text } => {
            let path = String::from_utf8_lossy(path);
            Some(format!("notify unix:{path} {}", String::from_utf8_lossy(text).trim_end()))
        }
        _ => None,
    });
    notices.collect::<Vec<_>>().join(", ")
}
