"""What :class:`rtpproxy.Proxy` and :class:`rtpproxy.Client` have in common."""

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias, overload

from rtpproxy.call import Call
from rtpproxy.results import Event, Info, Leg, Recording, RecordingEvent, Stats, TimeoutEvent
from rtpproxy.tap import Tap

__all__ = ["Calls", "Direction", "Host", "Id", "Media"]

Id: TypeAlias = str | bytes
"""A call-id or a tag: raw bytes, or text that is sent as UTF-8. No white space, no NUL."""

Host: TypeAlias = str | IPv4Address | IPv6Address
"""A numeric IP address."""

Media: TypeAlias = tuple[Host, int]
"""Where a party receives RTP: address and port. The null address (``0.0.0.0``, ``::``) puts it on hold."""

Direction: TypeAlias = Literal["internal", "external"]
"""One of the two local addresses of a relay in bridge mode."""


class Calls(Protocol):
    """The calls of a relay, whether it runs in this process or elsewhere.

    Every method is one command of the control protocol and its reply. All may be called from many threads;
    none holds the GIL while it waits, and Ctrl-C ends the wait. They raise :class:`TypeError` or
    :class:`ValueError` for arguments that cannot be right, :class:`~rtpproxy.CommandError` when the relay
    refuses, and :class:`~rtpproxy.ConnectionLost`, :class:`~rtpproxy.Timeout` or :class:`~rtpproxy.Closed`
    when there is no answer.

    `media_number` is for calls with several streams: it is appended to the tags as ``;N``.
    """

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
        """Creates a session for the caller's offer, or updates it (``U``).

        Returns where the *callee* has to send. Called again for the same call-id and tag it updates the
        session: what an update leaves out (`codecs`, `notify`, …) is forgotten, and the ports stay unless
        `new_port` says otherwise.

        :param media: Where the caller receives RTP; ``None`` learns it from the caller's packets.
        :param codecs: The payload types of the caller's offer, in order.
        :param notify: A tag of your own. If the session ends for lack of media, :meth:`events` yields it.
        :param weak: Keep the session only until ``stop(…, weak=True)``.
        :param asymmetric: True: the caller may send from another port than it receives on; False: it must
            not; ``None``: as the relay was configured.
        :param bind: The local address of the relay to use, or the label of a configured one.
        :param route_to: Use the local address that packets to this one would leave from.
        :param directions: In bridge mode, the local addresses towards the caller and the callee;
            :meth:`lookup` needs the same.
        :param new_port: Give the session a new port on this side.

        >>> import rtpproxy
        >>> with rtpproxy.Proxy() as proxy:
        ...     leg = proxy.start("call-1", "from-a", media=("192.0.2.10", 40000), codecs=[0, 8])
        ...     leg.address, leg.port % 2
        ('127.0.0.1', 0)
        """
        ...

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
        """Adds the callee's answer to a session (``L``).

        Returns where the *caller* has to send. The parameters are those of :meth:`start`, for the callee:
        `media` is where the callee receives RTP. `from_tag` is the tag that the session was started with.

        :raises rtpproxy.NotFound: There is no such session.
        """
        ...

    def call(
        self, call_id: Id, from_tag: Id, to_tag: Id | None = None, *, media_number: int | None = None
    ) -> Call:
        """One call, so that its tags need not be said again. Nothing is sent, and it need not exist yet."""
        ...

    def record(
        self, call_id: Id, from_tag: Id, to_tag: Id | None = None, *, media_number: int | None = None
    ) -> None:
        """Records a call (``R``).

        Both legs go into one file; a relay with ``record_scope="stream"`` records only what the party of
        `from_tag` sends. Recording what is already being recorded changes nothing.

        :raises rtpproxy.NotFound: There is no such session, or the relay has no folder to record to.
        """
        ...

    def stop_recording(
        self, call_id: Id, from_tag: Id, to_tag: Id | None = None, *, media_number: int | None = None
    ) -> None:
        """Stops a recording (``N``), which is the same as :meth:`pause`: its file is complete with the call.

        :raises rtpproxy.NotFound: Nothing was being recorded.
        """
        ...

    def pause(
        self, call_id: Id, from_tag: Id, to_tag: Id | None = None, *, media_number: int | None = None
    ) -> None:
        """Pauses a recording, as while a card number is read out (``N``).

        Media goes on; the recording leaves out what comes until :meth:`resume`, and says so at that place.
        What :meth:`copy` sends to other hosts ends. In the scope ``"stream"`` (also with `compat`) a
        recording cannot be resumed: ``pause`` ends it there.

        :raises rtpproxy.NotFound: Nothing is being recorded, or it is paused already.
        """
        ...

    def resume(
        self, call_id: Id, from_tag: Id, to_tag: Id | None = None, *, media_number: int | None = None
    ) -> None:
        """Goes on with a recording that is paused, in the same file (``R``).

        It is the same command as :meth:`record`: a call that is not being recorded is from now on. In the
        scope ``"stream"`` (also with `compat`) that is a new recording in a new file; with `compat` it
        replaces the file of the one before, if nobody has moved that away.

        :raises rtpproxy.NotFound: There is no such session, or the relay has no folder to record to.

        >>> import rtpproxy, tempfile
        >>> with tempfile.TemporaryDirectory() as folder, rtpproxy.Proxy(record_dir=folder) as proxy:
        ...     leg = proxy.start("call-1", "from-a")
        ...     proxy.record("call-1", "from-a")
        ...     proxy.pause("call-1", "from-a")
        ...     proxy.resume("call-1", "from-a")
        """
        ...

    def copy(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None = None,
        *,
        to: Media,
        media_number: int | None = None,
    ) -> tuple[str, int]:
        """Sends what the party of `from_tag` sends to another host as well (``C``).

        :param to: The host, an IPv4 address, and its port for RTP; RTCP goes one port above. Up to eight
            hosts get copies of a party. With `compat` it is one, and for a further one this has no effect.
        :returns: The address and port that RTP comes from; RTCP comes from one port above. For a host that
            gets copies already, this is another port than theirs.
        :raises rtpproxy.NotFound: There is no such session.
        :raises rtpproxy.CommandError: Code 65: the host cannot be reached, or there are eight already.
        """
        ...

    def stop_copy(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None = None,
        *,
        to: Media,
        media_number: int | None = None,
    ) -> None:
        """Ends the copies to one host (``?uncopy``); those to others go on, and so do recordings.

        :raises rtpproxy.NotFound: There is no such session, or no copies go there.
        :raises rtpproxy.CommandError: Code 0: the relay is the C program, or was started with ``--compat``.
        """
        ...

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
        """The packets that both parties send from now on, as they come.

        ``for packet in relay.tap("call-1", "from-a", "to-b")`` goes on until the session ends. Of a call with
        several streams it is one of them, as in :meth:`query`.

        A :class:`~rtpproxy.Client` has the relay send copies to two UDP ports of its own (``C``), which needs
        `to_tag`, and a relay that reaches this machine, see :class:`~rtpproxy.Client`. What is lost on that
        way, or finds no room in the system's buffer, is not counted. While nothing comes it asks each second
        whether the session is still there (``Q``), and it ends the copies with the tap. The C program, and a
        relay with ``--compat``, cannot be tapped.

        :param max_packets: How many packets may wait to be taken.
        :param max_bytes: How many bytes they may have, at least 16384.
        :raises rtpproxy.NotFound: There is no such session.
        :raises rtpproxy.Error: The session has eight taps already, or the relay of a client cannot be tapped.
        """
        ...

    def stop(
        self,
        call_id: Id,
        from_tag: Id,
        to_tag: Id | None = None,
        *,
        weak: bool = False,
        media_number: int | None = None,
    ) -> None:
        """Ends a session and gives its ports back (``D``).

        Without `media_number` all streams of the call with that tag end. `weak` only takes back what
        ``start(…, weak=True)`` holds.

        :raises rtpproxy.NotFound: There is no such session.
        """
        ...

    def stop_all(self) -> None:
        """Ends all sessions of the relay, also those that others started (``X``)."""
        ...

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
        """The figures of a session (``Q``).

        :param names: The figures to ask for by the names of the protocol, such as ``rtpa_nlost`` or
            ``rtpa_javg``; they need `to_tag`. Without it, the five of :class:`~rtpproxy.Stats`.
        :raises rtpproxy.NotFound: There is no such session.
        """
        ...

    def info(self) -> Info:
        """The figures of the relay (``I``)."""
        ...

    def counters(self, *names: str) -> dict[str, int | float]:
        """The counters of the relay by their names in the protocol, such as ``npkts_relayed`` (``G``).

        Without names: all that this package knows.
        """
        ...

    def recordings(self) -> list[Recording]:
        """The recordings that run, and the last 100 that ended, by their numbers.

        Figures are up to a fifth of a second old. It does not wait for a disk. The C program knows no such
        command and refuses it.

        >>> import rtpproxy, tempfile
        >>> with tempfile.TemporaryDirectory() as folder, rtpproxy.Proxy(record_dir=folder) as proxy:
        ...     proxy.start("call-1", "from-a").ipv6
        ...     proxy.recordings()
        False
        []
        """
        ...

    def version(self) -> int:
        """The version of the control protocol, 20040107 (``V``)."""
        ...

    def feature(self, number: int) -> bool:
        """True if the relay knows an extension of the control protocol, such as 20081224 (``VF``)."""
        ...

    def command(self, text: str | bytes) -> str:
        """Sends one raw command and returns the reply without its line end.

        Error replies are returned as well: only here a refusal does not raise.

        >>> import rtpproxy
        >>> with rtpproxy.Proxy() as proxy:
        ...     proxy.command("V"), proxy.command("D call-1 from-a")
        ('20040107', 'E50')
        """
        ...

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """What happens, as it happens: :class:`~rtpproxy.TimeoutEvent` and :class:`~rtpproxy.RecordingEvent`.

        Timeouts are those of sessions started with `notify`. What becomes of recordings is told from the
        first call of this or of :meth:`on_recording` on; by a client only with `record_events`.

        The iterator ends when the relay is closed, or when nothing happened for `timeout_s` seconds. Events
        wait in a bounded queue; each goes to one iterator only.

        :raises rtpproxy.Error: Callbacks take the events already, or a client has no place to listen.

        >>> import rtpproxy, tempfile
        >>> with tempfile.TemporaryDirectory() as folder, rtpproxy.Proxy(record_dir=folder) as proxy:
        ...     events = proxy.events(timeout_s=10)
        ...     leg = proxy.start("call-1", "from-a")
        ...     proxy.record("call-1", "from-a")
        ...     proxy.stop("call-1", "from-a")
        ...     for event in events:
        ...         if isinstance(event, rtpproxy.RecordingEvent) and event.change == "finished":
        ...             print(event.recording.sidecar.name)
        ...             break
        call-1=from-a.json
        """
        ...

    def on_timeout(self, callback: Callable[[TimeoutEvent], object]) -> None:
        """Calls `callback` for every timeout, from a Python thread of its own.

        An exception in a callback is reported through :func:`threading.excepthook`; the next event is
        delivered all the same.
        """
        ...

    def on_recording(self, callback: Callable[[RecordingEvent], object]) -> None:
        """Calls `callback` for all that becomes of recordings from now on, as :meth:`on_timeout` does."""
        ...

    @property
    def events_dropped(self) -> int:
        """How many events were lost because nobody took them and the queue was full."""
        ...

    def close(self) -> None:
        """Ends it; doing so twice is fine.

        From then on :meth:`events` ends at once, and all other methods raise :class:`~rtpproxy.Closed`.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
