//! Who may speak for a party: the two attacks (RTP Bleed, RTP Inject) and the phones that must get through.

mod support;

use std::time::Duration;

use rtpproxy_core::config::{EngineConfig, LatchMode};
use rtpproxy_core::effects::Effect;
use rtpproxy_core::recording::{Mark, RecordingEvent};
use support::{Lab, rtp};

const CALLER: &str = "127.0.0.1:30000";
const CALLEE: &str = "127.0.0.1:30100";
const STRANGER: &str = "127.0.0.66:6666";

/// Ports: the callee sends to 22000, the caller to 22002.
fn call(latch: LatchMode) -> Lab {
    let mut lab = Lab::with_engine(EngineConfig { latch, ..EngineConfig::default() });
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    lab
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn goes_to(lab: &mut Lab) -> String {
    let sent = lab.rtp(CALLEE, 22000, 77, 1);
    sent.first().expect("the callee is relayed").1.to_string()
}

#[test]
fn the_signalled_address_locks_at_once_and_strangers_are_refused() {
    for mode in [LatchMode::Nat, LatchMode::Strict, LatchMode::Legacy] {
        let mut lab = call(mode);
        assert_eq!(lab.rtp(CALLER, 22002, 1, 1).len(), 1, "{mode:?}");
        for sequence in 0..50 {
            lab.pass(ms(20));
            assert_eq!(lab.rtp(STRANGER, 22002, 2, sequence).len(), 0, "{mode:?}");
            assert_eq!(lab.rtp(CALLER, 22002, 1, sequence + 2).len(), 1, "{mode:?}");
        }
        assert_eq!(goes_to(&mut lab), CALLER, "{mode:?}");
    }
}

#[test]
fn a_stranger_that_comes_first_gets_the_call_only_in_legacy() {
    let mut lab = call(LatchMode::Legacy);
    for sequence in 0..3 {
        lab.rtp(STRANGER, 22002, 2, sequence);
    }
    assert_eq!(goes_to(&mut lab), STRANGER);

    for mode in [LatchMode::Nat, LatchMode::Strict] {
        let mut lab = call(mode);
        for sequence in 0..3 {
            assert_eq!(lab.rtp(STRANGER, 22002, 2, sequence).len(), 0, "{mode:?}");
            lab.pass(ms(20));
        }
        assert_eq!(goes_to(&mut lab), CALLER, "{mode:?}");
    }
}

#[test]
fn a_stranger_behind_nat_is_taken_after_four_packets_and_heard_after_200_ms() {
    let mut lab = call(LatchMode::Nat);
    for sequence in 0..3 {
        assert_eq!(lab.rtp(STRANGER, 22002, 2, sequence).len(), 0);
        lab.pass(ms(20));
    }
    assert_eq!(lab.rtp(STRANGER, 22002, 2, 3).len(), 1, "the fourth, 60 ms after the first");
    assert_eq!(goes_to(&mut lab), CALLER, "nothing goes to it before 200 ms have passed");
    let rtcp = lab.datagram(CALLEE.replace("30100", "30101").as_str(), 22001, &[0x80, 200, 0, 6]);
    assert_eq!(rtcp[0].1.to_string(), "127.0.0.1:30001", "RTCP waits too");
    lab.pass(ms(140));
    assert_eq!(goes_to(&mut lab), STRANGER);
}

#[test]
fn the_signalled_address_outranks_a_stranger_that_was_taken() {
    let mut lab = call(LatchMode::Nat);
    for sequence in 0..10 {
        lab.rtp(STRANGER, 22002, 2, sequence);
        lab.pass(ms(40));
    }
    assert_eq!(goes_to(&mut lab), STRANGER);
    assert_eq!(lab.rtp(CALLER, 22002, 1, 500).len(), 1);
    assert_eq!(goes_to(&mut lab), CALLER);
    assert_eq!(lab.rtp(STRANGER, 22002, 2, 10).len(), 0);
}

#[test]
fn the_signalled_host_outranks_a_stranger_while_media_waits_for_it() {
    let mut lab = call(LatchMode::Nat);
    for sequence in 0..4 {
        lab.rtp(STRANGER, 22002, 2, sequence);
        lab.pass(ms(30));
    }
    assert_eq!(lab.rtp("127.0.0.1:31234", 22002, 1, 500).len(), 1, "120 ms after the stranger's first");
    assert_eq!(goes_to(&mut lab), "127.0.0.1:31234");
    assert_eq!(lab.rtp(STRANGER, 22002, 2, 4).len(), 0);
    lab.pass(ms(400));
    assert_eq!(lab.rtp(STRANGER, 22002, 2, 20).len(), 0);

    let mut lab = call(LatchMode::Nat);
    for sequence in 0..7 {
        lab.rtp(STRANGER, 22002, 2, sequence);
        lab.pass(ms(30));
    }
    assert_eq!(lab.rtp("127.0.0.1:31234", 22002, 1, 500).len(), 0, "too late");
}

#[test]
fn a_flood_of_one_host_does_not_push_a_phone_behind_nat_out() {
    let mut lab = call(LatchMode::Nat);
    for ssrc in 100..104 {
        lab.rtp(STRANGER, 22002, ssrc, 1);
    }
    for sequence in 0..3 {
        assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 1, sequence).len(), 0);
        for ssrc in 0..20 {
            lab.pass(ms(1));
            lab.rtp(STRANGER, 22002, 1000 + ssrc, sequence);
            lab.rtp(&format!("127.0.0.66:{}", 7000 + ssrc), 22002, 5, sequence);
        }
    }
    assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 1, 3).len(), 1);
}

