"""The least of a SIP proxy that puts a relay into calls, as Kamailio does it."""

from __future__ import annotations

import re
import socket
import threading
from typing import Self

from interop.sipp import HOST, free_port
from support.control import Control
from support.phone import Media

WAKE_UP_S = 0.1


class SipProxy:
    """Passes messages between callers and `callee` on, with the addresses in SDP replaced by the relay's.

    It sends `U` for an offer, `L` for an answer, `R` after an answer if told to, and `D` after the end of a
    call, and keeps what `Q` said before that. It owns `control`.
    """

    def __init__(self, control: Control, callee: tuple[str, int], record: bool = False) -> None:
        self._control = control
        self._callee = callee
        self._record = record
        self._callers: dict[str, tuple[str, int]] = {}
        self.port = free_port()
        self.stats: dict[str, list[int]] = {}
        """By call-id: seconds left, packets from the caller, from the callee, relayed, dropped."""
        self.tags: dict[str, tuple[str, str]] = {}
        self.errors: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, self.port))
        self._socket.settimeout(WAKE_UP_S)
        self._is_over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._is_over = True
        self._thread.join()
        self._socket.close()
        self._control.close()

    def _run(self) -> None:
        while not self._is_over:
            try:
                message, source = self._socket.recvfrom(65536)
            except TimeoutError:
                continue
            try:
                self._pass_on(message.decode(), source)
            except (AssertionError, OSError, ValueError) as error:
                self.errors.append(f"{error!r} for {message!r}")

    def _pass_on(self, message: str, source: tuple[str, int]) -> None:
        call_id = _header(message, "Call-ID")
        method = _header(message, "CSeq").split()[1]
        if source == self._callee:
            destination = self._callers[call_id]
            if method == "INVITE" and message.startswith("SIP/2.0 200"):
                message = self._answer(call_id, message)
            if method == "BYE":
                self._end(call_id)
        else:
            self._callers[call_id] = source
            destination = self._callee
            if method == "INVITE":
                message = self._offer(call_id, message)
        self._socket.sendto(message.encode(), destination)

    def _offer(self, call_id: str, message: str) -> str:
        media, codecs = _media(message)
        return _with_media(message, self._command(f"Uc{codecs} {call_id} {media} {_tag(message, 'From')}"))

    def _answer(self, call_id: str, message: str) -> str:
        media, codecs = _media(message)
        tags = _tag(message, "From"), _tag(message, "To")
        reply = self._command(f"Lc{codecs} {call_id} {media} {tags[0]} {tags[1]}")
        if self._record and call_id not in self.tags:
            assert self._command(f"R {call_id} {tags[0]} {tags[1]}") == "0"
        self.tags[call_id] = tags
        return _with_media(message, reply)

    def _end(self, call_id: str) -> None:
        tags = " ".join(self.tags[call_id])
        self.stats[call_id] = [int(value) for value in self._command(f"Q {call_id} {tags}").split()]
        assert self._command(f"D {call_id} {tags}") == "0"

    def _command(self, text: str) -> str:
        reply = self._control.command(text)
        assert not reply.startswith("E"), f"{text}: {reply}"
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _header(message: str, name: str) -> str:
    return _search(rf"(?m)^{name}: *(.*?)\r?$", message)


def _tag(message: str, name: str) -> str:
    return _search(r";tag=([^;]+)", _header(message, name))


def _media(message: str) -> tuple[Media, str]:
    port, formats = _search(r"m=audio (\d+) ", message), _search(r"m=audio \d+ RTP/AVP ([\d ]+)", message)
    return Media(_search(r"c=IN IP4 (\S+)", message), int(port)), ",".join(formats.split())


def _with_media(message: str, reply: str) -> str:
    media = Media.parse(reply)
    head, body = message.split("\r\n\r\n", 1)
    body = re.sub(r"c=IN IP4 \S+", f"c=IN IP4 {media.host}", body)
    body = re.sub(r"m=audio \d+", f"m=audio {media.port}", body)
    head = re.sub(r"Content-Length: *\d+", f"Content-Length: {len(body)}", head)
    return f"{head}\r\n\r\n{body}"


def _search(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, f"no {pattern} in {text}"
    return match[1]
