"""What a relay has counted once calls are over."""

from __future__ import annotations

from support.daemon import Daemon, wait_until


def check_counters(
    daemon: Daemon, *, relayed: int, played: int = 0, sessions: int = 1, refused: int = 0
) -> None:
    """All sessions are gone, each packet is accounted for, and only so many commands were refused."""
    wait_until(lambda: daemon.counter("nsess_destroyed") == sessions, "the sessions are deleted")
    expected = {
        "nsess_created": sessions,
        "nsess_timeout": 0,
        "npkts_rcvd": relayed,
        "npkts_relayed": relayed,
        "npkts_played": played,
        "npkts_discard": 0,
        "ncmds_errs": refused,
    }
    assert {name: daemon.counter(name) for name in expected} == expected
    assert daemon.command("I", lines=5).splitlines()[1:3] == ["active sessions: 0", "active streams: 0"]
