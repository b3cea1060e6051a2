"""The load generator: what is sent when, and that it arrives whole."""

import random
import socket
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from tinyvoice.benchmark.load import (
    LoadPlan,
    Parser,
    generate,
    generator,
    packets,
    schedule,
    stagger,
    start,
)
from tinyvoice.benchmark.speech import make_clip
from tinyvoice.benchmark.timeline import Placed, Timeline, make_timeline, make_timelines, render

CLIPS = [
    make_clip(f"{seconds} s", np.full(int(16_000 * seconds), 0.5, np.float32), "a")
    for seconds in (0.5, 1.0, 1.5)
]


def test_a_timeline_places_whole_clips_with_pauses() -> None:
    timeline = make_timeline(CLIPS, 10.0, pause_s=0.5, draw=random.Random(1))
    assert timeline.samples == 160_000
    ends = [p.start + len(CLIPS[p.clip].samples) for p in timeline.placed]
    assert timeline.placed[0].start == 6_400
    assert [p.start - end for p, end in zip(timeline.placed[1:], ends, strict=False)] == [8_000] * (
        len(ends) - 1
    )
    assert ends[-1] + 8_000 <= 160_000
    # Every clip once before any comes again.
    assert {p.clip for p in timeline.placed[:3]} == {0, 1, 2}


def test_a_timeline_is_never_empty() -> None:
    timeline = make_timeline(CLIPS[2:], 1.0, pause_s=0.5, draw=random.Random(1))
    assert timeline == Timeline((Placed(0, 6_400),), 6_400 + 24_000 + 8_000)


def test_streams_differ_and_seeds_repeat() -> None:
    first = make_timelines(CLIPS, 4, 20.0, pause_s=0.5, seed=3)
    assert first == make_timelines(CLIPS, 4, 20.0, pause_s=0.5, seed=3)
    assert len({timeline.placed for timeline in first}) == 4


def test_rendering_in_pieces_gives_the_same_audio() -> None:
    timeline = make_timeline(CLIPS, 4.0, pause_s=0.25, draw=random.Random(2))
    sounds = [clip.pcm16() for clip in CLIPS]
    whole = render(timeline, sounds, 0, timeline.samples)
    cuts = [0, 100, 7_000, 30_000, timeline.samples]
    pieces = [render(timeline, sounds, a, b) for a, b in pairwise(cuts)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.count_nonzero(whole) == sum(len(sounds[p.clip]) for p in timeline.placed)


def plan(streams: int, seconds: float, packet_samples: int = 320) -> LoadPlan:
    timelines = make_timelines(CLIPS[:1], streams, seconds, pause_s=0.1)
    starts = stagger(streams, 0.05, packet_samples / 16_000)
    return LoadPlan([CLIPS[0].pcm16()], timelines, starts, packet_samples)


def test_packets_are_due_when_their_last_sample_has_been_spoken() -> None:
    load = plan(2, 1.01)
    times, streams = schedule(load)
    for stream in (0, 1):
        due = times[streams == stream]
        assert len(due) == load.packets(stream) == 51
        assert due == pytest.approx(load.starts[stream] + 0.02 * np.arange(1, 52))
    assert np.all(np.diff(times) >= 0)
    assert load.seconds == pytest.approx(max(load.starts) + 1.02)


def test_starts_differ_in_time_and_within_a_packet() -> None:
    starts = np.array(stagger(64, 4.0, 0.02))
    assert starts.min() >= 0
    assert starts.max() < 4.02
    assert len(np.unique(starts.round(4))) == 64
    assert np.diff(np.sort(starts)).max() < 0.2


def test_packets_are_the_stream_cut_up() -> None:
    load = plan(1, 3.005)
    audio = b"".join(packets(load, 0))
    assert audio == render(load.timelines[0], load.sounds, 0, load.timelines[0].samples).tobytes()


def test_everything_sent_arrives_and_no_packet_before_it_is_due() -> None:
    load = plan(3, 1.0)
    near, far = socket.socketpair()
    player = threading.Thread(target=generate, args=(far, load))
    player.start()
    got: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    early: list[float] = []

    def receive(stream: int, due: float, packet: bytes) -> None:
        got[stream].append(packet)
        early.append(due - time.monotonic())

    parser = Parser(receive)
    with near:
        start(near, time.monotonic())
        while data := near.recv(1000):
            parser.feed(data)
    player.join()
    for stream, timeline in enumerate(load.timelines):
        expected = render(timeline, load.sounds, 0, timeline.samples).tobytes()
        assert b"".join(got[stream]) == expected
    assert max(early) <= 0
    assert parser.ready
    assert parser.lateness is not None
    assert parser.lateness.packets == 150
    assert parser.lateness.p50 >= 0


def test_a_receiver_that_goes_away_ends_the_process() -> None:
    with generator(plan(1, 60.0)) as connection:
        start(connection, time.monotonic())
        assert connection.recv(1)
    # Leaving waits for the process; it would play on for a minute.


def test_messages_may_be_cut_anywhere() -> None:
    near, far = socket.socketpair()
    load = plan(1, 1.0)
    start(near, time.monotonic() - 10.0)  # everything is due already
    player = threading.Thread(target=generate, args=(far, load))
    player.start()
    data = b""
    while piece := near.recv(65_536):
        data += piece
    player.join()
    near.close()
    draw = random.Random(0)
    counts = []
    for _ in range(20):
        found: list[bytes] = []
        parser = Parser(lambda _, __, packet, found=found: found.append(packet))  # type: ignore[misc]
        at = 0
        while at < len(data):
            step = draw.randint(1, 700)
            parser.feed(data[at : at + step])
            at += step
        counts.append((len(found), parser.lateness is not None))
    assert set(counts) == {(50, True)}
