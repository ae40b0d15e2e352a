//! Sub-commands, and the forks that one of them makes.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use rtpproxy_core::config::EngineConfig;
use rtpproxy_core::effects::Effect;
use rtpproxy_core::recording::{Leg, RecordingEvent};
use support::Lab;

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Call `c` from `f` to `t`: the caller sends to 22002, the callee to 22000.
fn call() -> Lab {
    with_call(EngineConfig::default())
}

fn with_call(config: EngineConfig) -> Lab {
    let mut lab = Lab::with_engine(config);
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f t && L 127.0.0.1 30100"), "22000 127.0.0.1 && 22002 127.0.0.1");
    lab
}

#[test]
fn each_sub_command_tells_what_became_of_it() {
    for (command, reply) in [
        ("Q c f t && D", "60 0 0 0 0"),
        ("Q c f t && Dw", "60 0 0 0 0"),
        ("Qv c f t ttl && S ttl=7", "ttl=60"),
        ("Q c f t ttl && S tos=7 && Sr tos=8", "60"),
        ("L c 127.0.0.1 30100 f t && S ttl=7", "22002 127.0.0.1"),
        (
            "U c 127.0.0.1 30000 f t && S ttl=7 && L 127.0.0.1 30100",
            "22000 127.0.0.1 && 0 && 22002 127.0.0.1",
        ),
        (
            "U c 127.0.0.1 30000 f t && L 127.0.0.1 30100 && S ttl=7 && D",
            "22000 127.0.0.1 && 22002 127.0.0.1",
        ),
        ("U c 127.0.0.1 30000 f t && C x y z", "22000 127.0.0.1 && -1"),
        ("U c 127.0.0.1 30000 f t && D && S ttl=7 && C x y z && L 0 0", "22000 127.0.0.1 && 0 && 0 && -1"),
        ("U c 127.0.0.1 30000 f t && C c f t", "22000 127.0.0.1 && -1"),
        ("U c 127.0.0.1 30000 f t && D && D", "22000 127.0.0.1 && 0 && -1"),
        ("U c 127.0.0.1 30000 f t && Ln6l[2001:db8::1] ::1 30100", "22000 127.0.0.1 && -1"),
        ("U c 127.0.0.1 30000 f t && Ln6l[::1] ::1 30100 && S tos=7", "22000 127.0.0.1 && 22000 ::1 6"),
        (
            "U c 127.0.0.1 30000 f t && Ln6l[::1] ::1 30100 && Sr tos=7",
            "22000 127.0.0.1 && 22000 ::1 6 && -1",
        ),
        ("Q x f t && D", "E50"),
        ("Q c f t nope && D", "E62"),
        ("L x 127.0.0.1 30100 f t && D", "0"),
    ] {
        assert_eq!(call().ask(command), reply, "{command}");
    }
}

#[test]
fn what_is_wrong_with_one_is_e3_and_nothing_is_done() {
    let mut lab = call();
    for sub in [
        "S",
        "S ttl=0",
        "S ttl=x",
        "S TTL=5",
        "Sxx ttl=5",
        "S ttl=5 tos=5",
        "D x",
        "Dx",
        "L 0",
        "Lx 0 0",
        "Lz0 0 0",
        "Le9 0 0",
        "L 127.0.0.1 x",
        "C a b",
        "C a b c d",
        "Cs a b c",
        "M3:1 tag",
        "P a",
        "V",
    ] {
        assert_eq!(lab.ask(&format!("U c 127.0.0.9 9 f t && S ttl=5 && {sub}")), "E3", "{sub}");
    }
    for command in [
        "U c 127.0.0.9 9 f && L 0 0",
        "U c 127.0.0.9 9 f && C a b c",
        "L c 0 0 f t && L 0 0",
        "Q c f t && L 0 0",
        "Q c f t && C a b c",
        "D c f && S ttl=5",
    ] {
        assert_eq!(lab.ask(command), "E3", "{command}");
    }
    assert_eq!(lab.ask("Q c f t ttl"), "60");
    assert_eq!(lab.rtp("127.0.0.1:30100", 22000, 1, 1), [(22002, addr("127.0.0.1:30000"))]);
}

