"""The queue before a client: order, bounds, and clients that do not read."""

from __future__ import annotations

import asyncio

from tinyvoice.server.outbox import Outbox, TransportLostError


class Wire:
    """Stands for a socket whose buffers are full until the test says otherwise."""

    def __init__(self, reading: bool = True) -> None:
        self.sent: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.reading = asyncio.Event()
        if reading:
            self.reading.set()

    async def send(self, text: str) -> None:
        await self.reading.wait()
        if self.aborted:
            raise TransportLostError("gone")
        self.sent.append(text)

    async def close(self, code: int, reason: str) -> None:
        await self.reading.wait()
        self.closed = code, reason

    def abort(self) -> None:
        self.aborted = True
        self.reading.set()


async def test_events_leave_in_order_and_before_the_close() -> None:
    wire = Wire()
    outbox = Outbox(wire, 1_000, 1.0)
    for number in range(20):
        outbox.put(str(number))
    outbox.finish(1000, "bye")
    outbox.put("too late")
    await outbox.run()
    assert wire.sent == [str(number) for number in range(20)]
    assert wire.closed == (1000, "bye")
    assert outbox.over.is_set()
    assert outbox.fault is None


async def test_who_can_wait_waits_until_little_is_left() -> None:
    wire = Wire(reading=False)
    outbox = Outbox(wire, 800, 10.0)
    running = asyncio.create_task(outbox.run())
    await asyncio.wait_for(outbox.room(), 30)
    for _ in range(5):
        outbox.put("x" * 100)
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    wire.reading.set()
    await asyncio.wait_for(waiting, 30)
    assert len(wire.sent) >= 4
    outbox.finish(1000, "")
    await running


async def test_a_queue_that_overflows_drops_the_client() -> None:
    wire = Wire(reading=False)
    outbox = Outbox(wire, 1_000, 10.0)
    running = asyncio.create_task(outbox.run())
    for _ in range(11):
        outbox.put("x" * 100)
    assert (wire.aborted, outbox.fault, outbox.over.is_set()) == (True, "unread", True)
    await asyncio.wait_for(running, 30)
    assert wire.sent == []
    await asyncio.wait_for(outbox.room(), 30)  # nobody waits for a client that is gone


async def test_a_client_that_takes_nothing_is_dropped() -> None:
    for begin in ("event", "close"):
        wire = Wire(reading=False)
        outbox = Outbox(wire, 1_000, 0.01)
        if begin == "event":
            outbox.put("x")
        else:
            outbox.finish(1000, "")
        await asyncio.wait_for(outbox.run(), 30)
        assert (wire.aborted, outbox.fault) == (True, "stalled")


async def test_a_client_that_is_gone_is_no_fault() -> None:
    wire = Wire()
    wire.abort()
    outbox = Outbox(wire, 1_000, 1.0)
    outbox.put("x")
    await outbox.run()
    assert outbox.fault is None
    assert outbox.over.is_set()
