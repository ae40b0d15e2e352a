"""Kamailio as the capture server of `acct_rtcp_hep`: what it reads, it writes into a table of text."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import StartDaemon, free_port, wait_until
from support.phone import MakeCall
from support.tools import need

HOST = "127.0.0.1"
COLUMNS = {
    "date": "int",
    "micro_ts": "int",
    "correlation_id": "str",
    "source_ip": "str",
    "source_port": "int",
    "destination_ip": "str",
    "destination_port": "int",
    "proto": "int",
    "family": "int",
    "type": "int",
    "node": "str",
    "msg": "str",
}
CONFIGURATION = """#!KAMAILIO
log_stderror=yes
debug=2
children=1
disable_tcp=yes
auto_aliases=no
listen=udp:{host}:{port}
loadmodule "ctl.so"
loadmodule "db_text.so"
loadmodule "sipcapture.so"
modparam("ctl", "binrpc", "unix:{folder}/ctl")
modparam("sipcapture", "db_url", "text://{folder}")
modparam("sipcapture", "hep_capture_on", 1)
request_route {{ exit; }}
"""


class CaptureServer:
    """Kamailio with `sipcapture`, in processes of its own."""

    def __init__(self, folder: Path) -> None:
        need("kamailio", "kamcmd")
        folder.mkdir()
        self.port = free_port(socket.SOCK_DGRAM)
        self._store = ["kamcmd", "-s", f"unix:{folder / 'ctl'}", "db_text.dump"]
        self._table = folder / "rtcp_capture"
        self._header = " ".join(f"{name}({kind})" for name, kind in COLUMNS.items()) + "\n"
        self._table.write_text(self._header)
        (folder / "version").write_text("table_name(string) table_version(int)\nrtcp_capture:0\n")
        configuration = folder / "kamailio.cfg"
        configuration.write_text(CONFIGURATION.format(host=HOST, port=self.port, folder=folder))
        self._log_path = folder / "log"
        command = ["kamailio", "-DD", "-E", "-f", str(configuration), "-m", "32", "-M", "4"]
        command += ["-Y", str(folder), "-w", str(folder), "-P", str(folder / "pid")]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            # It looks into the database when its sockets are open.
            wait_until(
                lambda: self._process.poll() is not None or "using database" in self.log(),
                "Kamailio is there",
            )
            assert self._process.poll() is None, self.log()
        except BaseException:
            self.close()
            raise

    def log(self) -> str:
        """What it had to say."""
        return self._log_path.read_text(errors="replace")

    def rows(self, count: int) -> list[dict[str, str]]:
        """So many rows of the table, by column."""
        lines: list[str] = []

        def are_there() -> bool:
            subprocess.run(self._store, capture_output=True, timeout=20, check=True)
            lines[:] = self._table.read_text().removeprefix(self._header).splitlines()
            return len(lines) >= count

        wait_until(are_there, f"{count} reports in the table")
        return [dict(zip(COLUMNS, _values(line), strict=True)) for line in lines]

    def close(self) -> None:
        """Ends its processes."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _values(line: str) -> list[str]:
    """The values between colons, without the backslashes that protect what is in them."""
    values, rest = [""], iter(line)
    for letter in rest:
        if letter == "\\":
            escaped = next(rest)
            values[-1] += {"n": "\n"}.get(escaped, escaped)
        elif letter == ":":
            values.append("")
        else:
            values[-1] += letter
    return values


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CaptureServer]:
    """A capture server."""
    server = CaptureServer(tmp_path / "kamailio")
    yield server
    server.close()


def test_kamailio_reads_the_reports(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path, server: CaptureServer
) -> None:
    configuration = tmp_path / "rtpproxy.conf"
    configuration.write_text(
        f"modules {{ acct_rtcp_hep {{ capt_host = {HOST}; capt_port = {server.port}; capt_id = 7 }} }}\n"
    )
    daemon = start_daemon("--config", configuration)
    call = make_call(daemon, call_id="call-1@example.com")
    call.caller.report(call.at_caller_side)
    call.callee.report(call.at_callee_side)
    rows = server.rows(2)
    rows.sort(key=lambda row: int(row["source_port"]) != call.caller.media.rtcp.port)
    for row, phone, at in zip(
        rows, (call.caller, call.callee), (call.at_caller_side, call.at_callee_side), strict=True
    ):
        assert row["correlation_id"] == call.call_id
        assert (row["source_ip"], int(row["source_port"])) == phone.media.rtcp.pair
        assert (row["destination_ip"], int(row["destination_port"])) == at.rtcp.pair
        # Microseconds, of which the table holds 32 bits.
        seconds = int(row["date"])
        micros = (int(row["micro_ts"]) - seconds * 1_000_000) % (1 << 32)
        assert micros < 1_000_000
        # As the C program has it, the number stands in the upper half of its field.
        assert row["node"] == f"homer01:{7 << 16}"
        report = json.loads(row["msg"])
        assert (report["type"], report["ssrc"]) == (200, phone.source.ssrc)
        assert report["sender_information"]["rtp_timestamp"] == phone.source.timestamp
