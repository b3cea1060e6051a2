"""eSpeak NG as the voice of a Pipecat pipeline: offline, quick, unmistakably a machine.

Texts are spoken in a process of the service's own, so that the pipeline's event loop stays free.
With word times (the default) the words reach the conversation's context as they are heard, so that
an interrupted answer is remembered as far as it was spoken. They follow the pipeline's clock: where
nobody listens in real time (tests, recordings), leave them off.

Written against pipecat-ai 1.14.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipecat.frames.frames import Frame, TTSAudioRawFrame
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.utils.tracing.service_decorators import traced_tts
from pipecat.utils.types import NOT_GIVEN, NotGiven, assert_given

from tinyvoice.errors import TinyvoiceError
from tinyvoice.realtime.backends.errors import VoiceError
from tinyvoice.realtime.backends.espeak import DEFAULT_VOICE, EspeakVoice
from tinyvoice.realtime.backends.interface import SpokenAudio

FRAME_MS = 100
"""Sound in a frame, in milliseconds."""


@dataclass
class EspeakTTSSettings(TTSSettings):
    """What can be changed while the pipeline runs; ``voice`` as `EspeakVoice` takes it."""

    speed: float | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    """Factor of the voice's own rate, 0.5 to 2.5; what lies beyond is brought to these."""


class EspeakTTSService(TTSService):
    """Speaks with eSpeak NG.

    Args:
        word_timestamps: whether words enter the context as they are heard, or each sentence once
            its sound has been handed on.
        settings: ``voice`` (``alloy`` unless said) and ``speed``.

    Setting it up raises MissingExtraError where the package espeakng-loader is not installed.
    """

    Settings = EspeakTTSSettings
    _settings: EspeakTTSSettings

    def __init__(
        self,
        *,
        word_timestamps: bool = True,
        settings: EspeakTTSSettings | None = None,
        **kwargs: Any,
    ) -> None:
        """``kwargs`` are those of Pipecat's services."""
        store = self.Settings(model=None, voice=DEFAULT_VOICE, language=None, speed=1.0)
        if settings is not None:
            store.apply_update(settings)
        super().__init__(
            push_text_frames=not word_timestamps,
            push_start_frame=True,
            push_stop_frames=True,
            settings=store,
            **kwargs,
        )
        self._word_timestamps = word_timestamps
        self._voice = EspeakVoice(processes=1)
        self._spoken_s: dict[str, float] = {}  # sound of each audio context so far

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]
        """Start the process that speaks."""
        await super().setup(setup)
        await self._voice.open()

    async def cleanup(self) -> None:
        """End the process."""
        await super().cleanup()
        await self._voice.close()

    def can_generate_metrics(self) -> bool:
        """Time to first byte and usage are measured."""
        return True

    async def on_audio_context_completed(self, context_id: str) -> None:
        """Forget how much of the context was spoken."""
        self._spoken_s.pop(context_id, None)

    async def on_audio_context_interrupted(self, context_id: str) -> None:
        """Forget how much of the context was spoken."""
        self._spoken_s.pop(context_id, None)

    @traced_tts
    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Speak ``text``: frames of sound at the pipeline's rate, its words with their times."""
        await self.start_tts_usage_metrics(text)
        voice = assert_given(self._settings.voice) or DEFAULT_VOICE
        sounded = False
        try:
            async for spoken in self._speak(text, voice, assert_given(self._settings.speed)):
                if self._word_timestamps:
                    await self._time_words(text, spoken.words, context_id)
                async for frame in self._stream_audio_frames_from_iterator(
                    _frames(spoken.pcm16, self._voice.sample_rate),
                    in_sample_rate=self._voice.sample_rate,
                    context_id=context_id,
                ):
                    sounded = True
                    yield frame
                seconds = len(spoken.pcm16) / 2 / self._voice.sample_rate
                self._spoken_s[context_id] = self._spoken_s.get(context_id, 0.0) + seconds
        except TinyvoiceError as error:
            await self.push_error(str(error), exception=error)
        if not sounded:
            # A text without words ("…") is no failure: it lasts an instant.
            silence = bytes(2 * (self.sample_rate * FRAME_MS // 1000))
            yield TTSAudioRawFrame(silence, self.sample_rate, 1, context_id=context_id)

    async def _speak(self, text: str, voice: str, speed: float) -> AsyncIterator[SpokenAudio]:
        """Speak ``text``; a process that has died is replaced, and the text spoken by the next."""
        try:
            async for spoken in self._voice.speak(text, voice, speed):
                yield spoken
        except VoiceError:
            async for spoken in self._voice.speak(text, voice, speed):
                yield spoken

    async def _time_words(
        self, text: str, ends: Sequence[tuple[int, float]], context_id: str
    ) -> None:
        """Each word begins where the one before it ended."""
        start_s = self._spoken_s.get(context_id, 0.0)
        begin_s, begin = 0.0, 0
        words = []
        for end, end_s in ends:
            word = text[begin:end].strip()
            if word:
                words.append((word, start_s + begin_s))
            begin_s, begin = end_s, end
        await self.add_word_timestamps(words, context_id)


async def _frames(pcm16: bytes, sample_rate: int) -> AsyncIterator[bytes]:
    size = 2 * (sample_rate * FRAME_MS // 1000)
    for start in range(0, len(pcm16), size):
        yield pcm16[start : start + size]
