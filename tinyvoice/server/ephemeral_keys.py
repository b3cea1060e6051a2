"""Ephemeral keys: signed, expiring, and carrying the session that they open.

A key is ``ek_`` and two parts in base64url, joined by a dot: the claims (JSON, deflated) and their
HMAC-SHA256. Nothing is kept: any replica with the same secret accepts a key, as often as it is
shown, until it expires. The claims are signed, not encrypted: whoever holds a key can read them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tinyvoice.errors import TinyvoiceError

PREFIX = "ek_"

_PURPOSE = b"tinyvoice ephemeral key 1"
"""Separates these signatures from any other use of the same secret."""

_MAC_BYTES = hashlib.sha256().digest_size
_LARGEST_CLAIMS = 1 << 20
"""Bytes of claims after inflating; ours are far smaller."""

# Cost of deriving the secret from API keys: whoever holds an ephemeral key can try to guess the API
# key behind it, and each guess costs this (RFC 7914; 16 MiB and some 50 ms).
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1, "maxmem": 64 << 20, "dklen": 32}

SessionKind = Literal["realtime", "transcription"]


class EphemeralKeyError(TinyvoiceError):
    """An ephemeral key that is not accepted, or cannot be made; the message says why."""


@dataclass(frozen=True)
class EphemeralKey:
    """What a key says once it has been checked."""

    expires_at: int
    """Unix time in seconds."""
    kind: SessionKind
    configuration: Mapping[str, Any]
    """What the session begins with, as the client that asked for the key gave it."""


class EphemeralKeys:
    """Makes and checks ephemeral keys.

    Args:
        secret: what they are signed with; see `derive_secret`.
        largest: longest key in characters; it has to fit into a header.
        now: the time in Unix seconds.
    """

    def __init__(
        self, secret: bytes, largest: int = 7_000, now: Callable[[], float] = time.time
    ) -> None:
        self._secret, self._largest, self._now = secret, largest, now

    def make(self, kind: SessionKind, configuration: Mapping[str, Any], seconds: int) -> str:
        """A key that opens a session of this kind for so many seconds from now.

        Raises:
            EphemeralKeyError: the configuration is too long for a key.
        """
        claims = {
            "exp": int(self._now()) + seconds,
            "kind": kind,
            "session": configuration,
            "nonce": secrets.token_urlsafe(9),
        }
        packed = zlib.compress(json.dumps(claims, separators=(",", ":")).encode(), level=9)
        key = f"{PREFIX}{_encode(packed)}.{_encode(self._sign(packed))}"
        if len(key) > self._largest:
            raise EphemeralKeyError(
                f"The session makes an ephemeral key of {len(key)} characters, of which "
                f"{self._largest} are allowed: send long instructions and tools with "
                "session.update."
            )
        return key

    def expires_at(self, seconds: int) -> int:
        """When a key made now for so many seconds expires, in Unix seconds."""
        return int(self._now()) + seconds

    def read(self, key: str) -> EphemeralKey:
        """Check a key and say what it opens.

        Raises:
            EphemeralKeyError: it was not made with our secret, was changed, or has expired.
        """
        parts = _parts(key)
        if parts is None:
            raise EphemeralKeyError("The ephemeral key is malformed: ask for a new one.")
        packed, signature = parts
        if not hmac.compare_digest(self._sign(packed), signature):
            raise EphemeralKeyError(
                "The ephemeral key was not made by this server, or was changed: ask for a new one."
            )
        inflater = zlib.decompressobj()
        claims = json.loads(inflater.decompress(packed, _LARGEST_CLAIMS))
        if self._now() >= claims["exp"]:
            raise EphemeralKeyError("The ephemeral key has expired: ask for a new one.")
        return EphemeralKey(claims["exp"], claims["kind"], claims["session"])

    def _sign(self, packed: bytes) -> bytes:
        return hmac.new(self._secret, _PURPOSE + packed, hashlib.sha256).digest()


def looks_ephemeral(credential: str) -> bool:
    """Whether a credential has the form of our ephemeral keys, valid or not."""
    return _parts(credential) is not None


def derive_secret(keys: Sequence[str], signing_secret: str | None = None) -> bytes:
    """What ephemeral keys are signed with: from the given secret, else the API keys, else random.

    Replicas that share keys or secret accept each other's ephemeral keys; without either a secret
    lives as long as its process.
    """
    if signing_secret is not None:
        material = "s\0" + signing_secret
    elif keys:
        material = "k\0" + "\0".join(sorted(keys))
    else:
        return secrets.token_bytes(32)
    return hashlib.scrypt(material.encode("utf-8", "surrogatepass"), salt=_PURPOSE, **_SCRYPT)


def _parts(key: str) -> tuple[bytes, bytes] | None:
    """Claims and signature of a key, or None where it does not have that form."""
    packed, dot, signature = key.removeprefix(PREFIX).partition(".")
    if not (key.startswith(PREFIX) and dot):
        return None
    try:
        claims, mac = _decode(packed), _decode(signature)
    except ValueError:
        return None
    return (claims, mac) if len(mac) == _MAC_BYTES and claims else None


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(
            text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
        )
    except (UnicodeEncodeError, binascii.Error) as error:
        raise ValueError("not base64url") from error
    if _encode(data) != text:  # one text for one signature: no second spelling of the same key
        raise ValueError("not canonical base64url")
    return data
