"""File systems of the tests: small, and broken on purpose."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.tools import need

MEGABYTE = 1 << 20
EXT4_IOC_SHUTDOWN = 0x8004587D


class Disk:
    """A mounted file system with a folder for recordings."""

    def __init__(self, mount_point: Path) -> None:
        self.mount_point = mount_point
        self.recordings = mount_point / "calls"
        self.recordings.mkdir()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Whoever writes to it waits, as with a network disk whose server is gone."""
        _run("fsfreeze", "-f", str(self.mount_point))
        try:
            yield
        finally:
            _run("fsfreeze", "-u", str(self.mount_point))

    @contextmanager
    def full(self, left: int = 0) -> Iterator[None]:
        """Somebody else takes all of it but so many bytes."""
        ballast = self.mount_point / "ballast"
        with ballast.open("wb", buffering=0) as file:
            # Piece by piece, as the relay takes some of it meanwhile.
            while self._free() > left:
                try:
                    file.write(bytes(min(self._free() - left, MEGABYTE)))
                except OSError:
                    break
        try:
            yield
        finally:
            ballast.unlink()

    def _free(self) -> int:
        status = os.statvfs(self.mount_point)
        return status.f_bavail * status.f_frsize

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written, as after an error of the disk."""
        _run("mount", "-o", "remount,ro", str(self.mount_point))
        try:
            yield
        finally:
            _run("mount", "-o", "remount,rw", str(self.mount_point))

    def break_down(self) -> None:
        """Every access fails from now on, as when a disk is pulled out; what was written is on it."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            # The flag 0: first everything goes to the disk.
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, bytes(4))
        finally:
            os.close(descriptor)

    def mount_again(self, image: Path) -> None:
        """The disk of a file is back, as after a repair."""
        _run("umount", "-l", str(self.mount_point))
        _run("mount", "-o", "loop", str(image), str(self.mount_point))


@contextmanager
def in_memory(folder: Path, size: int) -> Iterator[Disk]:
    """A disk of so many bytes in memory."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "none") as disk:
        yield disk


@contextmanager
def on_file(folder: Path, size: int) -> Iterator[Disk]:
    """A disk of so many bytes with ext4, which can be frozen."""
    need("mkfs.ext4", "fsfreeze")
    image = folder.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(size)
    _run("mkfs.ext4", "-q", str(image))
    with _mounted(folder, "-o", "loop", str(image)) as disk:
        yield disk
    image.unlink()


@contextmanager
def _mounted(folder: Path, *arguments: str) -> Iterator[Disk]:
    folder.mkdir()
    mount = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
    if mount.returncode != 0:
        pytest.skip(f"this machine does not let us mount: {mount.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        # Lazily, as a relay that failed may still be there.
        _run("umount", "-l", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
