"""The journal layout: all calls of a worker in one file after the other, and each of them taken out again."""

from __future__ import annotations

import json
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from support.capture import payloads, read, sidecar
from support.daemon import Daemon, StartDaemon, binary, wait_until
from support.disk import MEGABYTE, on_file
from support.phone import Call, MakeCall
from support.program import run
from support.tools import capinfos, fields, needs_root, tcpdump

JOURNAL = ("--record-layout", "journal", "--workers", "1")


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("journal-*.pcapng*"))


def extract(folder: Path, call_id: str, output: Path, *more: str) -> list[bytes]:
    """The packets of a call in a journal, as `rtpproxy extract` takes them out."""
    done = run(binary(), "extract", "--call", call_id, "--force", "-o", output, *more, folder)
    assert done.returncode == 0, done
    return payloads(read(output))


def listed(folder: Path) -> dict[str, Any]:
    """What `rtpproxy ls` says of each call, of which there must be one line."""
    done = run(binary(), "ls", "--json", folder)
    assert (done.returncode, done.stderr) == (0, ""), done
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    by_call = {row["call_id"]: row for row in rows}
    assert len(by_call) == len(rows)
    return by_call


def said(call: Call, count: int, into: dict[str, list[bytes]]) -> None:
    """Both talk; what they said counts to the call."""
    caller, callee = call.talk(count)
    into.setdefault(call.call_id, []).extend([*caller, *callee])


