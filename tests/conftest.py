"""Options and fixtures of the black-box tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, StartDaemon
from support.phone import Call, MakeCall


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="larger numbers and longer times")


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether the caller has time."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    """Starts relays, in folders of their own; at the end of the test each must still run and end well."""
    daemons: list[Daemon] = []

    def start(*options: str | Path, **settings: Any) -> Daemon:
        daemon = Daemon(tmp_path / f"daemon-{len(daemons)}", *options, **settings)
        daemons.append(daemon)
        return daemon

    yield start
    faults = []
    for daemon in daemons:
        status = daemon.stop()
        if status != 0 or "panicked" in daemon.log():
            faults.append(f"exit status {status}, log:\n{daemon.log()}")
    assert not faults, "\n".join(faults)


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    """A relay with the defaults."""
    return start_daemon()


@pytest.fixture
def make_call() -> Iterator[MakeCall]:
    """Sets up calls between two phones each."""
    with ExitStack() as stack:
        yield lambda daemon, *arguments, **settings: stack.enter_context(Call(daemon, *arguments, **settings))
