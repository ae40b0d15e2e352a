"""Parties of a call: sockets on loopback that send and receive RTP and RTCP."""

from __future__ import annotations

import ipaddress
import itertools
import random
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from support.daemon import Daemon

PCMU = 0
FRAME = 160
"""Bytes and time stamp units of 20 ms of PCMU."""


@dataclass(frozen=True)
class Media:
    """Where to send media, as replies and commands name it."""

    host: str
    port: int

    @classmethod
    def parse(cls, reply: str) -> Media:
        """From the reply to `U` or `L` of a relay that does not listen on a wildcard."""
        port, host, *_ = reply.split()
        return cls(host, int(port))

    @property
    def rtcp(self) -> Media:
        """Where RTCP goes: the next port."""
        return Media(self.host, self.port + 1)

    @property
    def pair(self) -> tuple[str, int]:
        """For the socket module."""
        return self.host, self.port

    def __str__(self) -> str:
        return f"{self.host} {self.port}"


@dataclass
class RtpSource:
    """Numbers the packets of an RTP stream."""

    ssrc: int = field(default_factory=lambda: random.getrandbits(32) | 1)
    sequence: int = field(default_factory=lambda: random.randrange(1000, 30000))
    timestamp: int = field(default_factory=lambda: random.getrandbits(31))
    payload_type: int = PCMU

    def packet(self, payload: bytes | None = None) -> bytes:
        """The next packet; without `payload`, one that no other packet has."""
        if payload is None:
            payload = struct.pack("!IH", self.ssrc, self.sequence).ljust(FRAME, b"\xff")
        header = struct.pack("!BBHII", 0x80, self.payload_type, self.sequence, self.timestamp, self.ssrc)
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.timestamp = (self.timestamp + FRAME) & 0xFFFFFFFF
        return header + payload

    def packets(self, count: int) -> list[bytes]:
        """So many packets more."""
        return [self.packet() for _ in range(count)]

    def sender_report(self) -> bytes:
        """An RTCP packet of this source."""
        return struct.pack("!BBHIIIIII", 0x80, 200, 6, self.ssrc, 0, 0, self.timestamp, 1, FRAME)


class Phone:
    """A party: a socket for RTP on an even port and one for RTCP on the next."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.rtp, self.rtcp = _bind_pair(host)
        self.port: int = self.rtp.getsockname()[1]
        self.source = RtpSource()

    @property
    def media(self) -> Media:
        """Where this phone receives."""
        return Media(self.host, self.port)

    def send(self, to: Media, packets: list[bytes]) -> list[bytes]:
        """Sends datagrams from the RTP socket and returns them."""
        for packet in packets:
            self.rtp.sendto(packet, to.pair)
        return packets

    def say(self, to: Media, count: int) -> list[bytes]:
        """Sends so many packets of this phone's stream, at once, and returns them."""
        return self.send(to, self.source.packets(count))

    def report(self, to: Media) -> bytes:
        """Sends an RTCP packet to the RTCP port that belongs to `to`."""
        packet = self.source.sender_report()
        self.rtcp.sendto(packet, to.rtcp.pair)
        return packet

    def hear(self, count: int, seconds: float = 20) -> list[bytes]:
        """So many datagrams from the RTP socket, or fewer if they do not come."""
        return _receive(self.rtp, count, seconds)

    def hear_rtcp(self, count: int = 1, seconds: float = 20) -> list[bytes]:
        """The same from the RTCP socket."""
        return _receive(self.rtcp, count, seconds)

    def silence(self, seconds: float = 0.05) -> bool:
        """Whether neither socket holds anything or gets something for a moment."""
        return not select.select([self.rtp, self.rtcp], [], [], seconds)[0]

    def close(self) -> None:
        """Closes both sockets."""
        self.rtp.close()
        self.rtcp.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Call:
    """A session of a relay with a phone at either end."""

    _numbers = itertools.count(1)

    def __init__(
        self,
        daemon: Daemon,
        call_id: str | None = None,
        *,
        tags: tuple[str, str] = ("from", "to"),
        hosts: tuple[str, str] = ("127.0.0.1", "127.0.0.1"),
        modifiers: tuple[str, str] = ("", ""),
        notify: str = "",
    ) -> None:
        self.daemon = daemon
        self.call_id = call_id or f"unnamed-{next(self._numbers)}"
        self.from_tag, self.to_tag = tags
        self.caller, self.callee = (Phone(host) for host in hosts)
        try:
            offer = daemon.command(
                f"U{modifiers[0]} {self.call_id} {self.caller.media} {self.from_tag} {notify}".rstrip()
            )
            answer = daemon.command(
                f"L{modifiers[1]} {self.call_id} {self.callee.media} {self.from_tag} {self.to_tag}"
            )
            self.at_callee_side = Media.parse(offer)
            """Where the callee sends."""
            self.at_caller_side = Media.parse(answer)
            """Where the caller sends."""
        except BaseException:
            self.close()
            raise

    def talk(self, count: int) -> tuple[list[bytes], list[bytes]]:
        """Both say so many packets, which arrive; returns those of the caller and those of the callee."""
        said = self.caller.say(self.at_caller_side, count)
        self._expect(self.callee.hear(count), said)
        answered = self.callee.say(self.at_callee_side, count)
        self._expect(self.caller.hear(count), answered)
        return said, answered

    def _expect(self, heard: list[bytes], said: list[bytes]) -> None:
        numbers = [said.index(packet) if packet in said else None for packet in heard]
        assert heard == said, f"heard {numbers} of {len(said)} packets; log:\n{self.daemon.log()}"

    def command(self, letters: str, *more: str) -> str:
        """A command about this call, from the caller's side."""
        return self.daemon.command(" ".join([letters, self.call_id, self.from_tag, self.to_tag, *more]))

    def command_of_callee(self, letters: str) -> str:
        """The same with the tags swapped."""
        return self.daemon.command(f"{letters} {self.call_id} {self.to_tag} {self.from_tag}")

    def stats(self) -> list[int]:
        """`Q`: seconds left, packets from the caller, from the callee, relayed, dropped."""
        return [int(value) for value in self.command("Q").split()]

    def close(self) -> None:
        """Closes the phones; the session stays."""
        self.caller.close()
        self.callee.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class MakeCall(Protocol):
    """Sets up a call whose phones the fixture of this name closes."""

    def __call__(self, daemon: Daemon, *arguments: Any, **settings: Any) -> Call: ...


def _bind_pair(host: str) -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    for _ in range(100):
        rtp = socket.socket(family, socket.SOCK_DGRAM)
        rtcp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            rtp.bind((host, 0))
            port = rtp.getsockname()[1]
            if port % 2 == 0:
                rtcp.bind((host, port + 1))
                return rtp, rtcp
        except OSError:
            pass
        rtp.close()
        rtcp.close()
    raise OSError(f"no free pair of ports at {host}")


def _receive(from_socket: socket.socket, count: int, seconds: float) -> list[bytes]:
    deadline = time.monotonic() + seconds
    packets: list[bytes] = []
    while len(packets) < count and (left := deadline - time.monotonic()) > 0:
        from_socket.settimeout(left)
        try:
            packets.append(from_socket.recv(65536))
        except TimeoutError:
            break
    return packets
