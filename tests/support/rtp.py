"""RTP packets as tests look at them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Rtp:
    """The fields of a packet with the plain header of 12 bytes."""

    marker: bool
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes

    @classmethod
    def parse(cls, packet: bytes) -> Self:
        """A packet of version 2 without padding, extension and contributing sources."""
        first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", packet)
        assert first == 0x80, packet[:12].hex()
        return cls(second >= 0x80, second & 0x7F, sequence, timestamp, ssrc, packet[12:])
