"""Relays in the background, as an operator starts them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from support.control import OneShot
from support.daemon import binary, clean_environment, media_ports, wait_until


class Background:
    """A relay in the background, with its files in `folder`; ended by the `with` statement."""

    def __init__(self, folder: Path, *options: str | Path, prefix: tuple[str, ...] = ()) -> None:
        self.socket, self.pid_file = folder / "control", folder / "pid"
        low, high = media_ports()
        arguments: list[str | Path] = [*prefix, binary(), "-F", "-l", "127.0.0.1"]
        arguments += ["-m", str(low), "-M", str(high), "-s", self.socket, "-p", self.pid_file, *options]
        self.output = folder / "output"
        with self.output.open("wb") as file:
            done = subprocess.run(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=60,
                check=False,
                cwd=folder,
                env=clean_environment(),
            )
        assert done.returncode == 0, self.output.read_text()
        self.pid = int(self.pid_file.read_text())

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_alive():
            os.kill(self.pid, signal.SIGTERM)
            wait_until(lambda: not self.is_alive(), "the relay ends")

    def is_alive(self) -> bool:
        """Whether it runs; nobody may be there to reap it."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return text.rpartition(") ")[2][0] not in "ZX"

    def command(self, text: str) -> str:
        """Sends a command and returns its reply."""
        control = OneShot(str(self.socket))
        try:
            return control.command(text)
        finally:
            control.close()
