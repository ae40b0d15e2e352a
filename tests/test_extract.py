"""`rtpproxy extract`, and the same as `extractaudio`: audio files from recordings."""

from __future__ import annotations

import array
import base64
import ctypes
import itertools
import random
import re
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pylibsrtp
import pytest
import soundfile
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.utils import PcapNgWriter, wrpcap

from support import g711
from support.codecs import BLOCK, LIKENESS, decoded, encoded, likeness, sound
from support.daemon import StartDaemon, binary, wait_until
from support.phone import MakeCall
from support.program import Companion, Done, by_link, run
from support.rtp import Rtp
from support.tools import need, need_library

START = 1_700_000_000.0
FRAME_BYTES = {0: 160, 3: 33, 8: 160, 9: 160, 18: 20}
"""Bytes of 20 ms."""

CALLER, CALLEE = ("192.0.2.1", 4000), ("192.0.2.2", 5000)
RELAY_PORTS = {CALLER: 35000, CALLEE: 35002}


@dataclass(frozen=True)
class Sent:
    """A packet and when it came, in seconds from the start of the recording."""

    at: float
    packet: bytes


def stream(
    payload: bytes,
    payload_type: int = 0,
    ssrc: int = 7,
    sequence: int = 1000,
    at: float = 0.0,
) -> list[Sent]:
    """Packets of 20 ms that came on time."""
    size = FRAME_BYTES[payload_type]
    frames = [payload[start : start + size] for start in range(0, len(payload), size)]
    return [
        Sent(at + index * 0.02, rtp(payload_type, (sequence + index) % 65536, index * BLOCK, ssrc, frame))
        for index, frame in enumerate(frames)
    ]


def rtp(payload_type: int, sequence: int, timestamp: int, ssrc: int, payload: bytes) -> bytes:
    """An RTP packet."""
    return struct.pack("!BBHII", 0x80, payload_type, sequence, timestamp, ssrc) + payload


def noise(seconds: float, seed: int = 1) -> bytes:
    """Payload of G.711 that no other seed gives, without the codes of zero: extractaudio has none."""
    codes = bytes({0x7F: 0x7E, 0xFF: 0xFE}.get(code, code) for code in range(256))
    return random.Random(seed).randbytes(int(seconds * 8000)).translate(codes)


def write_adhoc(path: Path, packets: Iterable[Sent]) -> Path:
    """A recording in the C program's own format."""
    with path.open("wb") as file:
        for sent in packets:
            address = struct.pack("=H", 2) + struct.pack("!H4s", 4000, bytes([192, 0, 2, 1])) + bytes(12)
            file.write(address + struct.pack("=dH", START + sent.at, len(sent.packet)) + sent.packet)
    return path


def frames(packets: Iterable[Sent], sender: tuple[str, int] = CALLER, *, v6: bool = False) -> list[Ether]:
    """Ethernet frames from a party to a relay, by scapy."""
    made = []
    for sent in packets:
        network = IPv6(src="2001:db8::1", dst="2001:db8::9") if v6 else IP(src=sender[0], dst="192.0.2.9")
        frame = (
            Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
            / network
            / UDP(sport=sender[1], dport=RELAY_PORTS[sender])
            / sent.packet
        )
        frame.time = START + sent.at
        made.append(frame)
    return made


def extract(folder: Path, *arguments: str | Path, status: int = 0, libraries: Path | None = None) -> Done:
    """Runs `rtpproxy extract`."""
    done = run(binary(), "extract", *arguments, cwd=folder, libraries=libraries)
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture
def extractaudio(tmp_path: Path) -> Companion:
    """Runs the binary by that name, in the folder of the test."""
    return by_link("extractaudio", tmp_path)


def heard(path: Path) -> list[list[int]]:
    """The samples of each channel."""
    samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
    assert rate == 8000
    return [[int(sample) for sample in channel] for channel in samples.T]


def within(silent: list[int], samples: list[int]) -> bool:
    """Whether `samples` is all there is in `silent` but silence before and after."""
    start = next((start for start, sample in enumerate(silent) if sample), 0)
    lead = next((lead for lead, sample in enumerate(samples) if sample), 0)
    begin = start - lead
    return silent[begin : begin + len(samples)] == samples and not any(silent[begin + len(samples) :])


# Recordings of the relay


