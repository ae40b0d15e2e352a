"""The Python module: the same tests for a relay in this process and for clients over each transport."""

from __future__ import annotations

import doctest
import gc
import importlib
import inspect
import ipaddress
import json
import os
import pickle
import pkgutil
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rtpproxy
from support.daemon import free_address
from support.python_doors import DOORS, TRANSPORTS, Phone, daemon, open_door, wait_until
from support.tools import need_ipv6

PACKETS = 20

FIGURES = [
    *["ttl", "npkts_ina", "npkts_ino", "nrelayed", "ndropped", "longest_ipi"],
    *["rtpa_nsent", "rtpa_nrcvd", "rtpa_ndups", "rtpa_nlost", "rtpa_perrs"],
    *["rtpa_jlast", "rtpa_jmax", "rtpa_javg"],
]


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> str:
    """The name of the door under test."""
    return str(request.param)


@pytest.fixture
def relay(door: str, tmp_path: Path) -> Iterator[rtpproxy.Calls]:
    """A relay behind each door in turn, which records below `tmp_path`."""
    (tmp_path / "calls").mkdir()
    with open_door(door, tmp_path, record_dir=tmp_path / "calls") as relay:
        yield relay


def test_a_call_is_relayed_both_ways(relay: rtpproxy.Calls) -> None:
    with Phone() as caller, Phone() as callee:
        offer = relay.start("call-1", "from-a", media=caller.media, codecs=[0, 8])
        answer = relay.lookup("call-1", "from-a", "to-b", media=callee.media)
        assert offer.address == answer.address == "127.0.0.1"
        assert not offer.ipv6
        assert offer.port % 2 == answer.port % 2 == 0
        assert caller.say(answer, PACKETS) == callee.hear(PACKETS)
        assert callee.say(offer, PACKETS) == caller.hear(PACKETS)

        stats = relay.query("call-1", "from-a", "to-b")
        assert (stats.packets_from, stats.packets_to) == (PACKETS, PACKETS)
        assert (stats.relayed, stats.dropped) == (2 * PACKETS, 0)
        assert 0 < stats.ttl_s <= 60
        assert relay.query("call-1", "from-a") == stats

        relay.stop("call-1", "from-a", "to-b")
        assert relay.info().sessions_active == 0


def test_figures_by_name(relay: rtpproxy.Calls) -> None:
    with Phone() as caller, Phone() as callee:
        relay.start("call-1", "from-a", media=caller.media)
        answer = relay.lookup("call-1", "from-a", "to-b", media=callee.media)
        caller.say(answer, PACKETS)
        callee.hear(PACKETS)
        figures = relay.query("call-1", "from-a", "to-b", names=FIGURES)
        assert list(figures) == FIGURES
        assert figures["npkts_ina"] == figures["rtpa_nrcvd"] == PACKETS
        assert isinstance(figures["rtpa_nlost"], int)
        assert isinstance(figures["rtpa_jmax"], float)
        with pytest.raises(rtpproxy.CommandError) as refused:
            relay.query("call-1", "from-a", "to-b", names=["no_such_figure"])
        assert refused.value.code == 62
        with pytest.raises(ValueError, match="to_tag"):
            relay.query("call-1", "from-a", names=["ttl"])  # type: ignore[call-overload]


def test_figures_of_the_relay(relay: rtpproxy.Calls) -> None:
    relay.start("call-1", "from-a")
    relay.start("call-2", "from-a")
    relay.stop("call-2", "from-a")
    info = relay.info()
    assert (info.sessions_created, info.sessions_active, info.streams_active) == (2, 1, 2)
    assert relay.counters("nsess_created", "total_duration").keys() == {"nsess_created", "total_duration"}
    every = relay.counters()
    assert (every["nsess_created"], every["nsess_destroyed"]) == (2, 1)
    assert isinstance(every["total_duration"], float)
    with pytest.raises(rtpproxy.CommandError) as refused:
        relay.counters("no_such_counter")
    assert refused.value.code == 68
    relay.stop_all()
    assert relay.info().sessions_active == 0


def test_versions(relay: rtpproxy.Calls) -> None:
    assert relay.version() == 20040107
    assert relay.feature(20081224)
    assert not relay.feature(20170313)


