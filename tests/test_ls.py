"""`rtpproxy ls` lists what a relay has recorded and what it records."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, StartDaemon, binary, clean_environment, wait_until
from support.phone import Call, MakeCall

PACKETS = 10
COLUMNS = (
    "state",
    "start",
    "duration",
    "call_id",
    "from_tag",
    "to_tag",
    "caller",
    "callee",
    "packets",
    "missing",
    "size",
    "ended",
    "path",
    "error",
)


def ls(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What the command says and its exit status."""
    return subprocess.run(
        [binary(), "ls", *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=30,
        check=False,
    )


def listed(*arguments: str | Path) -> list[dict[str, Any]]:
    """The recordings of a list in JSON."""
    done = ls("--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def call_ids(*arguments: str | Path) -> list[str]:
    """The calls of a list."""
    return [recording["call_id"] for recording in listed(*arguments)]


def on_a_terminal(*arguments: str | Path) -> str:
    """What the command shows to somebody who watches."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    with subprocess.Popen([binary(), "ls", *arguments], stdout=theirs, env=clean_environment()) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:
                break
        assert process.wait(timeout=30) == 0
    os.close(ours)
    return shown.decode()


def record(daemon: Daemon, make_call: MakeCall, call_id: str) -> Call:
    """A call that is being recorded."""
    call = make_call(daemon, call_id)
    assert call.command("R") == "0"
    call.talk(PACKETS)
    return call


def finished(daemon: Daemon, name: str) -> Path:
    """The recording of this name, once it is complete."""
    path = daemon.recordings / name
    wait_until(path.with_suffix(".json").exists, f"{name} is finished; log: {daemon.log()}")
    return path


def test_finished_running_and_damaged_recordings_are_listed(daemon: Daemon, make_call: MakeCall) -> None:
    first = record(daemon, make_call, "first@host")
    first.command("D")
    second = record(daemon, make_call, "second@host")
    second.command("D")
    path = finished(daemon, "first@host=from.pcapng")
    finished(daemon, "second@host=from.pcapng").unlink()
    third = record(daemon, make_call, "third@host")
    part = daemon.recordings / "third@host=from.pcapng.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 1000, "the third call is on the disk")

    recordings = listed(daemon.recordings)
    assert [(recording["call_id"], recording["state"]) for recording in recordings] == [
        ("first@host", "finished"),
        ("second@host", "damaged"),
        ("third@host", "running"),
    ]
    complete, damaged, running = recordings
    assert complete["path"] == str(path)
    assert (complete["from_tag"], complete["to_tag"]) == ("from", "to")
    assert (complete["packets"], complete["missing"]) == (2 * PACKETS, 0)
    assert complete["size"] == path.stat().st_size
    assert (complete["ended"], complete["error"]) == ("deleted", None)
    assert 0 < complete["duration_s"] < 30
    for recording, call in ((complete, first), (running, third)):
        assert recording["caller"] == f"127.0.0.1:{call.caller.port}"
        assert recording["callee"] == f"127.0.0.1:{call.callee.port}"
    assert damaged["error"] == "second@host=from.pcapng is not there"
    assert (running["packets"], running["ended"], running["error"]) == (None, None, None)
    assert third.command("D") == "0"

    done = ls(daemon.recordings)
    lines = [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]
    assert [line["call_id"] for line in lines] == ["first@host", "second@host", "third@host"]
    assert lines[0]["packets"] == str(2 * PACKETS)
    assert lines[0]["start"] == complete["start"]
    assert lines[0]["error"] == "-"
    shown = on_a_terminal(daemon.recordings)
    assert "call-id" in shown
    assert "first@host" in shown
    assert "3 recordings, " in shown


def test_recordings_are_chosen_by_call_tag_and_time(daemon: Daemon, make_call: MakeCall) -> None:
    for call_id in ("a@one", "b@one", "c@two"):
        record(daemon, make_call, call_id).command("D")
        finished(daemon, f"{call_id}=from.pcapng")
    folder = daemon.recordings
    sidecar = folder / "a@one=from.json"
    report = json.loads(sidecar.read_text())
    report["first_packet"] = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    sidecar.write_text(json.dumps(report))

    assert call_ids(folder) == ["a@one", "b@one", "c@two"]
    assert call_ids(folder, "--call-id", "*@one") == ["a@one", "b@one"]
    assert call_ids(folder, "--call-id", "?@two") == ["c@two"]
    assert call_ids(folder, "--call-id", "@two") == []
    assert call_ids(folder, "--tag", "to", "--call-id", "b*") == ["b@one"]
    assert call_ids(folder, "--tag", "nobody") == []
    assert call_ids(folder, "--from", "-2d") == ["b@one", "c@two"]
    assert call_ids(folder, "--to", "-2d") == ["a@one"]
    day = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
    assert call_ids(folder, "--from", day, "--to", day) == ["a@one"]
    assert call_ids(folder, "--from", datetime.now(UTC).isoformat()) == []


def test_what_a_crash_has_left_is_interrupted(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    keeper = start_daemon()
    other = Daemon(keeper.folder / "other")
    try:
        call = make_call(other, "cut@host")
        assert call.command("R") == "0"
        last = call.talk(PACKETS)[1][-1]
        part = other.recordings / "cut@host=from.pcapng.part"
        wait_until(lambda: part.exists() and last in part.read_bytes(), "the call is on the disk")
    finally:
        assert other.stop(signal.SIGKILL) == -signal.SIGKILL
    (recording,) = listed(other.recordings)
    assert (recording["state"], recording["call_id"]) == ("interrupted", "cut@host")

    start_daemon(recordings=other.recordings).wait_for_log("recording recovered")
    wait_until(lambda: list(other.recordings.glob("*.json")), "its sidecar is there")
    (recording,) = listed(other.recordings)
    assert (recording["state"], recording["ended"]) == ("interrupted", "interrupted")
    assert recording["packets"] == 2 * PACKETS


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    done = ls(tmp_path, tmp_path / "missing")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rtpproxy: ls: {tmp_path / 'missing'}: No such file or directory")
    assert ls(tmp_path).returncode == 0


@pytest.mark.parametrize("text", ["yesterday", "2026-02-30", "-5"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    done = ls(tmp_path, "--from", text)
    assert done.returncode == 1
    assert done.stderr.startswith(f"rtpproxy: ls: {text}: not a time; write ")


def test_many_recordings_are_listed_soon(tmp_path: Path, is_long: bool) -> None:
    count = 100_000 if is_long else 5_000
    for number in range(count):
        report = {
            "version": 1,
            "call_id": f"call-{number}",
            "files": [],
            "packets": 1,
            "first_packet": f"2026-11-22T{number % 24:02}:00:00Z",
            "ended": {"reason": "deleted"},
        }
        (tmp_path / f"{number}.json").write_text(json.dumps(report))
    starts = [recording["start"] for recording in listed(tmp_path)]
    assert len(starts) == count
    assert starts == sorted(starts)
