"""Augmentation changes clips as named, keeps their timing honest, and is reproducible."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tinyvoice.errors import AudioError, ConfigurationError
from training.data.augmentation import (
    NOISE_SLOPES,
    TRANSFORMS,
    Augmentation,
    BandLimit,
    Clip,
    Clipping,
    Gain,
    Noise,
    RecordedNoise,
    RecordedRoom,
    SilencePads,
    Speed,
    SyntheticReverb,
    Telephone,
    build_augmentation,
    coloured_noise,
    empty_clip,
    mu_law,
    speech_level,
)

RECORDED = ("rooms", "backgrounds")
WORDS = (("one", 0.5, 1.0), ("two", 1.5, 2.0))


def bursts() -> Clip:
    """Two bursts of a rich tone, where the words are, and silence elsewhere."""
    time = np.arange(3 * 16_000) / 16_000
    tone = sum(np.sin(2 * np.pi * 170 * k * time) / k for k in range(1, 40))
    inside = np.zeros(len(time))
    for _, start, end in WORDS:
        inside[int(start * 16_000) : int(end * 16_000)] = 0.2
    return Clip((tone * inside).astype(np.float32), "one two", WORDS, "tone")


def power_above(samples: np.ndarray, hertz: float) -> float:
    """The part of the power above a frequency."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / 16_000)
    return float(power[frequencies > hertz].sum() / power.sum())


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name not in RECORDED])
def test_every_transform_is_reproducible_and_finite(name: str) -> None:
    transform = TRANSFORMS[name](probability=1.0)
    for seed in range(5):
        once = transform(bursts(), np.random.default_rng(seed))
        again = transform(bursts(), np.random.default_rng(seed))
        np.testing.assert_array_equal(once.samples, again.samples)
        assert once.samples.dtype == np.float32
        assert np.isfinite(once.samples).all()
        assert once.text == "one two"
        assert not np.array_equal(once.samples, bursts().samples)


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name not in RECORDED])
@pytest.mark.parametrize("count", [0, 1, 7, 16_000])
def test_every_transform_survives_short_and_silent_clips(name: str, count: int) -> None:
    clip = Clip(np.zeros(count, dtype=np.float32), "", ())
    augmentation = Augmentation((TRANSFORMS[name](probability=1.0),))
    result = augmentation(clip, np.random.default_rng(0))
    assert np.isfinite(result.samples).all()


@pytest.mark.parametrize("transform", [Speed(1.0), SilencePads(1.0)])
def test_word_times_follow_the_audio(transform: Speed | SilencePads) -> None:
    for seed in range(10):
        clip = transform(bursts(), np.random.default_rng(seed))
        assert clip.words is not None
        loud = np.flatnonzero(np.abs(clip.samples) > 0.02) / 16_000
        assert loud[0] == pytest.approx(clip.words[0][1], abs=0.01)
        assert loud[-1] == pytest.approx(clip.words[1][2], abs=0.01)


def test_noise_has_the_ratio_asked_for() -> None:
    clip = bursts()
    noisy = Noise(1.0, 10.0, 10.0)(clip, np.random.default_rng(0))
    noise = noisy.samples - clip.samples
    ratio = 20 * np.log10(speech_level(clip.samples) / np.sqrt(np.mean(noise**2)))
    assert ratio == pytest.approx(10.0, abs=0.1)


def test_colours_of_noise_differ_as_their_names_say() -> None:
    highs = {
        colour: power_above(coloured_noise(48_000, colour, np.random.default_rng(0)), 2_000)
        for colour in NOISE_SLOPES
    }
    assert highs["brown"] < highs["pink"] < highs["white"] < highs["blue"]
    assert highs["white"] == pytest.approx(0.75, abs=0.02)


def test_band_limits_and_telephone_remove_the_highs() -> None:
    clip = bursts()
    assert power_above(clip.samples, 3_800) > 1e-3
    assert power_above(Telephone(1.0)(clip, np.random.default_rng(0)).samples, 3_800) < 1e-5
    limited = BandLimit(1.0, 7_000.0)(clip, np.random.default_rng(0))
    assert power_above(limited.samples, 7_900) < power_above(clip.samples, 7_900)


