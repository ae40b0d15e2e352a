"""`rtpproxy ctl`: commands to a running relay from the command line, from files, and at a prompt."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from support.daemon import (
    TRANSPORTS,
    Daemon,
    StartDaemon,
    binary,
    clean_environment,
    free_address,
    wait_until,
)
from support.program import Done, run

INFO = """sessions created: 1
active sessions: 2
active streams: 3
packets received: 4
packets transmitted: 5
"""


def ctl(*words: str | Path, stdin: str = "", **environment: str) -> Done:
    """Runs `rtpproxy ctl` to its end, with its output in pipes."""
    return run(binary(), "ctl", *words, given=stdin, environment=environment)


def control(daemon: Daemon) -> str:
    """The control socket that every relay of the tests has."""
    return f"cunix:{daemon.socket}"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_transport_carries_commands(start_daemon: StartDaemon, tmp_path: Path, transport: str) -> None:
    address = free_address(transport, tmp_path)
    daemon = start_daemon("-s", address)
    offer = ctl("-s", address, "U", "call-1", "127.0.0.1", "4000", "from", "to")
    assert re.fullmatch(r"\d+ 127\.0\.0\.1\n", offer.stdout)
    assert offer.returncode == 0
    assert ctl("-s", address, "Qv call-1 from to ttl").stdout.startswith("ttl=")
    assert ctl("-s", address, "I").stdout == daemon.command("I", lines=5) + "\n"
    assert ctl("-s", address, "Il").stdout.count("\n") == 6
    lines = ctl("-s", address, stdin="V\nI\nD call-1 from to\nD call-1 from to\nVF 20081102\n")
    assert lines.stdout.splitlines()[0] == "20040107"
    assert lines.stdout.splitlines()[6:] == ["0", "E50", "1"]
    assert (lines.returncode, lines.stderr) == (1, "")


def test_a_path_means_unix_and_works_with_both_kinds(daemon: Daemon) -> None:
    assert ctl("-s", daemon.socket, "I").stdout.count("\n") == 5
    assert ctl("-s", f"unix:{daemon.socket}", stdin="V\nV\n").stdout == "20040107\n20040107\n"


def test_the_socket_can_come_from_the_environment(daemon: Daemon) -> None:
    assert ctl("V", RTPPROXY_CONTROL=control(daemon)).stdout == "20040107\n"
    assert ctl("V", RTPPROXY_CONTROL=f"{control(daemon)}, udp:127.0.0.1:1").stdout == "20040107\n"
    both = ctl("-s", control(daemon), "V", RTPPROXY_CONTROL="cunix:/nowhere")
    assert both.stdout == "20040107\n"


def test_a_file_may_have_comments_and_blank_lines(daemon: Daemon, tmp_path: Path) -> None:
    script = tmp_path / "commands"
    script.write_bytes(
        b"# set-up\n\n  V\r\nU c\xff 127.0.0.1 4000 f t && S ttl=9\n\t# query\nQ c\xff f t ttl\nV"
    )
    done = ctl("-s", control(daemon), "-i", script)
    version, media, ttl, last = done.stdout.splitlines()
    assert (version, last) == ("20040107", "20040107")
    assert media.endswith(" 127.0.0.1")
    assert ttl in ("9", "8")
    assert done.returncode == 0
    assert ctl("-s", control(daemon), "-i", "-", stdin="V\n").stdout == "20040107\n"


def test_lines_are_answered_as_they_come(daemon: Daemon) -> None:
    words = [str(binary()), "ctl", "-s", control(daemon)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line, reply in [(b"V\n", b"20040107\n"), (b"VF 1\n", b"0\n"), (b"G nsess_created\n", b"0\n")]:
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == reply
        process.stdin.close()
        assert process.wait(timeout=20) == 0


def test_json_has_types(daemon: Daemon) -> None:
    script = """V