@pytest.mark.parametrize(
    "options",
    [(), ("-P",), ("--record-format", "adhoc"), ("--record-format", "pcapng", "--record-scope", "stream")],
    ids=["pcapng", "pcap", "adhoc", "pcapng streams"],
)
def test_a_call_is_heard_as_it_was_said(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path, options: tuple[str, ...]
) -> None:
    daemon = start_daemon("-a", *options)
    call = make_call(daemon, "call")
    said, answered = call.talk(100)
    call.caller.report(call.at_caller_side)
    assert call.command("D") == "0"
    wait_until(lambda: list(daemon.recordings.glob("*.json")), "the recording is complete")
    wait_until(lambda: not list(daemon.recordings.glob("*.part")), "all its files are")

    done = extract(tmp_path, daemon.recordings, "-o", "audio/")
    assert done.stderr == ""
    assert "of the caller 100 packets, of the callee 100" in done.stdout
    assert done.stdout.count("\n") == 1, done.stdout
    (path,) = (tmp_path / "audio").iterdir()
    assert path.name == "call=from.wav"
    left, right = heard(path)
    for channel, packets in ((left, said), (right, answered)):
        payload = b"".join(Rtp.parse(packet).payload for packet in packets)
        assert within(channel, g711.from_mu_law(payload))


