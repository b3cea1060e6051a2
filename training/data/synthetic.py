"""Synthetic speech as a corpus: sentences of the grammar, spoken on this machine, cached.

Needs no network and no other file. Sentences of the training and the evaluation part are
different ones; evaluation uses the same voices, or those given for it. The speech itself is
`training.synthesis`'s work, and a corpus that is already there is not made again.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tinyvoice.errors import ConfigurationError
from training.settings import parse_settings
from training.synthesis import flite
from training.synthesis.corpus import CorpusSettings as SpeechSettings
from training.synthesis.corpus import make_corpus, plan
from training.synthesis.grammar import sentences
from training.synthesis.voices import FLITE_VOICES, HELD_OUT_VOICES, TRAINING_VOICES

DEFAULT_FOLDER = "~/.cache/tinyvoice/synthesis"

SMALLEST_CORPUS = 1000
"""Sentences that are spoken for the shortest run; longer ones have this, doubled until it suffices,
so that a run whose end is moved a little still finds the same data."""

_SHARDS, _SMALLEST_SHARD, _LARGEST_SHARD = 16, 10, 400
"""A corpus is made in about so many shards, of so many utterances each: small enough that all
processes have some of a small corpus, and the same on every machine, so that what one has made
another finds."""

_EVAL_SEED_OFFSET = 1_000_003
"""Keeps the evaluation sentences' generator apart from the training sentences'."""


@dataclass(frozen=True)
class SyntheticSettings:
    """What is spoken, by whom, and where it is kept."""

    train_sentences: int = 20_000
    eval_sentences: int = 200
    voices: tuple[str, ...] = ()
    """All training voices of this machine if empty."""
    eval_voices: tuple[str, ...] = ()
    """The training voices if empty; ``held_out`` for those that are kept out."""
    texts: str | None = None
    """A text file, one sentence a line, in place of the grammar's training sentences."""
    folder: str = DEFAULT_FOLDER
    seed: int = 0
    workers: int | None = None
    """Processes that speak; one a core if null."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> SyntheticSettings:
        """Take settings from a configuration.

        Raises:
            ConfigurationError: an unknown key, or a value of the wrong kind.
        """
        settings = dict(values)
        for key in ("voices", "eval_voices"):
            settings[key] = _voices(settings.get(key))
        return parse_settings(cls, settings, "synthesis")


def make_synthetic_manifest(
    settings: SyntheticSettings,
    split: Literal["train", "eval"],
    most: int | None = None,
    needed: int | None = None,
) -> Path | None:
    """Speak a split unless that has been done, and return its manifest; None if it is empty.

    ``most`` bounds the number of sentences, for quick checks. ``needed`` is how many a run can use:
    no more than `enough_sentences` for them are spoken.
    """
    count = settings.train_sentences if split == "train" else settings.eval_sentences
    count = count if most is None else min(count, most)
    if needed is not None and enough_sentences(needed) < count:
        whole, count = count, enough_sentences(needed)
        print(
            f"synthesis: {count} of {whole} sentences are spoken, as the run uses at most {needed}",
            file=sys.stderr,
        )
    if count < 1:
        return None
    texts = _sentences(settings, split, count)
    voices = settings.voices or available_voices()
    if split == "eval" and settings.eval_voices:
        voices = settings.eval_voices
    seed = settings.seed + (_EVAL_SEED_OFFSET if split == "eval" else 0)
    size = max(_SMALLEST_SHARD, min(_LARGEST_SHARD, count // _SHARDS))
    speech = SpeechSettings(seed=seed, utterances_per_shard=size)
    lines = plan(texts, voices, speech)
    digest = hashlib.sha256(repr(lines).encode()).hexdigest()[:8]
    folder = Path(settings.folder).expanduser() / f"{split}-{count}-{digest}"
    workers = settings.workers or os.cpu_count() or 1
    return make_corpus(lines, folder, settings=speech, workers=workers)


def enough_sentences(needed: int) -> int:
    """Return how many sentences are spoken for a run that uses ``needed`` of them."""
    count = SMALLEST_CORPUS
    while count < needed:
        count *= 2
    return count


def available_voices() -> tuple[str, ...]:
    """Return the training voices this machine can speak: Flite's only where it is installed."""
    if flite.available():
        return TRAINING_VOICES
    return tuple(voice for voice in TRAINING_VOICES if voice not in FLITE_VOICES)


def _sentences(settings: SyntheticSettings, split: str, count: int) -> list[str]:
    """Return the sentences of a split; none of evaluation's is among training's."""
    evaluation = list(sentences(max(settings.eval_sentences, 1), settings.seed + _EVAL_SEED_OFFSET))
    if split == "eval":
        return evaluation[:count]
    if settings.texts is not None:
        try:
            lines = Path(settings.texts).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"synthesis.texts names {settings.texts}, which cannot be read as text ({error}).",
                key="synthesis.texts",
            ) from error
        return [line for line in lines if line.strip()][:count]
    kept_out = set(evaluation)
    fresh = (text for text in sentences(2 * count, settings.seed) if text not in kept_out)
    return list(islice(fresh, count))


def _voices(value: Any) -> tuple[str, ...]:
    """Return a list of voices, or the ones a name stands for."""
    if not value:
        return ()
    if value == "held_out":
        return HELD_OUT_VOICES
    if isinstance(value, str):
        return (value,)
    return tuple(value)
