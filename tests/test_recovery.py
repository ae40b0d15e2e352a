"""Killed relays and damaged files: what was recorded is found again, told, and repaired."""

from __future__ import annotations

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.capture import Captured, mode, payloads, read, sidecar
from support.daemon import Daemon, StartDaemon, binary, wait_until
from support.phone import Call, MakeCall, Media, Phone
from support.tools import capinfos, tshark

FORMATS = ("pcapng", "pcap", "adhoc")
CALLS = 2
FRAME_S = 0.02
MAY_BE_LOST_S = 1.5


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A sub-command of the program, which prints into pipes."""
    command = [str(argument) for argument in (binary(), *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def verdicts(*paths: Path) -> dict[str, Any]:
    """What `verify --json` says, by the names of the recordings."""
    result = run("verify", "--json", *paths)
    assert result.stderr == "", result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == (0 if all(line["is_whole"] for line in lines) else 1)
    return {Path(line["recording"]).name: line for line in lines}


def kinds(verdict: Any) -> list[str]:
    return [problem["kind"] for problem in verdict["problems"]]


def parts(folder: Path) -> list[Path]:
    return list(folder.glob("*.part"))


@dataclass
class Talker:
    """A phone that talks, with the time of each packet."""

    phone: Phone
    to: Media
    sent: list[tuple[float, bytes]] = field(default_factory=list)

    def talk(self) -> None:
        packet = self.phone.source.packet()
        self.sent.append((time.monotonic(), packet))
        self.phone.send(self.to, [packet])

    def check(self, recorded: list[bytes], killed_at: float) -> None:
        """What was recorded is what was sent, in order, but for the last moment."""
        sent = [packet for _, packet in self.sent]
        assert recorded == sent[: len(recorded)]
        due = sum(at <= killed_at - MAY_BE_LOST_S for at, _ in self.sent)
        assert len(recorded) >= due, f"{len(recorded)} of {due}"


class Victim:
    """A relay with recorded calls that is killed in the middle of them."""

    def __init__(self, folder: Path, number: int, calls: ExitStack) -> None:
        self.format = FORMATS[number % len(FORMATS)]
        self.recordings = folder / f"calls-{number}"
        self.recordings.mkdir()
        rotate = ("--record-rotate-time", "1s") if number % 2 else ()
        self.daemon = Daemon(
            folder / f"victim-{number}",
            *("--record-format", self.format, *rotate),
            recordings=self.recordings,
        )
        self.talkers: list[Talker] = []
        for name in range(CALLS):
            call = calls.enter_context(Call(self.daemon, f"call-{name}"))
            self.talkers.append(Talker(call.caller, call.at_caller_side))
            self.talkers.append(Talker(call.callee, call.at_callee_side))
            assert call.command("R") == "0"
            if self.format == "adhoc":
                assert call.command_of_callee("R") == "0"
        self.dies_at = time.monotonic() + random.uniform(1.8, 4)
        self.killed_at = 0.0

    def live(self) -> bool:
        """One turn of its life, or its end; false afterwards."""
        if self.killed_at:
            return False
        if time.monotonic() >= self.dies_at:
            self.killed_at = time.monotonic()
            assert self.daemon.stop(signal.SIGKILL) == -signal.SIGKILL
            return False
        for talker in self.talkers:
            talker.talk()
        return True

    def check(self) -> None:
        """Reads what the next relay has made of it."""
        for call in range(CALLS):
            legs = self.talkers[2 * call : 2 * call + 2]
            for leg, letter in zip(legs, "oa", strict=True):
                paths = self.paths(call, letter)
                assert paths
                packets = [packet for path in paths for packet in self.check_file(call, path)]
                ours = [packet for packet in packets if packet.source == leg.phone.media.pair]
                leg.check(payloads(ours), self.killed_at)

    def paths(self, call: int, letter: str) -> list[Path]:
        """The files with what a party of a call has said, in their order."""
        suffix = f"{letter}.rtp" if self.format == "adhoc" else self.format
        paths = self.recordings.glob(f"call-{call}=from*.{suffix}")
        return sorted(paths, key=lambda path: path.name.replace(".recovered", ""))

    def check_file(self, call: int, path: Path) -> list[Captured]:
        """Gives the packets of a file that was recovered, or that was complete before."""
        assert mode(path) == 0o600
        report = sidecar(path)
        is_recovered = ".recovered" in path.name
        assert report["ended"]["reason"] == ("interrupted" if is_recovered else "rotated")
        packets = read(path)
        if self.format == "pcapng":
            assert (report["call_id"], report["from_tag"]) == (f"call-{call}", "from")
            assert report["packets"] == len(packets)
        if self.format != "adhoc":
            assert int(capinfos(path)["Number of packets"]) >= len(packets)
        return packets

    def is_recovered(self) -> bool:
        """Whether nothing is left to do; sidecars come last."""
        files = [path for path in self.recordings.iterdir() if path.suffix not in (".json", ".rtcp")]
        return not parts(self.recordings) and all(path.with_suffix(".json").exists() for path in files)


@pytest.mark.timeout(600)
def test_a_killed_relay_loses_the_last_moment_only(
    tmp_path: Path, start_daemon: StartDaemon, is_long: bool
) -> None:
    for batch in range(10 if is_long else 1):
        folder = tmp_path / f"batch-{batch}"
        folder.mkdir()
        with ExitStack() as calls:
            victims = [Victim(folder, number, calls) for number in range(10)]
            while [victim for victim in victims if victim.live()]:
                time.sleep(FRAME_S)
            for victim in victims:
                before = verdicts(victim.recordings)
                assert before
                assert "unfinished" in {kind for verdict in before.values() for kind in kinds(verdict)}
                # The next relay may record in another format.
                options = ("--record-format", random.choice(FORMATS))
                daemon = start_daemon(*options, recordings=victim.recordings)
                daemon.wait_for_log("an earlier process did not end were recovered")
                wait_until(victim.is_recovered, "all is recovered")
                victim.check()
                after = verdicts(victim.recordings)
                assert len(after) >= CALLS * (2 if victim.format == "adhoc" else 1)
                assert all(verdict["is_whole"] for verdict in after.values()), after
                assert daemon.stop() == 0


@pytest.mark.parametrize(
    "options",
    [*(("--record-format", name) for name in FORMATS), ("--record-layout", "journal")],
    ids=lambda options: options[-1],
)
def test_what_was_said_before_the_last_moment_is_read_without_help(
    options: tuple[str, ...], tmp_path: Path, start_daemon: StartDaemon
) -> None:
    recordings = tmp_path / "calls"
    recordings.mkdir()
    victim = Daemon(tmp_path / "victim", "-a", *options, recordings=recordings)
    said: list[bytes] = []
    with ExitStack() as opened:
        calls = [opened.enter_context(Call(victim, f"call-{number}")) for number in range(4)]
        for _ in range(25):
            for call in calls:
                said += [packet for packets in call.talk(10) for packet in packets]
            time.sleep(0.02)
        time.sleep(MAY_BE_LOST_S)
        assert victim.stop(signal.SIGKILL) == -signal.SIGKILL

    def readable(files: list[Path]) -> int:
        there = {packet.payload for path in files for packet in read(path)}
        return sum(packet in there for packet in said)

    unfinished = []
    for number, part in enumerate(parts(recordings)):
        unfinished.append(tmp_path / f"{number}-{part.stem}")
        shutil.copyfile(part, unfinished[-1])
    assert readable(unfinished) >= 0.999 * len(said)
    start_daemon(*options, recordings=recordings)
    wait_until(lambda: not parts(recordings), "all is recovered")
    recovered = [path for path in recordings.iterdir() if path.suffix != ".json"]
    assert readable(recovered) >= 0.999 * len(said)


def test_wireshark_shows_a_recovered_call(tmp_path: Path, start_daemon: StartDaemon) -> None:
    recordings = tmp_path / "calls"
    recordings.mkdir()
    victim = Daemon(tmp_path / "victim", recordings=recordings)
    with Call(victim, "call") as call:
        call.command("R")
        call.talk(25)
        wait_until(lambda: parts(recordings) and parts(recordings)[0].stat().st_size > 50 * 200, "a flush")
        victim.stop(signal.SIGKILL)
    with parts(recordings)[0].open("ab") as file:
        file.write(b"\x06\0\0\0\x00\x01\0\0torn")
    daemon = start_daemon(recordings=recordings)
    path = recordings / "call=from.recovered.pcapng"
    wait_until(path.with_suffix(".json").exists, "the sidecar")
    assert sidecar(path)["recovered"]["cut_bytes"] == 12
    streams = tshark(path, "-q", "-z", "rtp,streams")
    assert streams.count("g711U") == 2, streams
    assert "recovered" in capinfos(path).get("Capture comment", "") or len(read(path)) == 50
    assert "recording recovered" in daemon.log()


def test_relays_that_share_a_folder_leave_each_other_alone(
    daemon: Daemon, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    call = make_call(daemon, "call-1")
    call.command("R")
    said, answered = call.talk(10)
    wait_until(lambda: parts(daemon.recordings), "the recording has begun")
    (daemon.recordings / "old=from.pcapng.part").write_bytes(b"")
    other = start_daemon(recordings=daemon.recordings, log_level="dbug")
    wait_until((daemon.recordings / "old=from.recovered.json").exists, "the leftover is recovered")
    assert "another process is writing it" in other.log()
    assert list(verdicts(daemon.recordings)) == ["call-1=from.pcapng.part", "old=from.recovered.pcapng"]
    more = call.talk(10)
    call.command("D")
    path = daemon.recordings / "call-1=from.pcapng"
    wait_until(path.with_suffix(".json").exists, "the recording is finished")
    recorded = payloads(read(path))
    assert sorted(recorded) == sorted(said + answered + more[0] + more[1])
    assert not parts(daemon.recordings)


def test_compat_touches_no_leftover(tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall) -> None:
    recordings = tmp_path / "calls"
    recordings.mkdir()
    left = recordings / "old=from.pcapng.part"
    left.write_bytes(b"")
    daemon = start_daemon("--compat", recordings=recordings)
    call = make_call(daemon, "call")
    call.command("R")
    call.talk(2)
    call.command("D")
    assert daemon.stop() == 0
    assert left.exists()
    assert run("verify", "--no-sidecar", recordings / "call=from.o.rtp").returncode == 0
    assert "no-sidecar" in kinds(verdicts(recordings)["call=from.o.rtp"])


@pytest.fixture
def recorded(daemon: Daemon, make_call: MakeCall) -> Path:
    """A finished recording of a hundred packets."""
    call = make_call(daemon, "call")
    call.command("R")
    call.talk(50)
    call.command("D")
    path = daemon.recordings / "call=from.pcapng"
    wait_until(path.with_suffix(".json").exists, "the recording is finished")
    return path


def damage(path: Path, at: int, length: int) -> bytes:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(length))
    return path.read_bytes()


def test_a_recording_with_a_hole_is_told_and_repaired(recorded: Path) -> None:
    assert run("verify", recorded).stdout == f"whole {recorded}: 100 packets\n"
    assert run("repair", recorded).stdout == f"{recorded}: nothing to repair\n"
    before = read(recorded)
    damaged = damage(recorded, 8192, 4096)

    result = run("verify", recorded.parent)
    assert result.returncode == 1
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"WRONG {recorded}: ")
    assert "cannot be read (zeros), between 20" in line
    assert "packets are in it, and 100 should be" in line
    (verdict,) = verdicts(recorded).values()
    assert kinds(verdict) == ["hole", "changed", "packets"]

    result = run("repair", recorded)
    assert (result.returncode, result.stderr) == (0, "")
    repaired = recorded.with_name("call=from.repaired.pcapng")
    assert recorded.read_bytes() == damaged
    after = read(repaired)
    lost = len(before) - len(after)
    assert 0 < lost < 30
    assert f"{lost} packets are lost" in result.stdout
    # What is left is what was there, but for a comment at the hole.
    left = [(packet.time_ns, packet.source, packet.payload) for packet in after]
    assert set(left) < {(packet.time_ns, packet.source, packet.payload) for packet in before}
    assert sum("could not be read" in " ".join(packet.comments) for packet in after) == 1
    assert len(tshark(repaired, "-Y", "rtp").splitlines()) == len(after)
    assert sidecar(repaired)["repaired"]["lost_packets"] == lost
    assert mode(repaired) == 0o600
    assert kinds(verdicts(repaired)[repaired.name]) == ["lost"]

    assert "it exists; --force replaces it" in run("repair", recorded).stderr
    assert run("repair", "--force", recorded).returncode == 0
    assert run("repair", "--in-place", recorded).returncode == 0
    assert read(recorded) == after
    assert kinds(verdicts(recorded)[recorded.name]) == ["lost"]


def test_repair_writes_into_another_folder(recorded: Path, tmp_path: Path) -> None:
    damage(recorded, 0, 100)
    folder = tmp_path / "new" / "folder"
    result = run("repair", "-o", folder, recorded.parent)
    assert result.returncode == 0, result.stderr
    assert "its head is lost" in result.stdout
    assert {path.name for path in folder.iterdir()} == {"call=from.json", "call=from.pcapng"}
    assert len(read(folder / "call=from.pcapng")) == 100


def test_without_the_key_nothing_is_said_of_the_packets(
    start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    public = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"
    daemon = start_daemon("--record-encrypt", public)
    call = make_call(daemon, "call")
    call.command("R")
    call.talk(10)
    call.command("D")
    path = daemon.recordings / "call=from.pcapng.age"
    wait_until((daemon.recordings / "call=from.json").exists, "the recording is finished")
    (verdict,) = verdicts(path).values()
    assert (verdict["is_whole"], verdict["packets"]) == (True, None)
    line = run("verify", path).stdout
    assert line.startswith(f"whole {path}: its packets are not checked: ")


def test_a_terminal_gets_a_table(recorded: Path) -> None:
    damage(recorded, 8192, 100)
    ours, theirs = pty.openpty()
    command = [str(word) for word in (binary(), "verify", recorded.parent)]
    status = subprocess.run(command, stdout=theirs, stderr=subprocess.DEVNULL, timeout=60, check=False)
    os.close(theirs)
    text = ""
    while "of 1 recordings" not in text:
        text += os.read(ours, 65536).decode()
    os.close(ours)
    assert status.returncode == 1
    assert "what there is to know" in text
    assert "Something is wrong with 1 of 1 recordings." in text


def test_what_cannot_be_looked_at_has_a_status_of_its_own(tmp_path: Path) -> None:
    for command in ("verify", "repair"):
        missing = run(command, tmp_path / "missing")
        assert (missing.returncode, missing.stdout) == (2, "")
        assert str(tmp_path / "missing") in missing.stderr
        empty = run(command, tmp_path)
        assert empty.returncode == 2
        assert "there are no recordings" in empty.stderr
        assert run(command).returncode == 2
        assert run(command, "--help").returncode == 0
