"""`extractaudio`, sample by sample and figure by figure, against a plain model of its rules."""

from __future__ import annotations

import base64
import contextlib
import itertools
import random
import re
import struct
import wave
from dataclasses import dataclass
from pathlib import Path

import pylibsrtp
import pytest

from support import timeline
from support.daemon import binary
from support.program import Done, run

START = 1_700_000_000.123456
ANSWER, CALLER = ".a.rtp", ".o.rtp"


@dataclass
class Sender:
    """A source that does what sources should not."""

    dice: random.Random
    at: float
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    tick: float
    troubles: list[str]

    def packets(self, count: int) -> list[tuple[float, bytes]]:
        made: list[tuple[float, bytes]] = []
        for _ in range(count):
            if self.dice.random() < 0.2:
                getattr(self, self.dice.choice(self.troubles))(made)
            made.append(self.next())
        return made

    def next(self, *, marker: bool = False) -> tuple[float, bytes]:
        payload = self.dice.randbytes(160)
        packet = (self.at, self.rtp(payload, marker=marker))
        self.at += self.tick
        self.sequence += 1
        self.timestamp += 160
        return packet

    def rtp(self, payload: bytes, *, marker: bool = False, payload_type: int | None = None) -> bytes:
        kind = self.payload_type if payload_type is None else payload_type
        numbers = (self.sequence % 65536, self.timestamp % 2**32, self.ssrc)
        return struct.pack("!BBHII", 0x80, marker << 7 | kind, *numbers) + payload

    # Troubles

    def loses(self, _: list[tuple[float, bytes]]) -> None:
        lost = self.dice.choice([1, 2, 5, 30, 600])
        self.sequence += lost
        self.timestamp += lost * 160
        self.at += min(lost, 40) * 0.02

    def doubles(self, made: list[tuple[float, bytes]]) -> None:
        if made:
            made.append((self.at, self.dice.choice(made[-8:])[1]))

    def swaps(self, made: list[tuple[float, bytes]]) -> None:
        if len(made) > 4:
            distance = self.dice.choice([1, 1, 2, 4])
            late, early = made[-1], made[-1 - distance]
            made[-1], made[-1 - distance] = (late[0], early[1]), (early[0], late[1])

    def leaps(self, _: list[tuple[float, bytes]]) -> None:
        self.timestamp += self.dice.choice([8, -8, 80, 4001, 9_000, 20_000, -20_000, 2**31, 2**30])

    def pauses(self, _: list[tuple[float, bytes]]) -> None:
        self.at += self.dice.choice([0.15, 0.25, 0.7, 1.3])

    def talks_again(self, made: list[tuple[float, bytes]]) -> None:
        self.sequence += self.dice.choice([0, 0, -5, 3000])
        made.append(self.next(marker=True))

    def signals(self, made: list[tuple[float, bytes]]) -> None:
        for _ in range(3):
            made.append((self.at, self.rtp(b"\1\0\0\0", payload_type=self.dice.choice([101, 100, 13]))))
            self.sequence += 1
            self.at += 0.02
        self.timestamp += self.dice.choice([0, 480])

    def changes_codec(self, _: list[tuple[float, bytes]]) -> None:
        self.payload_type = self.dice.choice([0, 8, 9, 0, 8, 4, 96])

    def frames_otherwise(self, made: list[tuple[float, bytes]]) -> None:
        size = self.dice.choice([0, 1, 80, 240, 5000])
        made.append((self.at, self.rtp(self.dice.randbytes(size))))
        self.sequence += 1
        self.timestamp += size
        self.at += size / 8000

    def pads(self, made: list[tuple[float, bytes]]) -> None:
        padding = self.dice.choice([b"\1", b"\0\0\3", b"\0", b"\xff"])
        csrcs = struct.pack("!II", 1, 2)
        packet = self.rtp(csrcs + self.dice.randbytes(20) + padding)
        made.append((self.at, bytes([packet[0] | 0x22]) + packet[1:]))

    def extends(self, made: list[tuple[float, bytes]]) -> None:
        words = self.dice.choice([0, 1, 50])
        packet = self.rtp(struct.pack("!HH", 0xBEDE, words) + self.dice.randbytes(84))
        made.append((self.at, bytes([packet[0] | 0x10]) + packet[1:]))

    def babbles(self, made: list[tuple[float, bytes]]) -> None:
        made.append((self.at, self.dice.randbytes(self.dice.choice([5, 12, 40]))))

    def reports(self, made: list[tuple[float, bytes]]) -> None:
        made.append((self.at, struct.pack("!BBHI", 0x80, 200, 6, self.ssrc) + self.dice.randbytes(20)))


