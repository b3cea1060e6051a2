"""A quicker start for programs that transcribe and end, such as the command line.

Importing transformers' modelling code takes several seconds, 40 % of them for things that a
transcription never uses: sharded tensors, the compiler, object detection's losses. For the time of
that import :func:`import_transformers` puts stand-ins where those modules would be. Whatever is
taken from a stand-in is fetched from the real module when it is first used, so that nothing is
missing later, only late.

Nothing here is needed for correctness, and libraries do not call it: a process that trains, or that
runs other people's models, imports everything as usual.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType, ModuleType
from typing import Any

logger = logging.getLogger(__name__)

# What the modelling code imports and a transcription does not use.
DEFERRED_MODULES = (
    "scipy.optimize",
    "torch._dynamo",
    "torch._dynamo._trace_wrapped_higher_order_op",
    "torch.distributed._composable.fsdp",
    "torch.distributed.checkpoint",
    "torch.distributed.checkpoint.hf_storage",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.distributed.tensor._utils",
    "torch.distributed.tensor.parallel",
    "torch.distributed.tensor.placement_types",
)
IMPORTED_MODULES = (
    "transformers.modeling_utils",
    "transformers.models.glmasr.modeling_glmasr",
    "transformers.models.qwen3.modeling_qwen3",
)
# Set by torchrun and accelerate: such a process uses what is deferred, at once.
DISTRIBUTED_VARIABLES = ("WORLD_SIZE", "LOCAL_RANK")
EAGER_VARIABLE = "TINYVOICE_EAGER_IMPORTS"


def import_transformers() -> bool:
    """Import the modelling code that our models need, and put off what it does not need.

    Returns whether that was done. It is not where it is imported already, where the environment
    speaks of several processes or sets ``TINYVOICE_EAGER_IMPORTS``, and where a release of
    transformers does not bear it; then imports go their usual way.
    """
    if IMPORTED_MODULES[0] in sys.modules:
        return False
    if any(os.environ.get(name) for name in (*DISTRIBUTED_VARIABLES, EAGER_VARIABLE)):
        return False
    before = set(sys.modules)
    importlib.import_module("torch")
    try:
        with deferred_imports(DEFERRED_MODULES):
            for name in IMPORTED_MODULES:
                importlib.import_module(name)
    except Exception:
        # Not meant for this release. Begin anew, without what is now half imported.
        logger.debug("transformers cannot be imported with stand-ins", exc_info=True)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "transformers":
                del sys.modules[name]
        return False
    return True


@contextmanager
def deferred_imports(names: tuple[str, ...]) -> Iterator[None]:
    """While this lasts, importing one of ``names`` gives a stand-in, unless it is there already."""
    global _deferring
    for name in names:
        if name not in sys.modules:
            sys.modules[name] = StandIn(name)
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
        _remove_stand_ins()


_deferring = False


def _remove_stand_ins() -> None:
    """Let the next import of a module that is stood in for find the real one."""
    for name in [name for name, module in sys.modules.items() if isinstance(module, StandIn)]:
        del sys.modules[name]


class StandIn(ModuleType):
    """A module whose contents are all :class:`Deferred`."""

    __path__: list[str] = []  # noqa: RUF012 - marks a package, whose modules can be imported

    def __getattr__(self, name: str) -> Deferred:
        if _is_special(name):
            raise AttributeError(name)
        module = self.__name__

        def fetch() -> Any:
            _remove_stand_ins()
            return getattr(importlib.import_module(module), name)

        return Deferred(fetch, module)


class Deferred:
    """A function, class or value that is fetched when it is first used.

    Calling it, reading its attributes and deriving from it are uses. So is asking whether something
    is an instance of it, but only once its module is loaded: before, nothing can be. While imports
    are deferred, a call gives another deferred value: that is how decorators are put off.
    """

    def __init__(self, fetch: Callable[[], Any], module: str | None = None) -> None:
        self._deferred_fetch = fetch
        self._deferred_module = module

    def _deferred_value(self) -> Any:
        values = self.__dict__
        if "_deferred_found" not in values:
            values["_deferred_found"] = self._deferred_fetch()
        return values["_deferred_found"]

    def __getattr__(self, name: str) -> Any:
        if _is_special(name):
            raise AttributeError(name)
        return getattr(self._deferred_value(), name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call what is fetched; while imports are deferred, later."""
        if _deferring:
            return Deferred(lambda: self._deferred_value()(*arguments, **named))
        return self._deferred_value()(*arguments, **named)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """A decorated method binds as the function in it would."""
        return self if instance is None else MethodType(self, instance)

    def __instancecheck__(self, instance: object) -> bool:
        return self._is_loaded() and isinstance(instance, self._deferred_value())

    def __subclasscheck__(self, subclass: type) -> bool:
        return self._is_loaded() and issubclass(subclass, self._deferred_value())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._deferred_value(),)

    def __or__(self, other: Any) -> Any:
        """In an annotation: any type will do."""
        return Any

    __ror__ = __or__

    def _is_loaded(self) -> bool:
        if self._deferred_module is None:
            return True
        module = sys.modules.get(self._deferred_module)
        return module is not None and not isinstance(module, StandIn)


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
