"""Disks that fail under recordings: calls go on, commands are answered, and files say what is missing."""

from __future__ import annotations

import resource
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.capture import Captured, read, sidecar
from support.daemon import Daemon, StartDaemon, wait_until
from support.disk import MEGABYTE, Disk, in_memory, on_file
from support.phone import Call, MakeCall, Phone
from support.threads import stopped
from support.tools import needs_root

PACKETS = 500
"""Of each party, in five seconds."""
FAULT_S = 3.0
pytestmark = pytest.mark.alone


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Disk]:
    """A disk that can be frozen."""
    with on_file(tmp_path / "ext4", 32 * MEGABYTE) as disk:
        yield disk


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Disk]:
    """A small disk."""
    with in_memory(tmp_path / "tmpfs", 8 * MEGABYTE) as disk:
        yield disk


class Talk(threading.Thread):
    """Both parties of each call talk at the pace of phones, and listen."""

    def __init__(self, *calls: Call) -> None:
        super().__init__()
        self._directions = [
            direction
            for call in calls
            for direction in (
                (call.caller, call.at_caller_side, call.callee),
                (call.callee, call.at_callee_side, call.caller),
            )
        ]
        self.sent: dict[Phone, list[bytes]] = {sender: [] for sender, _, _ in self._directions}
        self.heard: dict[Phone, list[bytes]] = {receiver: [] for _, _, receiver in self._directions}

    def run(self) -> None:
        begin = time.monotonic()
        for number in range(PACKETS):
            for sender, to, receiver in self._directions:
                self.sent[sender] += sender.say(to, 1)
                self.heard[receiver] += receiver.hear(10, 0.0005)
            time.sleep(max(0.0, begin + number / 100 - time.monotonic()))
        for sender, _, receiver in self._directions:
            missing = len(self.sent[sender]) - len(self.heard[receiver])
            self.heard[receiver] += receiver.hear(missing, 5)

    def expect_all(self) -> None:
        """Every packet of every party was heard by the other one."""
        for sender, _, receiver in self._directions:
            assert self.heard[receiver] == self.sent[sender]


def expect_answers(daemon: Daemon, seconds: float) -> None:
    """For so long, commands are answered at once, and new calls are set up and recorded."""
    took: list[float] = []

    @contextmanager
    def clock() -> Iterator[None]:
        begin = time.monotonic()
        yield
        took.append(time.monotonic() - begin)

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with clock():
            assert daemon.command("V") == "20040107"
        with clock():
            call = Call(daemon)
        with call:
            with clock():
                assert call.command("R") == "0"
            call.talk(3)
            with clock():
                assert call.command("D") == "0"
        time.sleep(0.1)
    assert statistics.median(took) < 0.05
    # Far less than the fault lasts, on a machine that has other things to do too.
    assert max(took) < 0.5


def finished(folder: Path, call: Call) -> tuple[Any, list[Captured]]:
    """The sidecar of a call, and its packets."""
    path = folder / f"{call.call_id}=from.pcapng"
    wait_until(path.with_suffix(".json").exists, f"{path} is finished")
    return sidecar(path), read(path)


def expect_recorded(call: Call, talk: Talk, report: Any, packets: list[Captured], at_least: int) -> None:
    """The file holds so many packets of each party, in order, and says how many are missing."""
    for party in (call.caller, call.callee):
        recorded = [packet.payload for packet in packets if packet.source[1] == party.port]
        assert len(recorded) >= at_least
        there = iter(talk.sent[party])
        assert all(payload in there for payload in recorded)
    assert report["packets"] == len(packets)
    assert report["packets"] + report["dropped"] == 2 * PACKETS
    assert sum(gap["packets"] for gap in report["gaps"]) == report["dropped"]


