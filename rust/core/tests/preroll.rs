//! What is kept for recordings that begin later: which packets, and when no more.

mod support;

use rtpproxy_core::config::{EngineConfig, RecordScope};
use rtpproxy_core::effects::{Effect, HandOver};
use rtpproxy_core::engine::Engine;
use rtpproxy_core::host::FolderState;
use rtpproxy_core::recording::{Channel, KeptId, Leg, RecordingEvent};
use support::Lab;

const CALLER: &str = "127.0.0.1:30000";
const CALLEE: &str = "127.0.0.1:30100";

/// Call `c` from `f` to `t`: the caller sends to 22002, the callee to 22000.
fn call(config: EngineConfig) -> Lab {
    let mut lab = Lab::with_engine(config);
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    lab
}

fn scope(record_scope: RecordScope) -> EngineConfig {
    EngineConfig { preroll: true, record_scope, ..EngineConfig::default() }
}

/// Whose packets are kept when both parties speak.
fn kept(lab: &mut Lab) -> Vec<KeptId> {
    let mut kept = Vec::new();
    for (from, port) in [(CALLER, 22002), (CALLEE, 22000)] {
        lab.rtp(from, port, 1, 1);
        kept.extend(lab.out.effects.iter().filter_map(|effect| match effect {
            Effect::Keep(packet) => Some(packet.id),
            _ => None,
        }));
    }
    kept
}

fn legs(lab: &mut Lab) -> Vec<Leg> {
    kept(lab).into_iter().map(|id| id.leg).collect()
}

fn forgotten(lab: &Lab) -> Vec<Leg> {
    let effects = lab.out.effects.iter();
    effects.filter_map(|effect| if let Effect::Forget(id) = effect { Some(id.leg) } else { None }).collect()
}

/// What is handed over, which must come right behind the start of its recording.
fn handed_over(lab: &Lab) -> Option<HandOver> {
    let is_hand_over = |effect: &Effect| matches!(effect, Effect::HandOver(_));
    let at = lab.out.effects.iter().position(is_hand_over)?;
    let [Effect::Recording(RecordingEvent::Start(start)), Effect::HandOver(hand_over)] =
        &lab.out.effects[at - 1..=at]
    else {
        panic!("{:?}", lab.out.effects)
    };
    assert_eq!((start.id, start.at), (hand_over.to, hand_over.at));
    Some(*hand_over)
}

#[test]
fn nothing_is_kept_unless_it_was_asked_for() {
    let mut lab = call(EngineConfig::default());
    assert_eq!(legs(&mut lab), []);
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(handed_over(&lab), None);
}

#[test]
fn a_kept_packet_is_what_a_recording_would_have_held() {
    let mut lab = call(scope(RecordScope::Call));
    let mut compared = 0;
    for (from, port, payload) in [
        (CALLER, 22002, &support::rtp(0, 7, 1)[..]),
        ("127.0.0.1:30001", 22003, b"\x80\xc8\0\0"),
        (CALLEE, 22000, b"no RTP"),
    ] {
        let record = |lab: &mut Lab| {
            lab.datagram(from, port, payload);
            lab.out.effects.clone()
        };
        let before = record(&mut lab);
        let mut recorded = call(scope(RecordScope::Call));
        assert_eq!(recorded.ask("R c f t"), "0");
        let after = record(&mut recorded);
        let keep = before.iter().find_map(|it| if let Effect::Keep(it) = it { Some(it) } else { None });
        let record = after.iter().find_map(|it| if let Effect::Record(it) = it { Some(it) } else { None });
        let (keep, record) = (keep.unwrap(), record.unwrap());
        assert_eq!(
            (keep.id.leg, keep.channel, keep.at, keep.src, keep.dst, &keep.payload),
            (record.leg, record.channel, record.at, record.src, record.dst, &record.payload)
        );
        compared += 1;
    }
    assert_eq!(compared, 3);

    // A stranger that latching refuses is in neither.
    assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 666, 9), []);
    assert!(!lab.out.effects.iter().any(|effect| matches!(effect, Effect::Keep(_))));
}

#[test]
fn rtcp_is_kept_if_it_is_recorded() {
    for record_rtcp in [true, false] {
        let mut lab = call(EngineConfig { record_rtcp, ..scope(RecordScope::Call) });
        lab.datagram("127.0.0.1:30001", 22003, b"\x80\xc8\0\0");
        let channels = lab.out.effects.iter().filter_map(|effect| match effect {
            Effect::Keep(packet) => Some(packet.channel),
            _ => None,
        });
        assert_eq!(channels.eq([Channel::Rtcp]), record_rtcp);
    }
}

