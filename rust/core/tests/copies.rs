//! `C`: what one party sends, copied to a file of a given name or to another host.

mod support;

use rtpproxy_core::config::{EngineConfig, RecordScope};
use rtpproxy_core::effects::Effect;
use rtpproxy_core::host::FolderState;
use rtpproxy_core::recording::{Coverage, EndReason, Leg, RecordingEvent};
use support::Lab;

const CALLER: &str = "127.0.0.1:30000";
const CALLEE: &str = "127.0.0.1:30100";
const RTCP_OF_CALLER: &str = "127.0.0.1:30001";

/// Call `c` from `f` to `t`: the caller sends to 22002, the callee to 22000.
fn call(config: EngineConfig) -> Lab {
    let mut lab = Lab::with_engine(config);
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    lab
}

fn stream(single_file: bool) -> EngineConfig {
    EngineConfig { record_scope: RecordScope::Stream, single_file, ..EngineConfig::default() }
}

fn started(lab: &Lab) -> Option<&Coverage> {
    lab.out.effects.iter().find_map(|effect| match effect {
        Effect::Recording(RecordingEvent::Start(start)) => Some(&start.coverage),
        _ => None,
    })
}

fn ended(lab: &Lab) -> Vec<EndReason> {
    let effects = lab.out.effects.iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Recording(RecordingEvent::End { reason, .. }) => Some(*reason),
            _ => None,
        })
        .collect()
}

fn recorded(lab: &Lab) -> usize {
    lab.out.effects.iter().filter(|effect| matches!(effect, Effect::Record(_))).count()
}

fn named(leg: Leg, name: &str) -> Coverage {
    Coverage::Named { leg, name: name.as_bytes().into() }
}

#[test]
fn a_file_of_that_name_holds_what_the_first_tag_sends() {
    for (tags, leg, own, other) in [
        ("f t", Leg::Caller, (CALLER, 22002), (CALLEE, 22000)),
        ("t f", Leg::Callee, (CALLEE, 22000), (CALLER, 22002)),
    ] {
        let mut lab = call(EngineConfig::default());
        assert_eq!(lab.ask(&format!("C c take-1 {tags}")), "0");
        assert_eq!(started(&lab), Some(&named(leg, "take-1")));
        lab.rtp(own.0, own.1, 1, 1);
        assert_eq!(recorded(&lab), 1);
        lab.rtp(other.0, other.1, 2, 1);
        assert_eq!(recorded(&lab), 0);
        assert_eq!(lab.ask(&format!("C c take-2 {tags}")), "0", "copied already: the name is not looked at");
        assert_eq!(started(&lab), None);
        assert_eq!(lab.ask("D c f t"), "0");
        assert_eq!(ended(&lab), [EndReason::Deleted]);
    }
}

#[test]
fn r_and_c_run_side_by_side() {
    let mut lab = call(EngineConfig::default());
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(lab.ask("C c name f t"), "0");
    lab.rtp(CALLER, 22002, 1, 1);
    assert_eq!(recorded(&lab), 2);
    lab.rtp(CALLEE, 22000, 2, 1);
    assert_eq!(recorded(&lab), 1);
    assert_eq!(lab.ask("N c t f"), "0", "pauses the call");
    assert_eq!(ended(&lab), []);
    lab.rtp(CALLER, 22002, 1, 2);
    assert_eq!(recorded(&lab), 1);
    assert_eq!(lab.ask("N c f t"), "0");
    assert_eq!(ended(&lab), [EndReason::Stopped]);
    assert_eq!(lab.ask("Na c f t"), "E50");
}

/// The hosts that got the last packet.
fn sent_copies(lab: &Lab) -> Vec<String> {
    let effects = lab.out.effects.iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Copy { to, .. } => Some(to.to_string()),
            _ => None,
        })
        .collect()
}

fn closed(lab: &Lab) -> usize {
    lab.out.effects.iter().filter(|effect| matches!(effect, Effect::Close(_))).count()
}

