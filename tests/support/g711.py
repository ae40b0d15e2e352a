"""G.711 by another implementation: that of Python's own audioop, which audioop-lts carries on."""

from __future__ import annotations

import array
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop


def to_mu_law(samples: list[int]) -> bytes:
    """Payload type 0."""
    return audioop.lin2ulaw(array.array("h", samples).tobytes(), 2)


def to_a_law(samples: list[int]) -> bytes:
    """Payload type 8."""
    return audioop.lin2alaw(array.array("h", samples).tobytes(), 2)


def from_mu_law(payload: bytes) -> list[int]:
    """Samples of payload type 0."""
    return list(array.array("h", audioop.ulaw2lin(payload, 2)))


def from_mu_law_without_zero(payload: bytes) -> list[int]:
    """The same as `extractaudio` gives them: it has the codes of zero decoded to the neighbours of it."""
    zeros = {0x7F: -2, 0xFF: 2}
    samples = from_mu_law(payload)
    return [zeros.get(code, sample) for code, sample in zip(payload, samples, strict=True)]


def from_a_law(payload: bytes) -> list[int]:
    """Samples of payload type 8."""
    return list(array.array("h", audioop.alaw2lin(payload, 2)))
