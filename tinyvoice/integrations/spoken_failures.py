"""What goes wrong in a Pipecat pipeline, told to the person in plain words by the agent's voice.

`SpokenFailures` stands between the language model and the voice. An endpoint that cannot be
reached, refuses, is slow, or breaks off in the middle of an answer is told as such, and the
conversation goes on. A tool that raises is the language model's to explain: Pipecat gives it the
failure as the tool's result. Nothing is retried here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from openai import APIConnectionError, APITimeoutError
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    StartFrame,
    TTSSpeakFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.utils.errors import ErrorCategory

PATIENCE_S = 4.0
"""Seconds without a word after which the person is told that the answer takes a moment."""

HEARING_REMINDER_S = 30.0
"""Seconds between two remarks that the agent cannot hear."""

OVERTAKING_S = 0.2
"""Seconds by which an error may be ahead of the answer that it belongs to."""

SLOW = "One moment, please."
CUT_OFF = "Sorry, my answer was cut off. Please ask me again."
UNREACHABLE = "Sorry, I cannot reach the language model. Please try again later."
NO_ANSWER = "Sorry, the language model does not answer. Please try again later."
REFUSED = "Sorry, the language model does not take my key. Please check the settings."
BUSY = "Sorry, the language model is too busy. Please try again later."
WRONG_REQUEST = "Sorry, the language model cannot work with my settings. Please check them."
UNKNOWN = "Sorry, something went wrong. Please say that again."
DEAF = "Sorry, I cannot hear you right now."

_SENTENCES = {
    ErrorCategory.CONNECTIVITY: UNREACHABLE,
    ErrorCategory.AUTHENTICATION: REFUSED,
    ErrorCategory.AUTHORIZATION: REFUSED,
    ErrorCategory.RATE_LIMIT: BUSY,
    ErrorCategory.QUOTA: BUSY,
    ErrorCategory.SERVER: NO_ANSWER,
    ErrorCategory.INVALID_REQUEST: WRONG_REQUEST,
}


class SpokenFailures(FrameProcessor):
    """Speaks of the failures of a language model and, if given, of a recogniser.

    Args:
        llm: the service whose answers pass through here.
        hearing: the recogniser of the same pipeline.
        patience_s: seconds without a word before `SLOW` is said, once in an answer.
    """

    def __init__(
        self,
        llm: FrameProcessor,
        hearing: FrameProcessor | None = None,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__()
        self._patience_s = patience_s
        self._timer: asyncio.Task[None] | None = None
        self._answering = False  # between the start and the end of an answer
        self._said_something = False  # in this answer
        self._calls = 0  # functions under way, whose results the answer waits for
        self._error: ErrorFrame | None = None  # to be told of when the answer has ended
        self._deaf_until = 0.0  # told of; clock of the event loop
        self._deaf: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        llm.add_event_handler("on_error", self._on_llm_error)
        if hearing is not None:
            hearing.add_event_handler("on_error", self._on_hearing_error)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Follow the answer that passes."""
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMFullResponseStartFrame):
            # Its error, and the functions it calls, may have overtaken it.
            self._answering, self._said_something = True, False
            await self._wait()
        elif isinstance(frame, LLMTextFrame):
            self._said_something = self._said_something or bool(frame.text.strip())
            await self._stop_waiting()
        elif isinstance(frame, FunctionCallsStartedFrame):
            self._calls += len(frame.function_calls)
            await self._wait()
        elif isinstance(frame, FunctionCallResultFrame | FunctionCallCancelFrame):
            self._calls = max(0, self._calls - 1)
            if not self._calls:
                await self._stop_waiting()
        elif isinstance(frame, InterruptionFrame):
            self._answering, self._error, self._calls = False, None, 0
            await self._stop_waiting()
        elif isinstance(frame, EndFrame | CancelFrame):
            await self._stop_waiting()
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._started.set()
        elif isinstance(frame, LLMFullResponseEndFrame):
            await self._end_answer()

    async def cleanup(self) -> None:
        """Stop waiting."""
        await self._stop_waiting()
        deaf, self._deaf = self._deaf, None
        if deaf is not None:
            await self.cancel_task(deaf)
        await super().cleanup()

    async def _end_answer(self) -> None:
        self._answering = False
        if not self._calls:
            await self._stop_waiting()
        await self._tell()

    async def _tell(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            await self._stop_waiting()
            await self.push_frame(TTSSpeakFrame(sentence_for(error, self._said_something)))

    async def _on_llm_error(self, _llm: Any, frame: ErrorFrame) -> None:
        if frame.category is ErrorCategory.APPLICATION:
            return  # a tool's: the language model is told
        # The error overtakes the frames of its answer, whose end tells of it; but not if it has
        # passed already.
        self._error = frame
        await asyncio.sleep(OVERTAKING_S)
        if not self._answering:
            await self._tell()

    async def _on_hearing_error(self, _hearing: Any, _frame: ErrorFrame) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._deaf_until:
            self._deaf_until = now + HEARING_REMINDER_S
            # The recogniser waits for us, and where it has no place it fails before we start.
            self._deaf = self.create_task(self._tell_deaf(), name="deaf")

    async def _tell_deaf(self) -> None:
        await self._started.wait()
        await self.push_frame(TTSSpeakFrame(DEAF))

    async def _wait(self) -> None:
        await self._stop_waiting()
        self._timer = self.create_task(self._remark(), name="patience")

    async def _stop_waiting(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            await self.cancel_task(timer)

    async def _remark(self) -> None:
        await asyncio.sleep(self._patience_s)
        self._timer = None  # nothing is left to stop
        await self.push_frame(TTSSpeakFrame(SLOW, append_to_context=False))


def sentence_for(frame: ErrorFrame, midway: bool = False) -> str:
    """What to say of a language model's failure; ``midway``, after it had begun to answer."""
    if midway:
        return CUT_OFF
    if isinstance(frame.exception, APITimeoutError | TimeoutError):
        return NO_ANSWER
    if isinstance(frame.exception, APIConnectionError):
        return UNREACHABLE
    return _SENTENCES.get(frame.category or ErrorCategory.UNKNOWN, UNKNOWN)