#[test]
fn several_hosts_get_what_a_party_sends() {
    let mut lab = call(EngineConfig::default());
    assert_eq!(lab.ask("Cp c udp:127.0.0.9:9000 f t"), "22004 127.0.0.1");
    assert_eq!(lab.ask("Cp c udp:127.0.0.8:9000 f t"), "22006 127.0.0.1");
    assert_eq!(lab.ask("C c udp:127.0.0.9:9000 f t"), "0", "it gets them already");
    assert_eq!(closed(&lab), 1);
    assert_eq!(lab.ask("C c udp:127.0.0.9:9000 t f"), "0", "the other party is another matter");
    assert_eq!(closed(&lab), 0);
    lab.rtp(CALLER, 22002, 1, 1);
    assert_eq!(sent_copies(&lab), ["127.0.0.9:9000", "127.0.0.8:9000"]);
    lab.rtp(RTCP_OF_CALLER, 22003, 1, 1);
    assert_eq!(sent_copies(&lab), ["127.0.0.9:9001", "127.0.0.8:9001"]);
    lab.rtp(CALLEE, 22000, 2, 1);
    assert_eq!(sent_copies(&lab), ["127.0.0.9:9000"]);

    assert_eq!(lab.ask("?uncopy c udp:127.0.0.9:9000 f t"), "0");
    assert_eq!(closed(&lab), 1);
    assert_eq!(lab.ask("?uncopy c udp:127.0.0.9:9000 f t"), "E50");
    assert_eq!(lab.ask("?UNCOPY c udp:127.0.0.9 f t"), "E65");
    assert_eq!(lab.ask("?uncopy c name f t"), "E65");
    assert_eq!(lab.ask("?uncopy d udp:127.0.0.9:9000 f t"), "E50");
    assert_eq!(lab.ask("?uncopy c udp:127.0.0.9:9000"), "E1");
    lab.rtp(CALLER, 22002, 1, 2);
    assert_eq!(sent_copies(&lab), ["127.0.0.8:9000"]);
    assert_eq!(lab.ask("C c udp:127.0.0.7:9000 f t"), "0");
    assert_eq!(lab.ask("N c f t"), "0", "ends all of that party");
    assert_eq!(closed(&lab), 2);
    assert_eq!(lab.ask("D c f t"), "0");
    assert_eq!(closed(&lab), 3);
}

#[test]
fn eight_hosts_and_no_more() {
    let mut lab = call(EngineConfig::default());
    for number in 0..8 {
        assert_eq!(lab.ask(&format!("C c udp:127.0.0.9:{} f t", 9000 + 2 * number)), "0");
    }
    assert_eq!(lab.ask("C c udp:127.0.0.9:9100 f t"), "E65");
    assert_eq!(closed(&lab), 1);
    assert_eq!(lab.ask("C c udp:127.0.0.9:9002 f t"), "0");
    assert_eq!(lab.ask("?uncopy c udp:127.0.0.9:9004 f t"), "0");
    assert_eq!(lab.ask("C c udp:127.0.0.9:9100 f t"), "0");
    lab.rtp(CALLER, 22002, 1, 1);
    assert_eq!(sent_copies(&lab).len(), 8);
}

#[test]
fn a_file_and_hosts_do_not_exclude_each_other() {
    for (config, command) in [(EngineConfig::default(), "C c name f t"), (stream(false), "R c f t")] {
        let mut lab = call(config);
        assert_eq!(lab.ask("C c udp:127.0.0.9:9000 f t"), "0");
        assert_eq!(lab.ask(command), "0");
        assert!(started(&lab).is_some());
        assert_eq!(lab.ask("C c udp:127.0.0.8:9000 f t"), "0");
        lab.rtp(CALLER, 22002, 1, 1);
        assert_eq!((sent_copies(&lab).len(), recorded(&lab)), (2, 1));
        assert_eq!(lab.ask("N c f t"), "0");
        assert_eq!((ended(&lab), closed(&lab)), (vec![EndReason::Stopped], 2));
    }
}

#[test]
fn without_a_folder_a_party_that_is_copied_counts_as_recorded() {
    let mut lab = call(stream(false));
    lab.host.folder = FolderState::Unusable;
    assert_eq!(lab.ask("C c udp:127.0.0.9:9000 f t"), "0");
    assert_eq!(lab.ask("C c name f t"), "0");
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(lab.ask("C c name t f"), "E65");
}

