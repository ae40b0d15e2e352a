"""One call of a relay, so that its tags are said once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, overload

from rtpproxy.results import Stats
from rtpproxy.tap import Tap

if TYPE_CHECKING:
    from rtpproxy.calls import Calls, Id, Media

__all__ = ["Call"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call by its tags, from :meth:`Calls.call() <rtpproxy.Calls.call>`.

    Its methods are those of the relay, without the arguments that say which call. It is a name, not a hold:
    the session does not end with it, and may be gone.

    >>> import rtpproxy
    >>> with rtpproxy.Proxy() as proxy:
    ...     call = proxy.call("call-1", "from-a", "to-b")
    ...     leg = proxy.start("call-1", "from-a", media=("192.0.2.10", 40000))
    ...     call.query().relayed
    ...     call.stop()
    0
    """

    relay: "Calls"
    """The relay."""
    call_id: "Id"
    """The call-id."""
    from_tag: "Id"
    """The tag that the session was started with; with the tags exchanged the other party comes first."""
    to_tag: "Id | None" = None
    """The other tag, if known."""
    media_number: int | None = None
    """Which of several streams."""

    def exchanged(self) -> Self:
        """The same call seen from the other party.

        :raises ValueError: The other tag is not known.
        """
        if self.to_tag is None:
            raise ValueError("to_tag: needed to see the call from the other party")
        return replace(self, from_tag=self.to_tag, to_tag=self.from_tag)

    def record(self) -> None:
        """:meth:`Calls.record() <rtpproxy.Calls.record>`"""
        self.relay.record(self.call_id, self.from_tag, self.to_tag, media_number=self.media_number)

    def pause(self) -> None:
        """:meth:`Calls.pause() <rtpproxy.Calls.pause>`"""
        self.relay.pause(self.call_id, self.from_tag, self.to_tag, media_number=self.media_number)

    def resume(self) -> None:
        """:meth:`Calls.resume() <rtpproxy.Calls.resume>`"""
        self.relay.resume(self.call_id, self.from_tag, self.to_tag, media_number=self.media_number)

    def stop_recording(self) -> None:
        """:meth:`Calls.stop_recording() <rtpproxy.Calls.stop_recording>`"""
        self.relay.stop_recording(self.call_id, self.from_tag, self.to_tag, media_number=self.media_number)

    def copy(self, *, to: "Media") -> tuple[str, int]:
        """:meth:`Calls.copy() <rtpproxy.Calls.copy>`"""
        return self.relay.copy(
            self.call_id, self.from_tag, self.to_tag, to=to, media_number=self.media_number
        )

    def stop_copy(self, *, to: "Media") -> None:
        """:meth:`Calls.stop_copy() <rtpproxy.Calls.stop_copy>`"""
        self.relay.stop_copy(self.call_id, self.from_tag, self.to_tag, to=to, media_number=self.media_number)

    def tap(self, *, max_packets: int = 4096, max_bytes: int = 1 << 20) -> Tap:
        """:meth:`Calls.tap() <rtpproxy.Calls.tap>`"""
        return self.relay.tap(
            self.call_id,
            self.from_tag,
            self.to_tag,
            media_number=self.media_number,
            max_packets=max_packets,
            max_bytes=max_bytes,
        )

    def stop(self) -> None:
        """:meth:`Calls.stop() <rtpproxy.Calls.stop>`"""
        self.relay.stop(self.call_id, self.from_tag, self.to_tag, media_number=self.media_number)

    @overload
    def query(self, *, names: None = None) -> Stats: ...

    @overload
    def query(self, *, names: Sequence[str]) -> dict[str, int | float]: ...

    def query(self, *, names: Sequence[str] | None = None) -> Stats | dict[str, int | float]:
        """:meth:`Calls.query() <rtpproxy.Calls.query>`"""
        if names is None:
            return self.relay.query(self.call_id, self.from_tag, self.to_tag, media_number=self.media_number)
        if self.to_tag is None:
            raise ValueError("to_tag: needed to ask for names")
        return self.relay.query(
            self.call_id, self.from_tag, self.to_tag, names=names, media_number=self.media_number
        )
