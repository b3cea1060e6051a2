"""Runs the model for many streams at once.

The runner computes and decides nothing: the scheduler hands it streams, it makes one pass over all
of them and puts the outcome back. Everything here runs in the engine's one worker thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.engine.decoding import (
    Decoded,
    DecodeJob,
    FinalJob,
    StreamDecoder,
    build_decoder,
)
from tinyvoice.engine.encoders import IncrementalEncoder, build_encoder
from tinyvoice.engine.errors import EngineError
from tinyvoice.engine.events import TokenLogprob
from tinyvoice.engine.live import FinalPass, Hypothesis, LiveStream
from tinyvoice.engine.observer import SafeObserver
from tinyvoice.engine.settings import EngineSettings, StreamSettings
from tinyvoice.engine.stability import StablePrefix
from tinyvoice.engine.token_logprobs import join_tokens, token_logprobs
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.generation import GeneratedTokens
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.transcript import Transcript
from tinyvoice.model.transcription import (
    Piece,
    cut,
    encode_pieces,
    join,
    longest_piece_s,
    read_pieces,
)
from tinyvoice.vad.segmentation import earliest_cut
from tinyvoice.vad.silero import SileroVAD
from tinyvoice.vad.smart_turn import SmartTurn
from tinyvoice.vad.utterance import UtteranceDetector

TURN_OVER = 0.5
"""Probability from which a turn counts as finished, as in smart-turn's own use."""


class NoNumbersError(EngineError):
    """The model computed something that is no number."""


