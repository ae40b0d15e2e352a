"""Live taps in Python, of a relay in this process and of one behind each control transport."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rtpproxy
from support.daemon import free_address
from support.python_doors import DOORS, Phone, open_door, wait_until

PACKETS = 20


@dataclass
class Talk:
    """A call between two phones that is set up."""

    call: rtpproxy.Call
    caller: Phone
    callee: Phone
    at_caller: rtpproxy.Leg
    at_callee: rtpproxy.Leg

    def say(self, packets: int = PACKETS) -> list[bytes]:
        """The caller speaks and is heard."""
        said = self.caller.say(self.at_caller, packets)
        assert self.callee.hear(packets) == said
        return said

    def answer(self, packets: int = PACKETS) -> list[bytes]:
        """The callee speaks and is heard."""
        said = self.callee.say(self.at_callee, packets)
        assert self.caller.hear(packets) == said
        return said


@contextmanager
def talk(relay: rtpproxy.Calls, call_id: str = "call-1") -> Iterator[Talk]:
    """Sets a call up."""
    with Phone() as caller, Phone() as callee:
        at_callee = relay.start(call_id, "from-a", media=caller.media)
        at_caller = relay.lookup(call_id, "from-a", "to-b", media=callee.media)
        yield Talk(relay.call(call_id, "from-a", "to-b"), caller, callee, at_caller, at_callee)


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> str:
    """The name of the door under test."""
    return str(request.param)


@pytest.fixture
def relay(door: str, tmp_path: Path) -> Iterator[rtpproxy.Calls]:
    """A relay behind each door in turn."""
    with open_door(door, tmp_path) as relay:
        yield relay


def taken(tap: rtpproxy.Tap, packets: int) -> list[rtpproxy.TapPacket]:
    """So many packets out of a tap, in the order of arrival."""
    found: list[rtpproxy.TapPacket] = []
    deadline = time.monotonic() + 10
    while len(found) < packets:
        found += tap.take(packets - len(found), timeout_s=1)
        assert time.monotonic() < deadline, f"{len(found)} of {packets} packets"
    return found


def test_both_parties_are_heard(relay: rtpproxy.Calls, door: str) -> None:
    before = time.time_ns()
    with talk(relay) as there, there.call.tap() as tap, socket.socket(type=socket.SOCK_DGRAM) as rtcp:
        said = there.say()
        answered = there.answer()
        packets = taken(tap, 2 * PACKETS)
        report = struct.pack("!BBHI", 0x80, 201, 1, 9)
        rtcp.bind(("127.0.0.1", 0))
        rtcp.sendto(report, ("127.0.0.1", there.at_caller.port + 1))
        [heard] = taken(tap, 1)
        assert (heard.leg, heard.channel, heard.data, heard.is_rtp) == ("caller", "rtcp", report, False)
        fields = (
            heard.payload,
            heard.ssrc,
            heard.sequence,
            heard.timestamp,
            heard.payload_type,
            heard.marker,
        )
        assert fields == (None,) * 6

        caller = [packet for packet in packets if packet.leg == "caller"]
        callee = [packet for packet in packets if packet.leg == "callee"]
        assert [packet.data for packet in caller] == said
        assert [packet.data for packet in callee] == answered
        assert {packet.channel for packet in packets} == {"rtp"}
        assert [packet.sequence for packet in caller] == list(range(PACKETS))
        assert caller[3].timestamp == 3 * 160
        assert caller[3].ssrc == there.caller.media[1]
        assert (caller[3].payload_type, caller[3].marker) == (0, False)
        assert isinstance(caller[3].payload, memoryview)
        assert caller[3].payload == bytes([3]) * 160
        assert all(before < packet.time_ns < time.time_ns() for packet in packets)
        if door == "proxy":
            assert caller[0].source == there.caller.media
            assert caller[0].destination == ("127.0.0.1", there.at_caller.port)
            assert heard.source == rtcp.getsockname()
        else:
            assert {(packet.source, packet.destination) for packet in packets} == {(None, None)}
        assert (tap.dropped, tap.ended) == (0, False)
    assert tap.ended


def test_headers_of_all_kinds(relay: rtpproxy.Calls) -> None:
    with talk(relay) as there, there.call.tap() as tap:
        there.say(1)
        header = struct.pack("!BBHIIIHHI", 0x80 | 0x20 | 0x10 | 1, 0x80 | 96, 65535, 7, 8, 9, 0xBEDE, 1, 0)
        sent = [header + b"payload" + bytes([0, 0, 3]), b"\x00\x01 not RTP", header[:12]]
        for datagram in sent:
            there.caller.send(there.at_caller, datagram)
        _, full, other, cut = taken(tap, 4)
        assert [full.data, other.data, cut.data] == sent
        assert full.payload is not None
        assert bytes(full.payload) == b"payload"
        assert (full.payload_type, full.marker, full.sequence) == (96, True, 65535)
        assert (full.timestamp, full.ssrc) == (7, 8)
        assert not other.is_rtp
        assert not cut.is_rtp


def test_a_loop_ends_with_the_session(relay: rtpproxy.Calls) -> None:
    with talk(relay) as there, there.call.tap() as tap, ThreadPoolExecutor(1) as pool:
        looped = pool.submit(lambda: [packet.data for packet in tap])
        said = there.say()
        wait_until(lambda: not looped.done(), "it goes on")
        time.sleep(0.05)
        there.call.stop()
        assert looped.result(timeout=10) == said
        assert tap.ended
        assert tap.take() == list(tap) == []


def test_who_falls_behind_loses_packets_and_hurts_nobody(relay: rtpproxy.Calls) -> None:
    with (
        talk(relay) as there,
        there.call.tap(max_packets=5) as slow,
        there.call.tap(max_bytes=16384) as small,
        there.call.tap() as quick,
    ):
        said = there.say(100) + there.say(100)
        assert [packet.data for packet in taken(quick, 200)] == said
        wait_until(
            lambda: slow.dropped + small.dropped == 195 + 200 - 16384 // 172, "what is lost is counted"
        )
        assert [packet.data for packet in taken(slow, 5)] == said[:5]
        assert len(taken(small, 16384 // 172)) == 95
        assert (slow.dropped, small.dropped, quick.dropped) == (195, 105, 0)
        assert there.call.query().relayed == 200
        said = there.say(1)
        assert [taken(tap, 1)[0].data for tap in (slow, small, quick)] == 3 * said


def test_taps_are_bounded_and_give_their_places_back(relay: rtpproxy.Calls) -> None:
    with talk(relay) as there:
        for _ in range(20):
            there.call.tap().close()
        taps = [there.call.tap() for _ in range(8)]
        with pytest.raises(rtpproxy.Error):
            there.call.tap()
        taps.pop().close()
        taps.append(there.call.tap())
        there.say(1)
        assert [len(taken(tap, 1)) for tap in taps] == [1] * 8
        del taps
        with there.call.tap() as tap:
            there.say(1)
            assert len(taken(tap, 1)) == 1


def test_a_tap_changes_nothing_for_others(door: str, tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    with open_door(door, tmp_path, record_dir=tmp_path / "calls") as relay, talk(relay) as there:
        there.call.record()
        with there.call.tap() as tap:
            there.say()
            assert len(taken(tap, PACKETS)) == PACKETS
        there.say()
        there.call.stop()
        wait_until(lambda: [it.state for it in relay.recordings()] == ["finished"], "it is complete")
        [recording] = relay.recordings()
        assert (recording.packets, recording.dropped) == (2 * PACKETS, 0)


def test_a_tap_goes_with_the_call_to_another_worker(door: str, tmp_path: Path) -> None:
    with open_door(door, tmp_path, workers=4) as relay, talk(relay, "source") as source:
        # Some of so many calls move to the worker of the one that they fork.
        for number in range(8):
            with talk(relay, f"call-{number}") as there, there.call.tap() as tap:
                _, port = there.caller.media
                update = f"U call-{number} 127.0.0.1 {port} from-a to-b && C source from-a to-b"
                assert relay.command(update).startswith(f"{there.at_callee.port} ")
                said = source.say(2)
                assert [packet.data for packet in taken(tap, 2)] == said
                there.call.stop()
                assert list(tap) == []


def test_close_ends_the_wait(relay: rtpproxy.Calls) -> None:
    with talk(relay) as there, ThreadPoolExecutor(2) as pool:
        tap, other = there.call.tap(), there.call.tap()
        waits = [pool.submit(list, tap), pool.submit(list, other)]
        time.sleep(0.05)
        tap.close()
        tap.close()
        assert waits[0].result(timeout=5) == []
        assert "closed" in repr(tap)
        relay.close()
        assert waits[1].result(timeout=5) == []


def test_a_signal_ends_the_wait(relay: rtpproxy.Calls) -> None:
    class AlarmError(Exception):
        pass

    def ring(*_: object) -> None:
        raise AlarmError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with talk(relay) as there, there.call.tap() as tap:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            began = time.monotonic()
            with pytest.raises(AlarmError):
                next(tap)
            assert time.monotonic() - began < 2
            assert len(there.say(1)) == len(taken(tap, 1))
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("error", "wrong"),
    [
        (rtpproxy.NotFound, {"call_id": "call-2"}),
        (rtpproxy.NotFound, {"media_number": 3}),
        (TypeError, {"call_id": 1}),
        (TypeError, {"max_packets": "1"}),
        (ValueError, {"from_tag": ""}),
        (ValueError, {"max_packets": 0}),
        (ValueError, {"max_bytes": 1000}),
        (ValueError, {"max_bytes": 1 << 40}),
    ],
    ids=str,
)
def test_what_cannot_be_tapped(relay: rtpproxy.Calls, error: type[Exception], wrong: dict[str, Any]) -> None:
    with talk(relay) as there:
        good = {"call_id": "call-1", "from_tag": "from-a", "to_tag": "to-b"}
        with pytest.raises(error):
            relay.tap(**{**good, **wrong})
        with there.call.tap() as tap:
            for wrong_count in (0, -1):
                with pytest.raises(ValueError, match="max_packets"):
                    tap.take(wrong_count)


def test_a_client_needs_both_tags_and_a_relay_that_can_end_copies(tmp_path: Path) -> None:
    address = free_address("cunix", tmp_path)
    with (
        rtpproxy.Proxy(control=[address], compat=True) as proxy,
        rtpproxy.Client(address) as client,
        talk(proxy) as there,
    ):
        with pytest.raises(ValueError, match="to_tag"):
            client.tap("call-1", "from-a")
        with pytest.raises(rtpproxy.Error, match="--compat"):
            client.tap("call-1", "from-a", "to-b")
        with proxy.tap("call-1", "from-a") as tap:
            there.say(1)
            assert len(taken(tap, 1)) == 1
    with pytest.raises(ValueError, match="tap_address"):
        rtpproxy.Client(address, tap_address="::1")


def test_a_client_listens_where_it_is_told_to(tmp_path: Path) -> None:
    address = free_address("cunix", tmp_path)
    with rtpproxy.Proxy(control=[address]) as proxy, talk(proxy) as there:
        with (
            rtpproxy.Client(address, tap_address="127.0.0.9") as client,
            client.tap("call-1", "from-a", "to-b") as tap,
        ):
            there.say(1)
            assert len(taken(tap, 1)) == 1
        with (
            rtpproxy.Client(address, tap_address="192.0.2.1") as client,
            pytest.raises(OSError, match="assign"),
        ):
            client.tap("call-1", "from-a", "to-b")


def test_a_relay_that_goes_away_is_a_lost_connection(tmp_path: Path) -> None:
    address = free_address("cunix", tmp_path)
    proxy = rtpproxy.Proxy(control=[address])
    with rtpproxy.Client(address) as client, talk(proxy), client.tap("call-1", "from-a", "to-b") as tap:
        proxy.close()
        with pytest.raises(rtpproxy.ConnectionLost):
            next(tap)


def test_relaying_goes_on_while_python_does_not() -> None:
    with rtpproxy.Proxy() as proxy, talk(proxy) as there, there.call.tap() as tap:
        there.say(1)
        taken(tap, 1)
        stop = threading.Event()

        def hold() -> None:
            while not stop.is_set():
                sum(range(1_000_000))

        threads = [threading.Thread(target=hold) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            said = there.say(200)
            assert [packet.data for packet in taken(tap, 200)] == said
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert tap.dropped == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_has_no_tap() -> None:
    with rtpproxy.Proxy() as proxy, talk(proxy) as there, there.call.tap() as tap:
        child = os.fork()
        if child == 0:
            try:
                tap.take(timeout_s=5)
            except rtpproxy.Closed:
                tap.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        there.say(1)
        assert len(taken(tap, 1)) == 1