@pytest.mark.parametrize("options", [(), ("-P",)], ids=["adhoc", "pcap"])
def test_compat_recordings_go_through_extractaudio(
    start_daemon: StartDaemon,
    make_call: MakeCall,
    extractaudio: Companion,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    daemon = start_daemon("--compat", *options)
    call = make_call(daemon, "call")
    assert call.command("R") == "0"
    assert call.command_of_callee("R") == "0"
    said, answered = call.talk(50)
    assert call.command("D") == "0"
    rdir = daemon.recordings / "call=from"
    wait_until(lambda: count(extractaudio, rdir) == [50, 50], "all is written")
    done = extractaudio("-s", "-D", "pcm_16", rdir, "call.wav")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^samples decoded: O: 8000, A: 8000, written: \d+$", done.stderr, re.MULTILINE)
    left, right = heard(tmp_path / "call.wav")
    for channel, packets in ((right, said), (left, answered)):
        payload = b"".join(Rtp.parse(packet).payload for packet in packets)
        assert within(channel, g711.from_mu_law_without_zero(payload))


def count(extractaudio: Companion, rdir: Path) -> list[int]:
    """The packets of who answered and who called, by a scan."""
    done = extractaudio("-S", rdir)
    assert done.returncode == 0
    return [int(line.rpartition(": ")[2]) for line in done.stdout.splitlines()]


def test_a_recording_that_is_still_written_is_heard(
    start_daemon: StartDaemon, make_call: MakeCall, tmp_path: Path
) -> None:
    daemon = start_daemon("-a")
    call = make_call(daemon, "call")
    call.talk(50)
    part = daemon.recordings / "call=from.pcapng.part"
    all_of_it = "of the caller 50 packets, of the callee 50"

    def is_heard() -> bool:
        (tmp_path / "now.wav").unlink(missing_ok=True)
        return all_of_it in run(binary(), "extract", part, "-o", "now.wav", cwd=tmp_path).stdout

    wait_until(is_heard, "all that was said is heard")

    torn = tmp_path / "torn.pcapng.part"
    torn.write_bytes(part.read_bytes()[:-100])
    done = extract(tmp_path, torn)
    assert f"{torn}: the file ends inside a block that begins at byte " in done.stdout
    assert (tmp_path / "torn.wav").exists()


# Codecs and the timeline


@pytest.mark.parametrize("payload_type", sorted(FRAME_BYTES))
def test_every_codec_is_heard(extractaudio: Companion, tmp_path: Path, payload_type: int) -> None:
    payload = encoded(sound())[payload_type]
    write_adhoc(tmp_path / "x.o.rtp", stream(payload, payload_type))
    done = extractaudio("-s", "-D", "pcm_16", "x", "x.wav")
    assert done.returncode == 0
    _, right = heard(tmp_path / "x.wav")
    expected = g711.from_mu_law_without_zero(payload) if payload_type == 0 else decoded(payload_type, payload)
    assert right[: len(expected)] == expected
    assert likeness(sound(), right) > LIKENESS[payload_type]


def test_a_codec_without_its_library_is_told(
    extractaudio: Companion, tmp_path: Path, no_libraries: Path
) -> None:
    write_adhoc(tmp_path / "x.o.rtp", stream(encoded(sound())[3], 3))
    done = extractaudio("-D", "pcm_16", "x", "x.wav", libraries=no_libraries)
    assert done.returncode == 0
    assert "packets could not be decoded: GSM 06.10 needs the library libgsm.so.1" in done.stderr
    done = extract(tmp_path, "x", "-o", "y.wav", libraries=no_libraries)
    assert "(Debian: apt-get install libgsm1)" in done.stdout


def test_extractaudio_has_no_zero_in_the_mu_law(extractaudio: Companion, tmp_path: Path) -> None:
    write_adhoc(tmp_path / "x.o.rtp", stream(bytes([0x7F, 0xFF, 0x7E, 0xFE] * 40)))
    assert extractaudio("-sD", "pcm_16", "x", "x.wav").returncode == 0
    assert heard(tmp_path / "x.wav")[1] == [-2, 2, -8, 8] * 40
    extract(tmp_path, "x", "--force")
    assert heard(tmp_path / "x.wav")[0] == [0, 0, -8, 8] * 40


def test_overlapping_packets_where_timestamps_wrap_leave_no_gap(
    extractaudio: Companion, tmp_path: Path
) -> None:
    payload = noise(0.06)
    packets = [
        Sent(0.02 * index, rtp(0, index, timestamp % 2**32, 7, payload[index * BLOCK : (index + 1) * BLOCK]))
        for index, timestamp in enumerate((2**32 - 100, 2**32 - 20, 140))
    ]
    write_adhoc(tmp_path / "x.o.rtp", packets)
    assert extractaudio("-sD", "pcm_16", "x", "x.wav").returncode == 0
    assert heard(tmp_path / "x.wav")[1] == g711.from_mu_law(payload)


def test_gaps_are_silence_or_left_out(extractaudio: Companion, tmp_path: Path) -> None:
    payload = noise(1)
    packets = stream(payload)
    del packets[10:15]
    write_adhoc(tmp_path / "x.o.rtp", packets)
    samples = g711.from_mu_law(payload)
    before, after = samples[: 10 * BLOCK], samples[15 * BLOCK :]
    for options, expected in (((), [*before, *[0] * (5 * BLOCK), *after]), (("-n",), before + after)):
        assert extractaudio("-sD", "pcm_16", *options, "x", "x.wav").returncode == 0
        assert heard(tmp_path / "x.wav") == [[0] * len(expected), expected]
    extract(tmp_path, "x.o.rtp", "--no-sync", "-o", "left out.wav")
    assert heard(tmp_path / "left out.wav") == [before + after, [0] * len(before + after)]


def test_late_and_doubled_packets_find_their_place(extractaudio: Companion, tmp_path: Path) -> None:
    payload = noise(1)
    packets = stream(payload)
    packets[7], packets[8] = packets[8], packets[7]
    packets.insert(20, packets[19])
    write_adhoc(tmp_path / "x.o.rtp", packets)
    done = extractaudio("-sD", "pcm_16", "x", "x.wav")
    assert heard(tmp_path / "x.wav")[1] == g711.from_mu_law(payload)
    assert "duplicates=1\nssrc_changes=1, psent=50, precvd=50, plost=0\n" in done.stdout


def test_a_party_that_came_later_is_heard_later(extractaudio: Companion, tmp_path: Path) -> None:
    # Multiples of 1/8 s: doubles have them exactly.
    called, answered = noise(0.5, 1), noise(0.5, 2)
    write_adhoc(tmp_path / "x.o.rtp", stream(called))
    write_adhoc(tmp_path / "x.a.rtp", stream(answered, ssrc=8, at=0.25))
    assert extractaudio("-sD", "pcm_16", "x", "x.wav").returncode == 0
    right = g711.from_mu_law(called) + [0] * 2000
    left = [0] * 2000 + g711.from_mu_law(answered)
    assert heard(tmp_path / "x.wav") == [left, right]
    done = extractaudio("-D", "pcm_16", "x", "mono.wav")
    mixed = [int((a + b) / 2) for a, b in zip(left, right, strict=True)]
    assert heard(tmp_path / "mono.wav") == [mixed]
    assert done.stderr == "samples decoded: O: 4000, A: 4000, written: 3000\n"
    extract(tmp_path, "x", "--mix", "-o", "mix.wav")
    assert heard(tmp_path / "mix.wav") == [mixed]
    # Without the clock both begin at once, and the clock of neither goes on alone.
    assert extractaudio("-nsD", "pcm_16", "x", "n.wav").returncode == 0
    assert heard(tmp_path / "n.wav") == [left[2000:], right[:4000]]


def test_dtmf_and_comfort_noise_are_no_sound(extractaudio: Companion, tmp_path: Path) -> None:
    payload = noise(0.2)
    packets = stream(payload)
    packets.insert(5, Sent(0.09, rtp(101, 1005, 5 * BLOCK, 7, b"\1\0\0\0")))
    packets += [Sent(0.2, rtp(13, 1011, 10 * BLOCK, 7, b"\x40")), Sent(0.21, b"no RTP, but long enough")]
    write_adhoc(tmp_path / "x.o.rtp", packets)
    done = extractaudio("-sD", "pcm_16", "x", "x.wav")
    assert heard(tmp_path / "x.wav")[1] == g711.from_mu_law(payload)
    assert "packet 6 is skipped: payload type 101 is not known to be audio" in done.stderr
    assert "packet 13 is skipped: RTP version 1 instead of 2" in done.stderr
    done = extract(tmp_path, "x", "-o", "y.wav")
    assert "  1 packets are left out: payload type 101 is not known to be audio\n" in done.stdout


# Figures, options and errors of extractaudio


def test_figures_are_those_of_the_analyzer(extractaudio: Companion, tmp_path: Path) -> None:
    packets = stream(noise(0.2), sequence=65530)
    write_adhoc(tmp_path / "x.a.rtp", packets[:3] + packets[4:])
    write_adhoc(tmp_path / "x.o.rtp", stream(noise(0.02), ssrc=0xAB))
    done = extractaudio("-D", "pcm_16", "x", "x.wav")
    *lines, jitter, first, last = done.stdout.splitlines()
    assert lines == [
        "pcount=9, min_seq=65530, max_seq=65539, seq_offset=65536, ssrc=0x00000007, duplicates=0",
        "ssrc_changes=1, psent=10, precvd=9, plost=1",
    ]
    figures = re.fullmatch(
        r"last_jitter=(\d\.\d{6}),average_jitter=(\d\.\d{6}),max_jitter=(\d\.\d{6})", jitter
    )
    assert figures, jitter
    assert all(float(figure) <= 1 for figure in figures.groups())
    assert first == "pcount=1, min_seq=1000, max_seq=1000, seq_offset=0, ssrc=0x000000AB, duplicates=0"
    assert last == "ssrc_changes=1, psent=1, precvd=1, plost=0"


def test_a_scan_counts_packets(extractaudio: Companion, tmp_path: Path) -> None:
    packets = stream(noise(0.2))
    write_adhoc(tmp_path / "x.a.rtp", [*packets, Sent(1, b"short")])
    (tmp_path / "x.o.rtp").write_bytes((tmp_path / "x.a.rtp").read_bytes()[:-1])
    done = extractaudio("-S", "x")
    assert (done.returncode, done.stdout) == (0, "x.a.rtp: 10\nx.o.rtp: -1\n")
    assert "x.o.rtp: the file ends inside a packet that begins at byte " in done.stderr
    wrpcap(str(tmp_path / "x.pcap"), frames(packets))
    done = extractaudio("-S", "-B", "x.pcap", "-A", "none")
    assert (done.returncode, done.stdout) == (0, "none: -1\nx.pcap: 10\n")


def test_links_and_deletion(extractaudio: Companion, tmp_path: Path) -> None:
    for name in ("x.o.rtp", "x.a.rtp"):
        write_adhoc(tmp_path / name, stream(noise(0.2)))
    need_library("libsndfile.so.1")
    assert extractaudio("-id", "x", "x.wav", "one.wav", "two.wav").returncode == 0
    assert not list(tmp_path.glob("*.rtp"))
    assert (tmp_path / "one.wav").samefile(tmp_path / "x.wav")
    assert (tmp_path / "two.wav").samefile(tmp_path / "x.wav")
    assert soundfile.info(tmp_path / "x.wav").subtype == "GSM610"

    write_adhoc(tmp_path / "x.o.rtp", stream(noise(0.2)))
    done = extractaudio("-d", "x", "x.wav", "one.wav")
    assert (done.returncode, (tmp_path / "x.o.rtp").exists()) == (1, True)
    assert "extractaudio: cannot link one.wav: File exists" in done.stderr


def test_stereo_is_adpcm_by_itself(extractaudio: Companion, tmp_path: Path) -> None:
    need_library("libsndfile.so.1")
    write_adhoc(tmp_path / "x.o.rtp", stream(noise(0.2)))
    assert extractaudio("-s", "x", "x.wav").returncode == 0
    assert soundfile.info(tmp_path / "x.wav").subtype == "MS_ADPCM"
    assert soundfile.info(tmp_path / "x.wav").channels == 2


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        ([], 1, "Usage: extractaudio [-idsne]"),
        (["x"], 1, "Usage: extractaudio [-idsne]"),
        (["-S"], 1, "Usage: extractaudio [-idsne]"),
        (["-S", "x", "out"], 1, "Usage: extractaudio [-idsne]"),
        (["-A", "x.o.rtp"], 1, "Usage: extractaudio [-idsne]"),
        (["-x", "x", "out"], 1, "Usage: extractaudio [-idsne]"),
        (["-F", "mp7", "x", "out"], 1, '"mp7" is no known file format; there are:\n  wav aiff au raw'),
        (["-D", "pcm", "x", "out"], 1, '"pcm" is no known data format; there are:\n  pcm_s8 pcm_16'),
        (["none", "out"], 1, "cannot load neither none.a.rtp nor none.o.rtp"),
        (["-A", "none", "out"], 1, "cannot load none"),
        (["-e", "x", "out"], 1, "cannot load x.a.rtp: No such file"),
        (["--alice-crypto", "AES", "-A", "x.o.rtp", "out"], 1, "--alice-crypto: no key"),
        (["--bob-crypto=AES:x", "-A", "x.o.rtp", "out"], 1, '--bob-crypto: "AES" is no known suite'),
        (["--bob", "AES_CM_128_HMAC_SHA1_80:x", "-A", "x.o.rtp", "out"], 1, "the base64 of 30 bytes"),
        (["-D", "pcm_16", "x", "none/out"], 2, "cannot open none/out: No such file or directory"),
        (["x", "none/out"], 2, "cannot open none/out: "),
        (["-F", "au", "x", "out"], 2, "cannot open out: "),
    ],
)
def test_extractaudio_says_what_is_wrong(
    extractaudio: Companion, tmp_path: Path, arguments: list[str], status: int, complaint: str
) -> None:
    write_adhoc(tmp_path / "x.o.rtp", stream(noise(0.2)))
    done = extractaudio(*arguments)
    assert done.returncode == status
    assert complaint in done.stderr
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "x.o.rtp").exists()


