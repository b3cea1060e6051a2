"""Any OpenAI-compatible language model in a Pipecat pipeline, with failures that show.

Pipecat's own service waits ten minutes for an endpoint that says nothing and takes an answer that
breaks off for a whole one. In a conversation both are failures; here they are raised as such, for
`SpokenFailures` to tell. Everything else is Pipecat's `OpenAILLMService`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from openai import AsyncOpenAI, AsyncStream, Timeout
from openai.types.chat import ChatCompletionChunk
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.openai.llm import OpenAILLMService

from tinyvoice.errors import TinyvoiceError

CONNECT_S = 5.0
SILENCE_S = 20.0
"""Seconds without a byte after which an answer is given up."""


class AnswerCutOffError(TinyvoiceError):
    """An answer ended without saying that it had ended."""


class OpenAIEndpointService(OpenAILLMService):
    """A language model behind ``base_url``.

    Args:
        model: its name there.
        instructions: the system prompt.
        base_url: of the endpoint, such as ``http://127.0.0.1:11434/v1``.
        api_key: many local servers take any.
        silence_s: seconds without a byte after which the answer is given up.
        kwargs: those of Pipecat's service.
    """

    def __init__(
        self,
        *,
        model: str,
        instructions: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        silence_s: float = SILENCE_S,
        **kwargs: Any,
    ) -> None:
        self._silence_s = silence_s
        super().__init__(
            base_url=base_url,
            api_key=api_key or "none",
            settings=self.Settings(model=model, system_instruction=instructions),
            **kwargs,
        )

    def create_client(self, *arguments: Any, **keywords: Any) -> AsyncOpenAI:
        """Pipecat's client, less patient: who talks to somebody does not wait for three tries."""
        client: AsyncOpenAI = super().create_client(*arguments, **keywords)
        return client.with_options(
            timeout=Timeout(self._silence_s, connect=CONNECT_S), max_retries=0
        )

    async def get_chat_completions(  # type: ignore[override]
        self, context: LLMContext
    ) -> AsyncIterator[ChatCompletionChunk]:
        """The answer's chunks; AnswerCutOffError where they end too early."""
        return _whole(await super().get_chat_completions(context))


async def _whole(chunks: AsyncStream[ChatCompletionChunk]) -> AsyncIterator[ChatCompletionChunk]:
    finished = False
    try:
        async for chunk in chunks:
            finished = finished or any(choice.finish_reason for choice in chunk.choices or ())
            yield chunk
    finally:
        await chunks.close()
    if not finished:
        raise AnswerCutOffError("The language model's answer ended in the middle: ask again.")
