"""What `extractaudio` makes of packets: its rules once more, plainly, to compare the program with."""

from __future__ import annotations

import array
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from G722 import G722

from support import g711

CYCLE = 1 << 32
CLOCKS = dict.fromkeys((0, 3, 4, 5, 7, 8, 9, 12, 13, 15, 18), 8000) | {
    6: 16000,
    10: 44100,
    11: 44100,
    14: 90000,
    16: 11025,
    17: 22050,
}
PLAYED = {0, 3, 4, 8, 9, 18}
"""Payload types whose packets are put into an order, of which type 4 is silent."""


class Misplaced(Exception):
    """A sequence number that makes a recording unusable."""


@dataclass(frozen=True)
class Heard:
    """An RTP packet and its arrival in seconds since the epoch."""

    at: float
    marker: bool
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes

    @classmethod
    def parse(cls, at: float, packet: bytes) -> Heard | None:
        """The packet, if it is one."""
        if len(packet) < 12 or packet[0] >> 6 != 2:
            return None
        start, end = 12 + 4 * (packet[0] & 15), len(packet)
        if packet[0] & 0x10:
            if end < start + 4:
                return None
            start += 4 + 4 * struct.unpack_from("!H", packet, start + 2)[0]
        if packet[0] & 0x20 and end > start:
            if packet[-1] == 0:
                return None
            end -= packet[-1]
        elif packet[0] & 0x20:
            return None
        if start > end:
            return None
        kind, sequence, timestamp, ssrc = struct.unpack_from("!xBHII", packet)
        return cls(at, kind > 127, kind & 127, sequence, timestamp, ssrc, packet[start:end])


class Side:
    """A recording of what one party sent."""

    def __init__(self, packets: Iterable[tuple[float, bytes]]) -> None:
        self.channels: dict[int, list[Heard]] = {}
        self.analyzer = Analyzer()
        for at, packet in packets:
            heard = Heard.parse(at, packet)
            if heard is None:
                continue
            self.analyzer.packet(heard)
            if heard.payload and heard.payload_type in PLAYED:
                insert(self.channels.setdefault(heard.ssrc, []), heard)


def insert(channel: list[Heard], packet: Heard) -> None:
    """From the tail on, behind the first packet that is before this one."""
    for place in range(len(channel), 0, -1):
        before = channel[place - 1]
        if before.sequence == packet.sequence:
            return
        if before.timestamp < packet.timestamp or before.sequence < packet.sequence:
            channel.insert(place, packet)
            return
    channel.insert(0, packet)


def extracted(answer: Side, caller: Side, *, sync: bool) -> list[tuple[int, int]]:
    """The samples of both parties side by side."""
    starts = [channel[0].at for side in (answer, caller) for channel in side.channels.values()]
    voices = [
        (side, int((channel[0].at - min(starts)) * 8000) if sync else 0, voice(channel, sync=sync))
        for side, party in enumerate((answer, caller))
        for channel in sorted(party.channels.values(), key=lambda channel: channel[0].at)
    ]
    samples: list[tuple[int, int]] = []
    while voices:
        frame: list[int | None] = [None, None]
        for entry in list(voices):
            side, skip, channel = entry
            if skip > len(samples) or (not sync and frame[side] is not None):
                continue
            sample = next(channel, None)
            if sample is None:
                voices.remove(entry)
            else:
                other = frame[side]
                frame[side] = sample if other is None else half(sample + other)
        if voices:
            samples.append((frame[0] or 0, frame[1] or 0))
    return samples


def half(value: int) -> int:
    """Half of it, towards zero."""
    return int(value / 2)


def voice(packets: list[Heard], *, sync: bool) -> Iterator[int]:
    """The samples of one source."""
    expected = reference = packets[0].timestamp
    start = packets[0].at
    made = 0
    g722 = G722(8000, 64000)
    pending = list(packets)
    while pending:
        packet = pending[0]
        elapsed = packet.at - start
        if (packet.timestamp - reference) % CYCLE // 8000 > elapsed + 1:
            expected = packet.timestamp
            reference = int(packet.timestamp - elapsed * 8000) % CYCLE
        # More than half a cycle ahead is behind: the timestamps have wrapped.
        if 0 < packet.timestamp - expected <= CYCLE // 2:
            gap = min(packet.timestamp - expected, 4000)
            expected = (expected + gap) % CYCLE
        elif elapsed - made / 8000 > 0.2:
            gap = min(int((elapsed * 8000 - made) / 2), 4000)
        else:
            pending.pop(0)
            samples = decoded(packet, g722)[:4096]
            expected = (expected + len(samples)) % CYCLE
            made += len(samples)
            yield from samples
            continue
        made += gap
        if sync:
            yield from [0] * gap


def decoded(packet: Heard, g722: G722) -> list[int]:
    """The samples of a packet of a codec that needs no library."""
    if packet.payload_type == 0:
        return g711.from_mu_law_without_zero(packet.payload)
    if packet.payload_type == 8:
        return g711.from_a_law(packet.payload)
    if packet.payload_type == 9:
        return list(array.array("h", g722.decode(packet.payload)))
    return []


