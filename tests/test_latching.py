"""Who may speak for a party: the RTP Bleed and RTP Inject attacks, and what honest phones need.

The parties are at 127.0.0.1, the attacker elsewhere on loopback.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from support.capture import read
from support.daemon import Daemon, StartDaemon, wait_until
from support.phone import Call, MakeCall, Media, Phone

ATTACKER = "127.0.0.66"
SAFE_MODES = ("nat", "strict")
MODES = (*SAFE_MODES, "legacy")
SILENCE_S = 0.35
"""A little longer than a party has to be silent before it may be followed to another address."""


@pytest.fixture
def attacker() -> Iterator[Phone]:
    with Phone(ATTACKER) as attacker:
        yield attacker


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def relay_in(start_daemon: StartDaemon, mode: str) -> Daemon:
    return start_daemon("--latch", mode)


def received(daemon: Daemon, packets: int) -> None:
    """Waits until the relay has read so many packets in all."""
    wait_until(lambda: daemon.counter("npkts_rcvd") >= packets, f"{packets} packets are read")


def expect_private(call: Call, attacker: Phone) -> None:
    """The parties hear each other and nobody else hears anything."""
    call.talk(5)
    report = call.callee.report(call.at_callee_side)
    assert call.caller.hear_rtcp() == [report]
    assert attacker.silence()
    assert call.caller.silence(0)
    assert call.callee.silence(0)


@pytest.mark.parametrize("mode", SAFE_MODES)
def test_a_stranger_who_is_first_gets_nothing(
    start_daemon: StartDaemon, make_call: MakeCall, attacker: Phone, mode: str
) -> None:
    call = make_call(relay_in(start_daemon, mode))
    attacker.say(call.at_caller_side, 3)
    attacker.report(call.at_caller_side)
    received(call.daemon, 4)
    answered = call.callee.say(call.at_callee_side, 3)
    assert call.caller.hear(3) == answered
    expect_private(call, attacker)
    assert call.daemon.counter("npkts_discard") == 4
    line = call.daemon.wait_for_log(f"{ATTACKER}:{attacker.port}")
    assert f"{call.caller.host}:{call.caller.port}" in line
    assert call.daemon.log().count(f"{ATTACKER}:{attacker.port}") == 1


def test_as_the_c_program_a_stranger_who_is_first_gets_the_call(
    start_daemon: StartDaemon, make_call: MakeCall, attacker: Phone
) -> None:
    call = make_call(relay_in(start_daemon, "legacy"))
    said = attacker.say(call.at_caller_side, 3)
    assert call.callee.hear(3) == said
    answered = call.callee.say(call.at_callee_side, 3)
    assert attacker.hear(3) == answered
    assert call.caller.silence()


def test_a_stranger_who_waits_is_outranked_by_the_party(
    start_daemon: StartDaemon, make_call: MakeCall, attacker: Phone, mode: str
) -> None:
    call = make_call(relay_in(start_daemon, mode))
    for _ in range(10):
        attacker.say(call.at_caller_side, 1)
        time.sleep(0.02)
    received(call.daemon, 10)
    # In nat mode this is how a phone behind a NAT becomes known whose signalled address is a private one.
    assert (len(call.callee.hear(10, seconds=0.2)) > 0) == (mode != "strict")
    if mode == "legacy":
        return
    said = call.caller.say(call.at_caller_side, 3)
    assert call.callee.hear(3) == said
    attacker.say(call.at_caller_side, 5)
    received(call.daemon, 18)
    attacker.hear(100, seconds=0)
    expect_private(call, attacker)


def test_a_stranger_during_the_call_is_not_heard(
    start_daemon: StartDaemon, make_call: MakeCall, attacker: Phone, mode: str
) -> None:
    call = make_call(relay_in(start_daemon, mode))
    call.talk(5)
    call.callee.report(call.at_callee_side)
    call.caller.report(call.at_caller_side)
    assert len(call.caller.hear_rtcp() + call.callee.hear_rtcp()) == 2
    for _ in range(5):
        said = call.caller.say(call.at_caller_side, 1)
        attacker.say(call.at_caller_side, 10)
        attacker.send(call.at_caller_side, [b"not RTP at all"])
        attacker.report(call.at_caller_side)
        assert call.callee.hear(1) == said
    received(call.daemon, 12 + 5 * 13)
    expect_private(call, attacker)
    assert call.daemon.counter("npkts_discard") == 5 * 12


@pytest.mark.parametrize("mode", SAFE_MODES)
def test_a_stranger_who_guesses_the_stream_is_not_heard(
    start_daemon: StartDaemon, make_call: MakeCall, attacker: Phone, mode: str
) -> None:
    call = make_call(relay_in(start_daemon, mode))
    call.talk(5)
    attacker.source = call.caller.source
    for _ in range(20):
        own, forged = call.caller.source.packets(1), attacker.source.packets(3)
        before = time.monotonic()
        call.caller.send(call.at_caller_side, own)
        attacker.send(call.at_caller_side, forged)
        if time.monotonic() - before < 0.2:
            break
        assert call.callee.hear(4, seconds=0.1)[:1] == own
    else:
        pytest.fail("this machine never ran for 200 ms without a stop")
    assert call.callee.hear(1) == own
    received(call.daemon, call.daemon.counter("npkts_relayed") + 3)
    expect_private(call, attacker)


def test_as_the_c_program_a_stranger_who_guesses_the_stream_gets_the_call(
    start_daemon: StartDaemon, make_call: MakeCall, attacker: Phone
) -> None:
    call = make_call(relay_in(start_daemon, "legacy"))
    call.talk(5)
    attacker.source = call.caller.source
    said = attacker.say(call.at_caller_side, 3)
    assert call.callee.hear(3) == said
    answered = call.callee.say(call.at_callee_side, 3)
    assert attacker.hear(3) == answered


def test_a_stranger_after_the_party_fell_silent_is_not_heard(
    start_daemon: StartDaemon, make_call: MakeCall, attacker: Phone, mode: str
) -> None:
    call = make_call(relay_in(start_daemon, mode))
    call.talk(5)
    time.sleep(SILENCE_S)
    attacker.say(call.at_caller_side, 20)
    attacker.source.ssrc = call.caller.source.ssrc
    attacker.source.sequence = (call.caller.source.sequence + 10_000) & 0xFFFF
    attacker.say(call.at_caller_side, 20)
    received(call.daemon, 50)
    expect_private(call, attacker)


@pytest.mark.parametrize("mode", ["nat", "legacy"])
def test_a_party_that_moves_is_followed(start_daemon: StartDaemon, make_call: MakeCall, mode: str) -> None:
    call = make_call(relay_in(start_daemon, mode))
    call.talk(5)
    time.sleep(SILENCE_S)
    with Phone("127.0.0.77") as moved:
        moved.source = call.caller.source
        said = moved.say(call.at_caller_side, 3)
        assert call.callee.hear(3) == said
        answered = call.callee.say(call.at_callee_side, 3)
        assert moved.hear(3) == answered
        assert call.caller.silence()
        assert call.caller.silence(0)
        # And back.
        time.sleep(SILENCE_S)
        said = call.caller.say(call.at_caller_side, 3)
        assert call.callee.hear(3) == said
        answered = call.callee.say(call.at_callee_side, 3)
        assert call.caller.hear(3) == answered
        assert moved.silence()


def test_strict_follows_nobody(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    call = make_call(relay_in(start_daemon, "strict"))
    call.talk(5)
    time.sleep(SILENCE_S)
    with Phone("127.0.0.77") as moved:
        moved.source = call.caller.source
        moved.say(call.at_caller_side, 3)
        received(call.daemon, 13)
        expect_private(call, moved)


@pytest.mark.parametrize("mode", ["nat", "legacy"])
def test_a_party_behind_a_port_translation_is_heard_at_once(
    start_daemon: StartDaemon, make_call: MakeCall, mode: str
) -> None:
    call = make_call(relay_in(start_daemon, mode))
    with Phone() as translated:
        said = translated.say(call.at_caller_side, 1)
        assert call.callee.hear(1) == said
        answered = call.callee.say(call.at_callee_side, 3)
        assert translated.hear(3) == answered
        report = translated.report(call.at_caller_side)
        assert call.callee.hear_rtcp() == [report]
        assert call.caller.silence()


def test_strict_wants_the_very_port(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    call = make_call(relay_in(start_daemon, "strict"))
    with Phone() as translated:
        translated.say(call.at_caller_side, 10)
        received(call.daemon, 10)
        expect_private(call, translated)


@pytest.mark.parametrize("mode", ["nat", "legacy"])
def test_without_a_signalled_address_the_first_speaker_counts(
    start_daemon: StartDaemon, attacker: Phone, mode: str
) -> None:
    daemon = relay_in(start_daemon, mode)
    with Phone() as caller, Phone("127.0.0.7") as callee:
        offer = Media.parse(daemon.command("U call 0 0 from"))
        answer = Media.parse(daemon.command("L call 0 0 from to"))
        caller.say(answer, 1)
        received(daemon, 1)
        said = callee.say(offer, 3)
        assert caller.hear(3) == said
        attacker.say(answer, 3)
        attacker.say(offer, 3)
        received(daemon, 10)
        answered = caller.say(answer, 3)
        assert callee.hear(3) == answered
        assert attacker.silence()


def test_strict_needs_a_signalled_address(start_daemon: StartDaemon) -> None:
    daemon = relay_in(start_daemon, "strict")
    with Phone() as caller, Phone() as callee:
        answer_side = Media.parse(daemon.command("U call 0 0 from"))
        caller_side = Media.parse(daemon.command(f"L call {callee.media} from to"))
        caller.say(caller_side, 5)
        received(daemon, 5)
        callee.say(answer_side, 5)
        received(daemon, 10)
        assert caller.silence()
        assert callee.silence()
        daemon.command(f"U call {caller.media} from to")
        said = caller.say(caller_side, 3)
        assert callee.hear(3) == said


def test_a_new_address_in_signalling_moves_a_party(
    start_daemon: StartDaemon, make_call: MakeCall, mode: str
) -> None:
    call = make_call(relay_in(start_daemon, mode))
    call.talk(5)
    with Phone("127.0.0.8") as elsewhere:
        call.daemon.command(f"U {call.call_id} {elsewhere.media} from to")
        answered = call.callee.say(call.at_callee_side, 3)
        assert elsewhere.hear(3) == answered
        said = elsewhere.say(call.at_caller_side, 3)
        assert call.callee.hear(3) == said
        assert call.caller.silence()


def test_an_asymmetric_party_is_never_followed(
    start_daemon: StartDaemon, make_call: MakeCall, attacker: Phone, mode: str
) -> None:
    call = make_call(relay_in(start_daemon, mode), modifiers=("a", "a"))
    with Phone() as other_port:
        said = other_port.say(call.at_caller_side, 3)
        assert call.callee.hear(3) == said
        attacker.say(call.at_caller_side, 5)
        received(call.daemon, 8)
        answered = call.callee.say(call.at_callee_side, 3)
        assert call.caller.hear(3) == answered
        assert other_port.silence()
        assert attacker.silence()
        assert call.callee.silence()


def test_what_is_not_rtp_may_come_from_elsewhere_too(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    # A fax behind a NAT that signalled a private address.
    call = make_call(relay_in(start_daemon, "nat"))
    with Phone("127.0.0.9") as fax:
        for number in range(6):
            fax.send(call.at_caller_side, [b"IFP %d" % number])
            time.sleep(0.03)
        heard = call.callee.hear(6, seconds=0.5)
        assert heard
        assert heard[-1] == b"IFP 5"
        time.sleep(0.1)
        answered = call.callee.say(call.at_callee_side, 3)
        assert fax.hear(3) == answered


def test_attacks_are_noted_in_the_recording(
    start_daemon: StartDaemon, make_call: MakeCall, attacker: Phone
) -> None:
    daemon = relay_in(start_daemon, "nat")
    call = make_call(daemon, "attacked")
    assert call.command("R") == "0"
    call.talk(3)
    attacker.say(call.at_caller_side, 50)
    received(daemon, 56)
    call.talk(3)
    assert call.command("D") == "0"
    recording = daemon.recordings / "attacked=from.pcapng"
    wait_until(recording.exists, "the recording is finished")
    packets = read(recording)
    assert len(packets) == 12
    assert {packet.source for packet in packets} == {call.caller.media.pair, call.callee.media.pair}
    comments = [comment for packet in packets for comment in packet.comments]
    assert sum(f"{ATTACKER}:{attacker.port}" in comment for comment in comments) == 1
    assert any("latched" in comment and str(call.caller.port) in comment for comment in comments)
    for line in ("RTP of the caller latched to", f"RTP for the caller refused: it comes from {ATTACKER}"):
        assert line in daemon.log()
