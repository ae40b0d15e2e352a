"""What the calls return."""

from dataclasses import dataclass

__all__ = ["Info", "Leg", "Stats", "TimeoutEvent"]


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
