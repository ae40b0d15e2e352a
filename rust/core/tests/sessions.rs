//! Sessions in virtual time: ports, tags, timers, counters, recordings, and moving a call.

mod support;

use std::time::Duration;

use proptest::prelude::*;
use rtpproxy_core::addr::Family;
use rtpproxy_core::command::{CallId, NotifyTarget, Party, QUERY_FIGURES};
use rtpproxy_core::config::{EngineConfig, FrontConfig, NotifySpec, RecordScope};
use rtpproxy_core::effects::{Effect, PairId, TapId};
use rtpproxy_core::engine::Engine;
use rtpproxy_core::host::FolderState;
use rtpproxy_core::recording::{Coverage, EndReason, Leg, Mark, RecordingEvent};
use support::{Lab, bridge};

const CALLER: &str = "127.0.0.1:30000";
const CALLEE: &str = "127.0.0.1:30100";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Ports: the callee sends to 22000, the caller to 22002.
fn call() -> Lab {
    let mut lab = Lab::new();
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    lab
}

#[test]
fn media_goes_both_ways_and_is_counted() {
    let mut lab = call();
    assert_eq!(lab.rtp(CALLER, 22002, 1, 1), [(22000, CALLEE.parse().unwrap())]);
    assert_eq!(lab.rtp(CALLEE, 22000, 2, 1), [(22002, CALLER.parse().unwrap())]);
    let rtcp = lab.datagram("127.0.0.1:30001", 22003, &[0x80, 200, 0, 6]);
    assert_eq!(rtcp, [(22001, "127.0.0.1:30101".parse().unwrap())]);
    assert_eq!(lab.ask("Q c f t"), "60 1 1 2 0");
    assert_eq!(lab.ask("Qv c t f npkts_ina nrelayed rtpa_nrcvd"), "npkts_ina=1 nrelayed=2 rtpa_nrcvd=1");
    assert_eq!(lab.ask("G npkts_rcvd npkts_relayed npkts_discard"), "3 3 0");
    assert_eq!(lab.ask("D c f t"), "0");
    assert_eq!(lab.host.open_ports(), 0);
    assert_eq!(
        lab.ask("Gv nsess_destroyed nsess_nortp nsess_owrtp nsess_nortcp nsess_owrtcp rtpa_nrcvd"),
        "nsess_destroyed=1 nsess_nortp=0 nsess_owrtp=0 nsess_nortcp=0 nsess_owrtcp=1 rtpa_nrcvd=2"
    );
}

#[test]
fn every_listed_figure_is_known_by_its_name() {
    let mut lab = call();
    for name in QUERY_FIGURES {
        let reply = lab.ask(&format!("Qv c f t {name}"));
        assert!(reply.starts_with(&format!("{name}=")), "{reply}");
    }
}

#[test]
fn a_half_open_session_throws_packets_away() {
    let mut lab = Lab::new();
    lab.ask("U c 127.0.0.1 30000 f");
    assert_eq!(lab.rtp(CALLEE, 22000, 1, 1), []);
    assert_eq!(lab.ask("G npkts_rcvd npkts_discard"), "0 1");
    // A new port for the only socket completes it; packets are then processed and dropped.
    assert_eq!(lab.ask("Un c 127.0.0.1 30000 f"), "22002 127.0.0.1");
    assert_eq!(lab.rtp(CALLEE, 22002, 1, 1), []);
    assert_eq!(lab.ask("G nsess_complete npkts_rcvd npkts_discard"), "1 1 2");
    assert_eq!(lab.ask("Q c f t"), "60 0 1 0 1");
}

#[test]
fn small_packets_go_twice_if_asked_for() {
    let mut lab = Lab::with_engine(EngineConfig { double_send: true, ..EngineConfig::default() });
    lab.ask("U c 127.0.0.1 30000 f");
    lab.ask("L c 127.0.0.1 30100 f t");
    assert_eq!(lab.datagram(CALLER, 22002, &support::rtp(0, 1, 1)[..127]).len(), 2);
    assert_eq!(lab.datagram(CALLER, 22002, &support::rtp(0, 1, 2)[..128]).len(), 1);
    assert_eq!(lab.ask("Q c f t nrelayed"), "2", "each counts once");
}

