"""Identifiers of events, items, responses and the rest, in the protocol's form."""

from __future__ import annotations

import secrets
import string

ALPHABET = string.ascii_letters + string.digits
LENGTH = 21
"""Characters after the prefix, as the original has them; 125 bits of chance."""


def random_identifier(prefix: str) -> str:
    """``prefix_`` and chance: ``item_3kTz…``."""
    return f"{prefix}_" + "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
