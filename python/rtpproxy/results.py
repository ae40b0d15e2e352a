"""What the calls return."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

__all__ = [
    "Event",
    "Info",
    "Leg",
    "Recording",
    "RecordingChange",
    "RecordingEvent",
    "RecordingState",
    "Stats",
    "TimeoutEvent",
]

RecordingState: TypeAlias = Literal["starting", "recording", "degraded", "paused", "finished", "failed"]
"""How a recording is doing (docs/recording.md, states)."""

RecordingChange: TypeAlias = Literal[
    "started", "degraded", "paused", "resumed", "rotated", "finished", "failed"
]
"""What became of a recording (docs/recording.md, events)."""


@dataclass(frozen=True, slots=True)
class Leg:
    """Where one party of a call has to send its media."""

    port: int
    """The RTP port; RTCP is one above."""
    address: str | None
    """The address, or ``None`` if the relay listens on the wildcard address."""
    ipv6: bool
    """True if the address is an IPv6 address."""


@dataclass(frozen=True, slots=True)
class Stats:
    """The figures of one session; packets are RTP packets."""

    ttl_s: int
    """Seconds until the session ends if no more media comes."""
    packets_from: int
    """Packets received from the party of `from_tag`."""
    packets_to: int
    """Packets received from the other party."""
    relayed: int
    """Packets relayed, in both directions."""
    dropped: int
    """Packets dropped, in both directions."""


@dataclass(frozen=True, slots=True)
class Info:
    """The figures of a relay; packets are RTP and RTCP packets."""

    sessions_created: int
    """Sessions created since the start."""
    sessions_active: int
    """Sessions now."""
    streams_active: int
    """RTP streams now, two a session."""
    packets_received: int
    """Packets received since the start."""
    packets_transmitted: int
    """Packets sent since the start."""


@dataclass(frozen=True, slots=True)
class TimeoutEvent:
    """A session ended because no media came."""

    tag: str
    """What ``start(notify=…)`` was given."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording as it was when it was asked for; packets are RTP and RTCP packets."""

    number: int
    """Counts the recordings of the relay, from 1."""
    state: RecordingState
    """How it is doing."""
    cause: str | None
    """Why it is degraded or failed."""
    call_id: str
    """The call; cut after 256 characters."""
    from_tag: str
    """The tag that the session was started with, likewise."""
    to_tag: str | None
    """The other tag, once known."""
    leg: Literal["caller", "callee"] | None
    """Whose packets, if not both parties'."""
    requested: datetime
    """When it was asked for, UTC."""
    file: Path | None
    """Its first file, by the name it has now, on the machine of the relay."""
    sidecar: Path | None
    """The JSON file beside it, once it is there."""
    packets: int
    """Packets recorded."""
    bytes: int
    """Their payload."""
    dropped: int
    """Packets that should be in the file and are not."""
    gaps: int
    """Places in the file where packets are missing."""

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """From what the relay tells; a newer one may tell more."""
        known = {name: fields[name] for name in cls.__slots__}
        for name in ("file", "sidecar"):
            known[name] = known[name] and Path(known[name])
        # Python keeps microseconds.
        known["requested"] = datetime.fromisoformat(known["requested"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class RecordingEvent:
    """Something became of a recording."""

    change: RecordingChange
    """What."""
    at: datetime
    """When, UTC."""
    was: RecordingState
    """The state before."""
    recording: Recording
    """The recording, with the state that it has now."""

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """From what the relay tells; a newer one may tell more."""
        at = datetime.fromisoformat(fields["at"])
        return cls(fields["event"], at, fields["was"], Recording.from_dict(fields))


Event: TypeAlias = TimeoutEvent | RecordingEvent
"""What :meth:`Calls.events() <rtpproxy.Calls.events>` yields."""
