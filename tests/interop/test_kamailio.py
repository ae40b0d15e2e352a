"""Calls through a real Kamailio, which runs the sample configuration of the documentation."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from interop.counters import check_counters
from interop.kamailio import Kamailio
from interop.sipp import (
    HOST,
    Answer,
    Cancelled,
    CancelledInvite,
    EarlyAnswer,
    HangUp,
    HungUp,
    Invite,
    Mark,
    Refuse,
    RefusedInvite,
    Sipp,
    Step,
)
from support import capture as recording
from support.daemon import StartDaemon, free_address, free_port, wait_until
from support.phone import Media, Phone
from support.tools import need, need_ipv6

CALLS = 30
PCMA = 8
PROMPT_FRAMES = 4
FRAME = 80
"""Bytes that a prompt has in a packet, which is 10 ms long."""


@dataclass
class Parties:
    """Two phones that are in a call: sipp signals for them, and their media is at hand."""

    caller: Sipp
    callee: Sipp
    caller_media: Phone
    callee_media: Phone

    @property
    def at_caller_side(self) -> Media:
        """Where the caller was told last to send."""
        return self.caller.told()[-1]

    @property
    def at_callee_side(self) -> Media:
        """Where the callee was told last to send."""
        return self.callee.told()[-1]

    def talk(self, count: int = 5) -> tuple[list[bytes], list[bytes]]:
        """Both say so many packets and a report, which arrive; returns what each said."""
        said = self.caller_media.say(self.at_caller_side, count)
        assert self.callee_media.hear(count) == said
        answered = self.callee_media.say(self.at_callee_side, count)
        assert self.caller_media.hear(count) == answered
        reports = self.caller_media.report(self.at_caller_side), self.callee_media.report(self.at_callee_side)
        assert self.callee_media.hear_rtcp() == [reports[0]]
        assert self.caller_media.hear_rtcp() == [reports[1]]
        return said, answered

    def end(self, mark: str = "end") -> None:
        """Lets the caller hang up, and both must be content."""
        self.caller.go(mark)
        self.caller.finish()
        self.callee.finish()


class MakeParties:
    """Sets up a Kamailio and a call through it, up to the first mark of the caller."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.kamailio: Kamailio | None = None

    def __call__(
        self,
        relays: str,
        *features: str,
        values: dict[str, object] | None = None,
        phones: tuple[Phone, Phone] | None = None,
        more: tuple[Sequence[Step], Sequence[Step]] = ((), ()),
        offer_in_reply: bool = False,
    ) -> Parties:
        """`more` is what each party does after the call is answered and before it ends."""
        caller_media, callee_media = phones or (Phone(), Phone())
        for phone in (caller_media, callee_media):
            self._stack.enter_context(phone)
            phone.source.payload_type = PCMA
        taking = [Answer(media=callee_media.media, is_offer=offer_in_reply), *more[1], HungUp()]
        callee = self._stack.enter_context(Sipp(self._folder, *taking))
        self.kamailio = self._stack.enter_context(
            Kamailio(self._folder, relays, callee.port, *features, values=values)
        )
        call = Invite(media=caller_media.media, offer_in_reply=offer_in_reply)
        making = [call, *more[0], Mark("end"), HangUp()]
        remote = (HOST, self.kamailio.port)
        caller = self._stack.enter_context(Sipp(self._folder, *making, remote=remote))
        caller.await_mark(next(step.name for step in making if isinstance(step, Mark)))
        return Parties(caller, callee, caller_media, callee_media)

    def log(self) -> str:
        """What Kamailio had to say."""
        assert self.kamailio is not None
        return self.kamailio.log()


@pytest.fixture
def make_parties(tmp_path: Path) -> Iterator[MakeParties]:
    """A call through a Kamailio of its own, which must find nothing wrong."""
    need("kamailio", "kamcmd")
    with ExitStack() as stack:
        make = MakeParties(tmp_path, stack)
        yield make
        assert make.kamailio is None or make.kamailio.faults() == []


@pytest.mark.parametrize("compat", [(), ("--compat",)], ids=["native", "compat"])
@pytest.mark.parametrize(
    ("transport", "features"),
    [("udp", ()), ("unix", ()), ("udp6", ()), ("udp", ("WITH_OFFER_ANSWER",))],
    ids=["udp", "unix", "udp6", "offer_answer"],
)
def test_a_call_is_relayed(
    start_daemon: StartDaemon,
    make_parties: MakeParties,
    tmp_path: Path,
    transport: str,
    features: tuple[str, ...],
    compat: tuple[str, ...],
) -> None:
    relay = free_address(transport, tmp_path)
    daemon = start_daemon("-s", relay, *compat)
    call = make_parties(relay, *features)
    call.talk()
    call.end()
    check_counters(daemon, relayed=12)
    assert re.search(r" had \d+ 5 5 10 0$", make_parties.log(), re.MULTILINE)
    assert daemon.counter("nsess_complete") == 1
    assert daemon.counter("nsess_nortp") == daemon.counter("nsess_owrtp") == 0


