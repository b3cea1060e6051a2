"""Checks of single settings, for dataclasses that refuse what is out of range.

Where settings come from and what they mean is not known here.
"""

from __future__ import annotations

import math
from typing import Any

from tinyvoice.errors import ConfigurationError


def in_range(name: str, value: Any, lowest: float, highest: float) -> None:
    """Raise `ConfigurationError` unless the value is a number between the bounds."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not lowest <= value <= highest:
        raise ConfigurationError(
            f"{name} is {value!r}; give a number from {lowest:g} to {highest:g}.", key=name
        )


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise `ConfigurationError` unless the value is one of the choices."""
    if value not in choices:
        raise ConfigurationError(
            f"{name} is {value!r}; choose from {', '.join(choices)}.", key=name
        )
