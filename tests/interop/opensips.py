"""The bytes that OpenSIPS exchanges with a relay, as its documentation tells, and its care about replies."""

from __future__ import annotations

import itertools
import os
import random
import socket
from typing import Any, Self

from support.control import TIMEOUT_S

REPLY_MAX = 255
"""It reads so many bytes, once."""


class OpenSips:
    """One of its worker processes, at an address as `rtpproxy_sock` takes it."""

    def __init__(self, address: str) -> None:
        self._transport, _, rest = address.partition(":")
        self._peer: Any = rest
        self._family = socket.AF_UNIX
        if not self._transport.endswith("unix"):
            host, _, port = rest.rpartition(":")
            self._peer = host, int(port)
            self._family = socket.AF_INET6 if self._transport.endswith("6") else socket.AF_INET
        self._sequence = itertools.count(1)
        self._socket: socket.socket | None = None
        if self._transport != "unix":
            self._socket = self._connect()

    def command(self, text: str) -> str:
        """Sends one command and returns its reply without the line feed, which is all that may follow."""
        reply = self._exchange(text.encode())
        assert len(reply) <= REPLY_MAX, reply
        assert reply.endswith(b"\n"), reply
        assert reply.count(b"\n") == 1, reply
        return reply[:-1].decode()

    def numbers(self, text: str) -> list[int]:
        """The reply to a command that asks for numbers."""
        return [int(word) for word in self.command(text).split(" ")]

    def close(self) -> None:
        """Ends the connection."""
        if self._socket is not None:
            self._socket.close()

    def _exchange(self, command: bytes) -> bytes:
        if self._socket is None:
            # No line feed, a single write, and a connection that is not used again.
            with self._connect() as connection:
                connection.sendall(command)
                return connection.recv(REPLY_MAX + 1)
        if self._transport.startswith("udp"):
            cookie = f"{os.getpid()}_{random.getrandbits(31)}_{next(self._sequence)} ".encode()
            self._socket.sendall(cookie + command)
            reply = self._socket.recv(REPLY_MAX + 1)
            assert reply.startswith(cookie), reply
            return reply.removeprefix(cookie)
        self._socket.sendall(command + b"\n")
        return self._socket.recv(REPLY_MAX + 1)

    def _connect(self) -> socket.socket:
        kind = socket.SOCK_DGRAM if self._transport.startswith("udp") else socket.SOCK_STREAM
        connection = socket.socket(self._family, kind)
        connection.settimeout(TIMEOUT_S)
        connection.connect(self._peer)
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
