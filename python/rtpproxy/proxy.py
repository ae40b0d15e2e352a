"""A relay in this process."""

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Literal, TypeAlias

from rtpproxy._rtpproxy import Door
from rtpproxy._through_door import ThroughDoor

__all__ = ["Proxy"]

_Path: TypeAlias = str | PathLike[str]


class Proxy(ThroughDoor):
    """A relay that runs in this process, in threads of its own. Linux only.

    :param listen: The IPv4 address for media, ``*`` for all; two with a slash between
        (``internal/external``) for bridge mode; ``None`` with `listen6` for IPv6 only.
    :param listen6: The IPv6 address for media. Beside `listen` it is the external address of bridge mode:
        ``directions=("internal", "external")`` gives an IPv4 caller and an IPv6 callee their own.
    :param ports: The lowest and the highest port for media.
    :param control: Control sockets to open as well, for other programs: ``unix:PATH``, ``cunix:PATH``,
        ``udp:HOST:PORT``, ``tcp:HOST:PORT``, ….
    :param notify: Where sessions that other programs start may report their timeout: ``unix:PATH``,
        ``tcp:HOST:PORT``.
    :param latch: Who may speak for a party: ``"strict"``, ``"nat"`` (the default) or ``"legacy"``.
    :param ttl_s: A session ends after so many seconds without media.
    :param setup_ttl_s: A session that is not complete ends after so many seconds; as `ttl_s` if not given.
    :param workers: Media threads.
    :param record_dir: The folder for recordings. It must exist.
    :param spool_dir: The folder for recordings that are not complete yet.
    :param record_name: A template for names, with folders: ``"%Y/%m/%d/%{call-id}=%{from-tag}"``.
    :param record_format: ``"pcapng"`` (the default), ``"pcap"`` or ``"adhoc"``.
    :param record_compress: Compress recordings when they have ended: ``"zstd"`` or ``"gzip"``.
    :param record_scope: What one :meth:`record` covers: ``"call"`` (both legs, the default) or ``"stream"``.
    :param record_layout: ``"call"`` (files for each recording, the default) or ``"journal"`` (one file for
        all, the next one each minute).
    :param record_segment_s: How many seconds a file of a journal lasts; 60 if not given.
    :param record_all: Record every session from its start.
    :param record_rtcp: Record RTCP too.
    :param record_ns: Time stamps in nanoseconds in the format ``"pcap"``; ``"pcapng"`` always has them.
    :param record_fallback: The folder where recordings go on while the others fail.
    :param record_min_free: Recordings pause while less of the disk is free: bytes, or text such as ``"2G"``
        or ``"5%"``.
    :param record_buffer_bytes: Memory for packets that wait for the disk, at most.
    :param record_flush_s: Seconds after which packets are in their file at the latest; 1 if not given.
    :param record_rotate_size_bytes: A recording goes on in the next file before one has more.
    :param record_rotate_time_s: A recording goes on in the next file after so many seconds.
    :param record_max_age_s: Recordings that ended so many seconds ago are removed.
    :param record_quota_bytes: The oldest recordings are removed while all take more than this.
    :param preroll_s: How many seconds a recording reaches back before its begin; 0 if not given.
    :param preroll_memory_bytes: Memory for what is kept for that, of all calls together.
    :param codec_map: Names of dynamic payload types for the recordings: ``{111: "opus/48000/2"}``.
    :param record_encrypt: Who can read recordings, which are then encrypted: public keys (``"age1…"``,
        ``"ssh-ed25519 …"``), or paths of files with one on each line.
    :param record_events: Who is told what becomes of recordings: ``unix:PATH`` (lines of JSON), a file (the
        same lines), ``exec:PROGRAM`` (run for each finished recording, with the path of its sidecar).
    :param metrics: Where to serve metrics over HTTP: ``"127.0.0.1:9722"``.
    :param modules: What to do beside relaying, by name: ``"acct_csv"`` adds a line to ``rtpproxy_acct.csv``,
        in the working directory of this moment, for each session that ends.
    :param compat: Latching, recordings and file names as the C program has them.
    :raises ValueError: A setting cannot be right; the text names the option of the command line it belongs
        to.
    :raises rtpproxy.StartError: A control socket, a module or the address of `metrics` cannot be opened, or
        this is not Linux. A media address that cannot be bound, or a folder that cannot be used, is told by
        the first call that needs it.

    >>> import rtpproxy, tempfile
    >>> with tempfile.TemporaryDirectory() as folder, rtpproxy.Proxy(record_dir=folder) as proxy:
    ...     leg = proxy.start("call-1", "from-a")
    ...     proxy.record("call-1", "from-a")
    ...     proxy.stop("call-1", "from-a")
    """

    def __init__(
        self,
        listen: str | None = "127.0.0.1",
        *,
        listen6: str | None = None,
        ports: tuple[int, int] = (35000, 65000),
        control: Sequence[str] = (),
        notify: Sequence[str] = (),
        latch: Literal["strict", "nat", "legacy"] | None = None,
        ttl_s: int = 60,
        setup_ttl_s: int | None = None,
        workers: int = 1,
        record_dir: _Path | None = None,
        spool_dir: _Path | None = None,
        record_name: str | None = None,
        record_format: Literal["pcapng", "pcap", "adhoc"] | None = None,
        record_compress: Literal["zstd", "gzip"] | None = None,
        record_scope: Literal["call", "stream"] | None = None,
        record_layout: Literal["call", "journal"] | None = None,
        record_segment_s: int | None = None,
        record_all: bool = False,
        record_rtcp: bool = True,
        record_ns: bool = False,
        record_fallback: _Path | None = None,
        record_min_free: int | str | None = None,
        record_buffer_bytes: int | None = None,
        record_flush_s: float | None = None,
        record_rotate_size_bytes: int | None = None,
        record_rotate_time_s: int | None = None,
        record_max_age_s: int | None = None,
        record_quota_bytes: int | None = None,
        preroll_s: int | None = None,
        preroll_memory_bytes: int | None = None,
        codec_map: Mapping[int, str] | None = None,
        record_encrypt: Sequence[str] = (),
        record_events: Sequence[str] = (),
        metrics: str | None = None,
        modules: Sequence[str] = (),
        compat: bool = False,
    ) -> None:
        port_min, port_max = ports
        options = _Options()
        options.text("-l", "listen", listen)
        options.text("-6", "listen6", listen6 and (f"/{listen6}" if listen else listen6))
        options.number("-m", "ports", port_min)
        options.number("-M", "ports", port_max)
        options.texts("-s", "control", control)
        options.texts("-n", "notify", notify)
        options.text("--latch", "latch", latch)
        options.number("-T", "ttl_s", ttl_s)
        options.number("-W", "setup_ttl_s", setup_ttl_s)
        options.number("--workers", "workers", workers)
        options.path("-r", "record_dir", record_dir)
        options.path("-S", "spool_dir", spool_dir)
        options.text("--record-name", "record_name", record_name)
        options.text("--record-format", "record_format", record_format)
        options.text("--record-compress", "record_compress", record_compress)
        options.text("--record-scope", "record_scope", record_scope)
        options.text("--record-layout", "record_layout", record_layout)
        options.number("--record-segment", "record_segment_s", record_segment_s, unit="s")
        options.switch("-a", record_all)
        options.switch("-R", not record_rtcp)
        options.switch("--record-ns", record_ns)
        options.path("--record-fallback", "record_fallback", record_fallback)
        options.amount("--record-min-free", "record_min_free", record_min_free)
        options.number("--record-buffer", "record_buffer_bytes", record_buffer_bytes)
        options.milliseconds("--record-flush", "record_flush_s", record_flush_s)
        options.number("--record-rotate-size", "record_rotate_size_bytes", record_rotate_size_bytes)
        options.number("--record-rotate-time", "record_rotate_time_s", record_rotate_time_s, unit="s")
        options.number("--record-max-age", "record_max_age_s", record_max_age_s, unit="s")
        options.number("--record-quota", "record_quota_bytes", record_quota_bytes)
        options.number("--preroll", "preroll_s", preroll_s)
        options.number("--preroll-memory", "preroll_memory_bytes", preroll_memory_bytes)
        for payload_type, codec in (codec_map or {}).items():
            options.text("--codec-map", "codec_map", f"{payload_type}={codec}")
        options.texts("--record-encrypt", "record_encrypt", record_encrypt)
        options.texts("--record-events", "record_events", record_events)
        options.text("--metrics", "metrics", metrics)
        options.texts("--dso", "modules", modules)
        options.switch("--compat", compat)
        # On the command line bridge mode makes parties asymmetric; here only `asymmetric` does.
        options.switch("--bridge_symmetric", True)
        super().__init__(Door.relay(options.words), str(listen if listen is not None else listen6))


