"""Copies of what one party sends, sub-commands, and the forks that one of them makes."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.capture import payloads, read, sidecar
from support.daemon import Daemon, StartDaemon, wait_until
from support.phone import Call, MakeCall, Media, Phone

PACKETS = 20


def copy(call: Call, target: str, letters: str = "C") -> str:
    """Copies what the caller sends."""
    return call.daemon.command(f"{letters} {call.call_id} {target} {call.from_tag} {call.to_tag}")


def finished(daemon: Daemon, name: str) -> Path:
    """The recording of this name, once it is complete."""
    path = daemon.recordings / name
    wait_until(lambda: path.exists() and path.with_suffix(".json").exists(), f"{name}; log: {daemon.log()}")
    return path


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("workers", ["1", "4"])
def test_copies_go_to_another_host(
    start_daemon: StartDaemon, make_call: MakeCall, host: str, workers: str
) -> None:
    call = make_call(start_daemon("--workers", workers))
    with Phone() as third:
        source = Media.parse(copy(call, f"udp:{host}:{third.port}", "Cp"))
        said, _ = call.talk(PACKETS)
        assert third.hear(PACKETS) == said
        said = call.caller.say(call.at_caller_side, 1)
        assert third.rtp.recvfrom(2000) == (said[0], source.pair)
        assert call.callee.hear(1) == said
        report = call.caller.report(call.at_caller_side)
        assert third.rtcp.recvfrom(2000) == (report, source.rtcp.pair)
        assert call.command("N") == "0"
        assert call.callee.hear_rtcp() == [report]
        call.talk(1)
        assert third.silence()
    assert call.stats()[1:] == [PACKETS + 2, PACKETS + 1, 2 * PACKETS + 3, 0]


@pytest.mark.parametrize("workers", ["1", "4"])
def test_several_hosts_get_the_same(start_daemon: StartDaemon, make_call: MakeCall, workers: str) -> None:
    daemon = start_daemon("--workers", workers)
    call = make_call(daemon)
    with Phone() as one, Phone() as other:
        assert copy(call, f"udp:127.0.0.1:{one.port}") == "0"
        assert copy(call, f"udp:localhost:{other.port}") == "0"
        assert copy(call, f"udp:127.0.0.1:{one.port}") == "0"
        said, _ = call.talk(PACKETS)
        assert one.hear(PACKETS) == other.hear(PACKETS) == said
        report = call.caller.report(call.at_caller_side)
        assert one.hear_rtcp() == other.hear_rtcp() == call.callee.hear_rtcp() == [report]

        # A fork may take the call to another worker, its receivers with it.
        with Phone() as caller, Phone() as callee:
            recorder = Recorder(daemon, caller, callee)
            recorder.set_up("siprec", f" && C {call.call_id} {call.from_tag} {call.to_tag}")
            said, _ = call.talk(1)
            assert one.hear(1) == other.hear(1) == caller.hear(1) == said

        assert copy(call, f"udp:localhost:{one.port}", "?uncopy") == "0"
        assert copy(call, f"udp:127.0.0.1:{one.port}", "?uncopy") == "E50"
        said, _ = call.talk(1)
        assert other.hear(1) == said
        assert one.silence()
        assert call.command("N") == "0"
        call.talk(1)
        assert other.silence()
    assert "copies of the caller to" in daemon.log()


def test_with_compat_a_party_has_one_copy(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--compat")
    call = make_call(daemon)
    with Phone() as one, Phone() as other:
        assert copy(call, f"udp:127.0.0.1:{one.port}") == "0"
        assert copy(call, f"udp:127.0.0.1:{other.port}") == "0"
        assert copy(call, "take") == "0"
        assert copy(call, f"udp:127.0.0.1:{one.port}", "?uncopy") == "E0"
        said, _ = call.talk(PACKETS)
        assert one.hear(PACKETS) == said
        assert other.silence()
    assert not list(daemon.recordings.iterdir())


def test_what_cannot_be_copied_is_e65(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    for target in ("udp:127.0.0.1", "udp:127.0.0.1:0", "udp:127.0.0.1:65535", "udp:no-such-host.invalid:9"):
        assert copy(call, target) == "E65", target
    assert copy(call, "name", "Cp") == "E65"
    assert daemon.command("C nobody name from to") == "E50"
    call.talk(1)


def test_names_are_not_looked_up_if_that_is_forbidden(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    call = make_call(start_daemon("--no_resolve"))
    assert copy(call, "udp:localhost:9") == "E65"
    assert copy(call, "udp:127.0.0.1:9") == "0"


def test_a_file_of_that_name_holds_one_direction(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon, "call-1")
    assert copy(call, "take-1") == "0"
    assert call.command("R") == "0"
    said, answered = call.talk(PACKETS)
    report = call.caller.report(call.at_caller_side)
    assert call.callee.hear_rtcp() == [report]
    assert call.command("D") == "0"
    take = finished(daemon, "take-1.pcapng")
    assert payloads(read(take)) == [*said, report]
    assert (sidecar(take)["scope"], sidecar(take)["leg"]) == ("named", "caller")
    whole = finished(daemon, "call-1=from.pcapng")
    assert payloads(read(whole)) == [*said, *answered, report]


@pytest.mark.parametrize(
    ("options", "letters", "names"),
    [
        pytest.param(("-P",), "C", {"take.pcap"}, id="pcap"),
        pytest.param(("--record-format", "adhoc"), "C", {"take.rtp", "take.rtcp"}, id="adhoc"),
        pytest.param(("--compat",), "C", {"take.rtp", "take.rtcp"}, id="compat"),
        pytest.param(("--compat", "-P"), "C", {"take.rtp", "take.rtcp"}, id="compat-pcap"),
        pytest.param(("--compat", "-P"), "Cs", {"take"}, id="compat-pcap-single"),
    ],
)
def test_names_of_files(
    start_daemon: StartDaemon,
    make_call: MakeCall,
    options: tuple[str, ...],
    letters: str,
    names: set[str],
) -> None:
    daemon = start_daemon(*options)
    call = make_call(daemon)
    assert copy(call, "take", letters) == "0"
    call.talk(1)
    assert call.command("D") == "0"

    def written() -> set[str]:
        return {path.name for path in daemon.recordings.iterdir() if path.suffix != ".json"}

    wait_until(lambda: written() == names, f"{names}, not {written()}")


@dataclass
class Recorder:
    """The session of a SIPREC client: the two ports that get what the parties of a call say."""

    daemon: Daemon
    caller: Phone
    callee: Phone

    def set_up(self, name: str, more: str = "") -> tuple[Media, Media]:
        """Where the media of the caller and of the callee will come from."""
        reply = self.daemon.command(f"U {name} {self.caller.media} r1 r2 && L {self.callee.media}{more}")
        callee, caller = reply.split(" && ")
        return Media.parse(caller), Media.parse(callee)


@pytest.mark.parametrize("is_there_before", [False, True])
@pytest.mark.parametrize("workers", ["1", "4"])
def test_a_fork_gets_what_both_parties_say(
    start_daemon: StartDaemon, make_call: MakeCall, workers: str, is_there_before: bool
) -> None:
    daemon = start_daemon("--workers", workers)
    # Some of so many calls are on another worker than the session that forks them.
    for number in range(8):
        call = make_call(daemon, f"call-{number}")
        with Phone() as caller, Phone() as callee:
            recorder = Recorder(daemon, caller, callee)
            name = f"siprec-{number}"
            before = recorder.set_up(name) if is_there_before else None
            sources = recorder.set_up(name, f" && C {call.call_id} {call.from_tag} {call.to_tag}")
            assert before in (None, sources)
            said, answered = call.talk(PACKETS)
            assert caller.hear(PACKETS) == said
            assert callee.hear(PACKETS) == answered
            said = call.caller.say(call.at_caller_side, 1)
            assert caller.rtp.recvfrom(2000) == (said[0], sources[0].pair)
            report = call.callee.report(call.at_callee_side)
            assert callee.rtcp.recvfrom(2000) == (report, sources[1].rtcp.pair)
            caller.say(sources[0], 1)
            assert call.callee.hear(1) == said
            assert call.caller.hear_rtcp() == [report]
            assert callee.silence()
            assert daemon.command(f"Q {name} r1 r2").split()[1:] == ["1", "0", "0", "1"]
            assert daemon.command(f"D {name} r1 r2") == "0"
            call.talk(1)
            assert caller.silence()


def test_query_and_delete_in_one(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    call.talk(2)
    assert call.command("Qv").startswith("ttl=")
    assert daemon.command(f"Q {call.call_id} from to npkts_ina && D") == "2"
    assert call.command("Q") == "E50"


def test_a_session_ends_after_the_time_it_was_given(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    assert daemon.command(f"Q {call.call_id} from to ttl && S ttl=1") == "60"
    wait_until(lambda: call.command("Q") == "E50", "the session times out")
    assert daemon.counter("nsess_timeout") == 1


def test_media_carries_the_tos_byte_of_its_side(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    assert daemon.command(f"Q {call.call_id} from to ttl && S tos=40 && Sr tos=72") == "60"

    def tos(phone: Phone) -> int:
        _, ancillary, _, _ = phone.rtp.recvmsg(2000, 100)
        return next(
            data[0] for level, kind, data in ancillary if (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS)
        )

    for phone in (call.caller, call.callee):
        phone.rtp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    call.caller.say(call.at_caller_side, 1)
    assert tos(call.callee) == 72
    call.callee.say(call.at_callee_side, 1)
    assert tos(call.caller) == 40
