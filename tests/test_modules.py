"""Modules: how they are chosen, the configuration file, and the accounting of `acct_csv`."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

import rtpproxy
from support.control import connect
from support.daemon import (
    Daemon,
    StartDaemon,
    binary,
    clean_environment,
    free_port,
    media_ports,
    wait_until,
)
from support.phone import Call, MakeCall, RtpSource
from support.program import run
from support.tools import need_ipv6

FILE = "rtpproxy_acct.csv"
COLUMNS = (
    "rec_ver,rtpp_node_id,rtpp_pid,sess_uid,call_id,from_tag,setup_ts,teardown_ts,first_rtp_ts_ino,last_rtp_ts_ino,"
    "first_rtp_ts_ina,last_rtp_ts_ina,rtp_npkts_ina,rtp_npkts_ino,rtp_nrelayed,rtp_ndropped,rtcp_npkts_ina,"
    "rtcp_npkts_ino,rtcp_nrelayed,rtcp_ndropped,rtpa_nsent_ino,rtpa_nrcvd_ino,rtpa_ndups_ino,rtpa_nlost_ino,"
    "rtpa_perrs_ino,rtpa_ssrc_last_ino,rtpa_ssrc_cnt_ino,rtpa_pt_last_ino,rtpa_nsent_ina,rtpa_nrcvd_ina,"
    "rtpa_ndups_ina,rtpa_nlost_ina,rtpa_perrs_ina,rtpa_ssrc_last_ina,rtpa_ssrc_cnt_ina,rtpa_pt_last_ina,"
    "rtpa_jitter_last_ino,rtpa_jitter_max_ino,rtpa_jitter_avg_ino,rtpa_jitter_last_ina,rtpa_jitter_max_ina,"
    "rtpa_jitter_avg_ina,rtpp_rtp_rmt_ip_o,rtpp_rtp_rmt_pt_o,rtpp_rtp_rmt_ip_a,rtpp_rtp_rmt_pt_a,rtpp_rtcp_rmt_ip_o,"
    "rtpp_rtcp_rmt_pt_o,rtpp_rtcp_rmt_ip_a,rtpp_rtcp_rmt_pt_a,rtpp_hld_sts_o,rtpp_hld_sts_a,rtpp_hld_cnt_o,"
    "rtpp_hld_cnt_a"
)


def rows(path: Path) -> list[dict[str, str]]:
    """The lines of the file behind its header, once the last one is complete."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"lines in {path}")
    text = path.read_text()
    assert text.startswith(COLUMNS + "\n")
    return list(csv.DictReader(io.StringIO(text)))


def calls(path: Path) -> list[str]:
    """The call-ids in the file."""
    return [row["call_id"] for row in rows(path)]


def end_session(daemon: Daemon, call_id: str, path: Path) -> None:
    """Starts and ends a session, and waits for its line."""
    daemon.command(f"U {call_id} 127.0.0.1 4000 from")
    assert daemon.command(f"D {call_id} from") == "0"
    wait_until(lambda: path.exists() and call_id in path.read_text(), f"the line of {call_id}")


def refused(folder: Path, *options: str | Path) -> str:
    """What a daemon that does not start says. It leaves nothing behind."""
    control, pid_file = f"unix:{folder / 'control'}", folder / "pid"
    arguments: list[str | Path] = [binary(), "-f", "-F", "-l", "127.0.0.1", "-s", control, "-p", pid_file]
    done = run(*arguments, *options, cwd=folder)
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert not (folder / "control").exists()
    return done.stderr.strip()


