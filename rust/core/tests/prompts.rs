//! Prompts in virtual time: who hears them, when, what their packets look like, and what they displace.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use rtpproxy_core::addr::LocalAddr;
use rtpproxy_core::command::{AnyRules, CallId, parse};
use rtpproxy_core::config::EngineConfig;
use rtpproxy_core::effects::{Effect, PairId, Payload};
use rtpproxy_core::engine::Engine;
use rtpproxy_core::front::{LocalChoice, Request};
use rtpproxy_core::rtp::RtpView;
use rtpproxy_core::time::Now;
use support::Lab;

const CALLER: &str = "127.0.0.1:30000";
const CALLEE: &str = "127.0.0.1:30100";

/// A packet of a prompt, as it left.
#[derive(Clone, Debug, PartialEq)]
struct Played {
    at_ms: u64,
    port: u16,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Played {
    fn rtp(&self) -> RtpView<'_> {
        RtpView::parse(&self.bytes).expect("prompts are RTP")
    }
}

/// Prompts of 50 ms in PCMU and PCMA, and of 60 ms in G.729. The callee sends to 22000, the caller to 22002.
fn call() -> Lab {
    call_with(EngineConfig::default())
}

fn call_with(config: EngineConfig) -> Lab {
    let mut lab = lab_with(config);
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    lab
}

fn lab_with(config: EngineConfig) -> Lab {
    let mut lab = Lab::with_engine(config);
    for (payload_type, len) in [(0, 400), (8, 400), (18, 60)] {
        lab.host.prompts.insert(payload_type, (0..len).map(|at| at as u8).collect());
    }
    lab
}

/// Lets time pass; the packets that were sent by themselves, with the time since now.
fn listen(lab: &mut Lab, ms: u64) -> Vec<Played> {
    let (start, mut played) = (lab.now.mono, Vec::new());
    let end = start + Duration::from_millis(ms);
    while lab.now.mono < end {
        lab.out.clear();
        let next = lab.engine.next_deadline().min(end);
        lab.now = lab.now + next.since(lab.now.mono);
        let now = lab.now;
        lab.engine.handle_timeout(now, &mut lab.out);
        played.extend(sent(lab).map(|(port, to, bytes)| {
            let at_ms = u64::try_from(now.mono.since(start).as_millis()).expect("a short test");
            Played { at_ms, port, to, bytes }
        }));
    }
    played
}