#[test]
fn sessions_end_between_ttl_and_one_second_more() {
    let config = EngineConfig { max_ttl_s: 5, setup_ttl_s: 2, ..EngineConfig::default() };
    let mut lab = Lab::with_engine(config);
    lab.ask("U half 127.0.0.1 30000 f");
    lab.pass(seconds(2));
    assert_eq!(lab.ask("Q half f t ttl"), "0");
    lab.pass(seconds(1));
    assert_eq!(lab.ask("Q half f t ttl"), "E50");

    lab.ask("U c 127.0.0.1 30000 f");
    let caller_port: u16 = lab.ask("L c 127.0.0.1 30100 f t").split(' ').next().unwrap().parse().unwrap();
    lab.pass(seconds(4));
    lab.rtp(CALLER, caller_port, 1, 1);
    lab.pass(seconds(5));
    assert_eq!(lab.ask("Q c f t ttl"), "0");
    lab.pass(seconds(1));
    assert_eq!(lab.ask("G nsess_timeout nsess_destroyed"), "2 2");
    assert_eq!(lab.host.open_ports(), 0);
}

#[test]
fn independent_timers_end_a_session_when_one_party_is_silent() {
    let config =
        EngineConfig { max_ttl_s: 5, setup_ttl_s: 5, independent_timers: true, ..EngineConfig::default() };
    let mut lab = Lab::with_engine(config);
    lab.ask("U c 127.0.0.1 30000 f");
    lab.ask("L c 127.0.0.1 30100 f t");
    for sequence in 0..5 {
        lab.rtp(CALLER, 22002, 1, sequence);
        lab.pass(seconds(1));
    }
    assert_eq!(lab.ask("Q c f t ttl"), "0");
    lab.pass(seconds(1));
    assert_eq!(lab.ask("Q c f t ttl"), "E50");
}

fn notifying() -> FrontConfig {
    let target = |path: &str| NotifyTarget::Unix(path.as_bytes().into());
    let fixed =
        |name: &str, path: &str| NotifySpec::Fixed { name: name.as_bytes().into(), target: target(path) };
    let caller = NotifySpec::Caller { name: (*b"tcp:%%CC_SELF%%:5000").into(), port: 5000 };
    FrontConfig {
        notify: vec![fixed("unix:/run/n", "/run/n"), fixed("/run/bare", "/run/bare"), caller],
        ..bridge()
    }
}

fn notified(lab: &Lab) -> Vec<(NotifyTarget, Vec<u8>)> {
    let effects = lab.out.effects.iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Notify { target, text } => Some((target.clone(), text.clone())),
            _ => None,
        })
        .collect()
}

#[test]
fn a_timeout_is_reported_to_the_target_of_the_last_u() {
    let mut lab = Lab::with(EngineConfig::default(), notifying(), 22000, 22398);
    assert_eq!(lab.ask("VF 20081224"), "1");
    lab.ask("U c 127.0.0.1 30000 f /run/n r%201%00x");
    lab.pass(seconds(61));
    assert_eq!(notified(&lab), [(NotifyTarget::Unix((*b"/run/n").into()), b"r 1\0x\n".to_vec())]);

    // Without the pair the target is removed; an unknown one is none; deleting never notifies.
    lab.ask("U c 127.0.0.1 30000 f unix:/run/n x");
    lab.ask("U c 127.0.0.1 30000 f");
    lab.pass(seconds(61));
    assert_eq!(notified(&lab), []);
    assert!(!lab.ask("U c 127.0.0.1 30000 f unix:/other x").starts_with('E'));
    lab.pass(seconds(61));
    assert_eq!(notified(&lab), []);
    lab.ask("U c 127.0.0.1 30000 f unix:/run/n x");
    assert_eq!(lab.ask("D c f"), "0");
    assert_eq!(notified(&lab), []);
    lab.ask("U c 127.0.0.1 30000 f unix:/run/bare x");
    lab.pass(seconds(61));
    assert_eq!(notified(&lab), [(NotifyTarget::Unix((*b"/run/bare").into()), b"x\n".to_vec())]);
}

