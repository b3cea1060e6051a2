"""From a voice's samples to deltas in the client's encoding."""

import numpy as np
import pytest

from tinyvoice.audio.g711 import decode_alaw, decode_mulaw
from tinyvoice.realtime.backends.sound import SAMPLE_RATES, DeltaCutter, SpeechEncoder


def tone(rate: int, seconds: float = 1.0) -> bytes:
    times = np.arange(int(rate * seconds)) / rate
    return (12_000 * np.sin(2 * np.pi * 440 * times)).astype("<i2").tobytes()


def encoded(sound: bytes, rate: int, encoding: str, size: int = 1001) -> bytes:
    encoder = SpeechEncoder(rate, encoding)
    pieces = [encoder.encode(sound[at : at + size]) for at in range(0, len(sound), size)]
    return b"".join([*pieces, encoder.encode(b"", last=True)])


def samples_of(sound: bytes, encoding: str) -> np.ndarray:
    if encoding == "pcm16":
        return np.frombuffer(sound, "<i2").astype(np.float32) / 32768
    decode = decode_mulaw if encoding == "mulaw" else decode_alaw
    return decode(np.frombuffer(sound, np.uint8))


@pytest.mark.parametrize("encoding", ["pcm16", "mulaw", "alaw"])
@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000])
def test_a_tone_stays_the_tone_it_was(rate: int, encoding: str) -> None:
    samples = samples_of(encoded(tone(rate), rate, encoding), encoding)
    target = SAMPLE_RATES[encoding]
    assert len(samples) == pytest.approx(target, abs=2)
    times = np.arange(len(samples)) / target
    expected = 12_000 / 32_768 * np.sin(2 * np.pi * 440 * times)
    inner = slice(target // 50, -target // 50)
    assert np.abs(samples - expected)[inner].max() < (0.002 if encoding == "pcm16" else 0.02)


def test_pcm_at_its_own_rate_passes_untouched() -> None:
    sound = tone(24_000)
    assert encoded(sound, 24_000, "pcm16") == sound


@pytest.mark.parametrize("encoding", ["pcm16", "mulaw", "alaw"])
def test_how_a_voice_cuts_its_sound_makes_no_difference(encoding: str) -> None:
    sound = tone(22_050)
    assert encoded(sound, 22_050, encoding, 7) == encoded(sound, 22_050, encoding, len(sound))


@pytest.mark.parametrize(("encoding", "per_ms"), [("pcm16", 48), ("mulaw", 8), ("alaw", 8)])
def test_deltas_begin_short_and_are_whole(encoding: str, per_ms: int) -> None:
    cutter = DeltaCutter(encoding)
    sound = bytes(650 * per_ms)
    deltas = [*cutter.feed(sound[:1000]), *cutter.feed(sound[1000:]), *cutter.flush()]
    assert [delta.duration_ms for delta in deltas] == [100, 200, 200, 150]
    assert [len(delta.audio) for delta in deltas] == [per_ms * ms for ms in (100, 200, 200, 150)]
    assert cutter.cut_ms == cutter.taken_ms == 650
    assert not list(cutter.flush())