#[test]
fn a_phone_behind_nat_comes_back_from_another_port_after_hold() {
    for same_offer_while_silent in [false, true] {
        let mut lab = call(LatchMode::Nat);
        for sequence in 0..5 {
            lab.rtp("127.0.0.9:5555", 22002, 1, sequence);
            lab.pass(ms(20));
        }
        lab.ask("U c 0.0.0.0 30000 f t");
        lab.pass(ms(30_000));
        if same_offer_while_silent {
            lab.ask("U c 127.0.0.1 30000 f t");
        }
        let relayed: usize = (0..4)
            .map(|sequence| {
                lab.pass(ms(20));
                lab.rtp("127.0.0.9:6666", 22002, 7, sequence).len()
            })
            .sum();
        assert_eq!(relayed, usize::from(same_offer_while_silent));
    }
    // While the phone speaks, an offer that repeats its address lets nobody else in, now or later.
    let mut lab = call(LatchMode::Nat);
    for sequence in 0..50 {
        lab.rtp("127.0.0.9:5555", 22002, 1, sequence);
        if sequence == 20 {
            lab.ask("U c 127.0.0.1 30000 f t");
        }
        assert_eq!(lab.rtp(STRANGER, 22002, 2, sequence).len(), 0);
        lab.pass(ms(20));
    }
    lab.pass(ms(1000));
    for sequence in 50..60 {
        assert_eq!(lab.rtp(STRANGER, 22002, 2, sequence).len(), 0);
        lab.pass(ms(20));
    }
}

#[test]
fn fast_floods_gaps_and_changing_ssrcs_do_not_make_a_stranger_the_party() {
    let mut lab = call(LatchMode::Nat);
    for sequence in 0..20 {
        assert_eq!(lab.rtp(STRANGER, 22002, 2, sequence).len(), 0, "too fast: all within a moment");
    }
    let mut lab = call(LatchMode::Nat);
    for sequence in 0..20 {
        assert_eq!(lab.rtp(STRANGER, 22002, 2, sequence * 7).len(), 0, "not in sequence");
        lab.pass(ms(20));
    }
    for sequence in 0..20 {
        assert_eq!(lab.rtp(STRANGER, 22002, 100 + u32::from(sequence), sequence).len(), 0, "no stable SSRC");
        lab.pass(ms(20));
    }
    for sequence in 0..20 {
        assert_eq!(lab.datagram(STRANGER, 22002, &rtp(72, 3, sequence)).len(), 0, "implausible payload type");
        lab.pass(ms(20));
    }
    assert_eq!(goes_to(&mut lab), CALLER);
}

#[test]
fn the_codec_list_decides_which_payload_type_is_plausible() {
    let mut lab = Lab::new();
    lab.ask("Uc0,8,101 c 127.0.0.1 30000 f");
    lab.ask("L c 127.0.0.1 30100 f t");
    for sequence in 0..10 {
        assert_eq!(lab.datagram(STRANGER, 22002, &rtp(96, 3, sequence)).len(), 0);
        lab.pass(ms(20));
    }
    for sequence in 0..4 {
        lab.datagram(STRANGER, 22002, &rtp(8, 3, sequence));
        lab.pass(ms(20));
    }
    assert_eq!(lab.datagram(STRANGER, 22002, &rtp(8, 3, 4)).len(), 1);
}

#[test]
fn another_port_of_the_same_host_speaks_at_once_in_nat_and_never_in_strict() {
    let mut lab = call(LatchMode::Nat);
    assert_eq!(lab.rtp("127.0.0.1:31234", 22002, 1, 1).len(), 1);
    assert_eq!(goes_to(&mut lab), "127.0.0.1:31234");
    let mut lab = call(LatchMode::Strict);
    assert_eq!(lab.rtp("127.0.0.1:31234", 22002, 1, 1).len(), 0);
    assert_eq!(goes_to(&mut lab), CALLER);
}

