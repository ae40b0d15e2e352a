"""Old recordings are removed by age and by quota: those and nothing else."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.daemon import Daemon, StartDaemon, binary, clean_environment, wait_until
from support.phone import MakeCall


def record(daemon: Daemon, make_call: MakeCall, call_id: str) -> Path:
    """A recording of a short call, once it is finished."""
    call = make_call(daemon, call_id)
    assert call.command("R") == "0"
    call.talk(3)
    assert call.command("D") == "0"
    path = daemon.recordings / f"{call_id}=from.pcapng"
    wait_until(path.with_suffix(".json").exists, f"{path.name} is finished; log: {daemon.log()}")
    return path


def make_older(path: Path, days: int) -> None:
    """Lets a recording have ended so much earlier."""
    sidecar = path.with_suffix(".json")
    report = json.loads(sidecar.read_text())
    report["ended"]["at"] = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    sidecar.write_text(json.dumps(report))


def names(folder: Path) -> set[str]:
    """What is in a folder."""
    return {path.name for path in folder.iterdir()}


def removals(daemon: Daemon) -> list[str]:
    """The lines of the log that tell of removed recordings."""
    return [line for line in daemon.log().splitlines() if "old recordings removed" in line]


def test_recordings_go_when_they_are_too_old(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    first = start_daemon()
    old, young, opened = (record(first, make_call, name) for name in ("old", "young", "opened"))
    first.stop()
    for path, days in ((old, 31), (opened, 31), (young, 29)):
        make_older(path, days)
    folder = first.recordings
    (folder / "notes.json").write_text('{"version": 1}')
    (folder / "capture.pcapng").write_bytes(b"of somebody else")
    (folder / "left").symlink_to(folder.parent)

    with opened.open("rb"):
        daemon = start_daemon("--record-max-age", "30d", recordings=folder)
        running = make_call(daemon, "running")
        assert running.command("R") == "0"
        running.talk(3)
        wait_until(lambda: not old.with_suffix(".json").exists(), "the old recording is removed")
        line = daemon.wait_for_log("old recordings removed")
        assert "too_old=1 over_quota=0" in line
        assert "1 old recordings are in use and stay" in daemon.wait_for_log("in use")
        wait_until((folder / "running=from.pcapng.part").exists, "the call is recorded")
        assert names(folder) == {
            "young=from.json",
            "young=from.pcapng",
            "opened=from.json",
            "opened=from.pcapng",
            "running=from.pcapng.part",
            "notes.json",
            "capture.pcapng",
            "left",
        }
    wait_until(lambda: not opened.exists(), "what was open is removed in the next round", seconds=30)
    assert running.command("D") == "0"
    wait_until(lambda: len(removals(daemon)) == 2, "the log tells of both rounds")


def test_the_oldest_go_while_all_take_too_much(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    first = start_daemon()
    paths = [record(first, make_call, f"call-{number}") for number in range(5)]
    first.stop()
    folder = first.recordings
    for days, path in enumerate(paths, start=1):
        # As large as a longer call; the sidecar agrees.
        path.write_bytes(path.read_bytes().ljust(400_000, b"\0"))
        sidecar = path.with_suffix(".json")
        report = json.loads(sidecar.read_text())
        report["files"][0]["size"] = 400_000
        sidecar.write_text(json.dumps(report))
        make_older(path, days)

    daemon = start_daemon("--record-quota", "1M", recordings=folder)
    line = daemon.wait_for_log("old recordings removed")
    assert "too_old=0 over_quota=3" in line
    kept = {path.with_suffix(suffix).name for path in paths[:2] for suffix in (".pcapng", ".json")}
    assert names(folder) == kept
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1 << 20


def test_a_relay_that_cannot_know_its_recordings_does_not_start(tmp_path: Path) -> None:
    for options, message in (
        (("--compat", "--record-quota", "1G"), "--record-quota is not possible with --compat"),
        (("--compat", "--record-max-age", "1d"), "--record-max-age is not possible with --compat"),
    ):
        done = subprocess.run(
            [binary(), "-f", "-F", "-r", tmp_path, *options, "-s", f"cunix:{tmp_path / 'control'}"],
            capture_output=True,
            text=True,
            env=clean_environment(),
            timeout=20,
            check=False,
        )
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
