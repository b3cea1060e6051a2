"""Where a server's Realtime endpoint is, from what people type."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from tinyvoice.errors import ConfigurationError

PATH = "/v1/realtime"
"""Of the endpoint, where an address names none."""


def realtime_url(address: str) -> str:
    """The address of the Realtime endpoint of a server, ``ws://…`` or ``wss://…``.

    ``http`` stands for ``ws``, and an address without a path for the usual one.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    schemes = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
    if not usable or parts.scheme not in schemes:
        raise ConfigurationError(
            f"{address!r} is no address of a server: give one like ws://127.0.0.1:8000{PATH}.",
            key="url",
        )
    path = parts.path if parts.path.strip("/") else PATH
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, parts.query, ""))
