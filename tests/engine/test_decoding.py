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
    PARTIAL_STEPS,
    PARTIAL_TOKENS,
    PARTIAL_TOKENS_PER_EMBEDDING,
    Decoded,
    DecodeJob,
    FinalJob,
    RepeatingDecoder,
    RollingDecoder,
    UtteranceTooLongError,
    build_decoder,
    group_by_length,
)
from tinyvoice.engine.slots import NoFreeSlotError
from tinyvoice.errors import ConfigurationError


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
            # Once more for the token that was wrong, and a few tokens at a time after it.
            assert 1 <= out.steps <= 4
            assert out.accepted == len(out.ids) - out.steps


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
    few = RollingDecoder(model, max_slots=3)
    for mine, other in zip(few.decode_finals([FinalJob(e) for e in embeds]), expected, strict=True):
        same(mine, other)


def test_updates_are_what_decoding_the_whole_audio_gives() -> None:
    """Four streams of one batch, cut at random places, their hypotheses as drafts."""
    choice = random.Random(5)
    model, decoder = embedded(), RollingDecoder(embedded())
    slots = [decoder.open() for _ in range(4)]
    audio = [speech()[10 * at : 80 + 15 * at] for at in range(4)]
    frozen = [0] * 4
    hypotheses: list[list[int]] = [[] for _ in range(4)]
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


def test_margins_are_distances_to_the_second_best() -> None:
    model, decoder = embedded(), RollingDecoder(embedded())
    embeds = speech()[:30]
    [out] = decoder.decode_finals([FinalJob(embeds)])
    prompt, _ = model.embed_prompts(embeds[None], torch.tensor([30]))
    ids = torch.tensor([out.ids])
    with torch.inference_mode():
        whole = torch.cat([prompt, model.get_input_embeddings()(ids)], dim=1)
        logits = model.language_model(inputs_embeds=whole).logits[0, prompt.shape[1] - 1 :]
        scores, tokens = logits.log_softmax(-1).topk(2)
    assert tokens[:-1, 0].tolist() == out.ids
    assert out.margins == pytest.approx((scores[:, 0] - scores[:, 1]).tolist(), abs=1e-4)
    assert out.stop_logprob == pytest.approx(float(scores[-1, 0]), abs=1e-4)


def test_partials_are_bounded_by_their_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyvoice.engine.decoding.PARTIAL_STEPS", 100)
    decoder = RollingDecoder(embedded())
    slot = decoder.open()
    # Without a stop token every decoding runs into its bound.
    decoder.stops = frozenset()
    whole = offline(embedded(), speech()[:40])
    [out] = decoder.update([DecodeJob(slot, speech()[:2], speech()[2:3], whole.ids)])
    assert len(out.ids) == len(out.margins) == PARTIAL_TOKENS + 3 * PARTIAL_TOKENS_PER_EMBEDDING
    assert out.stop_logprob is None
    [out] = decoder.update([DecodeJob(slot, speech()[2:3], speech()[3:3], out.ids, 4)])
    assert len(out.ids) == 4
    [out] = decoder.update([DecodeJob(slot, speech()[3:4], speech()[4:4], out.ids, 1)])
    assert len(out.ids) == 1


def test_an_update_takes_so_many_passes_and_the_next_one_goes_on() -> None:
    decoder = RollingDecoder(embedded())
    slot = decoder.open()
    expected = offline(embedded(), speech()[:90])
    assert len(expected.ids) > PARTIAL_STEPS + 1
    [out] = decoder.update([DecodeJob(slot, speech()[:90], speech()[:0])])
    assert out.steps == PARTIAL_STEPS
    assert out.ids == expected.ids[: PARTIAL_STEPS + 1]
    assert len(out.margins) == len(out.ids)  # no stop token yet
    while len(out.margins) == len(out.ids):
        before = len(out.ids)
        [out] = decoder.update([DecodeJob(slot, speech()[:0], speech()[:0], out.ids)])
        assert len(out.ids) > before
    same(out, expected)


def test_finals_are_bounded_as_offline() -> None:
    decoder = RollingDecoder(embedded())
    for most in (1, 5):
        expected = offline(embedded(), speech()[:60], most)
        for draft in ([], [*expected.ids, 9]):
            [out] = decoder.decode_finals([FinalJob(speech()[:60], draft, most)])
            same(out, expected)
            assert len(out.ids) == most


