"""Live packets: every encoding, any cut, and what is refused without harm to the rest."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tinyvoice.audio.pcm import AudioFormatError, AudioPacketError, Encoding, PCMStream
from tinyvoice.audio.resample import resample

Random = np.random.Generator


@pytest.fixture
def random() -> Random:
    return np.random.default_rng(11)


def noise(random: Random, count: int) -> np.ndarray:
    return (random.uniform(-1, 1, count) * 32767).astype("<i2")


def pieces(content: bytes, random: Random, longest: int) -> list[bytes]:
    """``content`` cut at random; no piece is empty."""
    cuts = [0]
    while cuts[-1] < len(content):
        cuts.append(min(len(content), cuts[-1] + int(random.integers(1, longest + 1))))
    return [content[start:end] for start, end in pairwise(cuts)]


def heard(stream: PCMStream, packets: list[Any]) -> np.ndarray:
    return np.concatenate([*map(stream.decode, packets), stream.finish()])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("encoding", ["pcm16", "float32", "mulaw", "alaw"])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 24000, 44100, 48000, 192000])
def test_the_cut_into_packets_makes_no_difference(
    rate: int, encoding: Encoding, channels: int, random: Random
) -> None:
    if encoding == "float32":
        content = random.uniform(-1, 1, 1200).astype("<f4").tobytes()
    else:
        content = random.integers(0, 256, 4000).astype(np.uint8).tobytes()
    stream = PCMStream(rate, channels, encoding)
    whole = heard(stream, [content])
    for longest in (5, 100, 2500):
        cut = heard(PCMStream(rate, channels, encoding), pieces(content, random, longest))
        np.testing.assert_array_equal(cut, whole)
    assert whole.dtype == np.float32
    width = {"pcm16": 2, "float32": 4}.get(encoding, 1)
    spoken = len(whole) - stream.delay_samples
    assert abs(spoken - len(content) / width / channels * 16000 / rate) <= 1


def test_at_16_khz_samples_pass_bit_for_bit(random: Random) -> None:
    samples = noise(random, 4000)
    stream = PCMStream(16000)
    np.testing.assert_array_equal(stream.decode(samples.tobytes()) * 32768, samples)
    assert stream.finish().size == 0


def test_bytes_bytearrays_views_and_arrays_are_the_same_sound(random: Random) -> None:
    samples = noise(random, 300)
    content = samples.tobytes()
    expected = samples.astype(np.float32) / 32768
    stream = PCMStream(16000)
    for packet in (
        content,
        bytearray(content),
        memoryview(content),
        memoryview(samples.data),
        samples,
        samples[:, None],
        expected,
        expected.astype(np.float64),
    ):
        np.testing.assert_array_equal(stream.decode(packet), expected)


@pytest.mark.parametrize(("rate", "late"), [(8000, 48), (24000, 24), (48000, 24)])
def test_other_rates_are_resampled_like_a_file_and_a_little_late(
    rate: int, late: int, random: Random
) -> None:
    samples = noise(random, 9000)
    stream = PCMStream(rate)
    result = heard(stream, pieces(samples.tobytes(), random, 700))
    scaled = samples.astype(np.float32) / np.float32(32768)
    assert stream.delay_samples == late
    np.testing.assert_allclose(result[late:], resample(scaled, rate, 16000), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 24000, 44100, 48000])
def test_nobody_waits_for_the_filter(rate: int, random: Random) -> None:
    """A packet of 20 ms gives 20 ms, so that what it decides is decided with it."""
    stream = PCMStream(rate)
    packets = [noise(random, rate // 50) for _ in range(20)]
    assert [len(stream.decode(packet)) for packet in packets] == [320] * 20


@pytest.mark.parametrize("rates", [(24000, 16000, 24000), (8000, 24000, 8000), (24000, 8000)])
def test_a_change_of_format_neither_loses_sound_nor_moves_it_again(
    rates: tuple[int, ...], random: Random
) -> None:
    heard_so_far: list[np.ndarray] = []
    spoken: list[np.ndarray] = []
    stream = None
    for rate in rates * 5:
        samples = noise(random, rate // 10)
        spoken.append(resample(samples.astype(np.float32) / np.float32(32768), rate, 16000))
        stream = PCMStream(rate, after=stream)
        heard_so_far.append(heard(stream, pieces(samples.tobytes(), random, 700)))
    assert stream is not None
    late = stream.delay_samples
    assert late == max(24 * 16000 // min(rate, 16000) for rate in rates)
    result = np.concatenate(heard_so_far)
    if rates[0] == min(rates):  # the latest comes first, and the others follow it
        np.testing.assert_allclose(result[late:], np.concatenate(spoken), atol=1e-6)
    assert len(result) == late + sum(map(len, spoken))


def test_two_channels_are_averaged(random: Random) -> None:
    left, right = noise(random, 500), noise(random, 500)
    expected = (left.astype(np.float32) + right.astype(np.float32)) / 65536
    pairs = np.stack([left, right], axis=1)
    for packets in (pieces(pairs.tobytes(), random, 7), [pairs], [pairs / np.float32(32768)]):
        np.testing.assert_array_equal(heard(PCMStream(16000, channels=2), packets), expected)


def test_half_a_sample_waits_for_its_other_half() -> None:
    stream = PCMStream(16000)
    assert stream.decode(b"\x00").size == 0
    np.testing.assert_array_equal(stream.decode(b"\x40\x00"), [0.5])
    np.testing.assert_array_equal(stream.decode(b"\xc0"), [-0.5])
    assert stream.decode(b"\x01").size == 0
    assert stream.finish().size == 0


def test_telephone_codes_also_come_as_arrays() -> None:
    codes = np.array([0x80, 0xFF, 0x00], dtype=np.uint8)
    expected = np.array([32124, 0, -32124]) / 32768
    np.testing.assert_array_equal(PCMStream(16000, 1, "mulaw").decode(codes), expected)


def test_a_returned_array_does_not_change_with_its_packet() -> None:
    """A sound card's buffer is used again for the next packet."""
    for buffer in (np.full(8, 0.5, dtype=np.float32), np.full(8, 0.5, dtype=np.float64)):
        result = PCMStream(16000, 1, "float32").decode(buffer)
        buffer[:] = 0
        assert result.tolist() == [0.5] * 8