VF 20081102
U call-1 127.0.0.1 4000 from to && S ttl=20 && L 127.0.0.1 4002
Q call-1 from to ttl npkts_ina longest_ipi
I
G nsess_created pps_in
D call-1 from to
D call-1 from to
L call-2 127.0.0.1 4000 from to
"""
    done = ctl("-s", control(daemon), "--json", stdin=script)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["command"] for line in lines] == script.splitlines()
    assert [line["ok"] for line in lines] == [True] * 7 + [False] * 2
    version, feature, offer, query, info, counters, deleted, unknown, nobody = lines
    assert version["result"] == "20040107"
    assert feature["result"] is True
    assert offer["result"]["addr"] == "127.0.0.1"
    assert offer["result"]["ipv6"] is False
    assert offer["result"]["port"] % 2 == 0
    assert offer["sub_results"][0] == "0"
    assert offer["sub_results"][1].endswith(" 127.0.0.1")
    assert list(query["result"]) == ["ttl", "npkts_ina", "longest_ipi"]
    assert query["result"]["ttl"] in (19, 20)
    assert isinstance(query["result"]["longest_ipi"], float)
    assert info["result"]["active_sessions"] == 1
    assert counters["result"] == {"nsess_created": 1, "pps_in": 0.0}
    assert "result" not in deleted
    assert unknown["error"] == {"code": "E50", "text": "session or stream not found"}
    assert nobody["error"] == {"code": "0", "text": "no such session"}
    assert done.returncode == 1


def test_every_counter_comes_without_names(daemon: Daemon) -> None:
    counters = json.loads(ctl("-s", control(daemon), "--json", "G").stdout)["result"]
    assert len(counters) == 29
    assert counters["ncmds_rcvd"] > 0
    # As it came, where nobody asked for more.
    assert ctl("-s", control(daemon), "G").stdout == "\n"


def test_help_needs_no_relay() -> None:
    assert "U          creates or updates a session\n" in ctl("help").stdout
    assert ctl("help", "E72").stdout.startswith("E72: the session cannot be created")
    usage = ctl("--help")
    assert usage.returncode == 0
    assert "Exit status" in usage.stdout


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("V", 0),
        ("VF 1", 0),
        ("L nobody 127.0.0.1 4000 f t", 1),
        ("U c 127.0.0.1 4000 f t && C nobody f t", 1),
        ("D nobody f", 1),
        ("nonsense", 1),
        ("V" + " x" * 5000, 1),
    ],
)
def test_exit_status_of_commands(daemon: Daemon, command: str, status: int) -> None:
    assert ctl("-s", control(daemon), command).returncode == status
    assert ctl("-s", control(daemon), stdin=f"{command}\nV\n").returncode == status


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--timeout 0 V", "not a number from 0.01"),
        ("--raw --json V", "cannot be used with"),
        ("-i /no/such/file", "/no/such/file: No such file"),
        ("-i /", "/: Is a directory"),
        ("--watch 1 X", "--watch repeats I, G, recordings, and Q"),
        ("--watch 1", "required"),
        ("--nonsense", "--nonsense"),
    ],
)
def test_bad_options_are_named(daemon: Daemon, options: str, message: str) -> None:
    done = ctl("-s", control(daemon), *options.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_a_place_that_takes_nothing_is_told(daemon: Daemon) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [str(binary()), "ctl", "-s", control(daemon), "I"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "cannot write: No space left" in done.stderr


def test_no_connection_is_explained(tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as left_behind, socket.socket() as closed:
        left_behind.bind(str(stale))
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for address, reason, hint in [
            (f"unix:{tmp_path / 'none'}", "No such file", "Does the relay run?"),
            (f"cunix:{stale}", "Connection refused", "Nobody listens there"),
            (f"tcp:127.0.0.1:{port}", "Connection refused", "Nobody listens there"),
            ("tcp:127.0.0.1:port", "bad address", "port"),
            ("udp:", "bad address", "udp:"),
            ("systemd:", "bad address", "only a relay can listen there"),
            ("", "bad address", ""),
        ]:
            done = ctl("-s", address, "I")
            assert (done.returncode, done.stdout) == (2, ""), address
            assert address in done.stderr
            assert reason in done.stderr
            assert hint in done.stderr


def test_a_socket_of_another_user_is_explained(daemon: Daemon) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    # Where it was built, others may not look.
    program = shutil.copy(binary(), daemon.folder / "program")
    daemon.socket.chmod(0o600)
    # Everybody may look into the folders above, so that it is the socket that is closed.
    for folder in daemon.socket.parents:
        if folder.stat().st_mode & 0o011 != 0o011:
            folder.chmod(folder.stat().st_mode | 0o011)
    done = subprocess.run(
        [program, "ctl", "-s", control(daemon), "I"],
        capture_output=True,
        text=True,
        user=65534,
        extra_groups=[],
        check=False,
    )
    assert done.returncode == 2
    assert "Permission denied" in done.stderr
    assert "not open to this user" in done.stderr


Serve = Callable[[socket.socket, bytes], None]


@contextmanager
def listener(serve: Serve) -> Iterator[str]:
    """Something that is no relay: each line that arrives is handed to `serve`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as lines:
                    for line in lines:
                        try:
                            serve(connection, line)
                        except OSError:
                            break

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"tcp:127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_reply_in_pieces_is_put_together() -> None:
    def serve(connection: socket.socket, line: bytes) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reply = INFO.encode() if line == b"I\n" else b"20040107\n"
        for start in range(0, len(reply), 25):
            connection.sendall(reply[start : start + 25])
            time.sleep(0.02)

    with listener(serve) as address:
        done = ctl("-s", address, stdin="I\nV\nI\n")
        assert done.stdout == INFO + "20040107\n" + INFO
        assert done.returncode == 0


