"""Redundant audio data (RFC 2198): packets that carry the sound of those before them once more.

A browser that has agreed to it sends every frame twice, in its own packet and in the next one, so
that a lost packet costs nothing unless its neighbour is lost as well. Finding it in an offer and
asking for it in the answer is done here, and taking packets apart; it keeps no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from tinyvoice.webrtc.jitter_buffer import Packet

MIME_TYPE = "audio/red"

_MORE = 0x80
"""Bit of a block's header that says that another block follows."""

_LONG_HEADER = 4
"""Bytes of the header of every block but the last: payload type, timestamp offset, length."""

_SEQUENCE_NUMBERS = 1 << 16
_TIMESTAMPS = 1 << 32


def is_redundancy(codec: RTCRtpCodecParameters) -> bool:
    """Whether this is not a codec of its own but a way to carry one."""
    return codec.mimeType.lower() == MIME_TYPE


def offered_redundancy(
    offered: Sequence[RTCRtpCodecParameters], agreed: Sequence[RTCRtpCodecParameters]
) -> RTCRtpCodecParameters | None:
    """Redundancy for the codec that was agreed on first, if the offer has it."""
    carried = str(agreed[0].payloadType) if agreed else None
    for codec in offered:
        # Its parameters are the payload types that it may carry: "111/111".
        kinds = "/".join(codec.parameters).split("/") if is_redundancy(codec) else []
        if carried is not None and kinds and set(kinds) == {carried}:
            return codec
    return None


def preferring_redundancy(answer: str, payload_type: int) -> str:
    """The answer with this payload type first: what is first is what the other side sends."""
    lines = answer.split("\r\n")
    for n, line in enumerate(lines):
        if not line.startswith("m=audio "):
            continue
        head, kinds = line.split(" ")[:3], line.split(" ")[3:]
        if str(payload_type) in kinds:
            kinds.remove(str(payload_type))
            lines[n] = " ".join([*head, str(payload_type), *kinds])
    return "\r\n".join(lines)


def unpacked(packet: Packet) -> list[Packet]:
    """The packets whose sound this one carries, its own last; none if it is malformed.

    The header of a redundant block has no sequence number: the blocks are those of the packets
    directly before, as browsers send them.
    """
    headers: list[tuple[int, int, int]] = []  # payload type, timestamp offset, length
    data = packet.payload
    at = 0
    while at < len(data) and data[at] & _MORE:
        fields = int.from_bytes(data[at : at + _LONG_HEADER], "big")
        headers.append((fields >> 24 & 0x7F, fields >> 10 & 0x3FFF, fields & 0x3FF))
        at += _LONG_HEADER
    if at >= len(data):
        return []
    own_type = data[at]
    at += 1
    if at + sum(length for _, _, length in headers) > len(data):
        return []
    found: list[Packet] = []
    for back, (payload_type, offset, length) in zip(
        range(len(headers), 0, -1), headers, strict=True
    ):
        if length and offset:
            found.append(
                replace(
                    packet,
                    sequence_number=(packet.sequence_number - back) % _SEQUENCE_NUMBERS,
                    timestamp=(packet.timestamp - offset) % _TIMESTAMPS,
                    payload_type=payload_type,
                    payload=data[at : at + length],
                )
            )
        at += length
    found.append(replace(packet, payload_type=own_type, payload=data[at:]))
    return found
