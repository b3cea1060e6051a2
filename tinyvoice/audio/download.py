"""Fetching audio over HTTP, bounded in size and time.

Follows redirects to http and https only. It keeps nothing: no cache, no cookies, no resuming.
"""

from __future__ import annotations

import http.client
import io
import time
import urllib.error
import urllib.request
from typing import Any

from tinyvoice.errors import AudioError

_BLOCK_BYTES = 1 << 18
_LONGEST_SILENCE_S = 15.0
"""A server that sends nothing for so long is given up."""


class _HttpRedirects(urllib.request.HTTPRedirectHandler):
    """The standard handler would also follow a redirect to FTP."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str
    ) -> Any:
        if not newurl.lower().startswith(("http://", "https://")):
            raise urllib.error.URLError(f"it redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, *, max_bytes: int, timeout_s: float) -> bytes:
    """Return the body behind an ``http(s)://`` URL.

    Raises:
        AudioError: no network, no such page, an error status, more than ``max_bytes`` bytes, or
            longer than ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    too_large = AudioError(
        f"{url}: is larger than the {max_bytes} bytes allowed; raise the limit on file size.",
        path=url,
    )
    opener = urllib.request.build_opener(_HttpRedirects)
    content = io.BytesIO()
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "tinyvoice"})
        with opener.open(request, timeout=min(_LONGEST_SILENCE_S, timeout_s)) as response:
            if int(response.headers.get("Content-Length") or 0) > max_bytes:
                raise too_large
            while block := response.read1(_BLOCK_BYTES):
                content.write(block)
                if content.tell() > max_bytes:
                    raise too_large
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not complete after {timeout_s:g} s")
    except urllib.error.HTTPError as error:
        raise AudioError(
            f"{url}: the server answered {error.code} {error.reason}; check the address.", path=url
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise AudioError(
            f"{url}: could not be fetched ({_plain(reason)}); check the address and your network, "
            "or give a local file.",
            path=url,
        ) from error
    return content.getvalue()


def _plain(reason: object) -> str:
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(reason).__name__