@pytest.mark.parametrize("features", [(), ("WITH_OFFER_ANSWER",)], ids=["manage", "offer_answer"])
def test_parties_hear_each_other_before_the_answer(
    start_daemon: StartDaemon, tmp_path: Path, features: tuple[str, ...]
) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay)
    with (
        Phone() as caller_media,
        Phone() as callee_media,
        Sipp(tmp_path, EarlyAnswer(callee_media.media), HungUp()) as callee,
        Kamailio(tmp_path, relay, callee.port, *features) as kamailio,
        Sipp(
            tmp_path,
            Invite(media=caller_media.media),
            Mark("end"),
            HangUp(),
            remote=(HOST, kamailio.port),
            call_id="early",
        ) as caller,
    ):
        wait_until(caller.told, "the caller hears of the media")
        call = Parties(caller, callee, caller_media, callee_media)
        call.talk()
        callee.go("answer", call_id="early")
        caller.await_mark("end")
        # The answer has the same address again.
        early, late = caller.told()
        assert early == late
        call.talk()
        call.end()
        check_counters(daemon, relayed=24)
        assert kamailio.faults() == []


def test_all_media_of_a_call_end_with_it(start_daemon: StartDaemon, tmp_path: Path) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay, log_level="dbug")
    with (
        Sipp(tmp_path, Answer(has_video=True), HungUp()) as callee,
        Kamailio(tmp_path, relay, callee.port) as kamailio,
        Sipp(tmp_path, Invite(has_video=True), HangUp(), remote=(HOST, kamailio.port)) as caller,
    ):
        caller.finish()
        callee.finish()
        check_counters(daemon, relayed=0, sessions=2)
        assert kamailio.faults() == []
    tags = [words[4] for words in daemon.received("U")]
    (end,) = daemon.received("D")
    assert tags == [f"{end[2]};1", f"{end[2]};2"]


@pytest.mark.parametrize("features", [(), ("WITH_OFFER_ANSWER",)], ids=["manage", "offer_answer"])
def test_the_offer_may_come_in_the_reply(
    start_daemon: StartDaemon, make_parties: MakeParties, tmp_path: Path, features: tuple[str, ...]
) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay)
    call = make_parties(relay, *features, offer_in_reply=True)
    wait_until(call.callee.told, "the answer comes to the callee")
    call.talk()
    call.end()
    check_counters(daemon, relayed=12)


@pytest.mark.parametrize("compat", [(), ("--compat",)], ids=["native", "compat"])
def test_a_call_is_recorded(
    start_daemon: StartDaemon, make_parties: MakeParties, tmp_path: Path, compat: tuple[str, ...]
) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay, *compat, log_level="dbug")
    call = make_parties(relay, "WITH_RECORDING")
    said, answered = call.talk()
    call.end()
    check_counters(daemon, relayed=12)
    # Kamailio asks for it when the answer comes, so the tag of the callee stands first.
    ((_, call_id, _, caller_tag),) = daemon.received("R")
    if compat:
        path = daemon.recordings / f"{call_id}={caller_tag}.a.rtp"
        wait_until(path.exists, "there is a recording")
        wait_until(lambda: recording.payloads(recording.read(path)) == answered, "it is complete")
        return
    path = daemon.recordings / f"{call_id}={caller_tag};1.pcapng"
    wait_until(path.with_suffix(".json").exists, "the recording is complete")
    packets = recording.read(path)
    for leg, sent in (("caller", said), ("callee", answered)):
        assert [packet.payload for packet in packets if packet.interface == leg][: len(sent)] == sent


def test_the_caller_hears_an_announcement(
    start_daemon: StartDaemon, make_parties: MakeParties, tmp_path: Path
) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay)
    prompt = make_prompt(tmp_path / "prompt")
    call = make_parties(relay, "WITH_ANNOUNCEMENT", values={"ANNOUNCEMENT": f'"{tmp_path}/prompt"'})
    heard = call.caller_media.hear(PROMPT_FRAMES)
    assert [packet[1] & 0x7F for packet in heard] == PROMPT_FRAMES * [PCMA]
    assert [packet[12:] for packet in heard] == prompt
    wait_until(lambda: daemon.counter("nplrs_destroyed") == 1, "the prompt ends")
    call.talk()
    call.end()
    check_counters(daemon, relayed=12, played=PROMPT_FRAMES)


