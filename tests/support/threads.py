"""Threads of a relay that are stopped one by one, while the others go on."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
WALL = 0x40000000
"""Waits for threads too."""


def thread_named(pid: int, name: str) -> int:
    """The id of the one thread of a process with that name."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    [found] = [task for task in tasks if (task / "comm").read_text().strip() == name]
    return int(found.name)


@contextmanager
def stopped(pid: int, name: str) -> Iterator[None]:
    """A thread stands still, as one that the machine gives no time to; all others run."""
    thread = thread_named(pid, name)
    _ptrace(PTRACE_SEIZE, thread)
    try:
        _ptrace(PTRACE_INTERRUPT, thread)
        os.waitpid(thread, WALL)
        assert Path(f"/proc/{pid}/task/{thread}/stat").read_text().rsplit(")", 1)[1].split()[0] == "t"
        yield
    finally:
        _ptrace(PTRACE_DETACH, thread)


def _ptrace(request: int, thread: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, thread, None, None) != 0:
        error = os.strerror(ctypes.get_errno())
        if request == PTRACE_SEIZE:
            pytest.skip(f"this machine does not let us stop a thread: {error}")
        raise OSError(error)
