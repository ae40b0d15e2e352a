"""`acct_rtcp_hep`: RTCP reports for a capture server, byte by byte, over UDP and TCP."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.control import TIMEOUT_S
from support.daemon import StartDaemon, binary, free_port
from support.phone import Call, MakeCall, Phone
from support.program import run
from support.tools import need_ipv6

Address = tuple[str, int]


class UdpServer:
    """A capture server that takes datagrams."""

    kind = "udp"

    def __init__(self, port: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", port))
        self.socket.settimeout(TIMEOUT_S)
        self.port: int = self.socket.getsockname()[1]

    def message(self) -> bytes:
        """The next one."""
        return self.socket.recv(65536)

    def close(self) -> None:
        self.socket.close()


class TcpServer:
    """A capture server that takes one connection after another."""

    kind = "tcp"

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(TIMEOUT_S)
        self.port: int = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None

    def message(self) -> bytes:
        """The next one."""
        head = self._read(6)
        return head + self._read(int.from_bytes(head[4:]) - 6)

    def _read(self, count: int) -> bytes:
        if self._connection is None:
            self._connection, _ = self._listener.accept()
            self._connection.settimeout(TIMEOUT_S)
        data = b""
        while len(data) < count:
            chunk = self._connection.recv(count - len(data))
            assert chunk, "the connection ended"
            data += chunk
        return data

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listener.close()


SERVERS: list[Any] = [pytest.param(UdpServer, id="udp"), pytest.param(TcpServer, id="tcp")]


def config(folder: Path, *servers: UdpServer | TcpServer | Address, **more: object) -> Path:
    """A configuration file with a module for each server, TCP unless it says otherwise."""
    sections = []
    for server in servers:
        kind, host, port = (
            ("tcp", *server) if isinstance(server, tuple) else (server.kind, "127.0.0.1", server.port)
        )
        values = {"capt_host": host, "capt_port": port, "capt_ptype": kind, **more}
        sections.append({"load": "acct_rtcp_hep", **values})
    path = folder / "rtpproxy.conf"
    path.write_text(json.dumps({"modules": {f"hep{at}": section for at, section in enumerate(sections)}}))
    return path


def hep(
    call_id: str,
    source: Address,
    destination: Address,
    payload: str,
    times: tuple[int, int],
    capture_id: bytes = b"\x00\x65\x00\x00",
) -> bytes:
    """A message as it has to be."""
    is_v6 = ":" in source[0]
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    chunks = [
        (1, bytes([10 if is_v6 else 2])),
        (2, bytes([17])),
        (7, struct.pack("!H", source[1])),
        (8, struct.pack("!H", destination[1])),
        (9, struct.pack("!I", times[0])),
        (10, struct.pack("!I", times[1])),
        (11, bytes([5])),
        (12, capture_id),
        (17, call_id.encode()),
        (5 if is_v6 else 3, socket.inet_pton(family, source[0])),
        (6 if is_v6 else 4, socket.inet_pton(family, destination[0])),
        (15, payload.encode()),
    ]
    body = b"".join(struct.pack("!HHH", 0, kind, len(value) + 6) + value for kind, value in chunks)
    return b"HEP3" + struct.pack("!H", len(body) + 6) + body


def times_of(message: bytes) -> tuple[int, int]:
    """Seconds and microseconds; they stand behind chunks of a fixed length."""
    seconds, microseconds = struct.unpack("!I6xI", message[42:56])
    return seconds, microseconds


def payload_of(message: bytes) -> str:
    """The last chunk."""
    return message[message.index(b"\0\0\0\x0f") + 6 :].decode()


def sender_report(blocks: int = 0) -> tuple[bytes, str]:
    """A sender report with random figures, and what it is as JSON."""
    ssrc, seconds, fraction, timestamp, packets, octets = facts = [random.getrandbits(32) for _ in range(6)]
    data = struct.pack("!BBH6I", 0x80 | blocks, 200, 6 + 6 * blocks, *facts)
    text = (
        f'{{\n "ssrc": {ssrc},\n "sender_information": {{\n  "ntp_timestamp_sec": {seconds},\n'
        f'  "ntp_timestamp_usec": {fraction},\n  "rtp_timestamp": {timestamp},\n  "packets": {packets},\n'
        f'  "octets": {octets}\n }},\n "type": 200,\n'
    )
    reports, more = report_blocks(blocks)
    return data + reports, text + more


def receiver_report(blocks: int) -> tuple[bytes, str]:
    """The same of a receiver report."""
    ssrc = random.getrandbits(32)
    data = struct.pack("!BBHI", 0x80 | blocks, 201, 1 + 6 * blocks, ssrc)
    reports, more = report_blocks(blocks)
    return data + reports, f'{{\n "ssrc": {ssrc},\n "type": 201,\n{more}'


def report_blocks(count: int) -> tuple[bytes, str]:
    """The end of a report."""
    data, blocks = b"", []
    for _ in range(count):
        source, highest, jitter, lsr, dlsr = facts = [random.getrandbits(32) for _ in range(5)]
        fraction, lost = random.getrandbits(8), random.getrandbits(23)
        data += struct.pack("!II4I", source, fraction << 24 | lost, *facts[1:])
        blocks.append(
            f'  {{\n   "source_ssrc": {source},\n   "fraction_lost": {fraction},\n'
            f'   "packets_lost": {lost},\n   "highest_seq_no": {highest},\n   "ia_jitter": {jitter},\n'
            f'   "lsr": {lsr},\n   "dlsr": {dlsr}\n  }}\n'
        )
    array = ' "report_blocks": [\n' + "  ,\n".join(blocks) + " ],\n" if blocks else ""
    return data, f'{array} "report_count": {count}\n}}'


def words(count: int, kind: int, *facts: int) -> bytes:
    """Any RTCP packet."""
    return struct.pack(f"!BBH{len(facts)}I", 0x80 | count, kind, len(facts), *facts)


def rtcp(call: Call, packet: bytes, from_callee: bool = False) -> tuple[Address, Address]:
    """A phone sends RTCP, and the other one gets it; from where to where it went to the relay."""
    phone, to = (call.callee, call.at_callee_side) if from_callee else (call.caller, call.at_caller_side)
    phone.rtcp.sendto(packet, to.rtcp.pair)
    other = call.caller if from_callee else call.callee
    assert other.hear_rtcp() == [packet]
    return phone.media.rtcp.pair, to.rtcp.pair


@pytest.mark.parametrize("server_of", SERVERS)
def test_reports_of_both_parties(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path, server_of: Callable[[], Any]
) -> None:
    with closing(server_of()) as server:
        daemon = start_daemon("--config", config(tmp_path, server))
        call = make_call(daemon, call_id="call-1@192.0.2.1")
        for from_callee in (False, True):
            for packet, text in [
                sender_report(),
                sender_report(1),
                sender_report(31),
                receiver_report(0),
                receiver_report(2),
            ]:
                before = time.time()
                source, destination = rtcp(call, packet, from_callee)
                message = server.message()
                times = times_of(message)
                assert message == hep(call.call_id, source, destination, text, times)
                assert before - 0.01 <= times[0] + times[1] / 1e6 <= time.time()
                assert json.loads(payload_of(message))["type"] == packet[1]


def test_what_is_in_a_compound_packet(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    with closing(UdpServer()) as server:
        daemon = start_daemon("--config", config(tmp_path, server))
        call = make_call(daemon)
        description, bye = words(1, 202, 9, 0x01016100), words(1, 203, 9)
        (first, first_text), (second, second_text) = sender_report(1), receiver_report(1)
        for packet, text in [
            (first + description, first_text),
            (description + bye, ""),
            (first + second + bye, first_text + second_text),
            (words(31, 77), ""),
        ]:
            rtcp(call, packet)
            assert payload_of(server.message()) == text


def test_what_is_no_rtcp_is_relayed_and_not_told(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    with closing(UdpServer()) as server:
        daemon = start_daemon("--config", config(tmp_path, server))
        call = make_call(daemon)
        report, text = sender_report()
        for bad in [
            b"",
            b"\x80",
            b"hello",
            report[:-4],
            report + b"\0",
            words(1, 201, 9),
            b"\x40" + report[1:],
        ]:
            rtcp(call, bad)
        # RTCP on the RTP port is media.
        call.caller.send(call.at_caller_side, [report])
        assert call.callee.hear(1) == [report]
        rtcp(call, report)
        assert payload_of(server.message()) == text
        line = daemon.wait_for_log("is not sent to udp:127.0.0.1")
        assert line.startswith(f"ERR:{call.call_id}:")
        # One line a minute at most.
        assert daemon.log().count("is not sent to") == 1


def test_over_ipv6(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    need_ipv6()
    with closing(UdpServer()) as server:
        path = config(tmp_path, server, capt_id=0x00030201)
        daemon = start_daemon("--config", path, listen=("-6", "::1"))
        call = make_call(daemon, hosts=("::1", "::1"), modifiers=("6", "6"))
        packet, text = receiver_report(1)
        source, destination = rtcp(call, packet)
        message = server.message()
        expected = hep(call.call_id, source, destination, text, times_of(message), b"\x02\x01\x00\x00")
        assert message == expected


def test_the_address_behind_a_wildcard_is_told(start_daemon: StartDaemon, tmp_path: Path) -> None:
    with closing(UdpServer()) as server, Phone() as phone:
        daemon = start_daemon("--config", config(tmp_path, server), listen=("-l", "*"))
        daemon.command(f"U call {phone.media} from")
        port = int(daemon.command("L call 0 0 from to"))
        packet, text = receiver_report(0)
        phone.rtcp.sendto(packet, ("127.0.0.2", port + 1))
        message = server.message()
        to = ("127.0.0.2", port + 1)
        assert message == hep("call", phone.media.rtcp.pair, to, text, times_of(message))


def test_every_server_gets_it(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    with closing(UdpServer()) as one, closing(TcpServer()) as two:
        daemon = start_daemon("--config", config(tmp_path, one, two, capt_id=2))
        rtcp(make_call(daemon), receiver_report(1)[0])
        message = one.message()
        assert message == two.message()
        assert b"\0\0\0\x0c\0\x0a\0\x02\0\0" in message


def test_reports_wait_for_a_server_that_restarts(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    reports = [receiver_report(0) for _ in range(20)]
    with closing(TcpServer()) as server:
        port = server.port
        daemon = start_daemon("--config", config(tmp_path, server))
        call = make_call(daemon)
        rtcp(call, reports[0][0])
        assert payload_of(server.message()) == reports[0][1]
    for packet, _ in reports[1:]:
        rtcp(call, packet)
    daemon.wait_for_log("RTCP reports wait")
    with closing(TcpServer(port)) as server:
        for _, text in reports[1:]:
            assert payload_of(server.message()) == text
        daemon.wait_for_log("can be reached again")


def test_a_deaf_server_hurts_nobody(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    # It accepts connections and never reads.
    with closing(TcpServer()) as server:
        daemon = start_daemon("--config", config(tmp_path, server))
        call = make_call(daemon)
        packet = receiver_report(31)[0]
        for _ in range(3000):
            rtcp(call, packet)
        call.talk(10)
        start = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("host", "options", "message"),
    [
        ("127.0.0.1", [], "refused"),
        ("no.such.host.invalid", [], "tcp:no.such.host.invalid:"),
        ("localhost", ["--no_resolve"], "not a numeric address"),
    ],
)
def test_a_server_that_cannot_be_reached_ends_the_start(
    tmp_path: Path, host: str, options: list[str], message: str
) -> None:
    port = free_port(socket.SOCK_STREAM)
    command: list[str | Path] = [
        binary(),
        "-f",
        "-F",
        "-l",
        "127.0.0.1",
        "-s",
        f"unix:{tmp_path / 'control'}",
    ]
    command += ["-p", tmp_path / "pid", "--config", config(tmp_path, (host, port)), *options]
    done = run(*command)
    assert done.returncode == 1
    assert f"acct_rtcp_hep: can't connect to tcp:{host}:{port}: " in done.stderr
    assert message in done.stderr
    assert not (tmp_path / "control").exists()
