"""Recordings that are compressed when they have ended."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from support.capture import mode, payloads, read, sidecar
from support.daemon import Daemon, StartDaemon, binary, wait_until
from support.disk import MEGABYTE, in_memory
from support.phone import Call, MakeCall
from support.tools import need, needs_root, tshark
from test_metrics import Metrics

PACKETS = 100
"""Of each party."""
METHODS = {"zstd": ".zst", "gzip": ".gz"}
PROGRAMS = {"zstd": "zstd", "gzip": "gzip"}


def finished(folder: Path, stem: str) -> tuple[Path, Any]:
    """The first file of a recording, and its sidecar."""
    path = folder / f"{stem}.json"
    wait_until(path.exists, f"{path} is there")
    report = json.loads(path.read_text())
    return folder / report["files"][0]["name"], report


def unpacked(path: Path, method: str, folder: Path) -> Path:
    """The file as the program of the method unpacks it."""
    need(PROGRAMS[method])
    subprocess.run([PROGRAMS[method], "-t", "-q", str(path)], check=True)
    plain = folder / path.stem
    with plain.open("wb") as output:
        subprocess.run([PROGRAMS[method], "-d", "-c", str(path)], stdout=output, check=True)
    shutil.copyfile(next(path.parent.glob("*.json")), plain.with_suffix(".json"))
    return plain


def run(*arguments: str | Path) -> str:
    """What a sub-command prints into a pipe."""
    command = [str(word) for word in (binary(), *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("method", METHODS)
def test_others_read_what_is_compressed(
    method: str, start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    daemon = start_daemon("--record-compress", method)
    call = make_call(daemon)
    assert call.command("R") == "0"
    said, answered = call.talk(PACKETS)
    part = daemon.recordings / f"{call.call_id}=from.pcapng.part"
    wait_until(part.exists, "the recording has begun")
    assert call.command("D") == "0"
    path, report = finished(daemon.recordings, f"{call.call_id}=from")
    assert path.name == f"{call.call_id}=from.pcapng{METHODS[method]}"
    assert not part.exists()
    assert mode(path) == 0o600
    assert len(list(daemon.recordings.iterdir())) == 2

    plain = unpacked(path, method, tmp_path)
    assert sorted(payloads(read(plain))) == sorted(said + answered)
    assert report["files"][0]["compression"] == method
    assert report["files"][0]["content_size"] == plain.stat().st_size

    streams = tshark(path, "-q", "-z", "rtp,streams")
    assert streams.count("g711U") == 2, streams

    assert run("verify", path.parent) == f"whole {path}: {2 * PACKETS} packets\n"
    listed = json.loads(run("ls", "--json", path.parent))
    assert (listed["state"], listed["size"]) == ("finished", path.stat().st_size)
    run("extract", "-o", tmp_path, path)
    assert (tmp_path / f"{call.call_id}=from.wav").stat().st_size > PACKETS * 160


def test_zstandard_is_one_frame(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    need("zstd")
    daemon = start_daemon("--record-compress", "zstd")
    call = make_call(daemon)
    call.command("R")
    call.talk(PACKETS)
    call.command("D")
    path, report = finished(daemon.recordings, f"{call.call_id}=from")
    told = subprocess.run(["zstd", "-lv", str(path)], capture_output=True, text=True, check=True).stdout
    facts = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    counts = {name.strip(): value.strip() for name, value in facts.items()}
    frames = next(value for name, value in counts.items() if "Frames" in name)
    assert frames == "1", told
    assert counts["Check"].startswith("XXH64"), told
    assert f"({report['files'][0]['content_size']} B)" in counts["Decompressed Size"], told


@pytest.mark.parametrize("record_format", ["pcap", "adhoc"])
def test_the_other_formats(record_format: str, start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--record-compress", "gzip", "--record-format", record_format)
    call = make_call(daemon)
    call.command("R")
    said, answered = call.talk(PACKETS)
    call.command("D")
    is_adhoc = record_format == "adhoc"
    path, report = finished(daemon.recordings, f"{call.call_id}=from{'.o' if is_adhoc else ''}")
    assert all(file["name"].endswith(".gz") for file in report["files"])
    plain = path.with_suffix("")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert sorted(payloads(read(plain))) == sorted(said if is_adhoc else said + answered)


def test_a_relay_that_is_killed_while_it_compresses(tmp_path: Path, start_daemon: StartDaemon) -> None:
    recordings = tmp_path / "calls"
    recordings.mkdir()
    calls = 40
    said: dict[str, list[bytes]] = {}
    for turn in range(3):
        victim = Daemon(tmp_path / f"victim-{turn}", "--record-compress", "zstd", recordings=recordings)
        with_calls = [Call(victim, f"call-{turn}-{number}") for number in range(calls)]
        for call in with_calls:
            assert call.command("R") == "0"
            both = call.talk(5)
            said[call.call_id] = sorted(both[0] + both[1])
        # Nothing waits in memory any more.
        time.sleep(1.6)
        for call in with_calls:
            call.command("D")
        time.sleep(random.uniform(0, 0.05))
        assert victim.stop(signal.SIGKILL) == -signal.SIGKILL
        for call in with_calls:
            call.close()

    start_daemon("--record-compress", "zstd", recordings=recordings)
    wait_until(lambda: len(list(recordings.glob("*.zst"))) == len(said), "all are compressed")
    wait_until(lambda: not list(recordings.glob("*.part")), "nothing is left")
    need("zstd")
    found: dict[str, list[bytes]] = {}
    for path in recordings.glob("*.zst"):
        plain = tmp_path / path.stem
        subprocess.run(["zstd", "-d", "-q", "-o", str(plain), str(path)], check=True)
        found[path.name.split("=")[0]] = sorted(payloads(read(plain)))
    assert found == said
    lines = run("verify", recordings).splitlines()
    assert len(lines) == len(said)
    assert all(line.startswith("whole ") for line in lines), lines


@needs_root
def test_without_room_for_two_files_the_plain_one_stays(
    tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    metrics = Metrics()
    with in_memory(tmp_path / "tmpfs", 4 * MEGABYTE) as disk:
        daemon = start_daemon("--record-compress", "zstd", *metrics.options, recordings=disk.recordings)
        assert metrics.figures()["rtpproxy_recordings_to_convert"] == 0
        call = make_call(daemon)
        call.command("R")
        call.talk(PACKETS)
        time.sleep(1.5)
        with disk.full(left=16 << 10):
            call.command("D")
            path, report = finished(disk.recordings, f"{call.call_id}=from")
        assert path.suffix == ".pcapng"
        assert "space" in report["not_converted"].lower()
        assert len(read(path)) == 2 * PACKETS
        assert sidecar(path) == report
        assert "recording is kept as it was written" in daemon.log()
        figures = metrics.figures()
        assert figures["rtpproxy_recordings_converted_total/failed"] == 1
        assert figures["rtpproxy_recordings_to_convert"] == 0

        second = make_call(daemon)
        second.command("R")
        second.talk(PACKETS)
        second.command("D")
        path, _ = finished(disk.recordings, f"{second.call_id}=from")
        assert path.suffix == ".zst"
        metrics.wait_for("rtpproxy_recordings_converted_total/succeeded", 1)
        daemon.stop()


def test_what_waits_at_the_end_is_finished(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--record-compress", "gzip")
    calls = [make_call(daemon) for _ in range(20)]
    for call in calls:
        call.command("R")
        call.talk(3)
    assert daemon.stop() == 0
    names = sorted(path.name for path in daemon.recordings.iterdir())
    assert len(names) == 2 * len(calls), names
    assert not [name for name in names if name.endswith(".part")]
