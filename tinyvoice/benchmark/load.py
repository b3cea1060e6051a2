"""Plays streams in real time, from a process of its own.

The schedule is fixed before the first packet: packet i of a stream is due when its last sample has
been spoken, at ``start + (i + 1) · packet`` on the system's monotonic clock, however late the one
before was. So a slow receiver cannot slow the load down, and what the generator itself is late by
is measured and reported (:class:`Lateness`).

Everything goes over one socket pair: packets to :func:`parse`'s caller, each with its stream and
the time at which it was due, and at the end the lateness. Nothing here knows an engine, and nothing
heavy is imported, so that the process is up at once.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.timeline import Timeline, render
from tinyvoice.errors import TinyvoiceError

HEADER = struct.Struct("<IId")
"""Stream, bytes of the payload, and the wall time at which the packet was due."""
REPORT = 0xFFFF_FFFF
"""Stands for a stream in the message that carries the :class:`Lateness`."""
READY = 0xFFFF_FFFE
"""Stands for a stream in the message that says that the schedule is made."""
START = struct.Struct("<d")
"""What sets the generator off: the wall time of the schedule's zero."""

Payloads = Callable[["LoadPlan"], "list[Iterator[bytes]]"]
"""For each stream of a plan what is sent for its packets, in order: a function of a module that is
light to import. It is called before the schedule's zero, in the generator's process."""

_BLOCK_PACKETS = 50
_SOCKET_BUFFER_BYTES = 1 << 22


class LoadError(TinyvoiceError):
    """The process that plays the streams could not do its work."""


