"""Packets that carry copies of those before them."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from tests.webrtc.impaired_network import RED, with_copies
from tests.webrtc.test_incoming import AUDIO, OPUS, encoded, received, samples, tone
from tinyvoice.webrtc.incoming import IncomingAudio
from tinyvoice.webrtc.jitter_buffer import Packet
from tinyvoice.webrtc.redundancy import offered_redundancy, preferring_redundancy, unpacked


def test_a_packet_is_taken_apart() -> None:
    # RFC 2198, section 3: two redundant blocks, 1920 and 960 earlier, and the primary.
    header = bytes([0x80 | 111, 1920 >> 6, (1920 & 63) << 2, 3])
    header += bytes([0x80 | 111, 960 >> 6, (960 & 63) << 2, 2, 111])
    packet = Packet(1, 1_000, 63, header + b"onetwfour", source=7)
    assert unpacked(packet) == [
        Packet(65_535, 2**32 - 920, 111, b"one", 7),
        Packet(0, 40, 111, b"tw", 7),
        Packet(1, 1_000, 111, b"four", 7),
    ]


def test_copies_without_content_and_malformed_packets_carry_nothing() -> None:
    empty = bytes([0x80 | 111, 960 >> 6, (960 & 63) << 2, 0, 111])
    assert unpacked(Packet(1, 0, 63, empty + b"x")) == [Packet(1, 0, 111, b"x")]
    for payload in (b"", b"\xef", b"\xef\x0f\x00", b"\xef\x0f\x00\x09\x6f123"):
        assert unpacked(Packet(1, 0, 63, payload)) == []


def test_any_bytes_are_borne() -> None:
    chance = random.Random(0)
    incoming = IncomingAudio([OPUS, RED])
    for n in range(500):
        payload = chance.randbytes(chance.randrange(40))
        incoming.receive(Packet(n, n * 960, RED.payloadType or 0, payload), n * 0.02)


def test_a_lost_packet_is_heard_from_its_copy() -> None:
    packets = with_copies(encoded(OPUS, tone(1.0)))
    incoming = IncomingAudio([OPUS, RED])
    lost = {3, 9, 10, 20, len(packets) - 2}
    heard = b"".join(
        incoming.receive(packet, n * 0.02) for n, packet in enumerate(packets) if n not in lost
    )
    # Of two in a row, only the second comes back.
    assert incoming.statistics.recovered == 4
    assert incoming.statistics.lost == 1
    assert incoming.statistics.filled_ms == 20
    whole = received(encoded(OPUS, tone(1.0)))
    assert len(samples(heard)) == len(whole)
    np.testing.assert_array_equal(samples(heard)[: 8 * 480], whole[: 8 * 480])


def test_copies_change_nothing_where_nothing_is_lost() -> None:
    packets = with_copies(encoded(OPUS, tone(1.0)))
    incoming = IncomingAudio([OPUS, RED])
    heard = b"".join(incoming.receive(packet, n * 0.02) for n, packet in enumerate(packets))
    np.testing.assert_array_equal(samples(heard), received(encoded(OPUS, tone(1.0))))
    statistics = incoming.statistics
    assert (statistics.recovered, statistics.lost, statistics.late) == (0, 0, 0)


def test_a_malformed_packet_is_a_gap() -> None:
    packets = encoded(OPUS, tone(1.0))
    mixed = with_copies(packets)
    mixed[10] = replace(mixed[10], payload=b"\xef")
    mixed[11] = replace(packets[11])  # without the copy that would have helped
    incoming = IncomingAudio([OPUS, RED])
    heard = b"".join(incoming.receive(packet, n * 0.02) for n, packet in enumerate(mixed))
    assert len(samples(heard)) == len(packets) * 480
    assert incoming.statistics.filled_ms == 20


@pytest.mark.parametrize(
    ("parameters", "found"),
    [({"111/111": None}, True), ({"111/111/111": None}, True), ({"0/0": None}, False), ({}, False)],
)
def test_it_is_agreed_to_for_the_codec_in_use_only(
    parameters: dict[str, int | str | None], found: bool
) -> None:
    opus = replace(OPUS, payloadType=111)
    red = RTCRtpCodecParameters("audio/red", 48_000, 2, 63, [], parameters)
    assert offered_redundancy([opus, AUDIO["PCMU"], red], [opus, AUDIO["PCMU"]]) == (
        red if found else None
    )
    assert offered_redundancy([red], []) is None


def test_the_answer_prefers_it() -> None:
    answer = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 9 63\r\na=rtpmap:63 red/48000/2\r\n"
    assert preferring_redundancy(answer, 63).split("\r\n")[1] == (
        "m=audio 9 UDP/TLS/RTP/SAVPF 63 111 9"
    )
    assert preferring_redundancy(answer, 62) == answer
