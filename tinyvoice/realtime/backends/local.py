"""A language model run here, through transformers: Qwen3, or any that chats in its format.

The model comes from a folder or the Hub, as safetensors; code that a checkpoint brings along is
never run. It answers without thinking aloud. One answer is written at a time, in a thread of its
own; others wait for their turn. A tool choice is enforced by beginning the call on behalf of the
model. What was computed for one answer is not kept for the next.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from tinyvoice.errors import CheckpointError
from tinyvoice.realtime.backends.chat_messages import chat_messages, chat_tools
from tinyvoice.realtime.backends.conversation import chosen_function
from tinyvoice.realtime.backends.interface import (
    BackendFailed,
    Begun,
    Finished,
    ModelEvent,
    ResponseRequest,
    TextDelta,
    ToolCallDone,
    Usage,
    Waiting,
)
from tinyvoice.realtime.backends.tagged_text import TagSplitter
from tinyvoice.realtime.backends.written_call import WrittenCall

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "Qwen/Qwen3-0.6B"
MAX_TOKENS = 1024
"""Of an answer for which nobody sets a limit."""

_TOP_P, _TOP_K = 0.8, 20
"""Sampling that Qwen3's model card advises for answers without thought."""
_FAILED = BackendFailed("language_model_failed", "The language model cannot answer.")
_TOO_LONG = BackendFailed(
    "context_length_exceeded", "The conversation has become too long for the language model."
)
_UNREADABLE = BackendFailed(
    "language_model_failed", "The language model made a function call that cannot be read."
)


_Piece = str | Begun | Finished | BackendFailed
"""What the model's thread tells: that it begins, text, and how it ended."""


