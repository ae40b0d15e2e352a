"""What OpenSIPS asks of a relay, over each of its transports, without OpenSIPS itself."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from interop.opensips import OpenSips
from interop.sipp import HOST
from support import capture as recording
from support.daemon import TRANSPORTS, Daemon, StartDaemon, free_address, wait_until
from support.listener import Listener
from support.phone import Media, Phone

NEEDED = [20050322, 20071116, 20071218, 20080403, 20081102, 20081224, 20090810, 20150420, 20150617, 20191015]
TTL_CHANGE = 20170313
"""If the relay had this, OpenSIPS would send the modifiers t and T."""
DIALOG = "1573.91362"
EVENT = 101
VOLUME_DB = 10
LEVEL_COLUMNS = "ttl npkts_ina npkts_ino nrelayed ndropped"
LOSS_COLUMNS = "rtpa_nsent rtpa_nrcvd rtpa_ndups rtpa_nlost rtpa_perrs"
PROMPT_FRAME = 80
"""Bytes of PCMU that last 10 ms, the length of a packet."""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_relay_can_what_is_asked_of_it(start_daemon: StartDaemon, tmp_path: Path, transport: str) -> None:
    address = free_address(transport, tmp_path)
    start_daemon("-s", address, "-n", "unix:/none")
    with OpenSips(address) as server:
        assert server.command("V") == "20040107"
        assert {feature: server.command(f"VF {feature}") for feature in NEEDED} == dict.fromkeys(NEEDED, "1")
        assert server.command(f"VF {TTL_CHANGE}") == "0"


@pytest.mark.parametrize("options", [(), ("--compat",)], ids=["native", "compat"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call(start_daemon: StartDaemon, tmp_path: Path, transport: str, options: tuple[str, ...]) -> None:
    frames = [bytes([number]) * PROMPT_FRAME for number in range(1, 4)]
    (tmp_path / "prompt.0").write_bytes(b"".join(frames))
    address = free_address(transport, tmp_path)
    daemon = start_daemon("-s", address, *options)
    with OpenSips(address) as server, Phone() as caller, Phone() as callee, Phone() as recorder:
        to_callee = Media.parse(server.command(f"Uc0,101 call@1 {caller.media} ft;1"))
        to_caller = Media.parse(server.command(f"Lc0,101 call@1 {callee.media} ft;1 tt;1"))
        assert server.command(f"P1 call@1 {tmp_path}/prompt session ft;1 tt;1") == "0"
        assert [packet[12:] for packet in caller.hear(len(frames))] == frames
        assert server.command("S call@1 ft;1 tt;1") == "0"
        wait_until(lambda: daemon.counter("nplrs_destroyed") == 1, "the prompt ends")

        assert server.command("R call@1 ft tt") == "0"
        # A file takes the place of a copy, so that this one waits for the end of the recording.
        assert server.command("N call@1 ft;1 tt;1") == "0"
        assert server.command(f"C call@1 udp:{recorder.media.host}:{recorder.port} ft;1 tt;1") == "0"
        said = caller.say(to_caller, 5)
        assert callee.hear(5) == recorder.hear(5) == said
        assert server.command("N call@1 ft;1 tt;1") == "0"
        assert server.command("R call@1 ft tt") == "0"
        said = caller.say(to_caller, 2)
        assert callee.hear(2) == said
        answered = callee.say(to_callee, 3)
        assert caller.hear(3) == answered
        assert recorder.silence()

        ttl, *packets = server.numbers("Q call@1 ft;1 tt;1")
        assert 50 < ttl <= 60
        assert packets == [7, 3, 10, 0]
        assert server.numbers(f"Q call@1 ft;1 tt;1 {LEVEL_COLUMNS}")[1:] == packets
        assert server.numbers(f"Q call@1 ft;1 tt;1 {LOSS_COLUMNS}") == [7, 7, 0, 0, 0]
        assert server.command("D call@1 ft tt") == "0"
        assert server.command("Q call@1 ft;1 tt;1") == "E50"
    assert daemon.counter("nsess_created") == daemon.counter("nsess_destroyed") == 1
    assert (daemon.counter("ncmds_errs"), daemon.counter("npkts_discard")) == (1, 0)
    wait_until(lambda: any(set(said) <= set(sent) for sent in written(daemon)), "the recording is complete")


@pytest.mark.parametrize("notify", ["tcp", "unix", "path"])
def test_keys_and_timeouts_are_told(start_daemon: StartDaemon, tmp_path: Path, notify: str) -> None:
    target: Path | tuple[str, int] = tmp_path / "notify"
    if notify == "tcp":
        target = (HOST, 0)
    with Listener(target) as listener, Phone() as caller, Phone() as callee:
        name = f"tcp:{HOST}:{listener.port}" if notify == "tcp" else str(target)
        given = f"unix:{name}" if notify == "unix" else name
        address = free_address("udp", tmp_path)
        daemon = start_daemon("-s", address, "-n", given, "--dso", "catch_dtmf", "-T", "2", "-W", "30")
        with OpenSips(address) as server:
            offer = f"Uc0,{EVENT} call@1 {caller.media} ft;1 {given} T{DIALOG} && M3:1 Dd{DIALOG} {EVENT}"
            to_callee = Media.parse(server.command(offer))
            # Without the number of the payload type, 101 is meant.
            answer = f"Lc0,{EVENT} call@1 {callee.media} ft;1 tt;1 && M3:1 Dd{DIALOG}"
            to_caller = Media.parse(server.command(answer))
            caller.send(to_caller, press(caller, 5))
            assert listener.line() == f"Dd{DIALOG} 5 {VOLUME_DB} 480 0\n".encode()
            callee.send(to_callee, press(callee, 11))
            assert listener.line() == f"Dd{DIALOG} # {VOLUME_DB} 480 1\n".encode()
            # It writes nothing back, and the connection is kept.
            assert listener.line() == f"T{DIALOG}\n".encode()
            assert listener.connections == 1
            assert server.command("D call@1 ft tt") == "E50"
        assert daemon.counter("nsess_timeout") == 1


def test_bridging_is_found_out(start_daemon: StartDaemon, tmp_path: Path) -> None:
    address = free_address("udp", tmp_path)
    start_daemon("-s", address, listen=("-l", HOST, "-l", "two@127.0.0.2"))
    with OpenSips(address) as server:
        # `rtpproxy_autobridge` names the next hop, the argument `bind_local` a label or an address.
        assert server.command(f"UR{HOST}c0,8 call@1 {HOST} 4000 ft;1").endswith(f" {HOST}")
        assert server.command(f"Ul{{two}}c0,8 call@2 {HOST} 4000 ft;1").endswith(" 127.0.0.2")
        assert server.command(f"Ul127.0.0.2c0,8 call@3 {HOST} 4000 ft;1").endswith(" 127.0.0.2")


def test_each_medium_has_its_session(start_daemon: StartDaemon, tmp_path: Path) -> None:
    address = free_address("cunix", tmp_path)
    daemon = start_daemon("-s", address)
    with OpenSips(address) as server, Phone() as recorder:
        for index in (1, 2):
            Media.parse(server.command(f"Uc0 call@1 {HOST} {4000 + index * 2} ft;{index}"))
            Media.parse(server.command(f"Lc0 call@1 {HOST} {5000 + index * 2} ft;{index} tt;{index}"))
            copy = f"C call@1 udp:{HOST}:{recorder.port} ft;{index} tt;{index}"
            assert server.command(copy) == "0"
        # The tags without a number are those of all media.
        assert server.command("D call@1 ft tt") == "0"
    assert daemon.counter("nsess_destroyed") == 2


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_refusals(start_daemon: StartDaemon, tmp_path: Path, transport: str) -> None:
    address = free_address(transport, tmp_path)
    start_daemon("-s", address)
    with OpenSips(address) as server:
        assert server.command("D nobody ft tt") == "E50"
        assert server.command("N nobody ft;1 tt;1") == "E50"
        assert server.command(f"Lc0 nobody {HOST} 4000 ft;1 tt;1") == "0"
        # Modifiers of relays that OpenSIPS recognises by the probes.
        assert server.command(f"Ut30c0 call@1 {HOST} 4000 ft;1") == "E35"
        assert server.command(f"Uc0 call@1 {HOST} 4000 ft;1 unix:/none T{DIALOG}") == "E75"


def press(phone: Phone, event: int) -> list[bytes]:
    """The packets of a key that is down for 60 ms, whose end is told three times."""
    phone.source.payload_type = EVENT
    timestamp = phone.source.timestamp
    packets = []
    for duration, is_end in [(160, False), (320, False), *3 * [(480, True)]]:
        phone.source.timestamp = timestamp
        packets.append(phone.source.packet(struct.pack("!BBH", event, is_end << 7 | VOLUME_DB, duration)))
    return packets


def written(daemon: Daemon) -> list[list[bytes]]:
    """What each recording holds that is complete."""
    paths = [path for path in daemon.recordings.iterdir() if path.suffix in (".rtp", ".pcapng")]
    return [recording.payloads(recording.read(path)) for path in paths]
