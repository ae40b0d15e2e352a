"""The B2BUA of Sippy, as it is installed from PyPI and started by the sample script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from interop.sipp import HOST, authority, free_port
from support.daemon import ROOT, Daemon, wait_until

SAMPLE = ROOT / "docs" / "examples" / "sippy_b2bua.sh"


@dataclass(frozen=True)
class Session:
    """The ids under which the B2BUA has a call in the relay."""

    call_id: str
    from_tag: str
    to_tag: str

    def command(self, letters: str) -> str:
        """A command about this session, from the caller's side."""
        return f"{letters} {self.call_id} {self.from_tag} {self.to_tag}"


class B2bua:
    """Sends all calls on to `callee`, with media through the relay at the control address `relay`.

    It listens at `command_socket` for the notifications of the relay. The relay must log at the level `dbug`.
    """

    def __init__(
        self,
        folder: Path,
        daemon: Daemon,
        relay: str,
        callee: tuple[str, int],
        command_socket: str,
        address: str = HOST,
    ) -> None:
        self._daemon = daemon
        self._log_path = folder / "b2bua.log"
        self.port = free_port()
        values = {
            "SIP_ADDRESS": address,
            "SIP_PORT": str(self.port),
            "CALLERS": f"{HOST},[::1]",
            "NEXT_HOP": authority(*callee),
            "RTPPROXY": relay,
            "COMMAND_SOCKET": command_socket,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SIPLOG_BEND": "stderr",
            "PYTHONWARNINGS": "ignore",
        }
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [SAMPLE],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, **values},
            )
        try:
            # The first of the requests for load that it sends once it has probed the relay.
            wait_until(lambda: self._process.poll() is not None or self.commands("I"), "the B2BUA is online")
            assert self._process.poll() is None, self.log()
        except BaseException:
            self.close()
            raise

    def commands(self, letter: str) -> list[list[str]]:
        """The words of all commands with this letter that the relay got so far, by whomever."""
        return self._daemon.received(letter)

    def session(self) -> Session:
        """The ids of the call that was answered last."""
        _, call_id, _, _, to_tag, from_tag, *_ = next(
            words for words in reversed(self.commands("U")) if len(words) in (6, 8)
        )
        return Session(call_id, from_tag, to_tag)

    def log(self) -> str:
        """All SIP messages and troubles."""
        return self._log_path.read_text(errors="replace")

    def close(self) -> None:
        """Ends the process."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SippyClient:
    """The client classes of the B2BUA alone, in a process that does what it is asked to."""

    def __init__(self, relay: str, notify: str) -> None:
        program = Path(__file__).with_name("sippy_client.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), relay, notify],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )

    def request(self, *words: object) -> Any:
        """Asks for something, as that program describes, and returns the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
