"""A program that drives the RTPproxy client classes of Sippy, without a B2BUA around them.

Called as `sippy_client.py RELAY NOTIFY`, it reads requests from its standard input, each a line: a JSON list
of the name of a method of `Driver` and its arguments. It writes what each returns, one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from sippy.Core.EventDispatcher import ED2
from sippy.Rtp_proxy.client import Rtp_proxy_client
from sippy.Rtp_proxy.session import Rtp_proxy_session
from sippy.Rtp_proxy.Session.update import update_params
from sippy.Time.Timeout import Timeout

HOST = "127.0.0.1"
POLL_S = 0.02
PATIENCE_S = 20.0


def main() -> None:
    """Answers all requests."""
    driver = Driver(*sys.argv[1:])
    for line in sys.stdin:
        request, *arguments = json.loads(line)
        print(json.dumps(getattr(driver, request)(*arguments)), flush=True)


class Driver:
    """One client with one session."""

    def __init__(self, relay: str, notify: str) -> None:
        # Often enough for a test.
        Rtp_proxy_client.hrtb_ival = 0.1
        Rtp_proxy_client.hrtb_retr_ival = 0.2
        self._client = Rtp_proxy_client({"_sip_address": HOST}, spath=relay)
        self._client.notify_socket = notify
        self._session: Any = None

    def online(self, wanted: bool) -> dict[str, bool]:
        """Waits until the client is online, or is not; returns what it takes the relay for."""

        def poll() -> None:
            if self._client.online == wanted:
                ED2.breakLoop()

        timer = Timeout(poll, POLL_S, -1)
        ED2.loop(PATIENCE_S)
        timer.cancel()
        names = ["copy", "stat", "tnot", "sbind", "wdnt", "copy_p"]
        features = {name: getattr(self._client, f"{name}_supported") for name in names}
        return {"online": self._client.online, **features}

    def begin(self) -> list[str]:
        """Makes the session, whose parties signal from this machine; returns its ids."""
        self._session = Rtp_proxy_session({"rtp_proxy_client": self._client}, notify_tag="r%201")
        self._session.caller.raddress = self._session.callee.raddress = (HOST, 5060)
        return [f"{self._session.call_id}-0", self._session.from_tag, self._session.to_tag]

    def offer(self, host: str, port: int) -> Any:
        """Tells where the caller gets media; returns where the callee sends it."""
        return self._update(self._session.caller, host, port)

    def answer(self, host: str, port: int) -> Any:
        """Tells where the callee gets media; returns where the caller sends it."""
        return self._update(self._session.callee, host, port)

    def record(self, name: str | None = None) -> Any:
        """Starts a recording, of each party under the name if there is one; returns the last reply."""
        return _wait(lambda done: self._session.start_recording(name, rflags="", result_callback=done))

    def play_caller(self, prompt: str, times: int) -> Any:
        """Plays a prompt in PCMU to the caller; returns the reply."""
        self._session.caller.codecs = "0"
        return _wait(lambda done: self._session.play_caller(prompt, times, done))

    def stop_play_caller(self) -> Any:
        """Ends that; returns the reply."""
        return _wait(self._session.stop_play_caller)

    def copy_callee(self, host: str, port: int) -> Any:
        """Copies what the callee says to another address; returns the reply."""
        return _wait(lambda done: self._session.copy_callee(host, port, done))

    def query(self) -> Any:
        """The five numbers about the session."""
        return _wait(self._session.stats)

    def load(self) -> list[int | None]:
        """What the relay said last: sessions created, active ones, packets received and sent."""
        ED2.loop(POLL_S)
        client = self._client
        return [client.sessions_created, client.active_sessions, client.preceived, client.ptransmitted]

    def delete(self) -> Any:
        """Ends the session; returns the reply to a command after that."""
        self._session.delete()
        return _wait(lambda done: self._client.send_command("V", done))

    def _update(self, side: Any, host: str, port: int) -> Any:
        parameters = update_params()
        parameters.rtpps, parameters.remote_ip, parameters.remote_port = self._session, host, port

        def start(done: Callable[..., None]) -> None:
            parameters.result_callback = done
            side.update(parameters)

        result = _wait(start)
        return result and [result.rtpproxy_address, result.rtpproxy_port]


def _wait(start: Callable[[Callable[..., None]], object]) -> Any:
    """Starts something and runs the event loop until it calls back; returns the result."""
    results = []

    def done(result: Any, *_: object, **__: object) -> None:
        results.append(result)
        ED2.breakLoop()

    start(done)
    ED2.loop(PATIENCE_S)
    return results[0]


if __name__ == "__main__":
    main()
