"""Prompts: `P` plays files to a party, `S` stops them."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

from support.control import connect
from support.daemon import Daemon, StartDaemon, wait_until
from support.phone import Call, MakeCall, Phone
from support.rtp import Rtp

FRAMES = {
    0: (80, 10),
    3: (33, 20),
    4: (24, 30),
    8: (80, 10),
    9: (80, 10),
    18: (10, 10),
}
"""Bytes and milliseconds of the packets of each payload type."""
PACKETS = 5


def prompt(folder: Path, *payload_types: int, packets: int = PACKETS, tail: bytes = b"") -> Path:
    """A prompt in these payload types; the bytes of each differ."""
    for payload_type in payload_types:
        sound = os.urandom(FRAMES[payload_type][0] * packets)
        (folder / f"prompt.{payload_type}").write_bytes(sound + tail)
    return folder / "prompt"


def sound_of(name: Path, payload_type: int) -> bytes:
    return name.with_name(f"{name.name}.{payload_type}").read_bytes()


def hear(phone: Phone, count: int) -> list[Rtp]:
    packets = [Rtp.parse(packet) for packet in phone.hear(count)]
    assert len(packets) == count
    return packets


def play(call: Call, letters: str, name: Path, codecs: str, *, to_callee: bool = False) -> str:
    tags = (call.to_tag, call.from_tag) if to_callee else (call.from_tag, call.to_tag)
    return call.daemon.command(f"{letters} {call.call_id} {name} {codecs} {tags[0]} {tags[1]}")


def players(daemon: Daemon) -> str:
    return daemon.command("G nplrs_created nplrs_destroyed")


@pytest.mark.parametrize("payload_type", FRAMES)
def test_a_prompt_is_heard_as_rtp(
    daemon: Daemon, make_call: MakeCall, tmp_path: Path, payload_type: int
) -> None:
    call = make_call(daemon)
    name = prompt(tmp_path, payload_type, tail=b"rest")
    start = time.monotonic()
    assert play(call, "P3", name, str(payload_type)) == "0"
    packets = hear(call.caller, 3 * PACKETS)
    took = time.monotonic() - start
    size, ms = FRAMES[payload_type]

    sound = sound_of(name, payload_type).removesuffix(b"rest")
    assert b"".join(packet.payload for packet in packets) == 3 * sound
    assert {len(packet.payload) for packet in packets} == {size}
    assert {(packet.payload_type, packet.ssrc) for packet in packets} == {(payload_type, packets[0].ssrc)}
    assert [packet.marker for packet in packets] == [True] + (3 * PACKETS - 1) * [False]
    for earlier, later in itertools.pairwise(packets):
        assert (later.sequence - earlier.sequence) % 2**16 == 1
        assert (later.timestamp - earlier.timestamp) % 2**32 == 8 * ms
    assert took >= (len(packets) - 1) * ms / 1000

    wait_until(lambda: players(daemon) == "1 1", "the prompt ends")
    assert call.caller.silence(0.1)
    assert daemon.counter("npkts_played") == 3 * PACKETS
    assert call.stats()[3:] == [0, 0]


def test_each_party_has_a_prompt_of_its_own(daemon: Daemon, make_call: MakeCall, tmp_path: Path) -> None:
    call = make_call(daemon)
    name = prompt(tmp_path, 0, 8)
    assert play(call, "P", name, "0") == "0"
    assert play(call, "P", name, "8", to_callee=True) == "0"
    for phone, payload_type, port in (
        (call.caller, 0, call.at_caller_side),
        (call.callee, 8, call.at_callee_side),
    ):
        packet, source = phone.rtp.recvfrom(2000)
        assert source == port.pair
        rest = hear(phone, PACKETS - 1)
        heard = Rtp.parse(packet).payload + b"".join(packet.payload for packet in rest)
        assert heard == sound_of(name, payload_type)


def test_a_prompt_takes_the_place_of_the_other_party(
    daemon: Daemon, make_call: MakeCall, tmp_path: Path
) -> None:
    call = make_call(daemon)
    call.talk(3)
    name = prompt(tmp_path, 0)
    assert play(call, "P-1", name, "0") == "0"
    hear(call.caller, PACKETS)
    call.callee.say(call.at_callee_side, 4)
    report = call.callee.report(call.at_callee_side)
    said = call.caller.say(call.at_caller_side, 2)
    assert call.callee.hear(2) == said
    assert call.caller.hear_rtcp() == [report]
    wait_until(lambda: call.stats()[1:] == [5, 7, 8, 4], "the packets are counted")

    assert call.command("S") == "0"
    ssrcs = {Rtp.parse(packet).ssrc for packet in call.caller.hear(1000, seconds=0.1)}
    assert call.callee.source.ssrc not in ssrcs
    call.talk(3)
    assert players(daemon) == "1 1"
    assert call.command("S") == "0"


def test_prompts_are_not_recorded(daemon: Daemon, make_call: MakeCall, tmp_path: Path) -> None:
    call = make_call(daemon)
    call.talk(1)
    assert call.command("R") == "0"
    assert play(call, "P-1", prompt(tmp_path, 0), "0") == "0"
    hear(call.caller, 1)
    unheard = call.callee.say(call.at_callee_side, 1)
    heard = call.caller.say(call.at_caller_side, 1)
    assert call.callee.hear(1) == heard
    wait_until(lambda: call.stats()[4] == 1, "the packet is dropped")
    call.command("D")
    assert players(daemon) == "1 1", "the prompt ends with its session"
    wait_until(lambda: list(daemon.recordings.glob("*.pcapng")), "the recording is finished")
    [recording] = daemon.recordings.glob("*.pcapng")
    recorded = recording.read_bytes()
    assert heard[0] in recorded
    assert unheard[0] not in recorded


def test_session_takes_the_codecs_of_the_listener(
    daemon: Daemon, make_call: MakeCall, tmp_path: Path
) -> None:
    name = prompt(tmp_path, 0, 8)
    call = make_call(daemon, modifiers=("c18,8,101", "c0"))
    assert play(call, "P", name, "session") == "0"
    assert {packet.payload_type for packet in hear(call.caller, PACKETS)} == {8}
    assert play(call, "P", name, "session", to_callee=True) == "0"
    assert {packet.payload_type for packet in hear(call.callee, PACKETS)} == {0}
    assert play(make_call(daemon), "P", name, "session") == "E35"


def test_a_prompt_waits_for_the_address_of_its_listener(daemon: Daemon, tmp_path: Path) -> None:
    name = prompt(tmp_path, 0)
    with Phone() as caller, Phone() as callee:
        daemon.command("U call 0 0 from")
        assert daemon.command(f"P call {name} 0 from to") == "0"
        port = int(daemon.command(f"L call {callee.media} from to").split()[0])
        assert caller.silence(0.1)
        assert daemon.counter("npkts_played") == 0
        caller.rtp.sendto(caller.source.packet(), ("127.0.0.1", port))
        assert b"".join(packet.payload for packet in hear(caller, PACKETS)) == sound_of(name, 0)


def test_what_cannot_be_played_is_refused(daemon: Daemon, make_call: MakeCall, tmp_path: Path) -> None:
    call = make_call(daemon)
    name = prompt(tmp_path, 0)
    (tmp_path / "prompt.101").write_bytes(bytes(800))
    (tmp_path / "prompt.9").mkdir()
    os.mkfifo(tmp_path / "prompt.8")
    with (tmp_path / "prompt.18").open("wb") as file:
        file.truncate((64 << 20) + 1)
    for letters, codecs, reply in (
        ("P", "3", "E60"),
        ("P", "101", "E60"),
        ("P", "8,9,18", "E60"),
        ("P", "x,0", "E60"),
        ("P", "session", "E35"),
        ("Px", "0", "E17"),
        ("P0", "3", "0"),
        ("P", "101,8,3,0", "0"),
    ):
        assert play(call, letters, name, codecs) == reply, codecs
    assert daemon.command(f"P unknown {name} 0 from to") == "E50"
    assert daemon.command("S unknown from to") == "E50"
    for fault in ("prompt.8: it is not a regular file", "prompt.18: it has more than 67108864 bytes"):
        daemon.wait_for_log(fault)
    hear(call.caller, PACKETS)


def test_prompts_lie_in_the_working_folder(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon()
    folder = Path(f"/proc/{daemon.process.pid}/cwd").resolve()
    name = Path(os.path.relpath(prompt(daemon.folder, 0), folder))
    assert not name.is_absolute()
    call = make_call(daemon)
    assert play(call, "P", name, "0") == "0"
    hear(call.caller, PACKETS)


def test_a_changed_file_is_read_again(daemon: Daemon, make_call: MakeCall, tmp_path: Path) -> None:
    call = make_call(daemon)
    for packets in (PACKETS, PACKETS + 1):
        name = prompt(tmp_path, 0, packets=packets)
        for _ in range(2):
            assert play(call, "P", name, "0") == "0"
            heard = b"".join(packet.payload for packet in hear(call.caller, packets))
            assert heard == sound_of(name, 0)


def test_many_hear_prompts_at_once(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    address = tmp_path / "more"
    daemon = start_daemon("-s", f"unix:{address}")
    control = connect(f"unix:{address}")
    name = prompt(tmp_path, 0, packets=50)
    calls = [make_call(daemon) for _ in range(20)]
    for call in calls:
        assert control.command(f"P {call.call_id} {name} 0 from to") == "0"
    for call in calls:
        heard = hear(call.caller, 50)
        assert b"".join(packet.payload for packet in heard) == sound_of(name, 0)
    wait_until(lambda: players(daemon) == "20 20", "all prompts end")