def test_without_audio_there_is_no_file(extractaudio: Companion, tmp_path: Path) -> None:
    write_adhoc(tmp_path / "x.o.rtp", [])
    write_adhoc(tmp_path / "x.a.rtp", [Sent(0, rtp(101, 1, 0, 7, b"\1\0\0\0"))])
    done = extractaudio("x", "x.wav", "link.wav")
    assert done.returncode == 0
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == []
    extract(tmp_path, "x", status=1)


def test_a_full_disk_is_told(extractaudio: Companion, tmp_path: Path) -> None:
    write_adhoc(tmp_path / "x.o.rtp", stream(noise(2)))
    done = extractaudio("-D", "pcm_16", "x", "/dev/full")
    assert done.returncode == 1
    assert "/dev/full: No space left on device" in done.stderr


def test_the_name_of_the_program_decides(tmp_path: Path) -> None:
    write_adhoc(tmp_path / "x.o.rtp", stream(noise(0.2)))
    done = run("/somewhere/extractaudio", "-S", "x", cwd=tmp_path, executable=binary())
    assert done.stdout == "x.a.rtp: -1\nx.o.rtp: 10\n"
    assert run(binary(), "-f", "extract", "x", cwd=tmp_path).returncode == 1


# Formats of audio


def test_every_format_opens_again(extractaudio: Companion, tmp_path: Path) -> None:
    need_library("libsndfile.so.1")
    payload = noise(1)
    write_adhoc(tmp_path / "x.o.rtp", stream(payload))
    names = extractaudio("-F", "?", "x", "y").stderr, extractaudio("-D", "?", "x", "y").stderr
    containers, encodings = ([*text.splitlines()[-1].split()] for text in names)
    assert (len(containers), len(encodings)) == (25, 24)
    library = ctypes.CDLL("libsndfile.so.1")
    opened = 0
    for container, encoding in itertools.product(containers, encodings):
        path = tmp_path / f"{container}.{encoding}"
        number = soundfile._formats[container.upper()] | soundfile._subtypes[encoding.upper()]
        is_valid = library.sf_format_check((ctypes.c_int64 * 4)(0, 1 << 32 | 8000, number, 0))
        # One pair of each container that does not exist is enough.
        if not is_valid and encoding != "dpcm_16":
            continue
        done = extractaudio("-F", container.upper(), "-D", encoding, "x", path)
        # The library offers this pair, and then does not know how to write it.
        status = 1 if (container, encoding) == ("aiff", "dwvw_12") else 0
        assert done.returncode == (status if is_valid else 2), (container, encoding, done.stderr)
        # This one keeps what it is in a second file, which the package does not look for.
        if done.returncode == 0 and container != "sd2":
            opens_again(path, container, encoding)
            opened += 1
    assert opened > 100


