"""`catch_dtmf`: keys that a party presses, as phones send them (RFC 4733), are told to whoever asked."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from support.daemon import Daemon, StartDaemon
from support.listener import Listener
from support.phone import FRAME, Call, MakeCall, Phone

KEYS = "0123456789*#ABCD"
VOLUME = 10
"""In dB below full scale."""
ENDS = 3
"""How often a phone sends the end of a press, against loss."""


class Keypad:
    """Makes the packets of key presses in the stream of a phone."""

    def __init__(self, phone: Phone, payload_type: int = 101) -> None:
        self._source = phone.source
        self._payload_type = payload_type

    def press(self, key: str, frames: int = 5) -> list[bytes]:
        """A press of so many times 20 ms: the start, what follows, and the end three times."""
        packets = [self._packet(key, frame * FRAME) for frame in range(1, frames + 1)]
        first = bytearray(packets[0])
        first[1] |= 0x80
        ends = [self._packet(key, frames * FRAME, has_ended=True) for _ in range(ENDS)]
        self._source.timestamp += frames * FRAME
        return [bytes(first), *packets[1:], *ends]

    def _packet(self, key: str, duration: int, has_ended: bool = False) -> bytes:
        source = self._source
        header = struct.pack(
            "!BBHII", 0x80, self._payload_type, source.sequence, source.timestamp & 0xFFFFFFFF, source.ssrc
        )
        source.sequence = (source.sequence + 1) & 0xFFFF
        return header + struct.pack("!BBH", KEYS.index(key), has_ended << 7 | VOLUME, duration)


def start(start_daemon: StartDaemon, folder: Path, instances: int = 1) -> tuple[Daemon, str]:
    """A relay with the module, and its notification target."""
    target = f"unix:{folder / 'events'}"
    return start_daemon("-n", target, *["--dso", "catch_dtmf"] * instances), target


def watch(call: Call, arguments: str, instance: int = 1) -> None:
    """Asks for the keys of the caller."""
    reply = call.command("Q", "ttl", "&&", f"M3:{instance}", arguments)
    assert "&&" not in reply, reply


def dial(call: Call, packets: list[bytes]) -> None:
    """The caller sends packets, which the callee gets."""
    call.caller.send(call.at_caller_side, packets)
    assert call.callee.hear(len(packets)) == packets


def test_digits_are_told_and_heard(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    with Listener(tmp_path / "events") as listener:
        daemon, target = start(start_daemon, tmp_path)
        call = make_call(daemon, notify=f"{target} timeout && M3:1 call%201+keys")
        caller = Keypad(call.caller)
        for frames, key in enumerate(KEYS, start=2):
            call.talk(2)
            dial(call, caller.press(key, frames))
            assert listener.line() == f"call 1 keys {key} {VOLUME} {frames * FRAME} 0\n".encode()
        assert listener.is_quiet()
        assert listener.connections == 1


def test_both_parties_are_told_apart(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    with Listener(tmp_path / "events") as listener:
        daemon, target = start(start_daemon, tmp_path)
        call = make_call(daemon, notify=f"{target} timeout && M3:1 caller")
        assert daemon.command(f"Q {call.call_id} to from ttl && M3:1 callee 96").isdecimal()
        dial(call, Keypad(call.caller).press("1"))
        assert listener.line() == b"caller 1 10 800 0\n"
        packets = call.callee.send(call.at_callee_side, Keypad(call.callee, 96).press("2"))
        assert listener.line() == b"callee 2 10 800 1\n"
        assert call.caller.hear(len(packets)) == packets
        # Events of another payload type than was asked for are sound.
        dial(call, Keypad(call.caller, 96).press("3"))
        dial(call, Keypad(call.caller).press("4"))
        assert listener.line() == b"caller 4 10 800 0\n"


def test_hidden_keys_do_not_reach_the_other_party(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    with Listener(tmp_path / "events") as listener:
        daemon, target = start(start_daemon, tmp_path)
        call = make_call(daemon, notify=f"{target} timeout")
        call.talk(1)
        watch(call, "k 101 h")
        press = call.caller.send(call.at_caller_side, Keypad(call.caller).press("7"))
        assert listener.line() == b"k 7 10 800 0\n"
        call.talk(1)
        assert call.callee.silence()
        assert call.stats()[1:] == [2 + len(press), 2, 4, len(press)]
        watch(call, "k 101")
        dial(call, Keypad(call.caller).press("8"))
        assert listener.line() == b"k 8 10 800 0\n"


@pytest.mark.parametrize(
    ("kept", "is_told"),
    [
        pytest.param([1, 2, 3, 4, 5, 6, 7], True, id="the start is lost"),
        pytest.param([4, 7], True, id="only one of each kind arrives"),
        pytest.param([5, 6, 7], False, id="only ends arrive"),
        pytest.param([0, 1, 2, 3, 4], False, id="no end arrives"),
        pytest.param([4, 2, 3, 0, 1, 7, 5, 6], True, id="all are mixed up"),
        pytest.param([5, 0, 6], True, id="an end comes first"),
        pytest.param([0, 0, 5, 5, 5, 6, 6, 0], True, id="all come twice"),
    ],
)
def test_packets_are_lost_and_late(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path, kept: list[int], is_told: bool
) -> None:
    with Listener(tmp_path / "events") as listener:
        daemon, target = start(start_daemon, tmp_path)
        call = make_call(daemon, notify=f"{target} timeout && M3:1 k")
        keypad = Keypad(call.caller)
        packets = keypad.press("5")
        dial(call, [packets[at] for at in kept])
        dial(call, keypad.press("6"))
        if is_told:
            assert listener.line() == b"k 5 10 800 0\n"
        assert listener.line() == b"k 6 10 800 0\n"
        assert listener.is_quiet()


def test_presses_that_overlap(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    with Listener(tmp_path / "events") as listener:
        daemon, target = start(start_daemon, tmp_path)
        call = make_call(daemon, notify=f"{target} timeout && M3:1 k")
        keypad = Keypad(call.caller)
        first, second = keypad.press("1"), keypad.press("2")
        dial(call, [*first[:5], *second[:5], *first[5:], *second[5:]])
        assert [listener.line(), listener.line()] == [b"k 1 10 800 0\n", b"k 2 10 800 0\n"]
        assert listener.is_quiet()


def test_instances_watch_for_themselves(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    with Listener(tmp_path / "events") as listener:
        daemon, target = start(start_daemon, tmp_path, instances=2)
        call = make_call(daemon, notify=f"{target} timeout")
        watch(call, "one")
        watch(call, "two 96", instance=2)
        dial(call, Keypad(call.caller).press("1"))
        dial(call, Keypad(call.caller, 96).press("2"))
        assert [listener.line(), listener.line()] == [b"one 1 10 800 0\n", b"two 2 10 800 0\n"]
        assert call.command("Q", "ttl", "&&", "M3:3", "three") == "E3"


def test_without_the_module_the_sub_command_is_refused(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    assert call.command("Q", "ttl", "&&", "M3:1", "k") == "E3"


def test_without_a_target_nothing_is_watched(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    daemon, _ = start(start_daemon, tmp_path)
    call = make_call(daemon)
    assert call.command("Q", "ttl", "&&", "M3:1", "k").endswith(" && -1")
    daemon.wait_for_log("the session has no notification target")