def test_a_recording(relay: rtpproxy.Calls, tmp_path: Path) -> None:
    with Phone() as caller, Phone() as callee:
        relay.start("call-1", "from-a", media=caller.media, codecs=[0])
        answer = relay.lookup("call-1", "from-a", "to-b", media=callee.media)
        with pytest.raises(rtpproxy.NotFound):
            relay.stop_recording("call-1", "from-a", "to-b")
        relay.record("call-1", "from-a", "to-b")
        relay.record("call-1", "from-a")
        caller.say(answer, PACKETS)
        callee.hear(PACKETS)
        relay.stop_recording("call-1", "from-a", "to-b")
        relay.stop("call-1", "from-a", "to-b")
    folder = tmp_path / "calls"
    wait_until(lambda: any(folder.glob("*.pcapng")), "the recording is complete")
    [recording] = folder.glob("*.pcapng")
    assert recording.name.startswith("call-1=from-a")
    assert recording.read_bytes().startswith(b"\x0a\x0d\x0d\x0a")


def test_a_pause_is_left_out_and_marked(relay: rtpproxy.Calls, tmp_path: Path) -> None:
    call = relay.call("call-1", "from-a", "to-b")
    with Phone() as caller, Phone() as callee:
        relay.start("call-1", "from-a", media=caller.media, codecs=[0])
        answer = relay.lookup("call-1", "from-a", "to-b", media=callee.media)
        with pytest.raises(rtpproxy.NotFound):
            call.pause()
        call.record()

        def talk() -> list[bytes]:
            said = caller.say(answer, PACKETS)
            assert callee.hear(PACKETS) == said
            return said

        recorded = talk()
        call.pause()
        with pytest.raises(rtpproxy.NotFound):
            relay.pause("call-1", "from-a", "to-b")
        card_number = talk()
        call.exchanged().resume()
        recorded += talk()
        call.stop()
    sidecar = tmp_path / "calls" / "call-1=from-a.json"
    wait_until(sidecar.exists, "the recording is complete")
    content = sidecar.with_suffix(".pcapng").read_bytes()
    assert all(packet in content for packet in recorded)
    assert not any(packet in content for packet in card_number)
    told = json.loads(sidecar.read_text())
    [pause] = told["pauses"]
    assert (told["packets"], told["gaps"]) == (2 * PACKETS, [])
    assert told["requested"] < pause["from"] < pause["to"] < told["ended"]["at"]


def test_in_the_scope_stream_a_pause_ends_the_file(door: str, tmp_path: Path) -> None:
    with (
        open_door(door, tmp_path, record_dir=tmp_path, record_scope="stream") as relay,
        Phone() as caller,
        Phone() as callee,
    ):
        relay.start("call-1", "from-a", media=caller.media)
        answer = relay.lookup("call-1", "from-a", "to-b", media=callee.media)
        call = relay.call("call-1", "from-a", "to-b")
        for _ in range(3):
            call.resume()
            caller.say(answer, 1)
            callee.hear(1)
            call.pause()
            with pytest.raises(rtpproxy.NotFound):
                call.pause()
        wait_until(lambda: len(list(tmp_path.glob("*.json"))) == 3, "three recordings")
        assert len(list(tmp_path.glob("*.pcapng"))) == 3


def test_copies_go_to_several_hosts(relay: rtpproxy.Calls) -> None:
    with Phone() as caller, Phone() as callee, Phone() as one, Phone() as other:
        relay.start("call-1", "from-a", media=caller.media)
        answer = relay.lookup("call-1", "from-a", "to-b", media=callee.media)
        call = relay.call("call-1", "from-a", "to-b")
        address, port = call.copy(to=one.media)
        assert (address, port % 2) == ("127.0.0.1", 0)
        relay.copy("call-1", "from-a", to=other.media)
        said = caller.say(answer, PACKETS)
        assert callee.hear(PACKETS) == one.hear(PACKETS) == other.hear(PACKETS) == said
        call.stop_copy(to=one.media)
        with pytest.raises(rtpproxy.NotFound, match="no copies go there"):
            call.stop_copy(to=one.media)
        said = caller.say(answer, 1)
        assert other.hear(1) == callee.hear(1) == said
        assert one.is_silent()
        for wrong in (("::1", 4000), ("127.0.0.1", 65535), ("example.org", 4000)):
            with pytest.raises(ValueError, match="to: "):
                call.copy(to=wrong)


def test_recording_without_a_folder_is_refused(door: str, tmp_path: Path) -> None:
    with open_door(door, tmp_path) as relay:
        relay.start("call-1", "from-a")
        with pytest.raises(rtpproxy.CommandError, match="no folder") as refused:
            relay.record("call-1", "from-a")
        assert refused.value.code == 50
        assert relay.info().sessions_active == 1


