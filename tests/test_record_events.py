"""`--record-events`: what becomes of recordings, told to others."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, StartDaemon, binary, wait_until
from support.phone import MakeCall
from support.program import run


def lines(path: Path) -> list[dict[str, Any]]:
    """The events in a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def names(path: Path) -> list[str]:
    """What happened, by name."""
    return [event["event"] for event in lines(path)]


def script(path: Path, text: str) -> Path:
    """A program for `exec:`."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


def record(daemon: Daemon, call_id: str) -> None:
    """A recording without packets, from its start to its sidecar."""
    daemon.command(f"U {call_id} 127.0.0.1 4000 from")
    assert daemon.command(f"R {call_id} from") == "0"
    assert daemon.command(f"D {call_id} from") == "0"


def record_without_folder(daemon: Daemon) -> Path:
    """Starts a recording, and before that moves the folder away; returns where it is."""
    moved = daemon.recordings.with_name("moved")
    daemon.command("U call 127.0.0.1 4000 from")
    for _ in range(10):
        daemon.recordings.rename(moved)
        if daemon.command("R call from") == "0":
            return moved
        # The relay, which looks each second, has looked just now.
        moved.rename(daemon.recordings)
        time.sleep(1.2)
    raise AssertionError("it always looks just then")


def test_a_file_tells_the_life_of_a_recording(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    path = tmp_path / "events"
    daemon = start_daemon("--record-events", path)
    call = make_call(daemon, "call-1")
    assert call.command("R") == "0"
    call.talk(20)
    assert call.command("N") == "0"
    wait_until(lambda: names(path) == ["started", "paused"], "it is paused")
    assert call.command("R") == "0"
    call.talk(5)
    assert call.command("D") == "0"
    wait_until(lambda: len(lines(path)) == 4, "four events")

    assert path.stat().st_mode & 0o777 == 0o600
    started, paused, resumed, finished = lines(path)
    assert names(path) == ["started", "paused", "resumed", "finished"]
    assert [event["was"] for event in lines(path)] == ["starting", "recording", "paused", "recording"]
    assert started["file"] == str(daemon.recordings / "call-1=from.pcapng.part")
    assert (started["packets"], started["sidecar"]) == (0, None)
    assert paused["state"] == "paused"
    assert resumed["state"] == "recording"
    sidecar = Path(finished["sidecar"])
    assert sidecar == daemon.recordings / "call-1=from.json"
    report = json.loads(sidecar.read_text())
    for field in ("call_id", "from_tag", "to_tag", "packets", "bytes", "dropped"):
        assert finished[field] == report[field], field
    assert finished["packets"] == 50
    assert Path(finished["file"]).name == report["files"][0]["name"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", event["at"]) for event in lines(path))


def test_the_sidecar_is_the_last_thing_that_appears(start_daemon: StartDaemon, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    daemon = start_daemon("-S", spool, "-a")
    seen = 0
    for number in range(20):
        daemon.command(f"U call-{number} 127.0.0.1 4000 from")
        assert daemon.command(f"D call-{number} from") == "0"
        deadline = time.monotonic() + 20
        while not (sidecar := daemon.recordings / f"call-{number}=from.json").exists():
            assert time.monotonic() < deadline
        # No wait: what it names is there, and it is whole.
        report = json.loads(sidecar.read_text())
        file = daemon.recordings / report["files"][0]["name"]
        assert file.stat().st_size == report["files"][0]["size"]
        seen += 1
    assert seen == 20
    assert not list(daemon.recordings.glob("*.part"))


def test_a_folder_that_is_gone_is_told(start_daemon: StartDaemon, tmp_path: Path) -> None:
    path = tmp_path / "events"
    daemon = start_daemon("--record-events", path)
    moved = record_without_folder(daemon)
    wait_until(lambda: names(path) == ["degraded"], "it is degraded")
    assert "No such file" in lines(path)[0]["cause"]
    moved.rename(daemon.recordings)
    wait_until(lambda: names(path) == ["degraded", "started"], "it starts after all")
    assert lines(path)[1]["cause"] is None
    daemon.command("D call from")
    wait_until(lambda: names(path)[2:] == ["finished"], "it is finished")


def test_what_cannot_be_written_fails_at_the_end(start_daemon: StartDaemon, tmp_path: Path) -> None:
    path = tmp_path / "events"
    daemon = start_daemon("--record-events", path)
    record_without_folder(daemon)
    daemon.command("D call from")
    assert daemon.stop() == 0
    assert names(path) == ["degraded", "failed"]
    assert "nothing could be written" in lines(path)[-1]["cause"]


def test_a_listener_gets_lines_when_it_comes_and_when_it_comes_back(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "listener"
    daemon = start_daemon("--record-events", f"unix:{path}")
    # Nobody listens yet: the recorder does not care, and events wait.
    record(daemon, "call-0")
    wait_until(lambda: (daemon.recordings / "call-0=from.json").exists(), "the recording")
    daemon.wait_for_log("they wait")
    for number in range(2):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(20)
            connection, _ = listener.accept()
            with connection, connection.makefile() as stream:
                connection.settimeout(20)
                heard = [json.loads(stream.readline()) for _ in range(2)]
                assert [event["event"] for event in heard] == ["started", "finished"]
                assert {event["call_id"] for event in heard} == {f"call-{number}"}
        path.unlink()
        record(daemon, f"call-{number + 1}")
    wait_until(lambda: (daemon.recordings / "call-2=from.json").exists(), "the recording")
    # At the end nobody listens again, and nothing waits for that.
    started = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - started < 5
    assert f"record events: 2 for {path} were lost" in daemon.log()


def test_a_listener_that_reads_nothing_holds_up_no_recording(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    path, other = tmp_path / "listener", tmp_path / "events"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        daemon = start_daemon("--record-events", f"unix:{path}", "--record-events", other)
        # More than the socket holds.
        for number in range(400):
            record(daemon, f"{'long' * 50}-{number}")
        call = make_call(daemon, "call")
        assert call.command("R") == "0"
        call.talk(20)
        assert call.command("D") == "0"
        wait_until(lambda: (daemon.recordings / "call=from.json").exists(), "the recording")
        wait_until(lambda: len(lines(other)) == 2 * 401, "the other target has heard all")
        assert sorted(set(names(other))) == ["finished", "started"]


def test_a_program_gets_the_sidecar(start_daemon: StartDaemon, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    program = script(tmp_path / "program", f'test -s "$1" && echo "$# $1" >> {heard}')
    daemon = start_daemon("--record-events", f"exec:{program}")
    for number in range(10):
        record(daemon, f"call-{number}")
    expected = {f"1 {daemon.recordings / f'call-{number}=from.json'}" for number in range(10)}
    wait_until(lambda: heard.exists() and set(heard.read_text().splitlines()) == expected, "all sidecars")
    # What ends with the relay is told before its end.
    daemon.command("U last 127.0.0.1 4000 from")
    assert daemon.command("R last from") == "0"
    assert daemon.stop() == 0
    assert heard.read_text().splitlines()[-1].endswith("/last=from.json")
    assert len(heard.read_text().splitlines()) == 11


def test_slow_programs_hold_up_nothing_and_run_few_at_a_time(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    running = tmp_path / "running"
    running.mkdir()
    program = script(tmp_path / "slow", f"touch {running}/$$; sleep 1; rm {running}/$$")
    daemon = start_daemon("--record-events", f"exec:{program}")
    for number in range(12):
        record(daemon, f"call-{number}")
    most = 0
    wait_until(lambda: len(list(running.iterdir())) == 4, "four run")
    call = make_call(daemon, "call")
    assert call.command("R") == "0"
    call.talk(50)
    assert call.command("D") == "0"
    wait_until(lambda: (daemon.recordings / "call=from.json").exists(), "the recording", 2)
    for _ in range(20):
        most = max(most, len(list(running.iterdir())))
        time.sleep(0.05)
    assert most <= 4
    # All of them are done at the end: 13 of a second each, four at a time.
    assert daemon.stop() == 0
    assert list(running.iterdir()) == []
    assert "record events" not in daemon.log()


def test_a_program_that_fails_is_told(start_daemon: StartDaemon, tmp_path: Path) -> None:
    program = script(tmp_path / "program", "echo what is this >&2; exit 3")
    daemon = start_daemon("--record-events", f"exec:{program}")
    record(daemon, "call")
    daemon.wait_for_log("failed, exit status: 3")
    daemon.wait_for_log("what is this")
    assert "too many wait" not in daemon.log()


def test_a_moved_file_begins_anew(start_daemon: StartDaemon, tmp_path: Path) -> None:
    path = tmp_path / "events"
    daemon = start_daemon("--record-events", path)
    record(daemon, "call-1")
    wait_until(lambda: len(lines(path)) == 2, "two events")
    path.rename(tmp_path / "events.1")
    record(daemon, "call-2")
    wait_until(
        lambda: [event["call_id"] for event in lines(path)] == ["call-2"] * 2, "two more in a new file"
    )


def test_compat_has_events_without_sidecars(start_daemon: StartDaemon, tmp_path: Path) -> None:
    path = tmp_path / "events"
    daemon = start_daemon("--compat", "--record-events", path)
    record(daemon, "call")
    wait_until(lambda: names(path) == ["started", "finished"], "its events")
    assert [event["sidecar"] for event in lines(path)] == [None, None]
    assert lines(path)[1]["file"] == str(daemon.recordings / "call=from.o.rtp")
    assert lines(path)[1]["leg"] == "caller"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/no/such/folder/events", "No such file or directory"),
        ("exec:/no/such/program", "No such file or directory"),
        ("exec:/etc/passwd", "Permission denied"),
        (f"unix:/{'x' * 200}", "longer than 107 bytes"),
    ],
)
def test_a_target_that_cannot_be_hinders_the_start(tmp_path: Path, target: str, reason: str) -> None:
    control = f"unix:{tmp_path / 'control'}"
    common: list[str | Path] = [binary(), "-f", "-F", "-l", "127.0.0.1", "-s", control, "-r", tmp_path]
    done = run(*common, "-p", tmp_path / "pid", "--record-events", target)
    assert done.returncode == 1
    assert reason in done.stderr, done.stderr
    assert target in done.stderr, done.stderr
    assert not os.path.lexists(tmp_path / "control")