@dataclass(frozen=True)
class LoadPlan:
    """What is to be played: picklable, made before the run."""

    sounds: Sequence[NDArray[np.int16]]
    timelines: Sequence[Timeline]
    starts: Sequence[float]
    """Seconds after the schedule's zero at which each stream's recording begins."""
    packet_samples: int
    payloads: Payloads | None = None
    """Makes what is sent; 16-bit PCM of each packet (:func:`all_packets`) if not given."""

    @property
    def packet_s(self) -> float:
        """Length of a packet in seconds."""
        return self.packet_samples / SAMPLE_RATE

    def packets(self, stream: int) -> int:
        """Packets of a stream; the last one may be shorter than the others."""
        return -(-self.timelines[stream].samples // self.packet_samples)

    @property
    def seconds(self) -> float:
        """From the schedule's zero to the last packet."""
        return max(
            start + self.packets(stream) * self.packet_s for stream, start in enumerate(self.starts)
        )

    @property
    def audio_seconds(self) -> float:
        """Audio of all streams together."""
        return sum(timeline.seconds for timeline in self.timelines)


@dataclass(frozen=True)
class Lateness:
    """By how many seconds packets left the generator after they were due."""

    packets: int
    p50: float
    p99: float
    greatest: float
    blocked: float
    """The longest time that the receiver kept the generator waiting."""


def stagger(streams: int, spread_s: float, packet_s: float) -> list[float]:
    """Starts that spread over ``spread_s`` and, within a packet, over its whole length.

    Multiples of the golden ratio's fraction fill an interval evenly whatever their number; real
    callers do not begin, and do not send, at the same moment.
    """
    golden = (5**0.5 - 1) / 2
    return [
        (stream * golden % 1.0) * spread_s + (stream * golden * golden % 1.0) * packet_s
        for stream in range(streams)
    ]


def schedule(plan: LoadPlan) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """When each packet is due, in seconds after zero, in order of time; and of which stream."""
    dues = [
        start + (np.arange(plan.packets(stream)) + 1) * plan.packet_s
        for stream, start in enumerate(plan.starts)
    ]
    streams = np.repeat(np.arange(len(dues)), [len(due) for due in dues])
    times = np.concatenate(dues)
    order = np.argsort(times, kind="stable")
    return times[order], streams[order]


# In the generator's process ------------------------------------------------------------------


def generate(connection: socket.socket, plan: LoadPlan) -> None:
    """Play the plan: wait for the schedule's zero, send each packet when it is due."""
    with suppress(ValueError):  # not in the main thread, in tests
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever is interrupted closes the socket
    times, streams = schedule(plan)
    sources = (plan.payloads or all_packets)(plan)
    with suppress(BrokenPipeError, ConnectionResetError), connection:
        connection.sendall(HEADER.pack(READY, 0, time.monotonic()))
        begin = connection.recv(START.size, socket.MSG_WAITALL)
        if len(begin) < START.size:
            return
        lateness = send(connection, times + START.unpack(begin)[0], streams, sources)
        text = json.dumps(asdict(lateness)).encode()
        connection.sendall(HEADER.pack(REPORT, len(text), time.monotonic()) + text)


def all_packets(plan: LoadPlan) -> list[Iterator[bytes]]:
    """The packets of every stream."""
    return [packets(plan, stream) for stream in range(len(plan.timelines))]


def packets(plan: LoadPlan, stream: int) -> Iterator[bytes]:
    """A stream's packets, 16-bit little-endian PCM, made a second or so ahead."""
    timeline = plan.timelines[stream]
    block = plan.packet_samples * _BLOCK_PACKETS
    for begin in range(0, timeline.samples, block):
        end = min(begin + block, timeline.samples)
        audio = render(timeline, plan.sounds, begin, end).astype("<i2", copy=False).tobytes()
        for at in range(0, len(audio), 2 * plan.packet_samples):
            yield audio[at : at + 2 * plan.packet_samples]


def send(
    connection: socket.socket,
    dues: NDArray[np.float64],
    streams: NDArray[np.int64],
    sources: Sequence[Iterator[bytes]],
) -> Lateness:
    """Send every packet when it is due (wall time); those due together go in one write."""
    late, blocked, at = np.zeros(len(dues)), 0.0, 0
    while at < len(dues):
        wait = dues[at] - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        now = time.monotonic()
        ready = max(at + 1, int(np.searchsorted(dues, now, side="right")))
        message = bytearray()
        for index in range(at, ready):
            payload = next(sources[streams[index]])
            message += HEADER.pack(int(streams[index]), len(payload), float(dues[index])) + payload
        connection.sendall(message)
        late[at:ready] = now - dues[at:ready]
        blocked, at = max(blocked, time.monotonic() - now), ready
    p50, p99 = np.percentile(late, [50, 99])
    return Lateness(len(late), float(p50), float(p99), float(late.max()), blocked)


# In the measured process ---------------------------------------------------------------------


@contextmanager
def generator(plan: LoadPlan) -> Iterator[socket.socket]:
    """Start the process; gives the socket it writes to, and ends it on leaving.

    Nothing is played before :func:`start` is called with the socket.
    """
    near, far = socket.socketpair()
    for end in (near, far):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=generate, args=(far, plan), daemon=True)
    try:
        process.start()
        far.close()
        yield near
    finally:
        near.close()
        process.join(timeout=5.0)
        if process.is_alive():
            process.kill()
            process.join()


def start(connection: socket.socket, zero: float) -> None:
    """Set the generator off: the schedule's zero is at the wall time ``zero``."""
    connection.sendall(START.pack(zero))


Receive = Callable[[int, float, bytes], Any]


class Parser:
    """Takes apart what the generator sends: calls ``receive(stream, due, packet)`` for each packet.

    ``ready`` says that the generator waits for :func:`start`; its own report ends up in
    ``lateness``, after the last packet.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._pending = bytearray()
        self.ready = False
        self.lateness: Lateness | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes as they come, in pieces of any size."""
        self._pending += data
        view, at = bytes(self._pending), 0
        while len(view) - at >= HEADER.size:
            stream, size, due = HEADER.unpack_from(view, at)
            body = at + HEADER.size
            if len(view) - body < size:
                break
            packet, at = view[body : body + size], body + size
            if stream == REPORT:
                self.lateness = Lateness(**json.loads(packet))
            elif stream == READY:
                self.ready = True
            else:
                self._receive(stream, due, packet)
        del self._pending[:at]
