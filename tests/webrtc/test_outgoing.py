"""What is played when, frame by frame; no clock runs here."""

from __future__ import annotations

import pytest

from tinyvoice.webrtc.errors import PlaybackFullError
from tinyvoice.webrtc.outgoing import FRAME_BYTES, Pacer, Playback

SILENCE = bytes(FRAME_BYTES)


def sound(ms: int, value: int = 1) -> bytes:
    """So many ms of a constant."""
    return bytes([value, 0]) * (24 * ms)


class Log(list[tuple[str, str]]):
    """What a playback reports."""

    def playback(self, longest_s: float = 900.0) -> Playback:
        return Playback(
            lambda name: self.append(("started", name)),
            lambda name: self.append(("drained", name)),
            longest_s,
        )


def frames(playback: Playback, count: int) -> list[bytes]:
    return [playback.next_frame() for _ in range(count)]


def test_an_idle_playback_is_silent() -> None:
    playback = Playback()
    assert frames(playback, 3) == [SILENCE] * 3
    assert playback.playing is None


def test_audio_comes_out_in_frames_of_20_ms() -> None:
    log = Log()
    playback = log.playback()
    playback.play("a", sound(30))
    playback.play("a", sound(10, 2))
    assert frames(playback, 3) == [sound(20), sound(10) + sound(10, 2), SILENCE]
    assert log == [("started", "a")]


def test_an_answer_is_drained_one_frame_after_its_last_one_left() -> None:
    log = Log()
    playback = log.playback()
    playback.play("a", sound(20))
    playback.end("a")
    playback.next_frame()
    assert log == [("started", "a")]
    playback.next_frame()
    assert log == [("started", "a"), ("drained", "a")]
    assert playback.playing is None


def test_an_incomplete_answer_that_runs_dry_is_not_drained_and_goes_on_without_a_gap() -> None:
    log = Log()
    playback = log.playback()
    playback.play("a", sound(25))
    assert frames(playback, 2) == [sound(20), SILENCE]
    playback.play("a", sound(15, 2))
    assert playback.next_frame() == sound(5) + sound(15, 2)
    assert log == [("started", "a")]


def test_the_last_frame_of_a_complete_answer_is_filled_with_silence() -> None:
    playback = Playback()
    playback.play("a", sound(25))
    playback.end("a")
    assert frames(playback, 2) == [sound(20), sound(5) + bytes(FRAME_BYTES - 5 * 48)]


def test_answers_play_one_after_another() -> None:
    log = Log()
    playback = log.playback()
    playback.play("a", sound(20))
    playback.play("b", sound(20, 2))
    playback.end("a")
    playback.end("b")
    assert frames(playback, 3) == [sound(20), sound(20, 2), SILENCE]
    assert log == [("started", "a"), ("drained", "a"), ("started", "b"), ("drained", "b")]


def test_clear_drops_what_waits_at_once_and_says_what_was_played() -> None:
    log = Log()
    playback = log.playback()
    playback.play("a", sound(1000))
    playback.play("b", sound(20, 2))
    frames(playback, 3)
    assert playback.clear("a") == 60
    assert playback.next_frame() == sound(20, 2)
    assert ("drained", "a") not in log


def test_clearing_what_never_played_or_is_unknown_says_zero() -> None:
    playback = Playback()
    playback.play("a", sound(20))
    assert (playback.clear("a"), playback.clear("a"), playback.queued_ms) == (0, 0, 0)


def test_an_answer_without_audio_is_neither_started_nor_drained() -> None:
    log = Log()
    playback = log.playback()
    playback.end("a")
    playback.play("b", b"")
    playback.end("b")
    assert frames(playback, 2) == [SILENCE] * 2
    assert log == []
    assert playback.playing is None


def test_what_waits_is_bounded() -> None:
    playback = Playback(longest_s=0.1)
    playback.play("a", sound(100))
    with pytest.raises(PlaybackFullError, match="no faster than it plays"):
        playback.play("a", sound(1))
    playback.next_frame()
    playback.play("a", sound(20))
    assert playback.queued_ms == 100


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="whole samples"):
        Playback().play("a", b"\0")


def test_the_pacer_counts_from_the_first_frame_and_does_not_drift() -> None:
    pacer = Pacer()
    now = 100.0
    for n in range(20_000):
        wait = pacer.wait(now)
        assert wait == pytest.approx(max(0.0, 100.0 + n * 0.02 - now), abs=1e-6)
        now += wait + 0.013 * (n % 2)  # every other frame takes long to send
    assert now == pytest.approx(100.0 + 19_999 * 0.02, abs=0.02)


def test_the_pacer_catches_up_after_a_short_stall_and_begins_anew_after_a_long_one() -> None:
    pacer = Pacer()
    assert pacer.wait(0.0) == 0
    assert [pacer.wait(0.1) for _ in range(5)] == [0, 0, 0, 0, 0]
    assert pacer.wait(0.1) == pytest.approx(0.02)
    assert pacer.wait(5.0) == 0
    assert pacer.wait(5.0) == pytest.approx(0.02)
