"""The systemd units and the Debian package: checked by the tools of the system, installed and started."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.control import Stream
from support.daemon import ROOT, binary, media_ports, wait_until
from support.tools import need

PACKAGING = ROOT / "rust" / "cli" / "packaging"
UNITS = ("rtpproxy.service", "rtpproxy.socket")
EXPOSURE_MAX = 1.7
"""How open the service may be, of 10, as systemd-analyze reckons."""


def output(*command: str | Path, **settings: object) -> str:
    """What a command that must end well prints."""
    words = [str(word) for word in command]
    environment = settings.pop("env", None)
    assert not settings
    run = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environment} if isinstance(environment, dict) else None,
    )
    assert run.returncode == 0, f"{shlex.join(words)}: {run.stdout}{run.stderr}"
    return run.stdout


# systemd


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, for the program under test."""
    copies = []
    for name in UNITS:
        copy = tmp_path / name
        copy.write_text((PACKAGING / name).read_text().replace("/usr/bin/rtpproxy", str(binary())))
        copies.append(copy)
    return copies


def test_systemd_understands_the_units(units: list[Path]) -> None:
    need("systemd-analyze")
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in run.stderr.splitlines() if "rtpproxy" in line]
    assert (run.returncode, ours) == (0, [])


def test_the_service_is_shut_in(units: list[Path]) -> None:
    need("systemd-analyze")
    text = output("systemd-analyze", "security", "--offline=true", "--no-pager", units[0])
    level = re.search(r"Overall exposure level for rtpproxy.service: ([\d.]+)", text)
    assert level, text
    assert float(level[1]) <= EXPOSURE_MAX, text


def test_the_relay_serves_a_socket_that_systemd_opened(tmp_path: Path) -> None:
    need("systemd-socket-activate")
    path, pid = tmp_path / "lines.sock", tmp_path / "pid"
    low, high = media_ports()
    command: list[str | int | Path] = [
        "systemd-socket-activate",
        "-l",
        path,
        binary(),
        "-f",
        "-F",
        "-s",
        "systemd:",
    ]
    command += ["-p", pid, "-m", low, "-M", high]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(list(map(str, command)), stderr=log) as process,
    ):
        try:
            control = connect_soon(path)
            with control:
                control.send(b"V\nU call 127.0.0.1 4000 from\n")
                assert control.read_line() == b"20040107\n"
                assert low <= int(control.read_line()) <= high
        finally:
            process.terminate()
        assert process.wait(timeout=20) == 0
    # The next relay gets it from systemd again.
    assert path.exists()


def connect_soon(path: Path) -> Stream:
    """A connection to a UNIX socket that will be there."""
    found: list[Stream] = []

    def connected() -> bool:
        with suppress(FileNotFoundError, ConnectionRefusedError):
            found.append(Stream(socket.AF_UNIX, str(path)))
        return bool(found)

    wait_until(connected, f"{path} listens")
    return found[0]


def test_the_settings_of_the_service_are_right() -> None:
    text = output(binary(), "--settings", PACKAGING / "rtpproxy.toml", "--check")
    for setting in ('control = ["unix:/run/rtpproxy/rtpproxy.sock"]', 'listen = ["*"]', 'log = "info'):
        assert any(line.startswith(setting) and "rtpproxy.toml:" in line for line in text.splitlines()), text


# Debian


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the release build that the other tests use."""
    release = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    if binary() != release / "rtpproxy":
        pytest.skip("the program under test is not the release build of this source")
    tools = release.parent / "tools" / "bin"
    if not (tools / "cargo-deb").exists():
        need("cargo-deb")
    need("dpkg-deb", "xz")
    folder = tmp_path_factory.mktemp("package")
    built = output(
        PACKAGING / "build-deb", "--no-build", "--output", folder, env={"DEBEMAIL": "packages@example.com"}
    )
    path = Path(built.strip())
    assert path.parent == folder
    return path


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the package in a folder."""
    folder = tmp_path_factory.mktemp("root")
    output("dpkg-deb", "--extract", package, folder)
    return folder


def test_the_package_says_what_it_is(package: Path) -> None:
    fields = dict(
        line.split(": ", 1) for line in output("dpkg-deb", "--field", package).splitlines() if ": " in line
    )
    version = output(binary(), "-V").strip()
    assert fields["Package"] == "rtpproxy"
    assert fields["Version"] == f"{version}-1"
    assert fields["Maintainer"].endswith("<packages@example.com>")
    assert "libc6" in fields["Depends"]
    assert package.name == f"rtpproxy_{version}-1_{fields['Architecture']}.deb"


