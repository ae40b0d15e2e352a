"""Media through real sockets: both ways, both families, every datagram, and what commands say of it."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct

import pytest

from support.control import Datagram, Stream
from support.daemon import Daemon, StartDaemon, free_port, free_ports, wait_until
from support.phone import MakeCall, Media, Phone

PACKETS = 50
DATAGRAM_MAX = 8192
"""Bytes of a datagram that are relayed."""


def test_every_packet_is_relayed_both_ways(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    for _ in range(4):
        call.talk(PACKETS)
    assert call.stats()[1:] == [4 * PACKETS, 4 * PACKETS, 8 * PACKETS, 0]
    assert call.caller.silence()
    assert call.callee.silence()


def test_packets_come_from_the_ports_that_were_told(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    call.talk(1)
    call.caller.say(call.at_caller_side, 1)
    assert call.callee.rtp.recvfrom(2000)[1] == call.at_callee_side.pair
    call.callee.say(call.at_callee_side, 1)
    assert call.caller.rtp.recvfrom(2000)[1] == call.at_caller_side.pair
    call.caller.report(call.at_caller_side)
    assert call.callee.rtcp.recvfrom(2000)[1] == call.at_callee_side.rtcp.pair


def test_rtcp_is_relayed_beside_rtp(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    call.talk(3)
    reports = [call.caller.report(call.at_caller_side) for _ in range(3)]
    assert call.callee.hear_rtcp(3) == reports
    report = call.callee.report(call.at_callee_side)
    assert call.caller.hear_rtcp() == [report]
    assert call.stats()[1:] == [3, 3, 6, 0]
    assert daemon.counter("npkts_relayed") == 10


def test_rtcp_on_the_rtp_port_stays_there(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    call.talk(3)
    report = call.caller.source.sender_report()
    call.caller.send(call.at_caller_side, [report])
    assert call.callee.hear(1) == [report]
    assert call.callee.silence()


# What a proxy adds to both commands so that each party is served in its own family.
BRIDGE = ("-l", "127.0.0.1", "-6", "/::1")
ROUTES = ("-l", "127.0.0.1", "-6", "six@::1")


@pytest.mark.parametrize(
    ("listen", "hosts", "modifiers"),
    [
        pytest.param(BRIDGE, ("127.0.0.1", "::1"), ("ie", "6ie"), id="bridge-4-to-6"),
        pytest.param(BRIDGE, ("::1", "127.0.0.1"), ("6ei", "ei"), id="bridge-6-to-4"),
        pytest.param(ROUTES, ("127.0.0.1", "::1"), ("r[::1]", "6r127.0.0.1"), id="route-4-to-6"),
        pytest.param(ROUTES, ("::1", "127.0.0.1"), ("6R127.0.0.1", "R[::1]"), id="route-6-to-4"),
        pytest.param(ROUTES, ("127.0.0.1", "::1"), ("l{six}", "6l127.0.0.1"), id="label-4-to-6"),
        pytest.param(("-6", "::1"), ("::1", "::1"), ("6", "6"), id="6-to-6"),
        pytest.param(ROUTES, ("::1", "::1"), ("6", "6"), id="second-family-alone"),
    ],
)
def test_each_party_is_served_in_its_family(
    start_daemon: StartDaemon,
    make_call: MakeCall,
    listen: tuple[str, ...],
    hosts: tuple[str, str],
    modifiers: tuple[str, str],
) -> None:
    call = make_call(start_daemon(listen=listen), hosts=hosts, modifiers=modifiers)
    assert (call.at_caller_side.host, call.at_callee_side.host) == hosts
    call.talk(PACKETS)
    report = call.caller.report(call.at_caller_side)
    assert call.callee.hear_rtcp() == [report]
    report = call.callee.report(call.at_callee_side)
    assert call.caller.hear_rtcp() == [report]
    assert call.stats()[1:] == [PACKETS, PACKETS, 2 * PACKETS, 0]


def test_replies_name_the_family(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(listen=ROUTES)
    assert daemon.command("U four 127.0.0.1 4000 from").endswith(" 127.0.0.1")
    assert daemon.command("U6 six ::1 4000 from").endswith(" ::1 6")


def test_a_family_that_is_not_served(daemon: Daemon) -> None:
    assert daemon.command("U6 call ::1 4000 from") == "E36"
    assert daemon.command("U call 2001:db8::1 4000 from") == "E37"


@pytest.mark.parametrize(
    ("listen", "six", "host"), [(("-l", "*"), "", "127.0.0.1"), (("-6", "::"), "6", "::1")]
)
def test_a_wildcard_address_is_not_told(
    start_daemon: StartDaemon, listen: tuple[str, ...], six: str, host: str
) -> None:
    daemon = start_daemon(listen=listen)
    with Phone(host) as caller, Phone(host) as callee:
        offer = daemon.command(f"U{six} call {caller.media} from")
        answer = daemon.command(f"L{six} call {callee.media} from to")
        assert offer.isdecimal()
        assert answer.isdecimal()
        said = caller.say(Media(host, int(answer)), PACKETS)
        assert callee.hear(PACKETS) == said
        answered = callee.say(Media(host, int(offer)), PACKETS)
        assert caller.hear(PACKETS) == answered


def test_a_wildcard_serves_every_address_of_the_machine(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(listen=("-l", "*"))
    with Phone("127.0.0.3") as caller, Phone("127.0.0.4") as callee:
        offer = int(daemon.command(f"U call {caller.media} from"))
        answer = int(daemon.command(f"L call {callee.media} from to"))
        for here in ("127.0.0.1", "127.0.0.2"):
            said = caller.say(Media(here, answer), 3)
            assert callee.hear(3) == said
            answered = callee.say(Media(here, offer), 3)
            assert caller.hear(3) == answered


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0", id="one-byte"),
        pytest.param(b"\x80", id="cut-header"),
        pytest.param(b"\x9f" + bytes(11), id="csrcs-beyond-the-end"),
        pytest.param(b"\x90" + bytes(11) + b"\0\0\xff\xff", id="extension-beyond-the-end"),
        pytest.param(b"\xa0" + bytes(11) + b"\xff", id="padding-beyond-the-end"),
        pytest.param(b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12), id="stun"),
        pytest.param(b"\x16\xfe\xfd" + bytes(40), id="dtls"),
        pytest.param(b"T.38 over UDP, not RTP at all", id="text"),
    ],
)
def test_whatever_the_parties_send_is_relayed_unchanged(
    daemon: Daemon, make_call: MakeCall, datagram: bytes
) -> None:
    call = make_call(daemon)
    call.caller.send(call.at_caller_side, [datagram])
    assert call.callee.hear(1) == [datagram]
    call.talk(2)
    call.callee.send(call.at_callee_side, [datagram])
    assert call.caller.hear(1) == [datagram]
    call.caller.rtcp.sendto(datagram, call.at_caller_side.rtcp.pair)
    assert call.callee.hear_rtcp() == [datagram]
    assert call.stats()[1:] == [3, 3, 6, 0]
    assert call.command("Q", "rtpa_perrs") == "1"


def test_a_long_datagram_is_cut(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    for size in (DATAGRAM_MAX - 1, DATAGRAM_MAX, DATAGRAM_MAX + 1, 60_000):
        packet = call.caller.source.packet(random.randbytes(size - 12))
        call.caller.send(call.at_caller_side, [packet])
        assert call.callee.hear(1) == [packet[:DATAGRAM_MAX]]
    call.talk(2)


def test_small_packets_twice(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    call = make_call(start_daemon("-2"))
    small = call.caller.source.packet(bytes(127 - 12))
    large = call.caller.source.packet(bytes(128 - 12))
    call.caller.send(call.at_caller_side, [small, large])
    assert call.callee.hear(3) == [small, small, large]
    assert call.callee.silence()


def test_media_before_the_answer_is_thrown_away(daemon: Daemon) -> None:
    with Phone() as caller, Phone() as callee:
        offer = Media.parse(daemon.command(f"U call {caller.media} from"))
        callee.say(offer, 5)
        wait_until(lambda: daemon.counter("npkts_discard") == 5, "the relay read them")
        answer = Media.parse(daemon.command(f"L call {callee.media} from to"))
        said = caller.say(answer, 3)
        assert callee.hear(3) == said
        answered = callee.say(offer, 3)
        assert caller.hear(3) == answered
    assert daemon.command("Q call from to").split()[1:] == ["3", "3", "6", "0"]


def test_media_for_a_party_that_is_not_known_yet_is_dropped(daemon: Daemon) -> None:
    with Phone() as caller, Phone() as callee:
        daemon.command(f"U call {caller.media} from")
        answer = Media.parse(daemon.command("L call 0 0 from to"))
        caller.say(answer, 5)
        wait_until(lambda: daemon.command("Q call from to").split()[1:] == ["5", "0", "0", "5"], "counted")
        assert callee.silence()


def test_a_call_on_hold(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    call.talk(3)
    with Phone() as elsewhere:
        assert Media.parse(call.daemon.command(f"U {call.call_id} 0.0.0.0 0 from to")) == call.at_callee_side
        moved = call.daemon.command(f"U {call.call_id} {elsewhere.media} from to")
        assert Media.parse(moved) == call.at_callee_side
        said = elsewhere.say(call.at_caller_side, 3)
        assert call.callee.hear(3) == said
        answered = call.callee.say(call.at_callee_side, 3)
        assert elsewhere.hear(3) == answered


def test_no_ports_left(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(ports=free_ports(3))
    assert daemon.command("U one 127.0.0.1 4000 from").endswith(" 127.0.0.1")
    assert daemon.command("L one 127.0.0.1 5000 from to").endswith(" 127.0.0.1")
    offer = daemon.command("U two 127.0.0.1 4000 from")
    assert offer.endswith(" 127.0.0.1")
    assert daemon.command("L two 127.0.0.1 5000 from to") == "E71"
    assert daemon.command("U three 127.0.0.1 4000 from") == "E72"
    # Nothing of the session that was refused is left, and the others go on.
    assert daemon.command("D three from") == "E50"
    assert daemon.command("U two 127.0.0.1 4000 from") == offer
    assert daemon.command("D one from to") == "0"
    assert daemon.command("L two 127.0.0.1 5000 from to").endswith(" 127.0.0.1")
    assert daemon.command("U three 127.0.0.1 4000 from").endswith(" 127.0.0.1")


def test_ports_of_other_programs_are_left_alone(start_daemon: StartDaemon) -> None:
    low, high = free_ports(4)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", low + 3))
        daemon = start_daemon(ports=(low, high))
        told = [daemon.command(f"U call-{number} 127.0.0.1 4000 from") for number in range(3)]
    assert sorted(told) == [f"{port} 127.0.0.1" for port in (low, low + 4, low + 6)]


def test_ports_in_order(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    low, high = free_ports(6)
    daemon = start_daemon("-b", ports=(low, high))
    calls = [make_call(daemon) for _ in range(2)]
    told = [port for call in calls for port in (call.at_callee_side.port, call.at_caller_side.port)]
    assert told == [low, low + 2, low + 4, low + 6]


def test_query(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    packets = call.caller.source.packets(20)
    sent = packets[:5] + packets[8:] + [packets[19]]
    call.caller.send(call.at_caller_side, sent)
    assert call.callee.hear(len(sent)) == sent
    answered = call.callee.say(call.at_callee_side, 4)
    assert call.caller.hear(4) == answered
    ttl, *counts = call.stats()
    assert 55 <= ttl <= 60
    assert counts == [18, 4, 22, 0]
    assert [int(value) for value in call.command_of_callee("Q").split()[1:]] == [4, 18, 22, 0]
    assert call.command("Qv").split()[1:] == ["npkts_ina=18", "npkts_ino=4", "nrelayed=22", "ndropped=0"]
    names = ("rtpa_nsent", "rtpa_nrcvd", "rtpa_nlost", "rtpa_ndups", "rtpa_perrs")
    assert call.command("Q", *names) == "20 17 3 1 0"
    assert float(call.command("Q", "rtpa_jmax")) >= float(call.command("Q", "rtpa_javg")) >= 0
    assert 0 < float(call.command("Qv", "longest_ipi").removeprefix("longest_ipi=")) < 20
    assert call.command("Q", "unknown") == "E62"
    assert daemon.command("Q other from to") == "E50"


@pytest.mark.parametrize("workers", [1, 3])
def test_figures_of_all_calls(start_daemon: StartDaemon, make_call: MakeCall, workers: int) -> None:
    daemon = start_daemon("--workers", str(workers))
    calls = [make_call(daemon) for _ in range(12)]
    for call in calls:
        call.talk(5)
    info = dict(line.split(": ") for line in daemon.command("I", lines=5).splitlines())
    assert info == {
        "sessions created": "12",
        "active sessions": "12",
        "active streams": "24",
        "packets received": "120",
        "packets transmitted": "120",
    }
    assert daemon.command("Gv nsess_created nsess_destroyed nsess_complete npkts_rcvd npkts_relayed") == (
        "nsess_created=12 nsess_destroyed=0 nsess_complete=12 npkts_rcvd=120 npkts_relayed=120"
    )
    assert calls[0].command("D") == "0"
    assert daemon.command("G nsess_destroyed rtpa_nsent rtpa_nrcvd rtpa_nlost") == "1 10 10 0"
    assert daemon.command("X") == "0"
    assert daemon.command("G nsess_destroyed nsess_nortp nsess_owrtp nsess_nortcp") == "12 0 0 12"
    assert daemon.command("I", lines=5).splitlines()[1] == "active sessions: 0"
    assert daemon.command("G no_such_counter") == "E68"
    assert all(call.command("Q") == "E50" for call in calls)


def test_calls_do_not_mix(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--workers", "2")
    calls = [make_call(daemon) for _ in range(20)]
    said = [call.caller.say(call.at_caller_side, 10) for call in calls]
    answered = [call.callee.say(call.at_callee_side, 10) for call in calls]
    assert [call.callee.hear(10) for call in calls] == said
    assert [call.caller.hear(10) for call in calls] == answered
    assert all(call.caller.silence(0) and call.callee.silence(0) for call in calls)


def test_a_session_ends_with_its_ports(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon)
    call.talk(3)
    assert call.command("D") == "0"
    call.caller.rtp.connect(call.at_caller_side.pair)
    call.caller.rtp.settimeout(20)
    call.caller.rtp.send(b"late")
    with pytest.raises(ConnectionRefusedError):
        call.caller.rtp.recv(100)


def test_garbage_stops_nothing(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    udp, tcp = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
    daemon = start_daemon("-s", f"udp:127.0.0.1:{udp}", "-s", f"tcp:127.0.0.1:{tcp}", "-a")
    call = make_call(daemon)
    call.talk(3)
    random.seed(os.environ.get("PYTEST_XDIST_WORKER"))
    ports = [call.at_callee_side, call.at_caller_side, call.at_callee_side.rtcp, call.at_caller_side.rtcp]
    senders = [call.caller, call.callee, Phone("127.0.0.66")]
    for datagram in garbage():
        for port in ports:
            for sender in senders:
                sender.rtp.sendto(datagram, port.pair)
                sender.rtcp.sendto(datagram, port.pair)
    senders[-1].close()
    with Datagram(socket.AF_INET, ("127.0.0.1", udp)) as control:
        for datagram in garbage():
            control.socket.send(datagram)
        assert control.command("V") == "20040107"
    for data in garbage():
        with Stream(socket.AF_INET, ("127.0.0.1", tcp)) as control:
            control.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            control.send(data)
    # The parties still hear each other, once what they sent themselves is out of the way.
    while not call.caller.silence() or not call.callee.silence():
        for phone in (call.caller, call.callee):
            phone.hear(10_000, seconds=0.01)
            phone.hear_rtcp(10_000, seconds=0.01)
    call.talk(5)


def garbage() -> list[bytes]:
    """Datagrams that no protocol makes, and some that come close."""
    noise = [random.randbytes(random.choice([0, 1, 2, 11, 12, 13, 60, 172, 1500, 8000])) for _ in range(40)]
    near_rtp = [b"\x80" + random.randbytes(random.randrange(40)) for _ in range(20)]
    near_rtcp = [b"\x80" + bytes([random.randrange(192, 224)]) + random.randbytes(30) for _ in range(10)]
    near_commands = [random.choice("UuLlDQRNXIGVv").encode() + random.randbytes(20) for _ in range(20)]
    return noise + near_rtp + near_rtcp + near_commands


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_relay_at_once(
    start_daemon: StartDaemon, make_call: MakeCall, number: signal.Signals
) -> None:
    daemon = start_daemon()
    make_call(daemon).talk(3)
    assert daemon.stop(number) == 0
