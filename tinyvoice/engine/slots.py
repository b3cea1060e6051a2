"""Keys and values of many streams, one slot a stream.

A :class:`SlotCache` holds one tensor of keys and one of values, (layers, slots, kv heads,
positions, head_dim). A slot's tokens lie at positions 0, 1, 2, …, so a token's place in the cache
is its rotary position and what it may see is everything at or before its own place: rows of a batch
need no padding in front, and cropping or resetting a slot is setting its length. Shapes depend on
the batch only, as graph capture wants it.

It knows nothing of prompts, audio or tokens, and does not decide who gets a slot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinyvoice.errors import TinyvoiceError


class NoFreeSlotError(TinyvoiceError):
    """Every slot that the cache may have is in use."""


@dataclass(eq=False)
class Slot:
    """One stream's row of the cache."""

    index: int
    length: int = 0
    """Positions that hold something to keep; what lies behind is overwritten."""
    written: int = 0
    """Positions that may hold anything but zeros."""
    is_open: bool = True


class SlotCache:
    """Keys and values of up to ``max_slots`` streams of up to ``positions`` tokens each.

    ``positions`` bounds a row's tokens. There is memory for ``allocated`` slots from the beginning;
    when they are all in use it doubles, which copies what there is and holds both for that time.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        *,
        positions: int,
        max_slots: int,
        allocated: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.positions = positions
        self.max_slots = max_slots
        # One position more than may be used: where the padding of a batch's shorter rows goes.
        slots = max(1, min(allocated, max_slots))
        shape = (layers, slots, kv_heads, positions + 1, head_dim)
        self.keys = untouched_zeros(shape, torch.device(device), dtype)
        self.values = untouched_zeros(shape, torch.device(device), dtype)
        self.places = torch.arange(positions + 1, device=device)
        blocked = torch.full((positions + 1, positions + 1), float("-inf"), device=device)
        # Row p: what the token at position p adds to its attention scores.
        self.masks = blocked.triu(1).to(dtype)
        self._free = [Slot(at, is_open=False) for at in reversed(range(slots))]

    @property
    def slots(self) -> int:
        """Slots that there is memory for now."""
        return self.keys.shape[1]

    @property
    def in_use(self) -> int:
        """Slots that are open."""
        return self.slots - len(self._free)

    def open(self) -> Slot:
        """A slot of its own, of length 0; raises :class:`NoFreeSlotError`."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        slot.length, slot.is_open = 0, True
        return slot

    def close(self, slot: Slot) -> None:
        """Give a slot back; closing twice does nothing."""
        if not slot.is_open:
            return
        # What one stream leaves must not reach the next.
        slot.length, slot.is_open = 0, False
        self.wipe(slot)
        self._free.append(slot)

    def wipe(self, slot: Slot) -> None:
        """Zero what lies behind the slot's length.

        Masked attention multiplies by it, and zero times not-a-number is not a number.
        """
        self.keys[:, slot.index, :, slot.length : slot.written].zero_()
        self.values[:, slot.index, :, slot.length : slot.written].zero_()
        slot.written = slot.length

    def rows(self, slots: Sequence[Slot], starts: Sequence[int], tokens: int) -> SlotRows:
        """The slots as a batch whose rows write ``tokens`` tokens from each one's ``starts``."""
        for slot, start in zip(slots, starts, strict=True):
            slot.written = max(slot.written, min(start + tokens, self.positions + 1))
        return SlotRows(self, slots, starts, tokens)

    def _grow(self) -> None:
        more = min(self.slots, self.max_slots - self.slots)
        if more <= 0:
            raise NoFreeSlotError(
                f"all {self.max_slots} decoder slots are in use; close a stream first or allow "
                "more of them"
            )
        first = self.slots
        self.keys, self.values = (
            torch.cat([old, torch.zeros_like(old[:, :more])], dim=1)
            for old in (self.keys, self.values)
        )
        self._free = [Slot(at, is_open=False) for at in reversed(range(first, first + more))]


def untouched_zeros(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros, which on a CPU take memory only where they are written to: `torch.zeros` writes."""
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    content = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(content).view(dtype).view(shape)


class SlotRows:
    """A batch over some slots for one pass of the decoder; a key-value store for it.

    ``positions`` is (batch, tokens); ``mask`` (batch, 1, tokens, keys) is added to attention
    scores, None where every token sees all keys.
    """

    def __init__(
        self, cache: SlotCache, slots: Sequence[Slot], starts: Sequence[int], tokens: int
    ) -> None:
        self.cache = cache
        self.end = min(max(starts) + tokens, cache.positions + 1)
        self.single = len(slots) == 1
        if self.single:
            row, start = slots[0].index, starts[0]
            self.positions = cache.places[None, start : start + tokens]
            mask = cache.masks[None, None, start : self.end, : self.end]
            self.mask: Tensor | None = None if tokens == 1 else mask
            self._keys = cache.keys[:, row : row + 1, :, : self.end].unbind()
            self._values = cache.values[:, row : row + 1, :, : self.end].unbind()
            self._start = start
            return
        device = cache.keys.device
        begins = torch.tensor(starts, device=device)
        places = begins[:, None] + cache.places[:tokens]
        # Padding of short rows ends in the spare position, which no token looks at.
        self.positions = places.clamp_max(cache.positions)
        self.mask = cache.masks[:, : self.end][self.positions][:, None]
        self._rows = torch.tensor([slot.index for slot in slots], device=device)

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values; what the rows hold up to the longest one's end."""
        if self.single:
            keys, values = self._keys[layer], self._values[layer]
            keys[:, :, self._start :] = key
            values[:, :, self._start :] = value
            return keys, values
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        rows, places = self._rows[:, None], self.positions
        keys[rows, :, places] = key.transpose(1, 2)
        values[rows, :, places] = value.transpose(1, 2)
        keys, values = keys[:, :, : self.end], values[:, :, : self.end]
        return keys.index_select(0, self._rows), values.index_select(0, self._rows)
