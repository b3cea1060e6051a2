"""``/healthz``, ``/readyz`` and ``/metrics``: what whoever runs the server asks it.

No key is needed: nothing here says who uses the server or what is said.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from tinyvoice.server.admission import RETRY_AFTER_S
from tinyvoice.server.metrics import CONTENT_TYPE

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process runs and answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """Whether sessions can be opened: 200, or 503 and why not."""
    state = request.app.state
    if state.sessions.draining:
        status = "draining"
    elif state.engine is None or not state.engine.ready:
        status = "unavailable"
    else:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": status}, 503, {"retry-after": str(RETRY_AFTER_S)})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """All metrics in Prometheus' text format."""
    return Response(request.app.state.metrics.page(), media_type=CONTENT_TYPE)
