"""Puts RTP packets of one source in order.

A recogniser needs the order of a stream and not its pace, so nothing is held back to smooth the
playout: a packet that comes in its turn is released at once, and only those behind a missing one
wait, until it comes or is given up. It decodes nothing, owns no timer and reads no clock: every
call says what time it is, in seconds of any clock that does not go back.
"""

from __future__ import annotations

from dataclasses import dataclass

_SEQUENCE_NUMBERS = 1 << 16

_RESTART = 3_000
"""A jump of the sequence number beyond which it is a new stream, as in RFC 3550, appendix A.1."""


@dataclass(frozen=True)
class Packet:
    """What a packet says of its place, and what it carries."""

    sequence_number: int
    """0 to 65535, one more for each packet."""
    timestamp: int
    """0 to 2**32 - 1, in samples of the codec's RTP clock."""
    payload_type: int
    payload: bytes
    source: int = 0
    """Synchronisation source (SSRC)."""


class JitterBuffer:
    """Packets of one source, released in order.

    Args:
        patience_s: how long those behind a missing packet wait for it.
        capacity: how many may wait; beyond it the missing packet is given up at once.
    """

    def __init__(self, patience_s: float = 0.08, capacity: int = 64) -> None:
        self.patience_s = patience_s
        self.capacity = capacity
        self.lost = 0
        """Packets given up."""
        self.late = 0
        """Packets that came after they had been given up, or twice; they are dropped."""
        self._source: int | None = None
        self._next = 0  # sequence number to release next, counted on beyond 65535
        self._waiting: dict[int, tuple[Packet, float]] = {}

    def __len__(self) -> int:
        """How many packets wait for one before them."""
        return len(self._waiting)

    def lacks(self, packet: Packet) -> bool:
        """Whether this packet of the stream is still to come."""
        if packet.source != self._source:
            return False
        number = self._unwrapped(packet.sequence_number)
        return 0 <= number - self._next <= _RESTART and number not in self._waiting

    def add(self, packet: Packet, now: float) -> list[Packet]:
        """Take a packet; return those released by it, in order."""
        released: list[Packet] = []
        if self._source is None:
            self._begin(packet)
        number = self._unwrapped(packet.sequence_number)
        if packet.source != self._source or abs(number - self._next) > _RESTART:
            released = [self._waiting[key][0] for key in sorted(self._waiting)]
            self._begin(packet)
            number = self._next
        if number < self._next or number in self._waiting:
            self.late += 1
            return released
        self._waiting[number] = (packet, now)
        released += self._run()
        while len(self._waiting) > self.capacity:
            released += self._give_up()
        return released + self.expire(now)

    def expire(self, now: float) -> list[Packet]:
        """Give up what has been waited for long enough; return the packets behind it."""
        released: list[Packet] = []
        while self._waiting:
            oldest = min(arrival for _, arrival in self._waiting.values())
            if now - oldest < self.patience_s:
                break
            released += self._give_up()
        return released

    def _begin(self, packet: Packet) -> None:
        self._source = packet.source
        self._next = packet.sequence_number
        self._waiting.clear()

    def _unwrapped(self, sequence_number: int) -> int:
        """The number near the next one that has these lowest 16 bits."""
        half = _SEQUENCE_NUMBERS // 2
        return self._next + (sequence_number - self._next + half) % _SEQUENCE_NUMBERS - half

    def _run(self) -> list[Packet]:
        released = []
        while self._next in self._waiting:
            released.append(self._waiting.pop(self._next)[0])
            self._next += 1
        return released

    def _give_up(self) -> list[Packet]:
        first = min(self._waiting)
        self.lost += first - self._next
        self._next = first
        return self._run()