def test_who_is_on_hold_hears_music(
    start_daemon: StartDaemon, make_parties: MakeParties, tmp_path: Path
) -> None:
    relay = free_address("unix", tmp_path)
    daemon = start_daemon("-s", relay)
    music = make_prompt(tmp_path / "music")
    caller, callee = phones = Phone(), Phone()
    steps = [
        Mark("hold"),
        Invite(2, on_hold=True, media=caller.media),
        Mark("back"),
        Invite(3, media=caller.media),
    ]
    call = make_parties(
        relay,
        "WITH_MUSIC_ON_HOLD",
        values={"MUSIC": f'"{tmp_path}/music"'},
        phones=phones,
        more=(steps, 2 * [Answer(is_change=True, media=callee.media)]),
    )
    call.talk()
    call.caller.go("hold")
    heard = callee.hear(2 * PROMPT_FRAMES)
    assert [packet[12:] for packet in heard] == 2 * music
    call.caller.go("back")
    call.caller.await_mark("end")
    wait_until(lambda: daemon.counter("nplrs_destroyed") == 1, "the music ends")
    played = daemon.counter("npkts_played")
    assert [packet[12] for packet in callee.hear(played - len(heard))] == [
        music[number % PROMPT_FRAMES][0] for number in range(len(heard), played)
    ]
    call.talk()
    call.end()
    check_counters(daemon, relayed=24, played=played)


def test_a_call_goes_on_after_hold(
    start_daemon: StartDaemon, make_parties: MakeParties, tmp_path: Path
) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay, log_level="dbug")
    caller, callee = phones = Phone(), Phone()
    steps = [
        Invite(2, on_hold=True, media=caller.media),
        Mark("back"),
        Invite(3, media=caller.media),
    ]
    call = make_parties(
        relay,
        values={"MEDIA_FLAGS": '"cor"'},
        phones=phones,
        more=(steps, 2 * [Answer(is_change=True, media=callee.media)]),
    )
    assert [words[2] for words in daemon.received("U")] == [HOST, "0.0.0.0"]
    # The other party learns of it from the address, which stays zero.
    assert call.callee.told()[1].host == "0.0.0.0"
    call.caller.go("back")
    call.caller.await_mark("end")
    call.talk()
    call.end()
    check_counters(daemon, relayed=12)


def test_media_moves_to_another_phone(
    start_daemon: StartDaemon, make_parties: MakeParties, tmp_path: Path
) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay)
    callee = Phone()
    with Phone() as desk, Phone() as mobile:
        mobile.source.payload_type = PCMA
        call = make_parties(
            relay,
            phones=(desk, callee),
            more=(
                [Mark("move"), Invite(2, media=mobile.media)],
                [Answer(is_change=True, media=callee.media)],
            ),
        )
        call.talk()
        call.caller.go("move")
        call.caller.await_mark("end")
        call.caller_media = mobile
        call.talk()
        assert desk.silence()
        call.end()
    check_counters(daemon, relayed=24)


def test_a_refused_change_leaves_the_call(
    start_daemon: StartDaemon, make_parties: MakeParties, tmp_path: Path
) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay)
    phones = Phone(), Phone()
    call = make_parties(
        relay,
        phones=phones,
        more=([RefusedInvite(488, 2, media=phones[0].media)], [Refuse(488, is_change=True)]),
    )
    call.talk()
    call.end()
    check_counters(daemon, relayed=12)


@pytest.mark.parametrize("status", [486, 603])
def test_a_refused_call_leaves_no_session(start_daemon: StartDaemon, tmp_path: Path, status: int) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay)
    with (
        Phone() as phone,
        Sipp(tmp_path, Refuse(status)) as callee,
        Kamailio(tmp_path, relay, callee.port) as kamailio,
        Sipp(tmp_path, RefusedInvite(status, media=phone.media), remote=(HOST, kamailio.port)) as caller,
    ):
        caller.finish()
        callee.finish()
        check_counters(daemon, relayed=0)
        assert kamailio.faults() == []


def test_a_cancelled_call_leaves_no_session(start_daemon: StartDaemon, tmp_path: Path) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay)
    with (
        Phone() as phone,
        Sipp(tmp_path, Cancelled()) as callee,
        Kamailio(tmp_path, relay, callee.port) as kamailio,
        Sipp(tmp_path, CancelledInvite(media=phone.media), remote=(HOST, kamailio.port)) as caller,
    ):
        caller.finish()
        callee.finish()
        check_counters(daemon, relayed=0)
        assert kamailio.faults() == []


def test_two_networks_are_bridged(
    start_daemon: StartDaemon, make_parties: MakeParties, tmp_path: Path
) -> None:
    outside = "127.0.0.2"
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay, listen=("-l", f"{HOST}/{outside}"))
    call = make_parties(
        relay, "WITH_BRIDGING", values={"MEDIA_FLAGS": '"cor"'}, phones=(Phone(), Phone(outside))
    )
    assert (call.at_caller_side.host, call.at_callee_side.host) == (HOST, outside)
    call.talk()
    call.end()
    check_counters(daemon, relayed=12)


