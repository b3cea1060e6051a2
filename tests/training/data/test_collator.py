"""Clips become features, prompts, labels and the aligner's targets, reproducibly."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

from tinyvoice.errors import AudioError
from tinyvoice.model.processing import ASRProcessor
from tinyvoice.model.timestamps import ALPHABET
from training.data.augmentation import Augmentation, Clip, Noise, SilencePads
from training.data.batching import ClipKey
from training.data.collator import (
    ClipSettings,
    Example,
    FrameCounts,
    TrainingClips,
    collate,
    cut_short,
)

TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.content }}<|im_end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>{%- endif -%}"
)
MEL_FRAMES = np.arange(4000)
# Hop of 20 ms, one convolution of stride 2, groups of 2 frames.
COUNTS = FrameCounts((MEL_FRAMES + 1) // 2, (MEL_FRAMES + 1) // 4, 0.04)
WORDS = (("call", 0.5, 1.0), ("mom", 1.5, 2.0))


class Clips:
    """Clips in memory; an exception in their place is raised when it is read."""

    def __init__(self, clips: Sequence[Clip | Exception]) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def clip(self, index: int) -> Clip:
        clip = self.clips[index]
        if isinstance(clip, Exception):
            raise clip
        return clip


@pytest.fixture(scope="module")
def processor() -> ASRProcessor:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.add_special_tokens({"extra_special_tokens": ["<|im_start|>"]})
    fast.chat_template = TEMPLATE
    return ASRProcessor(WhisperFeatureExtractor(feature_size=80, hop_length=320), fast)


def speech(seconds: float = 2.4, seed: int = 0) -> Clip:
    samples = np.random.default_rng(seed).standard_normal(int(seconds * 16_000)) * 0.1
    return Clip(samples.astype(np.float32), "call mom", WORDS)


def make(processor: ASRProcessor, clips: Sequence[Clip | Exception], **settings: object) -> list:
    examples = TrainingClips(
        Clips(clips),
        processor,
        COUNTS,
        ClipSettings(aligner_alphabet=ALPHABET, **settings),  # type: ignore[arg-type]
    )
    return [examples[ClipKey(0, index)] for index in range(len(clips))]


def test_a_clip_has_the_models_silence_around_it_and_its_words_are_later(
    processor: ASRProcessor,
) -> None:
    (plain,) = make(processor, [speech()])
    (padded,) = make(processor, [speech()], silence_padding_s=0.4)
    around = np.pad(speech().samples, 6_400)
    torch.testing.assert_close(padded.features, processor.features([around])[0][0])
    # 0.4 s are ten encoder frames.
    length = len(plain.frame_targets)
    assert padded.frame_targets[10 : 10 + length].tolist() == plain.frame_targets.tolist()
    assert len(padded.frame_targets) == length + 20
    assert padded.input_ids.count(processor.audio_token_id) == int(
        COUNTS.audio_tokens[padded.features.shape[-1]]
    )
    assert padded.seconds == plain.seconds


def test_a_clip_that_was_cut_has_no_silence_behind_it(processor: ASRProcessor) -> None:
    for seed in range(4):
        (cut,) = make(processor, [speech()], cut_probability=1.0, seed=seed, silence_padding_s=0.4)
        assert cut.features.shape[-1] == int(cut.seconds * 50) + 20


def test_an_example_holds_features_prompt_and_label(processor: ASRProcessor) -> None:
    (example,) = make(processor, [speech()])
    features, _ = processor.features([speech().samples])
    assert torch.equal(example.features, features[0])
    assert (example.input_ids, example.labels) == processor.training_example("call mom", 30)
    assert example.input_ids.count(processor.audio_token_id) == 30
    assert example.seconds == pytest.approx(2.4)


def test_frame_targets_say_which_letter_is_where(processor: ASRProcessor) -> None:
    (example,) = make(processor, [speech()])
    text = "".join(" " if c == 0 else (ALPHABET * 2)[c - 1] for c in example.frame_targets)
    assert len(text) == 60
    assert "".join(dict.fromkeys(text.split()[0])) == "cal"
    assert text.index("c") == round(0.5 / 0.04)
    assert len(text.rstrip()) == round(2.0 / 0.04)


def test_a_clip_of_nothing_is_padded_to_make_a_token(processor: ASRProcessor) -> None:
    (example,) = make(processor, [Clip(np.zeros(10, dtype=np.float32), "")])
    assert example.input_ids.count(processor.audio_token_id) >= 1
    assert example.frame_targets is None


def test_a_cut_keeps_the_words_that_have_ended() -> None:
    clip = speech()
    seen = {}
    for seed in range(200):
        cut = cut_short(clip, np.random.default_rng(seed))
        end = cut.duration
        assert 0.3 <= end <= 2.4
        np.testing.assert_array_equal(cut.samples, clip.samples[: len(cut.samples)])
        expected = "" if end < 0.98 else "call" if end < 1.98 else "call mom"
        assert cut.text == expected
        seen[cut.text] = True
    assert set(seen) == {"", "call", "call mom"}


@pytest.mark.parametrize(
    "clip",
    [
        Clip(np.zeros(48_000, dtype=np.float32), "no times known"),
        Clip(np.zeros(48_000, dtype=np.float32), "twenty two", (("22", 0.1, 0.5),)),
        Clip(np.zeros(160, dtype=np.float32), "call mom", WORDS),
    ],
)
def test_a_clip_that_cannot_be_cut_stays_whole(clip: Clip) -> None:
    assert cut_short(clip, np.random.default_rng(0)) is clip


def test_a_cut_inside_a_word_leaves_its_letters_where_they_are(processor: ASRProcessor) -> None:
    (whole,) = make(processor, [speech()])
    examples = TrainingClips(
        Clips([speech()]),
        processor,
        COUNTS,
        ClipSettings(cut_probability=1.0, aligner_alphabet=ALPHABET),
    )
    for epoch in range(20):
        cut = examples[ClipKey(epoch, 0)].frame_targets
        assert cut is not None
        np.testing.assert_array_equal(cut, whole.frame_targets[: len(cut)])


def test_the_clip_and_the_epoch_make_the_randomness(processor: ASRProcessor) -> None:
    def clips() -> TrainingClips:
        augmentation = Augmentation((SilencePads(0.5), Noise(1.0)))
        settings = ClipSettings(cut_probability=0.5, empty_probability=0.2)
        source = Clips([speech(seed=seed) for seed in range(4)])
        return TrainingClips(source, processor, COUNTS, settings, augmentation)

    forward = [clips()[ClipKey(2, index)] for index in range(4)]
    backward = [clips()[ClipKey(2, index)] for index in reversed(range(4))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert torch.equal(one.features, other.features)
        assert one.labels == other.labels
    later = clips()[ClipKey(3, 0)]
    assert later.features.shape != forward[0].features.shape or not torch.equal(
        later.features, forward[0].features
    )


def test_some_clips_become_silence_or_noise_without_words(processor: ASRProcessor) -> None:
    examples = make(processor, [speech(seed=seed) for seed in range(40)], empty_probability=0.5)
    empty = [example for example in examples if example.text == ""]
    assert 8 < len(empty) < 32
    for example in empty:
        assert [label for label in example.labels if label >= 0] == [processor.end_of_turn_id]
        assert not example.frame_targets.any()


def test_unreadable_audio_is_raised_or_left_out_of_the_loss(processor: ASRProcessor) -> None:
    unreadable = AudioError("b.wav cannot be read", path="b.wav")
    clips: list[Clip | Exception] = [speech(), unreadable]
    with pytest.raises(AudioError, match=r"b\.wav"):
        make(processor, clips)
    batch = collate(make(processor, clips, skip_unreadable=True))
    assert batch.errors == ["b.wav cannot be read"]
    assert (batch.labels[1] == -100).all()
    assert batch.seconds == pytest.approx(2.4)


def test_a_batch_is_padded_on_the_right(processor: ASRProcessor) -> None:
    short, long = make(processor, [speech(1.0), speech(2.4)])
    batch = collate([short, long])
    assert batch.input_features.shape == (2, 80, 120)
    assert batch.input_features_mask.sum(-1).tolist() == [50, 120]
    assert torch.equal(batch.input_features[0, :, :50], short.features)
    assert not batch.input_features[0, :, 50:].any()
    length = len(short.input_ids)
    assert batch.input_ids[0, :length].tolist() == short.input_ids
    assert batch.attention_mask.sum(-1).tolist() == [length, len(long.input_ids)]
    assert (batch.labels[0, length:] == -100).all()
    assert batch.frame_targets is not None
    assert batch.frame_targets.shape == (2, 60)
    assert (batch.frame_targets[0, 25:] == -100).all()
    assert batch.label_tokens == 2 * len("call mom" + "e")
    assert batch.target_frames == 25 + 60


def test_an_example_that_does_not_count_has_no_labels(processor: ASRProcessor) -> None:
    examples = TrainingClips(
        Clips([speech()]), processor, COUNTS, ClipSettings(aligner_alphabet=ALPHABET)
    )
    example: Example = examples[ClipKey(0, 0, counts=False)]
    batch = collate([example])
    assert batch.label_tokens == 0
    assert batch.target_frames == 0
    assert batch.seconds == 0
