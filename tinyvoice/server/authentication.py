"""Who may use the server: API keys and ephemeral keys, wherever clients put them.

Keys are looked for, in this order, in the header ``Authorization: Bearer``, in the header or query
parameter ``api-key``, and in the WebSocket subprotocol ``openai-insecure-api-key.<key>``, which is
all that a browser can send. With no key configured everybody may come in. Keys are compared in
constant time and never logged. Rights are all or nothing, but for ephemeral keys, which open one
kind of door: Realtime sessions and calls.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import Request
from starlette.requests import HTTPConnection

from tinyvoice.server.ephemeral_keys import (
    EphemeralKey,
    EphemeralKeyError,
    EphemeralKeys,
    looks_ephemeral,
)
from tinyvoice.server.errors import ApiError

SUBPROTOCOL = "realtime"
"""What a server answers to a client that offers subprotocols; never the entry with the key."""

_KEY_SUBPROTOCOL = "openai-insecure-api-key."


@dataclass(frozen=True)
class Identity:
    """Who is asking."""

    kind: Literal["anyone", "key", "ephemeral"]
    ephemeral: EphemeralKey | None = None
    """What an ephemeral key says of the session that it opens."""


class Authenticator:
    """Checks credentials against the keys of the server.

    ``keys`` may be empty: then everybody is let in, except for ephemeral keys of ours that have
    expired or were changed, whose session could not be what the client asked for.
    """

    def __init__(self, keys: Sequence[str], ephemeral_keys: EphemeralKeys) -> None:
        # Hashes have one length: comparing them tells nothing about the length of a key either.
        self._keys = [_digest(key) for key in keys]
        self._ephemeral_keys = ephemeral_keys

    @property
    def required(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._keys)

    def check(self, credential: str | None, *, ephemeral: bool = False) -> Identity:
        """Find out who brings this credential.

        ``ephemeral`` says whether an ephemeral key is enough.

        Raises:
            ApiError: 401: it is missing or wrong, has expired, or is not enough here.
        """
        if credential is not None and self._is_key(credential):
            return Identity("key")
        if credential is not None and looks_ephemeral(credential):
            try:
                key = self._ephemeral_keys.read(credential)
            except EphemeralKeyError as error:
                raise unauthorized(str(error)) from None
            if ephemeral:
                return Identity("ephemeral", key)
            if self.required:
                raise unauthorized(
                    "An ephemeral key opens Realtime sessions and calls only: use an API key."
                )
        if not self.required:
            return Identity("anyone")
        if credential is None:
            raise unauthorized(
                "You did not provide an API key: send it in the header 'Authorization: Bearer KEY'."
            )
        raise unauthorized("Incorrect API key provided: use one that this server was started with.")

    def _is_key(self, credential: str) -> bool:
        digest = _digest(credential)
        found = False
        for key in self._keys:  # all of them, so that the time taken does not say which
            found |= hmac.compare_digest(digest, key)
        return found


def credential_of(connection: HTTPConnection) -> str | None:
    """The key that a request or a WebSocket handshake brings, or None."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    plain = connection.headers.get("api-key") or connection.query_params.get("api-key")
    if plain:
        return plain.strip()
    for offered in subprotocols_of(connection.scope):
        if offered.startswith(_KEY_SUBPROTOCOL):
            return offered.removeprefix(_KEY_SUBPROTOCOL)
    return None


def subprotocols_of(scope: Mapping[str, Any]) -> list[str]:
    """The WebSocket subprotocols that a client offers; none for a plain request."""
    return list(scope.get("subprotocols") or [])


def origin_allowed(connection: HTTPConnection, allowed: Sequence[str]) -> bool:
    """Whether the web page that a connection comes from, if it comes from one, may connect."""
    origin = connection.headers.get("origin")
    return origin is None or "*" in allowed or origin in allowed


def unauthorized(message: str) -> ApiError:
    """401 in OpenAI's shape."""
    return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


async def require_key(request: Request) -> Identity:
    """FastAPI dependency: an API key is needed, if the server has any."""
    authenticator: Authenticator = request.app.state.authenticator
    return authenticator.check(credential_of(request))


async def require_any_key(request: Request) -> Identity:
    """FastAPI dependency: an API key or an ephemeral key is needed, if the server has keys."""
    authenticator: Authenticator = request.app.state.authenticator
    return authenticator.check(credential_of(request), ephemeral=True)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
