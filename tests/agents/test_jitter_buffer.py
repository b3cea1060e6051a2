"""How soon the microphone of a call is heard."""

from __future__ import annotations

from aiortc.rtp import RtpPacket
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

from agents.jitter_buffer import ATTRIBUTE, CAPACITY, hear_at_once


def packet(number: int) -> RtpPacket:
    made = RtpPacket(sequence_number=number, timestamp=960 * number)
    made._data = bytes([number])  # type: ignore[attr-defined]
    return made


async def test_a_packet_is_heard_when_the_next_one_has_come() -> None:
    connection = SmallWebRTCConnection([])
    connection.pc.addTransceiver("audio")
    hear_at_once(connection)
    [transceiver] = connection.pc.getTransceivers()
    add = getattr(transceiver.receiver, ATTRIBUTE).add
    heard = [add(packet(number))[1] for number in (0, 1, 3, 2, 4)]
    # Two that come in the wrong order are put right, a packet later.
    assert [frame and frame.data for frame in heard] == [None, b"\0", None, b"\1", b"\2"]
    await connection.pc.close()


async def test_a_packet_that_is_lost_is_waited_for_a_while() -> None:
    connection = SmallWebRTCConnection([])
    connection.pc.addTransceiver("audio")
    hear_at_once(connection)
    [transceiver] = connection.pc.getTransceivers()
    add = getattr(transceiver.receiver, ATTRIBUTE).add
    numbers = [0, *range(2, CAPACITY + 3)]
    heard = {number: add(packet(number))[1] for number in numbers}
    told = {number: frame.data for number, frame in heard.items() if frame is not None}
    # The one before it, not yet heard, is given up with it: that is aiortc's way.
    assert told == {CAPACITY: b"\2", CAPACITY + 1: b"\3", CAPACITY + 2: b"\4"}
    await connection.pc.close()
