from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.miniature import PROJECTOR_TYPES, asr_config, clip, clips, random_model
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel, runnable_attention

SECONDS = (2.0, 1.1, 0.5)


@pytest.fixture(scope="module")
def model() -> ASRModel:
    return random_model()


def batch(model: ASRModel, texts: tuple[str, ...] = ("go on", "stop", "")) -> dict[str, Tensor]:
    """A right-padded training batch of three clips."""
    processor = model.need_processor()
    features, mask = processor.features(clips(*SECONDS))
    with torch.no_grad():
        _, counts = model.project(*model.encode(features, mask))
    examples = [
        processor.training_example(text, int(count))
        for text, count in zip(texts, counts, strict=True)
    ]
    longest = max(len(example.input_ids) for example in examples)
    shape = (len(examples), longest)
    ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
    attention = torch.zeros(shape, dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        ids[row, :length] = torch.tensor(example.input_ids)
        labels[row, :length] = torch.tensor(example.labels)
        attention[row, :length] = 1
    return {
        "input_ids": ids,
        "attention_mask": attention,
        "input_features": features,
        "input_features_mask": mask,
        "labels": labels,
    }


@torch.no_grad()
@pytest.mark.parametrize("kind", PROJECTOR_TYPES)
def test_a_batch_gives_the_tokens_of_single_clips(kind: str) -> None:
    model = random_model(kind)
    processor = model.need_processor()
    waves = clips(2.0, 1.33, 0.71, 0.3)
    together = model.generate(*processor.features(waves))
    assert together == [model.generate(*processor.features([wave]))[0] for wave in waves]
    assert len({tuple(ids) for ids in together}) > 1


@torch.no_grad()
@pytest.mark.parametrize("kind", PROJECTOR_TYPES)
def test_embeddings_do_not_depend_on_padding(kind: str) -> None:
    model = random_model(kind)
    processor = model.need_processor()
    waves = clips(2.0, 0.63)
    embeds, counts = model.project(*model.encode(*processor.features(waves)))
    alone, count = model.project(*model.encode(*processor.features(waves[1:])))
    assert counts[1] == count[0]
    torch.testing.assert_close(embeds[1, : counts[1]], alone[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_loss_is_the_mean_over_supervised_tokens(model: ASRModel) -> None:
    inputs = batch(model)
    output = model(**inputs)
    labels = inputs.pop("labels")
    logits = model(**inputs).logits[:, :-1].reshape(-1, model.language_model.config.vocab_size)
    expected = F.cross_entropy(logits, labels[:, 1:].reshape(-1), ignore_index=-100)
    torch.testing.assert_close(output.loss, expected)
    assert output.logits.shape[0] == int((labels[:, 1:] != -100).sum())


@torch.no_grad()
def test_forward_predicts_what_generate_writes(model: ASRModel) -> None:
    processor = model.need_processor()
    features, mask = processor.features([clip(1.0)])
    _, counts = model.project(*model.encode(features, mask))
    prompt = torch.tensor([processor.prompt_ids(int(counts[0]))])
    logits = model(prompt, input_features=features, input_features_mask=mask).logits
    assert logits[0, -1].argmax().item() == model.generate(features, mask, max_new_tokens=1)[0][0]


def test_forward_returns_encoder_frames(model: ASRModel) -> None:
    output = model(**batch(model))
    assert output.encoder_lengths.tolist() == [100, 55, 25]
    assert output.encoder_hidden.shape == (3, 100, model.config.encoder_dim)


def test_an_empty_batch_of_labels_has_no_loss(model: ASRModel) -> None:
    inputs = batch(model)
    inputs["labels"].fill_(-100)
    assert model(**inputs).loss.item() == 0.0


def test_wrong_number_of_audio_tokens_is_an_error(model: ASRModel) -> None:
    inputs = batch(model)
    inputs["input_ids"][1, -1] = model.need_processor().audio_token_id
    with pytest.raises(ValueError, match="but the clips give"):
        model(**inputs)


@pytest.mark.parametrize("kind", PROJECTOR_TYPES)
def test_only_the_projector_is_trained_by_default(kind: str) -> None:
    model = random_model(kind).train()
    model(**batch(model)).loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"projector"}


def test_a_step_lowers_the_loss() -> None:
    model = random_model()
    inputs = batch(model)
    optimizer = torch.optim.AdamW(model.projector.parameters(), lr=3e-3)
    first = model(**inputs).loss
    for _ in range(5):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    assert model(**inputs).loss < first


def test_freezing_follows_the_configuration() -> None:
    model = random_model(freeze_encoder=False, freeze_projector=True, freeze_language_model=False)
    model.train()
    model(**batch(model)).loss.backward()
    assert model.audio_tower.conv1.weight.grad is not None
    assert model.language_model.get_input_embeddings().weight.grad is not None
    assert all(p.grad is None for p in model.projector.parameters())


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    model = random_model().train()
    assert model.projector.training
    assert not model.audio_tower.training
    assert not model.language_model.training
    model.language_model.requires_grad_(True)
    assert model.train().language_model.training


def test_the_frozen_encoder_keeps_no_graph(model: ASRModel) -> None:
    hidden, _ = model.encode(*model.need_processor().features([clip(0.5)]))
    assert not hidden.requires_grad


def test_moe_adds_its_auxiliary_loss_in_training() -> None:
    model = random_model("moe", router_aux_loss_coef=100.0)
    inputs = batch(model)
    plain = model(**inputs).loss
    assert model.train()(**inputs).loss > plain + 0.01


def test_frame_dropout_is_for_training_only() -> None:
    model = random_model(audio_token_dropout=0.5)
    inputs = batch(model)
    torch.manual_seed(0)
    first, second = model(**inputs).loss, model(**inputs).loss
    assert torch.equal(first, second)
    model.train()
    assert not torch.equal(model(**inputs).loss, first)


@torch.no_grad()
def test_chunks_change_what_the_encoder_sees(model: ASRModel) -> None:
    inputs = batch(model)
    assert not torch.equal(model(**inputs, chunk_frames=4).loss, model(**inputs).loss)


def test_label_smoothing_is_for_training_only() -> None:
    plain, smooth = random_model(), random_model(label_smoothing=0.3)
    inputs = batch(plain)
    assert torch.equal(plain(**inputs).loss, smooth(**inputs).loss)
    assert not torch.equal(plain.train()(**inputs).loss, smooth.train()(**inputs).loss)


def test_a_clip_too_short_for_a_token_has_none(model: ASRModel) -> None:
    # 0.02 s are one encoder frame, a quarter of what an audio token needs.
    features, mask = model.need_processor().features([clip(0.02), clip(1.0)])
    ids = model.generate(features, mask)
    assert ids[0] == []
    assert ids[1] == model.generate(features[1:], mask[1:])[0]
    assert model.generate(features[:1, :, :2], mask[:1, :2]) == [[]]


@pytest.mark.parametrize(
    ("settings", "search"),
    [
        ({}, {}),
        ({"temperature": 0.7, "top_k": 5}, {}),
        ({"num_beams": 2}, {"num_beams": 2}),
        ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2}),
        ({"do_sample": True, "top_k": 5}, {"do_sample": True, "top_k": 5}),
    ],
)
def test_what_needs_more_than_greedy_decoding(
    settings: dict[str, Any], search: dict[str, Any]
) -> None:
    assert random_model(**settings).search_settings({}) == search
    assert random_model().search_settings(settings) == search


