"""A relay for RTP media that records calls, in this process or behind a control socket.

>>> import rtpproxy
>>> with rtpproxy.Proxy() as relay:
...     call = relay.start("call-1", "from-a", media=("192.0.2.10", 40000))
...     answer = relay.lookup("call-1", "from-a", "to-b", media=("192.0.2.20", 40002))
...     relay.query("call-1", "from-a", "to-b").relayed
0

:class:`Proxy` runs a relay in this process, :class:`Client` talks to a running one; both have the methods of
:class:`Calls`. :func:`open_recording` reads what was recorded.
"""

from rtpproxy.call import Call
from rtpproxy.calls import Calls, Direction, Host, Id, Media
from rtpproxy.client import Client
from rtpproxy.errors import (
    Closed,
    CommandError,
    ConnectionLost,
    Error,
    IdentityError,
    Locked,
    NotFound,
    RecordingError,
    StartError,
    Timeout,
)
from rtpproxy.proxy import Proxy
from rtpproxy.recordings import decrypt, open_recording
from rtpproxy.results import (
    Event,
    Info,
    Leg,
    Recording,
    RecordingChange,
    RecordingEvent,
    RecordingState,
    Stats,
    TimeoutEvent,
)
from rtpproxy.tap import Tap, TapPacket

__all__ = [
    "Call",
    "Calls",
    "Client",
    "Closed",
    "CommandError",
    "ConnectionLost",
    "Direction",
    "Error",
    "Event",
    "Host",
    "Id",
    "IdentityError",
    "Info",
    "Leg",
    "Locked",
    "Media",
    "NotFound",
    "Proxy",
    "Recording",
    "RecordingChange",
    "RecordingError",
    "RecordingEvent",
    "RecordingState",
    "StartError",
    "Stats",
    "Tap",
    "TapPacket",
    "Timeout",
    "TimeoutEvent",
    "decrypt",
    "open_recording",
]