#[test]
fn a_phone_that_changes_its_address_keeps_its_call_and_a_guesser_does_not_get_it() {
    let mut lab = call(LatchMode::Nat);
    lab.rtp(CALLER, 22002, 0xabcd, 1000);
    lab.pass(ms(20));
    assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 0xabcd, 1001).len(), 0, "the phone still speaks");
    lab.pass(ms(400));
    assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 0xabce, 1020).len(), 0, "wrong SSRC");
    assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 0xabcd, 999).len(), 0, "sequence goes back");
    assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 0xabcd, 3000).len(), 0, "sequence too far");
    assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 0xabcd, 1020).len(), 1);
    assert_eq!(goes_to(&mut lab), "127.0.0.9:5555");
    assert_eq!(
        lab.rtp(CALLER, 22002, 0xabcd, 1021).len(),
        1,
        "back to the signalled address is always allowed"
    );
}

#[test]
fn without_a_signalled_address_the_first_plausible_source_is_taken_but_not_in_strict() {
    for (mode, sent) in [(LatchMode::Nat, 1), (LatchMode::Legacy, 1), (LatchMode::Strict, 0)] {
        let mut lab = Lab::with_engine(EngineConfig { latch: mode, ..EngineConfig::default() });
        lab.ask("U c 0 0 f");
        lab.ask("L c 127.0.0.1 30100 f t");
        assert_eq!(lab.rtp(STRANGER, 22002, 1, 1).len(), sent, "{mode:?}");
    }
    let mut lab = Lab::new();
    lab.ask("U c 0 0 f");
    lab.ask("L c 127.0.0.1 30100 f t");
    assert_eq!(lab.datagram(STRANGER, 22002, b"hello").len(), 0, "not RTP");
    assert_eq!(lab.datagram(STRANGER, 22002, &rtp(72, 1, 1)).len(), 0, "looks like RTCP");
    assert_eq!(lab.rtp(CALLER, 22002, 1, 1).len(), 1);
}

#[test]
fn what_is_not_rtp_passes_from_the_signalled_host_and_on_trial_from_others() {
    let mut lab = call(LatchMode::Nat);
    assert_eq!(lab.datagram(CALLER, 22002, b"udptl").len(), 1);
    assert_eq!(lab.datagram(CALLER, 22002, b"").len(), 1, "empty datagrams too");
    let mut lab = call(LatchMode::Nat);
    for _ in 0..3 {
        assert_eq!(lab.datagram(STRANGER, 22002, b"udptl").len(), 0);
        lab.pass(ms(20));
    }
    assert_eq!(lab.datagram(STRANGER, 22002, b"udptl").len(), 1);
    let mut lab = call(LatchMode::Nat);
    lab.rtp(STRANGER, 22002, 2, 1);
    for _ in 0..8 {
        assert_eq!(lab.datagram("127.0.0.67:1", 22002, b"udptl").len(), 0, "RTP was seen");
        lab.pass(ms(20));
    }
    lab.ask("U c 127.0.0.1 30500 f t");
    let relayed: usize = (0..4)
        .map(|_| {
            lab.pass(ms(20));
            lab.datagram("127.0.0.67:1", 22002, b"udptl").len()
        })
        .sum();
    assert_eq!(relayed, 1, "a call that becomes a fax sends no RTP any more");
}

#[test]
fn a_stream_that_is_taken_with_every_packet_is_told_of_only_so_often() {
    let mut lab = call(LatchMode::Legacy);
    lab.ask("R c f t");
    lab.rtp(CALLER, 22002, 1, 1);
    lab.ask("U c 127.0.0.1 30000 f t");
    let mut marks = 0;
    for sequence in 0..100 {
        for host in [8, 9] {
            lab.rtp(&format!("127.0.0.{host}:5555"), 22002, host, sequence);
            marks += lab.out.effects.iter().filter(|effect| matches!(effect, Effect::Recording(_))).count();
        }
    }
    assert!((1..100).contains(&marks), "{marks}");
}

#[test]
fn rtcp_is_learned_only_from_the_host_of_its_rtp() {
    let sender_report = [0x80, 200, 0, 6];
    let mut lab = call(LatchMode::Nat);
    assert_eq!(lab.datagram(STRANGER, 22003, &sender_report).len(), 0);
    assert_eq!(lab.datagram("127.0.0.1:30001", 22003, &sender_report).len(), 1);
    assert_eq!(lab.datagram("127.0.0.1:39999", 22003, &sender_report).len(), 1, "any port of that host");
    assert_eq!(lab.datagram(STRANGER, 22003, &sender_report).len(), 0);
}

