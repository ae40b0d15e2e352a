"""Sessions without media end, and whoever asked for it is told."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from support.control import connect
from support.daemon import Daemon, StartDaemon, free_port, wait_until
from support.listener import Listener
from support.phone import MakeCall


def ends(daemon: Daemon, sessions: int = 1) -> None:
    """Waits until so many sessions have timed out."""
    wait_until(lambda: daemon.counter("nsess_timeout") == sessions, "a session times out")


def start_session(daemon: Daemon, call_id: str, notify: str) -> None:
    assert daemon.command(f"U {call_id} 127.0.0.1 4000 from {notify}").endswith("127.0.0.1")


def test_a_session_that_nobody_answers_ends(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("-W", "1", "-T", "60")
    start_session(daemon, "call", "")
    assert daemon.command("Q call from to").split()[0] in "01"
    ends(daemon)
    assert daemon.command("Q call from to") == "E50"
    assert daemon.command("G nsess_created nsess_destroyed nsess_complete") == "1 1 0"


def test_a_call_without_media_ends(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("-W", "60", "-T", "1")
    call = make_call(daemon)
    call.caller.say(call.at_caller_side, 1)
    ends(daemon)
    assert call.command("D") == "E50"
    assert daemon.command("G nsess_complete nsess_owrtp") == "1 1"


def test_the_answer_starts_the_media_timeout(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("-W", "10", "-T", "100")
    start_session(daemon, "call", "")
    assert int(daemon.command("Q call from to").split()[0]) <= 10
    daemon.command("L call 127.0.0.1 5000 from to")
    assert int(daemon.command("Q call from to").split()[0]) >= 98


@pytest.mark.parametrize("channel", ["rtp", "rtcp", "command"])
def test_media_and_commands_keep_a_session(daemon: Daemon, make_call: MakeCall, channel: str) -> None:
    call = make_call(daemon)
    wait_until(lambda: call.stats()[0] <= 57, "time passes")
    if channel == "rtp":
        call.caller.say(call.at_caller_side, 1)
    elif channel == "rtcp":
        call.caller.report(call.at_caller_side)
    else:
        daemon.command(f"U {call.call_id} {call.caller.media} from to")
    wait_until(lambda: call.stats()[0] >= 59, "the countdown starts again")


@pytest.mark.parametrize("independent", [False, True])
def test_each_side_may_count_on_its_own(
    start_daemon: StartDaemon, make_call: MakeCall, independent: bool
) -> None:
    daemon = start_daemon("-T", "2", *(["-i"] if independent else []))
    call = make_call(daemon)
    start = last = time.monotonic()
    longest_gap_s = 0.0
    while time.monotonic() < start + 4 and daemon.counter("nsess_timeout") == 0:
        call.caller.say(call.at_caller_side, 1)
        time.sleep(0.05)
        longest_gap_s = max(longest_gap_s, time.monotonic() - last)
        last = time.monotonic()
    if independent:
        ends(daemon)
    elif longest_gap_s < 1:
        # With one countdown, the caller alone keeps the call.
        assert daemon.counter("nsess_timeout") == 0


def listener_address(kind: str, folder: Path) -> tuple[Path | tuple[str, int], str]:
    """Where to listen, and the same as a notification target."""
    if kind == "unix":
        return folder / "events", f"unix:{folder / 'events'}"
    port = free_port(socket.SOCK_STREAM)
    return ("127.0.0.1", port), f"tcp:127.0.0.1:{port}"


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_timeouts_are_told_over_one_connection(start_daemon: StartDaemon, tmp_path: Path, kind: str) -> None:
    address, target = listener_address(kind, tmp_path)
    with Listener(address) as listener:
        daemon = start_daemon("-n", target, "-T", "1")
        assert daemon.command("VF 20081224") == "1"
        for number in range(3):
            start_session(daemon, f"call-{number}", f"{target} r%20{number}%201")
            assert listener.line() == b"r %d 1\n" % number
            # A B2BUA answers, and sometimes complains; nobody has to read it.
            listener.write(b"OK\n" * 1000)
        assert listener.connections == 1


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_listener_may_start_again(start_daemon: StartDaemon, tmp_path: Path, kind: str) -> None:
    address, target = listener_address(kind, tmp_path)
    # Nobody listens yet: the relay starts all the same, and what it cannot tell is lost.
    daemon = start_daemon("-n", target, "-T", "1")
    start_session(daemon, "lost", f"{target} lost")
    ends(daemon, 1)
    for number in range(3):
        with Listener(address) as listener:
            start_session(daemon, f"call-{number}", f"{target} tag-{number}")
            assert listener.line() == b"tag-%d\n" % number
            listener.write(b"OK\n")
            assert listener.connections == 1


def test_tags_are_decoded(start_daemon: StartDaemon, tmp_path: Path) -> None:
    address, target = listener_address("unix", tmp_path)
    with Listener(address) as listener:
        daemon = start_daemon("-n", target, "-T", "1")
        for tag, line in [
            ("plain", b"plain\n"),
            ("a+b%2Bc%20d", b"a b+c d\n"),
            ("%00nul%00", b"\0nul\0\n"),
            ("%ff%FE", b"\xff\xfe\n"),
            ("x" * 500, b"x" * 500 + b"\n"),
        ]:
            start_session(daemon, "call", f"{target} {tag}")
            assert listener.line() == line
        for tag in ("%", "%2", "%zz"):
            assert daemon.command(f"U call 127.0.0.1 4000 from {target} {tag}") == "E10"
        assert daemon.command("Q call from to") == "E50"


def test_who_is_told(start_daemon: StartDaemon, tmp_path: Path) -> None:
    address, target = listener_address("unix", tmp_path)
    bare = target.removeprefix("unix:")
    with Listener(address) as listener, Listener(("127.0.0.1", 0)) as other:
        daemon = start_daemon("-n", target, "-n", f"tcp:127.0.0.1:{other.port}", "-T", "1")
        start_session(daemon, "deleted", f"{target} deleted")
        assert daemon.command("D deleted from") == "0"
        start_session(daemon, "forgotten", f"{target} forgotten")
        start_session(daemon, "forgotten", "")
        start_session(daemon, "unknown", "tcp:127.0.0.1:1 unknown")
        start_session(daemon, "moved", f"{target} moved")
        start_session(daemon, "moved", f"tcp:127.0.0.1:{other.port} moved")
        ends(daemon, 3)
        start_session(daemon, "bare", f"{bare} bare")
        assert listener.line() == b"bare\n"
        assert other.line() == b"moved\n"
        assert listener.is_quiet()
        assert other.is_quiet()


def test_without_a_target_a_notification_is_refused(daemon: Daemon) -> None:
    assert daemon.command("VF 20081224") == "0"
    assert daemon.command("U call 127.0.0.1 4000 from unix:/nowhere tag") == "E75"
    assert daemon.counter("nsess_created") == 0


@pytest.mark.parametrize("transport", ["tcp", "udp", "cunix"])
def test_the_commander_itself_may_be_told(start_daemon: StartDaemon, transport: str, tmp_path: Path) -> None:
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    where = tmp_path / "commands" if transport == "cunix" else f"127.0.0.1:{free_port(kind)}"
    with Listener(("127.0.0.1", 0)) as listener:
        target = f"tcp:%%CC_SELF%%:{listener.port}"
        daemon = start_daemon("-s", f"{transport}:{where}", "-n", target, "-T", "1")
        assert daemon.command("VF 20150617") == "1"
        control = connect(f"{transport}:{where}")
        for number in range(2):
            reply = control.command(f"U call 127.0.0.1 4000 from {target} self-{number}")
            assert reply.endswith("127.0.0.1")
            assert listener.line() == b"self-%d\n" % number
        control.close()
        assert listener.connections == 1
        # The resolved address is not the name that was configured.
        start_session(daemon, "other", f"tcp:127.0.0.1:{listener.port} other")
        ends(daemon, 3)
        assert listener.is_quiet()