def test_an_update_keeps_the_port(relay: rtpproxy.Calls) -> None:
    first = relay.start("call-1", "from-a", media=("192.0.2.10", 40000))
    assert relay.start("call-1", "from-a", media=("0.0.0.0", 0)) == first
    assert relay.start("call-1", "from-a", media=(ipaddress.ip_address("192.0.2.11"), 40000)) == first
    assert relay.start("call-1", "from-a", new_port=True).port != first.port
    assert relay.info().sessions_created == 1


def test_each_medium_is_a_session(relay: rtpproxy.Calls) -> None:
    audio = relay.start("call-1", "from-a", media_number=1)
    video = relay.start("call-1", "from-a", media_number=2)
    assert audio.port != video.port
    relay.lookup("call-1", "from-a", "to-b", media_number=2)
    with pytest.raises(rtpproxy.NotFound):
        relay.query("call-1", "from-a")
    assert relay.query("call-1", "from-a", media_number=1).relayed == 0
    relay.stop("call-1", "from-a", media_number=1)
    assert relay.info().sessions_active == 1
    relay.stop("call-1", "from-a")
    assert relay.info().sessions_active == 0


def test_weak_sessions(relay: rtpproxy.Calls) -> None:
    relay.start("call-1", "from-a", weak=True)
    relay.stop("call-1", "x", "from-a", weak=True)
    assert relay.info().sessions_active == 0


def test_ids_are_raw_bytes(relay: rtpproxy.Calls) -> None:
    relay.start(b"call-\xff", b"from-\x80")
    relay.stop(b"call-\xff", b"from-\x80")
    relay.start("Gespräch", "von")
    relay.stop("Gespräch".encode(), b"von")


def test_ipv4_to_ipv6(door: str, tmp_path: Path) -> None:
    need_ipv6()
    with open_door(door, tmp_path, listen6="::1") as relay, Phone() as caller, Phone("::1") as callee:
        sides: tuple[rtpproxy.Direction, ...] = ("internal", "external")
        offer = relay.start("call-1", "from-a", media=caller.media, directions=sides)
        answer = relay.lookup("call-1", "from-a", "to-b", media=callee.media, directions=sides)
        assert (offer.address, offer.ipv6) == ("::1", True)
        assert (answer.address, answer.ipv6) == ("127.0.0.1", False)
        assert caller.say(answer, PACKETS) == callee.hear(PACKETS)
        assert callee.say(offer, PACKETS) == caller.hear(PACKETS)


def test_refused_commands_carry_their_code(relay: rtpproxy.Calls) -> None:
    relay.start("call-1", "from-a")
    calls: dict[int, Callable[[], object]] = {
        50: lambda: relay.stop("call-1", "from-x"),
        72: lambda: relay.start("call-2", "from-a", bind="192.0.2.1"),
        31: lambda: relay.start("call-2", "from-a", bind="no-such-label"),
        11: lambda: relay.start("call-2", "from-a", directions=["external", "internal"]),
        36: lambda: relay.start("call-2", "from-a", media=("2001:db8::1", 40000)),
    }
    for code, call in calls.items():
        with pytest.raises(rtpproxy.CommandError) as refused:
            call()
        assert refused.value.code == code
        assert isinstance(refused.value, rtpproxy.NotFound) == (code == 50)
        assert f"E{code}" in str(refused.value)
        assert relay.command(refused.value.command) == f"E{code}"
    assert relay.info().sessions_created == 1


def test_unknown_sessions_are_not_found(relay: rtpproxy.Calls) -> None:
    calls = (
        relay.lookup,
        relay.query,
        relay.record,
        relay.stop_recording,
        relay.pause,
        relay.resume,
        relay.stop,
    )
    for call in calls:
        with pytest.raises(rtpproxy.NotFound) as refused:
            call("call-1", "from-a", "to-b")
        assert refused.value.code == 50
        assert refused.value.command.endswith("from-a to-b")


GOOD: dict[str, Any] = {"call_id": "call-1", "from_tag": "from-a"}


