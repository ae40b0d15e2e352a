"""`--preroll`: recordings that hold what was said before the command."""

from __future__ import annotations

import socket
import time
import urllib.request
from pathlib import Path

import pytest

from support.capture import SYNTHETIC, Captured, payloads, read, read_all, sidecar
from support.daemon import Daemon, StartDaemon, free_port, wait_until
from support.phone import Call, MakeCall, Phone
from support.tools import tshark


def finished(daemon: Daemon, name: str) -> Path:
    """The recording of this name, once it is complete."""
    path = daemon.recordings / name
    report = path.with_suffix(".json")
    wait_until(lambda: path.exists() and report.exists(), f"{name} is finished; log: {daemon.log()}")
    return path


def of(phone: Phone, packets: list[Captured]) -> list[bytes]:
    """What a phone sent, RTP and RTCP, according to a recording."""
    return payloads(packet for packet in packets if packet.source[1] in {phone.port, phone.port + 1})


def figure(port: int, name: str) -> float:
    """A metric without labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")))


def speak(call: Call, seconds: float, said: list[bytes], answered: list[bytes]) -> None:
    """Both parties speak in packets of 20 ms; they are added to the lists, and arrive."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for spoken, heard in zip((said, answered), call.talk(1), strict=True):
            spoken += heard
        time.sleep(0.02)