#[test]
fn r_takes_what_was_kept_of_both_and_nothing_is_kept_again() {
    let mut lab = call(scope(RecordScope::Call));
    let [caller, callee] = kept(&mut lab)[..] else { panic!() };
    assert_eq!((caller.leg, callee.leg, caller.number), (Leg::Caller, Leg::Callee, callee.number));
    assert_eq!(lab.ask("R c f t"), "0");
    let taken = handed_over(&lab).unwrap();
    assert_eq!((taken.kept, taken.stays), ([Some(caller), Some(callee)], false));
    assert_eq!(legs(&mut lab), []);
    // The pause stays empty, whatever comes after it.
    assert_eq!(lab.ask("N c f t"), "0");
    assert_eq!(legs(&mut lab), []);
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(handed_over(&lab), None);
    assert_eq!(lab.ask("C c name f t"), "0");
    assert_eq!(handed_over(&lab), None);
    assert_eq!(lab.ask("D c f t"), "0");
    assert_eq!(forgotten(&lab), []);
}

#[test]
fn r_in_scope_stream_takes_what_was_kept_of_that_party() {
    let mut lab = call(scope(RecordScope::Stream));
    let [caller, callee] = kept(&mut lab)[..] else { panic!() };
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(handed_over(&lab).unwrap().kept, [Some(caller), None]);
    assert_eq!(legs(&mut lab), [Leg::Callee]);
    assert_eq!(lab.ask("N c f t"), "0");
    assert_eq!(legs(&mut lab), [Leg::Callee], "what the caller says after N is not for a later R");
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(handed_over(&lab), None);
    assert_eq!(lab.ask("C c name t f"), "0");
    assert_eq!(handed_over(&lab).unwrap().kept, [None, Some(callee)]);
    assert!(!handed_over(&lab).unwrap().stays);
    assert_eq!(legs(&mut lab), []);
}

#[test]
fn c_leaves_it_for_the_recording_of_the_call() {
    let mut lab = call(scope(RecordScope::Call));
    let [caller, callee] = kept(&mut lab)[..] else { panic!() };
    assert_eq!(lab.ask("C c name f t"), "0");
    let taken = handed_over(&lab).unwrap();
    assert_eq!((taken.kept, taken.stays), ([Some(caller), None], true));
    assert_eq!(legs(&mut lab), [Leg::Caller, Leg::Callee]);
    assert_eq!(lab.ask("R c f t"), "0");
    let taken = handed_over(&lab).unwrap();
    assert_eq!((taken.kept, taken.stays), ([Some(caller), Some(callee)], false));
}

#[test]
fn the_end_of_a_copy_ends_the_keeping() {
    let mut lab = call(scope(RecordScope::Call));
    assert_eq!(lab.ask("N c f t"), "E50", "nothing runs");
    assert_eq!(legs(&mut lab), [Leg::Caller, Leg::Callee], "and a refused command changes nothing");
    assert_eq!(lab.ask("C c name f t"), "0");
    assert_eq!(lab.ask("N c f t"), "0");
    assert_eq!(forgotten(&lab), [Leg::Caller, Leg::Callee]);
    assert_eq!(legs(&mut lab), []);
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(handed_over(&lab), None);
}

#[test]
fn who_joins_a_single_file_brings_nothing() {
    let mut lab = call(EngineConfig { single_file: true, ..scope(RecordScope::Stream) });
    assert_eq!(lab.ask("Rs c f t"), "0");
    assert_eq!(handed_over(&lab).unwrap().kept.map(|kept| kept.is_some()), [true, false]);
    assert_eq!(lab.ask("Rs c t f"), "0");
    assert_eq!((handed_over(&lab), &forgotten(&lab)[..]), (None, &[Leg::Callee][..]));
    assert_eq!(legs(&mut lab), []);
}

#[test]
fn a_session_that_ends_is_forgotten() {
    let mut lab = call(scope(RecordScope::Call));
    lab.host.folder = FolderState::Unusable;
    assert_eq!(lab.ask("R c f t"), "E50");
    assert_eq!(legs(&mut lab), [Leg::Caller, Leg::Callee], "a refused command changes nothing");
    assert_eq!(lab.ask("D c f t"), "0");
    let mut ended = forgotten(&lab);
    ended.sort();
    assert_eq!(ended, [Leg::Caller, Leg::Callee]);
}

#[test]
fn a_session_that_is_recorded_from_its_creation_keeps_nothing() {
    let mut lab = call(EngineConfig { record_all: true, ..scope(RecordScope::Call) });
    assert_eq!(legs(&mut lab), []);
}

#[test]
fn a_call_that_moves_goes_on_under_the_same_names() {
    let mut lab = call(scope(RecordScope::Call));
    let before = kept(&mut lab);
    let state = lab.engine.export(&"c".into()).unwrap();
    let mut names: Vec<_> = state.kept().collect();
    names.sort();
    assert_eq!(names, before);
    lab.engine = Engine::new(scope(RecordScope::Call), lab.now);
    lab.engine.import(state, |pair| pair.id);
    assert_eq!(kept(&mut lab), before);
}
