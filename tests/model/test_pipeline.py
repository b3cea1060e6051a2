"""The pipeline takes what transformers' pipelines take and gives what they give."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import (
    AutomaticSpeechRecognitionPipeline,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    pipeline,
)

from tests import miniature
from tinyvoice.errors import AudioError, ConfigurationError
from tinyvoice.model.pipeline import ASRPipeline, result, segments
from tinyvoice.model.transcript import Transcript, Word

TASK = "automatic-speech-recognition"


def build(model: Any, **settings: Any) -> Any:
    make: Any = pipeline  # its types know transformers' own models only
    return make(TASK, model=model, **settings)


@pytest.fixture(scope="module")
def recogniser() -> ASRPipeline:
    return build(miniature.random_model(aligner_alphabet="abc"))


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return miniature.clip(1.5, seed=3)


def text_of(recogniser: ASRPipeline, samples: np.ndarray) -> str:
    transcript = recogniser.model.transcribe(samples)
    assert isinstance(transcript, Transcript)
    return transcript.text


class TestInputs:
    def test_arrays_and_mappings(self, recogniser: ASRPipeline, clip: np.ndarray) -> None:
        expected = {"text": text_of(recogniser, clip)}
        assert expected["text"]
        for given in (
            clip,
            clip.astype(np.float64),
            torch.from_numpy(clip),
            {"array": clip, "sampling_rate": 16000},
            {"raw": clip, "sampling_rate": 16000},
            {"path": "elsewhere.wav", "array": clip, "sampling_rate": 16000},
            {"audio": {"array": clip, "sampling_rate": 16000}, "text": "a row of a data set"},
        ):
            assert recogniser(given) == expected

    def test_files_and_their_bytes(
        self, recogniser: ASRPipeline, clip: np.ndarray, tmp_path: Path
    ) -> None:
        path = tmp_path / "clip.wav"
        soundfile.write(path, clip, 16000, subtype="FLOAT")
        expected = {"text": text_of(recogniser, clip)}
        for given in (path, str(path), path.read_bytes(), {"bytes": path.read_bytes()}):
            assert recogniser(given) == expected

    def test_another_rate_is_resampled(self, recogniser: ASRPipeline) -> None:
        tone = np.sin(np.arange(8000) * 0.2).astype(np.float32)
        found = recogniser({"raw": tone, "sampling_rate": 8000}, return_timestamps="word")
        assert isinstance(found, dict)
        assert max(end for chunk in found["chunks"] for end in chunk["timestamp"]) <= 1.0

    def test_a_list_gives_a_list_in_order(self, recogniser: ASRPipeline) -> None:
        clips = miniature.clips(1.0, 2.0, 0.5)
        expected = [{"text": text_of(recogniser, samples)} for samples in clips]
        assert recogniser(clips) == expected
        assert recogniser(clips, batch_size=2) == expected
        assert recogniser([]) == []

    def test_a_generator_is_read_as_results_are_taken(self, recogniser: ASRPipeline) -> None:
        read = []

        def source() -> Iterator[np.ndarray]:
            for samples in miniature.clips(0.5, 0.6, 0.7):
                read.append(len(samples))
                yield samples

        results = recogniser(source())
        assert read == []
        assert set(next(results)) == {"text"}  # type: ignore[arg-type]
        assert len(read) == 1
        assert len(list(results)) == 2

    def test_a_data_set_gives_an_iterator(self, recogniser: ASRPipeline, clip: np.ndarray) -> None:
        class Rows(torch.utils.data.Dataset):
            def __len__(self) -> int:
                return 2

            def __getitem__(self, index: int) -> dict[str, Any]:
                if index >= len(self):
                    raise IndexError(index)
                return {"audio": {"array": clip, "sampling_rate": 16000}}

        assert list(recogniser(Rows(), batch_size=2)) == [{"text": text_of(recogniser, clip)}] * 2

    def test_a_long_clip_is_taken_whole(self, recogniser: ASRPipeline) -> None:
        found = recogniser(
            miniature.clip(33.0), return_timestamps="word", chunk_length_s=30, segment="fixed"
        )
        assert isinstance(found, dict)
        assert found["chunks"][-1]["timestamp"][1] > 25

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("no-such-file.wav", "no such file"),
            (b"", "empty"),
            (b"no audio at all", "not audio"),
            ({"array": np.zeros(8)}, "sampling_rate"),
            ({"samples": np.zeros(8)}, '"array" or "raw"'),
            ("http://127.0.0.1:9/clip.wav", "127.0.0.1"),
        ],
    )
    def test_what_cannot_be_read_is_said(
        self, recogniser: ASRPipeline, given: Any, message: str
    ) -> None:
        with pytest.raises(AudioError, match=message):
            recogniser(given)


class TestTimestamps:
    def test_words(self, recogniser: ASRPipeline, clip: np.ndarray) -> None:
        words = recogniser.model.transcribe(clip, word_timestamps=True).words
        found = recogniser(clip, return_timestamps="word")
        assert found == {
            "text": text_of(recogniser, clip),
            "chunks": [
                {"text": w.text, "timestamp": (round(w.start, 3), round(w.end, 3))} for w in words
            ],
        }
        assert words

    @pytest.mark.parametrize("timestamps", ["word", True])
    def test_times_are_milliseconds(self, timestamps: bool | str) -> None:
        word = Word("a", 0.36000000000000004, 1.0004999, 1.0)
        found = result(Transcript("a", (word,), 1.0, 2.0), timestamps)
        assert found["chunks"] == [{"text": "a", "timestamp": (0.36, 1.0)}]

    def test_segments_end_at_pauses(self) -> None:
        a, b, c = (Word(t, s, s + 0.3, 1.0) for t, s in (("a", 0.0), ("b", 0.5), ("c", 1.4)))
        assert segments([a, b, c]) == [[a, b], [c]]
        assert segments([]) == []

    def test_segments_hold_all_words(self, recogniser: ASRPipeline, clip: np.ndarray) -> None:
        found = recogniser(clip, return_timestamps=True)
        assert isinstance(found, dict)
        assert " ".join(chunk["text"] for chunk in found["chunks"]).split() == found["text"].split()

    def test_characters_are_refused(self, recogniser: ASRPipeline, clip: np.ndarray) -> None:
        with pytest.raises(ConfigurationError, match="'char'"):
            recogniser(clip, return_timestamps="char")


class TestSettings:
    def test_generation_settings_of_a_call(self, recogniser: ASRPipeline, clip: np.ndarray) -> None:
        short = recogniser.model.transcribe(clip, max_new_tokens=2).text
        assert short != text_of(recogniser, clip)
        assert recogniser(clip, max_new_tokens=2) == {"text": short}
        assert recogniser(clip, generate_kwargs={"max_new_tokens": 2}) == {"text": short}

    def test_settings_of_the_pipeline_hold_for_every_call(self, clip: np.ndarray) -> None:
        model = miniature.random_model()
        recogniser = build(model, max_new_tokens=2, return_timestamps=True)
        assert recogniser(clip)["text"] == model.transcribe(clip, max_new_tokens=2).text
        assert set(recogniser(clip)) == {"text", "chunks"}

    def test_an_unknown_setting_is_refused(self, recogniser: ASRPipeline, clip: np.ndarray) -> None:
        with pytest.raises(ConfigurationError, match="batchsize"):
            recogniser(clip, batchsize=2)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype, tmp_path: Path, clip: np.ndarray) -> None:
        folder = miniature.write_checkpoint(tmp_path / "checkpoint")
        recogniser = build(str(folder), dtype=dtype, device="cpu")
        assert recogniser.model.dtype == dtype
        assert recogniser(clip, return_timestamps="word")["text"]

    def test_a_model_in_half_precision_is_widened_where_the_cpu_cannot(
        self, clip: np.ndarray
    ) -> None:
        model: Any = miniature.random_model()
        model.to(torch.float16)
        recogniser = build(model, device="cpu")
        assert recogniser.model.dtype in (torch.float32, torch.bfloat16)


def test_other_models_get_transformers_own_pipeline() -> None:
    ones = ("encoder_layers", "decoder_layers")
    heads = ("encoder_attention_heads", "decoder_attention_heads")
    settings: dict[str, Any] = dict.fromkeys((*ones, *heads), 1)
    settings |= {"d_model": 8, "vocab_size": 400, "pad_token_id": 0}
    config = WhisperConfig(encoder_ffn_dim=8, decoder_ffn_dim=8, **settings)
    whisper = WhisperForConditionalGeneration(config)
    parts = {"tokenizer": miniature.tokenizer(), "feature_extractor": WhisperFeatureExtractor()}
    assert type(build(whisper, **parts)) is AutomaticSpeechRecognitionPipeline
    with pytest.raises(ValueError, match="feature_extractor"):
        build(whisper, tokenizer=parts["tokenizer"])
