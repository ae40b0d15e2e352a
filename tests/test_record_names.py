"""Templates for the names of recordings: folders for days and calls, which everything finds again."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.capture import mode, payloads, read, sidecar
from support.daemon import Daemon, StartDaemon, binary, wait_until
from support.phone import Call, MakeCall
from support.program import run

BY_DAY = "%Y/%m/%d/%{call-id}=%{from-tag}"
HOSTILE = ("../escape", "a/b@host", "/etc/x", "y" * 300, "h\u00e9\u4e2d", "..", "%2F=%00", "-rf")


def files(folder: Path, suffix: str = "") -> list[Path]:
    """All files in a folder and below that end so."""
    return sorted(path for path in folder.rglob(f"*{suffix}") if path.is_file())


def today() -> str:
    return datetime.now(UTC).strftime("%Y/%m/%d")


def record(daemon: Daemon, call: Call, packets: int = 3) -> tuple[list[bytes], list[bytes]]:
    """Records a whole call; returns what both said."""
    before = len(files(daemon.recordings, ".json"))
    assert call.command("R") == "0"
    sent = call.talk(packets)
    assert call.command("D") == "0"
    wait_until(
        lambda: len(files(daemon.recordings, ".json")) == before + 1, f"the recording ends; {daemon.log()}"
    )
    return sent


def lines(*arguments: str | Path) -> list[Any]:
    """The lines of JSON that a sub-command prints."""
    done = run(binary(), *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "template", [BY_DAY, "%{call-id}/%{call-id}=%{leg}/%{from-tag}", "%F/%{call}-%{to-tag}"]
)
def test_hostile_call_ids_stay_in_the_folder(
    tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall, template: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "calls").mkdir(parents=True)
    daemon = start_daemon("--record-name", template, recordings=outside / "calls")
    sent = {call_id: record(daemon, make_call(daemon, call_id)) for call_id in HOSTILE}

    assert [path.name for path in outside.iterdir()] == ["calls"]
    found = {}
    for path in files(outside, ".pcapng"):
        report = sidecar(path)
        found[report["call_id"]] = payloads(read(path))
        assert mode(path) == mode(path.with_suffix(".json")) == 0o600
        for folder in path.relative_to(outside / "calls").parents[:-1]:
            assert mode(outside / "calls" / folder) == 0o700
            assert len(folder.name.encode()) <= 200
    assert found == {call_id: [*said, *answered] for call_id, (said, answered) in sent.items()}

    whole = lines("verify", "--json", outside)
    assert len(whole) == len(HOSTILE)
    assert all(verdict["is_whole"] for verdict in whole), whole
    assert {entry["call_id"] for entry in lines("ls", "--json", outside)} == set(HOSTILE)
    (seen,) = lines("ctl", "-s", f"cunix:{daemon.socket}", "--json", "recordings")
    assert {entry["file"] for entry in seen["result"]} == {str(path) for path in files(outside, ".pcapng")}


def test_names_hold_the_fields_of_the_template(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    template = "%{call}/%{leg}-%{number}-%{to-tag}=%{call-id}"
    daemon = start_daemon("--record-name", template)
    record(daemon, make_call(daemon, "call-1", tags=("from;1", "to;1")))
    record(daemon, make_call(daemon, "call-2", tags=("from;2", "to;2")))
    assert [str(path.relative_to(daemon.recordings)) for path in files(daemon.recordings, ".pcapng")] == [
        "call=from/both-1-to;1=call-1.pcapng",
        "call=from/both-2-to;2=call-2.pcapng",
    ]
    # A copy to a file has the name of its command.
    call = make_call(daemon, "call-3")
    assert call.daemon.command(f"C {call.call_id} name/x {call.from_tag} {call.to_tag}") == "0"
    call.talk(2)
    call.command("D")
    wait_until((daemon.recordings / "name%2Fx.json").exists, "the copy ends")


def test_a_template_that_tells_nothing_apart_loses_nothing(
    start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    daemon = start_daemon("--record-name", "calls/same")
    calls = [make_call(daemon) for _ in range(3)]
    for call in calls:
        assert call.command("R") == "0"
    sent = {call.call_id: call.talk(3) for call in calls}
    for call in calls:
        assert call.command("D") == "0"
    wait_until(lambda: len(files(daemon.recordings, ".json")) == 3, "all end")
    names = ["same-2.pcapng", "same-3.pcapng", "same.pcapng"]
    assert [path.name for path in files(daemon.recordings / "calls", ".pcapng")] == names
    for path in files(daemon.recordings, ".pcapng"):
        said, answered = sent[sidecar(path)["call_id"]]
        assert payloads(read(path)) == [*said, *answered]


def test_the_spool_folder_is_empty_again(
    tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    daemon = start_daemon("-S", spool, "--record-name", BY_DAY)
    call = make_call(daemon, "call")
    assert call.command("R") == "0"
    call.talk(3)
    wait_until(lambda: files(spool), "the call is recorded")
    assert files(spool) == [spool / today() / "call=from.pcapng.part"]
    assert files(daemon.recordings) == []
    call.command("D")
    wait_until((daemon.recordings / today() / "call=from.json").exists, "the recording ends")
    assert len(read(daemon.recordings / today() / "call=from.pcapng")) == 6
    wait_until(lambda: not list(spool.iterdir()), "its folders are gone")


def test_a_removed_day_is_made_again(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon("--record-name", BY_DAY)
    call = make_call(daemon, "call")
    assert call.command("R") == "0"
    answered = call.talk(3)[1]
    part = daemon.recordings / today() / "call=from.pcapng.part"
    wait_until(lambda: part.exists() and answered[2] in part.read_bytes(), "packets are written")
    part.unlink()
    part.parent.rmdir()
    answered = call.talk(3)[1]
    wait_until(lambda: part.exists() and answered[2] in part.read_bytes(), "it goes on in another file")
    assert call.command("D") == "0"
    path = part.with_suffix("")
    wait_until(path.with_suffix(".json").exists, "the recording ends")
    assert len(read(path)) == 6
    assert sidecar(path)["dropped"] == 6


@pytest.mark.parametrize("has_spool", [False, True])
def test_what_a_killed_relay_left_is_found_in_its_folders(
    tmp_path: Path, start_daemon: StartDaemon, has_spool: bool
) -> None:
    recordings, spool = tmp_path / "calls", tmp_path / "spool"
    recordings.mkdir()
    spool.mkdir()
    options = ("-S", spool) if has_spool else ()
    victim = Daemon(
        tmp_path / "victim",
        "--record-name",
        "%Y/%m/%d/%{call-id}/%{from-tag}",
        *options,
        recordings=recordings,
    )
    day = today()
    with Call(victim, "a/b") as call:
        assert call.command("R") == "0"
        said, answered = call.talk(25)
        time.sleep(1.5)
        assert victim.stop(signal.SIGKILL) == -signal.SIGKILL
    assert files(tmp_path, ".part") == [
        (spool if has_spool else recordings) / day / "a%2Fb" / "from.pcapng.part"
    ]
    # The next relay may have another template, or none.
    daemon = start_daemon(*options, recordings=recordings)
    daemon.wait_for_log("an earlier process did not end were recovered")
    path = recordings / day / "a%2Fb" / "from.recovered.pcapng"
    wait_until(path.with_suffix(".json").exists, "the recording is recovered")
    report = sidecar(path)
    assert (report["call_id"], report["ended"]["reason"]) == ("a/b", "interrupted")
    assert payloads(read(path)) == [*said, *answered]
    wait_until(lambda: not list(spool.iterdir()), "nothing is left in the spool folder")


def test_a_day_goes_with_its_last_recording(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    first = start_daemon("--record-name", "%Y/%m/%d/%{call-id}")
    record(first, make_call(first, "old"))
    record(first, make_call(first, "new"))
    first.stop()
    folder = first.recordings
    for name, day, days in (("old", "2020/01/01", 31), ("new", "2020/01/02", 29)):
        move(folder / today() / name, folder / day, days)
    (folder / today()).rmdir()
    (folder / "empty").mkdir()

    daemon = start_daemon("--record-max-age", "30d", recordings=folder)
    assert "too_old=1" in daemon.wait_for_log("old recordings removed")
    wait_until(lambda: not (folder / "2020/01/01").exists(), "the day goes")
    assert [path.name for path in files(folder)] == ["new.json", "new.pcapng"]
    # What retention has not emptied stays.
    assert (folder / "empty").exists()


def move(stem: Path, to: Path, days: int) -> None:
    """Moves a recording, and lets it have ended so long ago."""
    to.mkdir(parents=True)
    source = stem.with_name(f"{stem.name}.json")
    report = json.loads(source.read_text())
    report["ended"]["at"] = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    source.write_text(json.dumps(report))
    for path in (source, stem.with_name(f"{stem.name}.pcapng")):
        path.rename(to / path.name)


def test_audio_and_repaired_files_get_the_same_folders(
    tmp_path: Path, start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    daemon = start_daemon("--record-name", "%{call-id}/%{from-tag}")
    for call_id in ("a", "b"):
        record(daemon, make_call(daemon, call_id), packets=20)
    done = run(binary(), "extract", daemon.recordings, "-o", tmp_path / "audio")
    assert (done.returncode, done.stderr) == (0, "")
    assert files(tmp_path / "audio") == [tmp_path / "audio" / name / "from.wav" for name in "ab"]

    damaged = daemon.recordings / "b" / "from.pcapng"
    damaged.write_bytes(damaged.read_bytes()[:-300])
    done = run(binary(), "repair", daemon.recordings, "-o", tmp_path / "repaired")
    assert (done.returncode, done.stderr) == (0, "")
    repaired = tmp_path / "repaired" / "b"
    assert files(tmp_path / "repaired") == [repaired / "from.json", repaired / "from.pcapng"]


def test_templates_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for options, message in (
        (
            ("-r", tmp_path, "--record-name", "/var/%{call-id}"),
            "is invalid at character 1: it is a path in the",
        ),
        (
            ("-r", tmp_path, "--record-name", "%Y/../x"),
            "is invalid at character 4: a name cannot begin with a dot",
        ),
        (("-r", tmp_path, "--record-name", "%Y//x"), "is invalid at character 4: a name is empty"),
        (
            ("-r", tmp_path, "--record-name", "x/%{who}"),
            "is invalid at character 3: there is no field %{who}",
        ),
        (("-r", tmp_path, "--record-name", "x/" * 17 + "x"), "there are more than 16 folders"),
        (("-r", tmp_path, "--compat", "--record-name", "x"), "--record-name is not possible with --compat"),
        (("--record-name", "x"), "--record-name requires -r switch"),
    ):
        done = run(binary(), "-f", "-F", *options, "-s", f"cunix:{tmp_path / 'control'}")
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
