//! Watching key presses where transcripts do not reach: prompts, forks, resized packets, moved calls, and bytes
//! that nobody should send.

mod support;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rtpproxy_core::command::{CallId, NotifyTarget};
use rtpproxy_core::config::{EngineConfig, FrontConfig, ModuleKind, NotifySpec};
use rtpproxy_core::effects::Effect;
use rtpproxy_core::engine::Engine;
use support::{Lab, bridge, event};

const CALLER: &str = "127.0.0.1:30000";
const CALLEE: &str = "127.0.0.1:30100";

/// Ports: the callee sends to 22000, the caller to 22002. The session has a notification target.
fn call() -> Lab {
    let target = NotifyTarget::Unix(b"/n".as_slice().into());
    let notify = vec![NotifySpec::Fixed { name: b"/n".as_slice().into(), target }];
    let front = FrontConfig { notify, modules: vec![ModuleKind::CatchDtmf], ..bridge() };
    let mut lab = Lab::with(EngineConfig::default(), front, 22000, 22398);
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f /n timeout"), "22000 127.0.0.1");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    lab
}

/// What the last step told.
fn told(lab: &Lab) -> Vec<String> {
    let notices = lab.out.effects.iter().filter_map(|effect| match effect {
        Effect::Notify { text, .. } => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    });
    notices.collect()
}

/// The caller presses a key; what is told, and how many packets went on.
fn press(lab: &mut Lab, timestamp: u32, number: u8) -> (Vec<String>, usize) {
    let down = lab.datagram(CALLER, 22002, &event(101, timestamp, number, false, 160)).len();
    let up = lab.datagram(CALLER, 22002, &event(101, timestamp, number, true, 320)).len();
    (told(lab), down + up)
}

#[test]
fn without_a_watch_events_are_packets_like_others() {
    let mut lab = call();
    assert_eq!(press(&mut lab, 8000, 5), (vec![], 2));
}

#[test]
fn the_watch_stays_with_a_side_that_moves() {
    let mut lab = call();
    assert_eq!(lab.ask("Q c f t ttl && M3:1 k"), "60");
    assert_eq!(lab.ask("Ln c 127.0.0.1 30100 f t"), "22004 127.0.0.1");
    lab.datagram(CALLER, 22004, &event(101, 1, 5, false, 160));
    lab.datagram(CALLER, 22004, &event(101, 1, 5, true, 320));
    assert_eq!(told(&lab), ["k 5 10 320 0\n"]);
}

#[test]
fn events_pass_the_resizer_at_once() {
    let mut lab = call();
    assert_eq!(lab.ask("Uz60 c 127.0.0.1 30000 f t /n timeout && M3:1 k"), "22000 127.0.0.1");
    assert_eq!(lab.rtp(CALLER, 22002, 1, 1), []);
    assert_eq!(press(&mut lab, 8000, 5), (vec!["k 5 10 320 0\n".to_owned()], 2));
}

#[test]
fn a_watch_sees_what_the_resizer_makes() {
    // Sound is a strange thing to watch, but the only thing that is rebuilt: two packets are one, and hidden as one.
    let mut lab = call();
    assert_eq!(lab.ask("Uz40 c 127.0.0.1 30000 f t /n timeout && M3:1 k 0 h"), "22000 127.0.0.1");
    assert_eq!(lab.rtp(CALLER, 22002, 1, 1), []);
    assert_eq!(lab.ask("Q c f t ndropped"), "0");
    assert_eq!(lab.rtp(CALLER, 22002, 1, 2), []);
    assert_eq!(lab.ask("Q c f t ndropped"), "1");
}

#[test]
fn who_hears_a_prompt_presses_keys_that_are_told() {
    let mut lab = call();
    lab.host.prompts.insert(0, Arc::from(vec![0xd5; 8000]));
    assert_eq!(lab.ask("Q c f t ttl && M3:1 k"), "60");
    assert_eq!(lab.ask("P c /prompt 0 f t"), "0");
    // The caller hears the prompt, the callee what the caller sends.
    assert_eq!(press(&mut lab, 8000, 5), (vec!["k 5 10 320 0\n".to_owned()], 2));
}

#[test]
fn nothing_is_told_of_packets_that_a_prompt_displaces() {
    let mut lab = call();
    lab.host.prompts.insert(0, Arc::from(vec![0xd5; 8000]));
    assert_eq!(lab.ask("Q c f t ttl && M3:1 k"), "60");
    assert_eq!(lab.ask("P c /prompt 0 t f"), "0");
    assert_eq!(press(&mut lab, 8000, 5), (vec![], 0));
}

