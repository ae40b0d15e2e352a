//! What a session leaves behind for accounting.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::time::Duration;

use rtpproxy_core::accounting::{LegEnd, PipeEnd, SessionEnd};
use rtpproxy_core::command::CallId;
use rtpproxy_core::config::EngineConfig;
use rtpproxy_core::effects::Effect;
use rtpproxy_core::time::Wall;

use support::{Lab, rtp};

fn accounting() -> EngineConfig {
    EngineConfig { accounting: true, ..EngineConfig::default() }
}

/// The sessions that ended in the last step.
fn ends(lab: &Lab) -> Vec<SessionEnd> {
    let effects = lab.out.effects.iter();
    effects.filter_map(|it| if let Effect::Ended(end) = it { Some((**end).clone()) } else { None }).collect()
}

/// A call with a caller at port 30000, who sends to 22002, and a callee at 30100, who sends to 22000.
fn call(lab: &mut Lab) {
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f;1"), "22000 127.0.0.1");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f;1 t;1"), "22002 127.0.0.1");
}

#[test]
fn nothing_is_told_without_accounting() {
    let mut lab = Lab::new();
    call(&mut lab);
    lab.ask("D c f t");
    assert_eq!(lab.ask("I").lines().next(), Some("sessions created: 1"));
    assert!(ends(&lab).is_empty());
}

#[test]
fn a_call_tells_of_both_parties() {
    let mut lab = Lab::with_engine(accounting());
    let setup = lab.now.wall;
    call(&mut lab);
    lab.pass(Duration::from_millis(500));
    for sequence in [10, 11, 13, 13] {
        lab.datagram("127.0.0.1:30000", 22002, &rtp(8, 0xaabb, sequence));
        lab.pass(Duration::from_millis(20));
    }
    lab.rtp("127.0.0.1:30100", 22000, 7, 500);
    lab.datagram("127.0.0.1:30100", 22000, b"no RTP");
    lab.datagram("127.0.0.1:30001", 22003, b"RTCP");
    lab.pass(Duration::from_secs(2));
    lab.ask("D c f;1 t;1");
    let [end] = &ends(&lab)[..] else { panic!("one session has ended") };

    assert_eq!((end.call_id.as_bytes(), end.from_tag.as_bytes()), (&b"c"[..], &b"f;1"[..]));
    assert!(end.uid < 1 << 63);
    let after = |ms: u64| Wall(setup.0 + ms * 1_000_000);
    assert_eq!((end.setup, end.teardown), (after(0), after(2580)));
    assert_eq!(end.rtp, PipeEnd { relayed: 6, dropped: 0 });
    assert_eq!(end.rtcp, PipeEnd { relayed: 1, dropped: 0 });

    let caller = &end.caller;
    assert_eq!((caller.rtp_packets, caller.rtcp_packets), (4, 1));
    assert_eq!((caller.first_rtp, caller.last_rtp), (Some(after(500)), Some(after(560))));
    assert_eq!(
        (caller.report.nsent, caller.report.nrcvd, caller.report.ndups, caller.report.nlost),
        (4, 3, 1, 1)
    );
    assert_eq!(
        (caller.report.ssrc_last, caller.report.ssrc_changes, caller.report.pt_last),
        (Some(0xaabb), 1, Some(8))
    );
    assert!(caller.jitter.max > 0.0);
    assert_eq!(caller.rtp_remote, Some("127.0.0.1:30000".parse().unwrap()));
    assert_eq!(caller.rtcp_remote, Some("127.0.0.1:30001".parse().unwrap()));

    let callee = &end.callee;
    assert_eq!((callee.rtp_packets, callee.rtcp_packets, callee.report.perrs), (2, 0, 1));
    assert_eq!((callee.first_rtp, callee.last_rtp), (Some(after(580)), Some(after(580))));
    assert_eq!(callee.rtp_remote, Some("127.0.0.1:30100".parse().unwrap()));
}

#[test]
fn holds_are_counted_for_each_party() {
    let mut lab = Lab::with_engine(accounting());
    call(&mut lab);
    for command in [
        "U c 0.0.0.0 30000 f;1",
        "U c 127.0.0.1 30000 f;1",
        "U c 0.0.0.0 30000 f;1",
        "L c 0.0.0.0 30100 f;1 t;1",
        "L c 127.0.0.1 30100 f;1 t;1",
        "D c f;1",
    ] {
        assert!(!lab.ask(command).starts_with('E'), "{command}");
    }
    let [end] = &ends(&lab)[..] else { panic!("one session has ended") };
    assert_eq!((end.caller.on_hold, end.caller.holds), (true, 2));
    assert_eq!((end.callee.on_hold, end.callee.holds), (false, 1));
}

#[test]
fn dropped_packets_and_what_never_came_are_told() {
    let mut lab = Lab::with_engine(accounting());
    // Nobody knows where the callee is, and no time passes until the address of the caller settles.
    lab.ask("U c 127.0.0.1 30000 f");
    lab.ask("L c 0 0 f t");
    lab.rtp("127.0.0.1:30000", 22002, 1, 1);
    lab.pass(Duration::from_secs(61));
    let [end] = &ends(&lab)[..] else { panic!("the session has timed out") };
    assert_eq!(end.rtp, PipeEnd { relayed: 0, dropped: 1 });
    assert_eq!(end.callee, LegEnd::default());
}

#[test]
fn every_session_has_its_number_and_its_end() {
    let mut lab = Lab::with_engine(accounting());
    for call in 0..20 {
        lab.ask(&format!("U c{call} 127.0.0.1 30000 f"));
    }
    lab.ask("X");
    let mut numbers: Vec<u64> = ends(&lab).iter().map(|end| end.uid).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 20);
}

#[test]
fn a_call_that_moves_keeps_its_figures() {
    let run = |moves: bool| {
        let mut lab = Lab::with_engine(accounting());
        call(&mut lab);
        lab.ask("U c 0.0.0.0 30000 f;1");
        lab.rtp("127.0.0.1:30000", 22002, 1, 1);
        lab.pass(Duration::from_secs(1));
        if moves {
            let state = lab.engine.export(&CallId::from("c")).unwrap();
            lab.engine.import(state, |pair| pair.id);
        }
        lab.rtp("127.0.0.1:30000", 22002, 1, 2);
        lab.ask("D c f;1");
        ends(&lab)
    };
    assert_eq!(run(true), run(false));
    assert_eq!(run(true)[0].caller.rtp_packets, 2);
}
