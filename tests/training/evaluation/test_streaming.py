"""Tests of training.evaluation.streaming: the embedded model, speech of the package."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from tinyvoice.benchmark.speech import BUNDLED, MANIFEST
from tinyvoice.engine import Event, Final, Partial
from tinyvoice.errors import AudioError
from tinyvoice.metrics import stable_is_prefix
from tinyvoice.model.modeling import ASRModel
from training.evaluation.edge_sets import Strung
from training.evaluation.streaming import (
    Edges,
    Judge,
    Played,
    StreamedResult,
    StreamingPlan,
    compare_edges,
    evaluate_streamed,
    utterance_records,
    whole_utterances,
)
from training.evaluation.test_sets import Example, Request, Samples, WordTimes, load_test_set


@pytest.fixture(scope="module")
def model() -> ASRModel:
    return ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")


def bundled(count: int) -> list[Example]:
    return load_test_set(str(BUNDLED / MANIFEST), Request()).examples[:count]


def streamed(model: ASRModel, examples: list[Example], **plan: Any) -> list[StreamedResult]:
    return asyncio.run(evaluate_streamed(examples, model, StreamingPlan(**plan))).results


@dataclass(frozen=True)
class Missing:
    """A source whose file is gone."""

    def load(self) -> tuple[Samples, WordTimes | None]:
        raise AudioError("gone.wav: no such file", path="gone.wav")


class TestEvaluation:
    def test_clips_played_as_they_are_equal_their_transcripts(self, model: ASRModel) -> None:
        results = streamed(model, bundled(4), streams=3)
        assert [result.verdict for result in results] == ["equal"] * 4
        for result in results:
            assert result.streamed == result.offline != ""
            assert result.errors == result.offline_errors
            assert result.partials > 4
            (record,) = result.records
            assert record.final == result.streamed
            assert record.first_word_end is not None
            assert record.onset < record.first_word_end < record.received

    def test_clips_are_found_between_silence(self, model: ASRModel) -> None:
        results = streamed(model, bundled(3), endpointing="vad", encoder="window")
        assert [result.verdict for result in results] == ["equal"] * 3
        assert [result.speech_starts for result in results] == [1, 1, 1]
        clips = [example.source.load()[0] for example in bundled(3)]
        assert [result.duration for result in results] == [len(c) / 16_000 + 1.5 for c in clips]

    @pytest.mark.parametrize("encoder", ["block", "window"])
    def test_audio_in_bursts_gives_the_same_words_and_fewer_partials(
        self, model: ASRModel, encoder: str
    ) -> None:
        played: dict[str, Any] = {"encoder": encoder, "endpointing": "vad", "streams": 3}
        steady = streamed(model, bundled(3), **played)
        bursts = streamed(model, bundled(3), **played, arrival="bursts")
        assert [result.verdict for result in bursts] == ["equal"] * 3
        assert [r.streamed for r in bursts] == [r.streamed for r in steady]
        assert sum(r.partials for r in bursts) < sum(r.partials for r in steady)

    @pytest.mark.parametrize("endpointing", ["manual", "vad"])
    def test_talk_without_a_pause_is_cut_and_nothing_stable_lies_behind_a_cut(
        self, model: ASRModel, endpointing: str
    ) -> None:
        talk = load_test_set("long-speech", Request()).examples[2]
        assert isinstance(talk.source, Strung)
        sources = talk.source.sources[:3]
        text = " ".join(word for word, _, _ in Strung(sources).load()[1] or ())
        short = Example("talk", text, "", Strung(sources))
        (result,) = streamed(model, [short], endpointing=endpointing)
        assert result.verdict == "equal"
        splits = result.splits
        assert splits is not None
        assert splits.splits >= len(result.records) - 1 >= 1
        assert splits.near_words + splits.far_words == len(text.split())
        # Later ones begin in the middle of a sentence, and the model takes back what it made of it.
        assert stable_is_prefix(result.records[0])

    def test_progress_and_examples_without_audio(self, model: ASRModel) -> None:
        done: list[int] = []
        examples = [Example("gone", "a b", "", Missing()), *bundled(1)]
        evaluation = asyncio.run(
            evaluate_streamed(examples, model, StreamingPlan(), progress=done.append)
        )
        assert done == [2]
        assert [result.error for result in evaluation.results] == ["gone.wav: no such file", None]
        assert evaluation.processor_seconds > 0

    def test_edges_of_a_padded_clip(self, model: ASRModel) -> None:
        padded = load_test_set("cut-and-pad", Request(count=2)).examples
        for result in streamed(model, padded, endpointing="vad"):
            assert result.edges is not None
            assert (result.edges.lost_at_beginning, result.edges.lost_at_end) == (0, 0)
            assert result.offline_edges == result.edges


class TestJudge:
    def played(self, model: ASRModel, text: str, end_s: float | None = None) -> StreamedResult:
        """What is said of a final with this text, for a clip played as it is."""
        (example,) = bundled(1)
        clip, words = example.source.load()
        end = len(clip) / 16_000 if end_s is None else end_s
        event = Final(0, text, (), 0.0, end, 1.0, 0.0, end, end)
        plan = StreamingPlan(endpointing="manual" if end_s is None else "vad")
        item = Played(example, clip, words, clip, 0.0, [event])
        (result,) = Judge(model, plan).results([item])
        return result

    def test_another_word_is_a_difference_with_its_margin(self, model: ASRModel) -> None:
        text = streamed(model, bundled(1))[0].streamed
        assert self.played(model, text).verdict == "equal"
        for other in (text.replace("people", "poodles"), text + " and more", text.split()[0], ""):
            result = self.played(model, other)
            assert result.verdict == "different"
            assert result.margin is not None
            assert result.margin > 0.01
            assert result.offline == text

    def test_the_stretch_that_the_final_names_is_what_counts(self, model: ASRModel) -> None:
        text = streamed(model, bundled(1))[0].streamed
        assert self.played(model, text, end_s=1.0).verdict == "different"


class TestComparison:
    @pytest.mark.parametrize(
        ("streamed", "edges"),
        [
            ("turn on the light", Edges(0, 0, 0)),
            ("on the light", Edges(1, 0, 0)),
            ("turn on", Edges(0, 2, 0)),
            ("turn off the light", Edges(0, 0, 1)),
            ("turn on light please", Edges(0, 0, 2)),
            ("", Edges(4, 0, 0)),
        ],
    )
    def test_words_lost_at_the_edges_are_told_from_those_within(
        self, streamed: str, edges: Edges
    ) -> None:
        assert compare_edges("Turn on the light", streamed) == edges

    def test_finals_cut_apart_for_length_belong_together(self) -> None:
        parts = [final(0, continues=True), final(1, continues=True), final(2), final(3)]
        groups = whole_utterances(parts)
        assert [[f.utterance for f in group] for group in groups] == [[0, 1, 2], [3]]

    def test_known_word_times_belong_to_the_first_utterance(self) -> None:
        early, late = Partial(0, "", "a", 0.9), Partial(1, "b", "", 3.0)
        events: list[Event] = [early, final(0), late, final(1)]
        first, second = utterance_records(events, (("a", 0.1, 0.4),), 0.5)
        assert first.onset == pytest.approx(0.6)
        assert first.first_word_end == pytest.approx(0.9)
        assert [update.received for update in first.updates] == [0.9]
        assert second.first_word_end is None
        assert [update.stable for update in second.updates] == ["b"]


def final(utterance: int, *, continues: bool = False) -> Final:
    return Final(utterance, "text", (), 0.2, 1.0, 0.9, 0.0, 1.2, 1.5, continues)