def test_half_a_reply_is_none() -> None:
    def serve(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"2004")
        connection.shutdown(socket.SHUT_WR)

    with listener(serve) as address:
        done = ctl("-s", address, "V")
        assert (done.returncode, done.stdout) == (2, "")
        assert "closed the connection" in done.stderr


def test_what_is_no_reply_is_shown() -> None:
    with listener(lambda connection, _: connection.sendall(b"HTTP/1.1 400\r\nServer: x\r\n")) as address:
        done = ctl("-s", address, "V")
        assert (done.returncode, done.stdout) == (2, "")
        assert "HTTP/1.1 400" in done.stderr
        assert "Is that the control socket of a relay?" in done.stderr


def test_a_relay_that_stops_answering_is_a_timeout() -> None:
    def serve(connection: socket.socket, line: bytes) -> None:
        if line == b"V\n":
            connection.sendall(b"20040107\n")

    with listener(serve) as address:
        started = time.monotonic()
        done = ctl("-s", address, "--timeout", "0.3", stdin="V\n# a comment\nI\nV\n")
        assert 0.3 <= time.monotonic() - started < 20
        assert (done.returncode, done.stdout) == (3, "20040107\n")
        assert f"standard input, line 3: no reply from {address} within 300ms" in done.stderr
        assert "--timeout" in done.stderr


def test_a_relay_that_is_stopped_is_a_timeout(start_daemon: StartDaemon, tmp_path: Path) -> None:
    addresses = [free_address(transport, tmp_path) for transport in ("unix", "udp", "cunix")]
    daemon = start_daemon(*(word for address in addresses for word in ("-s", address)))
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        for address in addresses:
            assert ctl("-s", address, "--timeout", "0.2", "V").returncode == 3
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert ctl("-s", addresses[0], "V").returncode == 0


def test_a_lost_datagram_is_sent_again() -> None:
    seen = []

    def serve(relay: socket.socket) -> None:
        for _ in range(3):
            datagram, sender = relay.recvfrom(100)
            seen.append(datagram)
        relay.sendto(seen[0].split()[0] + b" 20040107\n", sender)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
        relay.bind(("127.0.0.1", 0))
        relay.settimeout(30)
        thread = threading.Thread(target=serve, args=(relay,))
        thread.start()
        done = ctl("-s", f"udp:127.0.0.1:{relay.getsockname()[1]}", "--timeout", "1", "V")
        thread.join()
    assert (done.returncode, done.stdout) == (0, "20040107\n")
    assert len(set(seen)) == 1