def test_mu_law_has_256_steps_and_keeps_small_sounds() -> None:
    samples = np.linspace(-1, 1, 20_001).astype(np.float32)
    coded = mu_law(samples)
    assert len(np.unique(coded)) <= 256
    assert np.abs(coded - samples).max() < 0.03
    assert np.abs(coded - samples)[np.abs(samples) < 0.01].max() < 0.0005


def test_reverb_begins_with_the_direct_sound_and_decays() -> None:
    response = SyntheticReverb(1.0, 0.5, 0.5).response(np.random.default_rng(0))
    assert response[0] == np.abs(response).max()
    early, late = response[800:2400], response[-1600:]
    assert np.abs(late).max() < 0.05 * np.abs(early).max()


def test_gain_and_clipping_set_the_peak() -> None:
    loud = Gain(1.0, -6.0, -6.0)(bursts(), np.random.default_rng(0))
    assert np.abs(loud.samples).max() == pytest.approx(0.501, abs=0.001)
    clipped = Clipping(1.0, 0.2)(bursts(), np.random.default_rng(0))
    assert np.abs(clipped.samples).max() < np.abs(bursts().samples).max()


def test_an_augmentation_stays_within_full_scale() -> None:
    augmentation = Augmentation((Gain(1.0, 0.0, 0.0), Noise(1.0, -5.0, -5.0)))
    for seed in range(5):
        assert np.abs(augmentation(bursts(), np.random.default_rng(seed)).samples).max() <= 1.0