TROUBLES = [
    name
    for name, value in vars(Sender).items()
    if callable(value) and not name.startswith("_") and name not in {"packets", "next", "rtp"}
]


def side(dice: random.Random) -> list[tuple[float, bytes]]:
    """What a party sent, by one source or several."""
    packets = []
    begin = dice.choice([0.0, 0.0, 0.4, 1.7, dice.random()])
    for ssrc in range(dice.choice([1, 1, 2, 3, 12])):
        sender = Sender(
            dice,
            at=START + begin + (dice.random() * 2 if ssrc else 0),
            payload_type=dice.choice([0, 8, 9]),
            sequence=dice.choice([0, 1, 400, 30_000, 65_500, 65_535]),
            timestamp=dice.choice([0, 160, 123_456, 2**32 - 4800, 2**32 - 80, 2**31]),
            ssrc=dice.getrandbits(32),
            tick=dice.choice([0.02, 0.02, 0.0203, 0.0195, 0.025]),
            troubles=dice.sample(TROUBLES, dice.choice([0, 1, 2, len(TROUBLES)])) or ["doubles"],
        )
        packets += sender.packets(dice.choice([1, 8, 30, 60]))
    packets.sort(key=lambda packet: packet[0])
    return packets


def write(path: Path, packets: list[tuple[float, bytes]], dice: random.Random) -> None:
    """A recording in the ad-hoc format, with addresses of either family."""
    with path.open("wb") as file:
        for at, packet in packets:
            family = dice.choice([2, 10])
            file.write(struct.pack("=H18sdH", family, dice.randbytes(18), at, len(packet)) + packet)


def extractaudio(folder: Path, *arguments: str) -> Done:
    return run("extractaudio", *arguments, executable=binary(), cwd=folder)


def model(packets: list[tuple[float, bytes]] | None) -> timeline.Side | None:
    """What is heard of a recording; nothing if it is not there or cannot be used."""
    try:
        return None if packets is None else timeline.Side(packets)
    except timeline.Misplaced:
        return None