@pytest.mark.parametrize(
    ("error", "wrong"),
    [
        (TypeError, {"call_id": 1}),
        (TypeError, {"from_tag": None}),
        (TypeError, {"to_tag": 1.5}),
        (TypeError, {"media": "192.0.2.1:4000"}),
        (TypeError, {"media": (1, 4000)}),
        (TypeError, {"media": ("192.0.2.1", "4000")}),
        (TypeError, {"codecs": "0,8"}),
        (TypeError, {"codecs": ["0"]}),
        (TypeError, {"notify": 1}),
        (TypeError, {"weak": "yes"}),
        (TypeError, {"bind": 1}),
        (TypeError, {"directions": "external"}),
        (TypeError, {"media_number": "1"}),
        (TypeError, {"no_such_option": 1}),
        (ValueError, {"call_id": ""}),
        (ValueError, {"call_id": "call 1"}),
        (ValueError, {"call_id": "call\n1"}),
        (ValueError, {"call_id": b"call\0"}),
        (ValueError, {"call_id": "&&"}),
        (ValueError, {"call_id": "x" * 9000}),
        (ValueError, {"from_tag": ""}),
        (ValueError, {"to_tag": "\t"}),
        (ValueError, {"media": ("example.org", 4000)}),
        (ValueError, {"media": ("192.0.2.1", 0)}),
        (ValueError, {"media": ("192.0.2.1", 65536)}),
        (ValueError, {"media": ("192.0.2.1", -1)}),
        (ValueError, {"codecs": []}),
        (ValueError, {"codecs": [128]}),
        (ValueError, {"notify": ""}),
        (ValueError, {"notify": "a\nb"}),
        (ValueError, {"bind": "a}b"}),
        (ValueError, {"bind": "192.0.2.1", "route_to": "192.0.2.2"}),
        (ValueError, {"route_to": "example.org"}),
        (ValueError, {"directions": ["sideways"]}),
        (ValueError, {"directions": ["internal"] * 3}),
        (ValueError, {"media_number": -1}),
        (ValueError, {"media_number": 65536}),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_and_nothing_is_sent(
    relay: rtpproxy.Calls, error: type[Exception], wrong: dict[str, Any]
) -> None:
    with pytest.raises(error) as raised:
        relay.start(**GOOD | wrong)
    if wrong != {"call_id": "x" * 9000}:
        notes = getattr(raised.value, "__notes__", [])
        assert next(iter(wrong)) in " ".join([str(raised.value), *notes])
    assert relay.info().sessions_created == 0


def test_raw_commands(relay: rtpproxy.Calls) -> None:
    assert relay.command("V") == relay.command(b"v\r\n") == "20040107"
    port, address = relay.command("Uc0,8 call-1 192.0.2.1 4000 from-a").split()
    assert (int(port) % 2, address) == (0, "127.0.0.1")
    assert relay.command("Q call-1 from-a").count(" ") == 4
    assert relay.command("I").splitlines()[1] == "active sessions: 1"
    assert relay.command("D call-1 from-a") == "0"
    assert relay.command("L call-1 0 0 from-a to-b") == "0"
    for text, reply in {"W": "E0", "V x": "E1", "": "E5", "&&": "E5", "Ub c 0 0 f": "E35"}.items():
        assert relay.command(text) == reply
    for wrong in ("V\nV", "V" * 9000):
        with pytest.raises(ValueError, match=r"."):
            relay.command(wrong)
    with pytest.raises(TypeError):
        relay.command(1)  # type: ignore[arg-type]


WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0\t\n\r "), min_size=1, max_size=40).filter(
    lambda word: word != "&&"
)
HOST = st.ip_addresses().filter(lambda host: not host.is_unspecified)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.tuples(WORD, WORD, WORD),
    media=st.none() | st.tuples(HOST, st.integers(1, 65535)),
    codecs=st.none() | st.lists(st.integers(0, 127), min_size=1, max_size=10),
    asymmetric=st.none() | st.booleans(),
    weak=st.booleans(),
    bind=st.none() | HOST,
    media_number=st.none() | st.integers(0, 65535),
)
def test_the_text_of_a_typed_command_means_the_same(
    idle: rtpproxy.Proxy, words: tuple[str, str, str], **options: Any
) -> None:
    with pytest.raises(rtpproxy.CommandError) as refused:
        idle.lookup(*words, **options)
    text = refused.value.command
    assert refused.value.code == 50
    assert idle.command(text) == "0"
    with pytest.raises(rtpproxy.NotFound) as refused:
        idle.stop(*words, media_number=options["media_number"])
    assert idle.command(refused.value.command) == "E50"
    assert idle.info().sessions_created == 0


@pytest.fixture(scope="module")
def idle() -> Iterator[rtpproxy.Proxy]:
    """A relay without sessions, for both families."""
    with rtpproxy.Proxy(listen6="::1") as proxy:
        yield proxy


def test_timeouts_are_events(door: str, tmp_path: Path) -> None:
    with open_door(door, tmp_path, ttl_s=1) as relay:
        relay.start("call-1", "from-a", notify="call 1 & more: ä%")
        relay.start("call-2", "from-a")
        assert list(relay.events(timeout_s=0)) == []
        event = next(relay.events(timeout_s=10))
        assert event == rtpproxy.TimeoutEvent("call 1 & more: ä%")
        assert relay.info().sessions_active == 0
        assert list(relay.events(timeout_s=0.2)) == []
        assert relay.events_dropped == 0