@needs_root
@pytest.mark.parametrize("is_slow", [False, True], ids=["frozen", "slow"])
def test_a_disk_that_stands_still(
    ext4: Disk, start_daemon: StartDaemon, make_call: MakeCall, is_slow: bool
) -> None:
    daemon = start_daemon(recordings=ext4.recordings)
    call, plain = make_call(daemon), make_call(daemon)
    assert call.command("R") == "0"
    talk = Talk(call, plain)
    talk.start()
    time.sleep(1)
    for _ in range(6 if is_slow else 1):
        with ext4.frozen():
            expect_answers(daemon, FAULT_S / (6 if is_slow else 1))
        time.sleep(0.05)
    talk.join()
    talk.expect_all()
    call.command("D")
    expect_recorded(call, talk, *finished(ext4.recordings, call), at_least=400)


@needs_root
def test_a_full_disk_that_is_freed(tmpfs: Disk, start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon(recordings=tmpfs.recordings)
    call, plain = make_call(daemon, "recorded"), make_call(daemon)
    assert call.command("R") == "0"
    talk = Talk(call, plain)
    talk.start()
    time.sleep(1)
    with tmpfs.full():
        expect_answers(daemon, FAULT_S)
    talk.join()
    talk.expect_all()
    call.command("D")
    expect_recorded(call, talk, *finished(tmpfs.recordings, call), at_least=400)
    told = [line for line in daemon.log().splitlines() if call.call_id in line]
    assert sum("recording degraded, cannot write" in line for line in told) == 1
    [line] = [line for line in told if "recording goes on" in line]
    assert "missing=0" in line


def test_a_recorder_that_stands_still(daemon: Daemon, make_call: MakeCall) -> None:
    call, plain = make_call(daemon), make_call(daemon)
    assert call.command("R") == "0"
    talk = Talk(call, plain)
    talk.start()
    time.sleep(1)
    with stopped(daemon.process.pid, "recorder"):
        expect_answers(daemon, FAULT_S)
    talk.join()
    talk.expect_all()
    call.command("D")
    expect_recorded(call, talk, *finished(daemon.recordings, call), at_least=PACKETS)


@needs_root
def test_without_memory_a_full_disk_costs_what_the_file_says(
    tmpfs: Disk, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    daemon = start_daemon("--record-buffer", "1M", recordings=tmpfs.recordings)
    calls = [make_call(daemon) for _ in range(4)]
    for call in calls:
        assert call.command("R") == "0"
    talk = Talk(*calls)
    talk.start()
    time.sleep(0.5)
    with tmpfs.full():
        time.sleep(FAULT_S)
    talk.join()
    talk.expect_all()
    daemon.command("X")
    reports = []
    for call in calls:
        report, packets = finished(tmpfs.recordings, call)
        expect_recorded(call, talk, report, packets, at_least=100)
        reports.append(report)
    assert any(report["dropped"] for report in reports)
    assert all("No space left" in gap["cause"] for report in reports for gap in report["gaps"])


@needs_root
def test_a_read_only_disk(tmpfs: Disk, start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon(recordings=tmpfs.recordings)
    with tmpfs.read_only():
        call, talked = starts_degraded(daemon, make_call)
    expect_complete(tmpfs.recordings, call, talked)


def test_a_folder_that_is_gone(daemon: Daemon, make_call: MakeCall) -> None:
    shutil.rmtree(daemon.recordings)
    call, talked = starts_degraded(daemon, make_call)
    daemon.recordings.mkdir()
    expect_complete(daemon.recordings, call, talked)


def test_out_of_descriptors(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    in_use = len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))
    limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (in_use, limits[1]))
    assert call.command("R") == "0"
    talked = call.talk(25)
    daemon.wait_for_log("recording degraded, cannot create: Too many open files")
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
    expect_complete(daemon.recordings, call, talked)


def starts_degraded(daemon: Daemon, make_call: MakeCall) -> tuple[Call, tuple[list[bytes], list[bytes]]]:
    """A call is set up, recorded and relayed as if nothing were wrong."""
    # The folder is looked at each second.
    daemon.wait_for_log("recording folder: ")
    call = make_call(daemon)
    assert call.command("R") == "0"
    talked = call.talk(25)
    daemon.wait_for_log("recording degraded, cannot create")
    return call, talked


def expect_complete(folder: Path, call: Call, talked: tuple[list[bytes], list[bytes]]) -> None:
    """The recording starts in the end, and nothing is missing."""
    wait_until((folder / f"{call.call_id}=from.pcapng.part").exists, "the recording has a file")
    call.command("D")
    report, packets = finished(folder, call)
    assert (report["packets"], report["dropped"]) == (50, 0)
    assert sorted(packet.payload for packet in packets) == sorted(talked[0] + talked[1])


# --- A second folder, and room that is left to others


@needs_root
def test_a_recording_leaves_a_disk_that_stands_still(
    ext4: Disk, start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    daemon = start_daemon("--record-fallback", second, recordings=ext4.recordings)
    call, plain = make_call(daemon), make_call(daemon)
    assert call.command("R") == "0"
    talk = Talk(call, plain)
    talk.start()
    time.sleep(1.5)
    with ext4.frozen():
        late = make_call(daemon)
        assert late.command("R") == "0"
        talked = late.talk(25)
        talk.join()
        talk.expect_all()
        wait_until((second / f"{call.call_id}=from.pcapng.part").exists, "it goes on in the second folder")
        expect_complete(second, late, talked)
        call.command("D")
        after, packets_after = finished(second, call)
    before, packets_before = finished(ext4.recordings, call)
    assert before["moved_to"] == str(second / f"{call.call_id}=from.pcapng")
    assert after["moved_from"] == str(ext4.recordings / f"{call.call_id}=from.pcapng")
    assert (before["ended"]["reason"], after["ended"]["reason"]) == ("moved", "deleted")
    assert before["dropped"] == after["dropped"] == 0
    assert len(packets_before) > 0
    packets = packets_before + packets_after
    for party in (call.caller, call.callee):
        recorded = [packet.payload for packet in packets if packet.source[1] == party.port]
        assert recorded == talk.sent[party]
    daemon.wait_for_log("recording goes on in the other folder")


@needs_root
def test_a_recording_leaves_a_disk_that_breaks_down(
    ext4: Disk, start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    daemon = start_daemon("--record-fallback", second, recordings=ext4.recordings)
    call, plain = make_call(daemon), make_call(daemon)
    assert call.command("R") == "0"
    talk = Talk(call, plain)
    talk.start()
    time.sleep(1.5)
    ext4.break_down()
    expect_answers(daemon, FAULT_S)
    talk.join()
    talk.expect_all()
    call.command("D")
    after, packets_after = finished(second, call)
    assert after["moved_from"] == str(ext4.recordings / f"{call.call_id}=from.pcapng")
    assert daemon.stop() == 0

    # What reached the disk before is there when it is.
    ext4.mount_again(tmp_path / "ext4.image")
    start_daemon(recordings=ext4.recordings)
    recovered = ext4.recordings / f"{call.call_id}=from.recovered.pcapng"
    wait_until(recovered.with_suffix(".json").exists, "the beginning is recovered")
    packets = read(recovered) + packets_after
    for party in (call.caller, call.callee):
        recorded = [packet.payload for packet in packets if packet.source[1] == party.port]
        assert recorded == talk.sent[party]


@needs_root
def test_room_is_left_to_others(tmpfs: Disk, start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--record-min-free", "50%", recordings=tmpfs.recordings)
    call = make_call(daemon)
    assert call.command("R") == "0"
    part = tmpfs.recordings / f"{call.call_id}=from.pcapng.part"
    wait_until(part.exists, "the recording has a file")
    with tmpfs.full(left=3 * MEGABYTE):
        daemon.wait_for_log("less than 50% of the disk is free")
        size = part.stat().st_size
        talked = call.talk(25)
        daemon.wait_for_log("recording degraded, cannot write: less than 50% of the disk is free")
        assert part.stat().st_size == size
    daemon.wait_for_log("recording goes on")
    expect_complete(tmpfs.recordings, call, talked)