@pytest.mark.parametrize("seed", range(60))
def test_hostile_sequences_are_heard_as_by_the_rules(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    sent = {name: side(dice) for name in (ANSWER, CALLER)}
    if dice.random() < 0.3:
        sent.pop(dice.choice([ANSWER, CALLER]))
    for name, packets in sent.items():
        write(tmp_path / f"x{name}", packets, dice)
    sides = [model(sent.get(name)) for name in (ANSWER, CALLER)]
    is_stereo, is_synced = dice.random() < 0.5, dice.random() < 0.7
    options = [*(["-s"] * is_stereo), *(["-n"] * (not is_synced))]
    done = extractaudio(tmp_path, *options, "-D", "pcm_16", "x", "x.wav")
    assert done.returncode == (0 if any(sides) else 1), done.stderr
    assert printed(done.stdout) == printed("".join(figures(party) for party in sides if party))

    parties = [party or timeline.Side([]) for party in sides]
    if not any(party.channels for party in parties):
        assert not (tmp_path / "x.wav").exists()
        return
    expected = timeline.extracted(*parties, sync=is_synced)
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert file.getparams()[:3] == (1 + is_stereo, 2, 8000)
        data = file.readframes(file.getnframes())
    samples = struct.unpack(f"<{len(data) // 2}h", data)
    if is_stereo:
        assert samples == tuple(sample for frame in expected for sample in frame)
    else:
        assert samples == tuple(timeline.half(a + b) for a, b in expected)
    answered, called = (list(party.channels.values()) for party in parties)
    counts = [
        sum(len(list(timeline.voice(channel, sync=is_synced))) for channel in channels)
        for channels in (called, answered)
    ]
    written = len(samples) // 2
    assert f"samples decoded: O: {counts[0]}, A: {counts[1]}, written: {written}\n" in done.stderr


@pytest.mark.parametrize("seed", range(24))
def test_srtp_is_decrypted_as_by_libsrtp(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    suite, key = dice.choice(["80", "32"]), dice.randbytes(30)
    profile = getattr(pylibsrtp.Policy, f"SRTP_PROFILE_AES128_CM_SHA1_{suite}")
    settings = {"key": key, "srtp_profile": profile}
    sender = Sender(
        dice,
        at=START,
        payload_type=0,
        sequence=dice.choice([0, 30_000, 65_500, 65_535]),
        timestamp=dice.choice([0, 2**32 - 4800]),
        ssrc=dice.getrandbits(32),
        tick=0.02,
        troubles=["loses"],
    )
    sealed = damaged(
        dice,
        sender.packets(60),
        pylibsrtp.Session(pylibsrtp.Policy(ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND, **settings)),
    )
    write_pcap(tmp_path / "x.pcap", sealed)
    of_sender = {"ssrc_type": pylibsrtp.Policy.SSRC_SPECIFIC, "ssrc_value": sender.ssrc}
    party = model(unsealed(sealed, pylibsrtp.Session(pylibsrtp.Policy(**of_sender, **settings))))
    crypto = f"AES_CM_128_HMAC_SHA1_{suite}:{base64.b64encode(key).decode()}"
    done = extractaudio(tmp_path, "-sD", "pcm_16", "-B", "x.pcap", "--bob-crypto", crypto, "x.wav")
    assert done.returncode == (0 if party else 1)
    assert printed(done.stdout) == printed(figures(party) if party else "")
    if party and party.channels:
        expected = timeline.extracted(timeline.Side([]), party, sync=True)
        with wave.open(str(tmp_path / "x.wav")) as file:
            data = file.readframes(file.getnframes())
        assert struct.unpack(f"<{len(data) // 2}h", data) == tuple(itertools.chain.from_iterable(expected))


def damaged(
    dice: random.Random, packets: list[tuple[float, bytes]], session: pylibsrtp.Session
) -> list[tuple[float, bytes]]:
    """SRTP with packets that are changed, doubled, late, of another source or of another kind."""
    sealed = [(round(at * 1e6) / 1e6, session.protect(packet)) for at, packet in packets]
    made = []
    for at, packet in sealed:
        made.append((at, packet))
        match dice.randrange(20):
            case 0:
                made[-1] = (at, packet[:-1] + bytes([packet[-1] ^ 1]))
            case 1:
                made.append((at, dice.choice(sealed)[1]))
            case 2:
                made.append((at, dice.randbytes(40)))
            case 3:
                made.append((at, session.protect_rtcp(struct.pack("!BBHI", 0x80, 200, 6, 7) + bytes(20))))
            case 4:
                made.append((at, packet[:8] + bytes(4) + packet[12:]))
    for _ in range(3):
        place = dice.randrange(len(made) - 1)
        (one, early), (other, late) = made[place : place + 2]
        made[place : place + 2] = [(one, late), (other, early)]
    return made


def unsealed(packets: list[tuple[float, bytes]], session: pylibsrtp.Session) -> list[tuple[float, bytes]]:
    """What the library accepts."""
    plain = []
    for at, packet in packets:
        with contextlib.suppress(pylibsrtp.Error):
            plain.append((at, session.unprotect(packet)))
    return plain


def write_pcap(path: Path, packets: list[tuple[float, bytes]]) -> None:
    """A recording of whole microseconds."""
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for at, packet in packets:
            ip = struct.pack("!BBHIBBHII", 0x45, 0, 28 + len(packet), 0, 64, 17, 0, 0x7F000001, 0x7F000001)
            frame = bytes(12) + b"\x08\0" + ip + struct.pack("!HHHH", 4000, 5000, 8 + len(packet), 0) + packet
            file.write(struct.pack("=IIII", *divmod(round(at * 1e6), 10**6), len(frame), len(frame)) + frame)


def figures(party: timeline.Side) -> str:
    lines = party.analyzer.figures()
    if jitter := party.analyzer.jitter():
        lines.append(jitter)
    return "".join(f"{line}\n" for line in lines)


def printed(text: str) -> list[object]:
    """The words and numbers of a text; the last digit of jitter depends on how sums are ordered."""
    words = re.split(r"(?<==)(\d+\.\d{6})", text)
    return [pytest.approx(float(word), abs=2e-6) if index % 2 else word for index, word in enumerate(words)]