#[test]
fn the_wildcard_target_leads_back_to_the_sender() {
    let mut lab = Lab::with(EngineConfig::default(), notifying(), 22000, 22398);
    lab.origin.peer = Some([127, 0, 0, 7].into());
    lab.ask("U c 127.0.0.1 30000 f tcp:%%CC_SELF%%:5000 x");
    lab.pass(seconds(61));
    let to = "127.0.0.7:5000".parse().unwrap();
    assert_eq!(notified(&lab), [(NotifyTarget::Tcp { to, from: None }, b"x\n".to_vec())]);
    lab.ask("U c 127.0.0.1 30000 f tcp:127.0.0.7:5000 x");
    lab.pass(seconds(61));
    assert_eq!(notified(&lab), [], "another spelling is another target");
}

#[test]
fn notify_arguments_without_a_target_are_e75_and_change_nothing() {
    let mut lab = Lab::new();
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f unix:/x tag"), "E75");
    assert_eq!(lab.ask("VF 20081224"), "0");
    assert_eq!(lab.ask("G nsess_created"), "0");
}

#[test]
fn ports_run_out_with_e72_and_e71_and_come_back() {
    let mut lab = Lab::with(EngineConfig::default(), bridge(), 22000, 22004);
    assert_eq!(lab.ask("U a 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(lab.ask("U b 127.0.0.1 30000 f"), "22002 127.0.0.1");
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f"), "22004 127.0.0.1");
    assert_eq!(lab.ask("U d 127.0.0.1 30000 f"), "E72");
    assert_eq!(lab.ask("L a 127.0.0.1 30000 f t"), "E71");
    assert_eq!(lab.ask("D b f"), "0");
    assert_eq!(lab.ask("L a 127.0.0.1 30000 f t"), "22002 127.0.0.1");
    // A table of one pair can never give it away.
    let mut lab = Lab::with(EngineConfig::default(), bridge(), 22000, 22000);
    assert_eq!(lab.ask("U a 127.0.0.1 30000 f"), "E72");
}

#[test]
fn an_address_that_cannot_be_bound_is_remembered() {
    let mut lab = Lab::new();
    assert_eq!(lab.ask("Ul10.9.9.9 c 127.0.0.1 30000 f"), "E72");
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f"), "22002 127.0.0.1", "one pair was skipped");
    assert_eq!(lab.ask("Ll10.9.9.9 c 127.0.0.1 30100 f t"), "E71");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "E71");
    assert!(lab.ask("Ll127.0.0.1 c 127.0.0.1 30100 f t").ends_with(" 127.0.0.1"));
}

#[test]
fn gateway_and_bridge_choose_the_local_address() {
    let mut lab = Lab::new();
    assert_eq!(lab.ask("U6 a ::1 30000 f"), "22000 ::1 6");
    assert_eq!(lab.ask("L a 127.0.0.1 30000 f t"), "22002 ::1 6", "both sides were given that address");
    assert_eq!(lab.ask("Uei b 0 0 f"), "22000 127.0.0.1", "toward the callee: internal");
    assert_eq!(lab.ask("L b 127.0.0.1 30100 f t"), "22004 ::1 6", "toward the caller: external");
    assert_eq!(lab.rtp("[::1]:5004", 22004, 1, 1), [(22000, "127.0.0.1:30100".parse().unwrap())]);
    assert_eq!(lab.ask("Ue d 127.0.0.1 30000 f"), "22002 127.0.0.1");
    assert_eq!(lab.ask("Ueie d 127.0.0.1 30000 f"), "E11");
    assert_eq!(lab.ask("Unie b 127.0.0.1 30000 f"), "22006 ::1 6", "the second letter");
    assert_eq!(lab.ask("Unei b 127.0.0.1 30000 f"), "22004 127.0.0.1");
    assert_eq!(lab.ask("Lnie b 127.0.0.1 30100 f t"), "22008 ::1 6", "whichever side is replied");
    let mut plain =
        Lab::with(EngineConfig::default(), FrontConfig { external: None, ..bridge() }, 22000, 22398);
    assert_eq!(plain.ask("U6 a ::1 30000 f"), "E36");
    assert_eq!(plain.ask("Ue a 127.0.0.1 30000 f"), "E11");
    assert_eq!(plain.ask("Ui a 127.0.0.1 30000 f"), "E12");
    assert_eq!(plain.ask("Ul{nope} a 127.0.0.1 30000 f"), "E31");
    assert_eq!(plain.ask("Ur10.1.1.1 a 127.0.0.1 30000 f"), "E32");
}

#[test]
fn tags_find_and_match() {
    let mut lab = Lab::new();
    lab.ask("U c 127.0.0.1 30000 f;1");
    lab.ask("U c 127.0.0.1 30010 f;2");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f;2 t;2"), "22004 127.0.0.1");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 t;1 f"), "22000 127.0.0.1", "the reverse, by media number");
    assert_eq!(lab.ask("Q c f t"), "E50");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 nobody t"), "0");
    assert_eq!(lab.ask("G nsess_created ncmds_errs"), "2 2");
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(lab.ask("D c t f"), "0", "both media go");
    assert_eq!(lab.ask("G nsess_destroyed"), "2");
}