def test_timeouts_call_back(door: str, tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []
    with open_door(door, tmp_path, ttl_s=1) as relay:
        relay.on_timeout(lambda event: seen.append((event.tag, threading.current_thread().name)))
        relay.on_timeout(lambda event: seen.append((event.tag, "second")))
        relay.start("call-1", "from-a", notify="tag-1")
        wait_until(lambda: len(seen) == 2, "both callbacks")
        with pytest.raises(rtpproxy.Error, match="on_timeout"):
            relay.events()
    assert seen == [("tag-1", "rtpproxy-events"), ("tag-1", "second")]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failing_callback_does_not_stop_the_next() -> None:
    seen: list[str] = []

    def fail(event: rtpproxy.TimeoutEvent) -> None:
        raise RuntimeError(event.tag)

    with rtpproxy.Proxy(ttl_s=1) as proxy:
        proxy.on_timeout(fail)
        proxy.on_timeout(lambda event: seen.append(event.tag))
        start_calls(proxy, 2)
        wait_until(lambda: len(seen) == 2, "both events")


def test_what_becomes_of_recordings_is_an_event(relay: rtpproxy.Calls) -> None:
    events = relay.events(timeout_s=20)
    with Phone() as caller, Phone() as callee:
        relay.start("call-1", "from-a", media=caller.media)
        answer = relay.lookup("call-1", "from-a", "to-b", media=callee.media)
        call = relay.call("call-1", "from-a", "to-b")
        call.record()

        def talk() -> None:
            assert caller.say(answer, PACKETS) == callee.hear(PACKETS)

        seen: list[rtpproxy.RecordingEvent] = []
        for change, do in [
            ("started", talk),
            ("paused", call.pause),
            ("resumed", call.resume),
            ("finished", call.stop),
        ]:
            do()
            event = next(events)
            assert isinstance(event, rtpproxy.RecordingEvent)
            assert event.change == change
            seen.append(event)
    assert [event.was for event in seen] == ["starting", "recording", "paused", "recording"]
    assert [event.recording.state for event in seen] == ["recording", "paused", "recording", "finished"]
    assert [event.at for event in seen] == sorted(event.at for event in seen)
    end = seen[-1].recording
    assert (end.call_id, end.packets) == ("call-1", PACKETS)
    assert end.sidecar is not None
    assert end.sidecar.exists()
    assert [end] == relay.recordings()


def test_recordings_call_back(door: str, tmp_path: Path) -> None:
    recordings: list[rtpproxy.RecordingEvent] = []
    timeouts: list[rtpproxy.TimeoutEvent] = []
    (tmp_path / "calls").mkdir()
    with open_door(door, tmp_path, record_dir=tmp_path / "calls", ttl_s=1) as relay:
        relay.on_timeout(timeouts.append)
        relay.on_recording(recordings.append)
        relay.start("call-1", "from-a", notify="tag-1")
        relay.record("call-1", "from-a")
        wait_until(lambda: bool(timeouts) and bool(recordings), "the session times out")
        wait_until(lambda: recordings[-1].change == "finished", "the recording is finished")
        with pytest.raises(rtpproxy.Error, match="on_recording"):
            relay.events()
    assert timeouts == [rtpproxy.TimeoutEvent("tag-1")]


def test_close_ends_the_iterator() -> None:
    proxy = rtpproxy.Proxy()
    with ThreadPoolExecutor(1) as pool:
        events = pool.submit(list, proxy.events())
        time.sleep(0.05)
        proxy.close()
        assert events.result(timeout=5) == []
    assert list(proxy.events()) == []


def test_events_wait_to_be_taken() -> None:
    calls = 1100
    with rtpproxy.Proxy(ttl_s=1) as proxy:
        start_calls(proxy, calls)
        wait_until(lambda: proxy.info().sessions_active == 0, "all sessions time out")
        assert len(list(proxy.events(timeout_s=0.5))) == calls
        assert proxy.events_dropped == 0


def test_a_client_without_a_listener_has_no_events(tmp_path: Path) -> None:
    address = free_address("cunix", tmp_path)
    with rtpproxy.Proxy(control=[address]), rtpproxy.Client(address) as client:
        with pytest.raises(ValueError, match="notify"):
            client.start("call-1", "from-a", notify="tag")
        with pytest.raises(rtpproxy.Error, match="events="):
            client.events()
        with pytest.raises(rtpproxy.Error, match="events="):
            client.on_timeout(print)
        assert client.events_dropped == 0
        assert client.info().sessions_created == 0


def test_a_hundred_calls_at_once(relay: rtpproxy.Calls) -> None:
    def hold(number: int) -> None:
        call = f"call-{number}"
        with Phone() as caller, Phone() as callee:
            offer = relay.start(call, "from-a", media=caller.media)
            answer = relay.lookup(call, "from-a", "to-b", media=callee.media)
            together.wait()
            assert caller.say(answer, PACKETS) == callee.hear(PACKETS)
            assert callee.say(offer, PACKETS) == caller.hear(PACKETS)
            assert relay.query(call, "from-a", "to-b").relayed == 2 * PACKETS
            together.wait()
            relay.stop(call, "from-a", "to-b")

    together = threading.Barrier(100, timeout=60)
    with ThreadPoolExecutor(100) as pool:
        list(pool.map(hold, range(100)))
    info = relay.info()
    assert (info.sessions_created, info.sessions_active) == (100, 0)
    assert info.packets_received == info.packets_transmitted == 100 * 2 * PACKETS


def test_close(door: str, tmp_path: Path) -> None:
    with open_door(door, tmp_path) as relay:
        assert "closed" not in repr(relay)
        relay.close()
        relay.close()
        assert "closed" in repr(relay)
        for call in (relay.version, relay.info, lambda: relay.command("V"), lambda: relay.start("c", "f")):
            with pytest.raises(rtpproxy.Closed):
                call()


def test_a_closed_relay_takes_no_callback() -> None:
    with rtpproxy.Proxy() as proxy:
        proxy.close()
        with pytest.raises(rtpproxy.Closed):
            proxy.on_timeout(print)


def test_arguments_about_events_and_features_are_checked_at_once() -> None:
    with rtpproxy.Proxy() as proxy:
        with pytest.raises(TypeError, match="callback"):
            proxy.on_timeout(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="timeout_s"):
            proxy.events("1")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="number"):
            proxy.feature(-1)