#[test]
fn a_watch_sees_prompts_as_what_the_other_party_sends() {
    let mut lab = call();
    // Each packet of 10 ms begins like the end of a press, the first one like its start.
    let mut prompt = vec![0xd5; 160];
    prompt[..4].copy_from_slice(&[5, 0x0a, 0, 100]);
    lab.host.prompts.insert(0, Arc::from(prompt));
    assert_eq!(lab.ask("Q c f t ttl && M3:1 k 0 h"), "60");
    assert_eq!(lab.ask("P c /prompt 0 t f"), "0");
    lab.pass(Duration::from_millis(50));
    assert_eq!(lab.sent(), [], "hidden from the callee");
    assert_eq!(lab.ask("G npkts_played"), "2");
    assert_eq!(lab.ask("Q c f t ttl && M3:1 k 0"), "60");
    assert_eq!(lab.ask("P c /prompt 0 t f"), "0");
    lab.pass(Duration::from_millis(50));
    assert_eq!(lab.sent().len(), 2);
}

#[test]
fn a_fork_has_watches_of_its_own() {
    let mut lab = call();
    assert_eq!(lab.ask("Q c f t ttl && M3:1 call 101 h"), "60");
    let fork = "U r 127.0.0.5 5000 rf rt /n timeout && L 127.0.0.5 5002 && C c f t";
    assert_eq!(lab.ask(fork), "22004 127.0.0.1 && 22006 127.0.0.1");
    // Hidden from the callee, not from the fork.
    let (lines, packets) = press(&mut lab, 8000, 5);
    assert_eq!((lines, packets), (vec!["call 5 10 320 0\n".to_owned()], 2));
    assert_eq!(lab.sent()[0].2, "127.0.0.5:5000".parse().unwrap());
    // What the caller says is, to the fork, said by the fork's callee.
    assert_eq!(lab.ask("Q r rt rf ttl && M3:1 fork 101 h"), "60");
    let (lines, packets) = press(&mut lab, 9000, 6);
    assert_eq!((lines, packets), (vec!["call 6 10 320 0\n".to_owned(), "fork 6 10 320 1\n".to_owned()], 0));
}

#[test]
fn hidden_packets_do_not_keep_a_call() {
    let mut lab = call();
    assert_eq!(lab.ask("Q c f t ttl && M3:1 k 101 h"), "60");
    lab.pass(Duration::from_secs(10));
    press(&mut lab, 8000, 5);
    assert_eq!(lab.ask("Q c f t ttl"), "50");
    lab.rtp(CALLER, 22002, 7, 1);
    assert_eq!(lab.ask("Q c f t ttl"), "60");
}

#[test]
fn hidden_packets_are_recorded() {
    let mut lab = call();
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(lab.ask("Q c f t ttl && M3:1 k 101 h"), "60");
    lab.datagram(CALLER, 22002, &event(101, 8000, 5, false, 160));
    let recorded = lab.out.effects.iter().filter(|effect| matches!(effect, Effect::Record(_)));
    assert_eq!((recorded.count(), lab.sent().len()), (1, 0));
}

#[test]
fn a_moved_call_keeps_its_watches_and_what_they_saw() {
    let mut lab = call();
    assert_eq!(lab.ask("Q c f t ttl && M3:1 k"), "60");
    lab.datagram(CALLER, 22002, &event(101, 8000, 5, false, 160));
    let state = lab.engine.export(&CallId::from("c")).unwrap();
    lab.engine = Engine::new(EngineConfig::default(), lab.now);
    lab.engine.import(state, |pair| pair.id);
    lab.datagram(CALLER, 22002, &event(101, 8000, 5, true, 320));
    assert_eq!(told(&lab), ["k 5 10 320 0\n"]);
}

proptest! {
    #[test]
    fn no_datagram_upsets_a_watch(
        datagrams in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(prop_oneof![Just(0x80), Just(101), any::<u8>()], 0..20)), 0..40,
        ),
    ) {
        let mut lab = call();
        prop_assert_eq!(lab.ask("Q c f t ttl && M3:1 k 101 h"), "60");
        prop_assert_eq!(lab.ask("Q c t f ttl && M3:1 k 0"), "60");
        for (from_caller, datagram) in datagrams {
            let (from, port) = if from_caller { (CALLER, 22002) } else { (CALLEE, 22000) };
            let sent = lab.datagram(from, port, &datagram).len();
            let is_event = from_caller && datagram.len() >= 12 && datagram[0] >> 6 == 2 && datagram[1] & 0x7f == 101;
            prop_assert_eq!(sent, usize::from(!is_event));
        }
    }
}