#[test]
fn as_in_the_c_program_a_party_has_one_copy() {
    let mut lab = call(EngineConfig { one_copy: true, ..stream(false) });
    assert_eq!(lab.ask("C c udp:127.0.0.9:9000 f t"), "0");
    assert_eq!(lab.ask("Cp c udp:127.0.0.8:9000 f t"), "22006 127.0.0.1", "of a pair that is closed again");
    assert_eq!(closed(&lab), 1);
    assert_eq!(lab.ask("C c name f t"), "0");
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(started(&lab), None);
    lab.rtp(CALLER, 22002, 1, 1);
    assert_eq!(sent_copies(&lab), ["127.0.0.9:9000"]);
    assert_eq!(lab.ask("R c t f"), "0");
    assert_eq!(lab.ask("C c udp:127.0.0.8:9000 t f"), "0");
    assert_eq!(closed(&lab), 1);
    lab.rtp(CALLEE, 22000, 2, 1);
    assert_eq!((sent_copies(&lab), recorded(&lab)), (vec![], 1));
}

#[test]
fn in_scope_stream_a_side_has_one_recorder() {
    let mut lab = call(stream(false));
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(lab.ask("C c name f t"), "0");
    assert_eq!(started(&lab), None);
    assert_eq!(lab.ask("Cs c name t f"), "0", "without single files s changes nothing");
    assert_eq!(started(&lab), Some(&named(Leg::Callee, "name")));
    assert_eq!(lab.ask("Na c f t"), "0");
    assert_eq!(ended(&lab).len(), 2);
}

#[test]
fn a_single_file_is_joined_by_the_second_side() {
    let mut lab = call(stream(true));
    assert_eq!(lab.ask("Cs c both f t"), "0");
    assert_eq!(started(&lab), Some(&Coverage::NamedSingleFile { name: b"both".as_slice().into() }));
    assert_eq!(lab.ask("Cs c other f t"), "E65", "recorded already");
    assert_eq!(lab.ask("Cs c other t f"), "0");
    assert_eq!(started(&lab), None, "it joins");
    for (from, port) in [(CALLER, 22002), (CALLEE, 22000), (RTCP_OF_CALLER, 22003)] {
        lab.rtp(from, port, 1, 1);
        assert_eq!(recorded(&lab), 1);
    }
    assert_eq!(lab.ask("N c f t"), "0");
    assert_eq!(ended(&lab), []);
    assert_eq!(lab.ask("D c f t"), "0");
    assert_eq!(ended(&lab), [EndReason::Deleted]);
    let mut joined = call(stream(true));
    assert_eq!(joined.ask("R c f t"), "0");
    assert_eq!(joined.ask("Cs c name t f"), "0");
    assert_eq!(started(&joined), None, "a file that R started is joined as well");
}

#[test]
fn what_cannot_be_copied_is_e65() {
    let mut lab = call(EngineConfig::default());
    for (command, reply) in [
        ("C x name f t", "E50"),
        ("C x udp:127.0.0.1 f t", "E50"),
        ("Cp c name f t", "E65"),
        ("C c udp:127.0.0.1 f t", "E65"),
        ("C c udp:: f t", "E65"),
        ("C c udp::9000 f t", "E65"),
        ("C c udp:no.such.host:9000 f t", "E65"),
        ("C c udp:10.1.1.1:9000 f t", "E65"),
        ("C c udp:[::1]:9000 f t", "E65"),
        ("Cx c name f t", "E7"),
    ] {
        assert_eq!(lab.ask(command), reply, "{command}");
    }
    lab.host.folder = FolderState::Unusable;
    assert_eq!(lab.ask("C c name f t"), "E65");
    assert_eq!(lab.ask("Cp c udp:127.0.0.1:9000 f t"), "22004 127.0.0.1", "none of these took a pair");
    lab.host.folder = FolderState::Troubled;
    assert_eq!(lab.ask("C c name t f"), "0");
    assert_eq!(lab.ask("C c UDP:127.0.0.1:9 f t"), "0", "the side is copied already, whatever this means");
}

