"""Which sample rates are taken to be meant."""

from __future__ import annotations

from tinyvoice.errors import AudioError

LOWEST_RATE = 1_000
HIGHEST_RATE = 1_000_000
"""Rates in Hz outside of which a header is taken to be wrong."""


def check_rate(rate: float) -> int:
    """Return ``rate`` as an integer number of Hz.

    Raises:
        AudioError: it is not a whole number between 1 kHz and 1 MHz.
    """
    if rate != rate or int(rate) != rate or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"A sample rate of {rate} Hz cannot be used: give a whole number between "
            f"{LOWEST_RATE} and {HIGHEST_RATE}."
        )
    return int(rate)
