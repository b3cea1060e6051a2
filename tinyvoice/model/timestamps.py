"""When each word was said.

With an aligner (a linear layer over the encoder's frames, trained beside the projector) a word's
time comes from a Viterbi alignment of the transcript's letters to the frame posteriors.

The aligner's classes are silence, then every letter of the alphabet at the beginning of a word,
then every letter inside a word: with an alphabet of ``n`` letters, class 0 is silence, ``1 + i``
letter ``i`` beginning a word, and ``1 + n + i`` letter ``i`` inside one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

ALPHABET = "abcdefghijklmnopqrstuvwxyz'"
SILENCE = 0
IGNORED_TARGET = -100  # frames of a word none of whose characters has a class


def word_letters(text: str, alphabet: str = ALPHABET) -> list[int]:
    """Indices in ``alphabet`` of a word's letters.

    Case and accents are dropped, a typographic apostrophe counts as the plain one, and characters
    that the alphabet lacks (digits, punctuation, other scripts) are skipped.
    """
    plain = unicodedata.normalize("NFKD", text.replace("\u2019", "'")).lower()
    return [index for index in map(alphabet.find, plain) if index >= 0]


def frame_letter_targets(
    words: Sequence[tuple[str, float, float]],
    n_frames: int,
    frame_seconds: float,
    alphabet: str = ALPHABET,
) -> np.ndarray:
    """The class of every encoder frame, for training the aligner.

    A word covers the frames between its start and its end, both rounded to the nearest frame edge,
    and one frame at least. Its letters are spread evenly: frame ``f`` of ``F`` belongs to letter
    ``floor(f * L / F)`` of ``L``. Where words overlap, the later one begins when the earlier ends.

    Args:
        words: ``(text, start, end)`` in seconds, in the order spoken.
        n_frames: length of the encoder's output.
        frame_seconds: seconds per encoder frame.
        alphabet: letters with a class of their own.

    Returns:
        int64 array ``(n_frames,)`` of classes, see the module's docstring; :data:`IGNORED_TARGET`
        where a word has no letter of the alphabet.
    """
    targets = np.full(n_frames, SILENCE, dtype=np.int64)
    earliest = 0
    for text, start, end in words:
        first = max(earliest, round(start / frame_seconds))
        last = min(n_frames, max(first + 1, round(end / frame_seconds)))
        if first >= last:
            continue
        earliest = last
        letters = word_letters(text, alphabet)
        if not letters:
            targets[first:last] = IGNORED_TARGET
            continue
        position = np.arange(last - first) * len(letters) // (last - first)
        inside = np.where(position > 0, len(alphabet), 0)
        targets[first:last] = 1 + inside + np.asarray(letters)[position]
    return targets
