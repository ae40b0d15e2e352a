"""Many calls at once, and calls that come and go for a while."""

from __future__ import annotations

import random
import resource
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.capture import read, sidecar
from support.daemon import Daemon, StartDaemon, wait_until
from support.phone import FRAME, Call, MakeCall, Media, Phone

pytestmark = pytest.mark.alone

CALLS = 200
PACKETS_PER_SECOND = 50
SLOTS = 10
"""Parts of a packet's 20 ms over which the calls are spread."""
FILES_MAX = 4096


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Allows this process and the relays it starts enough sockets."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES_MAX, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Direction:
    """What one party sends and the other has to hear, in order."""

    def __init__(self, sender: Phone, to: Media, receiver: Phone) -> None:
        self.sender = sender
        self.ssrc = sender.source.ssrc
        self.first = sender.source.sequence
        self.receiver = receiver
        self.heard = 0
        self._send_to = to.pair

    def send(self) -> None:
        self.sender.rtp.sendto(self.sender.source.packet(), self._send_to)

    def hear(self) -> None:
        """Takes all packets that have arrived."""
        while True:
            try:
                packet = self.receiver.rtp.recv(2048)
            except BlockingIOError:
                return
            assert self.is_next(packet, self.heard)
            self.heard += 1

    def is_next(self, packet: bytes, number: int) -> bool:
        """Whether this is the packet of this number."""
        _, _, sequence, _, ssrc = struct.unpack_from("!BBHII", packet)
        expected = (self.first + number) & 0xFFFF
        return (ssrc, sequence, len(packet)) == (self.ssrc, expected, 12 + FRAME)


@pytest.mark.timeout(600)
def test_many_recorded_calls_lose_nothing(
    start_daemon: StartDaemon, make_call: MakeCall, is_long: bool
) -> None:
    rounds = PACKETS_PER_SECOND * (60 if is_long else 5)
    daemon = start_daemon("-L", str(FILES_MAX))
    calls = [make_call(daemon, f"call-{number}") for number in range(CALLS)]
    for call in calls:
        assert call.command("R") == "0"
    directions = [
        direction
        for call in calls
        for direction in (
            Direction(call.caller, call.at_caller_side, call.callee),
            Direction(call.callee, call.at_callee_side, call.caller),
        )
    ]
    talk(directions, rounds)
    assert [direction.heard for direction in directions] == [rounds] * len(directions)
    assert daemon.command("G npkts_rcvd npkts_relayed npkts_discard") == (
        f"{rounds * len(directions)} {rounds * len(directions)} 0"
    )
    assert daemon.command("X") == "0"
    assert daemon.stop() == 0
    for call, caller, callee in zip(calls, directions[::2], directions[1::2], strict=True):
        expect_complete(daemon.recordings / f"{call.call_id}=from.pcapng", [caller, callee], rounds)


def talk(directions: list[Direction], rounds: int) -> None:
    """Sends and hears packets at the pace of real phones, and hears what is late in the end."""
    poll = select.epoll()
    by_descriptor = {}
    for direction in directions:
        direction.receiver.rtp.setblocking(False)
        descriptor = direction.receiver.rtp.fileno()
        by_descriptor[descriptor] = direction
        poll.register(descriptor, select.EPOLLIN)

    def hear(seconds: float) -> bool:
        ready = poll.poll(seconds)
        for descriptor, _ in ready:
            by_descriptor[descriptor].hear()
        return bool(ready)

    with poll:
        start = time.monotonic()
        for slot in range(rounds * SLOTS):
            for direction in directions[slot % SLOTS :: SLOTS]:
                direction.send()
            next_slot = start + (slot + 1) / (PACKETS_PER_SECOND * SLOTS)
            while hear(max(0.0, next_slot - time.monotonic())) and time.monotonic() < next_slot:
                pass
        deadline = time.monotonic() + 20
        while any(direction.heard < rounds for direction in directions) and time.monotonic() < deadline:
            hear(0.1)


def expect_complete(recording: Path, directions: list[Direction], rounds: int) -> None:
    """Both legs of a call, every packet in order."""
    report = sidecar(recording)
    assert (report["packets"], report["dropped"], report["gaps"]) == (2 * rounds, 0, [])
    packets = read(recording)
    assert len(packets) == 2 * rounds
    for direction, interface in zip(directions, ("caller", "callee"), strict=True):
        leg = [packet.payload for packet in packets if packet.interface == interface]
        assert len(leg) == rounds
        assert all(direction.is_next(packet, number) for number, packet in enumerate(leg))


@pytest.mark.timeout(900)
def test_calls_that_come_and_go_leave_nothing_behind(start_daemon: StartDaemon, is_long: bool) -> None:
    seconds = 300 if is_long else 8
    daemon = start_daemon("-L", str(FILES_MAX), "-T", "2", log_level="err")
    churn(daemon, seconds / 4)
    descriptors, memory_kb = daemon_descriptors(daemon), daemon_memory_kb(daemon)
    churn(daemon, seconds)
    assert daemon_descriptors(daemon) == descriptors
    assert daemon_memory_kb(daemon) < memory_kb + 16 * 1024
    created, destroyed = daemon.command("G nsess_created nsess_destroyed").split()
    assert created == destroyed
    assert daemon.stop() == 0
    assert daemon.log() == ""


def churn(daemon: Daemon, seconds: float) -> None:
    """Calls with all kinds of ends, some of them recorded, until time is up and none is left."""
    dice = random.Random(1)
    calls: list[Call] = []
    recorded = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        call = Call(daemon)
        calls.append(call)
        if dice.random() < 0.5:
            assert call.command("R") == "0"
            recorded += 1
        call.talk(dice.randrange(1, 5))
        if dice.random() < 0.2:
            call.command("N")
        if len(calls) > 20:
            ended = calls.pop(dice.randrange(len(calls)))
            if dice.random() < 0.95:
                # Others time out; on a slow machine some of these have done so already.
                assert ended.command("D") in ("0", "E50")
            ended.close()
        # A disk syncs only so many recordings a second.
        time.sleep(0.01)
    for call in calls:
        call.close()
    wait_until(lambda: "active sessions: 0" in daemon.command("I", lines=5), "the last session timed out")
    wait_until(lambda: len(list(daemon.recordings.glob("*.json"))) == recorded, "all is finished", 120)
    for path in daemon.recordings.iterdir():
        path.unlink()


def daemon_descriptors(daemon: Daemon) -> int:
    """How many files and sockets a relay has open."""
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))


def daemon_memory_kb(daemon: Daemon) -> int:
    """How much memory a relay occupies."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


@pytest.mark.timeout(120)
def test_a_burst_is_not_lost(daemon: Daemon, make_call: MakeCall) -> None:
    # What a phone sends at once after a stall: more than the relay reads at a time.
    call = make_call(daemon)
    call.command("R")
    call.callee.rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    said = call.caller.say(call.at_caller_side, 150)
    assert call.callee.hear(150) == said
    call.command("D")
    path = daemon.recordings / f"{call.call_id}=from.pcapng"
    wait_until(path.exists, "the recording is finished")
    assert [packet.payload for packet in read(path)] == said