def opens_again(path: Path, container: str, encoding: str) -> None:
    """Whether another libsndfile reads a file of this kind and finds a second of audio in it."""
    raw = {"samplerate": 8000, "channels": 1, "subtype": encoding, "format": "RAW"}
    with soundfile.SoundFile(path, **(raw if container == "raw" else {})) as file:
        assert file.channels == 1
        # Past the package's own reading, which seeks where some formats cannot.
        samples = soundfile._ffi.new("short[]", 9999)
        assert 8000 <= soundfile._snd.sf_readf_short(file._file, samples, 9999) < 9000, path.name


def test_wav_is_the_same_with_and_without_the_library(
    extractaudio: Companion, tmp_path: Path, no_libraries: Path
) -> None:
    write_adhoc(tmp_path / "x.o.rtp", stream(noise(1)))
    assert extractaudio("-D", "pcm_16", "x", "x.wav", libraries=no_libraries).returncode == 0
    (samples,) = heard(tmp_path / "x.wav")
    soundfile.write(tmp_path / "other.wav", array.array("h", samples), 8000, "PCM_16", format="WAV")
    assert (tmp_path / "x.wav").read_bytes() == (tmp_path / "other.wav").read_bytes()

    done = extractaudio("x", "y.wav", libraries=no_libraries)
    assert done.returncode == 2
    assert "needs the library libsndfile.so.1 (Debian: apt-get install libsndfile1)" in done.stderr
    done = extract(tmp_path, "x", "--format", "flac", status=1, libraries=no_libraries)
    assert "libsndfile1" in done.stderr


