"""A relay that runs elsewhere."""

from rtpproxy._rtpproxy import Door
from rtpproxy._through_door import ThroughDoor
from rtpproxy.calls import Host

__all__ = ["Client"]


class Client(ThroughDoor):
    """The calls of a running relay, over its control socket.

    :param address: The control socket, as the relay's ``-s`` names it: ``unix:PATH``, ``cunix:PATH``,
        ``udp:HOST:PORT``, ``udp6:…``, ``tcp:…``, ``tcp6:…``, or just a path.
    :param timeout_s: Seconds that one command may take in all.
    :param retries: How often it is sent again within that time over UDP; the relay carries it out once.
    :param events: Where to listen for timeouts: ``unix:PATH`` or ``tcp:HOST:PORT``. The relay must have
        been started with ``-n`` and exactly this text. Without it, ``start(notify=…)`` is refused.
    :param record_events: Where to listen for what becomes of recordings: ``unix:PATH``. The relay must have
        been started with ``--record-events`` and this path.
    :param tap_address: The IPv4 address of this machine to which the relay can send the packets of
        :meth:`tap`. If not given, it is the one that the control socket is reached from, and 127.0.0.1 for a
        UNIX socket.
    :raises rtpproxy.ConnectionLost: Nobody is at the address. Over ``unix:`` and UDP the first command tells.
    :raises rtpproxy.StartError: The place for `events` or `record_events` cannot be used.
    :raises ValueError: The address cannot be read.

    >>> import rtpproxy, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     socket = f"cunix:{folder}/control"
    ...     with rtpproxy.Proxy(control=[socket]), rtpproxy.Client(socket) as client:
    ...         client.version()
    20040107
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 3.0,
        retries: int = 5,
        events: str | None = None,
        record_events: str | None = None,
        tap_address: Host | None = None,
    ) -> None:
        super().__init__(
            Door.connect(address, timeout_s, retries, events, record_events, tap_address), address
        )
