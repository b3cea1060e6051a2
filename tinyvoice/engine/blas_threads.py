"""Keeps numpy from using all cores beside the engine.

OpenBLAS, which comes with numpy, divides a matrix product among as many threads as there are cores,
and lets them spin for tens of milliseconds afterwards, in wait of the next product. Turn detection
(smart-turn, here and in Pipecat) makes such products when somebody has stopped speaking: when the
final pass needs a core. One thread makes them as fast, since they are small.

Only the OpenBLAS of numpy's and scipy's packages is limited; torch's threads are another matter.
"""

from __future__ import annotations

import threading

from threadpoolctl import ThreadpoolController

PREFIX = "libscipy_openblas"
"""How the file of the library is called in the packages of numpy and scipy."""

_lock = threading.Lock()
_limits: list[BlasLimit] = []
_before: dict[str, int] = {}
"""Threads of each library, by its file, as they were before it was limited."""


class BlasLimit:
    """At most ``threads`` for numpy's matrix products in this process, until it is released.

    Where several hold, the lowest counts; when the last one is released, what was before is again.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        with _lock:
            _limits.append(self)
            _apply()

    def release(self) -> None:
        """Give the threads back; a second time does nothing."""
        with _lock:
            if self in _limits:
                _limits.remove(self)
                _apply()


def _apply() -> None:
    # threadpoolctl lets one thread set OpenBLAS's threads, as long as it lives: one that ends at
    # once keeps nobody else from it.
    setter = threading.Thread(target=_set_threads, name="tinyvoice-blas-threads")
    setter.start()
    setter.join()


def _set_threads() -> None:
    lowest = min((limit.threads for limit in _limits), default=None)
    for library in ThreadpoolController().select(prefix=PREFIX).lib_controllers:
        before = _before.setdefault(library.filepath, library.num_threads)
        library.set_num_threads(before if lowest is None else min(before, lowest))
    if lowest is None:
        _before.clear()