def test_too_much_audio_is_refused_before_anything_is_run() -> None:
    decoder = RollingDecoder(embedded(), max_positions=320)
    slots = [decoder.open(), decoder.open()]
    long = torch.zeros(decoder.max_audio + 1, 256)
    with pytest.raises(UtteranceTooLongError, match="split it"):
        decoder.update(
            [DecodeJob(slots[0], speech()[:9], speech()[:0]), DecodeJob(slots[1], long, long[:0])]
        )
    assert [decoder.frozen(slot) for slot in slots] == [0, 0]
    with pytest.raises(UtteranceTooLongError):
        decoder.decode_finals([FinalJob(long)])
    assert decoder.workspace.in_use == 0
    [fits] = decoder.decode_finals([FinalJob(speech()[: decoder.max_audio])])
    same(fits, offline(embedded(), speech()[: decoder.max_audio]))


def test_the_longest_utterance_fits_and_no_slot_is_left_over() -> None:
    decoder = RollingDecoder(embedded(), max_slots=3)
    # 33 s are 1650 feature frames, 825 encoder frames, 275 embeddings.
    assert decoder.max_audio == 275
    slots = [decoder.open() for _ in range(3)]
    with pytest.raises(NoFreeSlotError, match="close a stream"):
        decoder.open()
    decoder.close(slots[1])
    decoder.close(slots[1])
    again = decoder.open()
    assert decoder.cache.in_use == 3
    [out] = decoder.update([DecodeJob(again, speech()[:40], speech()[40:45])])
    same(out, offline(embedded(), speech()[:45]))


def test_embeddings_that_are_no_numbers_fail_alone_and_leave_nothing() -> None:
    decoder = RollingDecoder(embedded())
    slots = [decoder.open(), decoder.open()]
    broken = torch.full((4, 256), float("nan"))
    bad, good = decoder.update(
        [
            DecodeJob(slots[0], broken, broken[:1]),
            DecodeJob(
                slots[1], speech()[:30], speech()[30:33], offline(embedded(), speech()[:33]).ids
            ),
        ]
    )
    assert bad == Decoded(failed=True)
    same(good, offline(embedded(), speech()[:33]))
    decoder.reset(slots[0])
    both = decoder.update(
        [
            DecodeJob(
                slots[0], speech()[:30], speech()[:0], offline(embedded(), speech()[:30]).ids
            ),
            DecodeJob(
                slots[1], speech()[30:60], speech()[60:70], offline(embedded(), speech()[:70]).ids
            ),
        ]
    )
    same(both[0], offline(embedded(), speech()[:30]))
    same(both[1], offline(embedded(), speech()[:70]))


@pytest.mark.parametrize("change", ["beams", "rope"])
def test_models_that_cannot_roll_are_decoded_anew(change: str) -> None:
    if change == "beams":
        model = random_model(num_beams=2)
    else:
        model = random_model()
        model.language_model.config.rope_parameters["rope_type"] = "linear"
    with pytest.raises(ConfigurationError, match="build_decoder"):
        RollingDecoder(model)
    decoder = build_decoder(model, max_slots=1)
    assert isinstance(decoder, RepeatingDecoder)
    slot = decoder.open()
    with pytest.raises(NoFreeSlotError):
        decoder.open()
    audio = torch.randn(20, 48, generator=torch.Generator().manual_seed(1))
    decoder.update([DecodeJob(slot, audio[:5], audio[5:9])])
    [partial] = decoder.update([DecodeJob(slot, audio[5:12], audio[12:])])
    [final] = decoder.decode_finals([FinalJob(audio, partial.ids)])
    same(partial, offline(model, audio))
    assert final == partial
    assert len(final.margins) == len(final.ids) + (final.stop_logprob is not None)
    decoder.reset(slot)
    assert decoder.update([DecodeJob(slot, audio[:0], audio[:0])]) == [Decoded()]
    decoder.close(slot)
    decoder.close(slot)
    assert isinstance(build_decoder(embedded()), RollingDecoder)


def test_margins_of_both_decoders_are_the_same() -> None:
    model = random_model()
    audio = torch.randn(20, 48, generator=torch.Generator().manual_seed(1))
    [rolling] = RollingDecoder(model).decode_finals([FinalJob(audio)])
    [repeating] = RepeatingDecoder(model).decode_finals([FinalJob(audio)])
    same(rolling, repeating)
    assert rolling.margins == pytest.approx(repeating.margins, abs=1e-4)
    assert rolling.stop_logprob == pytest.approx(repeating.stop_logprob, abs=1e-4)


def test_rows_of_like_length_run_together() -> None:
    assert group_by_length([], 4) == []
    assert group_by_length([5, 9, 8, 1, 5], 4) == [[1, 2], [0, 4, 3]]
    assert group_by_length([3, 3, 3], 0) == [[0, 1, 2]]
    assert group_by_length([1, 100], 10_000) == [[1, 0]]
