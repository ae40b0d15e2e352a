//! Live taps: what whoever runs the engine gets of a session.

mod support;

use std::time::Duration;

use rtpproxy_core::command::{CallId, Party};
use rtpproxy_core::config::EngineConfig;
use rtpproxy_core::effects::{Effect, Payload, TapId, TappedPacket};
use rtpproxy_core::engine::TapError;
use rtpproxy_core::recording::{Channel, Leg};
use support::Lab;

/// Call `c` from `f` to `t`: the caller sends to 22002, the callee to 22000.
fn call(config: EngineConfig) -> Lab {
    let mut lab = Lab::with_engine(config);
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    lab
}

fn tap(lab: &mut Lab, from_tag: &str, id: u64) -> Result<(), TapError> {
    let party = Party { call_id: "c".into(), from_tag: from_tag.into(), to_tag: Some("f".into()) };
    lab.engine.tap(&party, TapId(id))
}

fn tapped(lab: &Lab) -> Vec<&TappedPacket> {
    let packets = lab.out.effects.iter().filter_map(|effect| match effect {
        Effect::Tap(packet) => Some(packet),
        _ => None,
    });
    packets.collect()
}

fn ended(lab: &Lab) -> Vec<u64> {
    let ids = lab.out.effects.iter().filter_map(|effect| match effect {
        Effect::TapEnd(id) => Some(id.0),
        _ => None,
    });
    ids.collect()
}

#[test]
fn each_tap_gets_what_both_parties_send() {
    let mut lab = call(EngineConfig { record_rtcp: false, ..EngineConfig::default() });
    assert_eq!(tap(&mut lab, "f", 7), Ok(()));
    assert_eq!(tap(&mut lab, "t", 8), Ok(()));
    lab.pass(Duration::from_millis(1500));
    lab.rtp("127.0.0.1:30000", 22002, 1, 1);
    let packet = TappedPacket {
        id: TapId(7),
        leg: Leg::Caller,
        channel: Channel::Rtp,
        at: lab.now.wall,
        src: "127.0.0.1:30000".parse().unwrap(),
        dst: "127.0.0.1:22002".parse().unwrap(),
        payload: Payload::Received,
    };
    assert_eq!(tapped(&lab), [&packet, &TappedPacket { id: TapId(8), ..packet.clone() }]);
    lab.datagram("127.0.0.1:30101", 22001, b"report");
    let [first, _] = tapped(&lab)[..] else { panic!("there are two taps") };
    assert_eq!((first.leg, first.channel, first.dst.port()), (Leg::Callee, Channel::Rtcp, 22001));

    lab.engine.untap(&CallId::from("c"), TapId(7));
    lab.rtp("127.0.0.1:30000", 22002, 1, 2);
    assert_eq!(tapped(&lab).len(), 1);
    assert_eq!(lab.ask("N c f t"), "E50", "it is no recording");
    assert_eq!(lab.ask("D c f t"), "0");
    assert_eq!(ended(&lab), [8]);
}

#[test]
fn what_is_refused_or_displaced_is_not_tapped() {
    let mut lab = call(EngineConfig::default());
    assert_eq!(tap(&mut lab, "f", 1), Ok(()));
    lab.rtp("127.0.0.1:30000", 22002, 1, 1);
    assert_eq!(tapped(&lab).len(), 1);
    lab.rtp("192.0.2.66:666", 22002, 6, 6);
    assert!(tapped(&lab).is_empty());
    lab.host.prompts.insert(0, vec![0; 8000].into());
    assert_eq!(lab.ask("P c prompt 0 t f"), "0");
    lab.rtp("127.0.0.1:30000", 22002, 1, 2);
    assert!(tapped(&lab).is_empty(), "the callee hears a prompt");
}

#[test]
fn taps_are_few_and_of_one_session() {
    let mut lab = call(EngineConfig::default());
    let nobody = Party { call_id: "c".into(), from_tag: "x".into(), to_tag: Some("t".into()) };
    assert_eq!(lab.engine.tap(&nobody, TapId(1)), Err(TapError::NotFound));
    for id in 1..=8 {
        assert_eq!(tap(&mut lab, "f", id), Ok(()));
    }
    assert_eq!(tap(&mut lab, "f", 9), Err(TapError::TooMany));
    lab.rtp("127.0.0.1:30000", 22002, 1, 1);
    assert_eq!(tapped(&lab).len(), 8);
    lab.engine.untap(&CallId::from("c"), TapId(3));
    assert_eq!(tap(&mut lab, "f", 9), Ok(()));
}

#[test]
fn a_call_moves_with_its_taps() {
    let mut lab = call(EngineConfig::default());
    assert_eq!(tap(&mut lab, "f", 5), Ok(()));
    let call_id = CallId::from("c");
    assert!(lab.engine.can_leave(&call_id));
    let state = lab.engine.export(&call_id).expect("it is there");
    assert_eq!(state.taps().collect::<Vec<_>>(), [TapId(5)]);
    lab.engine.import(state, |pair| pair.id);
    lab.rtp("127.0.0.1:30000", 22002, 1, 1);
    assert_eq!(tapped(&lab).len(), 1);
}
