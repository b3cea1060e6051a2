"""Language models behind any server of OpenAI's chat-completions API, over the ``openai`` package.

Ollama, llama.cpp, vLLM, LM Studio, OpenAI itself and many others are such servers. Thoughts that a
server leaves in the text (``<think>…</think>``) are not passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Literal

from tinyvoice.errors import ConfigurationError
from tinyvoice.realtime.backends.chat_messages import chat_messages, chat_tools
from tinyvoice.realtime.backends.interface import (
    BackendFailed,
    Finished,
    ModelEvent,
    ResponseRequest,
    TextDelta,
    Usage,
)
from tinyvoice.realtime.backends.iterators import closing
from tinyvoice.realtime.backends.openai_server import OpenAIServer, failure
from tinyvoice.realtime.backends.tagged_text import TaggedPiece, TagSplitter
from tinyvoice.realtime.backends.tool_calls import ToolCallOrder

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk

_WHAT = "The language model"
_CODE = "language_model"
_AFTER_END_S = 1.0
"""How long the usage may lag behind an answer's end; then it is done without."""

_REASONS: dict[str, Literal["completed", "max_output_tokens", "content_filter"]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


class OpenAIChatModel:
    """A language model at a server.

    Args:
        url: base address; "" is OpenAI itself.
        model: its name there; "" takes the first that the server lists.
        key: "" takes ``OPENAI_API_KEY`` for OpenAI itself; other servers get none.
        temperature: 0 to 2; None leaves it to the server.
        max_tokens: of an answer where the client sets no limit; None leaves it to the server.
        timeout_s: longest wait for the first or the next part of an answer.
        connect_timeout_s: longest wait for a connection.
    """

    name = "openai"

    def __init__(
        self,
        url: str = "",
        model: str = "",
        key: str = "",
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout_s: float = 30.0,
        connect_timeout_s: float = 5.0,
    ) -> None:
        self._server = OpenAIServer(
            url, key, setting="llm", timeout_s=timeout_s, connect_timeout_s=connect_timeout_s
        )
        self._model = model
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._asks_usage = True

    async def open(self) -> None:
        """Prepare the client. The server need not be there yet.

        Raises:
            MissingExtraError: the package openai is not installed.
            ConfigurationError: address, key or model are missing or cannot work.
        """
        if not self._model and self._server.is_openai:
            raise ConfigurationError("OpenAI has many models: set llm_model.", key="llm_model")
        await self._server.open()

    async def close(self) -> None:
        """Close connections; answers that are being written fail."""
        await self._server.close()

    async def reply(self, request: ResponseRequest) -> AsyncIterator[ModelEvent]:
        """Answer. What the server does wrong ends the answer with `BackendFailed`."""
        import openai

        answer = _Answer()
        try:
            async with closing(await self._begin(request)) as chunks:
                while True:
                    wait = _AFTER_END_S if answer.reason else self._server.timeout_s
                    async with asyncio.timeout(wait):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    for event in answer.take(chunk):
                        yield event
        # ValueError: a line of the stream is no JSON.
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            # Once it has said that it is finished, what it does then does not matter.
            if not answer.reason:
                for event in answer.flush(complete=False):
                    yield event
                yield failure(error, _WHAT, _CODE, midway=answer.begun)
                return
        for event in answer.end():
            yield event

    async def _begin(self, request: ResponseRequest) -> AsyncIterator[ChatCompletionChunk]:
        import openai

        completions: Any = self._server.client.chat.completions
        arguments = await self._arguments(request)
        try:
            return await self._send(completions, arguments)
        except openai.APITimeoutError:
            raise
        except openai.APIConnectionError:
            # A connection kept from the last answer may have been closed by the server.
            return await self._send(completions, arguments)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if not self._asks_usage or "stream_options" not in str(error):
                raise
            self._asks_usage = False
            del arguments["stream_options"]
            return await self._send(completions, arguments)

    async def _send(self, completions: Any, arguments: dict[str, Any]) -> Any:
        async with asyncio.timeout(self._server.timeout_s):
            return await completions.create(**arguments)

    async def _arguments(self, request: ResponseRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": await self._model_name(),
            "messages": chat_messages(request),
            "stream": True,
            **chat_tools(request),
        }
        if self._asks_usage:
            arguments["stream_options"] = {"include_usage": True}
        limit = request.max_output_tokens or self._max_tokens
        if limit is not None:
            # OpenAI's newer models refuse the older name, many servers do not know the newer one.
            name = "max_completion_tokens" if self._server.is_openai else "max_tokens"
            arguments[name] = limit
        if self._temperature is not None:
            arguments["temperature"] = self._temperature
        return arguments

    async def _model_name(self) -> str:
        if not self._model:
            async with asyncio.timeout(self._server.timeout_s):
                listed = await self._server.client.models.list()
            self._model = listed.data[0].id if listed.data else "default"
        return self._model


class _Answer:
    """What has come of one answer."""

    def __init__(self) -> None:
        self.reason = ""
        """Why it ended, in the server's words; "" while it goes on."""
        self.begun = False
        self._usage = Usage()
        self._splitter = TagSplitter(["think"])
        self._calls = ToolCallOrder()
        self._said = False

    def take(self, chunk: ChatCompletionChunk) -> Iterator[ModelEvent]:
        if chunk.usage is not None:
            details = chunk.usage.prompt_tokens_details
            self._usage = Usage(
                chunk.usage.prompt_tokens or 0,
                chunk.usage.completion_tokens or 0,
                (details.cached_tokens if details is not None else None) or 0,
            )
        for choice in chunk.choices[:1] if chunk.choices else ():
            self.begun = True
            if choice.delta is not None:
                yield from self._text(self._splitter.feed(choice.delta.content or ""))
                for part in choice.delta.tool_calls or ():
                    function = part.function
                    yield from self._calls.feed(
                        part.index,
                        part.id,
                        function.name if function is not None else None,
                        function.arguments if function is not None else None,
                    )
            self.reason = choice.finish_reason or self.reason

    def flush(self, complete: bool) -> Iterator[ModelEvent]:
        """What was held back."""
        yield from self._text(self._splitter.flush())
        yield from self._calls.finish(complete)

    def end(self) -> Iterator[ModelEvent]:
        yield from self.flush(complete=self.reason not in ("", *_REASONS))
        if not self.reason:
            yield BackendFailed(f"{_CODE}_disconnected", f"{_WHAT} broke off before the end.")
        else:
            yield Finished(_REASONS.get(self.reason, "completed"), self._usage)

    def _text(self, pieces: Iterator[TaggedPiece]) -> Iterator[ModelEvent]:
        """What is not thought, without the blank lines that stand before it."""
        for piece in pieces:
            text = "" if piece.tag else piece.text
            text = text if self._said else text.lstrip()
            if text:
                self._said = True
                yield TextDelta(text)
