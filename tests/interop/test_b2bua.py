"""Calls through the stock Sippy B2BUA, which steers the relay over each of its transports."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.b2bua import B2bua, SippyClient
from interop.counters import check_counters
from interop.sipp import (
    HOST,
    Answer,
    HangUp,
    HungUp,
    Invite,
    Mark,
    Play,
    Sipp,
    capture,
    captured,
    need_raw_sockets,
)
from support import capture as recording
from support.daemon import TRANSPORTS, StartDaemon, free_address, wait_until
from support.phone import Media, Phone
from support.tools import need_ipv6

KEY = "dtmf_2833_5.pcap"
KEY_S = 0.3
PROMPT_FRAME = 80
"""Bytes that a prompt has in a packet, which is 10 ms long."""


@pytest.mark.parametrize(
    ("transport", "options"),
    [
        *(pytest.param(transport, (), id=transport) for transport in TRANSPORTS),
        *(pytest.param(transport, ("--compat",), id=f"{transport}-compat") for transport in ("udp", "unix")),
    ],
)
def test_a_call_is_held_and_recorded(
    start_daemon: StartDaemon, tmp_path: Path, transport: str, options: tuple[str, ...]
) -> None:
    need_raw_sockets()
    said = captured(KEY)
    relay, notify = free_address(transport, tmp_path), f"unix:{tmp_path}/b2bua"
    daemon = start_daemon("-s", relay, "-n", notify, *options, log_level="dbug")
    steps = [Invite(), Mark("talk"), Play(capture(KEY), KEY_S), Mark("end"), HangUp()]
    with (
        Sipp(tmp_path, Answer(), HungUp(), echo=True) as callee,
        B2bua(tmp_path, daemon, relay, (HOST, callee.port), notify) as b2bua,
        Sipp(tmp_path, *steps, remote=(HOST, b2bua.port)) as caller,
    ):
        caller.await_mark("talk")
        session = b2bua.session()
        assert daemon.command(session.command("R")) == "0"
        caller.go("talk")
        wait_until(
            lambda: daemon.command(session.command("Q")).split()[1:3] == [str(len(said))] * 2,
            "everything is said and echoed",
        )
        assert daemon.command(session.command("Q")).split()[3:] == [str(2 * len(said)), "0"]
        caller.go("end")
        caller.finish()
        callee.finish()
        wait_until(lambda: daemon.counter("nsess_destroyed") == 1, "the session is deleted")
        assert b2bua.commands("D") == [session.command("D").split()]
        assert daemon.command(session.command("Q")) == "E50"
    # The one refusal is that of the line above.
    check_counters(daemon, relayed=2 * len(said), refused=1)

    name = f"{session.call_id}={session.from_tag}"
    path = daemon.recordings / (f"{name}.o.rtp" if options else f"{name}.pcapng")
    wait_until(lambda: options or path.with_suffix(".json").exists(), "the recording is complete")
    packets = recording.read(path)
    for leg in (None,) if options else ("caller", "callee"):
        assert [packet.payload for packet in packets if packet.interface == leg] == said


@pytest.mark.parametrize("options", [(), ("--compat",)], ids=["native", "compat"])
@pytest.mark.parametrize(
    ("caller_host", "callee_host"),
    [(HOST, HOST), ("::1", "::1"), (HOST, "::1"), ("::1", HOST)],
    ids=["4to4", "6to6", "4to6", "6to4"],
)
def test_the_route_chooses_among_wildcard_addresses(
    start_daemon: StartDaemon, tmp_path: Path, caller_host: str, callee_host: str, options: tuple[str, ...]
) -> None:
    need_ipv6()
    relay, notify = free_address("udp", tmp_path), f"unix:{tmp_path}/b2bua"
    listen = ("-l", "0.0.0.0", "-6", "/::")
    daemon = start_daemon("-s", relay, "-n", notify, *options, listen=listen, log_level="dbug")
    with (
        Phone(caller_host) as caller_media,
        Phone(callee_host) as callee_media,
        Sipp(tmp_path, Answer(media=callee_media.media), HungUp(), host=callee_host) as callee,
        B2bua(tmp_path, daemon, relay, (callee_host, callee.port), notify, address="*") as b2bua,
        Sipp(
            tmp_path,
            Invite(media=caller_media.media),
            Mark("end"),
            HangUp(),
            remote=(caller_host, b2bua.port),
            host=caller_host,
        ) as caller,
    ):
        caller.await_mark("end")
        (at_caller_side,), (at_callee_side,) = caller.told(), callee.told()
        assert (at_caller_side.host, at_callee_side.host) == (caller_host, callee_host)
        said = caller_media.say(at_caller_side, 5)
        assert callee_media.hear(5) == said
        answered = callee_media.say(at_callee_side, 3)
        assert caller_media.hear(3) == answered
        caller.go("end")
        caller.finish()
        callee.finish()
        check_counters(daemon, relayed=8)


def test_a_call_is_put_on_hold_and_taken_back(start_daemon: StartDaemon, tmp_path: Path) -> None:
    need_raw_sockets()
    said = captured(KEY)
    relay, notify = free_address("cunix", tmp_path), f"unix:{tmp_path}/b2bua"
    daemon = start_daemon("-s", relay, "-n", notify, log_level="dbug")
    key = Play(capture(KEY), KEY_S)
    steps = [Invite(), key, Mark("hold"), Invite(2, on_hold=True), Mark("back"), Invite(3), key]
    with (
        Sipp(tmp_path, Answer(), *2 * [Answer(is_change=True)], HungUp(), echo=True) as callee,
        B2bua(tmp_path, daemon, relay, (HOST, callee.port), notify) as b2bua,
        Sipp(tmp_path, *steps, Mark("end"), HangUp(), remote=(HOST, b2bua.port)) as caller,
    ):
        caller.go("hold")
        caller.await_mark("back")
        session = b2bua.session()
        held = [words for words in b2bua.commands("U") if words[2] == "0.0.0.0"]
        assert [words[1:2] + words[4:6] for words in held] == [session.command("U").split()[1:]]
        caller.go("back")
        caller.await_mark("end")
        assert daemon.command(session.command("Q")).split()[1:] == [str(2 * len(said))] * 2 + ["40", "0"]
        caller.go("end")
        caller.finish()
        callee.finish()
    check_counters(daemon, relayed=4 * len(said))


def test_both_media_of_a_call_are_relayed_and_recorded(start_daemon: StartDaemon, tmp_path: Path) -> None:
    need_raw_sockets()
    said = captured(KEY)
    relay, notify = free_address("udp", tmp_path), f"unix:{tmp_path}/b2bua"
    daemon = start_daemon("-s", relay, "-n", notify, "-a", log_level="dbug")
    steps = [Invite(has_video=True), Play(capture(KEY), KEY_S), Play(capture(KEY), KEY_S, "video"), HangUp()]
    with (
        Sipp(tmp_path, Answer(has_video=True), HungUp(), echo=True) as callee,
        B2bua(tmp_path, daemon, relay, (HOST, callee.port), notify) as b2bua,
        Sipp(tmp_path, *steps, remote=(HOST, b2bua.port)) as caller,
    ):
        caller.finish()
        callee.finish()
        check_counters(daemon, relayed=4 * len(said), sessions=2)
        session = b2bua.session()
        call_id = session.call_id.removesuffix("-1")
        assert [words[1] for words in b2bua.commands("D")] == [f"{call_id}-1", f"{call_id}-0"]
    for index in (0, 1):
        path = daemon.recordings / f"{call_id}-{index}={session.from_tag}.pcapng"
        wait_until(path.with_suffix(".json").exists, "the recording is complete")
        assert recording.sidecar(path)["call"] == f"{call_id}={session.from_tag}"
        packets = recording.read(path)
        for leg in ("caller", "callee"):
            assert [packet.payload for packet in packets if packet.interface == leg] == said


@pytest.mark.parametrize("kind", ["unix", "path", "tcp"])
def test_a_call_without_media_is_hung_up(start_daemon: StartDaemon, tmp_path: Path, kind: str) -> None:
    need_raw_sockets()
    relay = free_address("cunix", tmp_path)
    notify = f"{tmp_path}/b2bua" if kind == "path" else f"unix:{tmp_path}/b2bua"
    if kind == "tcp":
        notify = free_address("tcp", tmp_path)
    daemon = start_daemon("-s", relay, "-n", notify, "-T", "1", "-W", "30", log_level="dbug")
    with (
        Sipp(tmp_path, Answer(), HungUp(), echo=True) as callee,
        B2bua(tmp_path, daemon, relay, (HOST, callee.port), notify) as b2bua,
        Sipp(tmp_path, Invite(), Play(capture(KEY), KEY_S), HungUp(), remote=(HOST, b2bua.port)) as caller,
    ):
        caller.finish()
        callee.finish()
    assert daemon.counter("nsess_timeout") == daemon.counter("nsess_destroyed") == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_client_classes_are_content(start_daemon: StartDaemon, tmp_path: Path, transport: str) -> None:
    relay, notify = free_address(transport, tmp_path), "unix:/not/there"
    daemon = start_daemon("-s", relay, "-n", notify)
    with SippyClient(relay, notify) as client, Phone() as caller, Phone() as callee:
        features = ["copy", "stat", "tnot", "sbind", "wdnt", "copy_p"]
        assert client.request("online", True) == dict.fromkeys(["online", *features], True)
        call_id, from_tag, to_tag = client.request("begin")
        to_callee = Media(*client.request("offer", HOST, caller.port))
        to_caller = Media(*client.request("answer", HOST, callee.port))
        assert client.request("record") == "0"
        said = caller.say(to_caller, 5)
        assert callee.hear(5) == said
        answered = callee.say(to_callee, 3)
        assert caller.hear(3) == answered
        assert client.request("query")[1:] == [5, 3, 8, 0]
        wait_until(lambda: client.request("load") == [1, 1, 8, 8], "the relay says how it is")
        assert client.request("delete") == "20040107"
        assert daemon.command(f"Q {call_id} {from_tag} {to_tag}") == "E50"
        assert daemon.counter("nsess_created") == daemon.counter("nsess_destroyed") == 1
    path = daemon.recordings / f"{call_id}={from_tag}.pcapng"
    wait_until(path.with_suffix(".json").exists, "the recording is complete")
    assert sorted(recording.payloads(recording.read(path))) == sorted(said + answered)


@pytest.mark.parametrize("options", [(), ("--compat",)], ids=["native", "compat"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_client_classes_play_copy_and_record_by_name(
    start_daemon: StartDaemon, tmp_path: Path, transport: str, options: tuple[str, ...]
) -> None:
    frames = [bytes([number]) * PROMPT_FRAME for number in range(1, 4)]
    (tmp_path / "ringback.0").write_bytes(b"".join(frames))
    relay = free_address(transport, tmp_path)
    daemon = start_daemon("-s", relay, *options)
    with SippyClient(relay, "unix:/none") as client, Phone() as caller, Phone() as callee, Phone() as copies:
        client.request("online", True)
        client.request("begin")
        to_callee = Media(*client.request("offer", HOST, caller.port))
        # Before the answer: the client makes the other half of the session itself.
        assert client.request("play_caller", f"{tmp_path}/ringback", -1) == "0"
        heard = caller.hear(2 * len(frames))
        assert [packet[12:] for packet in heard] == 2 * frames
        assert client.request("stop_play_caller") == "0"
        wait_until(lambda: daemon.counter("nplrs_destroyed") == 1, "the prompt ends")
        caller.hear(daemon.counter("npkts_played") - len(heard))

        to_caller = Media(*client.request("answer", HOST, callee.port))
        assert client.request("record", "take") == "0"
        said = caller.say(to_caller, 5)
        assert callee.hear(5) == said
        answered = callee.say(to_callee, 3)
        assert caller.hear(3) == answered
        assert client.request("delete") == "20040107"
        check_counters(daemon, relayed=8, played=daemon.counter("npkts_played"))

        client.request("begin")
        to_callee = Media(*client.request("offer", HOST, caller.port))
        client.request("answer", HOST, callee.port)
        assert client.request("copy_callee", HOST, copies.port) == "0"
        said_to_both = callee.say(to_callee, 4)
        assert caller.hear(4) == copies.hear(4) == said_to_both
        client.request("delete")
        assert daemon.counter("nsess_created") == daemon.counter("nsess_destroyed") == 2
    suffix = "rtp" if options else "pcapng"
    paths = [daemon.recordings / f"take.{side}.{suffix}" for side in ("a", "o")]
    wait_until(lambda: all(path.exists() and path.stat().st_size for path in paths), "the files are complete")
    assert [recording.payloads(recording.read(path)) for path in paths] == [said, answered]


# Not over UDP, where the client asks again for ten seconds before it gives up.
@pytest.mark.parametrize("transport", ["unix", "cunix", "tcp", "tcp6"])
def test_the_client_classes_find_the_relay_again(
    start_daemon: StartDaemon, tmp_path: Path, transport: str
) -> None:
    relay = free_address(transport, tmp_path)
    daemon = start_daemon("-s", relay)
    with SippyClient(relay, "unix:/none") as client:
        assert client.request("online", True)["online"]
        daemon.stop()
        assert not client.request("online", False)["online"]
        start_daemon("-s", relay)
        assert client.request("online", True)["online"]