def test_lintian_finds_no_error(package: Path) -> None:
    need("lintian")
    output("lintian", "--allow-root", "--profile", "debian", "--fail-on", "error", package)


def test_the_package_holds_everything(unpacked: Path) -> None:
    assert output(unpacked / "usr/bin/rtpproxy", "-V") == output(binary(), "-V")
    share = unpacked / "usr/share"
    pages = {page.name for page in (share / "man/man1").iterdir()}
    assert {"rtpproxy.1.gz", "rtpproxy-ctl.1.gz"} <= pages
    # A link for each program that the binary is under another name, as its page tells.
    links = {link.name for link in (unpacked / "usr/bin").iterdir() if link.is_symlink()}
    assert {f"{link}.1.gz" for link in links} == {page for page in pages if not page.startswith("rtpproxy")}
    for link in links:
        assert f"Usage: {link}" in output(unpacked / "usr/bin" / link, "--help")
    for name in UNITS:
        assert (unpacked / "usr/lib/systemd/system" / name).read_text() == (PACKAGING / name).read_text()
    for completions in (
        "bash-completion/completions/rtpproxy",
        "zsh/vendor-completions/_rtpproxy",
        "fish/vendor_completions.d/rtpproxy.fish",
    ):
        assert "record-format" in (share / completions).read_text()
    docs = share / "doc/rtpproxy"
    assert (docs / "docs/operations.md").read_text() == (ROOT / "docs/operations.md").read_text()
    examples = docs / "docs/examples"
    assert {file.name for file in examples.iterdir()} == {
        file.name for file in (ROOT / "docs/examples").iterdir()
    }
    assert "BSD-2-Clause" in (docs / "copyright").read_text()
    assert {"changelog.gz", "changelog.Debian.gz", "README.md"} <= {file.name for file in docs.iterdir()}


def test_the_configuration_is_kept_on_upgrades(package: Path) -> None:
    assert output("dpkg-deb", "--info", package, "conffiles").split() == ["/etc/rtpproxy/rtpproxy.toml"]


def test_the_same_source_makes_the_same_package(package: Path, tmp_path: Path) -> None:
    again = output(
        PACKAGING / "build-deb", "--no-build", "--output", tmp_path, env={"DEBEMAIL": "packages@example.com"}
    )
    assert Path(again.strip()).read_bytes() == package.read_bytes()


# Containers and wheels


