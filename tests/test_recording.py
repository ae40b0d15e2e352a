"""Recordings: what is in them, under which names, and what happens when they cannot be written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from support.capture import Captured, mode, payloads, read, read_all, sidecar
from support.daemon import Daemon, StartDaemon, wait_until
from support.phone import Call, MakeCall, Media, Phone, RtpSource
from support.tools import capinfos, fields, tshark

PACKETS = 25


def finished(daemon: Daemon, name: str) -> Path:
    """The recording of this name, once it is complete."""
    path = daemon.recordings / name
    report = path.with_suffix(".json")
    wait_until(lambda: path.exists() and report.exists(), f"{name} is finished; log: {daemon.log()}")
    return path


def names(folder: Path) -> set[str]:
    """What is in a folder."""
    return {path.name for path in folder.iterdir()}


def of(phone: Phone, packets: list[Captured]) -> list[bytes]:
    """What a phone sent, RTP and RTCP, according to a recording."""
    ports = {phone.port, phone.port + 1}
    return payloads(packet for packet in packets if packet.source[1] in ports)


def test_one_command_records_the_whole_call(daemon: Daemon, make_call: MakeCall) -> None:
    before_ns = time.time_ns()
    call = make_call(daemon, "call-1")
    call.talk(3)
    assert call.command("R") == "0"
    # It records already; neither party need ask again.
    assert call.command("R") == "0"
    assert call.command_of_callee("R") == "0"
    said, answered = call.talk(PACKETS)
    said.append(call.caller.report(call.at_caller_side))
    assert call.callee.hear_rtcp() == said[-1:]
    answered.append(call.callee.report(call.at_callee_side))
    assert call.caller.hear_rtcp() == answered[-1:]
    assert call.command("D") == "0"

    path = finished(daemon, "call-1=from.pcapng")
    assert names(daemon.recordings) == {"call-1=from.pcapng", "call-1=from.json"}
    packets = read(path)
    assert len(packets) == 2 * (PACKETS + 1)
    assert of(call.caller, packets) == said
    assert of(call.callee, packets) == answered
    assert {packet.interface: (packet.source, packet.destination) for packet in packets} == {
        "caller": (call.caller.media.pair, call.at_caller_side.pair),
        "caller rtcp": (call.caller.media.rtcp.pair, call.at_caller_side.rtcp.pair),
        "callee": (call.callee.media.pair, call.at_callee_side.pair),
        "callee rtcp": (call.callee.media.rtcp.pair, call.at_callee_side.rtcp.pair),
    }
    times = [packet.time_ns for packet in packets]
    assert before_ns < times[0]
    assert times[-1] < time.time_ns()


def test_the_sidecar_tells_what_is_in_the_file(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon, "call-1", modifiers=("c0,8,101", "c0"))
    call.command("R")
    call.talk(PACKETS)
    call.caller.report(call.at_caller_side)
    call.callee.hear_rtcp()
    call.command("D")

    path = finished(daemon, "call-1=from.pcapng")
    report = sidecar(path)
    packets = read(path)
    assert (report["call_id"], report["from_tag"], report["to_tag"]) == ("call-1", "from", "to")
    assert (report["format"], report["scope"]) == ("pcapng", "call")
    assert (report["packets"], report["dropped"], report["unsaved"]) == (2 * PACKETS + 1, 0, 0)
    assert report["bytes"] == sum(len(packet.payload) for packet in packets)
    assert report["gaps"] == report["pauses"] == []
    assert report["ended"]["reason"] == "deleted"
    caller, callee = report["legs"]["caller"], report["legs"]["callee"]
    assert caller["signalled"] == f"127.0.0.1:{call.caller.port}"
    assert caller["local"] == f"127.0.0.1:{call.at_caller_side.port}"
    assert caller["codecs"] == [0, 8, 101]
    assert caller["rtp"]["packets"] == callee["rtp"]["packets"] == PACKETS
    assert (caller["rtcp"]["packets"], callee["rtcp"]["packets"]) == (1, 0)
    assert caller["rtp"]["ssrcs"] == [call.caller.source.ssrc]
    assert callee["rtp"]["ssrcs"] == [call.callee.source.ssrc]
    assert callee["rtp"]["sources"] == [f"127.0.0.1:{call.callee.port}"]
    assert callee["rtp"]["payload_types"] == [0]
    latched = {(mark["leg"], mark["channel"]) for mark in report["marks"] if mark["event"] == "latched"}
    assert latched == {("caller", "rtp"), ("callee", "rtp"), ("caller", "rtcp")}


def test_files_are_private(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon, "call-1")
    call.command("R")
    call.talk(3)
    wait_until(lambda: names(daemon.recordings) == {"call-1=from.pcapng.part"}, "the file is there")
    assert mode(daemon.recordings / "call-1=from.pcapng.part") == 0o600
    call.command("D")
    path = finished(daemon, "call-1=from.pcapng")
    assert mode(path) == mode(path.with_suffix(".json")) == 0o600


def test_a_pause_is_left_out_and_told(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon, "call-1")
    assert call.command("N") == "E50"
    call.command("R")
    first = call.talk(PACKETS)
    assert call.command_of_callee("N") == "0"
    assert call.command("N") == "E50"
    call.talk(PACKETS)
    assert call.command_of_callee("R") == "0"
    second = call.talk(PACKETS)
    assert call.command("Na") == "0"
    call.talk(3)
    call.command("D")

    path = finished(daemon, "call-1=from.pcapng")
    assert names(daemon.recordings) == {"call-1=from.pcapng", "call-1=from.json"}
    packets = read(path)
    assert of(call.caller, packets) == first[0] + second[0]
    assert of(call.callee, packets) == first[1] + second[1]
    # The remark stands at the first packet after the pause.
    remarks = [number for number, packet in enumerate(packets) if "paused" in " ".join(packet.comments)]
    assert remarks == [2 * PACKETS]
    report = sidecar(path)
    assert len(report["pauses"]) == 2
    assert report["pauses"][0]["from"] < report["pauses"][0]["to"]
    assert report["packets"] == 4 * PACKETS


def test_every_session_may_be_recorded(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("-a")
    calls = [make_call(daemon, f"call-{number}") for number in range(5)]
    talks = [call.talk(PACKETS) for call in calls]
    assert daemon.command("X") == "0"
    for call, (said, answered) in zip(calls, talks, strict=True):
        packets = read(finished(daemon, f"{call.call_id}=from.pcapng"))
        assert of(call.caller, packets) == said
        assert of(call.callee, packets) == answered


def test_media_of_one_call_have_a_file_each_and_one_key(daemon: Daemon, make_call: MakeCall) -> None:
    calls = [make_call(daemon, "call", tags=(f"from;{number}", f"to;{number}")) for number in (1, 2)]
    # Recording and deleting without media number means all of them.
    assert daemon.command("R call from to") == "0"
    for call in calls:
        call.talk(PACKETS)
    assert daemon.command("D call from to") == "0"
    reports = [sidecar(finished(daemon, f"call=from;{number}.pcapng")) for number in (1, 2)]
    assert [report["packets"] for report in reports] == [2 * PACKETS] * 2
    assert reports[0]["call"] == reports[1]["call"]


def test_a_second_call_of_the_same_name_overwrites_nothing(daemon: Daemon, make_call: MakeCall) -> None:
    talks = []
    for _ in range(2):
        call = make_call(daemon, "call-1")
        call.command("R")
        talks.append(call.talk(PACKETS)[0])
        call.command("D")
        wait_until(lambda: len(talks) == sum(name.endswith(".json") for name in names(daemon.recordings)), "")
    recordings = sorted(daemon.recordings.glob("*.pcapng"))
    assert len(recordings) == 2
    assert sorted(payloads(read(path))[:PACKETS] for path in recordings) == sorted(talks)
    for path in recordings:
        sidecar(path)


def test_the_end_of_the_relay_finishes_recordings(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon()
    call = make_call(daemon, "call-1")
    call.command("R")
    said, _ = call.talk(PACKETS)
    assert daemon.stop() == 0
    path = daemon.recordings / "call-1=from.pcapng"
    assert of(call.caller, read(path)) == said
    assert sidecar(path)["ended"]["reason"] == "shutdown"


def test_a_timeout_finishes_the_recording(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("-T", "1")
    call = make_call(daemon, "call-1")
    call.command("R")
    call.talk(3)
    assert sidecar(finished(daemon, "call-1=from.pcapng"))["ended"]["reason"] == "timeout"


def test_what_is_recorded_is_on_disk_soon(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon, "call-1")
    call.command("R")
    said, _ = call.talk(PACKETS)
    part = daemon.recordings / "call-1=from.pcapng.part"
    copy = daemon.folder / "copy.pcapng"

    def is_written() -> bool:
        if not part.exists():
            return False
        shutil.copyfile(part, copy)
        return of(call.caller, read(copy)) == said

    wait_until(is_written, "the packets are in the file of the call that goes on")


# --- Formats and the names that go with them


def test_classic_pcap(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("-P")
    call = make_call(daemon, "call-1")
    assert call.command("R") == "0"
    said, answered = call.talk(PACKETS)
    said.append(call.caller.report(call.at_caller_side))
    call.callee.hear_rtcp()
    call.command("D")
    path = finished(daemon, "call-1=from.pcap")
    assert path.read_bytes()[:4] == (0xA1B2C3D4).to_bytes(4, "little")
    packets = read_all(path)
    assert of(call.caller, packets) == said
    assert of(call.callee, packets) == answered
    assert packets[0].source == call.caller.media.pair
    assert packets[0].destination == call.at_caller_side.pair
    assert sidecar(path)["format"] == "pcap"


def test_classic_pcap_with_nanoseconds(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("-P", "--record-ns")
    call = make_call(daemon, "call-1")
    call.command("R")
    call.talk(PACKETS)
    call.command("D")
    path = finished(daemon, "call-1=from.pcap")
    assert path.read_bytes()[:4] == (0xA1B23C4D).to_bytes(4, "little")
    assert any(packet.time_ns % 1000 for packet in read(path))
    assert "nanoseconds" in capinfos(path)["File timestamp precision"]


def test_adhoc(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--record-format", "adhoc")
    call = make_call(daemon, "call-1")
    # One direction: that of the party named first.
    assert call.command("R") == "0"
    said, _ = call.talk(PACKETS)
    assert call.command_of_callee("R") == "0"
    more, answered = call.talk(PACKETS)
    report = call.callee.report(call.at_callee_side)
    call.caller.hear_rtcp()
    before = time.time_ns()
    call.command("D")
    caller, callee = finished(daemon, "call-1=from.o.rtp"), finished(daemon, "call-1=from.a.rtp")
    assert payloads(read(caller)) == said + more
    assert payloads(read(callee)) == answered
    assert payloads(read(callee.with_suffix(".rtcp"))) == [report]
    assert read(caller.with_suffix(".rtcp")) == []
    assert {packet.source for packet in read(caller)} == {call.caller.media.pair}
    assert all(before - 60 * 10**9 < packet.time_ns < before for packet in read(caller))


def test_adhoc_over_ipv6(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--record-format", "adhoc", listen=("-6", "::1"))
    call = make_call(daemon, "call-1", hosts=("::1", "::1"), modifiers=("6", "6"))
    call.command("R")
    said, _ = call.talk(PACKETS)
    call.command("D")
    packets = read(finished(daemon, "call-1=from.o.rtp"))
    assert payloads(packets) == said
    assert {packet.source for packet in packets} == {("::1", call.caller.port)}


COMPAT_NAMES = {
    (): {"a=f.o.rtp", "a=f.o.rtcp", "a=f.a.rtp", "a=f.a.rtcp"},
    ("-R",): {"a=f.o.rtp", "a=f.a.rtp"},
}


@pytest.mark.parametrize("options", COMPAT_NAMES)
@pytest.mark.parametrize("by_environment", [False, True])
def test_as_the_c_program(
    start_daemon: StartDaemon, make_call: MakeCall, options: tuple[str, ...], by_environment: bool
) -> None:
    os.umask(0o027)
    try:
        if by_environment:
            daemon = start_daemon(*options, environment={"RTPPROXY_COMPAT": "1"})
        else:
            daemon = start_daemon("--compat", *options)
    finally:
        os.umask(0o022)
    call = make_call(daemon, "a", tags=("f;1", "t;1"))
    assert call.command("R") == "0"
    assert call.command_of_callee("R") == "0"
    expected = COMPAT_NAMES[options]
    wait_until(lambda: names(daemon.recordings) == expected, "the files are there at once, under their names")
    said, answered = call.talk(PACKETS)
    assert call.command("N") == "0"
    call.talk(1)
    call.command("D")
    assert daemon.stop() == 0
    assert names(daemon.recordings) == expected
    assert payloads(read(daemon.recordings / "a=f.o.rtp")) == said
    assert payloads(read(daemon.recordings / "a=f.a.rtp"))[:PACKETS] == answered
    assert {mode(path) for path in daemon.recordings.iterdir()} == {0o640}


def test_as_the_c_program_in_pcap(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--compat", "-P")
    call = make_call(daemon, "call-1")
    assert call.command("R") == "0"
    single = make_call(daemon, "call-2")
    assert single.command("Rs") == "0"
    assert single.command("Rs") == "E50"
    assert single.command_of_callee("Rs") == "0"
    said, _ = call.talk(PACKETS)
    both, answers = single.talk(PACKETS)
    daemon.command("X")
    assert daemon.stop() == 0
    assert names(daemon.recordings) == {"call-1=from.o.rtp", "call-1=from.o.rtcp", "call-2=from.pcap"}
    pcap = daemon.folder / "copy.pcap"
    shutil.copyfile(daemon.recordings / "call-1=from.o.rtp", pcap)
    assert payloads(read(pcap)) == said
    packets = read(daemon.recordings / "call-2=from.pcap")
    assert of(single.caller, packets) == both
    assert of(single.callee, packets) == answers


def test_spool(start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    daemon = start_daemon("-S", spool)
    call = make_call(daemon, "call-1")
    call.command("R")
    said, _ = call.talk(PACKETS)
    wait_until(lambda: names(spool) == {"call-1=from.pcapng.part"}, "the file is in the spool folder")
    assert names(daemon.recordings) == set()
    call.command("D")
    path = finished(daemon, "call-1=from.pcapng")
    assert of(call.caller, read(path)) == said
    wait_until(lambda: names(spool) == set(), "the spool folder is empty")


@pytest.mark.skipif(
    not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == Path("/tmp").stat().st_dev,
    reason="needs a second file system",
)
def test_spool_on_another_file_system(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    spool = Path("/dev/shm") / f"rtpproxy-test-{os.getpid()}"
    spool.mkdir()
    try:
        daemon = start_daemon("-S", spool)
        call = make_call(daemon, "call-1")
        call.command("R")
        said, _ = call.talk(PACKETS)
        call.command("D")
        path = finished(daemon, "call-1=from.pcapng")
        assert of(call.caller, read(path)) == said
        sidecar(path)
        wait_until(lambda: names(spool) == set(), "the spool folder is empty")
        assert mode(path) == 0o600
        assert daemon.stop() == 0
    finally:
        shutil.rmtree(spool)


# --- Names


HOSTILE_IDS = {
    "parent": b"../x",
    "deep-parent": b"../../../../../../tmp/x",
    "folder": b"a/b",
    "absolute": b"/etc/passwd",
    "dot": b".",
    "two-dots": b"..",
    "hidden": b".hidden",
    "percent": b"100%",
    "escaped": b"..%2Fx",
    "controls": b"a\x01\x7fb",
    "utf-8": "grüße-☎".encode(),
    "latin-1": b"gr\xfc\xdfe",
    "long": b"x" * 300,
    "longest": b"y" * 4000,
}


@pytest.mark.parametrize("call_id", HOSTILE_IDS.values(), ids=HOSTILE_IDS.keys())
@pytest.mark.parametrize("options", [(), ("--compat",)], ids=["default", "compat"])
def test_no_name_leaves_the_folder(
    start_daemon: StartDaemon, tmp_path: Path, call_id: bytes, options: tuple[str, ...]
) -> None:
    daemon = start_daemon(*options)
    outside = {path for path in tmp_path.rglob("*") if daemon.recordings not in path.parents}
    with Phone() as caller, Phone() as callee:
        offer = daemon.command(b"U %s %s from" % (call_id, str(caller.media).encode()))
        answer = daemon.command(b"L %s %s from to" % (call_id, str(callee.media).encode()))
        assert daemon.command(b"R %s from to" % call_id) == "0"
        said = caller.say(Media.parse(answer), PACKETS)
        assert callee.hear(PACKETS) == said
        callee.say(Media.parse(offer), 1)
        assert len(caller.hear(1)) == 1
        assert daemon.command(b"D %s from to" % call_id) == "0"
    assert daemon.stop() == 0
    suffix = ".o.rtp" if options else ".pcapng"
    recordings = [path for path in daemon.recordings.iterdir() if path.name.endswith(suffix)]
    assert len(recordings) == 1
    [path] = recordings
    assert payloads(read(path))[:PACKETS] == said
    assert not path.name.startswith(".")
    if not options:
        assert sidecar(path)["packets"] == PACKETS + 1
        if len(call_id) < 200:
            # The exact id can be read back from the name.
            assert unquote_to_bytes(os.fsencode(path.name)) == call_id + b"=from.pcapng"
    assert {path for path in tmp_path.rglob("*") if daemon.recordings not in path.parents} <= outside


def test_different_calls_never_share_a_name(daemon: Daemon) -> None:
    ids = ["a/b", "a%2Fb", "a%2fb", "A/B", "z" * 300, "z" * 301, "z" * 299 + "/"]
    for call_id in ids:
        assert daemon.command(f"U {call_id} 127.0.0.1 4000 from").endswith("127.0.0.1")
        assert daemon.command(f"L {call_id} 127.0.0.1 5000 from to").endswith("127.0.0.1")
        assert daemon.command(f"R {call_id} from to") == "0"
    assert daemon.stop() == 0
    reports = [path for path in daemon.recordings.iterdir() if path.suffix == ".json"]
    assert len(reports) == len(ids)
    assert not any("-2" in path.name for path in reports)


# --- What may go wrong


def test_without_a_folder_nothing_is_recorded(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon(record=False)
    call = make_call(daemon)
    for letters in ("R", "Rs", "R"):
        assert call.command(letters) == "E50"
    call.talk(PACKETS)
    assert call.command("D") == "0"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can get to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("trouble", ["missing", "a file", "not permitted"])
def test_a_folder_that_cannot_be_used(
    start_daemon: StartDaemon, make_call: MakeCall, open_folder: Path, trouble: str
) -> None:
    folder = open_folder / "calls"
    options: tuple[str, ...] = ()
    if trouble == "a file":
        folder.write_text("not a folder")
    elif trouble == "not permitted":
        folder.mkdir(mode=0o500)
        if os.geteuid() == 0:
            options = ("-u", "nobody")
    daemon = start_daemon(*options, recordings=folder, log_level="err")
    call = make_call(daemon)
    call.talk(3)
    assert call.command("R") == "E50"
    call.talk(PACKETS)
    assert call.command("R") == "E50"
    assert call.stats()[1:] == [PACKETS + 3, PACKETS + 3, 2 * PACKETS + 6, 0]
    # What is wrong with the folder stands there once, and one line for each refusal. A thread writes them.
    wait_until(lambda: len(daemon.log().splitlines()) >= 3, "three lines in the log")
    lines = daemon.log().splitlines()
    assert sum(str(folder) in line for line in lines) == 1, lines
    assert sum(line.startswith(f"ERR:{call.call_id}:") for line in lines) == 2, lines
    assert len(lines) == 3, lines

    # Once the trouble is over, recording works without a restart.
    if trouble == "not permitted":
        folder.chmod(0o777)
    else:
        folder.unlink(missing_ok=True)
        folder.mkdir()
    wait_until(lambda: call.command("R") == "0", "the folder is found well again")
    said, _ = call.talk(PACKETS)
    call.command("D")
    packets = read(finished(daemon, f"{call.call_id}=from.pcapng"))
    assert of(call.caller, packets) == said


def test_a_folder_that_vanishes_during_a_call(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon, "call-1")
    call.command("R")
    call.talk(PACKETS)
    wait_until(lambda: (daemon.recordings / "call-1=from.pcapng.part").exists(), "the file is there")
    shutil.rmtree(daemon.recordings)
    said, _ = call.talk(PACKETS)
    daemon.wait_for_log("recording folder: ")
    # It was there before, so it may come back.
    assert make_call(daemon).command("R") == "0"
    daemon.wait_for_log("recording lost its file, which was removed")
    daemon.recordings.mkdir()
    wait_until(lambda: (daemon.recordings / "call-1=from.pcapng.part").exists(), "there is a new file")
    said += call.talk(PACKETS)[0]
    assert call.command("D") == "0"
    path = finished(daemon, "call-1=from.pcapng")
    packets, report = read(path), sidecar(path)
    assert of(call.caller, packets)[-PACKETS:] == said[-PACKETS:]
    assert report["packets"] == len(packets)
    assert report["packets"] + report["dropped"] == 6 * PACKETS
    assert {gap["cause"] for gap in report["gaps"]} <= {"the file was removed"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that is soon full."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_holds_nobody_up(
    start_daemon: StartDaemon, make_call: MakeCall, small_disk: Path
) -> None:
    daemon = start_daemon(recordings=small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(bytes((4 << 20) - (64 << 10)))
    call = make_call(daemon, "call-1")
    assert call.command("R") == "0"
    said: list[bytes] = []
    while "recording degraded, cannot write" not in daemon.log():
        said += call.talk(PACKETS)[0]
        assert len(said) < 100 * PACKETS, "the disk is full long since"
        time.sleep(0.1)
    said += call.talk(PACKETS)[0]
    filler.unlink()
    daemon.wait_for_log("recording goes on")
    last, _ = call.talk(PACKETS)
    call.command("D")

    path = finished(daemon, "call-1=from.pcapng")
    recorded = of(call.caller, read(path))
    assert recorded[-PACKETS:] == last
    assert set(recorded) <= {*said, *last}
    report = sidecar(path)
    assert report["packets"] + report["dropped"] == 2 * (len(said) + PACKETS)
    assert daemon.log().count("cannot write") == 1


# --- How others see it


def test_wireshark_sees_a_call(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--codec-map", "111=opus/48000/2")
    call = make_call(daemon, "call-1@example.com", modifiers=("c0,111", "c111,0"))
    call.callee.source = RtpSource(payload_type=111)
    call.command("R")
    call.talk(PACKETS)
    call.caller.report(call.at_caller_side)
    call.callee.hear_rtcp()
    call.command("D")
    path = finished(daemon, "call-1@example.com=from.pcapng")

    streams = tshark(path, "-q", "-z", "rtp,streams")
    rows = [line.split() for line in streams.splitlines() if "127.0.0.1" in line]
    assert len(rows) == 2, streams
    by_ssrc = {int(next(word for word in row if word.startswith("0x")), 16): row for row in rows}
    assert by_ssrc.keys() == {call.caller.source.ssrc, call.callee.source.ssrc}
    assert "g711U" in by_ssrc[call.caller.source.ssrc]
    assert "opus" in by_ssrc[call.callee.source.ssrc]
    assert all(str(PACKETS) in row for row in rows)

    statistics = tshark(path, "-q", "-z", "sip,stat")
    assert re.search(r"INVITE\s*:\s*1\b", statistics), statistics
    assert re.search(r"200 OK\s*:\s*1\b", statistics), statistics

    assert fields(path, "rtcp", "rtcp.pt") == [["200"]]
    assert {row[0] for row in fields(path, "rtp", "frame.interface_name")} == {"caller", "callee"}
    head = fields(path, "sip", "frame.number", "frame.comment", "sip.Call-ID", "sip.from.tag")
    assert [row[0] for row in head] == ["1", "2"]
    assert all("synthetic" in row[1] for row in head)
    assert {tuple(row[2:]) for row in head} == {("call-1@example.com", "from")}
    # What the callee says is no real opus.
    assert not fields(path, "_ws.malformed && rtp.p_type != 111", "frame.number")


@pytest.mark.parametrize("options", [(), ("-P",), ("-P", "--record-ns")], ids=["pcapng", "pcap", "pcap-ns"])
def test_capinfos_reads_every_capture(
    start_daemon: StartDaemon, make_call: MakeCall, options: tuple[str, ...]
) -> None:
    daemon = start_daemon(*options)
    call = make_call(daemon, "call-1")
    call.command("R")
    call.talk(PACKETS)
    call.command("D")
    path = finished(daemon, "call-1=from.pcap" if options else "call-1=from.pcapng")
    summary = capinfos(path)
    assert summary["Number of packets"] == str(2 * PACKETS + (0 if options else 2))
    assert summary["File encapsulation"] == "ether"
    assert summary["Strict time order"] == "True"
    if not options:
        assert "call-1" in summary["Capture comment"]


def test_a_leg_that_moves_is_seen_by_wireshark(daemon: Daemon, make_call: MakeCall) -> None:
    call = make_call(daemon, "call-1")
    call.command("R")
    call.talk(PACKETS)
    with Phone("127.0.0.8") as elsewhere:
        daemon.command(f"U call-1 {elsewhere.media} from to")
        said = elsewhere.say(call.at_caller_side, PACKETS)
        assert call.callee.hear(PACKETS) == said
        call.command("D")
        path = finished(daemon, "call-1=from.pcapng")
        streams = tshark(path, "-q", "-z", "rtp,streams")
        rows = [line for line in streams.splitlines() if "127.0.0" in line]
        assert len(rows) == 3, streams
        assert any(str(elsewhere.port) in row for row in rows)
    assert len(fields(path, "sip.Method == INVITE", "frame.number")) == 2


def test_recordings_of_calls_between_families(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon(listen=("-l", "127.0.0.1", "-6", "/::1"))
    call: Call = make_call(daemon, "call-1", hosts=("127.0.0.1", "::1"), modifiers=("ie", "6ie"))
    call.command("R")
    said, answered = call.talk(PACKETS)
    call.command("D")
    path = finished(daemon, "call-1=from.pcapng")
    packets = read(path)
    assert of(call.caller, packets) == said
    assert of(call.callee, packets) == answered
    assert {packet.source[0] for packet in packets} == {"127.0.0.1", "::1"}
    streams = tshark(path, "-q", "-z", "rtp,streams")
    assert len([line for line in streams.splitlines() if "g711U" in line]) == 2, streams


def test_a_wildcard_relay_records_the_real_address(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("-a", listen=("-l", "*"))
    with Phone() as caller, Phone() as callee:
        daemon.command(f"U call-1 {caller.media} from")
        answer = Media("127.0.0.5", int(daemon.command(f"L call-1 {callee.media} from to")))
        said = caller.say(answer, 3)
        assert callee.hear(3) == said
        daemon.command("D call-1 from to")
    packets = read(finished(daemon, "call-1=from.pcapng"))
    assert {packet.destination for packet in packets} == {answer.pair}
