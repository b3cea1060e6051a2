"""Servers that speak OpenAI's HTTP API: how to reach them, and what to say when they fail.

The key in ``OPENAI_API_KEY`` is OpenAI's: it is not sent to any other server.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tinyvoice.errors import ConfigurationError, MissingExtraError
from tinyvoice.realtime.backends.interface import BackendFailed

if TYPE_CHECKING:
    from openai import AsyncOpenAI

logger = logging.getLogger(__name__)

NO_KEY = "none"
"""Sent where there is no key: the client does not go without, servers without keys ignore it."""

_OPENAI = "openai.com"


def is_openai(url: str) -> bool:
    """Whether a base address, or the one used for "", is OpenAI's own."""
    url = url or os.environ.get("OPENAI_BASE_URL", "")
    host = urlsplit(url).hostname or ""
    return not url or host == _OPENAI or host.endswith(f".{_OPENAI}")


class OpenAIServer:
    """One server, from `open` to `close`. It need not be there yet.

    Args:
        url: base address; "" is OpenAI itself.
        key: "" takes ``OPENAI_API_KEY`` for OpenAI itself; other servers get none.
        setting: ``llm`` or ``tts``, what messages call the settings by.
        timeout_s: longest wait for the first or the next part of an answer, which the caller keeps.
        connect_timeout_s: longest wait for a connection.
    """

    def __init__(
        self, url: str, key: str, *, setting: str, timeout_s: float, connect_timeout_s: float
    ) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self._key = key
        self._setting = setting
        self._connect_timeout_s = connect_timeout_s
        self._client: AsyncOpenAI | None = None

    async def open(self) -> None:
        """Prepare the client; raises as `connect`."""
        self._client = await asyncio.to_thread(
            connect,
            self.url,
            self._key,
            setting=self._setting,
            connect_timeout_s=self._connect_timeout_s,
            timeout_s=self.timeout_s,
        )

    async def close(self) -> None:
        """Close connections; what is being answered fails."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @property
    def is_openai(self) -> bool:
        """Whether it is OpenAI's own."""
        return is_openai(self.url)

    @property
    def is_open(self) -> bool:
        """Whether there is a client."""
        return self._client is not None

    @property
    def client(self) -> AsyncOpenAI:
        """The client; `RuntimeError` unless the server is open."""
        if self._client is None:
            raise RuntimeError(f"The server of {self._setting}_url is not open.")
        return self._client


def connect(
    url: str, key: str, *, setting: str, connect_timeout_s: float, timeout_s: float
) -> AsyncOpenAI:
    """A client for the server at ``url``; nothing is sent yet. Imports: call it from a thread.

    Args:
        setting: ``llm`` or ``tts``, what messages call the settings by.

    Raises:
        MissingExtraError: the package openai is not installed.
        ConfigurationError: the address is none, or OpenAI itself is meant and there is no key.
    """
    try:
        import openai
    except ImportError as error:
        raise MissingExtraError("serve", "a backend at an OpenAI-compatible server") from error
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise ConfigurationError(
            f"{setting}_url is {url!r}: give an address such as http://localhost:11434/v1.",
            key=f"{setting}_url",
        )
    if not url or is_openai(url):
        key = key or os.environ.get("OPENAI_API_KEY", "")
        if not key and is_openai(url):
            raise ConfigurationError(
                f"OpenAI needs a key: set {setting}_key or OPENAI_API_KEY, or point "
                f"{setting}_url at another server.",
                key=f"{setting}_key",
            )
    client = openai.AsyncOpenAI(
        base_url=url or None,
        api_key=key or NO_KEY,
        # Callers watch the time between parts; this is for what they do not see.
        timeout=openai.Timeout(2 * timeout_s, connect=connect_timeout_s),
        max_retries=0,  # a talking user does not wait for a second try of unknown length
    )
    # The package imports its parts when they are first used, which takes a second or more.
    assert client.chat.completions
    assert client.audio.speech
    return client


def failure(error: BaseException, what: str, code: str, *, midway: bool = False) -> BackendFailed:
    """What went wrong at a server, for the user: ``what`` is "The language model" or the like.

    The log has the class of the error and the status; what a server says may hold what users said.
    """
    import openai

    status = getattr(error, "status_code", None)
    logger.warning("%s failed: %s, status %s.", what, type(error).__name__, status)
    if isinstance(error, (openai.APITimeoutError, asyncio.TimeoutError)):
        return BackendFailed(f"{code}_timeout", f"{what} takes too long to answer.")
    if isinstance(error, openai.APIConnectionError):
        if midway:
            return BackendFailed(f"{code}_disconnected", f"{what} broke off before the end.")
        return BackendFailed(f"{code}_unreachable", f"{what} cannot be reached.")
    if status in (401, 403):
        return BackendFailed(f"{code}_unauthorized", f"{what} does not accept the server's key.")
    if status == 404:
        return BackendFailed(f"{code}_not_found", f"{what} that is configured does not exist.")
    if status == 429:
        return BackendFailed(f"{code}_busy", f"{what} is too busy. Please try again in a moment.")
    if getattr(error, "code", None) == "context_length_exceeded":
        return BackendFailed(
            "context_length_exceeded", f"The conversation has become too long for {what.lower()}."
        )
    return BackendFailed(f"{code}_failed", f"{what} has a problem and cannot answer.")
