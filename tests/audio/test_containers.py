"""Containers read by PyAV; the files are made by PyAV too, in memory."""

import io

import numpy as np
import pytest

from tinyvoice.audio.containers import container_name
from tinyvoice.audio.files import AudioLimits, load_audio
from tinyvoice.errors import AudioError


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x00\x00\x00\x20ftypisom", "MP4"),
        (b"\x1a\x45\xdf\xa3\x01\x00\x00\x00", "WebM or Matroska"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "AVI"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00", None),
        (b"G" + bytes(187) + b"G" + bytes(187), "MPEG transport stream"),
        (b"\xff\xf1\x50\x80", "AAC"),
        (b"#!AMR\n", "AMR"),
        (b"some text", None),
        (b"", None),
    ],
)
def test_containers_are_told_by_their_first_bytes(head: bytes, name: str | None) -> None:
    assert container_name(head) == name


def movie(
    format: str, codec: str | None, rate: int = 48000, layout: str = "stereo", picture: bool = False
) -> bytes:
    av = pytest.importorskip("av", reason="the extra 'media' is not installed")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        # All tracks come first: the header is written with the first packet.
        track = container.add_stream(codec, rate=rate, layout=layout) if codec else None
        if picture:
            video = container.add_stream("mpeg4", rate=10)
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
            for _ in range(10):
                image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
                container.mux(video.encode(image))
            container.mux(video.encode())
        if track is not None:
            times = np.arange(rate) / rate
            sound = (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
            planes = np.stack([sound] * (2 if layout == "stereo" else 1))
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
            frame.sample_rate = rate
            converter = av.AudioResampler(
                format=track.format, layout=layout, rate=rate, frame_size=track.frame_size or None
            )
            for converted in [*converter.resample(frame), *converter.resample(None)]:
                container.mux(track.encode(converted))
            container.mux(track.encode())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format", "codec", "rate", "layout", "picture"),
    [
        ("mp4", "aac", 48000, "stereo", False),
        ("mp4", "aac", 44100, "mono", True),
        ("webm", "libopus", 48000, "stereo", False),
        ("matroska", "pcm_s16le", 22050, "mono", False),
        ("adts", "aac", 16000, "mono", False),
    ],
)
def test_the_audio_track_is_read(
    format: str, codec: str, rate: int, layout: str, picture: bool
) -> None:
    audio = load_audio(movie(format, codec, rate, layout, picture), name="renamed.wav")
    assert audio.source_rate == rate
    assert audio.channels == (2 if layout == "stereo" else 1)
    assert abs(audio.duration - 1.0) < 0.15
    spectrum = np.abs(np.fft.rfft(audio.samples[:16000]))
    assert spectrum.argmax() * 16000 / len(audio.samples[:16000]) == pytest.approx(440, abs=3)


def test_a_film_without_sound_is_refused() -> None:
    content = movie("mp4", None, picture=True)
    with pytest.raises(AudioError, match="has no audio track; give a file with sound"):
        load_audio(content, name="film.mp4")


def test_a_damaged_container_is_refused() -> None:
    pytest.importorskip("av", reason="the extra 'media' is not installed")
    with pytest.raises(AudioError, match="is a damaged MP4 file"):
        load_audio(b"\x00\x00\x00\x20ftypisom" + bytes(range(200)), name="a.mp4")


def test_limits_hold_for_containers_too() -> None:
    content = movie("mp4", "aac")
    with pytest.raises(AudioError, match=r"is longer than the 0\.5 s allowed"):
        load_audio(content, limits=AudioLimits(max_seconds=0.5))