def test_floats_are_what_programs_expect(tmp_path: Path) -> None:
    need_library("libsndfile.so.1")
    payload = noise(0.2)
    write_adhoc(tmp_path / "x.o.rtp", stream(payload))
    extract(tmp_path, "x", "--data", "float")
    samples, _ = soundfile.read(tmp_path / "x.wav", dtype="float32")
    assert [round(float(sample) * 32768) for sample in samples[:, 0]] == g711.from_mu_law(payload)


@pytest.fixture
def no_libraries(tmp_path: Path) -> Path:
    """A folder whose libraries hide those of the machine, and are none."""
    folder = tmp_path / "lib"
    folder.mkdir()
    for name in ("libgsm.so.1", "libsndfile.so.1"):
        (folder / name).write_text("not a library")
    return folder


# Encrypted captures


@pytest.mark.parametrize("suite", ["80", "32"])
def test_srtp_is_decrypted(extractaudio: Companion, tmp_path: Path, suite: str) -> None:
    key, payload = random.Random(5).randbytes(30), noise(1)
    policy = pylibsrtp.Policy(
        key=key,
        ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND,
        srtp_profile=getattr(pylibsrtp.Policy, f"SRTP_PROFILE_AES128_CM_SHA1_{suite}"),
    )
    session = pylibsrtp.Session(policy)
    packets = [Sent(sent.at, session.protect(sent.packet)) for sent in stream(payload, sequence=65520)]
    wrpcap(str(tmp_path / "x.pcap"), frames(packets))
    crypto = f"AES_CM_128_HMAC_SHA1_{suite}:{base64.b64encode(key).decode()}"
    expected = g711.from_mu_law(payload)

    done = extractaudio("-sD", "pcm_16", "-A", "x.pcap", "--alice-crypto", crypto, "x.wav")
    assert done.returncode == 0
    assert heard(tmp_path / "x.wav")[0] == expected
    assert "psent=50, precvd=50, plost=0" in done.stdout
    extract(tmp_path, "x.pcap", "--crypto", f"caller={crypto}", "-o", "y.wav")
    assert heard(tmp_path / "y.wav")[0] == expected

    wrong = crypto[:-4] + "AAAA"
    done = extractaudio("-sD", "pcm_16", "-B", "x.pcap", "--bob-crypto", wrong, "z.wav")
    assert done.returncode == 0
    assert not (tmp_path / "z.wav").exists()
    assert done.stderr.count("is skipped: the tag is wrong") == 50
    done = extract(tmp_path, "x.pcap", "--crypto", f"caller={wrong}", "-o", "z.wav", status=1)
    assert "50 packets are left out: the tag is wrong" in done.stderr


