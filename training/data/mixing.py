"""Several corpora as one: each capped or repeated to the number of samples wanted of it.

The choice is made once, from the seed, so an epoch holds the same clips every time; their order
and their augmentation change (`training.data.batching`, `training.data.collator`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinyvoice.errors import ConfigurationError
from training.data.augmentation import Clip
from training.data.corpora import Corpus


def choose_samples(size: int, target: int | None, random: np.random.Generator) -> NDArray[np.int64]:
    """Return ``target`` indices below ``size``: a random part, or every index again and again.

    Repeating is even: every index appears ``target // size`` times, a random part once more.
    ``None`` takes each once.
    """
    if target is None:
        return np.arange(size)
    if size == 0:
        return np.zeros(0, dtype=np.int64)
    whole, rest = divmod(target, size)
    part = np.sort(random.permutation(size)[:rest])
    return np.concatenate([*[np.arange(size)] * whole, part]).astype(np.int64)


class Mixture:
    """Corpora one behind the other, each with its target count, as one `ClipSource`.

    Args:
        corpora: what to mix.
        targets: for each corpus the number of samples wanted of it, or None for all.
        most: the largest number of samples in all, drawn at random; None for no limit.
        seed: makes the choice.

    Raises:
        ConfigurationError: a target below 1, or a corpus without clips that has a target.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        targets: Sequence[int | None],
        *,
        most: int | None = None,
        seed: int = 0,
    ) -> None:
        self.corpora = list(corpora)
        places = []
        for number, (corpus, target) in enumerate(zip(corpora, targets, strict=True)):
            _check(corpus, target)
            chosen = choose_samples(len(corpus), target, np.random.default_rng([seed, number]))
            places.append(np.stack([np.full_like(chosen, number), chosen], axis=1))
        self.places = np.concatenate(places) if places else np.zeros((0, 2), dtype=np.int64)
        """``(clips, 2)``: corpus and index within it."""
        if most is not None and most < len(self.places):
            kept = np.random.default_rng([seed, len(corpora)]).permutation(len(self.places))[:most]
            self.places = self.places[np.sort(kept)]
        self.durations: NDArray[np.float64] = np.zeros(len(self.places))
        """``(clips,)`` seconds."""
        for number, corpus in enumerate(self.corpora):
            own = self.places[:, 0] == number
            self.durations[own] = corpus.durations[self.places[own, 1]]

    def __len__(self) -> int:
        return len(self.places)

    def clip(self, index: int) -> Clip:
        """Read a clip; raises `AudioError` where that fails."""
        corpus, place = self.places[index]
        return self.corpora[corpus].clip(int(place))

    def counts(self) -> dict[str, int]:
        """Return how many samples each corpus has in the mixture."""
        return {
            corpus.name: int((self.places[:, 0] == number).sum())
            for number, corpus in enumerate(self.corpora)
        }


def _check(corpus: Corpus, target: int | None) -> None:
    """Refuse a target that cannot be met."""
    if target is None:
        return
    if target < 1:
        raise ConfigurationError(
            f"target_samples of the corpus {corpus.name} is {target}: give 1 or more, or null.",
            key="target_samples",
        )
    if len(corpus) == 0:
        raise ConfigurationError(
            f"The corpus {corpus.name} has no usable clip, but {target} are wanted of it: check "
            "its path, columns and limits.",
            key="target_samples",
        )
