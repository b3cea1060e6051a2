"""G.711, the telephone network's 8-bit speech: mu-law and A-law.

Each code is looked up in a table of 256 samples computed here from ITU-T Recommendation G.711
(11/88); a sample becomes the code whose value is nearest to it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_FULL_SCALE = 32768.0
_POSITIVE_ZERO = 0xFF


def decode_mulaw(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mu-law codes, any shape, as float32 samples in [-1, 1]."""
    return MULAW[codes]


def decode_alaw(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A-law codes, any shape, as float32 samples in [-1, 1]."""
    return ALAW[codes]


def encode_mulaw(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Float samples, any shape, as the nearest mu-law codes; beyond [-1, 1] the outermost ones."""
    return _nearest(samples, *_MULAW_STEPS)


def encode_alaw(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Float samples, any shape, as the nearest A-law codes; beyond [-1, 1] the outermost ones."""
    return _nearest(samples, *_ALAW_STEPS)


def _nearest(
    samples: NDArray[np.float32], limits: NDArray[np.float32], codes: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    return codes[np.searchsorted(limits, samples)]


def _steps(table: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Samples half-way between neighbouring values, and the codes between them."""
    values, first = np.unique(table, return_index=True)
    codes = first.astype(np.uint8)
    # Mu-law has a positive and a negative zero; silence is the positive one.
    codes[values == 0] = _POSITIVE_ZERO
    return ((values[1:] + values[:-1]) / 2).astype(np.float32), codes


def _mulaw_table() -> NDArray[np.float32]:
    """14-bit values of table 2 of the standard, aligned to 16 bits, one for each code."""
    codes = ~np.arange(256, dtype=np.int32) & 0xFF  # the line carries the complement
    segment, step = codes >> 4 & 7, codes & 15
    magnitude = (((step << 3) + 132) << segment) - 132  # 33 steps of bias, times 4
    return _signed(magnitude, codes & 0x80 == 0)


def _alaw_table() -> NDArray[np.float32]:
    """13-bit values of table 1 of the standard, aligned to 16 bits, one for each code."""
    codes = np.arange(256, dtype=np.int32) ^ 0x55  # the line carries even bits inverted
    segment, step = codes >> 4 & 7, codes & 15
    # The first segment starts at 0; each further one at its own leading bit, twice as coarse.
    linear = (step << 4) + 8
    magnitude = np.where(segment == 0, linear, (linear + 256) << np.maximum(segment - 1, 0))
    return _signed(magnitude, codes & 0x80 != 0)


def _signed(magnitude: NDArray[np.int32], positive: NDArray[np.bool_]) -> NDArray[np.float32]:
    return (np.where(positive, magnitude, -magnitude) / _FULL_SCALE).astype(np.float32)


MULAW: Final = _mulaw_table()
"""``(256,)`` float32: the sample that each mu-law code stands for."""

ALAW: Final = _alaw_table()
"""``(256,)`` float32: the sample that each A-law code stands for."""

_MULAW_STEPS: Final = _steps(MULAW)
_ALAW_STEPS: Final = _steps(ALAW)
