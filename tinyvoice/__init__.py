"""tinyvoice: streaming speech recognition with small open models.

Names are imported on first use, so that ``import tinyvoice`` costs milliseconds and the command
line can answer ``--help`` without loading torch. Importing it also prepares transformers'
``pipeline("automatic-speech-recognition")`` and Auto classes for our checkpoints.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinyvoice.model.registration import register_on_import

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tinyvoice.audio.files import Audio, load_audio
    from tinyvoice.errors import TinyvoiceError
    from tinyvoice.model.configuration import ASRConfig
    from tinyvoice.model.modeling import ASRModel
    from tinyvoice.model.processing import ASRProcessor
    from tinyvoice.model.transcript import Transcript, Word

_EXPORTS = {
    "ASRConfig": "tinyvoice.model.configuration",
    "ASRModel": "tinyvoice.model.modeling",
    "ASRProcessor": "tinyvoice.model.processing",
    "Audio": "tinyvoice.audio.files",
    "TinyvoiceError": "tinyvoice.errors",
    "Transcript": "tinyvoice.model.transcript",
    "Word": "tinyvoice.model.transcript",
    "load_audio": "tinyvoice.audio.files",
}

__all__ = [
    "ASRConfig",
    "ASRModel",
    "ASRProcessor",
    "Audio",
    "TinyvoiceError",
    "Transcript",
    "Word",
    "__version__",
    "load_audio",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'tinyvoice' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__


register_on_import()
