"""tinyvoice inside other frameworks.

`PipecatASRService` recognises speech in a Pipecat pipeline, in the process itself;
`PipecatRemoteASRService` does so by a `tinyvoice serve` elsewhere. `EspeakTTSService` speaks and
`ScriptedLLMService` answers where no network is to be had. All need the extra ``pipecat`` and are
imported when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyvoice.errors import MissingExtraError

if TYPE_CHECKING:
    from tinyvoice.integrations.pipecat import PipecatASRService
    from tinyvoice.integrations.pipecat_remote import PipecatRemoteASRService
    from tinyvoice.integrations.pipecat_voice import EspeakTTSService
    from tinyvoice.integrations.scripted_llm import ScriptedLLMService

__all__ = [
    "EspeakTTSService",
    "PipecatASRService",
    "PipecatRemoteASRService",
    "ScriptedLLMService",
]

_HOMES = {
    "EspeakTTSService": "tinyvoice.integrations.pipecat_voice",
    "PipecatASRService": "tinyvoice.integrations.pipecat",
    "PipecatRemoteASRService": "tinyvoice.integrations.pipecat_remote",
    "ScriptedLLMService": "tinyvoice.integrations.scripted_llm",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "pipecat":
            raise
        raise MissingExtraError("pipecat", f"{name} inside a Pipecat pipeline") from error
