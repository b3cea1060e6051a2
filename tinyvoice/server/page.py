"""The page that people talk to, from the package's own files: nothing of it comes from elsewhere.

It needs no key itself; what it calls does, and it asks the person for it.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from tinyvoice.server.errors import ApiError

router = APIRouter()

FOLDER = Path(str(files("tinyvoice") / "web"))

FILES = {
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    "app.js": "text/javascript",
    "call.js": "text/javascript",
    "microphone.js": "text/javascript",
    "turns.js": "text/javascript",
}

HEADERS = {
    # Its own files and connections only: a text that is shown cannot bring a script along.
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self'; media-src 'self' blob: mediastream:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The page."""
    return FileResponse(FOLDER / "index.html", media_type="text/html", headers=HEADERS)


@router.get("/web/{name}", include_in_schema=False)
async def page_file(name: str) -> Response:
    """A file of the page; only those that belong to it."""
    if name not in FILES:
        raise ApiError(404, f"There is no file {name} in the page.")
    return FileResponse(FOLDER / name, media_type=FILES[name], headers=HEADERS)