#[test]
fn weak_references_keep_a_session() {
    let mut lab = Lab::new();
    lab.ask("Uw c 127.0.0.1 30000 f");
    assert_eq!(lab.ask("Dw c f"), "0");
    assert_eq!(lab.ask("G nsess_destroyed"), "0", "the other side's weak flag was cleared");
    assert_eq!(lab.ask("Dw c x f"), "0");
    assert_eq!(lab.ask("G nsess_destroyed"), "1");
    lab.ask("U c 127.0.0.1 30000 f");
    lab.ask("Lw c 127.0.0.1 30100 f t");
    assert_eq!(lab.ask("D c f t"), "0");
    assert_eq!(lab.ask("G nsess_destroyed"), "1");
    assert_eq!(lab.ask("Dw c f t"), "0");
    assert_eq!(lab.ask("G nsess_destroyed"), "2");
}

#[test]
fn draining_refuses_only_new_sessions() {
    let mut lab = call();
    lab.engine.set_draining(true);
    assert_eq!(lab.ask("U d 127.0.0.1 30000 f"), "E99");
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(lab.ask("X"), "0");
    assert_eq!(lab.ask("G nsess_destroyed"), "1");
}

#[test]
fn what_comes_later_is_refused_with_its_code() {
    let mut lab = call();
    for (command, reply) in [("Q c f t && M3:1 tag", "E3"), ("U c 0 0 f && M1:1 x", "E3")] {
        assert_eq!(lab.ask(command), reply, "{command}");
    }
}

fn events(lab: &Lab) -> Vec<&RecordingEvent> {
    let effects = lab.out.effects.iter();
    effects
        .filter_map(|effect| if let Effect::Recording(event) = effect { Some(event) } else { None })
        .collect()
}

fn recorded(lab: &Lab) -> usize {
    lab.out.effects.iter().filter(|effect| matches!(effect, Effect::Record(_))).count()
}

#[test]
fn one_r_records_both_legs_and_n_pauses() {
    let mut lab = call();
    assert_eq!(lab.ask("N c f t"), "E50");
    assert_eq!(lab.ask("R c t f"), "0");
    let [RecordingEvent::Start(start)] = events(&lab)[..] else { panic!("starts once") };
    assert_eq!(start.coverage, Coverage::Call);
    assert_eq!(start.to_tag.as_ref().map(ToString::to_string).as_deref(), Some("t"));
    assert_eq!(start.legs[0].signalled, Some(CALLER.parse().unwrap()));
    assert_eq!(start.legs[1].local, Some(("127.0.0.1".parse().unwrap(), 22000)));
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(events(&lab).len(), 0);
    for (from, port) in [(CALLER, 22002), (CALLEE, 22000), ("127.0.0.1:30001", 22003)] {
        lab.rtp(from, port, 1, 1);
        assert_eq!(recorded(&lab), 1, "{from}");
    }
    assert_eq!(lab.ask("N c f t"), "0");
    assert!(matches!(events(&lab)[..], [RecordingEvent::Mark { mark: Mark::Paused, .. }]));
    lab.rtp(CALLER, 22002, 1, 2);
    assert_eq!(recorded(&lab), 0);
    assert_eq!(lab.ask("N c f t"), "E50");
    assert_eq!(lab.ask("R c f t"), "0");
    assert!(matches!(events(&lab)[..], [RecordingEvent::Mark { mark: Mark::Resumed, .. }]));
    lab.rtp(CALLER, 22002, 1, 3);
    assert_eq!(recorded(&lab), 1);
    assert_eq!(lab.ask("D c f t"), "0");
    assert!(matches!(events(&lab)[..], [RecordingEvent::End { reason: EndReason::Deleted, .. }]));
}

