"""Recording options together, in relays that are killed: all that was said is found again, once."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.capture import mode, payloads, read, sidecar
from support.daemon import Daemon, StartDaemon, binary, wait_until
from support.phone import Call
from support.program import run
from support.tools import need

ROTATE = ("--record-rotate-time", "1s")
DATES = ("--record-name", "%Y/%m/%d/%{call-id}=%{from-tag}")
ZSTD = ("--record-compress", "zstd")
GZIP = ("--record-compress", "gzip")
JOURNAL = ("--record-layout", "journal", "--record-segment", "1s", "--workers", "2")
PREROLL = ("--preroll", "60")
ADHOC = ("--record-format", "adhoc")
PCAP = ("--record-format", "pcap")
ENCRYPT = ("--record-encrypt", "KEY")
"""The recipient is filled in."""
SPOOL = ("-S", "SPOOL")
FALLBACK = ("--record-fallback", "FALLBACK")
"""So are folders."""

COMBINATIONS = {
    "rotate zstd dates spool": ROTATE + ZSTD + DATES + SPOOL,
    "rotate gzip adhoc spool": ROTATE + GZIP + ADHOC + SPOOL,
    "rotate zstd encrypt": ROTATE + ZSTD + ENCRYPT,
    "encrypt dates spool": ENCRYPT + DATES + SPOOL,
    "encrypt adhoc fallback": ENCRYPT + ADHOC + FALLBACK,
    "preroll rotate pcap zstd": PREROLL + ROTATE + PCAP + ZSTD,
    "preroll encrypt gzip dates": PREROLL + ENCRYPT + GZIP + DATES,
    "journal preroll": JOURNAL + PREROLL,
    "journal zstd spool": JOURNAL + ZSTD + SPOOL,
    "journal gzip encrypt": JOURNAL + GZIP + ENCRYPT,
}
RECIPIENT = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa"
CALLS = 4
ROUNDS = 2
"""Relays that are killed; one more finishes."""
TURN = 10
"""Packets that a party says at once."""
FLUSH_S = 0.2
WRITTEN_S = 1.0
"""After so long nothing is in memory alone, also on a machine that is busy."""


class Folders:
    """Those of a test, and the key that opens what is in them."""

    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        self.calls, self.spool, self.fallback = (folder / name for name in ("calls", "spool", "fallback"))
        for path in (self.calls, self.spool, self.fallback):
            path.mkdir()
        self.scratch = folder / "scratch"
        self.key: Path | None = None
        recipient = ""
        if "KEY" in options:
            need("age", "age-keygen")
            self.key = folder / "key"
            subprocess.run(["age-keygen", "-o", str(self.key)], check=True, capture_output=True)
            recipient = subprocess.run(
                ["age-keygen", "-y", str(self.key)], check=True, capture_output=True, text=True
            ).stdout.strip()
        words = {"KEY": recipient, "SPOOL": str(self.spool), "FALLBACK": str(self.fallback)}
        self.options = [words.get(word, word) for word in options]
        self.identity = ("--identity", self.key) if self.key else ()

    def all(self) -> Iterator[Path]:
        for path in (self.calls, self.spool, self.fallback):
            yield from path.rglob("*")

    def files(self) -> list[Path]:
        """Those with packets."""
        return sorted(path for path in self.all() if path.is_file() and path.suffix != ".json")

    def is_settled(self) -> bool:
        """Whether nothing is left to do. What has no name yet goes before its sidecar comes."""
        try:
            return not any(path.suffix == ".part" for path in self.all()) and set(self.files()) == set(
                self.described()
            )
        except FileNotFoundError:
            return False

    def described(self) -> list[Path]:
        """The files that sidecars name."""
        sidecars = [path for path in self.all() if path.suffix == ".json"]
        return [
            path.parent / file["name"] for path in sidecars for file in json.loads(path.read_text())["files"]
        ]

    def packets(self, path: Path) -> list[bytes]:
        """What a file holds, opened by programs of others as far as there are any."""
        self.scratch.mkdir(exist_ok=True)
        data, name = path.read_bytes(), path.name
        if name.endswith(".sealed"):
            # Alone, so that it is the only one that is repaired.
            (self.scratch / name).write_bytes(data)
            done = run(
                binary(), "repair", *self.identity, "-o", self.scratch / "repaired", self.scratch / name
            )
            assert done.returncode == 0, done
            if not (self.scratch / "repaired").exists():
                # Nobody has sent RTCP.
                assert name.endswith(".rtcp.sealed"), done
                return []
            (plain,) = (found for found in (self.scratch / "repaired").iterdir() if found.suffix != ".json")
            name, data = plain.name, plain.read_bytes()
            shutil.rmtree(self.scratch / "repaired")
        if name.endswith(".age"):
            name, data = name.removesuffix(".age"), piped(data, "age", "-d", "-i", str(self.key))
        if name.endswith(".zst"):
            need("zstd")
            name, data = name.removesuffix(".zst"), piped(data, "zstd", "-d", "-c")
        if name.endswith(".gz"):
            name, data = name.removesuffix(".gz"), gzip.decompress(data)
        (self.scratch / name).write_bytes(data)
        # In a journal, what the recorder made up has an interface for each call.
        return [payload for payload in payloads(read(self.scratch / name)) if payload[0] == 0x80]


def piped(data: bytes, *command: str) -> bytes:
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


class Life:
    """One relay and its calls. What they say counts to their recordings, and to a copy of the first one."""

    def __init__(self, daemon: Daemon, options: tuple[str, ...], opened: ExitStack) -> None:
        self.daemon = daemon
        self.is_adhoc = "adhoc" in options
        self.is_preroll = "--preroll" in options
        self.recorded: Counter[bytes] = Counter()
        self.copied: Counter[bytes] = Counter()
        # The same ones in each life: what an earlier one has left must not be in the way.
        self.calls = [opened.enter_context(Call(daemon, f"call-{number}")) for number in range(CALLS)]

    def say(self, is_recorded: bool = True, is_copied: bool = False) -> None:
        for number, call in enumerate(self.calls):
            said, answered = call.talk(TURN)
            if is_recorded:
                self.recorded.update([*said, *answered])
            if is_copied and number == 0:
                self.copied.update(said)

    def command(self, letter: str) -> None:
        for call in self.calls:
            assert call.command(letter) == "0"
            if self.is_adhoc:
                assert call.command_of_callee(letter) == "0"

    def live(self) -> None:
        """Records, pauses and goes on, over the border of files."""
        self.say(is_recorded=self.is_preroll)
        self.command("R")
        first = self.calls[0]
        assert self.daemon.command(f"C {first.call_id} copy {first.from_tag} {first.to_tag}") == "0"
        # In the format of the C program, a party has one recording.
        self.say(is_copied=not self.is_adhoc)
        time.sleep(0.6)
        self.command("N")
        self.say(is_recorded=False)
        self.command("R")
        time.sleep(0.6)
        self.say()

    def hang_up(self, calls: int) -> None:
        for call in self.calls[:calls]:
            assert call.command("D") == "0"


@pytest.mark.parametrize("name", COMBINATIONS)
def test_what_was_said_is_found_again_once(name: str, tmp_path: Path, start_daemon: StartDaemon) -> None:
    folders = Folders(tmp_path, COMBINATIONS[name])
    options = [*folders.options, "--record-flush", f"{FLUSH_S * 1000:.0f}ms"]
    recorded: Counter[bytes] = Counter()
    copied: Counter[bytes] = Counter()
    for number in range(ROUNDS):
        with ExitStack() as opened:
            victim = Daemon(tmp_path / f"victim-{number}", *options, recordings=folders.calls)
            opened.callback(victim.stop, signal.SIGKILL)
            life = Life(victim, COMBINATIONS[name], opened)
            life.live()
            time.sleep(WRITTEN_S)
            life.hang_up(CALLS - 1)
            time.sleep(random.uniform(0, 2 * FLUSH_S))
            assert victim.stop(signal.SIGKILL) == -signal.SIGKILL
        recorded += life.recorded
        copied += life.copied
    with ExitStack() as opened:
        daemon = start_daemon(*options, recordings=folders.calls)
        life = Life(daemon, COMBINATIONS[name], opened)
        life.live()
        life.hang_up(CALLS)
        recorded += life.recorded
        copied += life.copied
        if "journal" in name:
            assert daemon.stop() == 0
        wait_until(folders.is_settled, f"all is finished: {daemon.log()}")

    found: dict[bool, Counter[bytes]] = {False: Counter(), True: Counter()}
    numbers: dict[Path, int] = {}
    for path in folders.files():
        packets = folders.packets(path)
        numbers[path] = len(packets)
        found[path.name.startswith("copy")].update(packets)
    assert found[False] == recorded, difference(found[False], recorded)
    assert found[True] == copied, difference(found[True], copied)
    listed = check(folders)
    if "journal" not in name:
        # Nobody can count those that a crash has left without their key.
        counted = {path: count for path, count in listed.items() if count is not None}
        assert all(path.suffix == ".sealed" for path in listed.keys() - counted.keys())
        assert counted == {path: numbers[path] for path in counted}


def difference(found: Counter[bytes], expected: Counter[bytes]) -> str:
    return (
        f"{(expected - found).total()} missing, {(found - expected).total()} too many of {expected.total()}"
    )


def check(folders: Folders) -> dict[Path, int | None]:
    """What lies in the folders is described, private, and whole; gives the numbers of packets in `ls`."""
    assert not list(folders.spool.iterdir())
    for path in folders.all():
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path
        assert not path.is_dir() or list(path.iterdir()), f"{path} is empty"
    assert len(folders.described()) == len(set(folders.described()))
    for path in folders.described():
        if path.suffix == ".pcapng":
            sidecar(path)

    where = [folder for folder in (folders.calls, folders.fallback) if any(folder.iterdir())]
    done = run(binary(), "verify", "--json", *folders.identity, *where)
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, ""), done
    assert verdicts
    assert all(verdict["is_whole"] for verdict in verdicts)

    done = run(binary(), "ls", "--json", *folders.identity, *where)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, ""), done
    assert {row["state"] for row in rows} <= {"finished", "interrupted"}, rows
    return {Path(row["path"]): row["packets"] for row in rows}


@pytest.mark.parametrize("more", [(), ("--check",)], ids=["start", "check"])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (JOURNAL + ROTATE, "--record-rotate-time"),
        (JOURNAL + DATES, "--record-name"),
        (JOURNAL + PCAP, "pcapng"),
        ((*JOURNAL, "--record-events", "exec:/bin/true"), "exec"),
        (("--compat", "--record-encrypt", RECIPIENT), "--record-encrypt"),
        (("--compat", *ROTATE), "--record-rotate-time"),
        (("--compat", *ZSTD), "--record-compress"),
        (("--compat", *DATES), "--record-name"),
        (("--compat", "--record-max-age", "1d"), "--record-max-age"),
        (("--preroll-memory", "1M"), "--preroll"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(
    options: tuple[str, ...], reason: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    done = run(binary(), "-f", "-r", tmp_path, "-s", f"unix:{tmp_path / 'control'}", *options, *more)
    assert done.returncode == 1, done
    assert reason in done.stderr, done.stderr
    assert ("not possible with" in done.stderr) or ("of no use" in done.stderr), done.stderr
