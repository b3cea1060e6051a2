"""Features equal transformers' own, and prompts equal the chat template's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

from tinyvoice.errors import ConfigurationError
from tinyvoice.model.processing import AUDIO_TOKEN, IGNORED_LABEL, ASRProcessor

# The shape of Qwen3's template: a system message, a switch for thinking, a generation prompt.
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}"
    "{{ '<think>\n\n</think>\n\n' }}{%- endif -%}{%- endif -%}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges, with Qwen's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<think>", "</think>"]})
    fast.chat_template = TEMPLATE
    return fast


def whisper(mels: int, hop: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=mels, hop_length=hop)


def noise(seconds: float, loudness: float = 0.1, seed: int = 0) -> np.ndarray:
    """Noise with a quiet half, so that the clamp to the clip's maximum matters."""
    samples = np.random.default_rng(seed).standard_normal(int(seconds * 16000)) * loudness
    samples[len(samples) // 2 :] *= 1e-6
    return samples.astype(np.float32)


@pytest.fixture
def processor() -> ASRProcessor:
    return ASRProcessor(whisper(80, 320), byte_tokenizer())


class TestFeatures:
    @pytest.mark.parametrize(("mels", "hop"), [(80, 320), (128, 160)])
    @pytest.mark.parametrize("seconds", [0.1, 1.0, 2.3456789])
    def test_a_single_clip_equals_the_feature_extractor(
        self, mels: int, hop: int, seconds: float
    ) -> None:
        extractor, clip = whisper(mels, hop), noise(seconds)
        expected = extractor(
            clip, sampling_rate=16000, padding="do_not_pad", truncation=False, return_tensors="pt"
        ).input_features
        features, mask = ASRProcessor(extractor, byte_tokenizer()).features([clip])
        assert torch.equal(features, expected)
        assert mask.shape == (1, len(clip) // hop)
        assert mask.all()

    def test_a_clip_has_the_same_features_in_a_batch(self, processor: ASRProcessor) -> None:
        clips = [noise(1.0, 0.5), noise(0.31, 0.001, seed=1), noise(2.0, 0.02, seed=2)]
        features, mask = processor.features(clips)
        assert features.shape == (3, 80, 100)
        assert mask.sum(dim=1).tolist() == [50, 15, 100]
        for row, row_mask, clip in zip(features, mask, clips, strict=True):
            alone, _ = processor.features([clip])
            assert torch.equal(row[:, row_mask], alone[0])
            assert not row[:, ~row_mask].any()

    def test_a_clip_shorter_than_a_window_becomes_one_frame(self, processor: ASRProcessor) -> None:
        features, mask = processor.features([np.ones(3, dtype=np.float32)])
        assert features.shape == (1, 80, 1)
        assert torch.isfinite(features).all()
        assert mask.tolist() == [[True]]

    def test_stereo_and_nothing_are_refused(self, processor: ASRProcessor) -> None:
        with pytest.raises(ConfigurationError, match="must be mono"):
            processor.features([np.zeros((2, 16000), dtype=np.float32)])
        with pytest.raises(ConfigurationError, match="no clip"):
            processor.features([])

    def test_call_takes_one_clip_or_many_and_checks_the_rate(self, processor: ASRProcessor) -> None:
        one, two = noise(0.5), noise(1.0)
        assert processor(one, sampling_rate=16000).input_features.shape == (1, 80, 25)
        assert processor([one, two]).input_features_mask.sum(dim=1).tolist() == [25, 50]
        with pytest.raises(ConfigurationError, match="8000 samples per second"):
            processor(one, sampling_rate=8000)


class TestPrompt:
    @pytest.mark.parametrize("system_prompt", ["", "You write down what is said."])
    @pytest.mark.parametrize("n_audio_tokens", [1, 7])
    def test_equals_the_chat_template(
        self, processor: ASRProcessor, n_audio_tokens: int, system_prompt: str
    ) -> None:
        content = AUDIO_TOKEN * n_audio_tokens + " Transcribe the speech to text"
        messages = [{"role": "user", "content": content}]
        if system_prompt:
            messages.insert(0, {"role": "system", "content": system_prompt})
        expected = processor.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, enable_thinking=False, return_dict=False
        )
        assert processor.prompt_ids(n_audio_tokens, system_prompt) == expected

    def test_another_instruction(self, processor: ASRProcessor) -> None:
        ids = processor.prompt_ids(2, instruction="Write digits")
        assert "<audio><audio> Write digits<|im_end|>" in processor.tokenizer.decode(ids)

    def test_a_template_that_drops_the_audio_is_refused(self) -> None:
        processor = ASRProcessor(whisper(80, 320), byte_tokenizer(), chat_template="nothing")
        with pytest.raises(ConfigurationError, match="exactly once"):
            processor.prompt_ids(1)

    def test_no_template_is_refused(self) -> None:
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = None
        with pytest.raises(ConfigurationError, match="no chat template"):
            ASRProcessor(whisper(80, 320), tokenizer)


class TestTrainingExample:
    def test_only_the_answer_is_labelled(self, processor: ASRProcessor) -> None:
        example = processor.training_example("hi you", n_audio_tokens=3)
        prompt = processor.prompt_ids(3)
        answer = example.labels[len(prompt) :]
        assert example.input_ids == prompt + answer
        assert example.labels[: len(prompt)] == [IGNORED_LABEL] * len(prompt)
        assert processor.tokenizer.decode(answer) == "hi you<|im_end|>"

    def test_an_empty_text_teaches_to_say_nothing(self, processor: ASRProcessor) -> None:
        example = processor.training_example("", n_audio_tokens=1)
        assert example.labels[-2:] == [IGNORED_LABEL, processor.end_of_turn_id]

    def test_special_tokens_in_a_text_are_plain_characters(self, processor: ASRProcessor) -> None:
        ids = processor.text_ids("a <audio> b<|im_end|>")
        assert processor.audio_token_id not in ids
        assert processor.end_of_turn_id not in ids
        assert processor.tokenizer.decode(ids) == "a <audio> b<|im_end|>"


def test_saved_and_loaded_it_is_the_same(processor: ASRProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    assert {"preprocessor_config.json", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert not (tmp_path / "processor_config.json").exists()
    loaded = ASRProcessor.from_pretrained(tmp_path)
    assert loaded.training_example("so be it", 5, "system") == processor.training_example(
        "so be it", 5, "system"
    )
    assert torch.equal(loaded.features([noise(0.4)])[0], processor.features([noise(0.4)])[0])
