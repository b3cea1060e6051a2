"""The application: routes, limits and errors of the whole server, around one engine.

`build_app` puts the parts together. Nothing is let in before the model is loaded and warmed. What
the routes do is in their own modules.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from tinyvoice import __version__
from tinyvoice.engine import EngineSettings, StreamingEngine
from tinyvoice.engine.observer import EngineObserver
from tinyvoice.model.modeling import ASRModel
from tinyvoice.realtime.backends.interface import Responder
from tinyvoice.realtime.backends.registry import build_responder
from tinyvoice.server import (
    calls,
    client_secrets,
    health,
    models,
    page,
    speech,
    transcriptions,
    websocket,
)
from tinyvoice.server.admission import SessionRegistry
from tinyvoice.server.authentication import Authenticator, require_key
from tinyvoice.server.ephemeral_keys import EphemeralKeys, derive_secret
from tinyvoice.server.metrics import ServerMetrics
from tinyvoice.server.middleware import RequestMiddleware
from tinyvoice.server.places import places_of
from tinyvoice.server.refusals import add_error_handlers
from tinyvoice.server.settings import ServerSettings

EXPOSED_HEADERS = ["Location", "Retry-After", "X-Request-Id"]
"""What pages of other origins may read of an answer."""


def build_app(
    settings: ServerSettings,
    engine: StreamingEngine | None = None,
    responder: Responder | None = None,
    metrics: ServerMetrics | None = None,
) -> FastAPI:
    """The server's application.

    ``engine`` and ``responder`` that are given must be open, and stay their owner's; those that are
    not are opened when the application starts, and closed with it. ``metrics`` are those that a
    given engine tells its figures to. ``app.state`` has ``settings``, ``engine``, ``responder``,
    ``sessions``, ``metrics``, ``authenticator`` and ``ephemeral_keys``.

    Raises:
        ConfigurationError: the settings cannot work.
    """
    app = FastAPI(
        title="tinyvoice",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    state = app.state
    state.settings, state.engine, state.responder = settings, engine, responder
    state.metrics = metrics or ServerMetrics()
    state.sessions = SessionRegistry(settings.max_sessions)
    signing = settings.signing_secret
    secret = derive_secret(settings.keys, signing.get_secret_value() if signing else None)
    state.ephemeral_keys = EphemeralKeys(secret, settings.client_secret_bytes)
    state.authenticator = Authenticator(settings.keys, state.ephemeral_keys)
    state.metrics.watch(
        "tinyvoice_engine_streams",
        "Streams open in the engine.",
        lambda: state.engine.open_streams if state.engine is not None else 0,
    )
    _add_routes(app)
    add_error_handlers(app)
    app.add_middleware(RequestMiddleware, metrics=state.metrics, settings=settings)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.allowed_origins),
        allow_methods=["GET", "POST", "OPTIONS"],
        allow_headers=["*"],
        expose_headers=EXPOSED_HEADERS,
        max_age=600,
    )
    return app


def _add_routes(app: FastAPI) -> None:
    for guarded in (transcriptions.router, speech.router, models.router):
        app.include_router(guarded, dependencies=[Depends(require_key)])
    # These look at keys themselves, where they need one: ephemeral keys open some of them.
    for router in (client_secrets.router, calls.router, health.router, page.router):
        app.include_router(router)
    app.include_router(websocket.router)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what was not given; the server is ready when this yields."""
    state = app.state
    async with AsyncExitStack() as stack:
        if state.engine is None:
            state.engine = await stack.enter_async_context(
                build_engine(state.settings, observer=state.metrics)
            )
        if state.responder is None:
            state.responder = await stack.enter_async_context(opened_responder(state.settings))
        yield
        await drain(app, 0.0)


async def drain(app: FastAPI, seconds: float) -> None:
    """Let nobody in any more, let sessions finish their turns and requests their answers.

    What is left after this time is closed: sessions here, requests by whoever stops listening.
    """
    sessions: SessionRegistry = app.state.sessions
    sessions.draining = True
    await asyncio.gather(sessions.drain(seconds), places_of(app).drain(seconds))


def build_engine(
    settings: ServerSettings,
    model: ASRModel | None = None,
    observer: EngineObserver | None = None,
) -> StreamingEngine:
    """The engine that the settings describe, not yet open.

    Opening loads the model, unless it is given, and warms it, outside of the event loop.
    ``observer`` is told figures; the app's metrics are one.
    """
    loading: dict[str, Any] = (
        {} if model is not None else {"device": settings.device, "dtype": settings.dtype}
    )
    return StreamingEngine(
        model or settings.model,
        EngineSettings(
            max_streams=settings.max_sessions + settings.max_requests,
            max_batch=settings.max_batch,
            threads=settings.threads,
            freeze_objects=True,
            refuse_partial_gap_s=settings.refuse_partial_gap_s,
        ),
        observer=observer,
        **loading,
    )


@asynccontextmanager
async def opened_responder(settings: ServerSettings) -> AsyncIterator[Responder]:
    """The responder that the settings describe, open.

    Raises:
        ConfigurationError, MissingExtraError, CheckpointError: it cannot work as configured.
    """
    responder = build_responder(settings.backends)
    await responder.open()
    try:
        yield responder
    finally:
        await responder.close()
