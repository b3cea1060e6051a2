"""Tests of training.evaluation.evaluate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.miniature import random_model
from tinyvoice.errors import AudioError
from tinyvoice.model.transcript import Transcript, Word
from training.evaluation.evaluate import CHUNK, ModelTranscriber, compare, evaluate
from training.evaluation.test_sets import Example, Samples, WordTimes
from training.evaluation.wer import WordErrors


@dataclass(frozen=True)
class Seconds:
    """A source of so many seconds of noise; none at all is an error."""

    seconds: float
    times: WordTimes | None = None

    def load(self) -> tuple[Samples, WordTimes | None]:
        if not self.seconds:
            raise AudioError("nothing.wav is empty", path="nothing.wav")
        noise = np.random.default_rng(round(self.seconds * 100)).standard_normal(
            round(self.seconds * 16_000)
        )
        return (0.1 * noise).astype(np.float32), self.times


def lengths_as_text(clips: Sequence[Samples], /) -> list[Transcript]:
    """A transcriber that writes how long each clip is, in tenths of a second."""
    return [
        Transcript(f"{round(len(clip) / 1600)} tenths", (), 1.0, len(clip) / 16_000)
        for clip in clips
    ]


def example(name: str, text: str, seconds: float) -> Example:
    return Example(name, text, "noise", Seconds(seconds))


def test_results_come_in_the_order_of_the_examples() -> None:
    seconds = [3.0, 0.5, 2.0, 1.0]
    examples = [example(str(s), f"{round(s * 10)} tenths", s) for s in seconds]
    results = evaluate(examples, lengths_as_text)
    assert [result.name for result in results] == ["3.0", "0.5", "2.0", "1.0"]
    assert [result.duration for result in results] == seconds
    assert [result.errors.total for result in results] == [0, 0, 0, 0]
    assert results[0].reference == "thirty tenths"
    assert results[0].hypothesis == "30 tenths"


def test_an_example_without_audio_is_kept_with_its_reason() -> None:
    results = evaluate([example("good", "a", 0.5), example("bad", "b", 0.0)], lengths_as_text)
    assert [result.error for result in results] == [None, "nothing.wav is empty"]
    assert results[1].reference == "b"
    assert results[1].errors == WordErrors()


def test_progress_counts_every_example() -> None:
    done: list[int] = []
    examples = [example(str(index), "", 0.1) for index in range(CHUNK + 3)]
    evaluate(examples, lengths_as_text, progress=done.append)
    assert done == [CHUNK, 3]


def test_word_times_are_paired_where_they_are_known() -> None:
    known = Example("x", "go on", "v", Seconds(1.0, (("go", 0.1, 0.2), ("on", 0.2, 0.4))))
    words = (Word("go", 0.1, 0.25, 0.9), Word("in", 0.25, 0.4, 0.5))
    transcript = Transcript("go in", words, 0.7, 1.0)
    result = compare(known, transcript, known.source.load()[1], 16_000, 0.01)
    assert result.errors == WordErrors(substitutions=1, words=2)
    assert [word.text for word in result.matched_words] == ["go"]
    assert compare(known, transcript, None, 16_000, 0.01).matched_words == ()


def test_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    random_model(embedded_backbones=True).save_pretrained(tmp_path)
    transcriber = ModelTranscriber(str(tmp_path), "cpu", batch_size=4)
    examples = [example(str(index), "x", 0.2 + index / 200) for index in range(CHUNK + 4)]
    alone = evaluate(examples, transcriber)
    together = evaluate(examples, transcriber, workers=2)
    assert [r.hypothesis for r in together] == [r.hypothesis for r in alone]
    assert [r.name for r in together] == [r.name for r in alone]
