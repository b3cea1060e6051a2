"""One conversation from the first word to the last, the same for every agent."""

from __future__ import annotations

import logging
from typing import Any

from pipecat.frames.frames import ErrorFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.transports.base_transport import BaseTransport
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from tinyvoice.audio.microphone import MicrophoneError

SAMPLE_RATE_IN = 16_000
SAMPLE_RATE_OUT = 24_000

STILL_THERE = "Are you still there? I cannot hear anything."
LONGEST_WARNING = 300

_log = logging.getLogger("tinyvoice.agents")


def aggregators(context: LLMContext, idle_s: float = 0.0) -> LLMContextAggregatorPair:
    """What keeps the conversation; turns are those that the recogniser proposes.

    After ``idle_s`` seconds in which nobody spoke the person is asked whether they are there, once
    until they speak again; 0 is never.
    """
    pair = LLMContextAggregatorPair(
        context,
        user_params=LLMUserAggregatorParams(
            user_turn_strategies=ExternalUserTurnStrategies(), user_idle_timeout=idle_s
        ),
    )
    user = pair.user()
    asked = False

    @user.event_handler("on_user_turn_idle")
    async def _ask(_aggregator: Any) -> None:
        nonlocal asked
        if not asked:
            asked = True
            await user.push_frame(TTSSpeakFrame(STILL_THERE, append_to_context=False))

    @user.event_handler("on_user_turn_started")
    async def _heard(_aggregator: Any, _strategy: Any) -> None:
        nonlocal asked
        asked = False

    return pair


def worker_for(pipeline: Pipeline) -> PipelineWorker:
    """The pipeline at the rates of speech; it lasts as long as somebody is there."""
    return PipelineWorker(
        pipeline,
        params=PipelineParams(
            audio_in_sample_rate=SAMPLE_RATE_IN, audio_out_sample_rate=SAMPLE_RATE_OUT
        ),
        idle_timeout_secs=None,
    )


async def hold(worker: PipelineWorker, transport: BaseTransport, greeting: str) -> None:
    """Greet whoever comes, and go on until they have gone."""

    @transport.event_handler("on_client_connected")
    async def _greet(_transport: Any, _client: Any) -> None:
        await worker.queue_frame(TTSSpeakFrame(greeting))

    @transport.event_handler("on_client_disconnected")
    async def _leave(_transport: Any, _client: Any) -> None:
        await worker.cancel()

    warned = ""

    @worker.event_handler("on_pipeline_error")
    async def _warn(_worker: Any, frame: ErrorFrame) -> None:
        """Who runs the agent reads what went wrong, once; the person hears it in plain words."""
        nonlocal warned
        text = " ".join(frame.error.split())[:LONGEST_WARNING]
        if text != warned and not isinstance(frame.exception, MicrophoneError):
            warned = text
            _log.warning(text)

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
