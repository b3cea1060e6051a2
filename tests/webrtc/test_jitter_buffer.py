"""Order of packets: every rule, on a clock that the test moves."""

from __future__ import annotations

import random

import pytest

from tinyvoice.webrtc.jitter_buffer import JitterBuffer, Packet


def packet(number: int, source: int = 1) -> Packet:
    return Packet(number % 65_536, number * 960 % 2**32, 96, b"sound", source)


def numbers(packets: list[Packet]) -> list[int]:
    return [each.sequence_number for each in packets]


def test_packets_in_their_turn_wait_for_nothing() -> None:
    buffer = JitterBuffer()
    assert [numbers(buffer.add(packet(n), n * 0.02)) for n in range(7, 10)] == [[7], [8], [9]]
    assert (len(buffer), buffer.lost, buffer.late) == (0, 0, 0)


def test_the_sequence_number_wraps_around() -> None:
    buffer = JitterBuffer()
    order = [65_533, 65_534, 65_536, 65_535, 65_538, 65_537]
    released = [numbers(buffer.add(packet(n), 0.0)) for n in order]
    assert released == [[65_533], [65_534], [], [65_535, 0], [], [1, 2]]


def test_packets_behind_a_missing_one_wait_until_it_comes() -> None:
    buffer = JitterBuffer()
    buffer.add(packet(1), 0.0)
    assert numbers(buffer.add(packet(3), 0.02)) == []
    assert numbers(buffer.add(packet(4), 0.04)) == []
    assert numbers(buffer.add(packet(2), 0.06)) == [2, 3, 4]
    assert buffer.lost == 0


def test_a_lost_packet_is_given_up_when_patience_ends() -> None:
    buffer = JitterBuffer(patience_s=0.08)
    buffer.add(packet(1), 0.0)
    buffer.add(packet(3), 0.02)
    assert buffer.expire(0.09) == []
    assert numbers(buffer.expire(0.101)) == [3]
    assert buffer.lost == 1
    assert numbers(buffer.add(packet(4), 0.11)) == [4]


def test_a_packet_that_comes_after_it_was_given_up_is_dropped() -> None:
    buffer = JitterBuffer()
    buffer.add(packet(1), 0.0)
    buffer.add(packet(3), 0.0)
    buffer.expire(1.0)
    assert buffer.add(packet(2), 1.0) == []
    assert (buffer.lost, buffer.late) == (1, 1)


def test_a_packet_that_comes_twice_counts_once() -> None:
    buffer = JitterBuffer()
    buffer.add(packet(1), 0.0)
    buffer.add(packet(3), 0.0)
    assert buffer.add(packet(1), 0.0) == buffer.add(packet(3), 0.0) == []
    assert numbers(buffer.add(packet(2), 0.0)) == [2, 3]
    assert buffer.late == 2


def test_the_buffer_never_holds_more_than_its_capacity() -> None:
    buffer = JitterBuffer(capacity=4)
    buffer.add(packet(1), 0.0)
    for n in range(3, 7):
        assert buffer.add(packet(n), 0.0) == []
    assert numbers(buffer.add(packet(7), 0.0)) == [3, 4, 5, 6, 7]
    assert buffer.lost == 1


@pytest.mark.parametrize("restart", [packet(40_000), packet(3, source=2)])
def test_a_sender_that_starts_anew_loses_nothing_that_had_come(restart: Packet) -> None:
    buffer = JitterBuffer()
    buffer.add(packet(1), 0.0)
    buffer.add(packet(3), 0.0)
    assert buffer.add(restart, 0.02) == [packet(3), restart]
    assert len(buffer) == 0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_network_does_the_order_holds(seed: int) -> None:
    chance = random.Random(seed)
    sent = [n for n in range(65_000, 66_000) if chance.random() > 0.05]
    arrivals = sorted((n * 0.02 + chance.uniform(0, 0.07), n) for n in sent)
    buffer = JitterBuffer(patience_s=0.08)
    released: list[Packet] = []
    for at, n in arrivals:
        released += buffer.add(packet(n), at)
    released += buffer.expire(arrivals[-1][0] + 1.0)
    first = arrivals[0][1]
    # Packets that overtook the very first one are the only ones it cannot put in order.
    assert numbers(released) == [n % 65_536 for n in sent if n >= first]
    assert buffer.lost == sent[-1] - first + 1 - len(released)
