"""Kamailio with the sample configuration, in processes of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

from interop.sipp import HOST, free_port
from support.daemon import ROOT, wait_until
from support.tools import need

SAMPLE = ROOT / "docs" / "examples" / "kamailio.cfg"


class Kamailio:
    """Sends all calls on to the port `callee`, with media through the relays at the addresses `relays`.

    `features` and `values` are those that the sample names first.
    """

    def __init__(
        self, folder: Path, relays: str, callee: int, *features: str, values: dict[str, object] | None = None
    ) -> None:
        need("kamailio", "kamcmd")
        self.port = free_port()
        self._folder = folder / "kamailio"
        self._folder.mkdir()
        self._log_path = self._folder / "log"
        command = ["kamailio", "-DD", "-E", "-f", str(SAMPLE), "-m", "32", "-M", "4"]
        command += ["-Y", str(self._folder), "-w", str(self._folder), "-P", str(self._folder / "pid")]
        defines: dict[str, object] = {
            "LISTEN": f"udp:{HOST}:{self.port}",
            "NEXT_HOP": f'"sip:{HOST}:{callee}"',
            "RTPPROXY_SOCK": f'"{relays}"',
            "CTL": f'"unix:{self._control}"',
            **(values or {}),
        }
        for define in [*features, *(f"{name}={value}" for name, value in defines.items())]:
            command += ["-A", define]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_until(lambda: self._process.poll() is not None or self._answers(), "Kamailio answers")
            assert self._process.poll() is None, self.log()
        except BaseException:
            self.close()
            raise

    @property
    def _control(self) -> Path:
        return self._folder / "ctl"

    def disabled_relays(self) -> list[str]:
        """The relays that it leaves out, because they did not answer."""
        command = ["kamcmd", "-s", f"unix:{self._control}", "rtpproxy.list"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert run.returncode == 0, run.stderr
        relays = [line.split(": ", 1)[1] for line in run.stdout.splitlines() if "url: " in line]
        disabled = [line.split(": ", 1)[1] for line in run.stdout.splitlines() if "disabled: " in line]
        return [relay for relay, is_disabled in zip(relays, disabled, strict=True) if is_disabled == "1"]

    def log(self) -> str:
        """What it had to say."""
        return self._log_path.read_text(errors="replace")

    def faults(self) -> list[str]:
        """The lines about something that is wrong."""
        words = ("ERROR:", "CRITICAL:", "BUG:")
        return [line for line in self.log().splitlines() if any(word in line for word in words)]

    def close(self) -> None:
        """Ends its processes."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            # They are a process group of their own.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
            phone.bind((HOST, 0))
            phone.settimeout(0.2)
            via = f"Via: SIP/2.0/UDP {HOST}:{phone.getsockname()[1]};branch=z9hG4bK{os.urandom(8).hex()}"
            lines = [
                f"OPTIONS sip:{HOST}:{self.port} SIP/2.0",
                via,
                "From: <sip:test>;tag=1",
                "To: <sip:test>",
            ]
            lines += ["Call-ID: probe", "CSeq: 1 OPTIONS", "Max-Forwards: 9", "Content-Length: 0", "", ""]
            try:
                phone.sendto("\r\n".join(lines).encode(), (HOST, self.port))
                return phone.recv(4096).startswith(b"SIP/2.0 200")
            except OSError:
                return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