#[test]
fn scope_stream_records_what_the_named_party_sends() {
    let config = EngineConfig { record_scope: RecordScope::Stream, ..EngineConfig::default() };
    let mut lab = Lab::with_engine(config);
    lab.ask("U c 127.0.0.1 30000 f");
    lab.ask("L c 127.0.0.1 30100 f t");
    lab.ask("R c f t");
    let [RecordingEvent::Start(start)] = events(&lab)[..] else { panic!("starts once") };
    assert_eq!(start.coverage, Coverage::Stream(Leg::Caller));
    lab.rtp(CALLER, 22002, 1, 1);
    assert_eq!(recorded(&lab), 1);
    lab.rtp(CALLEE, 22000, 2, 1);
    assert_eq!(recorded(&lab), 0);
    assert_eq!(lab.ask("Rs c f t"), "0", "without single files s changes nothing");
    assert_eq!(lab.ask("N c t f"), "E50");
    assert_eq!(lab.ask("Na c t f"), "0");
    assert!(matches!(events(&lab)[..], [RecordingEvent::End { reason: EndReason::Stopped, .. }]));
}

#[test]
fn single_files_are_joined_by_the_second_side() {
    let config = EngineConfig {
        record_scope: RecordScope::Stream,
        single_file: true,
        record_all: true,
        ..Default::default()
    };
    let mut lab = Lab::with_engine(config);
    lab.ask("U c 127.0.0.1 30000 f");
    assert_eq!(events(&lab).len(), 1, "both sides share one file from the start");
    assert_eq!(lab.ask("Rs c f t"), "E50", "recording already");
    assert_eq!(lab.ask("N c f t"), "0");
    assert_eq!(events(&lab).len(), 0, "the other side still records");
    assert_eq!(lab.ask("N c t f"), "0");
    assert_eq!(events(&lab).len(), 1);
}

#[test]
fn without_a_folder_recording_is_e50_and_the_call_goes_on() {
    let mut lab = call();
    lab.host.folder = FolderState::Unusable;
    assert_eq!(lab.ask("R c f t"), "E50");
    assert_eq!(lab.rtp(CALLER, 22002, 1, 1).len(), 1);
    lab.host.folder = FolderState::Troubled;
    assert_eq!(lab.ask("R c f t"), "0");
    lab.host.folder = FolderState::Unusable;
    assert_eq!(lab.ask("R c f t"), "0", "it runs already");
    assert_eq!(lab.ask("N c f t"), "0");
    assert_eq!(lab.ask("R c f t"), "0", "and goes on in its file");
}

#[test]
fn rtcp_is_left_out_if_it_is_not_wanted() {
    let config = EngineConfig { record_rtcp: false, ..EngineConfig::default() };
    let mut lab = Lab::with_engine(config);
    lab.ask("U c 127.0.0.1 30000 f");
    lab.ask("L c 127.0.0.1 30100 f t");
    lab.ask("R c f t");
    lab.rtp(CALLER, 22002, 1, 1);
    assert_eq!(recorded(&lab), 1);
    assert_eq!(lab.rtp("127.0.0.1:30001", 22003, 1, 1).len(), 1);
    assert_eq!(recorded(&lab), 0);
}

#[test]
fn command_counters_add_up() {
    let mut lab = Lab::new();
    lab.ask("V");
    lab.ask("nonsense");
    lab.ask("L x 127.0.0.1 30000 f t");
    assert_eq!(lab.ask("G ncmds_rcvd ncmds_succd ncmds_errs ncmds_repld"), "4 1 2 3");
    assert_eq!(lab.ask("G nope"), "E68");
    assert_eq!(lab.ask("I").lines().count(), 5);
    assert_eq!(lab.ask("Il").lines().count(), 6);
}