# Captures of other programs


def test_captures_of_other_programs_are_read(tmp_path: Path) -> None:
    called, answered = noise(0.5, 1), noise(0.5, 2)
    both = frames(stream(called)) + frames(stream(answered, ssrc=8, at=0.001), CALLEE)
    both.sort(key=lambda frame: frame.time)
    wrpcap(str(tmp_path / "us.pcap"), both)
    wrpcap(str(tmp_path / "ns.pcap"), both, nano=True)
    wrpcap(str(tmp_path / "big.pcap"), both, endianness=">")
    with PcapNgWriter(str(tmp_path / "scapy.pcapng")) as writer:
        writer.write(both)
    need("editcap", "tshark")
    for name, kind in (("tshark.pcapng", "pcapng"), ("ns2.pcap", "nsecpcap")):
        subprocess.run(["editcap", "-F", kind, "us.pcap", name], cwd=tmp_path, check=True, timeout=60)
    subprocess.run(
        ["tshark", "-r", "us.pcap", "-w", "again.pcapng"],
        cwd=tmp_path,
        check=True,
        timeout=60,
        capture_output=True,
    )
    paths = sorted(path for path in tmp_path.iterdir() if path.suffix in {".pcap", ".pcapng"})
    assert len(paths) == 7
    for path in paths:
        done = extract(tmp_path, path, "-o", "out.wav", "--force")
        assert "it does not say who is who: whoever is heard first is taken for the caller" in done.stdout
        left, right = heard(tmp_path / "out.wav")
        assert within(left, g711.from_mu_law(called)), path.name
        assert within(right, g711.from_mu_law(answered)), path.name


def test_extractaudio_reads_the_pcap_that_the_c_program_reads(
    extractaudio: Companion, tmp_path: Path
) -> None:
    payload = noise(0.2)
    sent = frames(stream(payload))
    others = [Ether(dst="02:00:00:00:00:02") / ARP(), *frames(stream(noise(0.1, 2)), v6=True)]
    others += [Ether(dst="02:00:00:00:00:02") / Dot1Q(vlan=7) / frame[IP] for frame in sent[:3]]
    for other in others:
        other.time = START
    wrpcap(str(tmp_path / "ethernet.pcap"), others + sent)
    null = [(float(frame.time), struct.pack("=I", 2) + bytes(frame[IP])) for frame in sent]
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 0)
    records = (struct.pack("=IIII", *divmod(round(at * 1e6), 10**6), len(f), len(f)) + f for at, f in null)
    (tmp_path / "null.pcap").write_bytes(head + b"".join(records))
    for name in ("ethernet.pcap", "null.pcap"):
        assert extractaudio("-S", "-A", name).stdout == f"{name}: 10\n"
        assert extractaudio("-sD", "pcm_16", "-A", name, "x.wav").returncode == 0
        assert heard(tmp_path / "x.wav")[0] == g711.from_mu_law(payload)

    wrpcap(str(tmp_path / "big.pcap"), sent, endianness=">")
    wrpcap(str(tmp_path / "nano.pcap"), sent, nano=True)
    wrpcap(str(tmp_path / "raw.pcap"), [frame[IP] for frame in sent], linktype=101)
    (tmp_path / "cut.pcap").write_bytes((tmp_path / "null.pcap").read_bytes()[:-1])
    for name, complaint in (
        ("big.pcap", "a kind of pcap that only rtpproxy extract reads"),
        ("nano.pcap", "a kind of pcap that only rtpproxy extract reads"),
        ("raw.pcap", "a kind of pcap that only rtpproxy extract reads"),
        ("cut.pcap", "the file ends inside a packet"),
    ):
        done = extractaudio("-S", "-A", name)
        assert (done.returncode, done.stdout) == (0, f"{name}: -1\n")
        done = extractaudio("-D", "pcm_16", "-A", name, "y.wav")
        assert done.returncode == 1
        assert f"extractaudio: {name}: {complaint}" in done.stderr
        assert not (tmp_path / "y.wav").exists()
        extract(tmp_path, name, "--force")


