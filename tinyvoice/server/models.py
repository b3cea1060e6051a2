"""``GET /v1/models``: what there is to choose from.

Requests may name any model and get the server's own, so that clients work with the names that are
built into them; here only the models that are really there are listed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request

from tinyvoice.server.errors import ApiError

router = APIRouter()

OWNER = "tinyvoice"

_STARTED = int(time.time())


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """All models."""
    return {"object": "list", "data": [_model(name) for name in _names(request.app.state)]}


@router.get("/v1/models/{name:path}")
async def retrieve_model(request: Request, name: str) -> dict[str, Any]:
    """One model; its name may have slashes."""
    if name not in _names(request.app.state):
        raise ApiError(
            404,
            f"The model '{name[:128]}' does not exist: GET /v1/models lists those that do.",
            param="model",
            code="model_not_found",
        )
    return _model(name)


def _names(state: Any) -> list[str]:
    """The recogniser, then the language model and the voice, where there are any."""
    responder = state.responder
    parts = (getattr(responder, "language_model", None), getattr(responder, "voice", None))
    names = [public_name(state.settings.model), *(part.name for part in parts if part is not None)]
    return list(dict.fromkeys(names))


def public_name(model: str) -> str:
    """A model's name for clients: of a folder the last part, since paths are nobody's business."""
    path = Path(model)
    return path.name if path.is_absolute() or path.exists() else model


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": OWNER}