def test_every_column_of_a_call(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    daemon = start_daemon("--dso", "acct_csv", start_in=tmp_path)
    started = time.time()
    call = make_call(daemon, "call-1", tags=("from;1", "to;1"))
    expected = {**talk(call), **hold(call)}
    assert call.command("D") == "0"
    wait_until(lambda: len(rows(tmp_path / FILE)) == 1, "the line")
    ended = time.time()
    [row] = rows(tmp_path / FILE)

    assert row.pop("rec_ver") == "1.2"
    assert row.pop("rtpp_node_id") == socket.gethostname()
    assert row.pop("rtpp_pid") == str(daemon.process.pid)
    assert 0 <= int(row.pop("sess_uid")) < 2**63
    assert (row.pop("call_id"), row.pop("from_tag")) == ("call-1", "from;1")
    times = [float(row.pop(name)) for name in ("setup_ts", "first_rtp_ts_ina", "last_rtp_ts_ina")]
    times += [float(row.pop(name)) for name in ("first_rtp_ts_ino", "last_rtp_ts_ino", "teardown_ts")]
    assert [started, *times, ended] == sorted([started, *times, ended])
    jitter = {name: row.pop(name) for name in list(row) if name.startswith("rtpa_jitter_")}
    assert all(len(value.split(".")[1]) == 6 for value in jitter.values())
    assert float(jitter["rtpa_jitter_max_ina"]) >= float(jitter["rtpa_jitter_last_ina"]) > 0
    assert row == expected


def talk(call: Call) -> dict[str, str]:
    """A talk in which much goes wrong, and what the line says of it, but for times and jitter."""
    caller, callee = call.caller, call.callee
    said = caller.source.packets(6)
    caller.send(call.at_caller_side, [*said[:2], *said[3:], said[5]])
    assert len(callee.hear(6)) == 6
    callee.source = RtpSource(ssrc=0xABC, payload_type=8)
    callee.say(call.at_callee_side, 2)
    callee.source.ssrc = 0xDEF
    callee.say(call.at_callee_side, 1)
    callee.send(call.at_callee_side, [b"no RTP"])
    assert len(caller.hear(4)) == 4
    caller.report(call.at_caller_side)
    assert len(callee.hear_rtcp()) == 1
    return {
        "rtp_npkts_ina": "6",
        "rtp_npkts_ino": "4",
        "rtp_nrelayed": "10",
        "rtp_ndropped": "0",
        "rtcp_npkts_ina": "1",
        "rtcp_npkts_ino": "0",
        "rtcp_nrelayed": "1",
        "rtcp_ndropped": "0",
        "rtpa_nsent_ino": "3",
        "rtpa_nrcvd_ino": "3",
        "rtpa_ndups_ino": "0",
        "rtpa_nlost_ino": "0",
        "rtpa_perrs_ino": "1",
        "rtpa_ssrc_last_ino": "0x00000DEF",
        "rtpa_ssrc_cnt_ino": "2",
        "rtpa_pt_last_ino": "8",
        "rtpa_nsent_ina": "6",
        "rtpa_nrcvd_ina": "5",
        "rtpa_ndups_ina": "1",
        "rtpa_nlost_ina": "1",
        "rtpa_perrs_ina": "0",
        "rtpa_ssrc_last_ina": f"0x{caller.source.ssrc:08X}",
        "rtpa_ssrc_cnt_ina": "1",
        "rtpa_pt_last_ina": "0",
        "rtpp_rtp_rmt_ip_o": "127.0.0.1",
        "rtpp_rtp_rmt_pt_o": str(callee.port),
        "rtpp_rtp_rmt_ip_a": "127.0.0.1",
        "rtpp_rtp_rmt_pt_a": str(caller.port),
        "rtpp_rtcp_rmt_ip_o": "127.0.0.1",
        "rtpp_rtcp_rmt_pt_o": str(callee.port + 1),
        "rtpp_rtcp_rmt_ip_a": "127.0.0.1",
        "rtpp_rtcp_rmt_pt_a": str(caller.port + 1),
    }


def hold(call: Call) -> dict[str, str]:
    """The caller puts the call on hold twice and comes back, the callee does so once and stays away."""
    for host in ("0.0.0.0", call.caller.host) * 2:
        call.daemon.command(f"U {call.call_id} {host} {call.caller.port} {call.from_tag}")
    call.daemon.command(f"L {call.call_id} 0.0.0.0 {call.callee.port} {call.from_tag} {call.to_tag}")
    return {"rtpp_hld_sts_o": "t", "rtpp_hld_sts_a": "f", "rtpp_hld_cnt_o": "1", "rtpp_hld_cnt_a": "2"}


def test_what_never_came_is_empty(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--dso", "acct_csv", start_in=tmp_path)
    daemon.command("U call-1 127.0.0.1 4000 from")
    daemon.command("D call-1 from")
    wait_until(lambda: len(rows(tmp_path / FILE)) == 1, "the line")
    [row] = rows(tmp_path / FILE)
    for leg in ("ino", "ina"):
        assert (
            row[f"first_rtp_ts_{leg}"]
            == row[f"last_rtp_ts_{leg}"]
            == row[f"rtpa_jitter_avg_{leg}"]
            == "0.000000"
        )
        assert (row[f"rtpa_ssrc_last_{leg}"], row[f"rtpa_pt_last_{leg}"]) == ("", "-1")
    assert (row["rtpp_rtp_rmt_ip_o"], row["rtpp_rtp_rmt_pt_o"], row["rtpp_rtcp_rmt_pt_o"]) == ("", "", "")
    assert (row["rtpp_rtp_rmt_ip_a"], row["rtpp_rtp_rmt_pt_a"], row["rtpp_rtcp_rmt_pt_a"]) == (
        "127.0.0.1",
        "4000",
        "4001",
    )


def test_an_ipv6_address_stands_in_brackets(start_daemon: StartDaemon, tmp_path: Path) -> None:
    need_ipv6()
    daemon = start_daemon("--dso", "acct_csv", listen=("-6", "::1"), start_in=tmp_path)
    daemon.command("U6 call-1 2001:db8::1 4000 from")
    daemon.command("D call-1 from")
    wait_until(lambda: len(rows(tmp_path / FILE)) == 1, "the line")
    [row] = rows(tmp_path / FILE)
    assert (row["rtpp_rtp_rmt_ip_a"], row["rtpp_rtp_rmt_pt_a"]) == ("[2001:db8::1]", "4000")


def test_names_with_commas_keep_their_column(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--dso", "acct_csv", start_in=tmp_path)
    for call_id in ('plain"(1)@[::1]', "a,b", '"quoted",'):
        daemon.command(f"U {call_id} 127.0.0.1 4000 x,y")
        daemon.command(f"D {call_id} x,y")
    wait_until(lambda: len(rows(tmp_path / FILE)) == 3, "the lines")
    assert calls(tmp_path / FILE) == ['plain"(1)@[::1]', "a,b", '"quoted",']
    assert {row["from_tag"] for row in rows(tmp_path / FILE)} == {"x,y"}
    assert {row["rtpp_hld_cnt_a"] for row in rows(tmp_path / FILE)} == {"0"}


def test_every_way_to_end_makes_a_line(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--dso", "acct_csv", "-W", "1", start_in=tmp_path)
    daemon.command("U timeout 127.0.0.1 4000 from")
    wait_until(lambda: calls(tmp_path / FILE) == ["timeout"], "the line of a timeout")
    daemon.command("U sub 127.0.0.1 4000 from && D")
    for call_id in ("x1", "x2", "x3"):
        daemon.command(f"U {call_id} 127.0.0.1 4000 from")
    assert daemon.command("X") == "0"
    daemon.command("U shutdown 127.0.0.1 4000 from")
    assert daemon.stop() == 0
    ended = calls(tmp_path / FILE)
    assert (ended[1], sorted(ended[2:5]), ended[5:]) == ("sub", ["x1", "x2", "x3"], ["shutdown"])
    assert len({row["sess_uid"] for row in rows(tmp_path / FILE)}) == 6


def test_the_log_tells_once_of_an_end(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    daemon = start_daemon("--dso", "acct_csv", start_in=tmp_path)
    call = make_call(daemon, "call-1")
    call.talk(2)
    assert call.command("D") == "0"
    daemon.wait_for_log("is cleaned up")
    assert ": RTP of the caller latched to 127.0.0.1:" in daemon.log()
    texts = [line.split(": ", 1)[1] for line in daemon.log().splitlines() if ":call-1:end:" in line]
    ports = f"{call.at_callee_side.port}/{call.at_caller_side.port}"
    assert texts[0] == "RTP stats: 2 in from callee, 2 in from caller, 4 relayed, 0 dropped, 0 ignored"
    assert texts[1] == "RTCP stats: 0 in from callee, 0 in from caller, 0 relayed, 0 dropped, 0 ignored"
    assert [text.split(":")[0] for text in texts[2:4]] == [
        "RTP times of the caller",
        "RTP times of the callee",
    ]
    ssrc = f"0x{call.caller.source.ssrc:08X}"
    assert (
        texts[4]
        == f"RTP stream from caller: SSRC={ssrc}, ssrc_changes=1, psent=2, precvd=2, plost=0, pdups=0"
    )
    assert texts[5].startswith("RTP stream from callee: SSRC=0x")
    assert texts[6:] == [f"session on ports {ports} is cleaned up"]


def test_a_file_that_is_there_is_added_to(start_daemon: StartDaemon, tmp_path: Path) -> None:
    (tmp_path / FILE).touch()
    for call_id in ("call-1", "call-2"):
        daemon = start_daemon("--dso", "acct_csv", start_in=tmp_path)
        assert (tmp_path / FILE).read_text().startswith(COLUMNS + "\n")
        end_session(daemon, call_id, tmp_path / FILE)
        assert daemon.stop() == 0
    assert calls(tmp_path / FILE) == ["call-1", "call-2"]


def test_relays_share_a_file(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemons = [start_daemon("--dso", "acct_csv", start_in=tmp_path) for _ in range(2)]
    for number in range(100):
        for daemon in daemons:
            daemon.command(f"U call-{number} 127.0.0.1 4000 from && D")
    wait_until(lambda: len(rows(tmp_path / FILE)) == 200, "all lines")
    assert sorted(calls(tmp_path / FILE)) == sorted(f"call-{number}" for number in [*range(100)] * 2)
    assert {row["rtpp_pid"] for row in rows(tmp_path / FILE)} == {
        str(daemon.process.pid) for daemon in daemons
    }


def test_a_renamed_file_is_followed_by_a_new_one(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--dso", "acct_csv", start_in=tmp_path)
    end_session(daemon, "call-1", tmp_path / FILE)
    (tmp_path / FILE).rename(tmp_path / "old")
    end_session(daemon, "call-2", tmp_path / FILE)
    (tmp_path / FILE).unlink()
    end_session(daemon, "call-3", tmp_path / FILE)
    assert (calls(tmp_path / "old"), calls(tmp_path / FILE)) == (["call-1"], ["call-3"])


def test_lines_wait_for_a_lock(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon("--dso", "acct_csv", start_in=tmp_path)
    with (tmp_path / FILE).open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 0, os.SEEK_END)
        daemon.command("U call-1 127.0.0.1 4000 from && D")
        # The log says so after a second; commands are answered all the time.
        daemon.wait_for_log("another writer holds its lock")
        assert daemon.command("V") == "20040107"
        assert calls(tmp_path / FILE) == []
    wait_until(lambda: calls(tmp_path / FILE) == ["call-1"], "the line")
    daemon.wait_for_log("can be written again")


def test_a_daemon_writes_where_it_was_started(tmp_path: Path) -> None:
    low, high = media_ports()
    pid_file, control = tmp_path / "pid", tmp_path / "control"
    options = ["-F", "-l", "127.0.0.1", "-m", str(low), "-M", str(high), "--config", "modules.conf"]
    (tmp_path / "modules.conf").write_text("modules { acct_csv {} }")
    subprocess.run(
        [binary(), *options, "-p", pid_file, "-s", f"cunix:{control}"],
        cwd=tmp_path,
        env=clean_environment(),
        check=True,
        timeout=30,
    )
    pid = int(pid_file.read_text())
    try:
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        with closing(connect(f"cunix:{control}")) as relay:
            relay.command("U call-1 127.0.0.1 4000 from && D")
        wait_until(lambda: len(rows(tmp_path / FILE)) == 1, "the line")
        (tmp_path / FILE).rename(tmp_path / "old")
        with closing(connect(f"cunix:{control}")) as relay:
            relay.command("U call-2 127.0.0.1 4000 from && D")
        wait_until(
            lambda: (tmp_path / FILE).exists() and calls(tmp_path / FILE) == ["call-2"], "the new file"
        )
        assert rows(tmp_path / "old")[0]["rtpp_pid"] == str(pid)
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not pid_file.exists(), "the daemon ends")


def test_a_proxy_in_python_accounts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with rtpproxy.Proxy(modules=["acct_csv"]) as proxy:
        proxy.start("call-1", "from")
    assert calls(tmp_path / FILE) == ["call-1"]
    with pytest.raises(ValueError, match="realpath: none: No such file"):
        rtpproxy.Proxy(modules=["none"])
    monkeypatch.chdir("/proc")
    with pytest.raises(rtpproxy.StartError, match="can't open /proc/rtpproxy_acct"):
        rtpproxy.Proxy(modules=["acct_csv"])


CONFIGURATIONS = {
    "like nginx": "modules {\n  acct_csv {\n    load = /usr/local/lib/rtpproxy/rtpp_acct_csv.so;\n  }\n}\n",
    "JSON": json.dumps(
        {"other": [1, {"x": None}], "modules": {"acct_csv": {"load": "/x/rtpp_acct_csv_debug.so"}}}
    ),
    "short": "modules acct_csv {}",
    "commented": "# all\nlog = on /* and /* more */ */; 'modules': { mine = { load: acct_csv } /* x */ };",
}


@pytest.mark.parametrize("text", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_configuration_file(start_daemon: StartDaemon, tmp_path: Path, text: str) -> None:
    (tmp_path / "modules.conf").write_text(text)
    daemon = start_daemon("--conf", "modules.conf", start_in=tmp_path)
    end_session(daemon, "call-1", tmp_path / FILE)
    assert calls(tmp_path / FILE) == ["call-1"]


def test_each_module_that_is_named_is_an_instance(start_daemon: StartDaemon, tmp_path: Path) -> None:
    (tmp_path / "modules.conf").write_text("modules { catch_dtmf {}; again { load = catch_dtmf } }")
    listener = tmp_path / "listener"
    options = ["-n", f"unix:{listener}", "--dso", "/x/rtpp_catch_dtmf.so", "--config", "modules.conf"]
    daemon = start_daemon(*options, start_in=tmp_path)
    offer = f"U call-1 127.0.0.1 4000 from to unix:{listener} tag"
    for instance in (1, 2, 3):
        # A result that is 0 is left out at the end of a reply.
        assert daemon.command(f"{offer} && M3:{instance} tag").endswith(" 127.0.0.1")
    assert daemon.command(f"{offer} && M3:4 tag") == "E3"


DSO_ERRORS = [
    ("none", "realpath: none: No such file or directory"),
    ("/nonexistent/rtpp_other.so", "realpath: /nonexistent/rtpp_other.so: No such file or directory"),
    (
        "/bin/sh",
        "/bin/sh: not a module of this program, and others cannot be loaded; "
        "there are acct_csv, acct_rtcp_hep, catch_dtmf",
    ),
    ("acct_rtcp_hep", "acct_rtcp_hep: requires configuration: name it in the file of --config"),
    (
        "/x/rtpp_acct_rtcp_hep.so",
        "/x/rtpp_acct_rtcp_hep.so: requires configuration: name it in the file of --config",
    ),
    ("dtls_gw", "dtls_gw: module dtls_gw is not part of this version"),
    ("/x/rtpp_ice_lite.so", "/x/rtpp_ice_lite.so: module ice_lite is not part of this version"),
]


@pytest.mark.parametrize(("value", "message"), DSO_ERRORS)
def test_a_module_that_is_none_of_ours_is_refused(tmp_path: Path, value: str, message: str) -> None:
    assert refused(tmp_path, "--dso", "acct_csv", f"--dso={value}") == f"rtpproxy: {message}"
    assert not (tmp_path / FILE).exists()


HEP = "modules.acct_rtcp_hep"
CONFIGURATION_ERRORS = [
    ("", ": the configuration is empty"),
    ("modules {\n  acct_csv {\n", ":2:12: the brace is not closed"),
    ("modules = on", ":1:11: modules: must be an object, not a boolean"),
    ("modules { acct_csv = 5 }", ":1:22: modules.acct_csv: must be an object, not an integer"),
    ("modules { acct_csv { file = x } }", ":1:22: modules.acct_csv.file: unknown key; there are: load"),
    ("modules { acct_csv { load = [x] } }", ":1:29: modules.acct_csv.load: must be a string, not an array"),
    (
        "modules { acct_csv { load = none.so } }",
        ":1:29: modules.acct_csv.load: realpath: none.so: No such file or directory",
    ),
    (
        "modules { x {} }",
        ":1:11: modules.x: no module has this name; there are acct_csv, acct_rtcp_hep, catch_dtmf",
    ),
    ("modules { dtls_gw {} }", ":1:11: modules.dtls_gw: module dtls_gw is not part of this version"),
    (
        "modules { acct_rtcp_hep { capt_port = 0 } }",
        f":1:39: {HEP}.capt_port: 0 is out of range, 1 to 65535 are possible",
    ),
    (
        "modules { acct_rtcp_hep { capt_port = x } }",
        f":1:39: {HEP}.capt_port: must be an integer, not a string",
    ),
    (
        "modules { acct_rtcp_hep { capt_ptype = sctp } }",
        f':1:40: {HEP}.capt_ptype: "sctp" is not possible, choose udp or tcp',
    ),
    (
        "modules { acct_rtcp_hep { capt_id = -1 } }",
        f":1:37: {HEP}.capt_id: -1 is out of range, 0 to 4294967295 are possible",
    ),
    (
        "modules { acct_rtcp_hep { capt_host = 5; } }",
        f":1:39: {HEP}.capt_host: must be a string, not an integer",
    ),
    (".include other.conf", ":1:1: macros such as .include are not supported"),
]


@pytest.mark.parametrize(("text", "message"), CONFIGURATION_ERRORS)
def test_a_mistake_in_the_file_is_told_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "modules.conf"
    path.write_text(text)
    for word in ("--config", "--check --config"):
        assert refused(tmp_path, *word.split(), path) == f"rtpproxy: {path}{message}"
    assert not (tmp_path / FILE).exists()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name, reason in (("none", "No such file or directory"), (".", "Is a directory")):
        assert refused(tmp_path, "--config", name).startswith(
            f"rtpproxy: {name}: can't read the configuration: {reason}"
        )


def test_a_module_that_cannot_work_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    said = refused(tmp_path, "--dso", "acct_csv")
    assert said.startswith(f"rtpproxy: module acct_csv: can't open {tmp_path / FILE}: Is a directory"), said


def test_a_check_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "modules.conf").write_text("modules { acct_csv {} }")
    checked = run(binary(), "--check", "--dso", "acct_csv", "--config", "modules.conf", cwd=tmp_path)
    assert checked.returncode == 0, checked
    assert "acct_csv" in checked.stdout
    assert not (tmp_path / FILE).exists()


def test_the_start_names_no_capture_server_that_refuses(tmp_path: Path) -> None:
    port = free_port(socket.SOCK_STREAM)
    keys = f"capt_host = 127.0.0.1; capt_port = {port}; capt_ptype = TCP"
    (tmp_path / "modules.conf").write_text(f"modules {{ acct_rtcp_hep {{ {keys} }} }}")
    assert "Connection refused" in refused(tmp_path, "--config", "modules.conf")
