"""The engine's thread: calls in order, and an outcome for everyone who waits."""

from __future__ import annotations

import asyncio
import ctypes
import threading

import pytest

from tinyvoice.engine.worker import Worker, WorkerDiedError

pytestmark = pytest.mark.asyncio


def kill(thread_id: int | None) -> None:
    """Have SystemExit raised in a thread, wherever it is."""
    assert thread_id is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread_id), ctypes.py_object(SystemExit)
    )


async def test_makes_calls_in_order_in_one_thread() -> None:
    worker = Worker(died=lambda: None)
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return threading.get_ident()

    threads = await asyncio.gather(*(worker.run(make, number) for number in range(20)))
    assert made == list(range(20))
    assert set(threads) == {worker.thread_id}
    worker.stop()
    await worker.join()


async def test_what_a_call_raises_is_its_outcome_and_nobody_elses() -> None:
    worker = Worker(died=lambda: None)
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 / 0)
    assert await worker.run(int, "7") == 7
    worker.stop()
    await worker.join()


async def test_a_call_that_kills_the_thread_is_told_so_and_all_behind_it() -> None:
    deaths: list[bool] = []
    worker = Worker(died=lambda: deaths.append(True))
    begun = threading.Event()

    def dies() -> None:
        begun.wait()
        raise SystemExit(3)

    calls = [asyncio.create_task(worker.run(dies)), asyncio.create_task(worker.run(int))]
    await asyncio.sleep(0)
    begun.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, WorkerDiedError) for outcome in outcomes)
    assert isinstance(outcomes[0], WorkerDiedError)
    assert isinstance(outcomes[0].__cause__, SystemExit)
    assert deaths == [True]
    with pytest.raises(WorkerDiedError, match="SystemExit"):
        await worker.run(int)


async def test_a_thread_killed_from_outside_while_it_waits() -> None:
    dead = asyncio.Event()
    worker = Worker(died=dead.set)
    await worker.run(int)
    kill(worker.thread_id)
    # The exception comes with the next instruction, which is that of the next call.
    with pytest.raises(WorkerDiedError):
        await worker.run(int)
    assert dead.is_set()


async def test_calls_behind_an_abandoned_one_are_not_made() -> None:
    deaths: list[bool] = []
    worker = Worker(died=lambda: deaths.append(True))
    begun, go_on, made = threading.Event(), threading.Event(), list[str]()

    def wait() -> None:
        begun.set()
        go_on.wait()
        made.append("first")

    first = asyncio.create_task(worker.run(wait))
    second = asyncio.create_task(worker.run(made.append, "second"))
    await asyncio.to_thread(begun.wait)
    worker.abandon()
    go_on.set()
    await first
    with pytest.raises(WorkerDiedError):
        await second
    assert made == ["first"]
    assert not deaths