#[test]
fn a_session_is_torn_down_behind_the_last_sub_command() {
    let mut lab = Lab::with_engine(EngineConfig { accounting: true, ..EngineConfig::default() });
    let reply = lab.ask("U c 127.0.0.1 30000 f t && D && S tos=9 && L 127.0.0.1 30100");
    assert_eq!(reply, "22000 127.0.0.1 && 0 && 0 && 22002 127.0.0.1");
    let kinds: Vec<&str> = lab
        .out
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Close(_) => Some("close"),
            Effect::Ended(_) => Some("ended"),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, ["close", "close", "ended"]);
    assert_eq!(lab.host.open_ports(), 0);
    assert_eq!(lab.ask("G nsess_created nsess_complete nsess_destroyed nsess_nortp"), "1 1 1 1");
    assert_eq!(lab.ask("Q c f t"), "E50");
}

#[test]
fn d_takes_media_of_the_same_tag_along_up_to_its_own() {
    let mut lab = Lab::new();
    lab.ask("U c 127.0.0.1 30000 f;1");
    lab.ask("U c 127.0.0.1 30000 f");
    lab.ask("U c 127.0.0.1 30000 f;2");
    assert_eq!(lab.ask("Q c f && D"), "60 0 0 0 0");
    assert_eq!(lab.ask("Q c f;1 && D"), "E50");
    assert_eq!(lab.ask("Q c f;2 && D"), "60 0 0 0 0");
    assert_eq!(lab.ask("G nsess_destroyed"), "3");
}

#[test]
fn weak_references_are_given_up_by_the_first_party() {
    let mut lab = call();
    lab.ask("Lw c 127.0.0.1 30100 f t");
    assert_eq!(lab.ask("Q c f t ttl && D"), "60");
    assert_eq!(lab.ask("G nsess_destroyed"), "0");
    assert_eq!(lab.ask("Q c f t ttl && Dw"), "60");
    assert_eq!(lab.ask("G nsess_destroyed"), "1");
}

#[test]
fn the_time_of_a_session_is_set_now_and_for_later() {
    let mut lab = call();
    assert_eq!(lab.ask("Q c f t && Sx ttl=5"), "60 0 0 0 0");
    assert_eq!(lab.ask("Q c f t ttl"), "5");
    lab.pass(Duration::from_secs(3));
    assert_eq!(lab.ask("Q c f t ttl"), "2");
    lab.rtp("127.0.0.1:30000", 22002, 1, 1);
    assert_eq!(lab.ask("Q c f t ttl"), "5");
    lab.pass(Duration::from_secs(6));
    assert_eq!(lab.ask("Q c f t ttl"), "E50");
    assert_eq!(lab.ask("U h 127.0.0.1 30000 f && S ttl=7"), "22004 127.0.0.1");
    assert_eq!(lab.ask("Q h f"), "7 0 0 0 0", "half open as well");
    lab.ask("L h 127.0.0.1 30100 f t");
    assert_eq!(lab.ask("Q h f"), "7 0 0 0 0");
}

#[test]
fn with_independent_timers_the_time_is_that_of_one_side() {
    let mut lab = with_call(EngineConfig { independent_timers: true, ..EngineConfig::default() });
    assert_eq!(lab.ask("Q c f t && S ttl=100 && Sr ttl=50"), "60 0 0 0 0");
    assert_eq!(lab.ask("Q c f t ttl"), "50");
    lab.pass(Duration::from_secs(20));
    lab.rtp("127.0.0.1:30100", 22000, 1, 1);
    assert_eq!(lab.ask("Q c f t ttl"), "50", "the callee's");
    assert_eq!(lab.ask("Q c t f && S ttl=200"), "50 1 0 1 0");
    assert_eq!(lab.ask("Q c f t ttl"), "80", "the caller's is the lower one now");
}