@pytest.mark.parametrize(("caller", "callee"), [(HOST, "::1"), ("::1", HOST)], ids=["4to6", "6to4"])
def test_ipv4_and_ipv6_are_bridged(
    start_daemon: StartDaemon, make_parties: MakeParties, tmp_path: Path, caller: str, callee: str
) -> None:
    need_ipv6()
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay, "--bridge_symmetric", listen=("-l", HOST, "-6", "/::1"))
    call = make_parties(relay, values={"MEDIA_FLAGS": '"corx"'}, phones=(Phone(caller), Phone(callee)))
    assert (call.at_caller_side.host, call.at_callee_side.host) == (caller, callee)
    call.talk()
    call.end()
    check_counters(daemon, relayed=12)


def test_calls_at_once(start_daemon: StartDaemon, tmp_path: Path) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay)
    with (
        Sipp(tmp_path, Answer(), HungUp(), calls=CALLS) as callee,
        Kamailio(tmp_path, relay, callee.port, "WITH_RECORDING") as kamailio,
        Sipp(tmp_path, Invite(), HangUp(), remote=(HOST, kamailio.port), calls=CALLS) as caller,
    ):
        caller.finish()
        callee.finish()
        check_counters(daemon, relayed=0, sessions=CALLS)
        assert daemon.counter("nsess_complete") == CALLS
        assert kamailio.faults() == []


def test_another_relay_takes_over_and_gives_back(start_daemon: StartDaemon, tmp_path: Path) -> None:
    addresses = [free_address("udp", tmp_path) for _ in range(2)]
    first, second = (start_daemon("-s", address) for address in addresses)
    steps = [Invite(), HangUp()]
    with (
        Sipp(tmp_path, Answer(), HungUp(), calls=3) as callee,
        Kamailio(tmp_path, " ".join(addresses), callee.port, values={"RTPPROXY_DISABLE_TOUT": 1}) as kamailio,
    ):

        def call(number: int) -> None:
            # The bytes of the Call-ID choose the relay: their sum is even, so it is always the same one.
            name = f"{number}{number}"
            with Sipp(tmp_path, *steps, remote=(HOST, kamailio.port), call_id=name) as caller:
                caller.finish()

        call(1)
        chosen, other = (first, second) if first.counter("nsess_created") else (second, first)
        assert (chosen.counter("nsess_created"), other.counter("nsess_created")) == (1, 0)
        chosen.stop()
        call(2)
        wait_until(lambda: other.counter("nsess_destroyed") == 1, "the other relay has had the call")
        assert kamailio.disabled_relays() == [addresses[0 if chosen is first else 1]]
        again = start_daemon("-s", addresses[0 if chosen is first else 1])
        # Kamailio looks again with the first call after the time that it leaves a relay out.
        time.sleep(1.5)
        call(3)
        wait_until(lambda: again.counter("nsess_destroyed") == 1, "the first relay has had the call")
        assert kamailio.disabled_relays() == []
        callee.finish()
    assert other.counter("nsess_created") == 1
    assert again.counter("ncmds_errs") == other.counter("ncmds_errs") == 0


def test_without_a_relay_calls_are_refused(tmp_path: Path) -> None:
    relay = free_address("udp", tmp_path)
    with (
        Kamailio(tmp_path, relay, free_port(socket.SOCK_DGRAM)) as kamailio,
        Sipp(tmp_path, RefusedInvite(503), remote=(HOST, kamailio.port)) as caller,
    ):
        caller.finish()
        assert kamailio.disabled_relays() == [relay]


def test_a_relay_that_is_about_to_end_takes_no_calls(start_daemon: StartDaemon, tmp_path: Path) -> None:
    relay = free_address("udp", tmp_path)
    daemon = start_daemon("-s", relay)
    daemon.command("U call 127.0.0.1 4000 from")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for_log("SIGHUP")
    with (
        Kamailio(tmp_path, relay, free_port(socket.SOCK_DGRAM)) as kamailio,
        Sipp(tmp_path, RefusedInvite(503), remote=(HOST, kamailio.port)) as caller,
    ):
        caller.finish()
        # It does not try another one: E99 is an answer.
        assert kamailio.disabled_relays() == []
        assert [fault for fault in kamailio.faults() if "in reply from rtp proxy" not in fault] == []
    daemon.command("D call from")
    assert daemon.wait() == 0


def make_prompt(path: Path) -> list[bytes]:
    """Writes a prompt in PCMA and returns its packets' payloads."""
    frames = [bytes([number]) * FRAME for number in range(1, PROMPT_FRAMES + 1)]
    path.with_name(f"{path.name}.{PCMA}").write_bytes(b"".join(frames))
    return frames
