"""The commands of `tests/data/transcripts`, sent to the real binary.

`rust/core/tests/transcripts.rs` says what a transcript looks like and follows all of them in virtual time.
Here those are followed that have neither packets nor waiting in them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.daemon import ROOT, StartDaemon, free_ports

FIRST_PORT = 22000
"""The lowest port of the transcripts."""
PAIRS = 40
"""More than any of them needs."""


class Transcript:
    """Settings, and commands with the lines of their replies."""

    def __init__(self, path: Path) -> None:
        self.settings: list[list[str]] = []
        self.commands: list[tuple[str, list[str]]] = []
        self.is_plain = True
        for line in path.read_text().splitlines():
            kind, text = line[:1], line[2:]
            if kind == "%":
                self.settings.append(text.split())
            elif kind == ">":
                self.commands.append((text, []))
            elif kind in "+~!" and kind:
                self.is_plain = False
            elif kind and kind != "#":
                self.commands[-1][1].append(line)

    def options(self) -> tuple[list[str], tuple[str, ...], int]:
        """Options, listen addresses, and how many pairs of ports there are."""
        options, pairs = ["-b", "--bridge_symmetric"], PAIRS
        listen: tuple[str, ...] = ("-l", "127.0.0.1", "-6", "/::1")
        for setting in self.settings:
            match setting:
                case ["plain"]:
                    options, listen = ["-b"], ("-l", "127.0.0.1")
                case ["ports", low, high]:
                    pairs = (int(high) - int(low)) // 2 + 1
                case ["latch", mode]:
                    options += ["--latch", mode]
                case ["notify", target]:
                    options += ["-n", target]
                case ["module", name]:
                    options += ["--dso", name]
                case _:
                    raise AssertionError(f"a setting that only the core knows: {setting}")
        return options, listen, pairs


PLAIN = {
    path.stem: transcript
    for path in sorted((ROOT / "tests/data/transcripts").glob("*.txt"))
    if (transcript := Transcript(path)).is_plain
}


def test_there_are_transcripts_without_packets() -> None:
    assert {"errors", "key_watch", "tags", "weak", "ports", "recording"} <= PLAIN.keys()


@pytest.mark.parametrize("name", PLAIN)
def test_transcript(name: str, start_daemon: StartDaemon) -> None:
    transcript = PLAIN[name]
    options, listen, pairs = transcript.options()
    ports = free_ports(pairs)
    daemon = start_daemon(*options, listen=listen, ports=ports)

    def here(line: str) -> str:
        """The line with the ports that this daemon has."""
        return re.sub(r"\b22\d{3}\b", lambda port: str(int(port[0]) - FIRST_PORT + ports[0]), line)

    for command, reply in transcript.commands:
        lines = max(len(reply), 1)
        assert daemon.command(here(command), lines) == here("\n".join(reply)), command
