"""A language model and a voice as one: text while it is written, speech while it is spoken.

In an audio answer three things go on at the same time, each a little ahead of the next: the model
writes, the voice speaks clause by clause, and the client is given what is ready. The queues between
them are bounded, so that a model that writes a book, or a client that does not listen, holds the
others up rather than the memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from tinyvoice.errors import TinyvoiceError
from tinyvoice.realtime.backends.clauses import ClauseCutter
from tinyvoice.realtime.backends.interface import (
    AudioDelta,
    BackendEvent,
    BackendFailed,
    Finished,
    LanguageModel,
    ModelEvent,
    ResponseRequest,
    SpokenAudio,
    SpokenMark,
    TextDelta,
    Voice,
)
from tinyvoice.realtime.backends.iterators import closing
from tinyvoice.realtime.backends.sound import DeltaCutter, SpeechEncoder
from tinyvoice.realtime.backends.spoken_text import SpeechCleaner, SpokenText

logger = logging.getLogger(__name__)

CLAUSES_AHEAD = 4
"""Clauses the model may have written that the voice has not begun."""
EVENTS_AHEAD = 64
"""Events, at most 13 s of speech, that may wait for the client."""

_LAST = (Finished, BackendFailed)
_FAULT = BackendFailed("server_error", "Something went wrong while the answer was made.")


class ConversationResponder:
    """Answers requests with a language model and a voice; any number at the same time.

    Args:
        language_model: writes the answers.
        voice: speaks them; None leaves audio answers with their text alone.
        speaker: the voice's name to use whatever a client asks for; "" follows the client.
    """

    def __init__(
        self, language_model: LanguageModel, voice: Voice | None, *, speaker: str = ""
    ) -> None:
        self.language_model = language_model
        self.voice = voice
        self.speaker = speaker

    async def open(self) -> None:
        """Open language model and voice; if either cannot be opened, neither stays open.

        Raises:
            ConfigurationError, MissingExtraError, CheckpointError: it cannot work as configured.
        """
        await self.language_model.open()
        try:
            if self.voice is not None:
                await self.voice.open()
        except BaseException:
            await self.language_model.close()
            raise

    async def close(self) -> None:
        """Close both."""
        try:
            await self.language_model.close()
        finally:
            if self.voice is not None:
                await self.voice.close()

    async def respond(self, request: ResponseRequest) -> AsyncIterator[BackendEvent]:
        """Answer; ends with `Finished` or `BackendFailed`. Closing the iterator cancels it.

        The text of an audio answer comes clause by clause, each before its sound and each followed
        by marks, whose characters count from the beginning of the answer's text.
        """
        answer: AsyncIterator[BackendEvent]
        if request.modality == "audio" and self.voice is not None:
            answer = self._speak(request, self.voice)
        else:
            answer = self._write(request)
        async with closing(answer):
            async for event in answer:
                yield event

    async def _write(self, request: ResponseRequest) -> AsyncIterator[ModelEvent]:
        """The model's events, which end with one of the two last ones whatever happens."""
        try:
            async with closing(self.language_model.reply(request)) as reply:
                async for event in reply:
                    yield event
                    if isinstance(event, _LAST):
                        return
        except TinyvoiceError as error:
            yield BackendFailed("language_model_failed", str(error))
            return
        except Exception:
            logger.exception("The language model %s raised.", self.language_model.name)
            yield _FAULT
            return
        yield Finished()

    async def _speak(self, request: ResponseRequest, voice: Voice) -> AsyncIterator[BackendEvent]:
        clauses: asyncio.Queue[str | ModelEvent] = asyncio.Queue(CLAUSES_AHEAD)
        events: asyncio.Queue[BackendEvent] = asyncio.Queue(EVENTS_AHEAD)
        speaking = _Speaking(voice, self.speaker or request.voice, request, events.put)
        tasks = [
            asyncio.create_task(_cut(self._write(request), clauses)),
            asyncio.create_task(speaking.run(clauses)),
        ]
        try:
            while True:
                event = await events.get()
                yield event
                if isinstance(event, _LAST):
                    return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _cut(written: AsyncIterator[ModelEvent], clauses: asyncio.Queue[Any]) -> None:
    """Put the model's text clause by clause, and its other events between them."""
    cutter = ClauseCutter()
    begun = False
    async with closing(written):
        async for event in written:
            if isinstance(event, TextDelta):
                text = event.text if begun else event.text.lstrip()
                begun = begun or bool(text)
                complete: list[Any] = list(cutter.feed(text))
            else:
                complete = [*cutter.flush(), event]
            for piece in complete:
                await clauses.put(piece)


