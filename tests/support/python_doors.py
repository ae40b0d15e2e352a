"""The two doors of the Python module, opened the same way: in process and over every control transport."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import rtpproxy
from support.daemon import free_address

TRANSPORTS = ("unix", "cunix", "udp", "tcp")
DOORS = ("proxy", *TRANSPORTS)


@contextmanager
def open_door(kind: str, folder: Path, **settings: Any) -> Iterator[rtpproxy.Calls]:
    """A relay with `settings`: itself, or a client of it over the transport `kind`."""
    if kind == "proxy":
        with rtpproxy.Proxy(**settings) as proxy:
            yield proxy
        return
    address = free_address(kind, folder)
    events, record_events = (f"unix:{folder / name}" for name in ("events", "record-events"))
    if "record_dir" in settings:
        settings["record_events"] = [record_events]
    with (
        rtpproxy.Proxy(control=[address], notify=[events], **settings),
        rtpproxy.Client(address, events=events, record_events=record_events) as client,
    ):
        yield client


@contextmanager
def daemon(address: str, pid_file: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The `rtpproxy` command in the foreground, ready to answer at `address`."""
    program = os.environ.get("RTPPROXY_BIN")
    command = [program] if program else [sys.executable, "-m", "rtpproxy"]
    command += ["-f", "-F", "-l", "127.0.0.1", "-s", address, "-p", str(pid_file), *options]
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: process.poll() is not None or _answers(address), "the daemon answers")
        assert process.poll() is None, "the daemon ended at once"
        yield process
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with rtpproxy.Client(address, timeout_s=0.2, retries=1) as client:
            return client.version() == 20040107
    except (rtpproxy.ConnectionLost, rtpproxy.Timeout):
        return False


def wait_until(done: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """Waits for something that happens soon."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


class Phone:
    """A party of a call: a UDP socket that speaks RTP."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self._socket.settimeout(5)
        self._ssrc = self._socket.getsockname()[1]
        self._sequence = 0

    @property
    def media(self) -> tuple[str, int]:
        """Its address, for `start` and `lookup`."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def say(self, leg: rtpproxy.Leg, packets: int) -> list[bytes]:
        """Sends packets to the relay and returns them."""
        sent = []
        for _ in range(packets):
            header = struct.pack("!BBHII", 0x80, 0, self._sequence, self._sequence * 160, self._ssrc)
            sent.append(header + bytes([self._sequence % 256]) * 160)
            self._socket.sendto(sent[-1], (leg.address, leg.port))
            self._sequence += 1
        return sent

    def send(self, leg: rtpproxy.Leg, datagram: bytes) -> None:
        """Sends a datagram to the relay."""
        self._socket.sendto(datagram, (leg.address, leg.port))

    def hear(self, packets: int) -> list[bytes]:
        """Receives that many packets."""
        return [self._socket.recv(2048) for _ in range(packets)]

    def is_silent(self, seconds: float = 0.05) -> bool:
        """True if nothing has come, and nothing comes for a moment."""
        return not select.select([self._socket], [], [], seconds)[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
