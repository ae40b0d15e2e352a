"""SIP phones played by sipp, each with a scenario put together from steps."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from xml.sax.saxutils import quoteattr

import pytest
from scapy.utils import RawPcapReader

from support.daemon import wait_until
from support.phone import Media
from support.tools import need

HOST = "127.0.0.1"
CAPTURES = Path("/usr/share/sip-tester")
ETHERNET_IPV4_UDP = 14 + 20 + 8
# Below the ports of the relays, and a block for each pytest worker.
FIRST_PORT = 10000
PORTS = 2000


def captured(name: str) -> list[bytes]:
    """The RTP packets of a capture that comes with sipp, as they were on the wire above UDP."""
    with RawPcapReader(str(capture(name))) as reader:
        return [frame[ETHERNET_IPV4_UDP:] for frame, _ in reader]


def capture(name: str) -> Path:
    """A capture that comes with sipp."""
    need("sipp")
    path = CAPTURES / name
    if not path.exists():
        pytest.skip(f"this sipp came without {path}")
    return path


def need_raw_sockets() -> None:
    """Skips a test in which sipp plays captures, if it may not: it sends them through a raw socket."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP).close()
    except PermissionError:
        pytest.skip("sipp plays captures only as root: it needs raw sockets")


class Step(ABC):
    """A part of a scenario."""

    @abstractmethod
    def xml(self) -> str:
        """As sipp reads it."""


@dataclass(frozen=True)
class Invite(Step):
    """Calls, or changes the call that is up; and acknowledges the answer."""

    sequence: int = 1
    on_hold: bool = False
    has_video: bool = False
    media: Media | None = None
    """Where this phone wants to hear, if not at a port of sipp."""
    offer_in_reply: bool = False
    """The other party makes the offer, and the answer is in the acknowledgement."""

    def xml(self) -> str:
        sdp = _sdp(self)
        offer, answer = ("", sdp) if self.offer_in_reply else (sdp, "")
        return (
            _invite(self.sequence, offer)
            + f'<recv response="200" rrs="true"><action>{_KEEP_TARGET}{_LOG_MEDIA}</action></recv>'
            + _send("ACK [$target] SIP/2.0", _request(self.sequence, "ACK"), answer, retransmit=False)
        )


@dataclass(frozen=True)
class RefusedInvite(Step):
    """Calls, or changes the call that is up, and is refused."""

    status: int
    sequence: int = 1
    media: Media | None = None
    on_hold = False
    has_video = False

    def xml(self) -> str:
        return (
            _invite(self.sequence, _sdp(self))
            + f'<recv response="{self.status}"/>'
            + _acknowledge_failure(self.sequence, back=5)
        )


@dataclass(frozen=True)
class CancelledInvite(Step):
    """Calls, and gives up while the other phone rings."""

    media: Media | None = None
    on_hold = False
    has_video = False

    def xml(self) -> str:
        return (
            _send(f"INVITE {_CALLEE} SIP/2.0", _request(1, "INVITE", ""), _sdp(self))
            + '<recv response="100" optional="true"/><recv response="180"/>'
            + _send(f"CANCEL {_CALLEE} SIP/2.0", _request(1, "CANCEL", "", branch="[branch-3]"))
            + '<recv response="200"/><recv response="487"/>'
            + _acknowledge_failure(1, back=6)
        )


@dataclass(frozen=True)
class Answer(Step):
    """Takes a call, or a later change of it."""

    is_change: bool = False
    on_hold: bool = False
    has_video: bool = False
    media: Media | None = None
    """Where this phone wants to hear, if not at a port of sipp."""
    is_offer: bool = False
    """The call came without an offer, so that the answer comes in the acknowledgement."""

    def xml(self) -> str:
        headers = _response("" if self.is_change else _NEW_TAG)
        ring = "" if self.is_change else _send("SIP/2.0 180 Ringing", headers, retransmit=False)
        answer = _send("SIP/2.0 200 OK", headers, _sdp(self))
        log = f"<action>{_LOG_MEDIA}</action>"
        if self.is_offer:
            return f'<recv request="INVITE"/>{ring}{answer}<recv request="ACK">{log}</recv>'
        return f'<recv request="INVITE">{log}</recv>{ring}{answer}<recv request="ACK"/>'


