"""Encrypted recordings: only who holds a secret key can read them, and nothing is on disk in the clear."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rtpproxy
from support.capture import mode, payloads, read
from support.daemon import Daemon, StartDaemon, binary, wait_until
from support.disk import MEGABYTE, in_memory
from support.phone import Call, MakeCall
from support.program import Done, run
from support.tools import need, needs_root

PACKETS = 50
"""Of each party."""
FLUSHED_S = 1.6
"""After so long nothing waits in memory."""
PLAIN = (b"\x0a\x0d\x0d\x0a", b"\x4d\x3c\xb2\xa1", b"\xd4\xc3\xb2\xa1", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08")
"""What captures and compressed files begin with."""
FILLER = b"\xff" * 48
"""What is in each payload that the phones of the tests send."""
JOURNAL = ("--record-layout", "journal", "--workers", "1")


@dataclass
class Pair:
    """A secret key in a file, and the public one."""

    secret: Path
    public: str


MakePair = Callable[[str], Pair]


@pytest.fixture
def make_pair(tmp_path: Path) -> MakePair:
    """Makes keys of age; needs its programs."""
    need("age", "age-keygen")

    def make(name: str) -> Pair:
        secret = tmp_path / f"{name}.key"
        subprocess.run(["age-keygen", "-o", str(secret)], check=True, capture_output=True)
        public = run("age-keygen", "-y", secret).stdout.strip()
        assert public.startswith("age1")
        return Pair(secret, public)

    return make


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    """The keys of the test."""
    return make_pair("archive")


def age(encrypted: Path, secret: Path, folder: Path) -> Path:
    """What the program `age` makes of a file."""
    plain = folder / encrypted.stem
    subprocess.run(["age", "-d", "-i", str(secret), "-o", str(plain), str(encrypted)], check=True)
    return plain


def content(path: Path, pair: Pair, folder: Path) -> list[bytes]:
    """The packets in an encrypted file, as Python reads it."""
    names = [suffix for suffix in path.suffixes if suffix in {".pcapng", ".pcap", ".rtp"}]
    plain = folder / f"content{names[-1]}"
    plain.unlink(missing_ok=True)
    rtpproxy.decrypt(path, plain, identities=[pair.secret])
    assert mode(plain) == 0o600
    return payloads(read(plain))


def tool(*words: str | Path) -> Done:
    """A sub-command of the program."""
    return run(binary(), *words)


def in_the_clear(*folders: Path) -> list[str]:
    """Files that hold media which anybody can read."""
    found = []
    for path in (path for folder in folders for path in folder.rglob("*")):
        try:
            data = path.read_bytes()
        except OSError:
            # It is a folder, or has another name meanwhile.
            continue
        if data.startswith(PLAIN) or FILLER in data:
            found.append(path.name)
    return found


@contextmanager
def watched(*folders: Path) -> Iterator[None]:
    """Looks all the time for media in the clear."""
    found: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            found.extend(in_the_clear(*folders))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert not found, set(found)


def both(call: Call) -> list[bytes]:
    """Both say a little."""
    caller, callee = call.talk(10)
    return [*caller, *callee]


def finished(folder: Path, count: int = 1) -> list[Any]:
    """The sidecars, once there are so many."""
    wait_until(lambda: len(list(folder.glob("*.json"))) >= count, f"{count} sidecars in {folder}")
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def files(folder: Path, count: int = 1) -> list[Path]:
    """The files of finished recordings, by their sidecars."""
    return [folder / file["name"] for report in finished(folder, count) for file in report["files"]]


@pytest.mark.parametrize(
    ("options", "suffix"),
    [
        ((), ".pcapng.age"),
        (("--record-compress", "zstd"), ".pcapng.zst.age"),
        (("--record-compress", "gzip"), ".pcapng.gz.age"),
        (("--record-format", "pcap"), ".pcap.age"),
    ],
    ids=["plain", "zstd", "gzip", "pcap"],
)
@pytest.mark.parametrize("is_spooled", [False, True], ids=["folder", "spool"])
def test_a_recording_is_read_by_age(
    options: tuple[str, ...],
    suffix: str,
    is_spooled: bool,
    pair: Pair,
    tmp_path: Path,
    start_daemon: StartDaemon,
    make_call: MakeCall,
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    spooled = ("-S", spool) if is_spooled else ()
    daemon = start_daemon("--record-encrypt", pair.public, *options, *spooled)
    with watched(daemon.recordings, spool):
        call = make_call(daemon)
        assert call.command("R") == "0"
        said, answered = call.talk(PACKETS)
        written = spool if is_spooled else daemon.recordings
        wait_until(lambda: list(written.glob("*.sealed.part")), "the recording has begun")
        time.sleep(FLUSHED_S)
        assert call.command("D") == "0"
        [report] = finished(daemon.recordings)
    [path] = files(daemon.recordings)
    assert path.name == f"{call.call_id}=from{suffix}"
    assert mode(path) == 0o600
    assert report["files"][0]["encryption"] == "age"
    names = {file.name for file in daemon.recordings.iterdir()}
    assert names == {f"{call.call_id}=from.json", path.name}
    assert not list(spool.iterdir())

    plain = age(path, pair.secret, tmp_path)
    if plain.suffix == ".gz":
        plain.with_suffix("").write_bytes(gzip.decompress(plain.read_bytes()))
        plain = plain.with_suffix("")
    elif plain.suffix == ".zst":
        need("zstd")
        subprocess.run(["zstd", "-d", "-q", str(plain)], check=True)
        plain = plain.with_suffix("")
    assert sorted(payloads(read(plain))) == sorted(said + answered)
    assert sorted(content(path, pair, tmp_path)) == sorted(said + answered)
    with rtpproxy.open_recording(path, identities=[pair.secret]) as recording:
        assert recording.read() == plain.read_bytes()

    verified = tool("verify", "--identity", pair.secret, daemon.recordings)
    assert (verified.returncode, verified.stdout) == (0, f"whole {path}: {2 * PACKETS} packets\n"), verified
    heard = tool("extract", "--identity", pair.secret, "-o", tmp_path / "call.wav", path)
    assert heard.returncode == 0, heard
    assert (tmp_path / "call.wav").stat().st_size > PACKETS * 160


def test_the_adhoc_format(pair: Pair, tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--record-encrypt", pair.public, "--record-format", "adhoc", "-R")
    call = make_call(daemon)
    assert call.command("R") == "0"
    said, _ = call.talk(PACKETS)
    assert call.command("D") == "0"
    [path] = files(daemon.recordings)
    assert path.name == f"{call.call_id}=from.o.rtp.age"
    assert content(path, pair, tmp_path) == said
    assert payloads(read(age(path, pair.secret, tmp_path))) == said


def test_all_files_of_a_long_call(
    pair: Pair, tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    daemon = start_daemon("--record-encrypt", pair.public, "--record-rotate-time", "1s")
    with watched(daemon.recordings):
        call = make_call(daemon)
        assert call.command("R") == "0"
        sent = []
        for _ in range(3):
            for packets in call.talk(10):
                sent += packets
            time.sleep(1.1)
        assert call.command("D") == "0"
        finished(daemon.recordings, 3)
    parts = files(daemon.recordings, 3)
    assert [path.name for path in parts] == [
        f"{call.call_id}=from.{number:03}.pcapng.age" for number in range(1, len(parts) + 1)
    ]
    found = [packet for path in parts for packet in content(path, pair, tmp_path)]
    assert sorted(found) == sorted(sent)
    verified = tool("verify", "--identity", pair.secret, daemon.recordings)
    assert verified.returncode == 0, verified
    # One recording, whichever of its files was named.
    done = tool("extract", "--identity", pair.secret, "-o", tmp_path / "call.wav", parts[0])
    assert done.returncode == 0, done
    assert "of the caller 30 packets, of the callee 30" in done.stdout


@pytest.mark.parametrize("is_spooled", [False, True], ids=["folder", "spool"])
def test_a_relay_that_is_killed_leaves_nothing_in_the_clear(
    is_spooled: bool, pair: Pair, tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    calls, spool = tmp_path / "calls", tmp_path / "spool"
    calls.mkdir()
    spool.mkdir()
    options = ("--record-encrypt", pair.public, *(("-S", spool) if is_spooled else ()))
    with watched(calls, spool):
        victim = Daemon(tmp_path / "victim", *options, recordings=calls)
        call = make_call(victim)
        assert call.command("R") == "0"
        said, answered = call.talk(PACKETS)
        time.sleep(FLUSHED_S)
        [live] = (spool if is_spooled else calls).glob("*.sealed.part")
        # While it is being written.
        assert sorted(content(live, pair, tmp_path)) == sorted(said + answered)
        heard = tool("extract", "--identity", pair.secret, "-o", tmp_path / "live.wav", live)
        assert heard.returncode == 0, heard
        assert victim.stop(signal.SIGKILL) == -signal.SIGKILL
        with live.open("ab") as file:
            file.write(b"\xa7CHKtorn")

        start_daemon(*options, recordings=calls)
        [report] = finished(calls)
    [path] = files(calls)
    assert path.name == f"{call.call_id}=from.recovered.pcapng.sealed"
    assert report["files"][0]["encryption"] == "sealed"
    assert report["recovered"]["cut_bytes"] == 8
    assert report["call_id"] == call.call_id
    assert sorted(content(path, pair, tmp_path)) == sorted(said + answered)

    unknown = tool("verify", calls)
    assert (unknown.returncode, unknown.stderr) == (0, ""), unknown
    assert "identity" in unknown.stdout
    assert tool("verify", "--identity", pair.secret, calls).returncode == 0
    repaired = tool("repair", "--identity", pair.secret, "-o", tmp_path, path)
    assert repaired.returncode == 0, repaired
    plain = tmp_path / path.name.removesuffix(".sealed")
    assert sorted(payloads(read(plain))) == sorted(said + answered)


def test_only_the_right_identity_opens_a_recording(
    make_pair: MakePair, tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    first, second, other = (make_pair(name) for name in ("first", "second", "other"))
    recipients = tmp_path / "recipients"
    recipients.write_text(f"# who may listen\n{first.public}\n\n{second.public}\n")
    daemon = start_daemon("--record-encrypt", recipients)
    call = make_call(daemon)
    assert call.command("R") == "0"
    said, answered = call.talk(PACKETS)
    assert call.command("D") == "0"
    [path] = files(daemon.recordings)
    for right in (first, second):
        assert sorted(content(path, right, tmp_path)) == sorted(said + answered)
    for command in ("extract", "repair"):
        wrong = tool(command, "--identity", other.secret, "-o", tmp_path, path)
        assert wrong.returncode == 1
        assert f"{path}: it is encrypted for others: none of the identities opens it" in wrong.stderr, wrong
        none = tool(command, "-o", tmp_path, path)
        assert none.returncode == 1
        assert "--identity" in none.stderr, none
    assert "encrypted for others" in tool("verify", "--identity", other.secret, path).stdout
    broken = tool("extract", "--identity", recipients, "-o", tmp_path, path)
    assert broken.returncode == 1
    assert f"identity {recipients}: " in broken.stderr

    with pytest.raises(rtpproxy.Locked, match="encrypted for others") as locked:
        rtpproxy.open_recording(path, identities=[other.secret])
    assert locked.value.path == path
    assert str(locked.value).startswith(f"{path}: ")
    with pytest.raises(rtpproxy.Locked, match="identities are needed"):
        rtpproxy.open_recording(path)
    with pytest.raises(rtpproxy.IdentityError, match="no file with secret keys") as identity:
        rtpproxy.open_recording(path, identities=[recipients])
    assert identity.value.path == recipients
    with pytest.raises(rtpproxy.IdentityError, match="No such file"):
        rtpproxy.open_recording(path, identities=[tmp_path / "missing"])
    with pytest.raises(FileNotFoundError) as missing:
        rtpproxy.open_recording(tmp_path / "missing", identities=[first.secret])
    assert Path(missing.value.filename) == tmp_path / "missing"
    with pytest.raises(TypeError, match="identities"):
        rtpproxy.open_recording(path, identities=str(first.secret))
    with pytest.raises(FileExistsError):
        rtpproxy.decrypt(path, recipients, identities=[first.secret])


def test_a_key_of_ssh(tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall) -> None:
    need("age", "ssh-keygen")
    secret = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(secret)], check=True)
    pair = Pair(secret, secret.with_suffix(".pub").read_text().strip())
    daemon = start_daemon("--record-encrypt", pair.public)
    call = make_call(daemon)
    assert call.command("R") == "0"
    said, answered = call.talk(PACKETS)
    assert call.command("D") == "0"
    [path] = files(daemon.recordings)
    assert sorted(payloads(read(age(path, secret, tmp_path)))) == sorted(said + answered)
    assert sorted(content(path, pair, tmp_path)) == sorted(said + answered)


@needs_root
def test_without_room_for_two_files_the_sealed_one_stays(
    pair: Pair, tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    with in_memory(tmp_path / "tmpfs", 4 * MEGABYTE) as disk, watched(disk.recordings):
        daemon = start_daemon("--record-encrypt", pair.public, recordings=disk.recordings)
        call = make_call(daemon)
        assert call.command("R") == "0"
        sent = [packet for packets in call.talk(2 * PACKETS) for packet in packets]
        time.sleep(FLUSHED_S)
        with disk.full():
            # What does not find room waits, and is written when there is some.
            sent += [packet for packets in call.talk(PACKETS) for packet in packets]
            daemon.wait_for_log("recording degraded")
        daemon.wait_for_log("recording goes on")
        with disk.full(left=16 << 10):
            assert call.command("D") == "0"
            [report] = finished(disk.recordings)
        [path] = files(disk.recordings)
        assert path.name == f"{call.call_id}=from.pcapng.sealed"
        assert report["files"][0]["encryption"] == "sealed"
        assert "space" in report["not_converted"].lower()
        assert sorted(content(path, pair, tmp_path)) == sorted(sent)
        verified = tool("verify", "--identity", pair.secret, disk.recordings)
        assert verified.returncode == 0, verified
        daemon.stop()


@pytest.mark.parametrize("compressed", [(), ("--record-compress", "zstd")], ids=["plain", "zstd"])
def test_calls_come_out_of_an_encrypted_journal(
    compressed: tuple[str, ...],
    pair: Pair,
    make_pair: MakePair,
    tmp_path: Path,
    start_daemon: StartDaemon,
    make_call: MakeCall,
) -> None:
    options = (*JOURNAL, "--record-encrypt", pair.public, "-a", *compressed)
    output = tmp_path / "call.pcapng"
    sent: dict[str, list[bytes]] = {}
    folder = tmp_path / "calls"
    folder.mkdir()

    def check(call_id: str) -> None:
        done = tool("extract", "--call", call_id, "-i", pair.secret, "--force", "-o", output, folder)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert sorted(payloads(read(output))) == sorted(sent[call_id])

    with watched(folder):
        victim = Daemon(tmp_path / "victim", *options, recordings=folder)
        calls = [make_call(victim, f"call-{number}") for number in range(3)]
        for call in calls:
            sent[call.call_id] = both(call)
        time.sleep(FLUSHED_S)
        assert list(folder.glob("journal-*.pcapng.sealed.part"))
        for call_id in sent:
            check(call_id)
        assert victim.stop(signal.SIGKILL) == -signal.SIGKILL
        check("call-1")
        daemon = start_daemon(*options, recordings=folder)
        wait_until(lambda: list(folder.glob("journal-*.recovered.pcapng.sealed")), "it is recovered")
        call = make_call(daemon, "call-9")
        sent["call-9"] = both(call)
        assert call.command("D") == "0"
        assert daemon.stop() == 0
    suffix = ".pcapng.zst.age" if compressed else ".pcapng.age"
    assert [path for path in folder.glob(f"journal-*{suffix}") if sidecar_of(path)["format"] == "journal"]
    assert not list(folder.glob("*.part"))
    for call_id in sent:
        check(call_id)
    assert tool("verify", "-i", pair.secret, folder).returncode == 0
    listed = tool("ls", "--json", "-i", pair.secret, folder)
    rows = {row["call_id"]: row["packets"] for row in map(json.loads, listed.stdout.splitlines())}
    assert rows == {call_id: len(packets) for call_id, packets in sent.items()}

    sound = tool("extract", "--call", "call-1", "-i", pair.secret, "-o", tmp_path / "call.wav", folder)
    assert sound.returncode == 0, sound
    wrong = tool(
        "extract", "--call", "call-1", "-i", make_pair("other").secret, "-o", output, "--force", folder
    )
    assert wrong.returncode == 1
    assert "it is encrypted for others" in wrong.stderr
    assert "as far as they can be read" in wrong.stderr


def sidecar_of(path: Path) -> Any:
    """The sidecar that lies beside a file with several suffixes, whose checksum is right."""
    stem = path.name.split(".pcapng")[0]
    report = json.loads((path.parent / f"{stem}.json").read_text())
    assert report["files"][0]["name"] == path.name
    return report


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--record-encrypt", "age1nonsense"), "age1nonsense"),
        (("--record-encrypt", "/nonexistent/recipients"), "/nonexistent/recipients"),
        (("--record-encrypt", "PUBLIC", "--compat"), "--compat"),
    ],
    ids=["no key", "no file", "compat"],
)
@pytest.mark.parametrize("check", [(), ("--check",)], ids=["start", "check"])
def test_what_cannot_be_is_refused(
    options: tuple[str, ...], reason: str, check: tuple[str, ...], pair: Pair, tmp_path: Path
) -> None:
    words = [pair.public if word == "PUBLIC" else word for word in options]
    done = tool("-f", "-r", tmp_path, *words, *check)
    assert done.returncode == 1
    assert reason in done.stderr


def test_damage_is_told_where_python_comes_to_it(pair: Pair, tmp_path: Path) -> None:
    plain = bytes(range(256)) * 4096
    encrypted = tmp_path / "call.pcapng.gz.age"
    packed = gzip.compress(plain)
    subprocess.run(["age", "-r", pair.public, "-o", str(encrypted)], input=packed, check=True)
    with rtpproxy.open_recording(encrypted, identities=[pair.secret]) as recording:
        assert recording.read(10) == plain[:10]
        assert recording.read() == plain[10:]
    assert recording.closed

    whole = encrypted.read_bytes()
    target = tmp_path / "out"
    for damaged in (whole[:-20], whole[:-100] + bytes(100), packed[:-20]):
        encrypted.write_bytes(damaged)
        with pytest.raises(rtpproxy.RecordingError) as error:
            rtpproxy.decrypt(encrypted, target, identities=[pair.secret])
        assert error.value.path == encrypted
        assert error.value.reason in str(error.value)
        assert not target.exists()
    with pytest.raises(IsADirectoryError):
        rtpproxy.decrypt(tmp_path, target)


def test_python_takes_no_more_memory_for_a_long_recording(pair: Pair, tmp_path: Path) -> None:
    long = tmp_path / "long.pcapng.age"
    length = 64 * MEGABYTE
    subprocess.run(["age", "-r", pair.public, "-o", str(long)], input=bytes(length), check=True)
    program = (
        "import resource, rtpproxy, sys\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "print(rtpproxy.decrypt(sys.argv[1], sys.argv[2], identities=[sys.argv[3]]), peak() - before)\n"
    )
    done = run(sys.executable, "-c", program, long, tmp_path / "plain", pair.secret)
    written, kilobytes = map(int, done.stdout.split())
    assert written == length
    assert kilobytes < 16 << 10
