"""Slots: memory that is there, doubles, is reused, and never passes from one stream to the next."""

from __future__ import annotations

import pytest
import torch

from tinyvoice.engine.slots import NoFreeSlotError, SlotCache


def cache(max_slots: int = 5, positions: int = 6) -> SlotCache:
    return SlotCache(2, 1, 4, positions=positions, max_slots=max_slots)


def test_slots_double_up_to_the_bound_and_are_reused() -> None:
    slots = cache()
    opened, sizes = [], []
    for _ in range(5):
        opened.append(slots.open())
        sizes.append(slots.slots)
    assert sizes == [1, 2, 4, 4, 5]
    assert sorted(slot.index for slot in opened) == [0, 1, 2, 3, 4]
    with pytest.raises(NoFreeSlotError, match="all 5 decoder slots"):
        slots.open()
    slots.close(opened[2])
    slots.close(opened[2])
    assert slots.in_use == 4
    assert slots.open().index == opened[2].index


def test_allocated_slots_are_there_from_the_beginning() -> None:
    slots = SlotCache(2, 1, 4, positions=6, max_slots=5, allocated=3)
    keys = slots.keys
    assert [slots.open().index for _ in range(3)] == [0, 1, 2]
    assert slots.keys is keys
    assert slots.slots == 3
    slots.open()
    assert slots.slots == 5
    assert SlotCache(2, 1, 4, positions=6, max_slots=5, allocated=9).slots == 5
    assert SlotCache(2, 1, 4, positions=6, max_slots=5, allocated=0).slots == 1


def test_growing_keeps_what_is_stored() -> None:
    slots = cache()
    first = slots.open()
    key = torch.rand(1, 1, 3, 4)
    slots.rows([first], [0], 3).update(key, -key, 1)
    slots.open()
    assert torch.equal(slots.keys[1, first.index, :, :3], key[0])
    assert torch.equal(slots.values[1, first.index, :, :3], -key[0])
    assert slots.keys[0].abs().sum() == 0


def test_a_batch_writes_each_row_at_its_own_place() -> None:
    slots = cache()
    one, two = slots.open(), slots.open()
    key = torch.rand(2, 1, 2, 4)
    rows = slots.rows([two, one], [3, 1], 2)
    keys, values = rows.update(key, key + 1, 0)
    assert rows.positions.tolist() == [[3, 4], [1, 2]]
    assert torch.equal(keys[0, 0, 3:5], key[0, 0])
    assert torch.equal(keys[1, 0, 1:3], key[1, 0])
    assert torch.equal(values[1, 0, 1:3], key[1, 0] + 1)
    assert rows.mask is not None
    seen = (rows.mask[:, 0] == 0).int().tolist()
    assert seen == [
        [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]],
    ]


def test_padding_behind_the_last_position_touches_nothing() -> None:
    slots = cache(positions=4)
    one, two = slots.open(), slots.open()
    slots.rows([one, two], [3, 0], 4).update(torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4), 0)
    assert slots.keys[0, one.index, 0, :, 0].tolist() == [0, 0, 0, 1, 1]
    # The last place is spare: no token sees it.
    assert slots.rows([one, two], [3, 3], 1).mask is not None
    assert bool((slots.masks[:4, 4] == -torch.inf).all())


def test_a_single_token_of_a_single_row_needs_no_mask() -> None:
    slots = cache()
    slot = slots.open()
    assert slots.rows([slot], [2], 1).mask is None
    assert slots.rows([slot], [2], 1).positions.tolist() == [[2]]


def test_nothing_of_a_closed_slot_is_left() -> None:
    slots = cache()
    slot = slots.open()
    broken = torch.full((1, 1, 4, 4), torch.nan)
    slots.rows([slot], [1], 4).update(broken, broken, 0)
    slots.close(slot)
    assert torch.equal(slots.keys, torch.zeros_like(slots.keys))
    assert torch.equal(slots.values, torch.zeros_like(slots.values))
    assert (slot.length, slot.is_open) == (0, False)
