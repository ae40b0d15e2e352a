"""The `rtpproxy` binary, started and stopped by the tests."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from support.control import Control, Stdio, Stream
from support.tools import need_ipv6

ROOT = Path(__file__).resolve().parents[2]
# Below the ephemeral ports, so that no phone takes a port of a relay, and a block for each pytest worker.
FIRST_MEDIA_PORT = 20000
MEDIA_PORTS = 3000


def binary() -> Path:
    """The program under test."""
    if named := os.environ.get("RTPPROXY_BIN"):
        return Path(named)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return ROOT / target / "release" / "rtpproxy"


def clean_environment() -> dict[str, str]:
    """The environment of the tests without what a relay would take for settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RTPP")}


def wait_until(done: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Waits for something that happens soon, and far longer than it should take."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


class Daemon:
    """A relay in a process of its own, with a folder for all its files.

    It has a control connection for the test (`command`) beside those that `options` ask for, records into
    `recordings` unless `record` is false, and logs into a file.
    """

    def __init__(
        self,
        folder: Path,
        *options: str | Path,
        listen: tuple[str, ...] = ("-l", "127.0.0.1"),
        log_level: str = "info",
        recordings: Path | None = None,
        record: bool = True,
        ports: tuple[int, int] | None = None,
        stdio: bool = False,
        environment: dict[str, str] | None = None,
        start_in: Path | None = None,
    ) -> None:
        if "-6" in listen:
            need_ipv6()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.recordings = recordings or folder / "calls"
        if recordings is None:
            self.recordings.mkdir(exist_ok=True)
        self.socket = folder / "control"
        self.log_path = folder / "log"
        self._control: Control | None = None
        port_min, port_max = ports or media_ports()
        arguments: list[str | Path] = [binary(), "-f", "-F", *listen, "-d", log_level]
        arguments += ["-p", folder / "pid", "-m", str(port_min), "-M", str(port_max)]
        arguments += ["-r", self.recordings] if record else []
        arguments += ["-s", "stdio:" if stdio else f"cunix:{self.socket}", *options]
        pipe = subprocess.PIPE if stdio else subprocess.DEVNULL
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=pipe,
                stdout=pipe,
                stderr=log,
                cwd=start_in,
                env={**clean_environment(), **(environment or {})},
            )
        try:
            self._await_start(stdio)
        except BaseException:
            self.process.kill()
            self.process.wait()
            self._close_pipes()
            raise

    def _await_start(self, stdio: bool) -> None:
        if stdio:
            self._control = Stdio(self.process)
            assert self.command("V") == "20040107", self.log()
            return
        wait_until(lambda: self.process.poll() is not None or self._connect(), "the daemon answers")
        assert self.process.poll() is None, f"the daemon ended at once:\n{self.log()}"

    def _connect(self) -> bool:
        try:
            self._control = Stream(socket.AF_UNIX, str(self.socket))
        except OSError:
            return False
        return self._control.command("V") == "20040107"

    def command(self, text: str | bytes, lines: int = 1) -> str:
        """Sends a command and returns its reply without the last line feed."""
        assert self._control is not None
        return self._control.command(text, lines)

    def counter(self, name: str) -> int:
        """A counter of the `G` command."""
        return int(self.command(f"G {name}"))

    def received(self, letter: str) -> list[list[str]]:
        """The words of all commands with this letter so far, from the log at the level `dbug`."""
        texts = re.findall(r'received command "([^"]*)"', self.log())
        return [text.split() for text in texts if text[0].upper() == letter]

    def log(self) -> str:
        """What the daemon has logged so far."""
        return self.log_path.read_text(errors="replace")

    def wait_for_log(self, text: str) -> str:
        """The first line of the log that holds `text`."""
        wait_until(lambda: text in self.log(), f"{text!r} in the log")
        return next(line for line in self.log().splitlines() if text in line)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the daemon by a signal and returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.wait()
        finally:
            if self._control is not None:
                self._control.close()
            self._close_pipes()

    def wait(self) -> int:
        """The exit status of a daemon that is about to end."""
        try:
            return self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class StartDaemon(Protocol):
    """Starts a relay that the fixture of this name ends."""

    def __call__(self, *options: str | Path, **settings: Any) -> Daemon: ...


def media_ports() -> tuple[int, int]:
    """The lowest and the highest media port for relays of this pytest worker."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST_MEDIA_PORT + worker % 4 * MEDIA_PORTS
    return first, first + MEDIA_PORTS - 2


def free_ports(pairs: int) -> tuple[int, int]:
    """A range of exactly so many port pairs that are free now."""
    first, last = media_ports()
    for low in range(first, last, 2 * pairs):
        high = low + 2 * pairs
        if all(_is_free(port) for port in range(low, high)):
            # The highest port that may be given is odd, for RTCP.
            return low, high - 1
    raise AssertionError("no free ports")


def free_port(kind: socket.SocketKind, host: str = "127.0.0.1") -> int:
    """A port that is free now, for a control socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6:
        need_ipv6()
    with socket.socket(family, kind) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def free_address(transport: str, folder: Path) -> str:
    """A control address that is free: `-s` takes it, and so do the programs that steer."""
    if transport in ("unix", "cunix"):
        return f"{transport}:{folder / transport}"
    kind = socket.SOCK_DGRAM if transport.startswith("udp") else socket.SOCK_STREAM
    host = "::1" if transport.endswith("6") else "127.0.0.1"
    return f"{transport}:{host}:{free_port(kind, host)}"


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


TRANSPORTS = ("unix", "cunix", "udp", "udp6", "tcp", "tcp6")
"""Those of control sockets that others connect to."""