def test_repr_says_where(tmp_path: Path) -> None:
    address = free_address("cunix", tmp_path)
    with rtpproxy.Proxy(control=[address]) as proxy, rtpproxy.Client(address) as client:
        assert repr(proxy) == "<rtpproxy.Proxy 127.0.0.1>"
        assert repr(client) == f"<rtpproxy.Client {address}>"


def start_calls(relay: rtpproxy.Calls, count: int) -> None:
    for number in range(count):
        relay.start(f"call-{number}", "from-a", notify=str(number))


def test_the_ports_are_free_after_close(tmp_path: Path) -> None:
    control = free_address("tcp", tmp_path)
    for _ in range(3):
        with rtpproxy.Proxy(ports=(41000, 41006), control=[control]) as proxy:
            with pytest.raises(rtpproxy.CommandError) as refused:
                start_calls(proxy, 4)
            assert refused.value.code == 72


def test_the_last_reference_closes(tmp_path: Path) -> None:
    address = free_address("cunix", tmp_path)
    proxy = rtpproxy.Proxy(control=[address])
    proxy.on_timeout(print)
    with rtpproxy.Client(address) as client:
        assert client.version() == 20040107
    del proxy
    gc.collect()
    with pytest.raises(rtpproxy.ConnectionLost):
        rtpproxy.Client(address).version()


@pytest.mark.parametrize(
    ("error", "wrong"),
    [
        (TypeError, {"listen": 1}),
        (TypeError, {"ports": ("1", "2")}),
        (TypeError, {"control": "unix:/x"}),
        (TypeError, {"ttl_s": 1.5}),
        (TypeError, {"record_dir": 1}),
        (TypeError, {"record_min_free": 1.5}),
        (TypeError, {"record_max_age_s": "30d"}),
        (ValueError, {"record_min_free": "many", "record_dir": "/tmp"}),
        (ValueError, {"record_quota_bytes": 1, "record_dir": "/tmp"}),
        (ValueError, {"record_fallback": "/tmp"}),
        (TypeError, {"record_flush_s": "1s"}),
        (ValueError, {"record_flush_s": float("nan")}),
        (ValueError, {"record_flush_s": 0.05, "record_dir": "/tmp"}),
        (TypeError, {"no_such_setting": 1}),
        (ValueError, {"listen": "300.1.1.1"}),
        (ValueError, {"listen": ""}),
        (ValueError, {"ports": (5, 4)}),
        (ValueError, {"ports": (0, 70000)}),
        (ValueError, {"ttl_s": 0}),
        (ValueError, {"workers": 0}),
        (ValueError, {"latch": "loose"}),
        (ValueError, {"record_format": "wav"}),
        (ValueError, {"spool_dir": "/tmp"}),
        (ValueError, {"codec_map": {111: "opus"}}),
        (rtpproxy.StartError, {"control": ["cunix:/no/such/folder/socket"]}),
    ],
    ids=str,
)
def test_wrong_settings(error: type[Exception], wrong: dict[str, Any]) -> None:
    with pytest.raises(error):
        rtpproxy.Proxy(**wrong)


