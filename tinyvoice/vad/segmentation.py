"""Cut a clip that is longer than the encoder takes into pieces, at its quietest points.

The pieces follow each other without gap or overlap, so that no sample is lost or heard twice. The
cut falls into a pause near the limit; where there is none, into the quietest moment, which may be
inside a word. Finding speech as such is not done here; long quiet at a clip's edges is.
"""

from __future__ import annotations

import numpy as np

MAX_SECONDS = 30.0  # the encoder's positions end here, and Whisper's training did too
SEARCH_SECONDS = 10.0  # how far before the limit a pause is looked for
MIN_SECONDS = 1.0  # a shorter piece has too little context to be understood
WINDOW_SECONDS = 0.2  # a pause between phrases lasts about this long, a stop consonant does not
STEP_SECONDS = 0.01

UNSURE_SECONDS = 1.0
"""What is understood so shortly before a cut may change where what follows is cut off."""

QUIET_SECONDS = 1.5
"""Quiet at an edge beyond this is left out; recognisers are taught with little of it."""
KEPT_SECONDS = 0.5
"""How much of it stays."""
QUIET_FRAME_SECONDS = 0.02
QUIET_BELOW_LOUDEST_DB, QUIET_ABOVE_FLOOR_DB = 35.0, 10.0
FLOOR_SHARE = 0.2
"""The quietest part of a clip whose level is taken for that of its background."""


def earliest_cut_s(max_seconds: float = MAX_SECONDS) -> float:
    """Seconds of a clip that are in its first piece, wherever a longer one is cut."""
    return max_seconds - min(SEARCH_SECONDS, max_seconds / 2)


def earliest_cut(samples: np.ndarray, sample_rate: int, max_seconds: float = MAX_SECONDS) -> float:
    """Seconds of a clip whose words stand in its first piece, however it goes on.

    A cut falls to the quietest point: to that of these samples, or to a later one.
    """
    earliest = earliest_cut_s(max_seconds)
    searched = samples[round(earliest * sample_rate) : int(max_seconds * sample_rate)]
    if len(searched) < int(STEP_SECONDS * sample_rate):
        return earliest
    quietest = earliest + _quietest(searched, sample_rate) / sample_rate
    return max(earliest, quietest - UNSURE_SECONDS)


def split_at_quietest(
    samples: np.ndarray, sample_rate: int, max_seconds: float = MAX_SECONDS
) -> list[tuple[int, int]]:
    """Cut points of a clip, as ``(begin, end)`` sample indices of its pieces.

    Args:
        samples: mono clip ``(samples,)``.
        sample_rate: samples per second.
        max_seconds: longest piece; at least four times :data:`MIN_SECONDS`.

    Returns:
        Pieces in order; the first begins at 0, each begins where the one before ends, the last ends
        at the clip's end, and none is longer than ``max_seconds``. One piece if the clip is short
        enough, also when it is empty.
    """
    if max_seconds < 4 * MIN_SECONDS:
        raise ValueError(f"max_seconds must be at least {4 * MIN_SECONDS}, got {max_seconds}")
    longest, shortest = int(max_seconds * sample_rate), int(MIN_SECONDS * sample_rate)
    search = min(int(SEARCH_SECONDS * sample_rate), longest // 2)
    pieces, begin = [], 0
    while len(samples) - begin > longest:
        latest = min(begin + longest, len(samples) - shortest)
        earliest = begin + longest - search
        cut = earliest + _quietest(samples[earliest:latest], sample_rate)
        pieces.append((begin, cut))
        begin = cut
    return [*pieces, (begin, len(samples))]


def audible_part(samples: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """A clip without long quiet at its edges, as ``(begin, end)`` sample indices.

    Quiet is what lies both far below the loudest moment and near the clip's background, so that
    neither a click before soft speech nor steady noise makes speech count as quiet. A clip that is
    quiet throughout stays whole.
    """
    frame = int(QUIET_FRAME_SECONDS * sample_rate)
    count = len(samples) // frame
    if count * QUIET_FRAME_SECONDS <= QUIET_SECONDS:
        return 0, len(samples)
    whole = samples[: count * frame].astype(np.float64)
    energy = np.square(whole).reshape(count, frame).mean(axis=1)
    loudest = energy.max() * 10 ** (-QUIET_BELOW_LOUDEST_DB / 10)
    floor = np.quantile(energy, FLOOR_SHARE) * 10 ** (QUIET_ABOVE_FLOOR_DB / 10)
    heard = np.flatnonzero(energy > min(loudest, floor))
    if not len(heard):
        return 0, len(samples)
    first, last = int(heard[0]) * frame, (int(heard[-1]) + 1) * frame
    most, kept = int(QUIET_SECONDS * sample_rate), int(KEPT_SECONDS * sample_rate)
    begin = first - kept if first > most else 0
    end = last + kept if len(samples) - last > most else len(samples)
    return begin, end


def _quietest(samples: np.ndarray, sample_rate: int) -> int:
    """Index of the middle of the quietest window; the last of several."""
    step, steps = int(STEP_SECONDS * sample_rate), round(WINDOW_SECONDS / STEP_SECONDS)
    whole = samples[: len(samples) // step * step].astype(np.float64)
    energy = np.square(whole).reshape(-1, step).sum(axis=1)
    smoothed = np.convolve(energy, np.ones(min(steps, len(energy))), mode="valid")
    # Rounded, so that windows of digital silence tie exactly in spite of the summation's rounding.
    quietest = len(smoothed) - 1 - int(np.argmin(smoothed[::-1].round(12)))
    return quietest * step + min(steps, len(energy)) * step // 2
