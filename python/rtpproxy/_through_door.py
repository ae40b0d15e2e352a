"""Carrying :class:`~rtpproxy.calls.Calls` out through the native module."""

import json
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeAlias, TypeVar, overload

from rtpproxy._rtpproxy import Door
from rtpproxy.call import Call
from rtpproxy.calls import Calls, Direction, Host, Id, Media
from rtpproxy.errors import Closed, Error
from rtpproxy.results import Event, Info, Leg, Recording, RecordingEvent, Stats, TimeoutEvent
from rtpproxy.tap import Tap

_Callback: TypeAlias = Callable[[Event], object]

_Kind = TypeVar("_Kind", TimeoutEvent, RecordingEvent)

# A callback that hangs must not keep close() from returning.
_CALLBACK_WAIT_S = 2.0


class ThroughDoor(Calls):
    """All of :class:`Calls`: the arguments go to a door, its plain values come back as typed results."""

    def __init__(self, door: Door, name: str) -> None:
        self._door = door
        self._name = name
        self._callbacks: list[_Callback] = []
        self._callbacks_lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._taps: weakref.WeakSet[Tap] = weakref.WeakSet()
        # Closes with the last reference and when the interpreter exits too: recordings must be whole.
        self._finalizer = weakref.finalize(self, _close, door, self._threads, self._taps)

    def start(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None = None,
        *,
        media: Media | None = None,
        codecs: Sequence[int] | None = None,
        notify: str | None = None,
        weak: bool = False,
        asymmetric: bool | None = None,
        bind: Host | None = None,
        route_to: Host | None = None,
        directions: Sequence[Direction] | None = None,
        new_port: bool = False,
        media_number: int | None = None,
    ) -> Leg:
        return Leg(
            *self._door.start(
                call_id,
                from_tag,
                to_tag,
                media,
                codecs,
                notify,
                weak,
                asymmetric,
                bind,
                route_to,
                directions,
                new_port,
                media_number,
            )
        )

    def lookup(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id,
        *,
        media: Media | None = None,
        codecs: Sequence[int] | None = None,
        weak: bool = False,
        asymmetric: bool | None = None,
        bind: Host | None = None,
        route_to: Host | None = None,
        directions: Sequence[Direction] | None = None,
        new_port: bool = False,
        media_number: int | None = None,
    ) -> Leg:
        return Leg(
            *self._door.lookup(
                call_id,
                from_tag,
                to_tag,
                media,
                codecs,
                weak,
                asymmetric,
                bind,
                route_to,
                directions,
                new_port,
                media_number,
            )
        )

    def call(
        self, call_id: Id, from_tag: Id, to_tag: Id | None = None, *, media_number: int | None = None
    ) -> Call:
        return Call(self, call_id, from_tag, to_tag, media_number)

    def record(
        self, call_id: Id, from_tag: Id, to_tag: Id | None = None, *, media_number: int | None = None
    ) -> None:
        self._door.record(call_id, from_tag, to_tag, media_number)

    def stop_recording(
        self, call_id: Id, from_tag: Id, to_tag: Id | None = None, *, media_number: int | None = None
    ) -> None:
        self._door.stop_recording(call_id, from_tag, to_tag, media_number)

    def pause(
        self, call_id: Id, from_tag: Id, to_tag: Id | None = None, *, media_number: int | None = None
    ) -> None:
        self._door.stop_recording(call_id, from_tag, to_tag, media_number)

    def resume(
        self, call_id: Id, from_tag: Id, to_tag: Id | None = None, *, media_number: int | None = None
    ) -> None:
        self._door.record(call_id, from_tag, to_tag, media_number)

    def copy(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None = None,
        *,
        to: Media,
        media_number: int | None = None,
    ) -> tuple[str, int]:
        return self._door.copy(call_id, from_tag, to_tag, to, media_number)

    def stop_copy(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None = None,
        *,
        to: Media,
        media_number: int | None = None,
    ) -> None:
        self._door.stop_copy(call_id, from_tag, to_tag, to, media_number)

    def tap(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None = None,
        *,
        media_number: int | None = None,
        max_packets: int = 4096,
        max_bytes: int = 1 << 20,
    ) -> Tap:
        door = self._door.tap(call_id, from_tag, to_tag, media_number, max_packets, max_bytes)
        tap = Tap(door, call_id if isinstance(call_id, str) else repr(call_id))
        self._taps.add(tap)
        return tap

    def stop(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None = None,
        *,
        weak: bool = False,
        media_number: int | None = None,
    ) -> None:
        self._door.stop(call_id, from_tag, to_tag, weak, media_number)

    def stop_all(self) -> None:
        self._door.stop_all()

    @overload
    def query(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None = None,
        *,
        names: None = None,
        media_number: int | None = None,
    ) -> Stats: ...

    @overload
    def query(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id,
        *,
        names: Sequence[str],
        media_number: int | None = None,
    ) -> dict[str, int | float]: ...

    def query(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None = None,
        *,
        names: Sequence[str] | None = None,
        media_number: int | None = None,
    ) -> Stats | dict[str, int | float]:
        if names is None:
            return Stats(*self._door.stats(call_id, from_tag, to_tag, media_number))
        return self._door.query(call_id, from_tag, to_tag, names, media_number)

    def info(self) -> Info:
        return Info(*self._door.info())

    def counters(self, *names: str) -> dict[str, int | float]:
        return self._door.counters(names)

    def recordings(self) -> list[Recording]:
        recordings: list[Recording] = []
        has_more = True
        while has_more:
            after = recordings[-1].number if recordings else 0
            page = json.loads(self._door.recordings(after))
            recordings += map(Recording.from_dict, page["recordings"])
            has_more = page["more"]
        return recordings

    def version(self) -> int:
        return self._door.version()

    def feature(self, number: int) -> bool:
        return self._door.feature(number)

    def command(self, text: str | bytes) -> str:
        return self._door.command(text)

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        self._need_events()
        if timeout_s is not None and not isinstance(timeout_s, (int, float)):
            raise TypeError(f"timeout_s: must be a number, not {type(timeout_s).__name__}")
        with self._callbacks_lock:
            if self._callbacks:
                raise Error("on_timeout() or on_recording() takes the events")
        self._door.announce_recordings()
        return _take_events(self._door, timeout_s)

    def on_timeout(self, callback: Callable[[TimeoutEvent], object]) -> None:
        self._call_back(TimeoutEvent, callback)

    def on_recording(self, callback: Callable[[RecordingEvent], object]) -> None:
        self._call_back(RecordingEvent, callback)
        self._door.announce_recordings()

    def _call_back(self, kind: type[_Kind], callback: Callable[[_Kind], object]) -> None:
        self._need_events()
        if not callable(callback):
            raise TypeError(f"callback: must be callable, not {type(callback).__name__}")
        if not self._finalizer.alive:
            raise Closed("it is closed")
        with self._callbacks_lock:
            self._callbacks.append(lambda event: isinstance(event, kind) and callback(event))
            if not self._threads:
                # The thread must not know `self`: it would keep it from being closed with its last reference.
                thread = threading.Thread(
                    target=_deliver, args=(self._door, self._callbacks), name="rtpproxy-events", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    @property
    def events_dropped(self) -> int:
        return self._door.events_dropped

    def close(self) -> None:
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _need_events(self) -> None:
        if not self._door.hears_events:
            raise Error("events need a place to listen: Client(…, events=…), or record_events=…")

    def __repr__(self) -> str:
        state = "" if self._finalizer.alive else " closed"
        return f"<rtpproxy.{type(self).__name__} {self._name}{state}>"


def _take_events(door: Door, timeout_s: float | None) -> Iterator[Event]:
    while (told := door.next_event(timeout_s)) is not None:
        is_recording, text = told
        if is_recording:
            yield RecordingEvent.from_dict(json.loads(text))
        else:
            yield TimeoutEvent(text.decode(errors="surrogateescape"))


def _deliver(door: Door, callbacks: list[_Callback]) -> None:
    for event in _take_events(door, None):
        for callback in tuple(callbacks):
            try:
                callback(event)
            except Exception:
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _close(door: Door, threads: list[threading.Thread], taps: "weakref.WeakSet[Tap]") -> None:
    # Before the door, through which a client ends them.
    for tap in tuple(taps):
        tap.close()
    door.close()
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(_CALLBACK_WAIT_S)
