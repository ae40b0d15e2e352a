"""The control protocol on every transport: framing, pipelining, limits, repeated datagrams."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.control import Control, Datagram, OneShot, Stdio, Stream, connect
from support.daemon import TRANSPORTS, Daemon, StartDaemon, free_address, wait_until
from support.phone import Media, Phone

LINE_MAX = 8191
"""The longest command, without its line feed."""
CONNECTIONS = 90
"""Fewer than the relay takes at a time."""

STREAMS = ("cunix", "tcp", "tcp6")
DATAGRAMS = ("udp", "udp6")


@dataclass
class Door:
    """A relay and how to reach it over one of the transports."""

    daemon: Daemon
    address: str
    _stack: ExitStack

    def client(self) -> Control:
        """A new client, closed at the end of the test."""
        client = connect(self.address)
        self._stack.callback(client.close)
        return client

    def stream(self) -> Stream:
        """A new client that keeps its connection."""
        client = self.client()
        assert isinstance(client, Stream)
        return client

    def datagram(self) -> Datagram:
        """A new client with a socket of its own."""
        client = self.client()
        assert isinstance(client, Datagram)
        return client


@pytest.fixture
def open_door(start_daemon: StartDaemon, tmp_path: Path) -> Iterator[Callable[[str], Door]]:
    """Starts a relay with a control socket of a kind."""
    with ExitStack() as stack:

        def open_(transport: str) -> Door:
            address = free_address(transport, tmp_path)
            return Door(start_daemon("-s", address), address, stack)

        yield open_


def steer_a_call(control: Control) -> None:
    """Every command once, with media in between."""
    ask = control.command
    assert ask("V") == "20040107"
    assert ask("VF 20081102") == "1"
    assert ask("vf 19990101") == "0"
    with Phone() as caller, Phone() as callee:
        offer = Media.parse(ask(f"U call {caller.media} from"))
        answer = Media.parse(ask(f"L call {callee.media} from to"))
        assert callee.hear(3, seconds=0) == []
        said = caller.say(answer, 3)
        assert callee.hear(3) == said
        answered = callee.say(offer, 2)
        assert caller.hear(2) == answered
        assert ask("R call from to") == "0"
        assert ask("N call from to") == "0"
    assert ask("Q call from to").split()[1:] == ["3", "2", "5", "0"]
    assert ask("I", lines=5).splitlines()[1] == "active sessions: 1"
    assert ask("Il", lines=6).splitlines()[5].startswith("average load: ")
    assert ask("Gv nsess_created nsess_complete") == "nsess_created=1 nsess_complete=1"
    assert ask("D call from to") == "0"
    assert ask("D call from to") == "E50"
    assert ask("X") == "0"
    assert ask("Y") == "E0"
    assert ask("U call") == "E1"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_can_be_steered(open_door: Callable[[str], Door], transport: str) -> None:
    steer_a_call(open_door(transport).client())


def test_a_call_can_be_steered_over_pipes(start_daemon: StartDaemon) -> None:
    steer_a_call(Stdio(start_daemon(stdio=True).process))


def test_all_transports_at_once(start_daemon: StartDaemon, tmp_path: Path) -> None:
    addresses = [free_address(transport, tmp_path) for transport in TRANSPORTS]
    daemon = start_daemon(*(word for address in addresses for word in ("-s", address)))
    daemon.command("U call 127.0.0.1 4000 from")
    for address in addresses:
        client = connect(address)
        assert client.command("I", lines=5).splitlines()[1] == "active sessions: 1"
        client.close()


def test_unix_takes_what_it_reads_as_one_command(open_door: Callable[[str], Door]) -> None:
    client = open_door("unix").client()
    assert isinstance(client, OneShot)
    assert client.exchange(b"V") == b"20040107\n"
    assert client.exchange(b"V\n") == b"20040107\n"
    assert client.exchange(b" \tVF\r\n20081102\n\n") == b"1\n"
    assert client.exchange(b"V\nVF 20081102\n") == b"E1\n"
    assert client.exchange(b"\n") == b"E5\n"
    assert client.exchange(b"V\0") == b"E5\n"


def test_unix_closes_without_a_reply_to_nothing(open_door: Callable[[str], Door]) -> None:
    door = open_door("unix")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(door.address.removeprefix("unix:"))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert door.client().command("V") == "20040107"


@pytest.mark.parametrize("transport", STREAMS)
def test_stream_answers_pipelined_lines_in_order(open_door: Callable[[str], Door], transport: str) -> None:
    client = open_door(transport).stream()
    lines = [
        (b"VF %d" % version, b"1\n" if version == 20081102 else b"0\n")
        for version in range(20081000, 20081200)
    ]
    client.send(b"\n".join(command for command, _ in lines) + b"\n")
    assert [client.read_line() for _ in lines] == [reply for _, reply in lines]


@pytest.mark.parametrize("transport", STREAMS)
def test_stream_waits_for_the_end_of_a_line(open_door: Callable[[str], Door], transport: str) -> None:
    client = open_door(transport).stream()
    for byte in b"VF 20081102":
        client.send(bytes([byte]))
    client.send(b"\r\nV")
    assert client.read_line() == b"1\n"
    client.send(b"\n")
    assert client.read_line() == b"20040107\n"


@pytest.mark.parametrize("transport", STREAMS)
def test_stream_outlives_bad_lines(open_door: Callable[[str], Door], transport: str) -> None:
    client = open_door(transport).stream()
    client.send(b"\n  \t\r\nV\0\n&& V\n\xff\xfe\nV\n")
    assert [client.read_line() for _ in range(6)] == [
        b"E5\n",
        b"E5\n",
        b"E5\n",
        b"E5\n",
        b"E0\n",
        b"20040107\n",
    ]


@pytest.mark.parametrize("transport", STREAMS)
def test_stream_drops_an_unfinished_line_at_the_end(open_door: Callable[[str], Door], transport: str) -> None:
    door = open_door(transport)
    client = door.stream()
    client.send(b"V\nU call 127.0.0.1 4000 from")
    client.socket.shutdown(socket.SHUT_WR)
    assert [client.read_line(), client.read_line()] == [b"20040107\n", b""]
    assert door.daemon.counter("nsess_created") == 0


@pytest.mark.parametrize("transport", STREAMS)
def test_stream_closes_on_a_line_that_is_too_long(open_door: Callable[[str], Door], transport: str) -> None:
    door = open_door(transport)
    client = door.stream()
    longest = b"V" + b" " * (LINE_MAX - 1)
    client.send(longest + b"\n")
    assert client.read_line() == b"20040107\n"
    client.send(b"V" + b" " * LINE_MAX)
    with suppress(ConnectionResetError):
        assert client.read_line() == b""
    assert door.client().command("V") == "20040107"


@pytest.mark.parametrize("transport", STREAMS)
def test_sessions_outlive_their_connection(open_door: Callable[[str], Door], transport: str) -> None:
    door = open_door(transport)
    with door.stream() as client:
        client.command("U call 127.0.0.1 4000 from")
    assert door.client().command("D call from") == "0"


@pytest.mark.parametrize("transport", ["unix", *STREAMS])
def test_many_connections_at_once(open_door: Callable[[str], Door], transport: str) -> None:
    door = open_door(transport)
    if transport == "unix":
        with ExitStack() as stack:
            path = door.address.removeprefix("unix:")
            sockets = [
                stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                for _ in range(CONNECTIONS)
            ]
            for connection in sockets:
                connection.connect(path)
                connection.settimeout(20)
            for connection in reversed(sockets):
                connection.sendall(b"V")
                assert connection.recv(100) == b"20040107\n"
        return
    clients = [door.stream() for _ in range(CONNECTIONS)]
    for number, client in enumerate(clients):
        client.send(b"U call-%d 127.0.0.1 4000 from\n" % number)
    for client in reversed(clients):
        assert client.read_line().endswith(b" 127.0.0.1\n")
    assert door.daemon.counter("nsess_created") == CONNECTIONS
    assert all(client.command("V") == "20040107" for client in clients)


@pytest.mark.parametrize("transport", STREAMS)
def test_a_client_that_does_not_read_holds_nobody_up(
    open_door: Callable[[str], Door], transport: str
) -> None:
    door = open_door(transport)
    deaf = door.stream()
    deaf.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        send_for_ever(deaf)
    assert door.client().command("V") == "20040107"
    assert door.daemon.command("V") == "20040107"


def send_for_ever(client: Stream) -> None:
    while True:
        client.socket.send(b"I\n" * 1000)


@pytest.mark.parametrize("transport", DATAGRAMS)
def test_datagrams_carry_a_cookie(open_door: Callable[[str], Door], transport: str) -> None:
    exchange = open_door(transport).datagram().exchange
    assert exchange(b"c1 V") == b"c1 20040107\n"
    assert exchange(b" \t c2 \r\n VF\t20081102\n") == b"c2 1\n"
    assert exchange(b"c3 V\nVF 20081102") == b"c3 E1\n"
    assert exchange(b"c4") == b"c4 E5\n"
    assert exchange(b"") == b"E5\n"
    assert exchange(b" \r\n") == b"E5\n"


@pytest.mark.parametrize("transport", DATAGRAMS)
def test_a_repeated_cookie_gets_the_same_reply(open_door: Callable[[str], Door], transport: str) -> None:
    door = open_door(transport)
    client = door.datagram()
    offer = client.exchange(b"c1 U call 127.0.0.1 4000 from")
    refused = client.exchange(b"c2 D other from")
    assert refused == b"c2 E50\n"
    for _ in range(3):
        assert client.exchange(b"c1 U call 127.0.0.1 4000 from") == offer
        assert client.exchange(b"c1 V") == offer
        assert client.exchange(b"c2 V") == refused
    # The sender's address does not matter.
    assert door.datagram().exchange(b"c1 D call from") == offer
    assert door.daemon.command("G nsess_created ncmds_rcvd_ndups ncmds_errs") == "1 10 1"


def test_all_datagram_sockets_share_the_replies(start_daemon: StartDaemon, tmp_path: Path) -> None:
    addresses = [free_address(transport, tmp_path) for transport in ("udp", "udp", "udp6")]
    daemon = start_daemon(*(word for address in addresses for word in ("-s", address)))
    replies = set()
    for address in addresses:
        client = connect(address)
        assert isinstance(client, Datagram)
        with client:
            replies.add(client.exchange(b"same U call 127.0.0.1 4000 from"))
    assert len(replies) == 1
    assert daemon.counter("ncmds_rcvd_ndups") == 2


@pytest.mark.parametrize("transport", DATAGRAMS)
def test_a_datagram_is_cut_at_the_limit(open_door: Callable[[str], Door], transport: str) -> None:
    exchange = open_door(transport).datagram().exchange
    assert exchange(b"c1 V".ljust(LINE_MAX)) == b"c1 20040107\n"
    assert exchange(b"c2 V".ljust(LINE_MAX) + b" x" * 1000) == b"c2 20040107\n"
    assert exchange(b"c3 V".ljust(LINE_MAX - 2) + b" x") == b"c3 E1\n"
    assert exchange(b"c" * 60_000) is not None


@pytest.mark.parametrize("transport", DATAGRAMS)
def test_many_datagrams_of_many_senders(open_door: Callable[[str], Door], transport: str) -> None:
    door = open_door(transport)
    clients = [door.datagram() for _ in range(CONNECTIONS)]
    # The socket's small buffer holds some of them at a time.
    for group in (clients[start : start + 10] for start in range(0, CONNECTIONS, 10)):
        for number, client in enumerate(group):
            client.socket.send(b"c-%d-%d U call-%d 127.0.0.1 4000 from" % (id(client), number, id(client)))
        for number, client in enumerate(group):
            client.socket.settimeout(20)
            assert client.socket.recv(1024).startswith(b"c-%d-%d 2" % (id(client), number))
    assert door.daemon.counter("nsess_created") == CONNECTIONS


def test_the_end_of_standard_input_ends_the_relay_when_it_is_idle(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(stdio=True)
    assert daemon.process.stdin is not None
    daemon.process.stdin.write(b"V\nV")
    daemon.process.stdin.close()
    assert daemon.process.stdout is not None
    assert daemon.process.stdout.read() == b"20040107\n"
    assert daemon.wait() == 0


def test_the_end_of_standard_input_waits_for_sessions(start_daemon: StartDaemon, tmp_path: Path) -> None:
    # A stream listener is no reason to stay, but it still serves.
    address = f"cunix:{tmp_path / 'cunix'}"
    daemon = start_daemon("-s", address, stdio=True)
    daemon.command("U call 127.0.0.1 4000 from")
    client = connect(address)
    assert daemon.process.stdin is not None
    daemon.process.stdin.close()
    numbers = itertools.count()
    wait_until(
        lambda: client.command(f"U call;{next(numbers)} 127.0.0.1 4000 from") == "E99",
        "new sessions are refused",
    )
    assert daemon.process.poll() is None
    client.command("X")
    client.close()
    assert daemon.wait() == 0


def test_a_datagram_socket_keeps_the_relay_after_standard_input(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    address = free_address("udp", tmp_path)
    daemon = start_daemon("-s", address, stdio=True)
    assert daemon.process.stdin is not None
    daemon.process.stdin.close()
    client = connect(address)
    assert client.command("U call 127.0.0.1 4000 from").endswith(" 127.0.0.1")
    assert client.command("D call from") == "0"
    client.close()
    assert daemon.process.poll() is None


def test_sockets_are_removed_at_the_end(start_daemon: StartDaemon, tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left_behind:
        left_behind.bind(str(stale))
    daemon = start_daemon("-s", f"unix:{stale}", "-s", f"cunix:{tmp_path / 'other'}")
    assert OneShot(str(stale)).command("V") == "20040107"
    pid_file = daemon.folder / "pid"
    assert int(pid_file.read_text()) == daemon.process.pid
    assert daemon.stop() == 0
    assert not stale.exists()
    assert not (tmp_path / "other").exists()
    assert not pid_file.exists()


@pytest.mark.parametrize("transport", STREAMS)
def test_connections_beyond_the_limit_are_closed(open_door: Callable[[str], Door], transport: str) -> None:
    door = open_door(transport)
    clients = [door.stream() for _ in range(150)]
    answered = 0
    for client in clients:
        try:
            client.send(b"V\n")
            answered += client.read_line() == b"20040107\n"
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert CONNECTIONS <= answered < len(clients)
    assert door.daemon.command("V") == "20040107"
    for client in clients:
        client.close()
    wait_until(lambda: _answers(door), "places are free again")


def _answers(door: Door) -> bool:
    try:
        with door.stream() as client:
            client.send(b"V\n")
            return client.read_line() == b"20040107\n"
    except (BrokenPipeError, ConnectionResetError):
        return False