def spawn(folder: Path, *words: str, lines: int = 60, columns: int = 120) -> pexpect.spawn[str]:
    """Runs `rtpproxy ctl` on a terminal; its history lies in `folder`."""
    environment = {**clean_environment(), "XDG_STATE_HOME": str(folder), "TERM": "xterm", "NO_COLOR": "1"}
    return pexpect.spawn(
        str(binary()),
        ["ctl", *words],
        env=environment,
        dimensions=(lines, columns),
        encoding="utf-8",
        timeout=20,
    )


def finish(process: pexpect.spawn[str]) -> int:
    """Waits for the end and returns the exit status."""
    process.expect(pexpect.EOF)
    process.close()
    assert process.exitstatus is not None
    return process.exitstatus


PROMPT = "rtpproxy> "


def test_a_terminal_gets_tables(daemon: Daemon, tmp_path: Path) -> None:
    daemon.command("U call-1 127.0.0.1 4000 from to")
    table = spawn(tmp_path, "-s", control(daemon), "Q", "call-1", "from", "to")
    table.expect(r"│ ttl +┆ +\d+ ┆ seconds left until the session times out")
    table.expect(r"│ ndropped +┆ +0 ┆")
    assert finish(table) == 0
    table = spawn(tmp_path, "-s", control(daemon), "G")
    table.expect(r"│ nsess_created +┆ +1 ┆ sessions created")
    table.expect(r"│ pps_in +┆ +0.000000 ┆")
    assert finish(table) == 0
    # Also on one that does not know how wide it is.
    table = spawn(tmp_path, "-s", control(daemon), "I", columns=0)
    table.expect("│ active sessions +┆ +1 │")
    assert finish(table) == 0
    refused = spawn(tmp_path, "-s", control(daemon), "D", "nobody", "from")
    refused.expect_exact("E50: session or stream not found")
    assert finish(refused) == 1
    raw = spawn(tmp_path, "--raw", "-s", control(daemon), "D", "nobody", "from")
    raw.expect("^E50\r\n")
    assert finish(raw) == 1


def test_the_prompt_answers_helps_and_ends(daemon: Daemon, tmp_path: Path) -> None:
    prompt = spawn(tmp_path, "-s", control(daemon))
    prompt.expect_exact(f"Connected to {control(daemon)}. help lists the commands")
    for line, reply in [
        ("V", "20040107"),
        ("U call-1 127.0.0.1 4000 from to", r"\d+ 127\.0\.0\.1"),
        ("I", "│ active sessions +┆ +1 │"),
        ("L nobody 127.0.0.1 4000 from to", "0: no such session"),
        ("Y", "E0: unknown command letter"),
        ("help", "U +creates or updates a session"),
        ("help u", r"U\[modifiers\] callid addr port from_tag"),
        ("help E50", "E50: session or stream not found"),
    ]:
        prompt.expect_exact(PROMPT)
        prompt.sendline(line)
        prompt.expect(reply)
    prompt.expect_exact(PROMPT)
    # Ctrl-C throws the line away.
    prompt.send("X")
    prompt.sendintr()
    prompt.expect_exact(PROMPT)
    prompt.sendeof()
    assert finish(prompt) == 0
    assert daemon.command("I", lines=5).splitlines()[1] == "active sessions: 1"


def test_the_prompt_completes_letters_and_counters(daemon: Daemon, tmp_path: Path) -> None:
    prompt = spawn(tmp_path, "-s", control(daemon))
    prompt.expect_exact(PROMPT)
    prompt.send("Gv nsess_cr\t")
    prompt.expect_exact("nsess_created")
    prompt.send("\r")
    prompt.expect_exact("│ nsess_created")
    prompt.expect_exact(PROMPT)
    # Several: what they have in common, then all of them.
    prompt.send("G rtpa_n\t\t")
    for name in ("rtpa_nsent", "rtpa_nrcvd", "rtpa_ndups", "rtpa_nlost"):
        prompt.expect_exact(name)
    prompt.sendintr()
    prompt.expect_exact(PROMPT)
    prompt.send("v\t\t")
    prompt.expect("VF +tells whether a capability is there")
    prompt.sendintr()
    prompt.expect_exact(PROMPT)
    prompt.sendline("quit")
    assert finish(prompt) == 0