class _Options:
    """Options of the command line, the one place that knows what settings mean."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def text(self, option: str, name: str, value: str | None) -> None:
        if value is None:
            return
        if not isinstance(value, str):
            raise TypeError(f"{name}: must be str, not {type(value).__name__}")
        self.words += [option, value]

    def texts(self, option: str, name: str, values: Sequence[str]) -> None:
        if isinstance(values, str):
            raise TypeError(f"{name}: must be a sequence of str, not str")
        for value in values:
            self.text(option, name, value)

    def number(self, option: str, name: str, value: int | None, unit: str = "") -> None:
        if value is None:
            return
        if not isinstance(value, int):
            raise TypeError(f"{name}: must be int, not {type(value).__name__}")
        self.words += [option, f"{value}{unit}"]

    def milliseconds(self, option: str, name: str, seconds: float | None) -> None:
        if seconds is None:
            return
        if not isinstance(seconds, (int, float)):
            raise TypeError(f"{name}: must be a number, not {type(seconds).__name__}")
        if not 0 <= seconds < 1e9:
            raise ValueError(f"{name}: {seconds} is not a time span in seconds")
        self.words += [option, f"{round(seconds * 1000)}ms"]

    def amount(self, option: str, name: str, value: int | str | None) -> None:
        if isinstance(value, str):
            self.text(option, name, value)
        else:
            self.number(option, name, value)

    def path(self, option: str, name: str, value: _Path | None) -> None:
        if value is None:
            return
        try:
            path = fspath(value)
        except TypeError:
            raise TypeError(f"{name}: must be a path, not {type(value).__name__}") from None
        self.words += [option, path]

    def switch(self, option: str, on: bool) -> None:
        if on:
            self.words.append(option)
