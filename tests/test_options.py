"""Every option of the C program: what it does, and what a bad value of it says."""

from __future__ import annotations

import fcntl
import os
import pty
import pwd
import re
import socket
import stat
import struct
import subprocess
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.background import Background
from support.capture import read
from support.control import OneShot
from support.daemon import StartDaemon, binary, clean_environment, free_port, free_ports, wait_until
from support.listener import Listener
from support.phone import MakeCall, Phone
from support.program import run
from support.tools import needs_root


def refused(*arguments: str | Path) -> str:
    """Standard error of a run that must fail before anything is started."""
    done = run(binary(), *arguments)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("rtpproxy: ")
    return done.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


# What options do.


def test_2_sends_short_packets_twice(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    call = make_call(start_daemon("-2"))
    short, long = call.caller.source.packet(bytes(115)), call.caller.source.packet(bytes(116))
    assert (len(short), len(long)) == (127, 128)
    call.caller.send(call.at_caller_side, [short, long])
    assert call.callee.hear(3) == [short, short, long]
    assert call.callee.silence()


def test_6_listens_on_an_address_of_ipv6(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon(listen=("-6", "::1"))
    make_call(daemon, hosts=("::1", "::1"), modifiers=("6", "6")).talk(3)


@pytest.mark.parametrize(
    ("options", "listen", "host"),
    [
        (("-A", "one/two"), "127.0.0.1/127.0.0.2", "one"),
        (("-A", "one/two"), "127.0.0.1", "127.0.0.1"),
        (("-A", "one"), "127.0.0.1", "127.0.0.1"),
    ],
    ids=["bridge", "no-bridge", "no-bridge-one"],
)
def test_a_advertises_in_bridge_mode_only(
    start_daemon: StartDaemon, options: tuple[str, ...], listen: str, host: str
) -> None:
    daemon = start_daemon(*options, listen=("-l", listen))
    assert daemon.command("U call 127.0.0.1 4000 from").split()[1] == host
    in_bridge = "/" in listen
    daemon.wait_for_log("started, pid")
    assert ("-A has no effect" in daemon.log()) != in_bridge
    if in_bridge:
        assert daemon.command("Uie other 127.0.0.1 4000 from").split()[1] == "two"


def test_a_records_all(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("-a")
    make_call(daemon).talk(2)
    assert daemon.stop() == 0
    (recording,) = daemon.recordings.glob("*.pcapng")
    assert len(read(recording)) == 4


def test_b_gives_ports_in_order(start_daemon: StartDaemon) -> None:
    low, high = free_ports(3)
    daemon = start_daemon("-b", ports=(low, high))
    ports = [int(daemon.command(f"U call-{n} 127.0.0.1 4000 from").split()[0]) for n in range(3)]
    assert ports == [low, low + 2, low + 4]


@needs_root
@pytest.mark.parametrize(("policy", "number"), [("fifo", os.SCHED_FIFO), ("rr", os.SCHED_RR)])
@pytest.mark.parametrize("user", [(), ("-u", "nobody")], ids=["root", "nobody"])
def test_c_gives_media_threads_the_highest_priority(
    start_daemon: StartDaemon, policy: str, number: int, user: tuple[str, ...]
) -> None:
    daemon = start_daemon("-c", policy, *user, record=False)
    daemon.wait_for_log("started, pid")
    threads = {
        int(task.name): (task / "comm").read_text().strip()
        for task in Path(f"/proc/{daemon.process.pid}/task").iterdir()
    }
    media = [thread for thread, name in threads.items() if name.startswith("media-")]
    assert media, threads
    if "no real-time scheduling" in daemon.log():
        pytest.skip("this machine lets not even root have real-time scheduling")
    for thread in media:
        assert os.sched_getscheduler(thread) == number
        assert os.sched_getparam(thread).sched_priority == os.sched_get_priority_max(number)


@needs_root
def test_c_without_the_right_is_no_more_than_logged(tmp_path: Path) -> None:
    arguments = ["-f", "-F", "-c", "fifo", "-l", "127.0.0.1", "-s", "stdio:", "-p", str(tmp_path / "pid")]
    done = run("setpriv", "--bounding-set=-sys_nice", "--", binary(), *arguments, given="V\n")
    assert (done.returncode, done.stdout) == (0, "20040107\n")
    assert re.search("^ERR:GLOBAL:.*: no real-time scheduling for media: ", done.stderr), done.stderr


@pytest.mark.parametrize(("options", "folder"), [((), "/"), (("-D",), None)], ids=["without", "with"])
def test_d_keeps_the_folder(tmp_path: Path, options: tuple[str, ...], folder: str | None) -> None:
    with Background(tmp_path, *options) as relay:
        assert Path(f"/proc/{relay.pid}/cwd").readlink() == Path(folder or tmp_path)


@pytest.mark.parametrize("level", ["dbug", "INFO", "Warn", "err", "crit", None])
def test_d_is_the_least_level_that_is_logged(level: str | None) -> None:
    """A start and a command bring a line of each level but CRIT."""
    arguments = ["-f", "-F", "-l", "127.0.0.1", "-s", "stdio:", "-p", "/no/such/folder/pid"]
    arguments += ["-d", level] if level else []
    done = run(binary(), *arguments, given="V\n", environment={"RTPPROXY_NONSENSE": "1"})
    assert done.returncode == 0
    levels = ["DBUG", "INFO", "WARN", "ERR", "CRIT"]
    shown = {line.split(":")[0] for line in done.stderr.splitlines()}
    assert shown == set(levels[levels.index((level or "err").upper()) :]) - {"CRIT"}


@needs_root
@pytest.mark.parametrize(
    ("options", "status", "word"),
    [
        (("-s", "udp:127.0.0.1:0"), 1, "a UDP control socket as root is refused"),
        (("-s", "tcp:127.0.0.1:0"), 0, "warning: running as root"),
        (("-s", "udp:127.0.0.1:0", "-F"), 0, ""),
    ],
    ids=["udp", "tcp", "udp-F"],
)
def test_f_lets_root_have_a_udp_socket(
    tmp_path: Path, options: tuple[str, ...], status: int, word: str
) -> None:
    done = run(binary(), "-f", "-s", "stdioc:", "-l", "127.0.0.1", "-p", tmp_path / "pid", *options)
    assert done.returncode == status
    assert word in done.stderr
    assert bool(done.stderr) == bool(word)


def test_i_lets_each_side_count_down(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    together, apart = start_daemon("-T", "1"), start_daemon("-T", "1", "-i")
    calls = [make_call(daemon) for daemon in (together, apart)]

    def ended() -> bool:
        for call in calls:
            call.caller.say(call.at_caller_side, 1)
        return apart.counter("nsess_timeout") == 1

    wait_until(ended, "the side that is silent ends the session")
    assert together.counter("nsess_timeout") == 0


def test_l_limits_open_files(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("-L", "300")
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    assert re.search(r"^Max open files +300 +300 ", limits, re.MULTILINE)


def test_l_listens_and_advertises(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("-l", "inside@127.0.0.3=host.example", listen=("-l", "127.0.0.2"))
    assert daemon.command("U one 127.0.0.1 4000 from").split()[1] == "127.0.0.2"
    assert daemon.command("Ul{inside} two 127.0.0.1 4000 from").split()[1] == "host.example"


def test_m_is_the_range_of_ports(start_daemon: StartDaemon) -> None:
    low, high = free_ports(2)
    daemon = start_daemon(ports=(low, high))
    replies = [daemon.command(f"U call-{n} 127.0.0.1 4000 from") for n in range(2)]
    assert {int(reply.split()[0]) for reply in replies} == {low, low + 2}
    assert daemon.command("U another 127.0.0.1 4000 from") == "E72"


def test_n_names_who_may_be_told(start_daemon: StartDaemon, tmp_path: Path) -> None:
    listener = Listener(tmp_path / "told")
    daemon = start_daemon("-n", f"unix:{tmp_path / 'told'}", "-W", "1")
    daemon.command(f"U one 127.0.0.1 4000 from unix:{tmp_path / 'other'} the-other")
    daemon.command(f"U two 127.0.0.1 4000 from unix:{tmp_path / 'told'} the-one")
    assert listener.line() == b"the-one\n"
    listener.close()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("-P",), {"call=from.pcap"}),
        (("--compat", "-R"), {"call=from.a.rtp", "call=from.o.rtp"}),
        (("--compat",), {f"call=from.{leg}.{kind}" for leg in "ao" for kind in ("rtp", "rtcp")}),
    ],
    ids=["P", "R", "without"],
)
def test_p_and_r_choose_what_is_written(
    start_daemon: StartDaemon, make_call: MakeCall, options: tuple[str, ...], names: set[str]
) -> None:
    daemon = start_daemon("-a", *options)
    call = make_call(daemon, "call")
    call.talk(1)
    for phone, to in ((call.caller, call.at_caller_side), (call.callee, call.at_callee_side)):
        phone.report(to)
    wait_until(lambda: daemon.counter("npkts_rcvd") == 4, "all packets are read")
    assert daemon.stop() == 0
    assert {path.name for path in daemon.recordings.iterdir() if path.suffix != ".json"} == names


@pytest.mark.parametrize("before", [None, "12345678 and more\n"], ids=["new", "old"])
def test_p_names_the_pid_file(start_daemon: StartDaemon, tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "process"
    if before:
        path.write_text(before)
    daemon = start_daemon("-p", path)
    wait_until(lambda: path.exists() and path.read_text() == f"{daemon.process.pid}\n", "the pid is written")
    assert daemon.stop() == 0
    assert not path.exists()


@needs_root
def test_p_never_removes_a_device(start_daemon: StartDaemon, tmp_path: Path) -> None:
    path = tmp_path / "null"
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    daemon = start_daemon("-p", path)
    assert daemon.stop() == 0
    assert path.is_char_device()


def test_s_writes_elsewhere_first(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    daemon = start_daemon("-a", "-S", spool)
    call = make_call(daemon)
    call.talk(1)
    wait_until(lambda: list(spool.iterdir()), "the recording starts in the spool folder")
    assert list(daemon.recordings.iterdir()) == []
    call.command("D")
    wait_until(lambda: list(daemon.recordings.glob("*.pcapng")), "the recording is complete")
    assert list(spool.glob("*.pcapng*")) == []


def test_s_is_repeatable(start_daemon: StartDaemon, tmp_path: Path) -> None:
    port = free_port(socket.SOCK_STREAM)
    daemon = start_daemon("-s", tmp_path / "plain", "-s", f"tcp:127.0.0.1:{port}")
    control = OneShot(str(tmp_path / "plain"))
    assert control.command("V") == daemon.command("V") == "20040107"
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(b"V\n")
        assert stream.recv(100) == b"20040107\n"


@pytest.mark.parametrize(
    ("options", "setup", "media"),
    [(("-T", "77"), 77, 77), (("-W", "33"), 33, 60), (("-T", "77", "-W", "33"), 33, 77)],
)
def test_t_and_w_are_the_timers(
    start_daemon: StartDaemon, options: tuple[str, ...], setup: int, media: int
) -> None:
    daemon = start_daemon(*options)

    def left() -> int:
        return int(daemon.command("Q call from to").split()[0])

    daemon.command("U call 127.0.0.1 4000 from")
    assert setup - 5 < left() <= setup
    daemon.command("L call 127.0.0.1 4002 from to")
    assert media - 5 < left() <= media


@pytest.mark.parametrize(("options", "tos"), [((), 184), (("-t", "0"), 0), (("-t", " +96"), 96)])
def test_t_is_the_tos_byte(
    start_daemon: StartDaemon, make_call: MakeCall, options: tuple[str, ...], tos: int
) -> None:
    call = make_call(start_daemon(*options))
    call.callee.rtp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    call.caller.say(call.at_caller_side, 1)
    call.callee.rtp.settimeout(20)
    _, control, _, _ = call.callee.rtp.recvmsg(2048, 64)
    assert control == [(socket.IPPROTO_IP, socket.IP_TOS, bytes([tos]))]


@needs_root
@pytest.mark.parametrize(
    ("user", "mode", "ids", "socket_mode"),
    [
        ("nobody", (), ("nobody", None), None),
        ("nobody:daemon", (), ("nobody", 1), 0o755),
        ("nobody:daemon", ("-w", "432"), ("nobody", 1), 0o660),
        ("nobody:daemon", ("-w", "0"), ("nobody", 1), None),
        (":daemon", (), ("root", 1), 0o755),
    ],
    ids=["user", "group", "mode", "mode-0", "group-only"],
)
def test_u_and_w_set_owner_and_mode(
    open_folder: Path, user: str, mode: tuple[str, ...], ids: tuple[str, int | None], socket_mode: int | None
) -> None:
    name, gid = ids
    entry = pwd.getpwnam(name)
    gid = entry.pw_gid if gid is None else gid
    # A folder of this user, where it may remove what it made as root; pytest's are out of its reach.
    os.chown(open_folder, entry.pw_uid, gid)
    with Background(open_folder, "-u", user, *mode) as relay:
        status = Path(f"/proc/{relay.pid}/status").read_text()
        assert re.search(rf"^Uid:(\t{entry.pw_uid}){{4}}$", status, re.MULTILINE), status
        assert re.search(rf"^Gid:(\t{gid}){{4}}$", status, re.MULTILINE), status
        assert re.search(rf"^Groups:\t{gid} *$", status, re.MULTILINE), status
        control = relay.socket.stat()
        assert (control.st_uid, control.st_gid) == (entry.pw_uid, gid)
        umask = os.umask(0)
        os.umask(umask)
        expected = 0o777 & ~umask if socket_mode is None else socket_mode
        assert stat.S_IMODE(control.st_mode) == expected
        assert relay.command("V") == "20040107"
    assert list(open_folder.iterdir()) == [relay.output]


@pytest.mark.parametrize(
    ("options", "listen", "followed"),
    [
        ((), "127.0.0.1", True),
        (("--force_asymmetric",), "127.0.0.1", False),
        ((), "127.0.0.1/127.0.0.2", False),
        (("--bridge_symmetric",), "127.0.0.1/127.0.0.2", True),
    ],
    ids=["without", "force_asymmetric", "bridge", "bridge_symmetric"],
)
def test_an_asymmetric_party_is_not_followed(
    start_daemon: StartDaemon, make_call: MakeCall, options: tuple[str, ...], listen: str, followed: bool
) -> None:
    daemon = start_daemon("--latch", "legacy", *options, listen=("-l", listen))
    call = make_call(daemon)
    with Phone() as elsewhere:
        elsewhere.say(call.at_caller_side, 1)
        call.callee.hear(1)
        said = call.callee.say(call.at_callee_side, 1)
        hearer, other = (elsewhere, call.caller) if followed else (call.caller, elsewhere)
        assert hearer.hear(1) == said
        assert other.silence()


@pytest.mark.parametrize("level", ["3", pytest.param("-7", marks=needs_root)])
def test_nice_is_the_level_of_all_threads(start_daemon: StartDaemon, level: str) -> None:
    # A thread that looks for recordings to recover is nicer, as long as it is there.
    daemon = start_daemon("--nice", level, record=False)
    threads = Path(f"/proc/{daemon.process.pid}/task").iterdir()
    assert {os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in threads} == {int(level)}


@pytest.mark.parametrize("keeps", [True, False], ids=["with", "without"])
def test_no_redirect_keeps_the_terminal(tmp_path: Path, keeps: bool) -> None:
    with Background(tmp_path, "-d", "info", *(["--no_redirect"] if keeps else [])) as relay:
        streams = [Path(f"/proc/{relay.pid}/fd/{number}").readlink() for number in range(3)]
        out = relay.output if keeps else Path("/dev/null")
        assert streams == [Path("/dev/null"), out, out]
    log = relay.output.read_text()
    assert log.endswith(": rtpproxy ended\n") if keeps else log == ""


def test_no_resolve_takes_numbers_only(start_daemon: StartDaemon) -> None:
    with_names = start_daemon(listen=("-l", "localhost"))
    assert with_names.command("U call 127.0.0.1 4000 from").split()[1] == "127.0.0.1"
    assert "localhost: not a numeric IPv4 address" in refused("--no_resolve", "-l", "localhost")


@pytest.mark.parametrize("option", ["--overload_prot", "--overload_prot=x", "--overload"])
def test_overload_prot_is_accepted(start_daemon: StartDaemon, option: str) -> None:
    assert start_daemon(option).command("V") == "20040107"


def test_questions_are_answered() -> None:
    version, protocol, clock = (run(binary(), *words) for words in (["-V"], ["-v"], ["-fC", "--nonsense"]))
    assert [done.returncode for done in (version, protocol, clock)] == [0, 0, 0]
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", version.stdout)
    first, *rest = protocol.stdout.splitlines()
    assert first == "Basic version: 20040107"
    assert rest[0].startswith("Extension 20040107: ")
    assert rest[-1].startswith("Extension 20260309: ")
    assert len(rest) == 25
    assert all(re.fullmatch(r"Extension \d{8}: .+", line) for line in rest)
    assert clock.stdout == "CLOCK_BOOTTIME\n"


def test_what_is_bad_before_a_question_still_fails() -> None:
    assert "port_min" in refused("-m", "0", "-V")
    assert "unknown option --loud" in refused("--loud", "-V")


# How options are read.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-t", "-1"], "-1: TOS is too small/large"),
        (["-t-1"], "-1: TOS is too small/large"),
        (["--no_re"], "option --no_re may mean"),
        (["--overload_prot", "x"], "1 extra unhandled argument(s) at the end of the command line"),
        (["-f", "demo"], "1 extra unhandled argument(s) at the end of the command line"),
        (["-V=", "-F", "x"], "unknown option -="),
        (["--", "-V"], "1 extra unhandled argument(s) at the end of the command line"),
        (["-T", "0x10"], "0x10: max TTL argument is invalid"),
        (["-T", "10 "], "10 : max TTL argument is invalid"),
        (["--ni", "x"], "x: nice level argument is invalid"),
    ],
    ids=" ".join,
)
def test_a_line_is_read_as_getopt_does(arguments: list[str], message: str) -> None:
    if arguments[0] == "-V=":
        # -V acts when it is met, whatever follows.
        assert run(binary(), *arguments).returncode == 0
        return
    assert message in refused(*arguments)


def test_words_may_be_joined_and_shortened() -> None:
    """Nothing of this is refused: the check goes well."""
    words = [
        "-fF",
        "--no_red",
        "--over=1",
        "-6::1",
        "-t",
        " 7",
        "-T+7",
        "--ni=-3",
        "--force",
        "--bridge",
        "--ch",
    ]
    done = run(binary(), *words)
    assert (done.returncode, done.stderr) == (0, ""), done
    for line in (
        "foreground = true",
        "no_redirect = true",
        'listen6 = ["::1"]',
        "tos = 7",
        "ttl = 7",
        "nice = -3",
    ):
        assert f"\n{line} " in done.stdout


@pytest.mark.parametrize("columns", [80, 120])
def test_the_help_fits_the_terminal(columns: int) -> None:
    text = on_a_terminal(columns, "--help")
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= columns
    headings = [line for line in lines if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    assert headings[:3] == ["Commands:", "Addresses and ports:", "Control:"]
    assert len(headings) >= 9
    assert re.search(
        r"^  -m <PORT> +Lowest port for media \(default: 35000\) \[port_min\]$", text, re.MULTILINE
    )


def test_a_check_is_a_table_on_a_terminal() -> None:
    text = on_a_terminal(100, "--check", "-F", "-T", "7", "-s", "udp:127.0.0.1:1", "-s", "/x")
    assert re.search(r"^│ +ttl +┆ 7 +┆ command line: -T +│$", text, re.MULTILINE), text
    assert re.search(r"^│ +control +┆ udp:127.0.0.1:1 +┆.*│\n│ +┆ /x +┆", text, re.MULTILINE), text
    assert max(len(line) for line in text.splitlines()) <= 100


def on_a_terminal(columns: int, *arguments: str) -> str:
    """What the program prints on a terminal that is so wide, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        [binary(), *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=clean_environment()
    )
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 65536):
            output += chunk
    except OSError:
        # The other end is closed.
        pass
    os.close(ours)
    assert process.wait(timeout=20) == 0, output
    return re.sub(r"\x1b\[[0-9;]*m", "", output.decode()).replace("\r\n", "\n")


# Bad values.


BAD: dict[str, tuple[list[str], str]] = {
    "-A": (["-A", ""], "first advertised address is invalid"),
    "-A first": (["-A", "/b"], "first advertised address is invalid"),
    "-A second": (["-A", "a/"], "second advertised address is invalid"),
    "-A bridge": (
        ["-l", "127.0.0.1/127.0.0.2", "-A", "a"],
        "two advertised addresses are required",
    ),
    "-c": (["-c", "batch"], "batch: unknown scheduling policy"),
    "-d": (["-d", "loud"], "loud: invalid log level"),
    "-d facility": (["-d", "err:kitchen"], "kitchen: invalid log facility"),
    "-L": (["-L", "x"], "x: max file rlimit argument is invalid"),
    "-L too many": (["-f", "-L", "99999999999"], "can't limit open files to 99999999999"),
    "-l label": (["-l", "127.0.0.1", "-l", "127.0.0.2"], "address label is missing"),
    "-l twice": (["-l", "127.0.0.1", "-l", "a@127.0.0.2", "-6", "a@::1"], "duplicate label"),
    "-l half": (["-l", "127.0.0.1/"], "incomplete configuration of the bridging mode"),
    "-l name": (["-l", "no.such.host.invalid"], "no.such.host.invalid"),
    "-6": (["-6", "127.0.0.1"], "127.0.0.1"),
    "-l seventeen": (["-l", "127.0.0.1"] + ["-l", "a@127.0.0.1"] * 16, "more than 16 listen addresses"),
    "-M": (["-M", "x"], "x: max port argument is invalid"),
    "-m": (["-m", "x"], "x: min port argument is invalid"),
    "-M range": (["-M", "65536"], "invalid value of the port_max argument, not in the range 1-65535"),
    "-m below": (["-m", "-5"], "invalid value of the port_min argument, not in the range 1-65535"),
    "-m range": (["-m", "0"], "invalid value of the port_min argument, not in the range 1-65535"),
    "-m and -M": (["-m", "4000", "-M", "3000"], "port_min should be less than port_max"),
    "-n": (["-n", ""], "timeout notification socket name too short"),
    "-n tcp": (["-n", "tcp:x"], "error adding timeout notification: "),
    "-S": (["-S", "/tmp"], "-S switch requires -r switch"),
    "-s": (["-s", "stdio:"], "stdio command mode requires -f switch"),
    "-s long": (["-s", "/" + "x" * 120], "x" * 120),
    "-s folder": (["-f", "-F", "-s", "unix:/no/such/folder/sock"], "/no/such/folder/sock"),
    "-s systemd": (["-f", "-F", "-s", "systemd:"], "systemd:"),
    "-T": (["-T", "0"], "0: max TTL argument is invalid"),
    "-t": (["-t", "x"], "x: TOS argument is invalid"),
    "-t range": (["-t", "256"], "256: TOS is too small/large"),
    "-u": (["-u", "nobody-of-that-name"], "can't find ID for the user: nobody-of-that-name"),
    "-u number": (["-u", "0"], "can't find ID for the user: 0"),
    "-u group": (["-u", ":nogroup-of-that-name"], "can't find ID for the group: nogroup-of-that-name"),
    "-u user and group": (["-u", "root:no-such-group"], "can't find ID for the group: no-such-group"),
    "-W": (["-W", "0"], "0: max setup TTL argument is invalid"),
    "-w": (["-w", "4096"], "4096: socket mode argument is invalid"),
    "-w octal": (["-w", "0o755"], "0o755: socket mode argument is invalid"),
    "--nice": (["--nice", "x"], "x: nice level argument is invalid"),
    "--nice below": (["--nice=-21"], "-21: nice level is out of range -20..20"),
    "--nice range": (["--nice", "21"], "21: nice level is out of range -20..20"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_named(name: str) -> None:
    arguments, message = BAD[name]
    text = refused(*arguments)
    assert message in text
    assert "Usage" not in text


@pytest.mark.parametrize("letter", "BEGHIJKNOQUXYZeghjkoqxyz")
def test_an_option_that_is_not_there_shows_the_usage(letter: str) -> None:
    text = refused(f"-{letter}")
    assert f"unknown option -{letter}" in text
    assert "Usage: rtpproxy" in text
