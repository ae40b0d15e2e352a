"""Where a relay tells that sessions timed out: what a B2BUA or a SIP proxy listens on."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Self

from support.control import TIMEOUT_S


class Listener:
    """A stream listener that takes one connection after another and reads lines from it."""

    def __init__(self, address: Path | tuple[str, int]) -> None:
        family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.settimeout(TIMEOUT_S)
        self._connection: socket.socket | None = None
        self._buffer = b""
        self.connections = 0
        if isinstance(address, Path):
            address.unlink(missing_ok=True)
            self._listener.bind(str(address))
        else:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(address)
        self._listener.listen()

    @property
    def port(self) -> int:
        """Of a TCP listener."""
        return int(self._listener.getsockname()[1])

    def line(self) -> bytes:
        """The next line, with its end, from the present connection or the next one."""
        while b"\n" not in self._buffer:
            if self._connection is None:
                self._connection, _ = self._listener.accept()
                self._connection.settimeout(TIMEOUT_S)
                self.connections += 1
            chunk = self._connection.recv(4096)
            self._buffer += chunk
            if not chunk:
                self._connection.close()
                self._connection = None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def write(self, data: bytes) -> None:
        """Writes back to the relay."""
        assert self._connection is not None
        self._connection.sendall(data)

    def is_quiet(self) -> bool:
        """Whether nothing came that was not read."""
        if self._connection is None:
            return not self._buffer
        self._connection.setblocking(False)
        try:
            return not self._connection.recv(1) and not self._buffer
        except BlockingIOError:
            return not self._buffer
        finally:
            self._connection.settimeout(TIMEOUT_S)

    def close(self) -> None:
        """Closes everything."""
        if self._connection is not None:
            self._connection.close()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