def test_the_image_starts_with_settings_that_exist(tmp_path: Path) -> None:
    steps = (ROOT / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    variables = [step.removeprefix("ENV ").split() for step in steps if step.startswith("ENV ")]
    environment = dict(word.split("=", 1) for words in variables for word in words)
    environment |= {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    text = subprocess.run(
        [binary(), "-F", "--check"], env=environment, capture_output=True, text=True, timeout=20, check=True
    )
    assert text.stderr.count("note:") == text.stderr.count("\n"), text.stderr
    in_force = [line.split("#") for line in text.stdout.splitlines() if "RTPPROXY_" in line]
    assert len(in_force) == sum(name.startswith("RTPPROXY_") for name in environment)
    assert any(setting.startswith("foreground = true") for setting, _ in in_force)
    for step in steps:
        if step.startswith("COPY ") and "--from" not in step:
            for source in step.split()[1:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize("name", ["rtpproxy", "extractaudio", "makeann"])
def test_the_wheel_brings_the_commands(name: str) -> None:
    command = Path(sys.executable).parent / name
    assert f"Usage: {name}" in output(command, "--help")


# The service on a machine of its own: the package is installed over the files of this one, and systemd is
# started on them in a container without a network.


@pytest.fixture
def guest(package: Path, tmp_path: Path) -> Iterator[Path]:
    """The root of a machine like this one with the package installed; what it writes is its own."""
    need("systemd-nspawn", "adduser")
    if os.geteuid() != 0:
        pytest.skip("only root can start a container")
    if Path("/").stat().st_dev != Path("/var/lib/dpkg").stat().st_dev:
        pytest.skip("the files of this machine are on several disks")
    upper, work, root = (tmp_path / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir()
    layers = f"lowerdir=/,upperdir={upper},workdir={work}"
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", layers, root],
        capture_output=True,
        timeout=20,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no overlay of the root: {mounted.stderr.decode(errors='replace')}")
    try:
        # Images for containers forbid packages to start and to stop services.
        (root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        shutil.copy(package, root / "root/rtpproxy.deb")
        output("chroot", root, "dpkg", "--install", "/root/rtpproxy.deb")
        yield root
    finally:
        output("umount", root)


ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    connection.sendall(sys.argv[2].encode() + b"\\n")
    print(connection.recv(1024).decode().strip())
"""

SERVICE = """
[Unit]
Wants=basic.target
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/bash /root/script
TimeoutStartSec=60
ExecStopPost=/bin/systemctl --force --force poweroff
"""


def in_guest(root: Path, script: str) -> list[str]:
    """The lines that a script prints on the started machine."""
    (root / "root/ask.py").write_text(ASK)
    start = f'exec >/root/output 2>&1\nask() {{ {Path(sys.executable).resolve()} /root/ask.py "$@"; }}\n'
    (root / "root/script").write_text(start + textwrap.dedent(script))
    (root / "etc/systemd/system/script.service").write_text(SERVICE)
    command = ["systemd-nspawn", "--quiet", "--register=no", "--private-network", "--console=pipe", "--boot"]
    if not Path("/run/systemd/system").exists():
        command.append("--keep-unit")
    run = subprocess.run(
        [*command, "-D", root, "systemd.unit=script.service"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert (root / "root/output").exists(), run.stdout.decode(errors="replace") + run.stderr.decode(
        errors="replace"
    )
    return (root / "root/output").read_text().splitlines()


def test_the_service_runs_until_its_package_goes(guest: Path) -> None:
    lines = in_guest(
        guest,
        """
        systemctl start rtpproxy
        until [ -S /run/rtpproxy/rtpproxy.sock ]; do sleep 0.1; done
        ask /run/rtpproxy/rtpproxy.sock V
        ask /run/rtpproxy/rtpproxy.sock 'U call 127.0.0.1 4000 from' >/dev/null
        ask /run/rtpproxy/rtpproxy.sock 'L call 127.0.0.1 4002 from to' >/dev/null
        ask /run/rtpproxy/rtpproxy.sock 'R call from to'
        stat --format %U:%G:%a /run/rtpproxy/rtpproxy.sock /var/lib/rtpproxy/recordings
        pid=$(systemctl show --property MainPID --value rtpproxy)
        awk '/^CapEff|^Seccomp:|^NoNewPrivs/ { print $1 $2 }' /proc/$pid/status

        # A drain waits for the call, ends with it, and is no failure.
        systemctl kill --signal=HUP rtpproxy
        sleep 0.5
        systemctl is-active rtpproxy
        ask /run/rtpproxy/rtpproxy.sock 'D call from to'
        while systemctl --quiet is-active rtpproxy; do sleep 0.1; done
        systemctl is-active rtpproxy
        ls /var/lib/rtpproxy/recordings

        # The socket starts it again.
        sed -i 's/^control = \\[/&"systemd:", /' /etc/rtpproxy/rtpproxy.toml
        systemctl start rtpproxy.socket
        stat --format %U:%G:%a /run/rtpproxy-lines.sock
        ask /run/rtpproxy-lines.sock V
        systemctl is-active rtpproxy

        dpkg --purge rtpproxy >/dev/null 2>&1
        systemctl is-active rtpproxy rtpproxy.socket
        ls /usr/bin/rtpproxy /etc/rtpproxy/rtpproxy.toml /var/lib/rtpproxy/recordings 2>/dev/null
        """,
    )
    assert lines == [
        "20040107",
        "0",
        "rtpproxy:rtpproxy:770",
        "rtpproxy:rtpproxy:750",
        "CapEff:0000000000000000",
        "NoNewPrivs:1",
        "Seccomp:2",
        "active",
        "0",
        "inactive",
        "call=from.json",
        "call=from.pcapng",
        "rtpproxy:rtpproxy:660",
        "20040107",
        "active",
        # Without the package, the recordings are still there.
        "inactive",
        "inactive",
        "/var/lib/rtpproxy/recordings:",
        "call=from.json",
        "call=from.pcapng",
    ]