def test_the_prompt_remembers(daemon: Daemon, tmp_path: Path) -> None:
    first = spawn(tmp_path, "-s", control(daemon))
    first.expect_exact(PROMPT)
    first.sendline("VF 20081102")
    first.expect_exact("1: the relay can do that")
    first.expect_exact(PROMPT)
    first.sendline("exit")
    assert finish(first) == 0
    history = tmp_path / "rtpproxy" / "ctl-history"
    assert "VF 20081102" in history.read_text().splitlines()
    assert history.stat().st_mode & 0o077 == 0

    second = spawn(tmp_path, "-s", control(daemon))
    second.expect_exact(PROMPT)
    # Two lines up, past the `exit` that ended the first one.
    second.send("\x1b[A\x1b[A")
    second.expect_exact("VF 20081102")
    second.send("\r")
    second.expect_exact("1: the relay can do that")
    second.expect_exact(PROMPT)
    second.sendeof()
    assert finish(second) == 0


def test_the_prompt_outlives_the_relay(start_daemon: StartDaemon, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'control'}"
    daemon = start_daemon("-s", address)
    prompt = spawn(tmp_path, "-s", address)
    prompt.expect_exact(PROMPT)
    assert daemon.stop() == 0
    prompt.sendline("V")
    prompt.expect_exact(f"no connection to {address}")
    prompt.expect_exact("Does the relay run?")
    prompt.expect_exact(PROMPT)
    start_daemon("-s", address)
    prompt.sendline("V")
    prompt.expect_exact("20040107")
    prompt.expect_exact(PROMPT)
    prompt.sendeof()
    assert finish(prompt) == 0
    nobody = spawn(tmp_path, "-s", f"unix:{tmp_path / 'none'}")
    nobody.expect_exact("No such file")
    assert finish(nobody) == 2


def test_a_history_that_cannot_be_kept_is_told(daemon: Daemon, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    prompt = spawn(in_the_way, "-s", control(daemon))
    prompt.expect_exact(PROMPT)
    prompt.sendline("V")
    prompt.expect_exact("the history is not kept")
    prompt.expect_exact("20040107")
    prompt.expect_exact(PROMPT)
    prompt.sendline("VF 1")
    prompt.expect_exact("0: the relay cannot do that")
    # It is told once.
    assert "history" not in str(prompt.before)
    prompt.sendeof()
    assert finish(prompt) == 0


def test_watching_shows_what_grows(daemon: Daemon, tmp_path: Path) -> None:
    screen = spawn(tmp_path, "-s", control(daemon), "--watch", "0.1", "G", "nsess_created", "ncmds_rcvd")
    screen.expect_exact("every 0.1 s, Ctrl-C ends")
    screen.expect(r"│ nsess_created +┆ +0 ┆")
    daemon.command("U call-1 127.0.0.1 4000 from to")
    screen.expect(r"│ nsess_created +┆ +1 ┆")
    # The question itself is a command.
    screen.expect(r"│ ncmds_rcvd +┆ +\d+ ┆ +[1-9]\d*\.\d │")
    screen.sendintr()
    screen.expect(pexpect.EOF)
    screen.close()
    assert screen.signalstatus == signal.SIGINT


def test_watching_fits_the_terminal(daemon: Daemon, tmp_path: Path) -> None:
    screen = spawn(tmp_path, "-s", control(daemon), "--watch", "0.1", "G", lines=12, columns=80)
    screen.expect(r"\[\d+ more lines")
    screen.expect_exact("\x1b[2J\x1b[H")
    screen.expect(r"\[\d+ more lines")
    # The line of the cursor stays free.
    assert str(screen.before).count("\n") == 10
    screen.sendintr()
    screen.expect(pexpect.EOF)
    screen.close()


def test_watching_ends_with_its_session(daemon: Daemon) -> None:
    daemon.command("U call-1 127.0.0.1 4000 from to")
    words = [str(binary()), "ctl", "-s", control(daemon), "--watch", "0.05", "Q call-1 from to npkts_ina"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=clean_environment()) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["0\n"] * 3
        daemon.command("D call-1 from to")
        assert process.stdout.read().splitlines()[-1] == "E50"
        wait_until(lambda: process.poll() is not None, "the end")
        assert process.returncode == 1