class ModelRunner:
    """Model, voice activity and turn detection, with the state of every stream."""

    def __init__(self, model: ASRModel, settings: EngineSettings) -> None:
        if model.need_processor().sample_rate != SAMPLE_RATE:
            raise ConfigurationError(
                f"The model takes {model.need_processor().sample_rate} samples per second and the "
                f"engine gives {SAMPLE_RATE}: use a model of that rate.",
                key="sampling_rate",
            )
        self.model, self.settings = model, settings
        self.vad: SileroVAD
        self.encoder: IncrementalEncoder
        self.decoder: StreamDecoder
        self.build()
        self.smart_turn: SmartTurn | None = None
        self.observer = SafeObserver(None)
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="tinyvoice-turns")

    def build(self) -> None:
        """Make everything that streams work with, from the same model; again where it is broken.

        The streams there are by then have nothing in it: see `adopt`.
        """
        self.vad = SileroVAD.load()
        self.encoder = build_encoder(self.model, self.settings.encoder)
        self.decoder = build_decoder(self.model, self.settings.max_streams + 1)

    def adopt(self, stream: LiveStream) -> None:
        """Give a stream its place in the caches that `build` made."""
        stream.slot = self.decoder.open()

    def open(self, settings: StreamSettings) -> LiveStream:
        """A new stream with everything it needs in the caches.

        Raises:
            MissingExtraError: semantic endpointing is asked for and not installed.
        """
        self.prepare(settings)
        return LiveStream(
            settings, self.detector(settings), self.vad.new_state(), self.decoder.open()
        )

    def detector(self, settings: StreamSettings) -> UtteranceDetector:
        """Where a new stream's utterances begin and end; none is longer than the encoder takes."""
        longest = min(self.settings.max_utterance_s, longest_piece_s(self.model))
        return UtteranceDetector(settings, longest)

    def prepare(self, settings: StreamSettings) -> None:
        """Load what the settings need beside the model; raises `MissingExtraError`."""
        if settings.endpointing == "semantic" and self.smart_turn is None:
            self.smart_turn = SmartTurn.load()

    def close(self, stream: LiveStream) -> None:
        """Give back what the stream holds."""
        self.forget_hypothesis(stream)
        if stream.slot is not None:
            self.decoder.close(stream.slot)
            stream.slot = None
        stream.inbox.clear()
        stream.windows.clear()
        stream.probabilities.clear()
        stream.ending.clear()
        stream.final_pass = None

    def forget_hypothesis(self, stream: LiveStream) -> None:
        """Drop what has been understood of an utterance."""
        stream.hypothesis = None

    def rewind(self, stream: LiveStream) -> None:
        """Understand the utterance from its beginning again: a pass broke off in the middle."""
        hypothesis = stream.hypothesis
        if hypothesis is not None:
            hypothesis.encoder = self.encoder.new_state()
            hypothesis.heard = stream.detector.audio_start
            self.decoder.reset(stream.slot)

    # --- passes ----------------------------------------------------------------------------------

    @torch.inference_mode()
    def judge(self, streams: Sequence[LiveStream]) -> None:
        """Voice activity: give the streams' new windows their probabilities."""
        windows = [stream.unjudged() for stream in streams]
        busy = [(s, w) for s, w in zip(streams, windows, strict=True) if len(w)]
        if not busy:
            return
        # On copies: a batch that raises in the middle leaves every stream as it was.
        states = [stream.vad.copy() for stream, _ in busy]
        found = self.vad.probabilities(states, [w for _, w in busy])
        for (stream, _), state, probabilities in zip(busy, states, found, strict=True):
            stream.vad = state
            stream.probabilities.extend(probabilities.tolist())

    def ask_turn(self, stream: LiveStream, wake: Callable[[], None]) -> None:
        """Ask the turn model whether the speaker has finished; ``wake`` is called when it knows.

        It takes a tenth of a second, in a thread of its own, and only this stream waits for it.
        """
        assert self.smart_turn is not None
        audio = stream.detector.new_audio(stream.detector.audio_start)
        answer = self._turns.submit(self.smart_turn.complete_probability, audio)
        answer.add_done_callback(lambda _: wake())
        stream.turn_answer = answer

    def take_turn(self, stream: LiveStream) -> None:
        """Tell a stream what the turn model has answered."""
        assert stream.turn_answer is not None
        probability = stream.turn_answer.result()
        stream.turn_in_question, stream.turn_answer = False, None
        stream.follow(stream.detector.answer(probability >= TURN_OVER))

    @torch.inference_mode()
    def run_partials(self, streams: Sequence[LiveStream]) -> None:
        """Bring the hypotheses of the streams up to date and tell them.

        Encoder and projector see the new audio only; the decoder makes one pass over what is new,
        the provisional tail and the previous hypothesis, which is its draft.
        """
        hypotheses = [self._hypothesis(stream) for stream in streams]
        audio = [
            self._unheard(stream, hypothesis)
            for stream, hypothesis in zip(streams, hypotheses, strict=True)
        ]
        began = time.monotonic()
        embeddings = self.encoder.advance([h.encoder for h in hypotheses], audio)
        self.observer.batch("encode", len(streams), time.monotonic() - began)
        jobs = [
            DecodeJob(stream.slot, new.frozen, new.tail, hypothesis.ids)
            for stream, hypothesis, new in zip(streams, hypotheses, embeddings, strict=True)
        ]
        for stream, decoded in zip(streams, self.decoder.update(jobs), strict=True):
            self._tell_partial(stream, decoded)

    def _unheard(self, stream: LiveStream, hypothesis: Hypothesis) -> np.ndarray:
        """New audio of the utterance, behind the silence that the model wants to begin with."""
        audio = stream.detector.new_audio(hypothesis.heard)
        padding = self.model.config.silence_padding_s
        if not padding or hypothesis.heard != stream.detector.audio_start:
            return audio
        return np.concatenate([np.zeros(round(padding * SAMPLE_RATE), dtype=np.float32), audio])

    def _hypothesis(self, stream: LiveStream) -> Hypothesis:
        if stream.hypothesis is None:
            self.decoder.reset(stream.slot)
            detector = stream.detector
            stable = StablePrefix(self.model.tokenizer)
            stream.hypothesis = Hypothesis(
                detector.utterance, self.encoder.new_state(), stable, detector.audio_start
            )
        return stream.hypothesis

    def _tell_partial(self, stream: LiveStream, decoded: Decoded) -> None:
        hypothesis = stream.hypothesis
        assert hypothesis is not None
        if decoded.failed:
            raise NoNumbersError("The model's scores are not numbers; its weights may be damaged.")
        hypothesis.ids, hypothesis.heard = decoded.ids, stream.detector.position
        heard = stream.detector.new_audio(stream.detector.audio_start)
        longest_s = stream.detector.max_utterance_s
        hypothesis.stable.certain_s = earliest_cut(heard, SAMPLE_RATE, longest_s)
        hypothesis.stable.update(decoded, len(heard) / SAMPLE_RATE)
        stream.tell_partial(
            stream.detector.utterance, hypothesis.stable.stable, hypothesis.stable.tail
        )

    @torch.inference_mode()
    def run_finals(self, passes: Sequence[FinalPass], *, word_times: bool = True) -> None:
        """The final pass: whole utterances, encoded as offline, their hypotheses as drafts."""
        pieces: list[Piece] = []
        drafts: list[Sequence[int]] = []
        for index, final_pass in enumerate(passes):
            parts = cut(self.model, index, final_pass.samples, self.settings.max_utterance_s)
            pieces += parts
            drafts += [final_pass.draft] + [()] * (len(parts) - 1)
        transcripts = self._transcribe(pieces, drafts, word_times)
        for index, final_pass in enumerate(passes):
            found = [t for t, p in zip(transcripts, pieces, strict=True) if p.clip == index]
            final_pass.tokens = join_tokens(tokens for _, tokens in found)
            duration = len(final_pass.samples) / SAMPLE_RATE
            final_pass.transcript = join([transcript for transcript, _ in found], duration)

    def _transcribe(
        self, pieces: Sequence[Piece], drafts: Sequence[Sequence[int]], word_times: bool
    ) -> list[tuple[Transcript, tuple[TokenLogprob, ...]]]:
        """As `transcribe_batch` of offline transcription, with drafts, and with tokens."""
        encoded = encode_pieces(self.model, pieces)
        jobs = [
            FinalJob(encoded.embeds[row, : int(count)], draft)
            for row, (count, draft) in enumerate(zip(encoded.counts, drafts, strict=True))
        ]
        found = self.decoder.decode_finals(jobs)
        if any(decoded.failed for decoded in found):
            raise NoNumbersError("The model's scores are not numbers; its weights may be damaged.")
        outputs = [GeneratedTokens(decoded.ids, decoded.logprobs) for decoded in found]
        transcripts = read_pieces(self.model, pieces, encoded, outputs, word_times)
        return [
            (
                transcript,
                token_logprobs(self.model.tokenizer, out.ids, out.logprobs, transcript.text),
            )
            for transcript, out in zip(transcripts, outputs, strict=True)
        ]

    def shut_down(self) -> None:
        """End the threads; what is under way is waited for."""
        self._turns.shutdown()

    def warm_up(self) -> None:
        """Make the first utterance as fast as the hundredth: run every pass once."""
        stream = self.open(StreamSettings(endpointing="manual"))
        noise = np.random.default_rng(0).normal(0, 0.01, 2 * SAMPLE_RATE).astype(np.float32)
        self.vad.probabilities([stream.vad], [noise[:5120].reshape(10, 512)])
        for half in (noise[:SAMPLE_RATE], noise[SAMPLE_RATE:]):
            stream.detector.hear(half, None)
            self.run_partials([stream])
        stream.follow(stream.detector.commit())
        self.run_finals(list(stream.ending))
        self.close(stream)