SAMPLES: dict[str, Any] = {
    "latch": "strict",
    "record_encrypt": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN"],
    "record_format": "pcap",
    "record_name": "%{call-id}",
    "record_compress": "zstd",
    "record_scope": "stream",
    "record_layout": "journal",
    "codec_map": {111: "opus/48000/2"},
    "ports": (40000, 40010),
    "record_rtcp": False,
    "record_min_free": "5%",
    "record_flush_s": 0.5,
}
"""A value of each parameter of `Proxy` that takes neither any text, nor any number, path or switch."""

PARAMETERS = {
    "port_min": "ports",
    "port_max": "ports",
    "dso": "modules",
    "no_rtcp": "record_rtcp",
    "pcap": "record_format",
}
"""Parameters of `Proxy` that are called otherwise than the option."""

OPTIONS_OF_A_PROCESS = {
    *("sequential_ports", "no_resolve", "advertise", "control_mode", "tos", "double_send"),
    *("bridge_symmetric", "force_asymmetric", "schedule", "independent_timers", "overload_prot"),
    *("config", "foreground", "allow_root", "user", "pid_file", "no_chdir", "no_redirect", "log"),
    *("open_files", "nice", "settings", "check", "version", "protocol", "clock", "help"),
}
"""Options that `Proxy` does without. None of them is about recordings."""


def table_of_options() -> dict[str, tuple[str, list[str]]]:
    """Of each option, by its key: the group of the help and its spellings."""
    table: dict[str, tuple[str, list[str]]] = {}
    source = Path(__file__).parents[1] / "rust" / "cli" / "src" / "flags" / "defs.rs"
    for group, options in re.findall(r"const ([A-Z]+): &\[Opt\] = &\[\n(.*?)\n\];", source.read_text(), re.S):
        for option in re.split(r"Opt::new\(", options)[1:]:
            key = re.match(r'\s*"(\w+)"', option)
            assert key, option
            letters = re.findall(r"\.short\('(.)'\)", option)
            names = re.findall(r'\.long\(\s*"([\w-]+)"', option)
            table[key[1]] = (group, [*(f"-{letter}" for letter in letters), *(f"--{name}" for name in names)])
    return table


def test_every_option_of_a_relay_is_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of_options()
    assert {"record_dir", "compat", "metrics"} <= table.keys()
    parameters = inspect.signature(rtpproxy.Proxy).parameters
    without_unit = {re.sub(r"_(s|bytes)$", "", name): name for name in parameters}
    left_out = table.keys() - without_unit.keys() - PARAMETERS.keys()
    assert left_out == OPTIONS_OF_A_PROCESS
    assert not [key for key in left_out if table[key][0] == "RECORDING"]
    assert not without_unit.keys() - table.keys() - set(PARAMETERS.values())

    class Door:
        """Takes the options, starts nothing."""

        words: Sequence[str] = ()

        @classmethod
        def relay(cls, words: Sequence[str]) -> Self:
            cls.words = words
            return cls()

        def close(self) -> None:
            """There is nothing to close."""

    monkeypatch.setattr("rtpproxy.proxy.Door", Door)
    for key, (_, spellings) in table.items():
        if key in left_out:
            continue
        name = PARAMETERS.get(key) or without_unit[key]
        kind = str(parameters[name].annotation)
        usual = ["text"] if "Sequence" in kind else True if kind == "bool" else 3 if "int" in kind else "text"
        rtpproxy.Proxy(**{name: SAMPLES.get(name, usual)})
        if key != "pcap":
            assert set(spellings) & set(Door.words), f"{name} gives {Door.words}, without {spellings}"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_daemon_that_ends_is_a_lost_connection(transport: str, tmp_path: Path) -> None:
    address = free_address(transport, tmp_path)
    pid_file = tmp_path / "pid"
    with daemon(address, pid_file) as process, rtpproxy.Client(address, timeout_s=0.5, retries=1) as client:
        client.start("call-1", "from-a")
        process.kill()
        process.wait()
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(rtpproxy.ConnectionLost):
                client.query("call-1", "from-a")
            assert time.monotonic() - began < 5
    assert issubclass(rtpproxy.ConnectionLost, ConnectionError)


