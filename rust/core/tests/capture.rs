//! What capture servers are told: RTCP that passes the witness step.

mod support;

use std::time::Duration;

use rtpproxy_core::config::{EngineConfig, LatchMode};
use rtpproxy_core::effects::{CapturedRtcp, Effect, Payload};
use support::Lab;

const REPORT: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 9];

fn call(config: EngineConfig) -> Lab {
    let mut lab = Lab::with_engine(config);
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    lab
}

fn capturing() -> EngineConfig {
    EngineConfig { capture_rtcp: true, ..EngineConfig::default() }
}

fn captured(lab: &Lab) -> Vec<&CapturedRtcp> {
    let captured = lab.out.effects.iter().filter_map(|effect| match effect {
        Effect::Rtcp(captured) => Some(captured),
        _ => None,
    });
    captured.collect()
}

#[test]
fn rtcp_is_told_with_its_addresses_and_time() {
    let mut lab = call(capturing());
    lab.pass(Duration::from_millis(1500));
    lab.datagram("127.0.0.1:30001", 22003, &REPORT);
    let expected = CapturedRtcp {
        call_id: "c".into(),
        at: lab.now.wall,
        src: "127.0.0.1:30001".parse().unwrap(),
        dst: "127.0.0.1:22003".parse().unwrap(),
        payload: Payload::Received,
    };
    assert_eq!(captured(&lab), [&expected]);
    assert_eq!(lab.sent().len(), 1);
}

#[test]
fn without_a_module_nothing_is_told() {
    let mut lab = call(EngineConfig::default());
    lab.datagram("127.0.0.1:30001", 22003, &REPORT);
    assert!(captured(&lab).is_empty());
}

#[test]
fn only_the_rtcp_port_is_looked_at() {
    let mut lab = call(capturing());
    lab.datagram("127.0.0.1:30000", 22002, &REPORT);
    assert!(captured(&lab).is_empty());
    lab.datagram("127.0.0.1:30001", 22003, b"no RTCP: the module judges");
    assert_eq!(captured(&lab).len(), 1);
}

#[test]
fn refused_packets_are_not_told() {
    let mut lab = call(EngineConfig { latch: LatchMode::Strict, ..capturing() });
    assert_eq!(lab.datagram("127.0.0.9:30001", 22003, &REPORT), []);
    assert!(captured(&lab).is_empty());
}

#[test]
fn what_cannot_be_relayed_is_told() {
    let mut lab = Lab::with_engine(capturing());
    lab.ask("U c 127.0.0.1 30000 f");
    lab.ask("L c 0 0 f t");
    assert_eq!(lab.datagram("127.0.0.1:30001", 22003, &REPORT), []);
    assert_eq!(captured(&lab).len(), 1);
}

#[test]
fn a_fork_is_told_as_a_call_of_its_own() {
    let mut lab = call(capturing());
    lab.ask("U r 127.0.0.5 5000 rf rt && L 127.0.0.5 5002 && C c f t");
    lab.datagram("127.0.0.1:30001", 22003, &REPORT);
    let calls: Vec<&[u8]> = captured(&lab).iter().map(|captured| captured.call_id.as_bytes()).collect();
    assert_eq!(calls, [b"c", b"r"]);
    // What the parties of a fork say goes nowhere.
    lab.datagram("127.0.0.5:5001", 22007, &REPORT);
    assert!(captured(&lab).is_empty());
}
