"""The process of a relay: its signals, its standard input, the log of the system."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from support.background import Background
from support.capture import read
from support.daemon import Daemon, StartDaemon, binary, clean_environment, free_port, wait_until
from support.phone import MakeCall
from support.program import run
from support.tools import needs_root

FAST = ["TERM", "INT", "XCPU", "XFSZ", "VTALRM", "PROF", "USR1", "USR2"]
CRASHES = ["QUIT", "ILL", "TRAP", "ABRT", "FPE", "BUS", "SEGV", "SYS"]


@pytest.mark.parametrize("name", FAST)
def test_a_signal_ends_it_at_once(start_daemon: StartDaemon, make_call: MakeCall, name: str) -> None:
    daemon = start_daemon("-a")
    make_call(daemon).talk(2)
    assert daemon.stop(signal.Signals[f"SIG{name}"]) == 0
    assert daemon.log().endswith(": rtpproxy ended\n")
    assert sorted(path.name for path in daemon.folder.iterdir()) == ["calls", "log"]
    (recording,) = daemon.recordings.glob("*.pcapng")
    assert len(read(recording)) == 4


@pytest.mark.parametrize("name", FAST)
def test_a_second_signal_does_not_wait(tmp_path: Path, name: str) -> None:
    daemon = Daemon(tmp_path)
    # Both are there when it goes on.
    for signal_name in ("STOP", "TERM" if name != "TERM" else "INT", name, "CONT"):
        daemon.process.send_signal(signal.Signals[f"SIG{signal_name}"])
    number = signal.Signals[f"SIG{name}"]
    other = signal.SIGINT if name == "TERM" else signal.SIGTERM
    # Signals that wait are taken in the order of their numbers.
    assert daemon.wait() == 128 + max(number, other)
    daemon.stop()


@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_leaves_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # Where the memory may be dumped.
    monkeypatch.chdir(tmp_path)
    daemon = Daemon(tmp_path, "-d", "crit")
    number = signal.Signals[f"SIG{name}"]
    assert daemon.stop(number) == -number
    assert re.fullmatch(rf"CRIT:GLOBAL:\w+:\d+: got SIG{name}: .*\n", daemon.log())
    for dump in tmp_path.glob("core*"):
        dump.unlink()


def test_a_crash_waits_for_no_reader(tmp_path: Path) -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    control = tmp_path / "control"
    arguments: list[str | Path] = ["-f", "-F", "-l", "127.0.0.1", "-s", control, "-p", tmp_path / "pid"]
    with subprocess.Popen(
        [binary(), *arguments], stderr=writing, cwd=tmp_path, env=clean_environment()
    ) as process:
        try:
            wait_until((tmp_path / "pid").is_file, "the pid file")
            process.send_signal(signal.SIGQUIT)
            assert process.wait(10) == -signal.SIGQUIT
        finally:
            process.kill()
    os.close(writing)
    os.close(reading)


def test_a_broken_pipe_is_ignored(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    daemon.process.send_signal(signal.SIGPIPE)
    assert daemon.command("V") == "20040107"


def test_a_hangup_waits_for_the_last_session(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon()
    call = make_call(daemon)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for_log("no new sessions")
    assert daemon.command("U other 127.0.0.1 4000 from") == "E99"
    call.talk(3)
    assert daemon.command(f"U {call.call_id} {call.caller.media} from to").endswith("127.0.0.1")
    call.talk(3)
    assert call.command("D") == "0"
    assert daemon.wait() == 0


def test_lines_may_carry_the_time_since_a_start(start_daemon: StartDaemon) -> None:
    """The start is a reading of the clock that `-C` names."""
    start = time.clock_gettime(time.CLOCK_BOOTTIME) - 3661.5
    daemon = start_daemon(environment={"RTPP_LOG_TFORM": "rel", "RTPP_LOG_TSTART": str(start)})
    line = daemon.wait_for_log("started, pid")
    assert re.match(r"01:01:[0-2]\d\.\d{3}/INFO:GLOBAL:", line), line
    plain = start_daemon(environment={"RTPP_LOG_TSTART": str(start), "RTPP_GLITCH_ACT": "anything"})
    assert plain.wait_for_log("started, pid").startswith("INFO:GLOBAL:")


@needs_root
def test_core_dumps_are_allowed(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    assert re.search(r"^Max core file size +(unlimited +unlimited|(\d+) +\2) ", limits, re.MULTILINE), limits


@needs_root
@pytest.mark.parametrize(
    ("right", "option", "message"),
    [
        ("sys_nice", "--nice=-5", "can't set the nice level to -5: "),
        ("setgid", "-unobody", "can't give up root: "),
    ],
)
def test_a_daemon_that_fails_in_the_background_says_so(
    tmp_path: Path, right: str, option: str, message: str
) -> None:
    arguments = ["-F", option, "-s", str(tmp_path / "control"), "-p", str(tmp_path / "pid")]
    done = run("setpriv", f"--bounding-set=-{right}", "--", binary(), *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"rtpproxy: {message}"), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        (("-s", "stdio:"), True),
        (("-s", "stdio:", "-s", "unix:{folder}/other"), True),
        (("-s", "stdio:", "-s", "udp:127.0.0.1:{port}"), False),
        (("-s", "stdioc:", "-s", "udp:127.0.0.1:{port}"), True),
    ],
    ids=["alone", "unix", "udp", "stdioc-udp"],
)
def test_the_end_of_input_may_be_the_end(tmp_path: Path, options: tuple[str, ...], ends: bool) -> None:
    port = free_port(socket.SOCK_DGRAM)
    words = [word.format(folder=tmp_path, port=port) for word in options]
    process = subprocess.Popen(
        [binary(), "-f", "-F", "-l", "127.0.0.1", "-p", tmp_path / "pid", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
    )
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(b"U call 127.0.0.1 4000 from\n")
        process.stdin.flush()
        assert process.stdout.readline().endswith(b" 127.0.0.1\n")
        process.stdin.write(b"D call from\nV")
        process.stdin.close()
        # The last line has no end and is not carried out.
        assert process.stdout.readline() == b"0\n"
        if ends:
            assert process.wait(timeout=20) == 0
            assert process.stdout.read() == b""
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            client.sendto(b"cookie V", ("127.0.0.1", port))
            assert client.recv(100) == b"cookie 20040107\n"
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@needs_root
@pytest.mark.parametrize("crashes", [False, True], ids=["end", "crash"])
def test_the_background_logs_to_syslog(tmp_path: Path, crashes: bool) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(20)
        prefix = with_own_dev(tmp_path / "log")
        # -D: its memory may be dumped into the folder.
        with Background(tmp_path, "-D", "-d", "info:LOG_local3", prefix=prefix) as relay:
            first = log.recv(4096).decode()
            # Facility 19, severity 6; the time and the process as syslog(3) writes them.
            time = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
            form = rf"<158>{time} rtpproxy\[{relay.pid}\]: INFO:GLOBAL:\w+:\d+: .+"
            assert re.fullmatch(form, first), first
            os.kill(relay.pid, signal.SIGSEGV if crashes else signal.SIGTERM)
            wait_until(lambda: not relay.is_alive(), "the relay ends")
        last = first
        log.setblocking(False)
        try:
            while True:
                last = log.recv(4096).decode()
        except BlockingIOError:
            pass
    assert last.startswith("<154>" if crashes else "<158>")
    assert ("CRIT:GLOBAL:" in last and "SIGSEGV" in last) if crashes else last.endswith(": rtpproxy ended")


def with_own_dev(log: Path) -> tuple[str, ...]:
    """Words that run a program in a mount namespace whose /dev/log is this socket."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare on this machine")
    make = f"mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && ln -s {log} /dev/log"
    probe = subprocess.run(["unshare", "-m", "sh", "-c", make], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no mount namespace here: {probe.stderr.decode()}")
    return "unshare", "-m", "sh", "-c", f'{make} && exec "$@"', "sh"