#[test]
fn the_tos_byte_is_set_and_remembered() {
    let mut lab = Lab::new();
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f && S tos=8 && Sr tos=300"), "22000 127.0.0.1");
    assert_eq!(
        lab.tos_set(),
        [(22000, 44)],
        "cut to a byte, as the kernel does; the caller's side has no socket"
    );
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    assert_eq!(lab.tos_set(), [(22002, 8)]);
    assert_eq!(lab.ask("Ln c 127.0.0.1 30100 f t"), "22004 127.0.0.1");
    assert_eq!(lab.tos_set(), [(22004, 8)]);
    assert_eq!(lab.ask("U6 d ::1 30000 f && S tos=8"), "22000 ::1 6 && -1");
}

/// The call `c`, and a session `r` of a recorder with its two ports, forked from `c` with these tags.
fn forked(tags: &str) -> Lab {
    let mut lab = call();
    let reply = lab.ask(&format!("U r 127.0.0.5 5000 rf rt && L 127.0.0.5 5002 && C c {tags}"));
    assert_eq!(reply, "22004 127.0.0.1 && 22006 127.0.0.1");
    lab
}

#[test]
fn a_fork_gets_what_both_parties_send() {
    let mut lab = forked("f t");
    let caller = [(22006, addr("127.0.0.5:5000")), (22000, addr("127.0.0.1:30100"))];
    assert_eq!(lab.rtp("127.0.0.1:30000", 22002, 1, 1), caller);
    let callee = [(22004, addr("127.0.0.5:5002")), (22002, addr("127.0.0.1:30000"))];
    assert_eq!(lab.rtp("127.0.0.1:30100", 22000, 2, 1), callee);
    let rtcp = [(22007, addr("127.0.0.5:5001")), (22001, addr("127.0.0.1:30101"))];
    assert_eq!(lab.datagram("127.0.0.1:30001", 22003, b"report"), rtcp);
    let rtcp = [(22005, addr("127.0.0.5:5003")), (22003, addr("127.0.0.1:30001"))];
    assert_eq!(lab.datagram("127.0.0.1:30101", 22001, b"report"), rtcp);
    assert_eq!(lab.ask("Q r rf rt"), "60 0 0 0 0", "the fork counts nothing");
    assert_eq!(lab.ask("G npkts_rcvd npkts_relayed"), "4 4");
}

#[test]
fn the_tags_of_a_fork_may_be_given_the_other_way_round() {
    let mut lab = forked("t f");
    let caller = [(22004, addr("127.0.0.5:5002")), (22000, addr("127.0.0.1:30100"))];
    assert_eq!(lab.rtp("127.0.0.1:30000", 22002, 1, 1), caller);
    // Without L between, "in" is still the party of the U.
    assert_eq!(lab.ask("U r 127.0.0.5 5000 rf rt && C c t f"), "22004 127.0.0.1");
    let caller = [(22006, addr("127.0.0.5:5000")), (22000, addr("127.0.0.1:30100"))];
    assert_eq!(
        lab.rtp("127.0.0.1:30000", 22002, 1, 2),
        caller,
        "the same fork again takes the place of the first"
    );
}

#[test]
fn a_fork_that_misses_a_leg_sends_nothing() {
    let mut lab = call();
    assert_eq!(lab.ask("U r 127.0.0.5 5000 rf rt && C c f t"), "22004 127.0.0.1");
    assert_eq!(lab.rtp("127.0.0.1:30000", 22002, 1, 1).len(), 1);
    lab.ask("L r 0 0 rf rt");
    assert_eq!(lab.rtp("127.0.0.1:30100", 22000, 2, 1).len(), 2);
    assert_eq!(lab.rtp("127.0.0.1:30000", 22002, 1, 2).len(), 1, "that party's address is not known");
}

#[test]
fn a_fork_is_taken_also_where_the_call_has_no_way() {
    let mut lab = Lab::new();
    lab.ask("U c 127.0.0.1 30000 f t && L 0 0");
    lab.ask("U r 127.0.0.5 5000 rf rt && L 127.0.0.5 5002 && C c f t");
    assert_eq!(lab.rtp("127.0.0.1:30000", 22002, 1, 1), [(22006, addr("127.0.0.5:5000"))]);
}