@pytest.mark.parametrize("transport", ["unix", "cunix", "tcp"])
def test_nobody_at_the_address(transport: str, tmp_path: Path) -> None:
    with pytest.raises(rtpproxy.ConnectionLost):
        rtpproxy.Client(free_address(transport, tmp_path)).version()


def test_a_place_to_listen_that_cannot_be_used(tmp_path: Path) -> None:
    address = free_address("cunix", tmp_path)
    with rtpproxy.Proxy(control=[address]), pytest.raises(rtpproxy.StartError):
        rtpproxy.Client(address, events="unix:/no/such/folder/socket")


@pytest.mark.parametrize("address", ["", "udp:", "tcp:127.0.0.1:99999", "unix:" + "x" * 200])
def test_wrong_addresses(address: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        rtpproxy.Client(address)


def test_a_daemon_that_is_silent_is_a_timeout() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"udp:127.0.0.1:{silent.getsockname()[1]}"
        with rtpproxy.Client(address, timeout_s=0.2, retries=2) as client, pytest.raises(rtpproxy.Timeout):
            client.version()
        asked = [silent.recv(100) for _ in range(3)]
        assert asked[0] == asked[1] == asked[2]
        assert issubclass(rtpproxy.Timeout, TimeoutError)


def test_a_signal_ends_the_wait() -> None:
    class AlarmError(Exception):
        pass

    def ring(*_: object) -> None:
        raise AlarmError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            with rtpproxy.Client(f"udp:127.0.0.1:{silent.getsockname()[1]}", timeout_s=30) as client:
                began = time.monotonic()
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(AlarmError):
                    client.version()
                assert time.monotonic() - began < 2
        with rtpproxy.Proxy() as proxy:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(AlarmError):
                next(proxy.events())
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_has_no_relay() -> None:
    with rtpproxy.Proxy() as proxy:
        child = os.fork()
        if child == 0:
            try:
                proxy.version()
            except rtpproxy.Closed:
                proxy.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert proxy.version() == 20040107


def test_the_interpreter_ends_with_an_open_relay(tmp_path: Path) -> None:
    program = f"""
import rtpproxy
proxy = rtpproxy.Proxy(record_dir={str(tmp_path)!r})
proxy.on_timeout(print)
proxy.start("call-1", "from-a", media=("127.0.0.1", 40000))
proxy.lookup("call-1", "from-a", "to-b", media=("127.0.0.1", 40002))
proxy.record("call-1", "from-a")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    assert not list(tmp_path.glob("*.part"))


def test_errors_survive_pickling() -> None:
    with rtpproxy.Proxy() as proxy, pytest.raises(rtpproxy.NotFound) as refused:
        proxy.stop("call-1", "from-a")
    copy = pickle.loads(pickle.dumps(refused.value))
    assert (type(copy), copy.code, copy.command) == (rtpproxy.NotFound, 50, "D call-1 from-a")


def test_the_command_of_the_wheel() -> None:
    for command in ([sys.executable, "-m", "rtpproxy"], [str(Path(sys.executable).with_name("rtpproxy"))]):
        version = subprocess.run([*command, "-V"], capture_output=True, text=True, check=True, timeout=30)
        assert version.stdout.strip()
        wrong = subprocess.run([*command, "--no-such-option"], capture_output=True, timeout=30, check=False)
        assert wrong.returncode == 1


@pytest.mark.parametrize("module", [module.name for module in pkgutil.iter_modules(rtpproxy.__path__)])
def test_the_examples_in_the_docs(module: str) -> None:
    if module != "__main__":
        assert doctest.testmod(importlib.import_module(f"rtpproxy.{module}")).failed == 0


def test_the_examples_of_the_package() -> None:
    assert doctest.testmod(rtpproxy).failed == 0


@pytest.mark.parametrize("kind", [rtpproxy.Proxy, rtpproxy.Client])
def test_everything_of_the_protocol_is_there_and_documented(kind: type) -> None:
    for name, member in vars(rtpproxy.Calls).items():
        if name.startswith("_") or not (callable(member) or isinstance(member, property)):
            continue
        assert inspect.getdoc(getattr(kind, name)), name
        if callable(member):
            assert inspect.signature(getattr(kind, name)) == inspect.signature(member), name


def test_the_stubs_are_true() -> None:
    pytest.importorskip("mypy")
    allowed = Path(__file__).with_name("support") / "stubtest.allowlist"
    command = [sys.executable, "-m", "mypy.stubtest", "--concise", "--allowlist", str(allowed), "rtpproxy"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
