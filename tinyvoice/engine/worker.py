"""The thread in which an engine's model works, and whose end does not go unnoticed.

`concurrent.futures` knows no such thing: a thread of its pool that dies takes the call in hand with
it, and whoever waits for it, or for the next one, waits for ever. Here every call has an outcome;
when the thread ends for whatever reason, that outcome is `WorkerDiedError`. It restarts nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from tinyvoice.engine.errors import EngineError

Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")
Call = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class WorkerDiedError(EngineError):
    """The worker's thread ended before the call was over; the cause is chained, if it is known."""


class Worker:
    """A thread that makes one call after the other for the running event loop.

    ``died`` is called in the loop when the thread has ended although nobody told it to, before
    those who wait are told.
    """

    def __init__(self, died: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._died = died
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._stopped = self._abandoned = self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._work, name="tinyvoice-engine-worker", daemon=True
        )
        self._thread.start()
        # A second thread, because the first one may end anywhere: also where it would say so.
        threading.Thread(target=self._watch, name="tinyvoice-engine-watch", daemon=True).start()

    @property
    def thread_id(self) -> int | None:
        """Identifies the thread, as `threading.get_ident` does."""
        return self._thread.ident

    async def run(
        self,
        call: Callable[Arguments, Outcome],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Outcome:
        """Make a call in the thread, after those that were asked for before.

        Raises:
            WorkerDiedError: the thread has ended, or ends meanwhile.
            Exception: what the call raises.
        """
        if self._ended:
            raise self._end()
        outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiting.add(outcome)
        self._calls.put((lambda: call(*arguments, **named), outcome))
        try:
            return await outcome
        finally:
            self._waiting.discard(outcome)

    def stop(self) -> None:
        """End the thread after the calls that were asked for before."""
        self._stopped = True
        self._calls.put(None)

    def abandon(self) -> None:
        """End the thread after the call in hand; the others' outcome is `WorkerDiedError`."""
        self._abandoned = True
        self.stop()

    async def join(self) -> None:
        """Wait for the thread's end."""
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        try:
            while self._next():
                pass
        except BaseException as error:  # SystemExit too: what it was is told to those who wait
            self._error = error

    def _next(self) -> bool:
        # A function of its own, so that nothing is held while the thread waits for its next call.
        entry = self._calls.get()
        if entry is None or self._abandoned:
            return False
        call, future = entry
        outcome, error = None, None
        try:
            outcome = call()
        except Exception as raised:
            error = raised
        self._loop.call_soon_threadsafe(settle, future, outcome, error)
        del error  # it knows this frame, which knows it
        return True

    def _watch(self) -> None:
        self._thread.join()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._tell_end)

    def _tell_end(self) -> None:
        self._ended = True
        if not self._stopped:
            self._died()
        for future in list(self._waiting):
            settle(future, None, self._end())

    def _end(self) -> WorkerDiedError:
        error = WorkerDiedError(f"The engine's worker died ({self._error!r}).")
        error.__cause__ = self._error
        return error


def settle(future: asyncio.Future[Any], outcome: Any, error: Exception | None) -> None:
    """Give a future its outcome, unless nobody waits for it any more."""
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)
