"""One conversation from the first word to the last, the same for every agent."""

from __future__ import annotations

from typing import Any

from pipecat.frames.frames import TTSSpeakFrame
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

SAMPLE_RATE_IN = 16_000
SAMPLE_RATE_OUT = 24_000


def aggregators(context: LLMContext) -> LLMContextAggregatorPair:
    """What keeps the conversation; turns are those that the recogniser proposes."""
    return LLMContextAggregatorPair(
        context,
        user_params=LLMUserAggregatorParams(user_turn_strategies=ExternalUserTurnStrategies()),
    )


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

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
