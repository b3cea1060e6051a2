"""Makes transformers know our classes: its Auto classes and ``pipeline()`` load our checkpoints.

After ``import tinyvoice`` this works, without remote code::

    from transformers import pipeline

    pipeline("automatic-speech-recognition", model="path/or/hub-name")("clip.wav")

Neither import waits for the other. If transformers is not loaded yet, two of its modules get small
entries once they are: the configuration mapping one for our model type, and the table of pipelines
one for speech recognition. The classes behind them are imported when a checkpoint of ours is first
asked for, and importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODEL_TYPE = "asr_model"
TASK = "automatic-speech-recognition"
PIPELINE = "tinyvoice.model.pipeline.SpeechRecognition"


def register() -> None:
    """Register configuration, model, processor and features with transformers' Auto classes."""
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModel,
        AutoModelForSpeechSeq2Seq,
        AutoProcessor,
        WhisperFeatureExtractor,
    )

    from tinyvoice.model.configuration import ASRConfig
    from tinyvoice.model.modeling import ASRModel
    from tinyvoice.model.processing import ASRProcessor

    AutoConfig.register(MODEL_TYPE, ASRConfig, exist_ok=True)
    AutoModel.register(ASRConfig, ASRModel, exist_ok=True)
    AutoModelForSpeechSeq2Seq.register(ASRConfig, ASRModel, exist_ok=True)
    AutoProcessor.register(ASRConfig, ASRProcessor, exist_ok=True)
    AutoFeatureExtractor.register(ASRConfig, WhisperFeatureExtractor, exist_ok=True)


def register_on_import() -> None:
    """Prepare transformers for our model type, now or as soon as it is imported."""
    entries: dict[str, Callable[[ModuleType], None]] = {
        "transformers.models.auto.configuration_auto": _enter_configuration,
        "transformers.pipelines": _enter_pipeline,
    }
    later = {}
    for name, enter in entries.items():
        module = sys.modules.get(name)
        if module is None:
            later[name] = enter
        else:
            enter(module)
    if later and not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(later))


class _AfterImport(MetaPathFinder):
    """Calls a function with each of some modules right after its import."""

    def __init__(self, actions: dict[str, Callable[[ModuleType], None]]) -> None:
        self.actions = actions

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """The module's own spec, with the action behind its execution."""
        action = self.actions.pop(fullname, None)
        if action is None:
            return None
        # No longer in the table, so that this asks the other finders.
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_act(module: ModuleType) -> None:
                execute(module)
                action(module)

            spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


class _Configurations(dict[str, Any]):
    """Registered configurations, to which ours is added when it is first looked up."""

    def __contains__(self, key: object) -> bool:
        return key == MODEL_TYPE or super().__contains__(key)

    def __missing__(self, key: str) -> Any:
        if key != MODEL_TYPE:
            raise KeyError(key)
        register()
        return self[key]


def _enter_configuration(module: ModuleType) -> None:
    mapping: Any = module.CONFIG_MAPPING
    if not isinstance(mapping._extra_content, _Configurations):
        mapping._extra_content = _Configurations(mapping._extra_content)


def _enter_pipeline(module: ModuleType) -> None:
    task = module.SUPPORTED_TASKS[TASK]
    # Releases before 5.22 have the class there, newer ones may have its name.
    task["impl"] = PIPELINE if hasattr(module, "_resolve_impl") else _pipeline_class()


def _pipeline_class() -> type:
    module, _, name = PIPELINE.rpartition(".")
    return getattr(importlib.import_module(module), name)