class LocalModel:
    """A language model in this process.

    Args:
        model: a folder or a Hub id.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        temperature: None or 0 is greedy.
        max_tokens: of an answer where the client sets no limit.
    """

    name = "local"

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        device: str = "auto",
        temperature: float | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self._source = model
        self._device = device
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._model: Any = None
        self._tokenizer: Any = None
        self._thread: ThreadPoolExecutor | None = None
        self._running: set[_Writing] = set()
        self._newest: _Writing | None = None
        """The answer behind which the next one stands: the thread takes them in order."""

    async def open(self) -> None:
        """Load the model and let it write a word, so that the first answer is as fast as others.

        Raises:
            CheckpointError: there is no such model, or it cannot be read or does not chat.
            ConfigurationError: there is no such device.
        """
        if self._thread is not None:
            return
        self._thread = ThreadPoolExecutor(1, "language-model")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
            greeting = {"type": "message", "role": "user", "content": "Hello"}
            async for _ in self.reply(ResponseRequest([greeting], max_output_tokens=1)):
                pass
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop the answers being written and let go of the model."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        for writing in self._running:
            writing.cancelled.set()
        await asyncio.get_running_loop().run_in_executor(None, thread.shutdown)
        self._model = self._tokenizer = None

    async def reply(self, request: ResponseRequest) -> AsyncIterator[ModelEvent]:
        """Answer; closing the iterator stops the model after the token it is at."""
        if self._thread is None:
            raise RuntimeError("The language model is not open.")
        writing = _Writing(asyncio.get_running_loop())
        waits = self._newest is not None and not self._newest.ended
        self._newest = writing
        self._running.add(writing)
        self._thread.submit(self._write, request, writing, waits)
        told = _Told(request.parallel_tool_calls)
        try:
            if waits:
                yield Waiting()
            while not told.over:
                piece = await writing.pieces.get()
                for event in told.take(piece):
                    yield event
        finally:
            writing.cancelled.set()
            self._running.discard(writing)

    def _load(self) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from tinyvoice.model.checkpoint import resolve_folder
        from tinyvoice.model.devices import choose

        device, dtype = choose(self._device)
        folder = resolve_folder(self._source)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, dtype=dtype
            )
        except Exception as error:  # transformers and its tokenizers have no common base
            raise CheckpointError(
                f"{self._source} cannot be loaded as a language model "
                f"({' '.join(str(error).split())[:200]}): give a folder or a Hub id with "
                "safetensors, such as Qwen/Qwen3-0.6B.",
                key="llm_model",
            ) from error
        if not self._tokenizer.chat_template:
            raise CheckpointError(
                f"{self._source} has no chat template: give an instruction-tuned model.",
                key="llm_model",
            )
        self._model = model.eval()
        self._model.to(device)

    def _write(self, request: ResponseRequest, writing: _Writing, waited: bool) -> None:
        """In the model's thread: one answer."""
        try:
            if not writing.cancelled.is_set():
                if waited:
                    writing.put(Begun())
                self._generate(request, writing)
        except Exception:
            logger.exception("The language model raised.")
            writing.put(_FAILED)
        finally:
            writing.ended = True

    def _generate(self, request: ResponseRequest, writing: _Writing) -> None:
        from transformers import GenerationConfig, StoppingCriteriaList

        opening = _opening(request)
        prompt = self._prompt(request, opening)
        room = self._context() - prompt.shape[1]
        if room < 1:
            writing.put(_TOO_LONG)
            return
        limit = min(request.max_output_tokens or self._max_tokens, room)
        generation = self._model.generation_config
        stops = generation.eos_token_id or self._tokenizer.eos_token_id
        config = GenerationConfig(
            max_new_tokens=limit,
            eos_token_id=stops,
            pad_token_id=stops[0] if isinstance(stops, list) else stops,
            **self._sampling(),
        )
        writing.begin(self._tokenizer, prompt.shape[1], opening)
        output = self._model.generate(
            prompt,
            attention_mask=prompt.new_ones(prompt.shape),
            generation_config=config,
            streamer=writing,
            stopping_criteria=StoppingCriteriaList([writing.stop]),
        )
        stopped = int(output[0, -1]) in (stops if isinstance(stops, list) else [stops])
        writing.put(Finished("completed" if stopped else "max_output_tokens", writing.usage()))

    def _prompt(self, request: ResponseRequest, opening: str) -> Any:
        """Token ids (1, tokens) of the conversation and what is begun for the model."""
        name = chosen_function(request)
        if name is not None:
            request = replace(request, tools=[t for t in request.tools if t.get("name") == name])
        messages = chat_messages(request, images=False)
        for message in messages:
            message["content"] = message["content"] or ""
        text = self._tokenizer.apply_chat_template(
            messages,
            tools=chat_tools(request).get("tools"),
            add_generation_prompt=True,
            enable_thinking=False,
            tokenize=False,
        )
        encoded = self._tokenizer(text + opening, add_special_tokens=False, return_tensors="pt")
        return encoded["input_ids"].to(self._model.device)

    def _context(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", 1 << 20))

    def _sampling(self) -> dict[str, Any]:
        if not self._temperature:
            return {"do_sample": False}
        return {
            "do_sample": True,
            "temperature": self._temperature,
            "top_p": _TOP_P,
            "top_k": _TOP_K,
        }


class _Writing:
    """One answer on its way from the model's thread to the event loop; a streamer of transformers.

    There is no bound to ``pieces`` but that of the answer's tokens.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.pieces: asyncio.Queue[_Piece] = asyncio.Queue()
        self.cancelled = threading.Event()
        self.ended = False
        """Whether the model is free for the next answer."""
        self._loop = loop
        self._decode: Callable[[int], str | None] = lambda _: None
        self._input = self._output = 0
        self._prompt_seen = False

    def begin(self, tokenizer: Any, prompt_tokens: int, opening: str) -> None:
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=True)
        self._decode = lambda token: stream.step(tokenizer._tokenizer, token)
        self._input = prompt_tokens
        if opening:
            self._put(opening)

    def put(self, value: Any) -> None:
        """Take new tokens (transformers calls this, first with the prompt), or the end."""
        if isinstance(value, (Begun, Finished, BackendFailed)):
            self.ended = not isinstance(value, Begun)
            self._put(value)
        elif not self._prompt_seen:
            self._prompt_seen = True
        else:
            for token in value.reshape(-1).tolist():
                self._output += 1
                text = self._decode(token)
                if text:
                    self._put(text)

    def end(self) -> None:
        """Called by transformers after the last token; the end is told by `put`."""

    def stop(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
        """A stopping criterion of transformers: true for every row once cancelled."""
        return input_ids.new_full((input_ids.shape[0],), self.cancelled.is_set()).bool()

    def usage(self) -> Usage:
        return Usage(self._input, self._output)

    def _put(self, piece: _Piece) -> None:
        try:
            self._loop.call_soon_threadsafe(self.pieces.put_nowait, piece)
        except RuntimeError:  # the loop has been closed: nobody waits for it any more
            self.cancelled.set()


class _Told:
    """What has been told of an answer."""

    def __init__(self, parallel: bool) -> None:
        self.over = False
        self._parallel = parallel
        self._splitter = TagSplitter(["think", "tool_call"])
        self._call: WrittenCall | None = None
        self._said = False
        self._calls = self._unreadable = 0

    def take(self, piece: _Piece) -> Iterator[ModelEvent]:
        if isinstance(piece, str):
            yield from self._split(piece)
            return
        if isinstance(piece, Begun):
            yield piece
            return
        self.over = True
        for rest in self._splitter.flush():
            if not rest.tag:
                yield from self._text(rest.text)
        if self._call is not None and isinstance(piece, Finished):
            # A call that ends with the answer, without its tag.
            yield from self._close(self._call, cut=piece.reason != "completed")
        spoke = self._said or self._calls
        unreadable = self._unreadable and not spoke and isinstance(piece, Finished)
        yield _UNREADABLE if unreadable else piece

    def _split(self, text: str) -> Iterator[ModelEvent]:
        for piece in self._splitter.feed(text):
            if self.over:
                return
            if piece.tag == "tool_call":
                self._call = self._call or WrittenCall()
                yield from self._call.feed(piece.text)
                if piece.closed:
                    yield from self._close(self._call)
                    if self._calls and not self._parallel:
                        self.over = True
                        yield Finished()
            elif not piece.tag:
                yield from self._text(piece.text)

    def _text(self, text: str) -> Iterator[ModelEvent]:
        """What is said, without the blank lines around calls and thoughts."""
        text = text if self._said else text.lstrip()
        if text and (text.strip() or not self._calls):
            self._said = True
            yield TextDelta(text)

    def _close(self, call: WrittenCall, cut: bool = False) -> Iterator[ModelEvent]:
        self._call = None
        done = False
        for event in call.close():
            done = done or isinstance(event, ToolCallDone)
            yield event
        self._calls += done
        self._unreadable += not done and not cut


def _opening(request: ResponseRequest) -> str:
    """The beginning of a call that the tool choice demands."""
    if not chat_tools(request):
        return ""
    name = chosen_function(request)
    if name is not None:
        return f'<tool_call>\n{{"name": "{name}", "arguments": '
    return '<tool_call>\n{"name": "' if request.tool_choice == "required" else ""