@dataclass(frozen=True)
class EarlyAnswer(Step):
    """Talks before it takes the call: at the mark `answer`. For a phone behind a SIP proxy."""

    media: Media
    on_hold = False
    has_video = False

    def xml(self) -> str:
        return (
            f'<recv request="INVITE"><action>{_KEEP_HEADERS}{_LOG_MEDIA}</action></recv>'
            + _send("SIP/2.0 183 Session Progress", _KEPT_HEADERS, _sdp(self), retransmit=False)
            + Mark("answer").xml()
            + _send("SIP/2.0 200 OK", _KEPT_HEADERS, _sdp(self))
            + '<recv request="ACK"/>'
        )


@dataclass(frozen=True)
class Refuse(Step):
    """Takes no call, or no change of it."""

    status: int
    is_change: bool = False

    def xml(self) -> str:
        headers = _response("" if self.is_change else _NEW_TAG)
        refusal = _send(f"SIP/2.0 {self.status} No", headers)
        return f'<recv request="INVITE"/>{refusal}<recv request="ACK"/>'


@dataclass(frozen=True)
class Cancelled(Step):
    """Rings until the caller gives up. For a phone behind a SIP proxy."""

    def xml(self) -> str:
        return (
            f'<recv request="INVITE"><action>{_KEEP_HEADERS}</action></recv>'
            + _send("SIP/2.0 180 Ringing", _KEPT_HEADERS, retransmit=False)
            + '<recv request="CANCEL"/>'
            + _send("SIP/2.0 200 OK", _response(_NEW_TAG), retransmit=False)
            + _send("SIP/2.0 487 Request Terminated", _KEPT_HEADERS)
            + '<recv request="ACK"/>'
        )


@dataclass(frozen=True)
class Play(Step):
    """Plays a capture and waits for its end."""

    capture: Path
    seconds: float
    medium: str = "audio"

    def xml(self) -> str:
        play = f"<exec play_pcap_{self.medium}={quoteattr(str(self.capture))}/>"
        return f'<nop><action>{play}</action></nop><pause milliseconds="{round(self.seconds * 1000)}"/>'


@dataclass(frozen=True)
class Mark(Step):
    """Waits until the test lets the phone go on from here."""

    name: str

    def xml(self) -> str:
        log = f"<log message={quoteattr(self.name)}/>"
        return f"<nop><action>{log}</action></nop><recv request={quoteattr(self.name)}/>"


@dataclass(frozen=True)
class HangUp(Step):
    """Ends the call."""

    sequence: int = 9

    def xml(self) -> str:
        return _send("BYE [$target] SIP/2.0", _request(self.sequence, "BYE")) + '<recv response="200"/>'


class HungUp(Step):
    """Waits for the other party to end the call."""

    def xml(self) -> str:
        return '<recv request="BYE"/>' + _send("SIP/2.0 200 OK", _response(), retransmit=False)


