"""Reading audio: every format right where it can be right, one clear sentence where it cannot."""

import io
import logging
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tinyvoice.audio.files import SAMPLE_RATE, Audio, AudioLimits, load_audio
from tinyvoice.errors import MissingExtraError, TinyvoiceError


def tone(rate: int = 16000, seconds: float = 1.0, frequency: float = 440.0) -> np.ndarray:
    times = np.arange(int(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def encoded(
    samples: np.ndarray, rate: int = 16000, format: str = "WAV", subtype: str | None = None
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def sentence_of(source: object, **options: object) -> str:
    """Return the message of the error that loading gives: one line that ends with advice."""
    with pytest.raises(TinyvoiceError) as caught:
        load_audio(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything, so the test is somebody else for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class TestFormats:
    @pytest.mark.parametrize(
        ("format", "subtype", "tolerance"),
        [
            ("WAV", "PCM_U8", 1e-2),
            ("WAV", "PCM_16", 1e-4),
            ("WAV", "PCM_24", 1e-6),
            ("WAV", "PCM_32", 1e-6),
            ("WAV", "FLOAT", 1e-7),
            ("WAV", "DOUBLE", 1e-7),
            ("WAV", "ULAW", 3e-2),
            ("FLAC", "PCM_16", 1e-4),
            ("FLAC", "PCM_24", 1e-6),
            ("AIFF", "PCM_16", 1e-4),
            ("AU", "PCM_16", 1e-4),
            ("RF64", "PCM_16", 1e-4),
            ("OGG", "VORBIS", 5e-2),
            ("OGG", "OPUS", 1e-1),
            ("MP3", None, 5e-2),
        ],
    )
    def test_formats_of_libsndfile(
        self, tmp_path: Path, format: str, subtype: str | None, tolerance: float
    ) -> None:
        # The suffix is wrong on purpose: the content decides.
        path = tmp_path / "clip.dat"
        path.write_bytes(encoded(tone(), format=format, subtype=subtype))
        audio = load_audio(path)
        assert audio.samples.dtype == np.float32
        assert audio.samples.ndim == 1
        assert audio.source == str(path)
        assert audio.channels == 1
        assert abs(audio.duration - 1.0) < 0.08
        inner = slice(2000, 14000)
        np.testing.assert_allclose(audio.samples[inner], tone()[inner], atol=tolerance)

    @pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
    def test_other_rates_are_converted(self, rate: int) -> None:
        audio = load_audio(encoded(tone(rate), rate))
        assert audio.source_rate == rate
        assert abs(len(audio.samples) - SAMPLE_RATE) <= 1
        np.testing.assert_allclose(audio.samples[1000:15000], tone()[1000:15000], atol=2e-3)

    def test_channels_are_averaged(self) -> None:
        stereo = np.stack([tone(), np.zeros(16000, np.float32)], axis=1)
        audio = load_audio(encoded(stereo, subtype="FLOAT"))
        assert audio.channels == 2
        np.testing.assert_allclose(audio.samples, tone() / 2, atol=1e-7)

    def test_path_string_bytes_and_open_file_give_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "clip.wav"
        path.write_bytes(encoded(tone()))
        from_path = load_audio(path).samples
        with path.open("rb") as file:
            sources: list[object] = [str(path), path.read_bytes(), file]
            for source in sources:
                np.testing.assert_array_equal(load_audio(source).samples, from_path)

    def test_audio_is_returned_as_it_is(self) -> None:
        audio = load_audio(tone())
        assert load_audio(audio) is audio

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
    def test_a_named_pipe_is_read_to_its_end(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(encoded(tone()),))
        writer.start()
        audio = load_audio(pipe)
        writer.join()
        assert audio.duration == 1.0


class TestDamage:
    @pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 1_000_000, 0])
    def test_a_stream_whose_header_does_not_know_its_length(self, length: int) -> None:
        content = bytearray(encoded(tone()))
        assert content[36:40] == b"data"
        content[40:44] = struct.pack("<I", length)
        content[4:8] = struct.pack("<I", length)
        np.testing.assert_allclose(load_audio(bytes(content)).samples, tone(), atol=1e-4)

    def test_a_file_cut_off_gives_what_is_there(self) -> None:
        content = encoded(tone())
        audio = load_audio(content[: 44 + 16000])
        np.testing.assert_allclose(audio.samples, tone()[:8000], atol=1e-4)

    def test_a_decoder_that_gives_up_midway_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 160000).astype(np.float32)
        content = encoded(noise, format="FLAC")
        with caplog.at_level(logging.WARNING, logger="tinyvoice"):
            audio = load_audio(content[: len(content) // 2], name="a.flac")
        assert 3.5 < audio.duration < 5.5
        np.testing.assert_allclose(audio.samples, noise[: len(audio.samples)], atol=1e-4)
        (message,) = caplog.messages
        assert message.startswith("a.flac: is damaged after 4.")
        assert message.endswith("what comes before is used.")

    def test_some_samples_that_are_no_numbers_become_silence(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        samples = tone()
        samples[100:103] = [np.nan, np.inf, -np.inf]
        with caplog.at_level(logging.WARNING, logger="tinyvoice"):
            audio = load_audio(encoded(samples, subtype="FLOAT"), name="a.wav")
        assert audio.samples[100:103].tolist() == [0.0, 0.0, 0.0]
        np.testing.assert_array_equal(audio.samples[103:], samples[103:])
        assert caplog.messages == [
            "a.wav: 3 of 16000 samples are NaN or infinite and were replaced by silence."
        ]

    def test_nothing_but_nan_is_refused(self) -> None:
        samples = np.full(16000, np.nan, np.float32)
        message = sentence_of(encoded(samples, subtype="FLOAT"), name="a.wav")
        assert message == "a.wav: every sample is NaN or infinite; export it again."

    @pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
    @pytest.mark.parametrize("gain", [1.5, 32768.0])
    def test_samples_beyond_one_are_scaled_as_a_whole(self, subtype: str, gain: float) -> None:
        audio = load_audio(encoded(tone() * 2 * gain, subtype=subtype))
        assert np.abs(audio.samples).max() <= 1.0
        np.testing.assert_allclose(audio.samples, tone() * 2, atol=1e-3)

    def test_values_too_large_for_single_precision_are_counted_as_infinite(self) -> None:
        samples = tone().astype(np.float64)
        samples[5] = 1e300
        audio = load_audio(samples)
        assert audio.samples[5] == 0.0
        np.testing.assert_allclose(audio.samples[6:], tone()[6:])


class TestRefusals:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        path = tmp_path / "gone.wav"
        assert sentence_of(path) == f"{path}: no such file; check the name and the folder."

    def test_a_folder_suggests_a_pattern(self, tmp_path: Path) -> None:
        message = sentence_of(tmp_path)
        assert "is a folder" in message
        assert str(tmp_path / "*.wav") in message

    @pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such permissions on this system")
    def test_an_unreadable_file(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.wav"
        path.write_bytes(encoded(tone()))
        path.chmod(0)
        with ordinary_user():
            assert "you may not read this file" in sentence_of(path)

    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no device files on this system")
    def test_a_device(self) -> None:
        assert stat.S_ISCHR(Path("/dev/zero").stat().st_mode)
        assert sentence_of("/dev/zero") == "/dev/zero: is a device; give a file with audio."

    def test_a_name_that_no_file_can_have(self) -> None:
        assert "cannot be read" in sentence_of("a\0b.wav")

    def test_addresses_that_are_not_http(self) -> None:
        message = sentence_of("s3://bucket/a.wav")
        assert message.startswith("s3://bucket/a.wav: addresses of this kind are not fetched")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty (0 bytes)"),
            (b"one two three\n" * 20, "it looks like text"),
            ("größer als ä".encode() * 600, "it looks like text"),
            (b"%PDF-1.7 ...", "it is a PDF"),
            (b"PK\x03\x04" + bytes(100), "it is a ZIP archive"),
            (b"\x89PNG\r\n\x1a\n" + bytes(100), "it is a picture"),
            (bytes(range(256)) * 8, "its format is unknown"),
            (b"RIFF\x24\x00\x00\x00WAVEfmt ", "damaged or cut off"),
            (b"OggS" + bytes(24) + b"OpusHead", "damaged or cut off"),
        ],
    )
    def test_what_is_not_audio_is_named(self, tmp_path: Path, content: bytes, words: str) -> None:
        path = tmp_path / "renamed.wav"
        path.write_bytes(content)
        message = sentence_of(path)
        assert message.startswith(f"{path}: ")
        assert words in message

    def test_a_clip_without_samples(self) -> None:
        message = sentence_of(encoded(np.zeros(0, np.float32)), name="a.wav")
        assert message == "a.wav: has no samples; record or export it again."

    def test_a_header_with_an_impossible_rate(self) -> None:
        content = bytearray(encoded(tone()))
        content[24:28] = struct.pack("<I", 5)
        assert "sample rate of 5 Hz" in sentence_of(bytes(content))

    def test_a_file_opened_as_text(self) -> None:
        class Text:
            name = "a.wav"

            def read(self, size: int = -1) -> str:
                return "RIFF"

        assert sentence_of(Text()) == "a.wav: was opened as text; open it as binary."


class TestLimits:
    def test_a_header_that_says_too_long_is_refused_before_decoding(self) -> None:
        content = encoded(np.zeros(160000, np.float32), format="FLAC")
        message = sentence_of(content, name="a.flac", limits=AudioLimits(max_seconds=5))
        assert message == (
            "a.flac: is longer than the 5 s allowed; split it or raise the limit on duration."
        )

    def test_a_stream_of_unknown_length_is_refused_when_it_gets_too_long(self) -> None:
        content = bytearray(encoded(np.zeros(160000, np.float32)))
        content[40:44] = bytes(4)
        message = sentence_of(bytes(content), limits=AudioLimits(max_seconds=5))
        assert "is longer than the 5 s allowed" in message

    def test_a_large_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.wav"
        path.write_bytes(encoded(tone()))
        message = sentence_of(path, limits=AudioLimits(max_bytes=10240))
        assert "is larger than the 10 kB allowed" in message

    def test_a_large_stream_is_refused_without_reading_it_to_its_end(self) -> None:
        class Endless:
            name = "endless"
            taken = 0

            def read(self, size: int) -> bytes:
                self.taken += size
                return bytes(size)

        stream = Endless()
        assert "is larger than" in sentence_of(stream, limits=AudioLimits(max_bytes=3 << 20))
        assert stream.taken <= 5 << 20

    def test_an_hour_fits_into_its_own_size(self, tmp_path: Path) -> None:
        rate, block = 8000, tone(8000, 60.0)
        path = tmp_path / "hour.wav"
        with soundfile.SoundFile(path, "w", rate, 1, subtype="PCM_U8") as file:
            for _ in range(60):
                file.write(block)
        audio = load_audio(path)
        assert abs(audio.duration - 3600.0) < 0.001
        base = audio.samples if audio.samples.base is None else audio.samples.base
        assert base.nbytes < 1.01 * audio.samples.nbytes + (1 << 20)


class TestArrays:
    @pytest.mark.parametrize(
        ("dtype", "low", "high"),
        [
            ("int8", -128, 127),
            ("int16", -32768, 32767),
            ("int32", -(2**31), 2**31 - 1),
            ("uint8", 0, 255),
            ("uint16", 0, 65535),
        ],
    )
    def test_integers_are_scaled_by_their_range(self, dtype: str, low: int, high: int) -> None:
        samples = np.array([low, high] * 100, dtype)
        audio = load_audio(samples)
        assert audio.samples.min() == -1.0
        assert 0.99 < audio.samples.max() <= 1.0

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_floats_are_taken_as_they_are(self, dtype: str) -> None:
        samples = tone().astype(dtype)
        np.testing.assert_array_equal(load_audio(samples).samples, samples.astype(np.float32))

    def test_channels_may_come_first_or_last(self) -> None:
        stereo = np.stack([tone(), np.zeros(16000, np.float32)])
        for samples in (stereo, stereo.T):
            audio = load_audio(samples)
            assert audio.channels == 2
            np.testing.assert_allclose(audio.samples, tone() / 2, atol=1e-7)

    def test_the_rate_is_that_of_the_array(self) -> None:
        audio = load_audio(tone(48000), sample_rate=48000)
        assert len(audio.samples) == SAMPLE_RATE
        assert audio.source_rate == 48000

    def test_the_callers_array_is_never_changed(self) -> None:
        samples = tone() * 4
        before = samples.copy()
        load_audio(samples)
        np.testing.assert_array_equal(samples, before)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16])
    def test_tensors(self, dtype: torch.dtype) -> None:
        scale = 32767 if dtype is torch.int16 else 1
        tensor = (torch.from_numpy(tone()) * scale).to(dtype).unsqueeze(0)
        audio = load_audio(tensor)
        np.testing.assert_allclose(audio.samples, tone(), atol=3e-3)

    def test_lists(self) -> None:
        assert load_audio([0.0, 0.5, -0.5]).samples.tolist() == [0.0, 0.5, -0.5]

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            (np.zeros(0), "has no samples"),
            (np.zeros((0, 2)), "has no samples"),
            (np.zeros((2, 3, 4)), "has the shape (2, 3, 4)"),
            (np.zeros((100, 100)), "has the shape (100, 100)"),
            (np.float32(1.0), "has the shape ()"),
            (np.zeros(10, complex), "holds complex128 values"),
            (np.zeros(10, bool), "holds bool values"),
            ([[1.0], [1.0, 2.0]], "rows of different lengths"),
            (None, "holds object values"),
            ({"array": 1}, "holds object values"),
        ],
    )
    def test_what_is_no_clip_is_refused(self, source: object, words: str) -> None:
        assert words in sentence_of(source)

    def test_a_rate_that_cannot_be_is_refused(self) -> None:
        assert "sample rate of 16 Hz" in sentence_of(tone(), sample_rate=16)


def test_duration_counts_samples() -> None:
    assert Audio(np.zeros(8000, np.float32), "a").duration == 0.5


def test_containers_without_the_extra_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)  # what an import finds when nothing is installed
    with pytest.raises(MissingExtraError) as caught:
        load_audio(b"\x00\x00\x00\x20ftypisom" + bytes(64), name="talk.wav")
    assert caught.value.extra == "media"
    assert str(caught.value) == (
        "talk.wav: reading MP4 files needs the optional extra 'media': "
        "pip install 'tinyvoice[media]'"
    )
