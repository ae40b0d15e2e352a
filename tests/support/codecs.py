"""The codecs of prompts and recordings by other implementations, and a sound to try them with."""

from __future__ import annotations

import array
import ctypes
import math
from collections.abc import Iterator

from G722 import G722

from support import g711
from support.tools import need_library

BLOCK = 160
SAMPLES = 40 * BLOCK + 50


def sound(samples: int = SAMPLES) -> list[int]:
    """A rising tone, by turns loud and soft, in 16-bit samples at 8000 Hz."""
    times = (i / 8000 for i in range(samples))
    return [int(6000 * (1 + math.sin(20 * t)) * math.sin(2000 * t + 3000 * t * t)) for t in times]


def filled(samples: list[int]) -> list[int]:
    """Whole blocks, with silence at the end."""
    return samples + [0] * (-len(samples) % BLOCK)


def encoded(samples: list[int]) -> dict[int, bytes]:
    """The files that a sound becomes, made by other encoders."""
    gsm = Gsm()
    return {
        0: g711.to_mu_law(samples),
        3: b"".join(gsm.encode(frame) for frame in chunks(filled(samples), 160)),
        8: g711.to_a_law(samples),
        9: bytes(G722(8000, 64000).encode(array.array("h", filled(samples)))),
        18: b"".join(G729(encode=True).encode_all(filled(samples))),
    }


def chunks(samples: list[int], size: int) -> Iterator[list[int]]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


class Gsm:
    """libgsm without anything of ours."""

    def __init__(self) -> None:
        need_library("libgsm.so.1")
        self.library = ctypes.CDLL("libgsm.so.1")
        self.library.gsm_create.restype = ctypes.c_void_p
        self.state = ctypes.c_void_p(self.library.gsm_create())

    def encode(self, samples: list[int]) -> bytes:
        frame = ctypes.create_string_buffer(33)
        self.library.gsm_encode(self.state, (ctypes.c_int16 * 160)(*samples), frame)
        return frame.raw

    def decode(self, frame: bytes) -> list[int]:
        samples = (ctypes.c_int16 * 160)()
        assert self.library.gsm_decode(self.state, frame, samples) == 0
        return list(samples)


class G729:
    """bcg729 without anything of ours."""

    def __init__(self, *, encode: bool) -> None:
        need_library("libbcg729.so.0")
        self.library = ctypes.CDLL("libbcg729.so.0")
        begin = self.library.initBcg729EncoderChannel if encode else self.library.initBcg729DecoderChannel
        begin.restype = ctypes.c_void_p
        self.state = ctypes.c_void_p(begin(0))

    def encode_all(self, samples: list[int]) -> Iterator[bytes]:
        for block in chunks(samples, 80):
            frame, length = ctypes.create_string_buffer(10), ctypes.c_uint8()
            block_type = ctypes.c_int16 * 80
            self.library.bcg729Encoder(self.state, block_type(*block), frame, ctypes.byref(length))
            yield frame.raw[: length.value]

    def decode(self, frame: bytes) -> list[int]:
        samples = (ctypes.c_int16 * 80)()
        self.library.bcg729Decoder(self.state, frame, 10, 0, 0, 0, samples)
        return list(samples)


def decoded(payload_type: int, payload: bytes) -> list[int]:
    """What a phone makes of a prompt."""
    if payload_type == 0:
        return g711.from_mu_law(payload)
    if payload_type == 8:
        return g711.from_a_law(payload)
    if payload_type == 9:
        return list(G722(8000, 64000).decode(payload))
    size = 33 if payload_type == 3 else 10
    decoder = Gsm() if payload_type == 3 else G729(encode=False)
    frames = (payload[start : start + size] for start in range(0, len(payload), size))
    return [sample for frame in frames for sample in decoder.decode(frame)]


def likeness(one: list[int], other: list[int]) -> float:
    """1 for the same sound, louder or softer and up to 10 ms later; 0 for one that has nothing of it."""

    def at(delay: int) -> float:
        pairs = list(zip(one, other[delay:], strict=False))
        strength = math.sqrt(sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs))
        return sum(a * b for a, b in pairs) / strength

    return max(at(delay) for delay in range(80))


LIKENESS = {0: 0.999, 3: 0.95, 8: 0.999, 9: 0.99, 18: 0.85}
"""What is left after each codec, at least."""