#[test]
fn copies_go_to_a_host_as_well() {
    let mut lab = call(EngineConfig::default());
    assert_eq!(lab.ask("Csp c udp:127.0.0.9:9000 f t"), "22004 127.0.0.1");
    let copied = [(22004, "127.0.0.9:9000".parse().unwrap()), (22000, CALLEE.parse().unwrap())];
    assert_eq!(lab.rtp(CALLER, 22002, 1, 1), copied);
    let copied = [(22005, "127.0.0.9:9001".parse().unwrap()), (22001, "127.0.0.1:30101".parse().unwrap())];
    assert_eq!(lab.datagram(RTCP_OF_CALLER, 22003, b"report"), copied);
    assert_eq!(lab.rtp(CALLEE, 22000, 2, 1).len(), 1, "the other party is not copied");
    assert_eq!(lab.rtp("127.0.0.9:9000", 22004, 3, 1), [], "what comes back goes nowhere");
    assert_eq!(lab.ask("G npkts_rcvd npkts_relayed"), "3 3", "copies are not counted");
    assert_eq!(lab.ask("N c f t"), "0");
    assert_eq!(lab.host.open_ports(), 2);
    assert_eq!(lab.rtp(CALLER, 22002, 1, 2).len(), 1);
    assert_eq!(lab.ask("C c udp:127.0.0.9:9000 t f"), "0");
    assert_eq!(lab.ask("D c f t"), "0");
    assert_eq!(lab.host.open_ports(), 0);
}

#[test]
fn copies_need_no_destination_of_the_media() {
    let mut lab = Lab::new();
    lab.ask("U c 127.0.0.1 30000 f");
    lab.ask("L c 0 0 f t");
    assert_eq!(lab.ask("C c udp:127.0.0.9:9000 f"), "0");
    assert_eq!(lab.rtp(CALLER, 22002, 1, 1), [(22004, "127.0.0.9:9000".parse().unwrap())]);
    assert_eq!(lab.ask("Q c f t"), "60 1 0 0 1");
}

#[test]
fn a_pair_is_taken_before_the_port_is_looked_at() {
    let mut lab = call(EngineConfig::default());
    for target in ["90000", "65535", "0", "x", ""] {
        assert_eq!(lab.ask(&format!("C c udp:127.0.0.1:{target} f t")), "E65", "{target}");
        assert_eq!(lab.host.open_ports(), 2);
    }
    assert_eq!(
        lab.ask("Cp c udp:127.0.0.1:65534 f t"),
        "22014 127.0.0.1",
        "five pairs were taken and given back"
    );
    assert_eq!(
        lab.ask("Cp c udp:127.0.0.1:90000 f t"),
        "22016 127.0.0.1",
        "any port passes on a copied side"
    );
    assert_eq!(lab.ask("C c udp:127.0.0.1:x f t"), "0");
    assert_eq!(lab.ask("C c udp:127.0.0.1 f t"), "E65", "but there must be one");
    assert_eq!(lab.host.open_ports(), 3);
    let sent = lab.rtp(CALLER, 22002, 1, 1);
    assert_eq!(sent[0], (22014, "127.0.0.1:65534".parse().unwrap()), "the first copy goes on");
    assert_eq!(lab.ask("U d 127.0.0.1 30000 f"), "22020 127.0.0.1");
    let mut full = Lab::with(EngineConfig::default(), support::bridge(), 22000, 22002);
    full.ask("U c 127.0.0.1 30000 f");
    full.host.taken.insert(22002);
    assert_eq!(full.ask("C c udp:127.0.0.1:9000 f"), "E65", "no pair is left");
}

#[test]
fn without_rtcp_the_port_is_cut() {
    let mut lab = call(EngineConfig { record_rtcp: false, ..EngineConfig::default() });
    assert_eq!(lab.ask("C c udp:127.0.0.1:x f t"), "E65");
    assert_eq!(lab.ask("C c udp:127.0.0.1:90000 f t"), "0");
    assert_eq!(lab.rtp(CALLER, 22002, 1, 1)[0], (22006, "127.0.0.1:24464".parse().unwrap()));
    assert_eq!(lab.datagram(RTCP_OF_CALLER, 22003, b"report").len(), 1, "RTCP is not copied");
    assert_eq!(lab.ask("R c f t"), "0");
    lab.datagram(RTCP_OF_CALLER, 22003, b"report");
    assert_eq!(recorded(&lab), 0, "nor recorded");
}