def test_fifty_calls_over_two_workers_and_many_segments(
    tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    daemon = start_daemon(*JOURNAL, "--record-segment", "1s", "--workers", "2", "-a")
    calls = [make_call(daemon, f"call-{number}") for number in range(50)]
    sent: dict[str, list[bytes]] = {}
    for _ in range(4):
        for call in calls:
            said(call, 4, sent)
        time.sleep(0.5)
    # While all of it is still being written.
    time.sleep(1.5)
    for call in calls[:5]:
        found = extract(daemon.recordings, call.call_id, tmp_path / "live.pcapng")
        assert sorted(found) == sorted(sent[call.call_id])
    for call in calls:
        assert call.command("D") == "0"
    wait_until(
        lambda: all(path.with_suffix(".json").exists() for path in segments(daemon.recordings)),
        f"all segments are finished; {daemon.log()}",
    )
    found_segments = segments(daemon.recordings)
    assert {path.stem.rsplit("-", 1)[1] for path in found_segments} == {"w0", "w1"}
    assert len(found_segments) >= 4
    for path in found_segments:
        assert sidecar(path)["format"] == "journal"
    done = run(binary(), "verify", daemon.recordings)
    assert done.returncode == 0, done
    rows = listed(daemon.recordings)
    assert rows.keys() == sent.keys()
    for call_id, packets in sent.items():
        assert (rows[call_id]["packets"], rows[call_id]["missing"]) == (len(packets), 0)
    for call in calls[::10]:
        output = tmp_path / f"{call.call_id}.pcapng"
        found = extract(daemon.recordings, call.call_id, output)
        assert sorted(found) == sorted(sent[call.call_id])
        assert {packet.interface for packet in read(output)} == {"caller", "callee"}
        times = [packet.time_ns for packet in read(output)]
        assert times == sorted(times)


def test_the_states_and_events_of_recordings_are_as_ever(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    told = tmp_path / "events"
    daemon = start_daemon(*JOURNAL, "--record-events", told)
    call = make_call(daemon, "call-1")
    assert call.command("R") == "0"
    call.talk(10)
    assert call.command("N") == "0"
    assert call.command("R") == "0"
    call.talk(10)
    assert daemon.command("C call-1 mine from to") == "0"
    call.talk(3)
    assert call.command("D") == "0"

    def finished() -> list[Any]:
        rows = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
        return [row for row in rows if row["event"] == "finished"]

    wait_until(lambda: len(finished()) == 2, f"both recordings are finished; {daemon.log()}")
    files = {Path(row["file"]).name for row in finished()}
    assert "mine.pcapng" in files
    assert any(name.startswith("journal-") and name.endswith("Z-w0.pcapng") for name in files)
    # The segment of the minute goes on.
    assert segments(daemon.recordings)[0].suffix == ".part"


def test_other_programs_read_a_segment(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon(*JOURNAL, "-a")
    for number in range(3):
        call = make_call(daemon, f"call-{number}")
        call.talk(20)
        assert call.command("D") == "0"
    assert daemon.stop() == 0
    [segment] = segments(daemon.recordings)
    names = [name for [name] in fields(segment, "rtp", "frame.interface_name")]
    for number in range(3):
        for leg in ("caller", "callee"):
            assert names.count(f"call-{number} {leg}") == 20
    # With the frames of the heads.
    assert len(tcpdump(segment)) == 3 * (40 + 2)
    assert capinfos(segment)["Number of packets"] in {"126", "126 "}


def test_audio_comes_out_of_a_journal(tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon(*JOURNAL, "-a")
    for tag in ("one", "two"):
        call = make_call(daemon, "same", tags=(tag, "to"))
        call.talk(20)
        assert call.command("D") == "0"
    assert daemon.stop() == 0
    output = tmp_path / "call.wav"
    several = run(binary(), "extract", "--call", "same", "-o", output, daemon.recordings)
    assert several.returncode == 1
    assert "--from-tag" in several.stderr
    assert "two" in several.stderr
    done = run(binary(), "extract", "--call", "same", "--from-tag", "one", "-o", output, daemon.recordings)
    assert done.returncode == 0, done
    assert output.read_bytes().startswith(b"RIFF")
    assert {path.name for path in tmp_path.glob(".rtpproxy-*")} == set()
    none = run(binary(), "extract", "--call", "other", "-o", output, daemon.recordings)
    assert none.returncode == 1
    assert "there is no call other" in none.stderr
    whole = run(binary(), "extract", *segments(daemon.recordings))
    assert whole.returncode == 1
    assert "--call" in whole.stderr


def test_a_relay_that_is_killed_ten_times_loses_a_second_at_most(
    tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    folder = tmp_path / "calls"
    folder.mkdir()
    sent: dict[str, list[bytes]] = {}
    for number in range(10):
        daemon = Daemon(tmp_path / f"killed-{number}", *JOURNAL, "-a", recordings=folder)
        call = make_call(daemon, f"call-{number}")
        said(call, 30, sent)
        time.sleep(1.1 + 0.07 * number)
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        daemon.stop()
        found = extract(folder, call.call_id, tmp_path / "killed.pcapng")
        assert sorted(found) == sorted(sent[call.call_id])
    daemon = start_daemon(*JOURNAL, recordings=folder)
    wait_until(lambda: len(list(folder.glob("*.json"))) == 10, f"all are recovered; {daemon.log()}")
    recovered = segments(folder)
    assert len(recovered) == 10
    assert all(path.name.endswith(".recovered.pcapng") for path in recovered)
    assert all(sidecar(path)["format"] == "journal" for path in recovered)
    assert listed(folder).keys() == sent.keys()
    for call_id, packets in sent.items():
        assert sorted(extract(folder, call_id, tmp_path / "recovered.pcapng")) == sorted(packets)


def test_segments_are_compressed(tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon(*JOURNAL, "--record-segment", "1s", "--record-compress", "zstd", "-a")
    call = make_call(daemon, "call")
    sent: dict[str, list[bytes]] = {}
    for _ in range(3):
        said(call, 20, sent)
        time.sleep(1.2)
    assert call.command("D") == "0"
    assert daemon.stop() == 0
    found = segments(daemon.recordings)
    assert len(found) >= 2
    assert {path.suffix for path in found} == {".zst"}
    assert sorted(extract(daemon.recordings, "call", tmp_path / "out.pcapng")) == sorted(sent["call"])
    row = listed(daemon.recordings)["call"]
    assert (row["state"], row["ended"], row["packets"]) == ("finished", "deleted", len(sent["call"]))
    done = run(binary(), "verify", daemon.recordings)
    assert done.returncode == 0, done


def test_a_call_that_is_over_is_listed_so_while_its_segment_is_written(
    start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    daemon = start_daemon(*JOURNAL, "-a")
    over, running = make_call(daemon, "over"), make_call(daemon, "running")
    for call in (over, running):
        call.talk(10)
    assert over.command("D") == "0"
    wait_until(lambda: listed(daemon.recordings).get("over", {}).get("ended") == "deleted", "its end is told")
    rows = listed(daemon.recordings)
    assert (rows["over"]["state"], rows["running"]["state"]) == ("finished", "running")
    for call in (over, running):
        row = rows[call.call_id]
        assert row["caller"].endswith(f":{call.caller.port}")
        assert row["callee"].endswith(f":{call.callee.port}")


@needs_root
def test_a_frozen_disk_delays_no_packet_and_loses_nothing(
    tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    with on_file(tmp_path / "ext4", 32 * MEGABYTE) as disk:
        daemon = start_daemon(*JOURNAL, recordings=disk.mount_point)
        call, plain = make_call(daemon, "recorded"), make_call(daemon, "plain")
        assert call.command("R") == "0"
        sent: dict[str, list[bytes]] = {}
        said(call, 10, sent)
        time.sleep(1)
        took: list[float] = []
        with disk.frozen():
            for number in range(10):
                said(call, 10, sent)
                plain.talk(10)
                begin = time.monotonic()
                assert daemon.command("V") == "20040107"
                answered = time.monotonic()
                make_call(daemon, f"late-{number}")
                took += [answered - begin, time.monotonic() - answered]
                time.sleep(0.2)
        assert statistics.median(took) < 0.05
        # Far less than the disk stood still, on a machine that has other things to do too.
        assert max(took) < 0.5
        said(call, 10, sent)
        assert call.command("D") == "0"
        assert daemon.stop() == 0
        assert sorted(extract(disk.mount_point, "recorded", tmp_path / "out.pcapng")) == sorted(
            sent["recorded"]
        )


@pytest.mark.parametrize("refused", [("-P",), ("--compat",), ("--record-rotate-time", "1m")], ids=str)
def test_what_makes_no_sense_is_refused(tmp_path: Path, refused: tuple[str, ...]) -> None:
    done = run(binary(), "-f", "-r", tmp_path, *JOURNAL, *refused)
    assert done.returncode == 1
    assert "--record-layout journal is not possible with" in done.stderr
