"""The figures of a relay over HTTP, in `rtpproxy ctl recordings` and in Python."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import rtpproxy
from support.daemon import (
    ROOT,
    Daemon,
    StartDaemon,
    binary,
    free_address,
    free_port,
    wait_until,
)
from support.disk import MEGABYTE, on_file
from support.phone import MakeCall, RtpSource
from support.program import run
from support.tools import need, needs_root

MANUAL = ROOT / "docs" / "metrics.md"
DASHBOARD = ROOT / "docs" / "examples" / "grafana.json"
Figures = dict[str, float]


class Metrics:
    """The metrics of one relay."""

    def __init__(self) -> None:
        self.port = free_port(socket.SOCK_STREAM)
        self.options = ("--metrics", f"127.0.0.1:{self.port}")

    def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, type and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
        finally:
            connection.close()

    def text(self) -> str:
        """What a scrape gets."""
        status, kind, text = self.get("/metrics")
        assert (status, kind) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8"), text
        return text

    def figures(self) -> Figures:
        """All samples: by name, and by `name/label` where there is a label."""
        return {
            "/".join([sample.name, *sample.labels.values()]): sample.value
            for family in parsed(self.text())
            for sample in family.samples
        }

    def wait_for(self, name: str, value: float) -> Figures:
        """The figures once one of them has that value."""
        wait_until(lambda: self.figures()[name] == value, f"{name} is {value}")
        return self.figures()


def parsed(text: str) -> list[Metric]:
    """The metrics in a text, as the library of Prometheus reads it."""
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def documented() -> set[str]:
    """The metrics in the manual."""
    return set(re.findall(r"^\| `(rtpproxy_\w+)` \|", MANUAL.read_text(), re.MULTILINE))


@pytest.fixture
def metrics() -> Metrics:
    """A place for metrics."""
    return Metrics()


def test_every_metric_is_in_the_manual_and_the_other_way_round(
    start_daemon: StartDaemon, metrics: Metrics, tmp_path: Path
) -> None:
    config = tmp_path / "modules"
    config.write_text(
        "modules { acct_csv { load = rtpp_acct_csv.so; } acct_rtcp_hep { load = rtpp_acct_rtcp_hep.so; "
        'capt_host = "127.0.0.1"; capt_port = 9; } }'
    )
    start_daemon(*metrics.options, "--config", config, "--preroll", "1", start_in=tmp_path)
    families = parsed(metrics.text())
    names = {sample.name for family in families for sample in family.samples}
    assert names == documented()
    for family in families:
        assert family.documentation
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        assert {sample.name for sample in family.samples} == {family.name + suffix}, family
    types = dict(re.findall(r"^\| `(rtpproxy_\w+)` \| (\w+) \|", MANUAL.read_text(), re.MULTILINE))
    assert types == {sample.name: family.type for family in families for sample in family.samples}


def test_the_dashboard_uses_metrics_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    used = set(re.findall(r"rtpproxy_\w+", " ".join(expressions)))
    assert used == documented()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_prometheus_reads_it(
    metrics: Metrics, start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    need("prometheus", "promtool")
    daemon = start_daemon(*metrics.options)
    make_call(daemon).talk(10)
    config, port = tmp_path / "prometheus.yml", free_port(socket.SOCK_STREAM)
    config.write_text(
        "scrape_configs: [{job_name: rtpproxy, scrape_interval: 200ms, scrape_timeout: 200ms, "
        f"static_configs: [{{targets: ['127.0.0.1:{metrics.port}']}}]}}]\n"
    )
    subprocess.run(["promtool", "check", "config", str(config)], check=True, capture_output=True, timeout=60)
    server = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(expression: str) -> list[str]:
        query = ["promtool", "query", "instant", f"http://127.0.0.1:{port}", expression]
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
        return re.findall(r"=> (\S+) @", done.stdout)

    try:
        wait_until(
            lambda: ask("rtpproxy_media_packets_relayed_total") == ["20"], "prometheus has scraped", 60
        )
        assert ask("sum(rtpproxy_sessions)") == ["1"]
        # Every expression of the dashboard and of the manual is one that Prometheus understands.
        panels = json.loads(DASHBOARD.read_text())["panels"]
        expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
        expressions += re.findall(r"^\| [^|]*\? \| `([^`]+)` \|$", MANUAL.read_text(), re.MULTILINE)
        assert len(expressions) > 40
        # All in one request: starting promtool for each takes long.
        for variable, value in {"$instance": ".*", "$__rate_interval": "1m", "$__range": "1h"}.items():
            expressions = [expression.replace(variable, value) for expression in expressions]
        rules = [{"record": f"rule:{number}", "expr": text} for number, text in enumerate(expressions)]
        (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
        checked = subprocess.run(
            ["promtool", "check", "rules", str(tmp_path / "rules.yml")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr + checked.stdout
    finally:
        server.terminate()
        server.wait(timeout=30)


def test_counters_are_what_was_sent(metrics: Metrics, start_daemon: StartDaemon, make_call: MakeCall) -> None:
    udp = free_port(socket.SOCK_DGRAM)
    daemon = start_daemon(*metrics.options, "-s", f"udp:127.0.0.1:{udp}")
    before = metrics.figures()
    assert before["rtpproxy_port_pairs_free/ipv6"] == 0
    # The command by which the test sees that the relay runs.
    assert before["rtpproxy_commands_received_total"] == 1
    call = make_call(daemon)
    during = metrics.figures()
    assert during["rtpproxy_sessions"] == 1
    assert during["rtpproxy_port_pairs_in_use/ipv4"] == 2
    assert during["rtpproxy_port_pairs_free/ipv4"] == before["rtpproxy_port_pairs_free/ipv4"] - 2
    assert call.command("R") == "0"
    said, answered = call.talk(30)
    # What a stranger sends is dropped.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(RtpSource().packet(), call.at_caller_side.pair)
    metrics.wait_for("rtpproxy_media_packets_discarded_total", 1)
    report = call.caller.report(call.at_caller_side)
    call.callee.hear_rtcp()
    assert call.command("X nonsense") == "E1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        control.connect(("127.0.0.1", udp))
        control.settimeout(20)
        for _ in range(3):
            control.send(b"cookie V")
            assert control.recv(100) == b"cookie 20040107\n"
    metrics.wait_for("rtpproxy_recording_packets_total", 61)
    assert call.command("D") == "0"
    after = metrics.wait_for("rtpproxy_recordings_finished_total", 1)
    payload = sum(map(len, said + answered)) + len(report)
    # The folder holds the sidecar too.
    (written,) = [path.stat().st_size for path in daemon.recordings.glob("*.pcapng")]
    expected = {
        "rtpproxy_media_packets_relayed_total": 61,
        "rtpproxy_media_packets_received_total": 62,
        "rtpproxy_media_packets_discarded_total": 1,
        "rtpproxy_sessions": 0,
        "rtpproxy_sessions_created_total": 1,
        "rtpproxy_sessions_completed_total": 1,
        "rtpproxy_sessions_ended_total": 1,
        "rtpproxy_sessions_timed_out_total": 0,
        "rtpproxy_port_pairs_in_use/ipv4": 0,
        # V of the fixture, U, L, R, X, D, and V over UDP once.
        "rtpproxy_commands_received_total": 7,
        "rtpproxy_commands_answered_total/succeeded": 6,
        "rtpproxy_commands_answered_total/failed": 1,
        "rtpproxy_commands_repeated_total": 2,
        "rtpproxy_recordings_started_total": 1,
        "rtpproxy_recordings_failed_total": 0,
        "rtpproxy_recordings/recording": 0,
        "rtpproxy_recording_packets_total": 61,
        "rtpproxy_recording_payload_bytes_total": payload,
        "rtpproxy_recording_written_bytes_total": written,
        "rtpproxy_recording_packets_dropped_total/disk": 0,
        "rtpproxy_recording_packets_dropped_total/memory": 0,
        "rtpproxy_recording_errors_total": 0,
        "rtpproxy_recording_folder/ready": 1,
    }
    assert {name: after[name] for name in expected} == expected


def test_sessions_that_time_out_are_counted(metrics: Metrics, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(*metrics.options, "-T", "1", record=False)
    daemon.command("U call 127.0.0.1 4000 from")
    figures = metrics.wait_for("rtpproxy_sessions_timed_out_total", 1)
    assert figures["rtpproxy_sessions_ended_total"] == 1
    # Without a folder nothing is told of recordings.
    assert not [name for name in figures if "record" in name]


def test_modules_are_counted(
    metrics: Metrics, start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        config = tmp_path / "modules"
        config.write_text(
            "modules { acct_csv { load = rtpp_acct_csv.so; } acct_rtcp_hep { load = rtpp_acct_rtcp_hep.so; "
            f'capt_host = "127.0.0.1"; capt_port = {server.getsockname()[1]}; }} }}'
        )
        daemon = start_daemon(*metrics.options, "--config", config, start_in=tmp_path)
        call = make_call(daemon)
        call.talk(1)
        call.caller.report(call.at_caller_side)
        metrics.wait_for("rtpproxy_hep_messages_sent_total", 1)
        assert call.command("D") == "0"
        figures = metrics.wait_for("rtpproxy_acct_csv_lines_written_total", 1)
        assert (
            figures["rtpproxy_acct_csv_lines_lost_total"] == figures["rtpproxy_hep_messages_lost_total"] == 0
        )


def test_scrapes_while_calls_run(metrics: Metrics, start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon(*metrics.options, "--workers", "2")
    calls = [make_call(daemon) for _ in range(8)]
    done = threading.Event()
    seen: list[float] = []

    def scrape() -> None:
        while not done.is_set():
            seen.append(metrics.figures()["rtpproxy_media_packets_relayed_total"])

    scrapers = [threading.Thread(target=scrape) for _ in range(3)]
    for scraper in scrapers:
        scraper.start()
    try:
        for _ in range(10):
            for call in calls:
                call.talk(5)
    finally:
        done.set()
        for scraper in scrapers:
            scraper.join()
    assert metrics.figures()["rtpproxy_media_packets_relayed_total"] == 8 * 10 * 10
    assert len(seen) > 10
    # No scrape counts as a command.
    assert metrics.figures()["rtpproxy_commands_received_total"] == 1 + 2 * len(calls)


def test_other_paths_and_methods(metrics: Metrics, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(*metrics.options)
    assert metrics.get("/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
    assert metrics.get("/nothing")[0] == 404
    assert metrics.get("/metrics", "POST")[0] == 405
    assert metrics.get("/metrics", "HEAD")[2] == ""
    assert daemon.command("U call 127.0.0.1 4000 from").endswith("127.0.0.1")
    daemon.process.send_signal(1)
    metrics.wait_for("rtpproxy_draining", 1)
    assert metrics.get("/healthz")[::2] == (200, "ok, draining\n")
    daemon.command("X")


def test_readers_that_dawdle_hinder_nobody_for_long(metrics: Metrics, start_daemon: StartDaemon) -> None:
    start_daemon(*metrics.options)
    idle = [socket.create_connection(("127.0.0.1", metrics.port), timeout=20) for _ in range(40)]
    try:
        # What is more than 32 is closed at once, the others after a while.
        started = time.monotonic()
        for connection in idle:
            assert connection.recv(100) in (b"", b"HTTP/1.1 408 Request Timeout\r\n")
        assert time.monotonic() - started < 20
        assert metrics.figures()["rtpproxy_sessions"] == 0
    finally:
        for connection in idle:
            connection.close()


def test_an_address_that_is_taken_hinders_the_start(
    metrics: Metrics, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    start_daemon(*metrics.options)
    control = f"unix:{tmp_path / 'control'}"
    done = run(
        binary(), "-f", "-F", "-l", "127.0.0.1", "-s", control, "-p", tmp_path / "pid", *metrics.options
    )
    assert done.returncode == 1
    assert f"metrics cannot be served at 127.0.0.1:{metrics.port}: Address already in use" in done.stderr
    assert not (tmp_path / "control").exists()


@needs_root
def test_a_frozen_disk_is_seen_and_holds_nothing_up(
    metrics: Metrics, start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    events = tmp_path / "events"
    with on_file(tmp_path / "disk", 32 * MEGABYTE) as disk:
        daemon = start_daemon(*metrics.options, "--record-events", events, recordings=disk.recordings)
        call = make_call(daemon)
        assert call.command("R") == "0"
        call.talk(10)
        metrics.wait_for("rtpproxy_recording_packets_total", 20)
        with disk.frozen():
            call.talk(10)
            metrics.wait_for("rtpproxy_recordings/degraded", 1)
            started = time.monotonic()
            figures = metrics.figures()
            (recording,) = recordings(daemon)
            assert time.monotonic() - started < 1
            assert (recording["state"], recording["cause"]) == ("degraded", "the disk does not answer")
            assert figures["rtpproxy_recording_folder/troubled"] == 1
            assert figures["rtpproxy_recording_queue_bytes"] > 0
            assert figures["rtpproxy_media_packets_relayed_total"] == 40
            assert metrics.get("/healthz")[0] == 200
            wait_until(lambda: '"event":"degraded"' in events.read_text(), "the event")
        metrics.wait_for("rtpproxy_recordings/recording", 1)
        metrics.wait_for("rtpproxy_recording_packets_total", 40)
        assert '"event":"resumed"' in events.read_text()
        assert daemon.stop() == 0


def recordings(daemon: Daemon) -> list[dict[str, object]]:
    """What `rtpproxy ctl recordings` tells."""
    done = run(binary(), "ctl", "-s", f"cunix:{daemon.socket}", "--json", "recordings")
    assert done.returncode == 0, done
    return list(json.loads(done.stdout)["result"])


def test_python_lists_recordings_here_and_elsewhere(tmp_path: Path) -> None:
    control = f"cunix:{tmp_path / 'control'}"
    with (
        rtpproxy.Proxy(record_dir=tmp_path, control=[control]) as proxy,
        rtpproxy.Client(control) as client,
    ):
        assert proxy.recordings() == client.recordings() == []
        for number in range(60):
            proxy.start(f"call-{number}", "from-a")
            proxy.lookup(f"call-{number}", "from-a", "to-b")
            proxy.record(f"call-{number}", "from-a", "to-b")
        wait_until(
            lambda: [recording.state for recording in proxy.recordings()] == ["recording"] * 60, "they run"
        )
        # They take more than one reply.
        assert proxy.recordings() == client.recordings()
        proxy.stop_recording("call-3", "from-a")
        proxy.stop("call-4", "from-a")
        wait_until(lambda: client.recordings()[4].state == "finished", "one is finished")
        paused, finished = client.recordings()[3:5]
        assert (paused.state, paused.call_id, paused.sidecar) == ("paused", "call-3", None)
        assert (finished.number, finished.from_tag, finished.to_tag) == (5, "from-a", "to-b")
        assert finished.sidecar == tmp_path / "call-4=from-a.json"
        assert finished.file == tmp_path / "call-4=from-a.pcapng"
        assert finished.sidecar.exists()
        assert abs(finished.requested.timestamp() - time.time()) < 60
        proxy.stop_all()
        wait_until(lambda: {it.state for it in proxy.recordings()} == {"finished"}, "all are finished")


def test_python_serves_metrics_and_tells_of_recordings(metrics: Metrics, tmp_path: Path) -> None:
    events = tmp_path / "events"
    address = f"127.0.0.1:{metrics.port}"
    with rtpproxy.Proxy(record_dir=tmp_path, metrics=address, record_events=[str(events)]) as proxy:
        proxy.start("call", "from")
        proxy.record("call", "from")
        metrics.wait_for("rtpproxy_recordings/recording", 1)
        with pytest.raises(rtpproxy.StartError, match=f"metrics cannot be served at {address}: "):
            rtpproxy.Proxy(metrics=address)
    assert [json.loads(line)["event"] for line in events.read_text().splitlines()] == ["started", "finished"]
    with pytest.raises(ValueError, match="--metrics here: the port is missing"):
        rtpproxy.Proxy(metrics="here")


def test_ctl_lists_recordings(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    daemon = start_daemon()
    assert recordings(daemon) == []
    call = make_call(daemon, "call-1")
    assert call.command("R") == "0"
    call.talk(5)
    wait_until(lambda: [it["packets"] for it in recordings(daemon)] == [10], "its packets are counted")
    done = run(binary(), "ctl", "-s", f"cunix:{daemon.socket}", "recordings")
    (line,) = done.stdout.splitlines()
    recording = json.loads(line)
    assert (recording["state"], recording["call_id"], recording["dropped"]) == ("recording", "call-1", 0)
    assert recording["file"] == str(daemon.recordings / "call-1=from.pcapng.part")
    assert daemon.command("?recordings 1") == '{"recordings":[],"more":false}'
    assert daemon.command("?recordings x") == "E1"


@pytest.mark.parametrize("transport", ["udp", "unix"])
def test_a_long_list_goes_over_every_transport(
    start_daemon: StartDaemon, tmp_path: Path, transport: str
) -> None:
    address = free_address(transport, tmp_path)
    daemon = start_daemon("-s", address, "-a")
    for number in range(40):
        daemon.command(f"U {'x' * 200}-{number} 127.0.0.1 4000 {'f' * 200} {'t' * 200}")
    with rtpproxy.Client(address) as client:
        wait_until(lambda: len(client.recordings()) == 40, "all recordings")
        told = client.recordings()
        assert {it.call_id for it in told} == {f"{'x' * 200}-{number}" for number in range(40)}
        assert [it.number for it in told] == list(range(1, 41))
