"""Reading a multipart form without reading more than is allowed.

The form is parsed while it comes in, files go to disk from a megabyte on, and one byte too many
ends it with 413. What the fields mean is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from tinyvoice.server.errors import ApiError

MOST_FILES = 8
"""Files in a form: one is read, samples of known speakers are accepted."""
MOST_FIELDS = 1_000
FORM_BYTES = 1 << 16
"""What the form may add to its files."""


@asynccontextmanager
async def read_form(
    request: Request, max_bytes: int, max_seconds: float
) -> AsyncIterator[FormData]:
    """The request's form; its files are closed when the block is left.

    Raises:
        ApiError: 400: it is no multipart form; 413: its files are larger than ``max_bytes``
            together; 408: it took longer than ``max_seconds`` to come in.
        ClientDisconnect: the client went away.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise ApiError(
            400,
            "The request is not a multipart form: send the recording as multipart/form-data with "
            "a field named file.",
            code="invalid_content_type",
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes + FORM_BYTES:
        raise too_large(max_bytes)
    parser = MultiPartParser(
        request.headers,
        _limited(request, max_bytes),
        max_files=MOST_FILES,
        max_fields=MOST_FIELDS,
    )
    try:
        async with asyncio.timeout(max_seconds):
            form = await parser.parse()
    except TimeoutError:
        raise ApiError(
            408,
            f"The upload took longer than {max_seconds:g} seconds: send a shorter or more "
            "compressed recording.",
            code="upload_timeout",
            headers={"connection": "close"},
        ) from None
    except MultiPartException as error:
        raise ApiError(
            400,
            f"The multipart form cannot be read ({error.message.rstrip('.')}): send it again.",
            code="invalid_form",
        ) from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    try:
        if sum(file.size or 0 for file in files) > max_bytes:
            raise too_large(max_bytes)
        yield form
    finally:
        for file in files:
            file.file.close()  # not by await: the request may have been cancelled


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes + FORM_BYTES:
            raise too_large(max_bytes)
        yield chunk


def too_large(max_bytes: int) -> ApiError:
    """413 in OpenAI's words."""
    return ApiError(
        413,
        f"Maximum content size limit ({max_bytes}) exceeded: send a shorter or more compressed "
        "recording.",
        param="file",
        code="content_too_large",
    )
