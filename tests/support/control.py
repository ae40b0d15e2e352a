"""Clients of the control protocol in plain sockets, one for each way of framing."""

from __future__ import annotations

import socket
import subprocess
import uuid
from typing import IO, Any, Protocol, Self

TIMEOUT_S = 20.0


class Control(Protocol):
    """Anything that carries commands."""

    def command(self, text: str | bytes, lines: int = 1) -> str:
        """Sends one command and returns its reply, of so many lines, without the last line feed."""

    def close(self) -> None:
        """Ends the connection."""


def connect(address: str) -> Control:
    """A client for an address as `-s` takes it."""
    transport, _, rest = address.partition(":")
    if transport == "unix":
        return OneShot(rest)
    if transport == "cunix":
        return Stream(socket.AF_UNIX, rest)
    host, _, port = rest.rpartition(":")
    family = socket.AF_INET6 if transport.endswith("6") else socket.AF_INET
    kind: type[Stream | Datagram] = Stream if transport.startswith("tcp") else Datagram
    return kind(family, (host, int(port)))


class OneShot:
    """`unix:`: a connection for each command, ended by the relay after the reply."""

    def __init__(self, path: str) -> None:
        self._path = path

    def command(self, text: str | bytes, lines: int = 1) -> str:
        reply = self.exchange(_encoded(text))
        assert reply.count(b"\n") == lines, reply
        return _decoded(reply)

    def exchange(self, request: bytes) -> bytes:
        """All that comes back for `request` until the relay closes."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(self._path)
            connection.settimeout(TIMEOUT_S)
            connection.sendall(request)
            reply = b""
            while chunk := connection.recv(4096):
                reply += chunk
            return reply

    def close(self) -> None:
        pass


class Stream:
    """`cunix:`, `tcp:` and `tcp6:`: commands and replies are lines of a lasting connection."""

    def __init__(self, family: socket.AddressFamily, address: Any) -> None:
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Without a timeout: with one, a UNIX socket does not wait for room in the listener's queue.
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.socket.settimeout(TIMEOUT_S)
        self._file = self.socket.makefile("rb")

    def command(self, text: str | bytes, lines: int = 1) -> str:
        self.send(_encoded(text) + b"\n")
        return _decoded(b"".join(self.read_line() for _ in range(lines)))

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.socket.sendall(data)

    def read_line(self) -> bytes:
        """A line of replies with its end; nothing once the relay closed."""
        return self._file.readline()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Datagram:
    """`udp:` and `udp6:`: a datagram with a cookie for each command, sent again until it is answered."""

    def __init__(self, family: socket.AddressFamily, address: Any) -> None:
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.connect(address)

    def command(self, text: str | bytes, lines: int = 1) -> str:
        cookie = uuid.uuid4().hex.encode() + b" "
        for _ in range(int(TIMEOUT_S)):
            reply = self.exchange(cookie + _encoded(text), timeout=1)
            # Others may be late replies to what was sent before.
            while reply is not None and not reply.startswith(cookie):
                reply = self.receive()
            if reply is not None:
                assert reply.count(b"\n") == lines, reply
                return _decoded(reply.removeprefix(cookie))
        raise TimeoutError("no reply")

    def exchange(self, datagram: bytes, timeout: float = TIMEOUT_S) -> bytes | None:
        """The datagram that comes back for `datagram`, if one does."""
        self.socket.settimeout(timeout)
        self.socket.send(datagram)
        return self.receive()

    def receive(self) -> bytes | None:
        """The next datagram, if one comes."""
        try:
            return self.socket.recv(65536)
        except TimeoutError:
            return None

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stdio:
    """`stdio:`: lines through the pipes of a process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input: IO[bytes] = process.stdin
        self._output: IO[bytes] = process.stdout

    def command(self, text: str | bytes, lines: int = 1) -> str:
        self.send(_encoded(text) + b"\n")
        return _decoded(b"".join(self._output.readline() for _ in range(lines)))

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._input.write(data)
        self._input.flush()

    def read_line(self) -> bytes:
        """A line of replies with its end."""
        return self._output.readline()

    def close(self) -> None:
        self._input.close()


def _encoded(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _decoded(reply: bytes) -> str:
    assert reply.endswith(b"\n"), f"incomplete reply {reply!r}"
    return reply[:-1].decode()