proptest! {
    /// A call that moves to another engine is the same call, whatever was done to it before.
    #[test]
    fn export_and_import_round_trip(
        steps in prop::collection::vec((0..12u8, any::<u16>()), 0..40),
    ) {
        let mut lab = call();
        lab.host.prompts.insert(0, vec![0; 240].into());
        for (step, number) in steps {
            match step {
                0 => { lab.ask(&format!("U c 127.0.0.{} {number} f", number % 250 + 1)); }
                1 => { lab.ask("Lw6 c ::1 40000 f t"); }
                2 => { lab.ask("R c f t"); }
                3 => { lab.ask("N c f t"); }
                4 => { lab.ask("Un c 0.0.0.0 0 f"); }
                5 => { lab.ask("U c 127.0.0.1 30000 other;1"); }
                6 => {
                    let port = 9000 + 2 * (number % 10);
                    let tags = if number % 3 == 0 { "t f" } else { "f t" };
                    let verb = if number % 4 == 0 { "?uncopy" } else { "C" };
                    lab.ask(&format!("{verb} c udp:127.0.0.1:{port} {tags}"));
                }
                7 => { lab.ask(&format!("Q c f t && S ttl={} && S tos=8", number.max(1))); }
                8 if number % 5 == 0 => {
                    let party = Party { call_id: "c".into(), from_tag: "f".into(), to_tag: None };
                    let _ = lab.engine.tap(&party, TapId(number.into()));
                }
                8 => lab.pass(Duration::from_millis(u64::from(number % 3000))),
                9 => { lab.ask(&format!("P{} c prompt 0 f t", number % 9)); }
                _ => {
                    let port = lab.host.port_of(PairId(u32::from(number % 2)));
                    if let Some(port) = port.filter(|port| lab.host.pair_of(*port, Family::V4).is_some()) {
                        lab.rtp(&format!("127.0.0.{}:5004", number % 9 + 1), port, u32::from(step), number);
                    }
                }
            }
        }
        let call_id = CallId::from("c");
        if let Some(state) = lab.engine.export(&call_id) {
            let mut other = Engine::new(EngineConfig::default(), lab.now);
            other.import(state.clone(), |pair| PairId(pair.id.0 + 100));
            let back = other.export(&call_id).expect("it is there");
            lab.engine.import(back, |pair| PairId(pair.id.0 - 100));
            prop_assert_eq!(lab.engine.export(&call_id), Some(state));
            prop_assert_eq!(other.stats().sessions_active, 0);
        }
    }
}

proptest! {
    /// A command as a value and its text get the same reply and leave the same state.
    #[test]
    fn commands_as_values_and_as_text_are_the_same(
        lines in prop::collection::vec(prop::sample::select(vec![
            "V", "VF 20081224", "U c 127.0.0.1 30000 f", "L c 127.0.0.1 30100 f t", "Uei d 127.0.0.1 1 f;1", "Ueee d 0 0 f",
            "Ul{x} c 0 0 f", "Ur127.0.0.1 c 0 0 f", "Ur10.1.1.1 c 0 0 f", "U6 c ::1 30000 f", "Uz20 c 127.0.0.1 3 f",
            "Uc8,0 c 127.0.0.1 30000 f t", "D c f t", "Dw c f", "R c f t", "N c f t", "Q c f t ttl nope", "Qv c f t", "X", "I",
            "G nsess_created ncmds_errs", "G nope", "P c x 0 f t", "S c f t", "C c name f t", "U c 127.0.0.1 3 f unix:/x t",
            "Cp c udp:127.0.0.1:9000 t f", "C c udp:10.1.1.1:9000 f t", "C c udp:host:9000 f t", "C c udp:127.0.0.1 f",
            "?uncopy c udp:127.0.0.1:9000 t f", "?uncopy c name f t", "?uncopy c udp:127.0.0.1 f",
            "U c 0 0 f t && L6 ::1 5 && C d f;1 t && S tos=5 && D", "Q c f t && S ttl=5 && D", "U c 0 0 f t && Le 0 0",
            "U c 0 0 f t && Lz20 0 0", "Q c f && M3:1 x", "L c 0 0 f t && S ttl=9 && Sr tos=9",
        ]), 1..30),
    ) {
        use rtpproxy_core::command::{AnyRules, parse};
        let (mut texts, mut values) = (Lab::new(), Lab::new());
        for line in lines {
            let command = parse(line.as_bytes(), &mut AnyRules).expect("the grammar takes it");
            let text = texts.ask(line);
            prop_assert_eq!(values.ask_command(command), text, "{}", line);
            prop_assert_eq!(&texts.out.effects, &values.out.effects);
        }
    }
}
