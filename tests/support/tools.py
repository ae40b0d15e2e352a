"""Programs of others that the tests run: tshark, capinfos, tcpdump, sipp and Kamailio."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may do this")


def need(*programs: str) -> None:
    """Fails the test if a program is missing; skips it if the caller of the tests allows that."""
    _do_without([program for program in programs if shutil.which(program) is None])


def need_library(library: str) -> None:
    """The same for a shared library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        _do_without([library])


def need_ipv6() -> None:
    """Skips the test on a machine without IPv6 on loopback, as containers often are."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")


def tshark(path: Path, *options: str) -> str:
    """What tshark prints about a capture."""
    need("tshark")
    return _output("tshark", "-n", "-r", str(path), *options)


def fields(path: Path, display_filter: str, *names: str) -> list[list[str]]:
    """Fields of the packets that a display filter selects, as tshark decodes them without any hint."""
    wanted = [word for name in names for word in ("-e", name)]
    text = tshark(path, "-Y", display_filter, "-T", "fields", *wanted)
    return [line.split("\t") for line in text.splitlines()]


def tcpdump(path: Path) -> list[str]:
    """A line for each packet of a capture, as tcpdump prints it."""
    need("tcpdump")
    return _output("tcpdump", "-n", "-r", str(path)).splitlines()


def capinfos(path: Path) -> dict[str, str]:
    """The summary of a capture by capinfos, by name; a name that stands there twice has two lines."""
    need("capinfos")
    summary: dict[str, str] = {}
    for line in _output("capinfos", "-M", str(path)).splitlines():
        name, _, value = (part.strip() for part in line.partition(":"))
        summary[name] = f"{summary[name]}\n{value}" if name in summary else value
    return summary


def _output(*command: str) -> str:
    # As root, tshark says that this is dangerous: on standard error, which is not looked at on success.
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, f"{' '.join(command)}: {run.stderr}"
    return run.stdout


def _do_without(missing: list[str]) -> None:
    if not missing:
        return
    message = f"not installed: {', '.join(missing)}"
    if os.environ.get("RTPPROXY_TESTS_SKIP_MISSING"):
        pytest.skip(message)
    pytest.fail(message)
