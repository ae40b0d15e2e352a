"""Long calls in several files, in every format, for the tools that people have: tshark, capinfos, tcpdump."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from support.capture import payloads, read, sidecar
from support.daemon import Daemon, StartDaemon, binary, wait_until
from support.phone import Call, MakeCall
from support.tools import capinfos, tcpdump, tshark

FORMATS = {
    "pcapng": ("--record-format", "pcapng"),
    "pcap": ("--record-format", "pcap"),
    "pcap-ns": ("--record-format", "pcap", "--record-ns"),
    "adhoc": ("--record-format", "adhoc"),
}
ROTATE = ("--record-rotate-time", "1s")
SUFFIXES = {"pcapng": ".pcapng", "pcap": ".pcap", "pcap-ns": ".pcap", "adhoc": ".rtp"}
TALK_S = 2.4


def talk(call: Call) -> list[tuple[bytes, bytes]]:
    """Both parties talk in real time; returns what they said, one packet each at a time."""
    said = []
    begun = time.monotonic()
    while time.monotonic() < begun + TALK_S:
        ours, theirs = call.talk(1)
        said.append((ours[0], theirs[0]))
        time.sleep(0.01)
    return said


def finished(daemon: Daemon, call: Call, suffix: str) -> list[Path]:
    """Ends a recording, and gives its files in their order."""
    assert call.command("D") == "0"
    folder = daemon.recordings
    wait_until(lambda: not list(folder.glob("*.part")) and ended(folder), "the recording is finished")
    return sorted(folder.glob(f"*{suffix}"))


def ended(folder: Path) -> bool:
    """Whether each sidecar names a next file that is there, or none."""
    reports = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return bool(reports) and all(
        "next" not in report or (folder / report["next"]).with_suffix(".json").exists() for report in reports
    )


def expect_numbers(paths: list[Path], suffix: str) -> None:
    assert len(paths) >= 3
    expected = [f"call=from.{part:03}{suffix}" for part in range(1, len(paths) + 1)]
    assert [path.name for path in paths] == expected


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(argument) for argument in (binary(), *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("name", ["pcapng", "pcap", "pcap-ns"])
def test_every_tool_reads_every_file_of_a_long_call(
    name: str, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    daemon = start_daemon(*FORMATS[name], *ROTATE)
    call = make_call(daemon, "call")
    assert call.command("R") == "0"
    said = talk(call)
    paths = finished(daemon, call, SUFFIXES[name])
    expect_numbers(paths, SUFFIXES[name])

    recorded = []
    for part, path in enumerate(paths, start=1):
        packets = read(path)
        recorded += packets
        report = sidecar(path)
        assert (report["part"], report["packets"], report["dropped"]) == (part, len(packets), 0)
        assert report["ended"]["reason"] == ("rotated" if part < len(paths) else "deleted")
        frames = len(packets) + report["synthetic_frames"]
        assert int(capinfos(path)["Number of packets"]) == frames
        assert len(tcpdump(path)) == frames
        # Nobody tells tshark in pcap that this is RTP.
        hint = () if name == "pcapng" else ("-d", "udp.port==1024-65535,rtp")
        streams = tshark(path, *hint, "-q", "-z", "rtp,streams")
        assert streams.count("g711U") == 2, streams
        if name == "pcapng":
            calls = tshark(path, "-Y", "sip.Method == INVITE").splitlines()
            assert len(calls) == 1, calls
    times = [packet.time_ns for packet in recorded]
    assert times == sorted(times)
    heard = [packet for packet in recorded if packet.source == call.caller.media.pair]
    assert payloads(heard) == [ours for ours, _ in said]
    assert len(recorded) == 2 * len(said)


def test_our_readers_read_a_long_call_of_the_c_programs_format(
    start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    daemon = start_daemon(*FORMATS["adhoc"], *ROTATE)
    call = make_call(daemon, "call")
    assert call.command("R") == "0"
    assert call.command_of_callee("R") == "0"
    report = call.caller.report(call.at_caller_side)
    said = talk(call)
    finished(daemon, call, ".rtp")
    for side, letter in enumerate("oa"):
        paths = sorted(daemon.recordings.glob(f"*.{letter}.rtp"))
        expect_numbers(paths, f".{letter}.rtp")
        assert payloads(packet for path in paths for packet in read(path)) == [pair[side] for pair in said]
    assert payloads(read(daemon.recordings / "call=from.001.o.rtcp")) == [report]
    assert read(daemon.recordings / "call=from.002.o.rtcp") == []


@pytest.mark.parametrize("name", ["pcapng", "pcap", "adhoc"])
def test_any_file_of_a_long_call_stands_for_all(
    name: str, start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    daemon = start_daemon(*FORMATS[name], *ROTATE)
    call = make_call(daemon, "call")
    assert call.command("R") == "0"
    said = talk(call)
    paths = finished(daemon, call, SUFFIXES[name])
    first, second, third, *_ = paths

    verdicts = run("verify", second)
    assert (verdicts.returncode, len(verdicts.stdout.splitlines())) == (0, len(paths)), verdicts.stdout
    rows = [json.loads(line) for line in run("ls", "--json", daemon.recordings).stdout.splitlines()]
    expected = [(part, None) for part in range(1, len(paths) + 1)]
    assert [(row["part"], row["error"]) for row in rows] == expected

    seconds = len(said) * 0.02
    for given in (first, second.with_suffix(".json")):
        audio = tmp_path / "audio.wav"
        extracted = run("extract", "--force", "-o", audio, given)
        assert extracted.returncode == 0, extracted.stderr
        # What was said faster than it is played is as long as it takes to play.
        assert audio.stat().st_size >= seconds * 8000 * 2, extracted.stdout
        assert "missing" not in extracted.stdout + extracted.stderr

    second.unlink()
    second.with_suffix(".json").unlink()
    verdicts = run("verify", third)
    assert verdicts.returncode == 1
    assert "part 2 of the recording is missing" in verdicts.stdout
    assert "part 2 of the recording is missing" in run("ls", daemon.recordings).stdout
    extracted = run("extract", "-o", tmp_path / "gap.wav", third)
    assert "part 2 of the recording is missing" in extracted.stdout + extracted.stderr


def test_each_finished_file_is_told_of_and_all_are_one_recording(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    events, told = tmp_path / "events", tmp_path / "told"
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\necho "$1" >>{told}\n')
    script.chmod(0o700)
    daemon = start_daemon(*ROTATE, "--record-events", events, "--record-events", f"exec:{script}")
    call = make_call(daemon, "call")
    assert call.command("R") == "0"
    said = talk(call)
    paths = finished(daemon, call, ".pcapng")
    sidecars = [str(path.with_suffix(".json")) for path in paths]
    wait_until(
        lambda: told.exists() and len(told.read_text().splitlines()) == len(paths), "programs have run"
    )
    assert sorted(told.read_text().splitlines()) == sidecars
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    rotated = ["rotated"] * (len(paths) - 1)
    assert [line["event"] for line in lines] == ["started", *rotated, "finished"]
    assert [line["sidecar"] for line in lines[1:]] == sidecars
    assert [line["file"] for line in lines[1:]] == [str(path) for path in paths]
    assert {line["number"] for line in lines} == {1}
    assert lines[-1]["packets"] == 2 * len(said)


@pytest.mark.parametrize(("flush", "least", "most"), [("100ms", 0, 0.8), ("3s", 1.5, 8)])
def test_flush_says_how_long_a_packet_is_in_memory_alone(
    flush: str, least: float, most: float, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    daemon = start_daemon("--record-format", "pcap", "--record-flush", flush)
    call = make_call(daemon, "call")
    assert call.command("R") == "0"
    part = daemon.recordings / "call=from.pcap.part"
    wait_until(part.exists, "the recording has begun")
    call.talk(1)
    begun, empty = time.monotonic(), 24
    wait_until(lambda: part.stat().st_size > empty, "the packets are written")
    assert least <= time.monotonic() - begun <= most
