"""The learning rate as a function of progress: linear warm-up, then a decay.

A pure function of the step, so that a resumed run needs no state of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

LONGEST_WARMUP = 0.2
"""Part of a run that warm-up may take, so that a short run does not end before it has begun."""


@dataclass(frozen=True)
class ScheduleSettings:
    """Shape of the schedule; rates are factors of each group's peak."""

    kind: Literal["cosine", "polynomial", "linear", "constant"] = "cosine"
    warmup_steps: int = 500
    final_factor: float = 0.0
    """What is left of the peak at the end."""
    power: float = 2.0
    """Exponent of the polynomial decay."""

    def for_run_of(self, steps: int | None) -> Self:
        """Return the schedule with its warm-up no longer than a run of ``steps`` bears."""
        if steps is None:
            return self
        return replace(self, warmup_steps=min(self.warmup_steps, math.ceil(LONGEST_WARMUP * steps)))

    def factor(self, step: int, progress: float) -> float:
        """Return the factor of a step; ``progress`` is the finished part of the run, 0 to 1."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        left = 1.0 - min(max(progress, 0.0), 1.0)
        if self.kind == "cosine":
            left = 0.5 * (1.0 - math.cos(math.pi * left))
        elif self.kind == "polynomial":
            left = left**self.power
        return self.final_factor + (1.0 - self.final_factor) * left