def test_ipv6_is_heard_by_extract(extractaudio: Companion, tmp_path: Path) -> None:
    payload = noise(0.2)
    wrpcap(str(tmp_path / "x.pcap"), frames(stream(payload), v6=True))
    extract(tmp_path, "x.pcap")
    assert heard(tmp_path / "x.wav")[0] == g711.from_mu_law(payload)
    assert extractaudio("-S", "-A", "x.pcap").stdout == "x.pcap: 0\n"


# The command line of extract


def test_a_folder_becomes_a_folder(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    for name in ("one.o.rtp", "one.a.rtp", "two.rtp"):
        write_adhoc(calls / name, stream(noise(0.2)))
    (calls / "three.pcap").write_text("no capture at all, but more than thirty bytes of text")
    done = extract(tmp_path, "calls", "-o", "audio", status=1)
    assert sorted(path.name for path in (tmp_path / "audio").iterdir()) == ["one.wav", "two.wav"]
    assert "audio/one.wav: 0.2 s, of the caller 10 packets, of the callee 10\n" in done.stdout
    assert "two.rtp: it does not say whose packets it holds: they are taken for the caller's" in done.stdout
    assert done.stderr.startswith("rtpproxy: extract: calls/three.pcap: neither a known capture format")


def test_no_recording_takes_the_place_of_another(tmp_path: Path) -> None:
    for name in ("x.pcap", "x.pcap.part"):
        wrpcap(str(tmp_path / name), frames(stream(noise(0.2))))
    done = extract(tmp_path, ".", "-o", "audio", "--force", status=1)
    assert done.stderr == (
        "rtpproxy: extract: audio/x.wav: two recordings have this name; extract them one by one\n"
    )
    assert [path.name for path in (tmp_path / "audio").iterdir()] == ["x.wav"]


def test_no_file_is_replaced_unless_asked(tmp_path: Path) -> None:
    write_adhoc(tmp_path / "x.o.rtp", stream(noise(0.2)))
    (tmp_path / "x.wav").write_text("mine")
    done = extract(tmp_path, "x", status=1)
    assert done.stderr == "rtpproxy: extract: x.wav: it exists; --force replaces it\n"
    assert (tmp_path / "x.wav").read_text() == "mine"
    # What cannot be made does not cost the old file.
    extract(tmp_path, "x", "--force", "--data", "opus", status=1)
    assert (tmp_path / "x.wav").read_text() == "mine"
    extract(tmp_path, "x", "--force")
    assert len(heard(tmp_path / "x.wav")) == 2


def test_no_recording_is_replaced_by_its_sound(tmp_path: Path) -> None:
    whole = write_adhoc(tmp_path / "x.o.rtp", stream(noise(0.2))).read_bytes()
    (tmp_path / "link").symlink_to("x.o.rtp")
    done = extract(tmp_path, "x", "--force", "-o", "link", status=1)
    assert done.stderr == "rtpproxy: extract: link: this is the recording itself\n"
    assert (tmp_path / "x.o.rtp").read_bytes() == whole


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "<RECORDING>"),
        (["none"], "rtpproxy: extract: none: No such file or directory"),
        (["empty"], "rtpproxy: extract: there are no recordings (.pcapng, .pcap, .rtp)"),
        (["--format", "mp7", "x"], "[possible values: wav, aiff, "),
        (["--data", "pcm", "x"], "[possible values: pcm_s8, pcm_16, "),
        (["--crypto", "alice=AES:x", "x"], '"alice" is neither caller nor callee'),
        (["--crypto", "caller=AES:x", "x"], '"AES" is no known suite'),
        (["--crypto", "caller", "x"], "it is written PARTY=SUITE:KEY"),
        (["x", "-o", "none/x.wav"], "rtpproxy: extract: none/x.wav: No such file or directory"),
    ],
)
def test_extract_says_what_is_wrong(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "empty").mkdir()
    write_adhoc(tmp_path / "x.o.rtp", stream(noise(0.2)))
    done = extract(tmp_path, *arguments, status=1)
    assert complaint in done.stderr
    assert done.stdout == ""
