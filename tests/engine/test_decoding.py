"""Rolling decoding against offline decoding of the same embeddings."""

from __future__ import annotations

import functools
import random
from importlib.resources import files

import pytest
import torch
from torch import Tensor

from tests.miniature import random_model
from tinyvoice import ASRModel
from tinyvoice.audio.files import load_audio
from tinyvoice.engine.decoding import (
    PARTIAL_TOKENS,
    PARTIAL_TOKENS_PER_EMBEDDING,
    Decoded,
    DecodeJob,
    FinalJob,
    RollingDecoder,
)


@functools.cache
def embedded() -> ASRModel:
    return ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")


@functools.cache
def speech() -> Tensor:
    """Audio embeddings (n, M) of the bundled recording's first 20 seconds."""
    model = embedded()
    clip = load_audio(str(files("tinyvoice.cli") / "demo.flac")).samples[: 16000 * 20]
    with torch.inference_mode():
        features, mask = model.need_processor().features([clip])
        embeds, counts = model.project(*model.encode(features, mask))
    return embeds[0, : int(counts[0])]


def offline(model: ASRModel, embeds: Tensor, most: int | None = None) -> Decoded:
    out = model.decode(embeds[None], torch.tensor([embeds.shape[0]]), most)[0]
    return Decoded(out.ids, out.logprobs)


def same(mine: Decoded, other: Decoded) -> None:
    assert mine.ids == other.ids
    assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def drafts(ids: list[int]) -> dict[str, list[int]]:
    middle = len(ids) // 2
    return {
        "none": [],
        "right": ids,
        "short": ids[:middle],
        "wrong": [5] * len(ids),
        "replaced": [*ids[:middle], 7, *ids[middle + 1 :]],
        "dropped": ids[:middle] + ids[middle + 2 :],
        "added": [*ids[:middle], 7, 8, *ids[middle:]],
        "stopped": [*ids, 2, 5, 6],
        "long": [*ids, *ids],
    }


KINDS = tuple(drafts([]))


@pytest.mark.parametrize("kind", KINDS)
def test_finals_are_offline_transcripts_whatever_the_draft(kind: str) -> None:
    decoder = RollingDecoder(embedded())
    for length in (30, 90):
        embeds = speech()[:length]
        expected = offline(embedded(), embeds)
        [out] = decoder.decode_finals([FinalJob(embeds, drafts(expected.ids)[kind])])
        same(out, expected)
        assert len(out.margins) == len(out.ids) + 1
        assert out.stop_logprob is not None
        if kind in ("right", "long", "stopped"):
            assert (out.accepted, out.steps) == (len(out.ids), 0)
        if kind == "replaced":
            assert (out.accepted, out.steps) == (len(out.ids) - 1, 1)


@pytest.mark.parametrize("projector", ["mlp", "mosa", "qformer"])
def test_batches_of_mixed_lengths_are_what_each_is_alone(projector: str) -> None:
    model = random_model(projector)
    decoder = RollingDecoder(model)
    embeds = [torch.randn(n, 48, generator=torch.Generator().manual_seed(n)) for n in (3, 40, 0, 9)]
    expected = [offline(model, part) for part in embeds]
    known = [expected[0].ids, expected[1].ids[:3], [5], [7, 8, 9]]
    together = decoder.decode_finals(
        [FinalJob(part, draft) for part, draft in zip(embeds, known, strict=True)]
    )
    for mine, other in zip(together, expected, strict=True):
        same(mine, other)
    assert decoder.workspace.in_use == 0


def test_updates_are_what_decoding_the_whole_audio_gives() -> None:
    """Four streams of one batch, cut at random places, their hypotheses as drafts."""
    choice = random.Random(5)
    model, decoder = embedded(), RollingDecoder(embedded())
    slots = [decoder.open() for _ in range(4)]
    audio = [speech()[10 * at : 80 + 15 * at] for at in range(4)]
    frozen, hypotheses = [0] * 4, [[] for _ in range(4)]
    accepted = 0
    for _ in range(8):
        active = sorted(choice.sample(range(4), choice.randint(1, 4)))
        jobs, wholes = [], []
        for at in active:
            more, tail = choice.randint(0, 14), choice.randint(0, 6)
            new, frozen[at] = audio[at][frozen[at] : frozen[at] + more], frozen[at] + more
            rest = audio[at][frozen[at] : frozen[at] + tail]
            jobs.append(DecodeJob(slots[at], new, rest, hypotheses[at]))
            wholes.append(audio[at][: frozen[at] + tail])
        for at, out, whole in zip(active, decoder.update(jobs), wholes, strict=True):
            bound = PARTIAL_TOKENS + PARTIAL_TOKENS_PER_EMBEDDING * whole.shape[0]
            same(out, offline(model, whole, bound))
            hypotheses[at] = out.ids
            accepted += out.accepted
            assert decoder.frozen(slots[at]) == min(frozen[at], audio[at].shape[0])
    assert accepted > 20


def test_a_reset_slot_knows_nothing_of_the_last_utterance() -> None:
    decoder = RollingDecoder(embedded())
    slot = decoder.open()
    decoder.update([DecodeJob(slot, speech()[:50], speech()[50:60])])
    decoder.reset(slot)
    [out] = decoder.update([DecodeJob(slot, speech()[20:20], speech()[60:90])])
    same(out, offline(embedded(), speech()[60:90]))
    decoder.reset(slot)
    nothing = speech()[:0]
    assert decoder.update([DecodeJob(slot, nothing, nothing, [5])]) == [Decoded()]
    assert decoder.update([]) == decoder.decode_finals([]) == []