def test_what_was_said_before_the_command_is_in_the_file(
    start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    daemon = start_daemon("--preroll", "30")
    call = make_call(daemon, "call-1")
    said: list[bytes] = []
    answered: list[bytes] = []
    started_ns = time.time_ns()
    speak(call, 3, said, answered)
    said.append(call.caller.report(call.at_caller_side))
    assert call.callee.hear_rtcp() == said[-1:]
    before = len(said) + len(answered)
    asked_ns = time.time_ns()
    assert call.command("R") == "0"
    speak(call, 1, said, answered)
    # The second command gets nothing, and nothing comes twice.
    assert call.command("R") == "0"
    assert call.command("D") == "0"

    path = finished(daemon, "call-1=from.pcapng")
    packets = read(path)
    assert of(call.caller, packets) == said
    assert of(call.callee, packets) == answered
    assert len(packets) == len(said) + len(answered)
    times = [packet.time_ns for packet in packets]
    assert times == sorted(times)
    assert started_ns < times[0] < asked_ns - 2_500_000_000
    assert sum(at < asked_ns for at in times) == before
    # The head of two frames is before all of it.
    everything = read_all(path)
    assert [packet.interface for packet in everything[:2]] == [SYNTHETIC, SYNTHETIC]
    assert everything[1].time_ns < times[0]
    (comment,) = [text for text in packets[0].comments if text.startswith("preroll: ")]
    assert comment.endswith(f" s from before the command, {before} packets")

    report = sidecar(path)
    assert report["preroll"]["from"] == report["first_packet"] < report["requested"]
    assert (report["preroll"]["packets"], report["preroll"]["lost"]) == (before, 0)
    assert (report["packets"], report["dropped"]) == (len(packets), 0)
    streams = tshark(path, "-q", "-z", "rtp,streams")
    assert streams.count("g711U") == 2, streams


def test_only_the_last_seconds_are_kept(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--preroll", "1")
    call = make_call(daemon, "call-1")
    call.talk(20)
    time.sleep(1.5)
    said, answered = call.talk(5)
    assert call.command("R") == "0"
    assert call.command("D") == "0"
    packets = read(finished(daemon, "call-1=from.pcapng"))
    assert of(call.caller, packets) == said
    assert of(call.callee, packets) == answered


def test_a_pause_stays_empty(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--preroll", "30")
    call = make_call(daemon, "call-1")
    spoken = [*call.talk(5)]
    assert call.command("R") == "0"
    spoken += call.talk(5)
    assert call.command("N") == "0"
    secret = call.talk(5)
    assert call.command("R") == "0"
    spoken += call.talk(5)
    # Nothing of it is there for another file either.
    assert daemon.command("C call-1 other from to") == "0"
    assert call.command("D") == "0"
    assert read(finished(daemon, "other.pcapng")) == []
    recorded = payloads(read(finished(daemon, "call-1=from.pcapng")))
    assert sorted(recorded) == sorted(packet for part in spoken for packet in part)
    assert not {packet for part in secret for packet in part} & set(recorded)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--record-format", "adhoc"), "call-1=from.o.rtp"),
        (("--compat",), "call-1=from.o.rtp"),
        (("--record-scope", "stream"), "call-1=from.o.pcapng"),
        (("-P",), "call-1=from.pcap"),
    ],
)
def test_every_format_begins_with_it(
    options: tuple[str, ...], name: str, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    daemon = start_daemon("--preroll", "30", *options)
    call = make_call(daemon, "call-1")
    said, answered = call.talk(10)
    assert call.command("R") == "0"
    more, _ = call.talk(5)
    assert call.command("D") == "0"
    path = daemon.recordings / name
    wait_until(lambda: path.exists() and len(read(path)) >= 15, f"{name} is written; log: {daemon.log()}")
    packets = read(path)
    assert of(call.caller, packets) == said + more
    is_call = name.endswith(".pcap")
    assert of(call.callee, packets)[:10] == (answered if is_call else [])


def test_a_journal_begins_with_it(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--preroll", "30", "--record-layout", "journal")
    call = make_call(daemon, "call-1")
    said, answered = call.talk(10)
    assert call.command("R") == "0"
    for known, new in zip((said, answered), call.talk(5), strict=True):
        known += new
    assert call.command("D") == "0"
    assert daemon.stop() == 0
    (segment,) = daemon.recordings.glob("journal-*.pcapng")
    packets = [packet for packet in read_all(segment) if packet.payload in {*said, *answered}]
    assert of(call.caller, packets) == said
    assert of(call.callee, packets) == answered
    assert any(text.endswith("from before the command, 20 packets") for text in packets[0].comments)


def test_a_small_memory_holds_and_the_media_go_on(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    port = free_port(socket.SOCK_STREAM)
    daemon = start_daemon("--preroll", "3600", "--preroll-memory", "1M", "--metrics", f"127.0.0.1:{port}")
    calls = [make_call(daemon, f"call-{number}") for number in range(20)]
    spoken: list[tuple[list[bytes], list[bytes]]] = [([], []) for _ in calls]
    for _ in range(10):
        for call, both in zip(calls, spoken, strict=True):
            # `talk` sees to it that every packet is relayed.
            for known, new in zip(both, call.talk(20), strict=True):
                known += new
    assert figure(port, "rtpproxy_preroll_memory_limit_bytes") == 1 << 20
    assert 0 < figure(port, "rtpproxy_preroll_memory_bytes") <= 1 << 20
    assert figure(port, "rtpproxy_preroll_sessions") == 20
    lost = figure(port, "rtpproxy_preroll_packets_lost_total")
    assert lost > 0

    for call in calls:
        assert call.command("R") == "0"
        assert call.command("D") == "0"
    missing = 0
    for call, (said, answered) in zip(calls, spoken, strict=True):
        path = finished(daemon, f"{call.call_id}=from.pcapng")
        packets = read(path)
        for phone, known in ((call.caller, said), (call.callee, answered)):
            held = of(phone, packets)
            # The newest ones, without a hole.
            assert 0 < len(held) <= len(known)
            assert held == known[-len(held) :]
            missing += len(known) - len(held)
        assert sidecar(path)["preroll"]["lost"] == len(said) + len(answered) - len(packets)
    assert missing == lost
    wait_until(lambda: figure(port, "rtpproxy_preroll_memory_bytes") == 0, "all memory is given back")
    assert figure(port, "rtpproxy_preroll_sessions") == 0


def test_nothing_is_kept_unless_it_is_asked_for(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon()
    call = make_call(daemon, "call-1")
    call.talk(10)
    assert call.command("R") == "0"
    said, answered = call.talk(5)
    assert call.command("D") == "0"
    path = finished(daemon, "call-1=from.pcapng")
    packets = read(path)
    assert of(call.caller, packets) + of(call.callee, packets) == said + answered
    assert "preroll" not in sidecar(path)