@dataclass
class Analyzer:
    """The figures of a party, by sequence numbers as they come."""

    ssrc: int | None = None
    changes: int = 0
    offset: int = 0
    minimum: int = 0
    maximum: int = 0
    count: int = 0
    doubles: int = 0
    seen: set[int] = field(default_factory=set)
    sent: int = 0
    received: int = 0
    meters: list[Meter] = field(default_factory=list)
    lost_meters: list[Meter] = field(default_factory=list)

    def packet(self, packet: Heard) -> None:
        is_reset = self.count_in(packet)
        meter = next((meter for meter in self.meters if meter.ssrc == packet.ssrc), None)
        if meter is None:
            meter = Meter(packet.ssrc)
            self.meters.append(meter)
            if len(self.meters) > 10:
                self.lost_meters.append(self.meters.pop(0))
        if clock := CLOCKS.get(packet.payload_type):
            meter.packet(int(packet.at * clock), packet.timestamp, is_reset=is_reset)

    def count_in(self, packet: Heard) -> bool:
        """Whether the sender began a new sequence."""
        if packet.ssrc != self.ssrc:
            self.ssrc = packet.ssrc
            self.changes += 1
            self.restart(packet.sequence)
            return False
        position = packet.sequence + self.offset
        last = self.maximum % 65536
        if packet.marker and position < self.maximum and last != 65535:
            self.restart(position)
            return True
        # Number 0 starts a sequence anew, unless the one before it is about to wrap.
        is_reset = position == 0 and last < 65500
        if last < 536 and packet.sequence > 65000:
            position -= 65536
        elif self.maximum > 65000 and position < self.maximum - 65000:
            self.offset += 65536
            position += 65536
            self.seen = {place for place in self.seen if place // 65536 != position // 65536 % 2}
        elif abs(position - self.maximum) > 536:
            self.restart(position)
            return is_reset
        if position % 131072 in self.seen:
            self.doubles += 1
            return is_reset
        self.seen.add(position % 131072)
        self.maximum = max(self.maximum, position)
        if position < self.minimum:
            if self.offset:
                raise Misplaced
            self.minimum = position
        self.count += 1
        return is_reset

    def restart(self, position: int) -> None:
        self.fold()
        self.minimum = self.maximum = position
        self.count, self.doubles, self.seen = 1, 0, {position % 131072}

    def fold(self) -> None:
        self.sent, self.received = self.totals()

    def totals(self) -> tuple[int, int]:
        """Packets sent and received."""
        span = self.maximum - self.minimum + 1 if self.count else 0
        return self.sent + span, self.received + self.count

    def figures(self) -> list[str]:
        """The lines that are printed of it, without those of jitter."""
        sent, received = self.totals()
        return [
            f"pcount={self.count}, min_seq={self.minimum % CYCLE}, max_seq={self.maximum % CYCLE}, "
            f"seq_offset={self.offset}, ssrc=0x{self.ssrc or 0:08X}, duplicates={self.doubles}",
            f"ssrc_changes={self.changes}, psent={sent}, precvd={received}, plost={sent - received}",
        ]

    def jitter(self) -> str | None:
        """The line of the jitter, if that is known."""
        known = [meter for meter in self.lost_meters + self.meters if meter.counted > 1]
        if not known:
            return None
        last = next((meter.jitter for meter in reversed(self.meters) if meter.counted > 1), 0)
        mean = sum(meter.total for meter in known) / sum(meter.counted - 1 for meter in known)
        highest = max(meter.highest for meter in known)
        return f"last_jitter={last:f},average_jitter={mean:f},max_jitter={highest:f}"


@dataclass
class Meter:
    """The jitter of a source."""

    ssrc: int
    recent: list[int] = field(default_factory=list)
    arrival: int = 0
    timestamp: int = 0
    counted: int = 0
    jitter: float = 0
    highest: float = 0
    total: float = 0

    def packet(self, arrival: int, timestamp: int, *, is_reset: bool) -> None:
        if timestamp in self.recent:
            if self.counted == 1:
                self.arrival, self.timestamp = arrival, timestamp
            return
        self.recent = [*self.recent, timestamp][-10:]
        before = self.arrival, self.timestamp
        self.arrival, self.timestamp = arrival, timestamp
        if self.counted == 0:
            self.counted = 1
            return
        passed, ahead = abs(arrival - before[0]), timestamp - before[1]
        wrap = CYCLE if -ahead > CYCLE // 2 else 0
        is_leap = passed and not wrap and (-ahead > 50 * passed or ahead > 1024 * passed)
        if is_reset or is_leap:
            return
        deviation = abs((arrival - timestamp - wrap) - (before[0] - before[1]))
        self.counted += 1
        self.jitter += (deviation - self.jitter) / 16
        self.highest = max(self.highest, self.jitter)
        self.total += self.jitter
