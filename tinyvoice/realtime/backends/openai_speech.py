"""Voices behind any server of OpenAI's speech API, over the ``openai`` package.

The sound is asked for as ``pcm``, which is 16-bit at 24 kHz, and passed on as it arrives. The API
tells no word times.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tinyvoice.errors import ConfigurationError
from tinyvoice.realtime.backends.errors import VoiceError
from tinyvoice.realtime.backends.interface import SpokenAudio
from tinyvoice.realtime.backends.iterators import closing
from tinyvoice.realtime.backends.openai_server import OpenAIServer, failure

DEFAULT_MODEL = "gpt-4o-mini-tts"
"""Asked of OpenAI where no model is named."""

_WHAT = "The voice"
_CODE = "voice"
_CHUNK_BYTES = 4_800
"""100 ms, what is passed on at once."""
_SLOWEST, _FASTEST = 0.25, 4.0


class OpenAISpeechVoice:
    """A voice at a server.

    Args:
        url: base address; "" is OpenAI itself.
        model: its name there; needed anywhere but at OpenAI.
        key: "" takes ``OPENAI_API_KEY`` for OpenAI itself; other servers get none.
        timeout_s: longest wait for the first or the next part of a clause's sound.
        connect_timeout_s: longest wait for a connection.
    """

    name = "openai"
    sample_rate = 24_000

    def __init__(
        self,
        url: str = "",
        model: str = "",
        key: str = "",
        *,
        timeout_s: float = 15.0,
        connect_timeout_s: float = 5.0,
    ) -> None:
        self._server = OpenAIServer(
            url, key, setting="tts", timeout_s=timeout_s, connect_timeout_s=connect_timeout_s
        )
        self._model = model

    async def open(self) -> None:
        """Prepare the client. The server need not be there yet.

        Raises:
            MissingExtraError: the package openai is not installed.
            ConfigurationError: address, key or model are missing or cannot work.
        """
        if not self._model and not self._server.is_openai:
            raise ConfigurationError(
                "The voice's server may have several models: set tts_model.", key="tts_model"
            )
        await self._server.open()

    async def close(self) -> None:
        """Close connections; what is being spoken fails."""
        await self._server.close()

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[SpokenAudio]:
        """Speak ``text``; the server knows which voices there are.

        Raises:
            VoiceError: the server failed, or sent something else than sound.
        """
        import openai

        if not self._server.is_open:
            raise VoiceError("The voice is not open.")
        midway = False
        try:
            async with self._request(text, voice, speed) as response:
                _check_sound(response.headers.get("content-type", ""))
                async with closing(response.iter_bytes(_CHUNK_BYTES)) as chunks:
                    while True:
                        async with asyncio.timeout(self._server.timeout_s):
                            chunk = await anext(chunks, None)
                        if chunk is None:
                            return
                        midway = True
                        yield SpokenAudio(chunk)
        except (openai.OpenAIError, TimeoutError) as error:
            message = failure(error, _WHAT, _CODE, midway=midway).message
            raise VoiceError(message) from error
        except Exception as error:
            if not _broken_connection(error):
                raise
            raise VoiceError(f"{_WHAT} broke off before the end.") from error

    def _request(self, text: str, voice: str, speed: float) -> Any:
        optional: dict[str, Any] = (
            {} if speed == 1 else {"speed": min(max(speed, _SLOWEST), _FASTEST)}
        )
        return self._server.client.audio.speech.with_streaming_response.create(
            model=self._model or DEFAULT_MODEL,
            voice=voice,
            input=text,
            response_format="pcm",
            **optional,
        )


def _check_sound(content_type: str) -> None:
    if content_type.partition("/")[0] in ("text", "application") and not content_type.startswith(
        "application/octet-stream"
    ):
        raise VoiceError(f"{_WHAT} sent something that is not sound.")


def _broken_connection(error: Exception) -> bool:
    """Whether it is one of the HTTP library's, which the package openai does not wrap here."""
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")