fn sent(lab: &Lab) -> impl Iterator<Item = (u16, SocketAddr, Vec<u8>)> {
    lab.out.effects.iter().filter_map(|effect| match effect {
        Effect::Send { payload: Payload::Scratch(range), via, to } => {
            let port = lab.host.port_of(via.pair).expect("sends from an open pair");
            Some((port, *to, lab.out.scratch[range.clone()].to_vec()))
        }
        _ => None,
    })
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A command with modifiers that no front has judged.
fn ask_engine(lab: &mut Lab, command: &str) -> String {
    let command = parse(command.as_bytes(), &mut AnyRules).expect("the grammar takes it");
    let default = LocalAddr::plain("127.0.0.1".parse().expect("an address"));
    let locals = Some(LocalChoice { replace: None, directions: Vec::new(), default });
    let request = Request { command, locals, sub_locals: Vec::new(), notify: None, copy: None };
    let reply = lab.engine.handle_command(lab.now, &request, &mut lab.host, &mut lab.out);
    String::from_utf8(reply.encode()).expect("replies are text").trim_end().to_owned()
}

#[test]
fn the_first_party_hears_the_prompt_in_even_steps() {
    for (tags, port, listener) in [("f t", 22002, CALLER), ("f", 22002, CALLER), ("t f", 22000, CALLEE)] {
        let mut lab = call();
        assert_eq!(lab.ask(&format!("P c prompt 8 {tags}")), "0");
        let played = listen(&mut lab, 200);
        assert_eq!(played.iter().map(|packet| packet.at_ms).collect::<Vec<_>>(), [0, 10, 20, 30, 40]);
        let first = played[0].rtp();
        for (number, packet) in played.iter().enumerate() {
            assert_eq!((packet.port, packet.to), (port, addr(listener)));
            let rtp = packet.rtp();
            assert_eq!((rtp.payload_type(), rtp.ssrc(), rtp.marker()), (8, first.ssrc(), number == 0));
            assert_eq!(usize::from(rtp.sequence().wrapping_sub(first.sequence())), number);
            assert_eq!(rtp.timestamp().wrapping_sub(first.timestamp()) as usize, number * 80);
            assert_eq!(rtp.payload(), &lab.host.prompts[&8][number * 80..][..80]);
        }
    }
}

#[test]
fn a_fork_hears_the_prompt_as_what_the_other_party_says() {
    let mut lab = call();
    lab.ask("U r 127.0.0.5 5000 rf rt && L 127.0.0.5 5002 && C c f t");
    assert_eq!(lab.ask("P c prompt 8 f t"), "0");
    let played = listen(&mut lab, 200);
    let [to_caller, to_fork]: [Vec<&Played>; 2] =
        [22002, 22004].map(|port| played.iter().filter(|packet| packet.port == port).collect());
    assert_eq!((to_caller.len(), to_fork.len()), (5, 5));
    for (packet, forked) in to_caller.iter().zip(&to_fork) {
        assert_eq!((forked.to, &forked.bytes), (addr("127.0.0.5:5002"), &packet.bytes));
    }
    assert_eq!(lab.ask("G npkts_played"), "5");
}

#[test]
fn the_count_says_how_often() {
    for (letters, packets) in [("P", 5), ("P1", 5), ("P3", 15), ("P0", 0), ("P-1", 100)] {
        let mut lab = call();
        assert_eq!(lab.ask(&format!("{letters} c prompt 0 f t")), "0");
        let played = listen(&mut lab, 995);
        assert_eq!(played.len(), packets, "{letters}");
        let expected = u64::from(letters != "P0");
        let ended = if letters == "P-1" { 0 } else { expected };
        assert_eq!(lab.ask("G nplrs_created nplrs_destroyed"), format!("{expected} {ended}"), "{letters}");
        let markers = played.iter().filter(|packet| packet.rtp().marker()).count();
        assert_eq!(markers, usize::from(letters != "P0"), "{letters}");
    }
}

#[test]
fn codecs_are_tried_in_order() {
    for (codecs, reply) in [
        ("0", Ok(0)),
        ("18,0", Ok(18)),
        ("3,9,8,0", Ok(8)),
        ("101,0", Ok(0)),
        ("-1,300,0", Ok(0)),
        ("0,x", Ok(0)),
        ("+08", Ok(8)),
        ("3,9", Err("E60")),
        ("101", Err("E60")),
        ("x,0", Err("E60")),
        ("3,,0", Err("E60")),
        ("SESSION", Err("E60")),
        ("session", Err("E35")),
    ] {
        let mut lab = call();
        lab.host.prompts.insert(101, vec![0; 400].into());
        let answer = lab.ask(&format!("P c prompt {codecs} f t"));
        match reply {
            Ok(payload_type) => {
                assert_eq!(answer, "0", "{codecs}");
                assert_eq!(listen(&mut lab, 5)[0].rtp().payload_type(), payload_type, "{codecs}");
            }
            Err(code) => assert_eq!(answer, code, "{codecs}"),
        }
    }
}

#[test]
fn session_takes_the_list_of_the_listener_and_the_ptime_that_the_other_party_asked_for() {
    let mut lab = lab_with(EngineConfig::default());
    ask_engine(&mut lab, "Uc18,0,101 c 127.0.0.1 30000 f");
    ask_engine(&mut lab, "Lc8z60 c 127.0.0.1 30100 f t");
    assert_eq!(lab.ask("P c prompt session f t"), "0");
    let played = listen(&mut lab, 100);
    assert_eq!(played.len(), 1);
    assert_eq!((played[0].rtp().payload_type(), played[0].rtp().payload().len()), (18, 60));

    // The caller asked for nothing: 10 ms, and the callee's list.
    assert_eq!(lab.ask("P c prompt session t f"), "0");
    let played = listen(&mut lab, 100);
    assert_eq!(played.len(), 5);
    assert_eq!((played[0].rtp().payload_type(), played[0].rtp().payload().len()), (8, 80));

    // A list in the command goes with 10 ms.
    assert_eq!(lab.ask("P c prompt 18 f t"), "0");
    assert_eq!(listen(&mut lab, 100).len(), 6);

    // A later command without c and z forgets both.
    ask_engine(&mut lab, "Uc18 c 127.0.0.1 30000 f");
    ask_engine(&mut lab, "L c 127.0.0.1 30100 f t");
    assert_eq!(lab.ask("P c prompt session f t"), "0");
    assert_eq!(listen(&mut lab, 100).len(), 6);
    assert_eq!(lab.ask("P c prompt session t f"), "E35");
    assert_eq!(lab.ask("P0 c prompt session t f"), "E35");
}

#[test]
fn while_a_party_hears_a_prompt_it_hears_nothing_else() {
    let mut lab = call();
    lab.rtp(CALLER, 22002, 1, 1);
    lab.rtp(CALLEE, 22000, 2, 1);
    assert_eq!(lab.ask("R c f t"), "0");
    assert_eq!(lab.ask("P-1 c prompt 0 f t"), "0");
    assert_eq!(lab.rtp(CALLEE, 22000, 2, 2), []);
    assert_eq!(recorded(&lab), 0, "what the listener does not hear is not recorded");
    assert_eq!(lab.rtp(CALLER, 22002, 1, 2), [(22000, addr(CALLEE))], "the other way is open");
    assert_eq!(recorded(&lab), 1);
    let report = lab.datagram("127.0.0.1:30101", 22001, &[0x80, 200, 0, 0]);
    assert_eq!(report, [(22003, addr("127.0.0.1:30001"))], "RTCP passes");
    assert_eq!(lab.ask("Qv c t f npkts_ina nrelayed ndropped"), "npkts_ina=2 nrelayed=3 ndropped=1");

    assert_eq!(listen(&mut lab, 25).len(), 3);
    assert_eq!(recorded(&lab), 0, "prompts are not recorded");
    assert_eq!(lab.ask("G npkts_played npkts_relayed npkts_discard"), "3 4 1");
    assert!(lab.ask("I").ends_with("packets received: 5\npackets transmitted: 7"));
    assert_eq!(lab.ask("Q c f t nrelayed"), "3");

    assert_eq!(lab.ask("S c f t"), "0");
    assert_eq!(lab.rtp(CALLEE, 22000, 2, 3), [(22002, addr(CALLER))]);
    assert_eq!(listen(&mut lab, 100), []);
}

fn recorded(lab: &Lab) -> usize {
    lab.out.effects.iter().filter(|effect| matches!(effect, Effect::Record(_))).count()
}

#[test]
fn the_end_is_noticed_when_the_next_packet_would_be_due() {
    let mut lab = call();
    lab.ask("P c prompt 0 f t");
    assert_eq!(listen(&mut lab, 49).len(), 5);
    assert_eq!(lab.rtp(CALLEE, 22000, 2, 1), []);
    assert_eq!(listen(&mut lab, 1), []);
    assert_eq!(lab.rtp(CALLEE, 22000, 2, 2).len(), 1);
    assert_eq!(lab.ask("G nplrs_created nplrs_destroyed"), "1 1");

    lab.host.prompts.insert(0, vec![0; 79].into());
    assert_eq!(lab.ask("P-1 c prompt 0 f t"), "0", "too short for a packet");
    assert_eq!(listen(&mut lab, 1), []);
    assert_eq!(lab.ask("G nplrs_created nplrs_destroyed"), "2 2");
}

#[test]
fn a_prompt_waits_for_the_port_and_the_address_of_its_listener() {
    let mut lab = lab_with(EngineConfig::default());
    lab.ask("U c 0 0 f");
    assert_eq!(lab.ask("P c prompt 0 f t"), "0", "the caller has no port yet");
    assert_eq!(lab.ask("P c prompt 8 t f"), "0");
    assert_eq!(listen(&mut lab, 500), []);
    lab.ask("L c 127.0.0.1 30100 f t");
    let played = listen(&mut lab, 5);
    assert_eq!(played.len(), 1, "the callee's address came with L");
    assert_eq!((played[0].to, played[0].rtp().marker()), (addr(CALLEE), true));
    assert_eq!(lab.rtp(CALLEE, 22000, 2, 1), [], "relaying to the caller is held up already");
    assert_eq!(listen(&mut lab, 500).len(), 4);

    assert_eq!(lab.rtp(CALLER, 22002, 1, 1), [(22000, addr(CALLEE))]);
    let played = listen(&mut lab, 500);
    assert_eq!(played.iter().map(|packet| packet.at_ms).collect::<Vec<_>>(), [0, 10, 20, 30, 40]);
    assert!(played.iter().all(|packet| packet.to == addr(CALLER)));
}

#[test]
fn a_new_prompt_and_whatever_p_stop_the_old_one() {
    for (command, reply) in [
        ("P0 c prompt 0 f t", "0"),
        ("P0 c prompt x f t", "0"),
        ("P c prompt 3 f t", "E60"),
        ("P c prompt session f t", "E35"),
        ("S c f t", "0"),
        ("S c f", "0"),
    ] {
        let mut lab = call();
        lab.ask("P-1 c prompt 0 f t");
        listen(&mut lab, 5);
        assert_eq!(lab.ask(command), reply, "{command}");
        assert_eq!(listen(&mut lab, 100), [], "{command}");
        assert_eq!(lab.ask("G nplrs_created nplrs_destroyed"), "1 1", "{command}");
    }
    let mut lab = call();
    lab.ask("P-1 c prompt 0 f t");
    let old = listen(&mut lab, 15);
    lab.ask("P-1 c prompt 8 f t");
    let new = listen(&mut lab, 15);
    assert_eq!((old.len(), new.len()), (2, 2));
    assert_eq!((new[0].rtp().payload_type(), new[0].rtp().marker()), (8, true));
    assert_ne!(new[0].rtp().ssrc(), old[0].rtp().ssrc());
    assert_eq!(lab.ask("S c t f"), "0", "the other party hears none");
    assert_eq!(lab.ask("G nplrs_created nplrs_destroyed"), "2 1");
    for command in ["P x prompt 0 f t", "P0 x prompt 0 f t", "S x f t", "S c nobody"] {
        assert_eq!(lab.ask(command), "E50", "{command}");
    }
}

#[test]
fn a_prompt_follows_its_listener_to_a_new_port_and_address() {
    let mut lab = call();
    lab.ask("P-1 c prompt 0 f t");
    assert_eq!(listen(&mut lab, 10)[0].port, 22002);
    assert_eq!(lab.ask("Ln c 127.0.0.1 30100 f t"), "22004 127.0.0.1");
    assert_eq!(listen(&mut lab, 10)[0].port, 22004);
    lab.ask("U c 127.0.0.1 30008 f");
    assert_eq!(listen(&mut lab, 10)[0].to, addr("127.0.0.1:30008"));
}

#[test]
fn prompts_keep_a_session_alive_for_the_other_party() {
    let config =
        EngineConfig { max_ttl_s: 3, setup_ttl_s: 3, independent_timers: true, ..EngineConfig::default() };
    for (is_independent, lives) in [(false, true), (true, false)] {
        let mut lab = call_with(EngineConfig { independent_timers: is_independent, ..config.clone() });
        lab.ask("P-1 c prompt 0 f t");
        listen(&mut lab, 10_000);
        assert_eq!(lab.ask("Q c f t ttl") != "E50", lives, "{is_independent}");
    }
    let mut lab = call_with(config);
    lab.ask("P-1 c prompt 0 f t");
    for sequence in 0..10 {
        lab.rtp(CALLER, 22002, 1, sequence);
        listen(&mut lab, 1000);
    }
    assert_eq!(lab.ask("Q c f t ttl"), "2", "the listener speaks, the prompt stands for the other one");
}

#[test]
fn players_end_with_their_session() {
    let mut lab = call();
    lab.ask("P-1 c prompt 0 f t");
    lab.ask("P-1 c prompt 0 t f");
    listen(&mut lab, 5);
    lab.ask("D c f t");
    assert_eq!(lab.ask("G nplrs_created nplrs_destroyed"), "2 2");
    // The next session takes the same place in the tables, and hears nothing of the old one's prompts.
    lab.ask("U d 127.0.0.1 30000 f");
    lab.ask("L d 127.0.0.1 30100 f t");
    assert_eq!(listen(&mut lab, 1000), []);
}

#[test]
fn small_packets_of_prompts_go_twice_if_asked_for() {
    let mut lab = call_with(EngineConfig { double_send: true, ..EngineConfig::default() });
    lab.ask("P c prompt 0 f t");
    let played = listen(&mut lab, 5);
    assert_eq!(played.len(), 2);
    assert_eq!(played[0], played[1]);
    assert_eq!(lab.ask("G npkts_played"), "1");
}

#[test]
fn a_late_worker_catches_up() {
    let mut lab = call();
    lab.ask("P c prompt 0 f t");
    lab.now = lab.now + Duration::from_millis(25);
    let Now { mono, .. } = lab.now;
    lab.engine.handle_timeout(lab.now, &mut lab.out);
    assert_eq!(sent(&lab).count(), 3);
    assert_eq!(lab.engine.next_deadline().since(mono), Duration::from_millis(5));
}

#[test]
fn a_prompt_goes_on_in_another_engine() {
    let mut lab = call();
    lab.ask("P c prompt 0 f t");
    let before = listen(&mut lab, 15);
    let state = lab.engine.export(&CallId::from("c")).expect("the call is there");
    assert_eq!(listen(&mut lab, 20), []);
    let mut other = Engine::new(EngineConfig::default(), lab.now);
    other.import(state, |pair| PairId(pair.id.0));
    lab.engine = other;
    let after = listen(&mut lab, 100);
    assert_eq!((before.len(), after.len()), (2, 3));
    assert_eq!(after[0].rtp().sequence(), before[1].rtp().sequence().wrapping_add(1));
}
