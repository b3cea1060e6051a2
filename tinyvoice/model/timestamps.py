"""When each word was said, and how sure the model is of it.

With an aligner (a linear layer over the encoder's frames, trained beside the projector) a word's
time comes from a Viterbi alignment of the transcript's letters to the frame posteriors. Without
one, as in published checkpoints, it comes from where the language model attended while it wrote the
word (``attention_alignment.py``). Neither way changes the text, hears the audio again, or finds
words that the text does not have; words are what stands between spaces.

The aligner's classes are silence, then every letter of the alphabet at the beginning of a word,
then every letter inside a word: with an alphabet of ``n`` letters, class 0 is silence, ``1 + i``
letter ``i`` beginning a word, and ``1 + n + i`` letter ``i`` inside one.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tinyvoice.model.attention_alignment import align_tokens
from tinyvoice.model.transcript import Word
from tinyvoice.model.viterbi import LeftToRight

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tinyvoice.model.generation import GeneratedTokens
    from tinyvoice.model.modeling import ASRModel

ALPHABET = "abcdefghijklmnopqrstuvwxyz'"
SILENCE = 0
IGNORED_TARGET = -100  # frames of a word none of whose characters has a class

# Letters that an alignment may pass over in one step: a fast word has fewer frames than letters.
MAX_SKIP = 3
# Natural log-probability lost for each letter passed over.
SKIP_COST = 0.5
# No frame counts for less than this natural log-probability, however sure the aligner is.
LOG_FLOOR = -15.0


@torch.inference_mode()
def time_words(
    model: ASRModel,
    text: str,
    tokens: GeneratedTokens,
    hidden: Tensor,
    hop_seconds: float,
) -> tuple[Word, ...]:
    """The words of one clip's transcript with their times and confidences.

    Args:
        model: with an aligner or without, and with its tokenizer.
        text: the transcript, cleaned or not.
        tokens: what was decoded, with a log-probability for each token.
        hidden: the clip's encoder frames ``(frames, width)``, without padding.
        hop_seconds: seconds from one log-mel frame to the next.

    Returns:
        The words of ``text`` in order. Times are in seconds from the clip's beginning, never run
        backwards, and end where the encoder's frames do. A word's confidence is the geometric mean
        of its tokens' probabilities.
    """
    words = text.split()
    if not words or len(hidden) == 0:
        return ()
    strides = [stride for _, _, stride in model.config.encoder_conv_layers or ()]
    frame_seconds = hop_seconds * math.prod(strides)
    ranges = token_ranges(model.tokenizer, tokens.ids, words)
    if model.aligner is not None:
        alphabet = model.config.aligner_alphabet or ALPHABET
        logits = model.aligner(hidden.to(model.aligner.weight.dtype)).float()
        posteriors = logits.log_softmax(dim=-1).cpu().numpy()
        spans = [
            (first * frame_seconds, end * frame_seconds)
            for first, end in align_words(posteriors, words, alphabet)
        ]
    else:
        spans = align_tokens(model, hidden, tokens.ids, ranges, frame_seconds)
    return tuple(
        Word(word, start, end, confidence(tokens.logprobs[first:last] or tokens.logprobs))
        for word, (start, end), (first, last) in zip(words, spans, ranges, strict=True)
    )


def confidence(logprobs: Sequence[float]) -> float:
    """Geometric mean of probabilities given by their natural logarithms; 1 for none."""
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else 1.0


def token_ranges(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], words: Sequence[str]
) -> list[tuple[int, int]]:
    """Which tokens wrote each word, as ``(first, end)``, ``end`` exclusive.

    Words are looked for in order in what the tokens spell, so that text cut away in between or at
    the end does no harm. A word that is not there has the empty range after the word before it.
    """
    # Prefixes, because a token on its own may be half a character.
    spelt = ""
    ends = []
    for count in range(1, len(ids) + 1):
        spelt = str(tokenizer.decode(list(ids[:count]), skip_special_tokens=True))
        ends.append(len(spelt))
    ranges: list[tuple[int, int]] = []
    cursor = 0
    for word in words:
        found = spelt.find(word, cursor)
        if found >= 0:
            cursor = found + len(word)
            first = int(np.searchsorted(ends, found, side="right"))
            ranges.append((first, int(np.searchsorted(ends, cursor, side="left")) + 1))
        else:
            last = ranges[-1][1] if ranges else 0
            ranges.append((last, last))
    return ranges


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


def align_words(
    log_posteriors: np.ndarray, words: Sequence[str], alphabet: str = ALPHABET
) -> list[tuple[int, int]]:
    """The frames of each word, by the most probable path through the aligner's classes.

    The path is silence, where there is any, and the words in order; inside a word the letters come
    in order, each may last, and some may be passed over. A word without a letter of the alphabet
    may sound like any letters.

    Args:
        log_posteriors: ``(frames, classes)``, natural log-probabilities.
        words: the transcript's words.
        alphabet: the aligner's letters.

    Returns:
        ``(first, end)`` frames of each word, ``end`` exclusive, in order and without overlap. Every
        word has a frame, unless there are more words than frames: those are spread evenly.
    """
    frames = len(log_posteriors)
    if not words:
        return []
    if frames < len(words):
        return list(pairwise(index * frames // len(words) for index in range(len(words) + 1)))
    scores = np.maximum(log_posteriors, LOG_FLOOR)
    # One class more, for words without letters: any letter at all.
    anything = np.logaddexp.reduce(scores[:, 1:], axis=1, keepdims=True)
    scores = np.concatenate([scores, anything], axis=1)
    letters = [word_classes(word, alphabet) or [scores.shape[1] - 1] for word in words]
    path = word_model(letters, MAX_SKIP).best_path(scores)
    if path is None:  # too fast for that: a word may then be over after any of its letters
        path = word_model(letters, max(map(len, letters))).best_path(scores)
    assert path is not None, "with one frame a word there is always a path"
    firsts = np.cumsum([1, *(len(classes) + 1 for classes in letters[:-1])])
    ends = firsts + [len(classes) for classes in letters]
    edges_of = zip(np.searchsorted(path, firsts), np.searchsorted(path, ends), strict=True)
    return [(int(first), int(end)) for first, end in edges_of]


def word_classes(word: str, alphabet: str = ALPHABET) -> list[int]:
    """The aligner's classes of a word's letters in order."""
    indices = word_letters(word, alphabet)
    return [1 + index + (len(alphabet) if place else 0) for place, index in enumerate(indices)]


def word_model(letters: Sequence[Sequence[int]], max_skip: int) -> LeftToRight:
    """Silence and words in turn: state 0 is silence, then a word's letters, silence, and so on.

    ``letters`` holds the classes of each word, ``max_skip`` how many may be passed over at once.
    """
    classes, place, left = [SILENCE], [-1], [0]  # left: letters behind this one in its word
    for word in letters:
        classes += [*word, SILENCE]
        place += [*range(len(word)), -1]
        left += [*reversed(range(len(word))), 0]
    states = len(classes)
    costs = np.full((max_skip + 3, states), np.inf, dtype=np.float32)
    costs[0] = 0.0
    for state in range(1, states):
        here = place[state]
        if here > 0:  # from an earlier letter of the word
            for step in range(1, min(here, max_skip + 1) + 1):
                costs[step, state] = (step - 1) * SKIP_COST
            continue
        # To silence from the word before it, or to a word's beginning from that silence or from the
        # word before that; a word may be left before its last letter.
        back = state - 1
        if here == 0:
            costs[1, state] = 0.0
            back -= 1
        while back >= 0 and place[back] >= 0 and state - back < len(costs):
            costs[state - back, state] = left[back] * SKIP_COST
            back -= 1
    start = np.full(states, np.inf, dtype=np.float32)
    start[:2] = 0.0
    end = np.full(states, np.inf, dtype=np.float32)
    end[-1] = 0.0
    for state in range(states - 2, max(states - 3 - max_skip, 0), -1):
        if place[state] < 0:
            break
        end[state] = left[state] * SKIP_COST
    return LeftToRight(np.asarray(classes), costs, start, end)