def test_clips_without_speech_are_of_many_kinds() -> None:
    random = np.random.default_rng(0)
    clips = [empty_clip(1.5, random) for _ in range(60)]
    assert all(clip.text == "" and clip.words == () for clip in clips)
    assert all(len(clip.samples) == 24_000 and clip.samples.dtype == np.float32 for clip in clips)
    levels = [float(np.abs(clip.samples).max()) for clip in clips]
    assert min(levels) < 1e-3
    assert 0.1 < max(levels) <= 1.01


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings of noise, one in stereo at 8 kHz in a folder of its own, and a text."""
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "one.wav", random.standard_normal(8_000) * 0.1, 16_000)
    (tmp_path / "deeper").mkdir()
    stereo = random.standard_normal((60_000, 2)) * 0.1
    soundfile.write(tmp_path / "deeper" / "two.FLAC", stereo, 8_000)
    (tmp_path / "licence.txt").write_text("public domain")
    return tmp_path


def test_recorded_rooms_and_backgrounds_are_reproducible(folder: Path) -> None:
    recorded = {name: {"folder": str(folder), "probability": 1.0} for name in RECORDED}
    augmentation = build_augmentation(recorded)
    assert augmentation.transforms == (
        RecordedRoom((folder / "deeper" / "two.FLAC", folder / "one.wav"), 1.0),
        RecordedNoise((folder / "deeper" / "two.FLAC", folder / "one.wav"), 1.0),
    )
    heard = []
    for seed in range(4):
        once = augmentation(bursts(), np.random.default_rng(seed))
        again = augmentation(bursts(), np.random.default_rng(seed))
        np.testing.assert_array_equal(once.samples, again.samples)
        assert once.samples.dtype == np.float32
        assert once.samples.shape == bursts().samples.shape
        assert once.words == WORDS
        heard.append(once.samples.tobytes())
    assert len(set(heard)) == 4


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("count", [0, 1, 7, 16_000])
def test_recordings_on_short_and_silent_clips(folder: Path, name: str, count: int) -> None:
    augmentation = build_augmentation({name: {"folder": str(folder), "probability": 1.0}})
    for seed in range(4):
        clip = Clip(np.zeros(count, dtype=np.float32), "", ())
        result = augmentation(clip, np.random.default_rng(seed))
        np.testing.assert_array_equal(result.samples, clip.samples)


def test_a_recorded_room_leaves_the_direct_sound_in_its_place(tmp_path: Path) -> None:
    """The response is 50 ms of faint noise, the direct sound, and an echo 100 ms behind it."""
    response = 0.001 * np.random.default_rng(0).standard_normal(4_000)
    response[800], response[2_400] = 0.5, 0.25
    soundfile.write(tmp_path / "room.wav", response, 16_000, subtype="FLOAT")
    room = RecordedRoom((tmp_path / "room.wav",), 1.0)
    clip = Clip(np.zeros(16_000, dtype=np.float32), "click", (("click", 0.25, 0.26),))
    clip.samples[4_000] = 0.8
    wet = room(clip, np.random.default_rng(0))
    loudest, echo = np.argsort(np.abs(wet.samples))[:-3:-1]
    assert (loudest, echo) == (4_000, 5_600)
    assert wet.samples[echo] / wet.samples[loudest] == pytest.approx(0.5, abs=0.01)
    assert np.sum(wet.samples**2) == pytest.approx(np.sum(clip.samples**2), rel=1e-3)
    assert np.abs(wet.samples[:4_000]).max() < 1e-6
    assert wet.words == clip.words


@pytest.mark.parametrize("seconds", [0.5, 8.0])
def test_a_recorded_background_has_the_ratio_asked_for(tmp_path: Path, seconds: float) -> None:
    """Recordings shorter and longer than the clip; a short one is repeated to its end."""
    noise = 0.01 * np.random.default_rng(0).standard_normal(int(seconds * 16_000))
    soundfile.write(tmp_path / "noise.wav", noise, 16_000, subtype="FLOAT")
    clip = bursts()
    background = RecordedNoise((tmp_path / "noise.wav",), 1.0, 10.0, 10.0)
    added = background(clip, np.random.default_rng(0)).samples - clip.samples
    level = np.sqrt(np.mean(added**2))
    assert 20 * np.log10(speech_level(clip.samples) / level) == pytest.approx(10.0, abs=0.1)
    for second in np.split(added, 3):
        assert np.sqrt(np.mean(second**2)) == pytest.approx(level, rel=0.1)


def test_backgrounds_come_from_all_over_a_long_recording(tmp_path: Path) -> None:
    """The recording is a tone whose pitch rises by 100 Hz a second, so a part tells its place."""
    time = np.arange(30 * 16_000) / 16_000
    rising = 0.1 * np.sin(2 * np.pi * (200 + 50 * time) * time)
    soundfile.write(tmp_path / "rising.wav", rising, 16_000)
    background = RecordedNoise((tmp_path / "rising.wav",), 1.0, -40.0, -40.0)
    places = []
    for seed in range(20):
        heard = background(bursts(), np.random.default_rng(seed)).samples[:16_000]
        places.append((np.argmax(np.abs(np.fft.rfft(heard))) - 200) / 100)
    assert min(places) < 6
    assert 20 < max(places) < 28


def test_a_silent_background_adds_nothing(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    background = RecordedNoise((tmp_path / "silence.wav",), 1.0)
    unchanged = background(bursts(), np.random.default_rng(0))
    np.testing.assert_array_equal(unchanged.samples, bursts().samples)


@pytest.mark.parametrize("name", RECORDED)
def test_recordings_that_cannot_be_read_are_named_at_once(folder: Path, name: str) -> None:
    settings = {name: {"folder": str(folder)}}
    soundfile.write(folder / "nothing.wav", np.zeros(0), 16_000)
    with pytest.raises(ConfigurationError, match=rf"{name}.*nothing\.wav is empty"):
        build_augmentation(settings)
    (folder / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(ConfigurationError, match=rf"{name}.*broken\.wav cannot be read as audio"):
        build_augmentation(settings)


def test_a_recording_that_has_gone_is_named(tmp_path: Path) -> None:
    room = RecordedRoom((tmp_path / "gone.wav",), 1.0)
    with pytest.raises(AudioError, match=r"gone\.wav cannot be read as audio"):
        room(bursts(), np.random.default_rng(0))


def test_a_configuration_builds_transforms_in_the_order_of_the_world() -> None:
    augmentation = build_augmentation(
        {
            "telephone": {"probability": 0.5},
            "speed": {},
            "noise": {"probability": 0},
            "tilt": None,
            "rooms": {"folder": None},
        }
    )
    assert augmentation.transforms == (Speed(), Telephone(0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"echo": {}}, "echo is not a transform"),
        ({"noise": {"loudness": 1}}, r"augmentation\.noise"),
        ({"noise": {"probability": 1.5}}, "between 0 and 1"),
        ({"rooms": {"folder": "/nowhere"}}, "/nowhere"),
        ({"rooms": {"folder": str(Path(__file__).parent)}}, "not a folder with audio files"),
        ({"backgrounds": {"folder": "/nowhere"}}, "/nowhere"),
    ],
)
def test_mistakes_in_a_configuration_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_augmentation(settings)