#[test]
fn asymmetric_parties_are_known_by_their_host_in_every_mode() {
    for mode in [LatchMode::Nat, LatchMode::Strict, LatchMode::Legacy] {
        let mut lab = Lab::with_engine(EngineConfig { latch: mode, ..EngineConfig::default() });
        lab.ask("Ua c 127.0.0.1 30000 f");
        lab.ask("L c 127.0.0.1 30100 f t");
        assert_eq!(lab.rtp("127.0.0.1:40404", 22002, 1, 1).len(), 1, "{mode:?}");
        assert_eq!(lab.rtp(STRANGER, 22002, 1, 2).len(), 0, "{mode:?}");
        assert_eq!(goes_to(&mut lab), CALLER, "{mode:?}: the address never moves");
    }
}

#[test]
fn a_new_offer_moves_the_party() {
    let mut lab = call(LatchMode::Nat);
    lab.rtp(CALLER, 22002, 1, 1);
    lab.ask("U c 127.0.0.5 32000 f t");
    assert_eq!(goes_to(&mut lab), "127.0.0.5:32000");
    assert_eq!(lab.rtp(CALLER, 22002, 1, 2).len(), 0, "the old address is a stranger now");
    assert_eq!(lab.rtp("127.0.0.5:32000", 22002, 5, 9).len(), 1);
    assert_eq!(goes_to(&mut lab), "127.0.0.5:32000");
    // The same offer once more changes nothing.
    lab.ask("U c 127.0.0.5 32000 f t");
    assert_eq!(lab.rtp(STRANGER, 22002, 5, 10).len(), 0);
    assert_eq!(goes_to(&mut lab), "127.0.0.5:32000");
}

#[test]
fn legacy_follows_a_source_that_keeps_ssrc_and_sequence() {
    let mut lab = call(LatchMode::Legacy);
    lab.rtp(CALLER, 22002, 0xabcd, 1000);
    assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 0xabcd, 999).len(), 0, "one back is too far");
    assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 0xabcd, 1537).len(), 0, "537 ahead is too far");
    assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 0xabce, 1001).len(), 0);
    assert_eq!(lab.rtp("127.0.0.9:5555", 22002, 0xabcd, 1536).len(), 1);
    assert_eq!(goes_to(&mut lab), "127.0.0.9:5555");
    // An update allows anyone to move it for ten seconds.
    lab.ask("U c 127.0.0.1 30000 f t");
    assert_eq!(lab.rtp("127.0.0.77:7", 22002, 0x1, 5).len(), 1);
    lab.pass(ms(10_100));
    assert_eq!(lab.rtp("127.0.0.78:7", 22002, 0x2, 5).len(), 0);
}

#[test]
fn legacy_guesses_rtcp_only_when_the_address_of_rtp_was_learned() {
    let sender_report = [0x80, 200, 0, 6];
    let mut lab = call(LatchMode::Legacy);
    lab.datagram(STRANGER, 22003, &sender_report);
    lab.rtp(CALLER, 22002, 1, 1);
    let sent = lab.datagram("127.0.0.1:30101", 22001, &sender_report);
    assert_eq!(sent[0].1.to_string(), STRANGER, "RTP came from where it was signalled");

    let mut lab = call(LatchMode::Legacy);
    lab.rtp("127.0.0.9:5554", 22002, 1, 1);
    let sent = lab.datagram("127.0.0.1:30101", 22001, &sender_report);
    assert_eq!(sent[0].1.to_string(), "127.0.0.9:5555");
}

#[test]
fn refusals_are_counted_and_marked_once_a_source() {
    let mut lab = call(LatchMode::Nat);
    lab.ask("R c f t");
    lab.rtp(CALLER, 22002, 1, 1);
    let marks = |lab: &Lab| {
        let marks = lab.out.effects.iter().filter(|effect| {
            matches!(effect, Effect::Recording(RecordingEvent::Mark { mark: Mark::Refused { .. }, .. }))
        });
        marks.count()
    };
    lab.rtp(STRANGER, 22002, 2, 1);
    assert_eq!(marks(&lab), 1);
    lab.rtp("127.0.0.67:6666", 22002, 2, 1);
    assert_eq!(marks(&lab), 1);
    lab.rtp(STRANGER, 22002, 2, 2);
    assert_eq!(marks(&lab), 0);
    for host in 1..=100 {
        lab.rtp(&format!("127.0.1.{host}:9"), 22002, 2, 1);
    }
    assert_eq!(marks(&lab), 0, "and only so many sources");
    assert_eq!(lab.ask("G npkts_discard npkts_relayed npkts_rcvd"), "103 1 104");
    assert_eq!(lab.ask("Q c f t"), "60 1 0 1 0");
}
