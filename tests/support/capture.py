"""Reads recordings without any code of the project: frames by scapy, the adhoc format by hand."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scapy.utils import RawPcapNgReader, RawPcapReader

Address = tuple[str, int]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Unpacked = tuple[IpAddress, IpAddress, bytes]

ETHERNET = 1
SYNTHETIC = "synthetic"
"""The interface of frames that the recorder made up."""


@dataclass(frozen=True)
class Captured:
    """A packet of a recording."""

    time_ns: int
    """Since the epoch."""
    source: Address
    destination: Address | None
    """`None` where the format has no place for it."""
    payload: bytes
    interface: str | None
    comments: tuple[str, ...] = ()


def read(path: Path) -> list[Captured]:
    """All packets of a recording, in order, without the frames that the recorder made up."""
    return [packet for packet in read_all(path) if packet.interface != SYNTHETIC]


def read_all(path: Path) -> list[Captured]:
    """All packets and frames of a recording, in order."""
    readers = {".pcapng": _read_pcapng, ".pcap": _read_pcap, ".rtp": _read_adhoc, ".rtcp": _read_adhoc}
    return list(readers[path.suffix](path))


def payloads(packets: Iterable[Captured]) -> list[bytes]:
    """What was on the wire above UDP."""
    return [packet.payload for packet in packets]


def sidecar(path: Path) -> Any:
    """What the JSON file beside a recording says, once its checksum is found right."""
    report = json.loads(path.with_suffix(".json").read_text())
    name = os.fsencode(path.name).decode(errors="replace")
    entry = next(file for file in report["files"] if file["name"] == name)
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry["size"] == path.stat().st_size
    return report


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def _read_pcapng(path: Path) -> Iterator[Captured]:
    with RawPcapNgReader(str(path)) as reader:
        for frame, untyped in reader:
            metadata: Any = untyped
            assert metadata.linktype == ETHERNET
            assert metadata.wirelen == len(frame)
            ticks = metadata.tshigh << 32 | metadata.tslow
            assert 10**9 % metadata.tsresol == 0
            yield _packet(
                frame,
                ticks * (10**9 // metadata.tsresol),
                (metadata.ifname or b"").decode(),
                tuple(comment.decode() for comment in metadata.comments or ()),
            )


def _read_pcap(path: Path) -> Iterator[Captured]:
    with RawPcapReader(str(path)) as reader:
        assert reader.linktype == ETHERNET
        for frame, metadata in reader:
            assert metadata.wirelen == len(frame)
            time_ns = metadata.sec * 10**9 + metadata.usec * (1 if reader.nano else 1000)
            yield _packet(frame, time_ns, None, ())


def _read_adhoc(path: Path) -> Iterator[Captured]:
    data = path.read_bytes()
    position = 0
    while position < len(data):
        (family,) = struct.unpack_from("=H", data, position)
        (port,) = struct.unpack_from("!H", data, position + 2)
        size = {2: 4, 10: 16}[family]
        host = ipaddress.ip_address(data[position + 4 : position + 4 + size])
        seconds, length = struct.unpack_from("=dH", data, position + 20)
        payload = data[position + 30 : position + 30 + length]
        assert len(payload) == length, "cut short"
        yield Captured(int(seconds * 10**9), (str(host), port), None, payload, None)
        position += 30 + length


def _packet(frame: bytes, time_ns: int, interface: str | None, comments: tuple[str, ...]) -> Captured:
    ether_type = struct.unpack_from("!H", frame, 12)[0]
    ip = frame[14:]
    source, destination, udp = {0x0800: _ipv4, 0x86DD: _ipv6}[ether_type](ip)
    source_port, destination_port, length = struct.unpack_from("!HHH", udp)
    assert length == len(udp)
    pseudo_header = source.packed + destination.packed + struct.pack("!IHH", length, 0, 17)
    assert _checksum(pseudo_header + udp) == 0, "UDP checksum"
    return Captured(
        time_ns,
        (str(source), source_port),
        (str(destination), destination_port),
        udp[8:],
        interface,
        comments,
    )


def _ipv4(ip: bytes) -> Unpacked:
    assert ip[0] == 0x45
    assert ip[9] == 17
    assert struct.unpack_from("!H", ip, 2)[0] == len(ip)
    assert _checksum(ip[:20]) == 0, "IPv4 checksum"
    return ipaddress.IPv4Address(ip[12:16]), ipaddress.IPv4Address(ip[16:20]), ip[20:]


def _ipv6(ip: bytes) -> Unpacked:
    assert ip[0] >> 4 == 6
    assert ip[6] == 17
    assert struct.unpack_from("!H", ip, 4)[0] == len(ip) - 40
    return ipaddress.IPv6Address(ip[8:24]), ipaddress.IPv6Address(ip[24:40]), ip[40:]


def _checksum(data: bytes) -> int:
    """The complement of the ones' complement sum: zero for data that holds its right checksum."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
