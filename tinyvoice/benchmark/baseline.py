"""The field's usual way of streaming, to compare with: transcribe the growing buffer anew.

At every update the model transcribes the whole utterance so far, from its first sample. What two
successive transcripts agree on is stable (local agreement, Macháček, Dabre and Bojar, "Turning
Whisper into Real-Time Transcription System", 2023). At the end of speech it transcribes the
utterance once more, for the final. One utterance is transcribed at a time; streams take turns, the
one that has waited longest first, and finals come before partials.

Voice activity, endpointing, word times and the interval of updates are the engine's own, so that
only the way in which text is made differs. It is no quality product: nothing else should use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.engine.engine import StreamingEngine
from tinyvoice.engine.live import FinalPass, Hypothesis, LiveStream
from tinyvoice.engine.runner import ModelRunner
from tinyvoice.engine.settings import EngineSettings, StreamSettings
from tinyvoice.engine.stream import Stream
from tinyvoice.metrics import common_prefix
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.transcript import Transcript
from tinyvoice.model.transcription import cut, join, transcribe_batch
from tinyvoice.vad.utterance import Samples


class LocalAgreement:
    """Stable text of successive hypotheses: the words that two in a row begin with alike.

    Words that have become stable stay, whatever later hypotheses say.
    """

    def __init__(self) -> None:
        self._committed: list[str] = []
        self._last: list[str] = []

    def update(self, text: str) -> None:
        """Take the next hypothesis."""
        words = text.split()
        agreed = common_prefix(self._last, words)
        self._committed += words[len(self._committed) : agreed]
        self._last = words

    @property
    def stable(self) -> str:
        """The words that two hypotheses agreed on."""
        return " ".join(self._committed)

    @property
    def tail(self) -> str:
        """The rest of the latest hypothesis, its leading blank included."""
        rest = " ".join(self._last[len(self._committed) :])
        return f" {rest}" if rest and self._committed else rest


class GrowingBufferRunner(ModelRunner):
    """Does what the engine's runner does, by transcribing whole utterances."""

    def open(self, settings: StreamSettings) -> LiveStream:
        """A new stream; there is nothing to be cached for it."""
        self.prepare(settings)
        return LiveStream(settings, self.detector(settings), self.vad.new_state(), slot=None)

    def adopt(self, stream: LiveStream) -> None:
        """Nothing to do: a stream has nothing here."""

    def forget_hypothesis(self, stream: LiveStream) -> None:
        """Drop what has been understood of an utterance."""
        stream.hypothesis = None

    def rewind(self, stream: LiveStream) -> None:
        """Nothing to do: every update begins at the utterance's beginning."""

    @torch.inference_mode()
    def run_partials(self, streams: Sequence[LiveStream]) -> None:
        """Transcribe each stream's utterance so far."""
        for stream in streams:
            detector = stream.detector
            if stream.hypothesis is None:
                agreement: Any = LocalAgreement()
                stream.hypothesis = Hypothesis(
                    detector.utterance, None, agreement, detector.audio_start
                )
            agreement = stream.hypothesis.stable
            samples = detector.new_audio(detector.audio_start)
            agreement.update(self._transcribe_whole(samples, word_times=False).text)
            stream.hypothesis.heard = detector.position
            stream.tell_partial(detector.utterance, agreement.stable, agreement.tail)

    @torch.inference_mode()
    def run_finals(self, passes: Sequence[FinalPass], *, word_times: bool = True) -> None:
        """Transcribe each utterance once more, whole."""
        for final_pass in passes:
            final_pass.transcript = self._transcribe_whole(final_pass.samples, word_times)

    def _transcribe_whole(self, samples: Samples, word_times: bool) -> Transcript:
        pieces = cut(self.model, 0, samples)
        parts = [transcribe_batch(self.model, [piece], word_times)[0] for piece in pieces]
        return join(parts, len(samples) / SAMPLE_RATE)


class GrowingBufferEngine(StreamingEngine):
    """The baseline behind the surface of :class:`StreamingEngine`."""

    def __init__(
        self,
        model: ASRModel | str | Path = "embedded",
        settings: EngineSettings | None = None,
        **loading: Any,
    ) -> None:
        # One utterance at a time, as one model behind a queue does it.
        super().__init__(model, replace(settings or EngineSettings(), max_batch=1), **loading)

    def stream(
        self,
        sample_rate: int = SAMPLE_RATE,
        *,
        channels: int = 1,
        encoding: str = "pcm16",
        settings: StreamSettings | None = None,
        **changes: Any,
    ) -> Stream:
        """As the engine's, but the final pass begins when the speech has ended, not before."""
        own = (settings or StreamSettings()).changed(**changes)
        own = own.changed(early_final_ms=min(own.silence_ms, 2_000))
        return super().stream(sample_rate, channels=channels, encoding=encoding, settings=own)

    def _load(self) -> ModelRunner:
        loaded = super()._load()
        runner = GrowingBufferRunner(loaded.model, self.settings)
        runner.warm_up()
        return runner
