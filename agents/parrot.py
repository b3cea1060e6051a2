"""The parrot: says again what it has heard. No key, no network, nothing to set up.

The smallest complete agent, and a way to find out what a recogniser makes of your voice.
"""

from __future__ import annotations

from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.transports.base_transport import BaseTransport

from tinyvoice.integrations import ScriptedLLMService
from tinyvoice.integrations.scripted_llm import Turn
from tinyvoice.integrations.spoken_failures import SpokenFailures

from .conversation import aggregators, hold, worker_for
from .settings import AgentSettings

GREETING = "Hello. Say something, please."


def answer(turn: Turn) -> str:
    """What was said."""
    return turn.said or "Sorry, I did not hear any words. Please say that again."


def build_pipeline(transport: BaseTransport, settings: AgentSettings) -> PipelineWorker:
    """Ear, echo, voice."""
    hearing = settings.hearing()
    llm = ScriptedLLMService(answer)
    context = aggregators(LLMContext(), settings.idle_s)
    return worker_for(
        Pipeline(
            [
                transport.input(),
                hearing,
                context.user(),
                llm,
                SpokenFailures(llm, hearing),
                settings.speech(),
                transport.output(),
                context.assistant(),
            ]
        )
    )


async def run(transport: BaseTransport, settings: AgentSettings) -> None:
    """Hold one conversation."""
    await hold(build_pipeline(transport, settings), transport, GREETING)