class Sipp:
    """A phone in a process of its own, that takes or makes `calls` calls and ends."""

    _names = itertools.count(1)

    def __init__(
        self,
        folder: Path,
        *steps: Step,
        remote: tuple[str, int] | None = None,
        calls: int = 1,
        echo: bool = False,
        call_id: str | None = None,
        host: str = HOST,
    ) -> None:
        need("sipp")
        self._name = f"phone-{next(self._names)}"
        self._folder = folder
        self._host = host
        self.call_id = call_id or f"%u-{self._name}"
        self.port = free_port()
        self.media_port = free_port(1 if remote is None else 4 * calls)
        scenario = folder / f"{self._name}.xml"
        text = "\n".join(step.xml() for step in steps)
        # sipp refuses variables that are set but not used, and references to those that are not set.
        unused = '<Reference variables="all"/>' if "all," in text else ""
        scenario.write_text(_SCENARIO.format(text, unused))
        command = ["sipp", "-sf", str(scenario), "-m", str(calls), "-l", str(calls), "-r", str(calls)]
        command += ["-i", host, "-p", str(self.port), "-mi", host, "-mp", str(self.media_port)]
        command += ["-ci", HOST, "-cp", str(free_port()), "-nostdin", "-cid_str", self.call_id]
        command += ["-trace_logs", "-log_file", str(self._file("marks"))]
        command += ["-trace_err", "-error_file", str(self._file("errors"))]
        command += ["-timeout", "60s", "-timeout_error"]
        command += ["-rtp_echo"] if echo else []
        command += [authority(*remote)] if remote else []
        with self._file("screen").open("wb") as screen:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=screen,
                cwd=folder,
                env={**os.environ, "TERM": "dumb"},
            )
        if remote is None:
            wait_until(lambda: self._process.poll() is not None or _is_taken(self.port, host), "sipp listens")

    def await_mark(self, mark: str) -> None:
        """Waits until the phone has come to a mark, where it stays."""
        wait_until(lambda: mark in self._read("marks") or self._has_ended(), f"sipp comes to {mark!r}")
        assert mark in self._read("marks"), self.trace()

    def go(self, mark: str, call_id: str | None = None) -> None:
        """Waits until the phone, which has one call, has come to a mark, and lets it go on.

        One that is called needs the id of the call.
        """
        self.await_mark(mark)
        call_id = call_id or self.call_id.replace("%u", "1")
        message = f"{mark} sip:phone SIP/2.0\r\nCall-ID: {call_id}\r\nCSeq: 1 {mark}\r\n"
        message += f"Via: SIP/2.0/UDP {HOST}:9;branch=z9hG4bK-{mark}\r\nFrom: <sip:test>;tag=1\r\n"
        message += "To: <sip:phone>\r\nContent-Length: 0\r\n\r\n"
        with socket.socket(_family(self._host), socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), (self._host, self.port))

    def told(self) -> list[Media]:
        """Where the other party wants to hear, as the SDP that came says, one entry for each."""
        lines = [line.split() for line in self._read("marks").splitlines() if line.startswith("media ")]
        return [Media(host, int(port)) for _, host, port in lines]

    def finish(self) -> None:
        """Waits for the end of the phone, which must have done all its steps."""
        wait_until(self._has_ended, "sipp ends", seconds=60)
        assert self._process.returncode == 0, self.trace()

    def trace(self) -> str:
        """What the phone found wrong."""
        return f"status {self._process.poll()}\n{self._read('errors')}\n{self._read('screen')[-3000:]}"

    def close(self) -> None:
        """Ends the phone in any case."""
        self._process.kill()
        self._process.wait()

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _file(self, kind: str) -> Path:
        return self._folder / f"{self._name}.{kind}"

    def _read(self, kind: str) -> str:
        path = self._file(kind)
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_port(count: int = 1) -> int:
    """The first of so many UDP ports, and one more pair for the video that sipp opens too, free now."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    block = FIRST_PORT + worker % 4 * PORTS
    span = count + 4
    for _ in range(PORTS):
        first = block + next(_offsets) * 4 % (PORTS - span)
        if not any(_is_taken(port) for port in range(first, first + span)):
            for _ in range(span // 4):
                next(_offsets)
            return first
    raise AssertionError("no free ports")


def authority(host: str, port: int) -> str:
    """As URIs and options name it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_taken(port: int, host: str = HOST) -> bool:
    with socket.socket(_family(host), socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _send(first_line: str, headers: str, body: str = "", retransmit: bool = True) -> str:
    content = "Content-Type: application/sdp\n" if body else ""
    message = f"{first_line}\n{headers}\n{content}Content-Length: [len]\n\n{body}"
    attribute = ' retrans="500"' if retransmit else ""
    return f"<send{attribute}><![CDATA[\n{message}\n]]></send>"


def _invite(sequence: int, sdp: str) -> str:
    if sequence == 1:
        first_line, to_tag = f"INVITE {_CALLEE} SIP/2.0", ""
    else:
        first_line, to_tag = "INVITE [$target] SIP/2.0", "[peer_tag_param]"
    return (
        _send(first_line, _request(sequence, "INVITE", to_tag), sdp)
        + '<recv response="100" optional="true"/><recv response="180" optional="true"/>'
        + f'<recv response="183" optional="true"><action>{_LOG_MEDIA}</action></recv>'
    )


def _acknowledge_failure(sequence: int, back: int) -> str:
    """An ACK that belongs to the transaction of the INVITE so many steps before."""
    target = _CALLEE if sequence == 1 else "[$target]"
    headers = _request(sequence, "ACK", branch=f"[branch-{back}]")
    return _send(f"ACK {target} SIP/2.0", headers, retransmit=False)


def _request(sequence: int, method: str, to_tag: str = "[peer_tag_param]", branch: str = "[branch]") -> str:
    return "\n".join(
        [
            f"Via: SIP/2.0/UDP [local_ip]:[local_port];branch={branch}",
            "[routes]",
            "From: <sip:caller@[local_ip]:[local_port]>;tag=[pid]caller[call_number]",
            f"To: <{_CALLEE}>{to_tag}",
            "Call-ID: [call_id]",
            f"CSeq: {sequence} {method}",
            "Contact: <sip:caller@[local_ip]:[local_port]>",
            "Max-Forwards: 70",
        ]
    )


def _response(to_tag: str = "") -> str:
    return "\n".join(
        [
            "[last_Via:]",
            "[last_Record-Route:]",
            "[last_From:]",
            f"[last_To:]{to_tag}",
            "[last_Call-ID:]",
            "[last_CSeq:]",
            "Contact: <sip:callee@[local_ip]:[local_port]>",
        ]
    )


def _sdp(step: Invite | RefusedInvite | CancelledInvite | Answer | EarlyAnswer) -> str:
    host, port = "[media_ip]", "auto_media_port" if isinstance(step, Invite) else "media_port"
    audio = f"[{port}]"
    if step.media is not None:
        host, audio = step.media.host, str(step.media.port)
    family = "IP6" if ":" in host else "IP4"
    if step.on_hold:
        host = "0.0.0.0"
    video = [f"m=video [{port}+2] RTP/AVP 34"] if step.has_video else []
    return "\n".join(
        [
            "v=0",
            "o=phone 1 1 IN IP[media_ip_type] [media_ip]",
            "s=-",
            f"c=IN {family} {host}",
            "t=0 0",
            f"m=audio {audio} RTP/AVP 8 101",
            "a=rtpmap:101 telephone-event/8000",
            "a=sendrecv",
            *video,
        ]
    )


_CALLEE = "sip:callee@[remote_ip]:[remote_port]"
_NEW_TAG = ";tag=[pid]callee[call_number]"
_KEEP_TARGET = '<ereg regexp="sip:[^&gt;]*" search_in="hdr" header="Contact:" assign_to="target"/>'
_LOG_MEDIA = (
    '<ereg regexp="c=IN IP[46] ([0-9a-f.:]+)" search_in="body" assign_to="all,host"/>'
    '<ereg regexp="m=audio ([0-9]+)" search_in="body" assign_to="all,port"/>'
    '<log message="media [$host] [$port]"/>'
)
# What a later response to an INVITE needs once other requests came. Of the Vias one is the SIP proxy's.
_KEPT = [("Via", 1), ("Via", 2), ("Record-Route", 1), ("From", 1), ("To", 1)]
_KEEP_HEADERS = "".join(
    f'<ereg regexp=".*" search_in="hdr" header="{name}:" occurrence="{number}"'
    f' assign_to="{name.lower()}{number}"/>'
    for name, number in _KEPT
)
_KEPT_HEADERS = "\n".join(
    [
        *(f"{name}:[${name.lower()}{number}]" for name, number in _KEPT[:-1]),
        f"To:[$to1]{_NEW_TAG}",
        "[last_Call-ID:]",
        "CSeq: 1 INVITE",
        "Contact: <sip:callee@[local_ip]:[local_port]>",
    ]
)
_SCENARIO = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="phone">
{}
{}
</scenario>
"""
_offsets = itertools.count()