class _Speaking:
    """One audio answer: its text so far, its sound so far, and what marks join them."""

    def __init__(
        self,
        voice: Voice,
        speaker: str,
        request: ResponseRequest,
        put: Callable[[BackendEvent], Awaitable[None]],
    ) -> None:
        self._voice = voice
        self._speaker = speaker
        self._request = request
        self._put = put
        self._cleaner = SpeechCleaner()
        self._deltas = DeltaCutter(request.encoding)
        self._characters = 0
        """Characters of all clauses before the one being spoken."""
        self._marks: list[SpokenMark] = []
        """Marks whose sound has not been given yet."""
        self._marked = SpokenMark(0.0, 0)

    async def run(self, clauses: asyncio.Queue[str | ModelEvent]) -> None:
        """Put the events of an answer, the last one included."""
        while True:
            piece = await clauses.get()
            if isinstance(piece, str):
                failed = await self._say(piece)
                if failed is not None:
                    await self._put(failed)
                    return
            else:
                await self._put(piece)
                if isinstance(piece, _LAST):
                    return

    async def _say(self, clause: str) -> BackendFailed | None:
        await self._put(TextDelta(clause))
        spoken = self._cleaner.clean(clause)
        try:
            if spoken.text:
                await self._speak(spoken)
        except TinyvoiceError as error:
            return BackendFailed("voice_failed", str(error))
        except Exception:
            logger.exception("The voice %s raised.", self._voice.name)
            return _FAULT
        self._characters += len(clause)
        self._marks.append(SpokenMark(self._deltas.taken_ms, self._characters))
        await self._put_all(self._deltas.flush())
        return None

    async def _speak(self, spoken: SpokenText) -> None:
        start_ms = self._deltas.taken_ms
        encoder = SpeechEncoder(self._voice.sample_rate, self._request.encoding)
        timed = False
        speech = self._voice.speak(spoken.text, self._speaker, self._request.speed)
        async with closing(speech):
            async for stretch in speech:
                timed = self._mark_words(spoken, stretch, start_ms) or timed
                await self._put_all(self._deltas.feed(encoder.encode(stretch.pcm16)))
        rest = encoder.encode(b"", last=True)
        if not timed:
            length_ms = self._deltas.taken_ms - start_ms + self._deltas.duration_ms(rest)
            self._marks.extend(self._proportional(spoken, start_ms, length_ms))
        await self._put_all(self._deltas.feed(rest))

    def _mark_words(self, spoken: SpokenText, stretch: SpokenAudio, start_ms: float) -> bool:
        for characters, seconds in stretch.words:
            at = self._characters + spoken.original(characters)
            self._marks.append(SpokenMark(start_ms + 1000 * seconds, at))
        return bool(stretch.words)

    def _proportional(
        self, spoken: SpokenText, start_ms: float, length_ms: float
    ) -> Iterator[SpokenMark]:
        """Marks for a voice that tells no times: each word takes its share of letters."""
        for position, character in enumerate(spoken.text):
            if character == " ":
                share = position / len(spoken.text)
                at = self._characters + spoken.original(position)
                yield SpokenMark(start_ms + share * length_ms, at)

    async def _put_all(self, deltas: Iterator[AudioDelta]) -> None:
        for delta in deltas:
            await self._put(delta)
            await self._put_marks()
        await self._put_marks()

    async def _put_marks(self) -> None:
        """Put the marks of the sound that has been given; never one that falls behind another."""
        while self._marks and self._marks[0].audio_ms <= self._deltas.cut_ms + 1e-6:
            mark = self._marks.pop(0)
            mark = SpokenMark(
                max(mark.audio_ms, self._marked.audio_ms),
                max(mark.characters, self._marked.characters),
            )
            if mark.characters > self._marked.characters:
                self._marked = mark
                await self._put(mark)
