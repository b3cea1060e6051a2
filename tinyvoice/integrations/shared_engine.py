"""One engine for everybody in the process who asks for the same model.

A model is loaded once per event loop and stays until `close_engines`: pipelines come and go with
their calls, and none of them should wait for weights.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from tinyvoice.engine import EngineSettings, StreamingEngine

_Key = tuple[Any, ...]
_engines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, asyncio.Task[StreamingEngine]]]
_engines = WeakKeyDictionary()


async def shared_engine(
    model: str | Path = "embedded", settings: EngineSettings | None = None, **loading: Any
) -> StreamingEngine:
    """The open engine of this model and these settings; the first caller loads it.

    ``loading`` is handed to `ASRModel.from_pretrained` (``device``, ``dtype``).

    Raises:
        CheckpointError, ConfigurationError: the model cannot be loaded; the next call tries again.
    """
    engines = _engines.setdefault(asyncio.get_running_loop(), {})
    key = (str(model), settings, *sorted(loading.items()))
    task = engines.get(key)
    if task is None or _useless(task):
        engine = StreamingEngine(model, settings, **loading)
        task = engines[key] = asyncio.create_task(engine.__aenter__(), name="tinyvoice-load")
    # Whoever gives up waiting does not stop the others' load.
    return await asyncio.shield(task)


async def close_engines() -> None:
    """Close every engine of this event loop and give its memory back."""
    engines = _engines.pop(asyncio.get_running_loop(), {})
    for task in engines.values():
        if not _useless(task):
            await (await task).close()


def _useless(task: asyncio.Task[StreamingEngine]) -> bool:
    """Whether loading failed, or the engine has been closed since."""
    if not task.done():
        return False
    return task.cancelled() or task.exception() is not None or not task.result().ready