def test_system_prompt_is_part_of_the_prompt() -> None:
    plain, advised = random_model(), random_model(system_prompt="turn the lights on")
    assert len(advised.prompt_template.prefix) > len(plain.prompt_template.prefix)
    assert advised.prompt_template.suffix == plain.prompt_template.suffix
    wave = clip(1.0)
    assert advised.transcribe(wave) != plain.transcribe(wave)


def test_prompts_are_embedded_as_their_ids_say(model: ASRModel) -> None:
    counts = torch.tensor([3, 1])
    audio = torch.randn(2, 3, model.config.llm_dim or 0)
    prompts, mask = model.embed_prompts(audio, counts)
    ids = model.prompt_ids(counts)
    assert prompts.shape[:2] == ids.shape == mask.shape
    expected = model.get_input_embeddings()(ids)
    for row, count in enumerate(counts.tolist()):
        is_audio = torch.eq(ids[row], model.need_processor().audio_token_id)
        assert int(is_audio.sum()) == count
        torch.testing.assert_close(prompts[row, is_audio], audio[row, :count])
        is_text = ~is_audio & mask[row].bool()
        torch.testing.assert_close(prompts[row, is_text], expected[row, is_text])


def test_a_model_without_processor_says_so() -> None:
    with pytest.raises(ConfigurationError, match="use_processor"):
        ASRModel(asr_config()).transcribe(np.zeros(16000, dtype=np.float32))


def test_attention_that_cannot_run_falls_back(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("flash attention may run here")
    with caplog.at_level(logging.INFO):
        model = ASRModel(asr_config(attn_implementation="flash_attention_2"))
    told = [
        record.levelno
        for record in caplog.records
        if "flash_attention_2 cannot run on this machine; using sdpa" in record.getMessage()
    ]
    assert told == [logging.INFO]
    for part in (model.audio_tower, model.language_model):
        assert part.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("wanted", "got"), [("sdpa", "sdpa"), ("eager", "eager"), (None, "sdpa")])
def test_attention_that_runs_is_kept(wanted: str | None, got: str) -> None:
    assert runnable_attention(wanted) == got


@torch.no_grad()
def test_eager_attention_gives_the_same_tokens(model: ASRModel) -> None:
    eager = random_model(attn_implementation="eager")
    inputs = model.need_processor().features(clips(1.5, 0.6))
    assert eager.generate(*inputs) == model.generate(*inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_runs(dtype: torch.dtype) -> None:
    model: Any = random_model()
    model.to(dtype)
    (output,) = model.generate_with_scores(*model.need_processor().features([clip(1.0)]))
    assert 0 < len(output.ids) == len(output.logprobs)


def test_an_aligner_has_an_output_for_each_class() -> None:
    model = random_model(aligner_alphabet="abcde")
    assert model.aligner is not None
    hidden, _ = model.encode(*model.need_processor().features([clip(0.5)]))
    assert model.aligner(hidden).shape == (1, 25, 11)