def test_floats_a_little_beyond_full_scale_are_clipped() -> None:
    samples = np.array([-1.5, -1.0, 0.25, 1.0, 1.01], dtype=np.float32)
    assert PCMStream(16000).decode(samples).tolist() == [-1.0, -1.0, 0.25, 1.0, 1.0]


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"", "empty"),
        (np.zeros(0, dtype=np.int16), "empty"),
        (np.array([0.0, np.nan], dtype=np.float32), "not numbers"),
        (np.array([0.0, -np.inf]), "not numbers"),
        (np.array([12000.0, -3.0]), "up to 12000, where samples lie in"),
        (np.zeros(4, dtype=np.int32), "int32 is not taken"),
        (np.zeros(4, dtype=np.uint8), "uint8 is not taken"),
        (np.zeros((4, 2), dtype=np.int16), r"shape \(4, 2\) does not fit a stream of 1 channel:"),
        (np.zeros((), dtype=np.int16), r"shape \(\) does not fit"),
        ("text", "bytes or a NumPy array, not str"),
        ([1, 2], "bytes or a NumPy array, not list"),
        (None, "bytes or a NumPy array, not NoneType"),
    ],
)
def test_what_is_no_sound_is_refused_and_the_stream_goes_on(packet: Any, message: str) -> None:
    samples = np.arange(-400, 400, dtype="<i2")
    expected = heard(PCMStream(24000), [samples])
    stream = PCMStream(24000)
    before = stream.decode(samples[:333])
    for _ in range(2):
        with pytest.raises(AudioPacketError, match=message):
            stream.decode(packet)
    rest = heard(stream, [samples[333:]])
    np.testing.assert_array_equal(np.concatenate([before, rest]), expected)


def test_a_refused_packet_leaves_later_samples_aligned() -> None:
    stream = PCMStream(16000, 1, "float32")
    bad = np.array([0.5, np.nan, 0.5], dtype="<f4").tobytes() + b"\x00\x00"
    with pytest.raises(AudioPacketError, match="NaN"):
        stream.decode(bad)
    assert stream.decode(b"\x80\xbe" + np.array([0.75], "<f4").tobytes()).tolist() == [-0.25, 0.75]


def test_an_array_does_not_cut_into_a_sample_of_bytes() -> None:
    stream = PCMStream(16000)
    stream.decode(b"\x00")
    with pytest.raises(AudioPacketError, match="end within a sample"):
        stream.decode(np.zeros(3, dtype=np.int16))
    assert stream.decode(b"\x40").tolist() == [0.5]


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (b"RIFF\x24\x00\x00\x00WAVE", "a WAV file"),
        (b"OggS\x00\x02", "an Ogg file"),
        (b"fLaC\x00\x00", "a FLAC file"),
        (b"ID3\x04\x00", "an MP3 file"),
        (b"\x1aE\xdf\xa3\x01", "a WebM recording"),
    ],
)
def test_files_are_not_taken_for_samples(packet: bytes, kind: str) -> None:
    stream = PCMStream(16000)
    with pytest.raises(AudioPacketError, match=f"beginning of {kind}: send the samples alone"):
        stream.decode(packet)
    assert stream.decode(b"\x00\x40" * 3).size == 3
    assert stream.decode(packet + b"\x00").size == (len(packet) + 1) // 2  # chance, further in


def test_after_the_end_nothing_is_taken() -> None:
    stream = PCMStream(48000)
    stream.decode(np.zeros(4800, dtype=np.int16))
    assert stream.finish().size > 0
    assert stream.finish().size == 0
    with pytest.raises(AudioPacketError, match="has ended"):
        stream.decode(b"\x00\x00")


@pytest.mark.parametrize(
    "rate", [0, -16000, 7999, 192001, 16000.0, 44100.5, float("nan"), "16000", None, True]
)
def test_rates_that_are_not_a_streams_are_refused(rate: Any) -> None:
    with pytest.raises(AudioFormatError, match="whole number between 8000 and 192000"):
        PCMStream(rate)


@pytest.mark.parametrize("channels", [0, 3, -1, 1.5, None, True, "2"])
def test_channels_other_than_one_or_two_are_refused(channels: Any) -> None:
    with pytest.raises(AudioFormatError, match="one or two channels"):
        PCMStream(16000, channels=channels)


def test_unknown_encodings_are_refused() -> None:
    with pytest.raises(AudioFormatError, match="choose one of pcm16, float32, mulaw, alaw"):
        PCMStream(16000, encoding="opus")
