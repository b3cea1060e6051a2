"""Iterating over what backends stream, and letting go of it for certain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def closing(iterator: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close ``iterator`` at the end of the block, if it can be closed.

    Leaving an ``async for`` does not close a generator: what it holds would stay until it is
    collected.
    """
    try:
        yield iterator
    finally:
        close: Any = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
