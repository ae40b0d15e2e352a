"""Real speech and key tones, played by sipp through a relay that a SIP proxy puts into the call."""

from __future__ import annotations

import socket
from pathlib import Path

from interop.proxy import SipProxy
from interop.sipp import Answer, HangUp, HungUp, Invite, Mark, Play, Sipp, capture, captured, need_raw_sockets
from support import capture as recording
from support.control import connect
from support.daemon import StartDaemon, free_port, wait_until
from support.tools import fields, need, tshark

SPEECH = "g711a.pcap"
SPEECH_S = 7.2
KEY = "dtmf_2833_5.pcap"
KEY_S = 0.3
CALLS = 10


def test_speech_and_a_key_are_recorded_as_they_were_said(start_daemon: StartDaemon, tmp_path: Path) -> None:
    need("tshark")
    need_raw_sockets()
    said = captured(SPEECH) + captured(KEY)
    daemon = start_daemon("-s", f"unix:{tmp_path}/control")
    steps = [
        Invite(),
        Mark("talk"),
        Play(capture(SPEECH), SPEECH_S),
        Play(capture(KEY), KEY_S),
        Mark("end"),
        HangUp(),
    ]
    with (
        Sipp(tmp_path, Answer(), HungUp(), echo=True) as callee,
        SipProxy(connect(f"unix:{tmp_path}/control"), ("127.0.0.1", callee.port), record=True) as proxy,
        Sipp(tmp_path, *steps, remote=("127.0.0.1", proxy.port), call_id="speech@here") as caller,
    ):
        caller.go("talk")
        tags = proxy.tags["speech@here"]
        # What the phone at the other end echoes may lag behind the end of the capture.
        wait_until(
            lambda: daemon.command(f"Q speech@here {tags[0]} {tags[1]}").split()[1:3] == [str(len(said))] * 2,
            "everything is said and echoed",
            seconds=60,
        )
        caller.go("end")
        caller.finish()
        callee.finish()
    assert proxy.errors == []
    assert proxy.stats["speech@here"][1:] == [len(said), len(said), 2 * len(said), 0]

    path = daemon.recordings / f"speech@here={tags[0]}.pcapng"
    wait_until(path.with_suffix(".json").exists, "the recording is complete")
    packets = recording.read(path)
    for leg in ("caller", "callee"):
        heard = [packet.payload for packet in packets if packet.interface == leg]
        assert heard == said, f"the leg of the {leg}"
    assert len(packets) == 2 * len(said)
    report = recording.sidecar(path)
    assert (report["packets"], report["dropped"], report["gaps"]) == (2 * len(said), 0, [])
    # SSRC, codec and packets of each stream, found through the SDP in the head alone.
    streams = [line.split() for line in tshark(path, "-q", "-z", "rtp,streams").splitlines() if " 0x" in line]
    assert sorted((stream[6], stream[7], int(stream[8])) for stream in streams) == [
        *2 * [("0x0E05384E", "RTPType-101", len(captured(KEY)))],
        *2 * [("0xDEE0EE8F", "g711A", len(captured(SPEECH)))],
    ]
    ports = {(stream[3], stream[5]) for stream in streams}
    assert {source for source, _ in ports} == {str(caller.media_port), str(callee.media_port)}
    events = fields(path, "rtpevent", "rtpevent.event_id")
    assert events == 2 * len(captured(KEY)) * [["5"]]


def test_calls_at_once_do_not_mix(start_daemon: StartDaemon, tmp_path: Path) -> None:
    need_raw_sockets()
    said = captured(KEY)
    address = f"udp:127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    daemon = start_daemon("-s", address)
    with (
        Sipp(tmp_path, Answer(), HungUp(), calls=CALLS) as callee,
        SipProxy(connect(address), ("127.0.0.1", callee.port), record=True) as proxy,
        Sipp(
            tmp_path,
            Invite(),
            Play(capture(KEY), KEY_S),
            HangUp(),
            remote=("127.0.0.1", proxy.port),
            calls=CALLS,
        ) as caller,
    ):
        caller.finish()
        callee.finish()
    assert proxy.errors == []
    assert len(proxy.stats) == CALLS
    assert [stats[1:] for stats in proxy.stats.values()] == CALLS * [[len(said), 0, len(said), 0]]
    assert daemon.counter("nsess_created") == daemon.counter("nsess_destroyed") == CALLS
    for call_id, (from_tag, _) in proxy.tags.items():
        path = daemon.recordings / f"{call_id}={from_tag}.pcapng"
        wait_until(path.with_suffix(".json").exists, "the recording is complete")
        assert [packet.payload for packet in recording.read(path)] == said
