"""Live taps: the packets of a call in Python while it goes on."""

import weakref
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, TypeAlias

if TYPE_CHECKING:
    from rtpproxy import _rtpproxy

__all__ = ["Tap", "TapPacket"]

_Rtp: TypeAlias = tuple[int, bool, int, int, int, int, int]


class TapPacket(NamedTuple):
    """A packet that came through a tap."""

    leg: Literal["caller", "callee"]
    """Who sent it. Of a :class:`~rtpproxy.Client` the caller is the party of `from_tag`."""
    channel: Literal["rtp", "rtcp"]
    """On which port."""
    time_ns: int
    """When, in nanoseconds since 1970. Of a :class:`~rtpproxy.Proxy`: when the kernel received it; of a
    :class:`~rtpproxy.Client`: when the copy arrived here."""
    source: tuple[str, int] | None
    """From which address and port; ``None`` of a :class:`~rtpproxy.Client`, as a copy does not tell."""
    destination: tuple[str, int] | None
    """To which address and port of the relay; likewise."""
    data: bytes
    """The datagram."""
    rtp: _Rtp | None = None
    """Its RTP header as a tuple, if it is RTP; the properties name its parts."""

    @property
    def is_rtp(self) -> bool:
        """True if it is an RTP packet; RTP ports carry others too."""
        return self.rtp is not None

    @property
    def payload_type(self) -> int | None:
        """The payload type, 0 to 127."""
        return None if self.rtp is None else self.rtp[0]

    @property
    def marker(self) -> bool | None:
        """The marker bit."""
        return None if self.rtp is None else self.rtp[1]

    @property
    def sequence(self) -> int | None:
        """The sequence number, 0 to 65535."""
        return None if self.rtp is None else self.rtp[2]

    @property
    def timestamp(self) -> int | None:
        """The timestamp, in units of the codec's clock."""
        return None if self.rtp is None else self.rtp[3]

    @property
    def ssrc(self) -> int | None:
        """The SSRC."""
        return None if self.rtp is None else self.rtp[4]

    @property
    def payload(self) -> memoryview | None:
        """The payload of RTP, without header extensions and padding; a view of `data`, not a copy."""
        return None if self.rtp is None else memoryview(self.data)[self.rtp[5] : self.rtp[6]]


class Tap:
    """The packets of one session as they come, from :meth:`Calls.tap() <rtpproxy.Calls.tap>`.

    An iterator that ends with the session, with :meth:`close` and with the relay; a context manager that
    closes it. Its packets are those that recordings hold: accepted by latching, not displaced by a prompt.

    A tap never holds up the call. What is not taken in time waits in a bounded queue, and what finds no room
    there is counted in :attr:`dropped`.

    >>> import rtpproxy
    >>> with rtpproxy.Proxy() as proxy:
    ...     leg = proxy.start("call-1", "from-a", media=("192.0.2.10", 40000))
    ...     with proxy.tap("call-1", "from-a") as tap:
    ...         proxy.stop("call-1", "from-a")
    ...         list(tap), tap.dropped
    ([], 0)
    """

    def __init__(self, tap: "_rtpproxy.Tap", name: str) -> None:
        self._tap = tap
        self._name = name
        self._waiting: deque[TapPacket] = deque()
        self._finalizer = weakref.finalize(self, tap.close)

    def take(self, max_packets: int = 64, timeout_s: float | None = None) -> list[TapPacket]:
        """The packets that are there, `max_packets` at most; waits for a first one.

        :returns: No packets if none came within `timeout_s` seconds, or at the end: see :attr:`ended`.
        :raises rtpproxy.ConnectionLost: The relay of a client is gone.
        """
        if not isinstance(max_packets, int):
            raise TypeError(f"max_packets: must be int, not {type(max_packets).__name__}")
        if max_packets < 1:
            raise ValueError("max_packets: must be at least 1")
        taken: list[TapPacket] = []
        while self._waiting and len(taken) < max_packets:
            taken.append(self._waiting.popleft())
        return taken or [TapPacket._make(fields) for fields in self._tap.take(max_packets, timeout_s)]

    @property
    def dropped(self) -> int:
        """How many packets were left out because nobody took those before."""
        return self._tap.dropped

    @property
    def ended(self) -> bool:
        """True once nothing can come any more."""
        return self._tap.ended and not self._waiting

    def close(self) -> None:
        """Ends it; doing so twice is fine."""
        self._waiting.clear()
        self._finalizer()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TapPacket:
        if not self._waiting:
            self._waiting.extend(self.take())
        try:
            return self._waiting.popleft()
        except IndexError:
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._finalizer.alive else " closed"
        return f"<rtpproxy.Tap {self._name}{state}>"