#[test]
fn what_the_parties_of_a_fork_say_goes_nowhere() {
    let mut lab = forked("f t");
    lab.pass(Duration::from_secs(10));
    assert_eq!(lab.rtp("127.0.0.5:5000", 22006, 9, 1), []);
    assert_eq!(lab.ask("Q r rf rt"), "50 1 0 0 1", "it does not even keep the session alive");
    lab.rtp("127.0.0.1:30000", 22002, 1, 1);
    assert_eq!(lab.ask("Q r rf rt ttl"), "60", "the call does");
}

#[test]
fn the_recordings_of_a_fork_hold_what_it_gets() {
    let mut lab = forked("f t");
    assert_eq!(lab.ask("R r rf rt"), "0");
    let started = lab.out.effects.iter().any(|e| matches!(e, Effect::Recording(RecordingEvent::Start(_))));
    assert!(started);
    assert_eq!(lab.ask("C r udp:127.0.0.9:9000 rt rf"), "0");
    let sent = lab.rtp("127.0.0.1:30000", 22002, 1, 1);
    // It leaves from the caller's side of the fork, as if the fork's callee had said it.
    let copied =
        [(22008, addr("127.0.0.9:9000")), (22006, addr("127.0.0.5:5000")), (22000, addr("127.0.0.1:30100"))];
    assert_eq!(sent, copied);
    let record = lab.out.effects.iter().find_map(|e| if let Effect::Record(r) = e { Some(r) } else { None });
    let record = record.expect("a packet is recorded");
    assert_eq!(
        (record.leg, record.src, record.dst),
        (Leg::Callee, addr("127.0.0.1:30000"), addr("127.0.0.1:22004"))
    );
}

#[test]
fn a_fork_ends_with_its_session() {
    let mut lab = forked("f t");
    assert_eq!(lab.ask("D r rf"), "0");
    assert_eq!(lab.rtp("127.0.0.1:30000", 22002, 1, 1).len(), 1);
    // A new session in its place gets nothing.
    lab.ask("U n 127.0.0.5 5000 rf rt && L 127.0.0.5 5002");
    assert_eq!(lab.rtp("127.0.0.1:30000", 22002, 1, 2).len(), 1);
}

#[test]
fn without_its_source_a_fork_times_out() {
    let mut lab = forked("f t");
    assert_eq!(lab.ask("D c f"), "0");
    // A new session takes the number of the source.
    lab.ask("U n 127.0.0.1 30000 f t && L 127.0.0.1 30100");
    for _ in 0..7 {
        lab.rtp("127.0.0.5:5000", 22006, 9, 1);
        lab.pass(Duration::from_secs(10));
    }
    assert_eq!(lab.ask("Q r rf rt"), "E50");
    assert_eq!(lab.ask("G nsess_timeout"), "2");
}

#[test]
fn small_packets_go_twice_to_a_fork_too() {
    let mut lab = with_call(EngineConfig { double_send: true, ..EngineConfig::default() });
    lab.ask("U r 127.0.0.5 5000 rf rt && L 127.0.0.5 5002 && C c f t");
    assert_eq!(lab.datagram("127.0.0.1:30000", 22002, b"small").len(), 4);
}

#[test]
fn a_call_in_a_fork_cannot_leave_its_engine() {
    let mut lab = forked("f t");
    let (source, target) = ("c".into(), "r".into());
    assert!(!lab.engine.can_leave(&source) && !lab.engine.can_leave(&target));
    let state = lab.engine.export(&target).expect("it is there");
    assert!(lab.engine.can_leave(&source), "its forks ended");
    lab.engine.import(state, |pair| pair.id);
    assert_eq!(lab.rtp("127.0.0.1:30000", 22002, 1, 1).len(), 1);
    lab.ask("R c f t");
    assert!(!lab.engine.can_leave(&source), "recorded");
}
