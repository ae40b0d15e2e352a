from collections.abc import Sequence
from os import PathLike
from typing import Literal, TypeAlias, final

from rtpproxy.calls import Direction, Host, Id, Media

__all__ = ["Door", "RecordingFile", "Tap", "run_cli"]

_Place: TypeAlias = tuple[str, int]

def run_cli(argv: Sequence[str | PathLike[str]]) -> int: ...

@final
class Door:
    @staticmethod
    def relay(options: Sequence[str | PathLike[str]]) -> Door: ...
    @staticmethod
    def connect(
        address: str,
        timeout_s: float,
        retries: int,
        events: str | None,
        record_events: str | None,
        tap_address: Host | None,
    ) -> Door: ...
    def start(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None,
        media: Media | None,
        codecs: Sequence[int] | None,
        notify: str | None,
        weak: bool,
        asymmetric: bool | None,
        bind: Host | None,
        route_to: Host | None,
        directions: Sequence[Direction] | None,
        new_port: bool,
        media_number: int | None,
    ) -> tuple[int, str | None, bool]: ...
    def lookup(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id,
        media: Media | None,
        codecs: Sequence[int] | None,
        weak: bool,
        asymmetric: bool | None,
        bind: Host | None,
        route_to: Host | None,
        directions: Sequence[Direction] | None,
        new_port: bool,
        media_number: int | None,
    ) -> tuple[int, str | None, bool]: ...
    def record(self, call_id: Id, from_tag: Id, to_tag: Id | None, media_number: int | None) -> None: ...
    def stop_recording(
        self, call_id: Id, from_tag: Id, to_tag: Id | None, media_number: int | None
    ) -> None: ...
    def copy(
        self, call_id: Id, from_tag: Id, to_tag: Id | None, to: Media, media_number: int | None
    ) -> tuple[str, int]: ...
    def stop_copy(
        self, call_id: Id, from_tag: Id, to_tag: Id | None, to: Media, media_number: int | None
    ) -> None: ...
    def tap(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None,
        media_number: int | None,
        max_packets: int,
        max_bytes: int,
    ) -> Tap: ...
    def stop(
        self, call_id: Id, from_tag: Id, to_tag: Id | None, weak: bool, media_number: int | None
    ) -> None: ...
    def stop_all(self) -> None: ...
    def stats(
        self, call_id: Id, from_tag: Id, to_tag: Id | None, media_number: int | None
    ) -> tuple[int, int, int, int, int]: ...
    def query(
        self, call_id: Id, from_tag: Id, to_tag: Id | None, names: Sequence[str], media_number: int | None
    ) -> dict[str, int | float]: ...
    def info(self) -> tuple[int, int, int, int, int]: ...
    def counters(self, names: Sequence[str]) -> dict[str, int | float]: ...
    def recordings(self, after: int) -> str: ...
    def version(self) -> int: ...
    def feature(self, number: int) -> bool: ...
    def command(self, text: str | bytes) -> str: ...
    def next_event(self, timeout_s: float | None) -> tuple[bool, bytes] | None: ...
    def announce_recordings(self) -> None: ...
    @property
    def hears_events(self) -> bool: ...
    @property
    def events_dropped(self) -> int: ...
    def close(self) -> None: ...

@final
class RecordingFile:
    def __new__(
        cls, path: str | PathLike[str], identities: Sequence[str | PathLike[str]]
    ) -> RecordingFile: ...
    def read(self, max_bytes: int) -> bytes: ...

@final
class Tap:
    def take(
        self, max_packets: int, timeout_s: float | None
    ) -> list[
        tuple[
            Literal["caller", "callee"],
            Literal["rtp", "rtcp"],
            int,
            _Place | None,
            _Place | None,
            bytes,
            tuple[int, bool, int, int, int, int, int] | None,
        ]
    ]: ...
    @property
    def dropped(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    def close(self) -> None: ...
