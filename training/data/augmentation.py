"""Augmentation of training clips: what microphones, rooms and telephones do to speech.

Every transform is a small dataclass with a probability, takes a clip and a random generator, and
returns a clip; word times follow where a transform moves the audio. Everything random comes from
the generator passed in, so a clip of an epoch is augmented alike on every run, worker and process.

Works on single clips of float32 samples at 16 kHz with numpy alone; recorded room responses and
backgrounds (`recorded_rooms`, `recorded_noise`) are read as they are needed. Cutting clips short is
the collator's work, because it changes the label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from tinyvoice.audio.resample import resample
from tinyvoice.errors import AudioError, ConfigurationError
from training.data.manifest import SAMPLE_RATE, WordTimes

Samples = NDArray[np.float32]
Random = np.random.Generator

NOISE_SLOPES = {"white": 0.0, "pink": 1.0, "brown": 2.0, "blue": -1.0, "speech": 1.6}
"""Exponent ``a`` of each colour's power spectrum ``1/f^a``; "speech" follows the long-term average
of speech above 500 Hz (about 5 dB per octave) and is flat below."""

SPEECH_KNEE_HZ = 500.0
TELEPHONE_BAND_HZ = (300.0, 3400.0)
MU = 255.0  # G.711 µ-law

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")
"""Files that are taken from a folder of recordings."""

LONGEST_RESPONSE_S = 10.0
"""What is read of a room response; the largest cathedrals fade within it."""


@dataclass(frozen=True)
class Clip:
    """A training example before it becomes features; ``samples`` are mono at 16 kHz."""

    samples: Samples
    text: str
    words: WordTimes | None = None
    voice: str | None = None

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / SAMPLE_RATE

    def shifted(self, samples: Samples, seconds: float) -> Clip:
        """Return the clip with new samples in which everything lies ``seconds`` later."""
        words = self.words
        if words is not None:
            words = tuple((text, start + seconds, end + seconds) for text, start, end in words)
        return replace(self, samples=samples, words=words)


class Transform(Protocol):
    """One augmentation, applied with its probability."""

    @property
    def probability(self) -> float:
        """How often it is applied, 0 to 1."""

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Return the changed clip."""


@dataclass(frozen=True)
class Augmentation:
    """Transforms in the order in which the world applies them: voice, room, noise, device."""

    transforms: Sequence[Transform] = field(default_factory=tuple)

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Apply each transform with its probability; the result stays within ±1."""
        if len(clip.samples) == 0:
            return clip
        for transform in self.transforms:
            if random.random() < transform.probability:
                clip = transform(clip, random)
        return replace(clip, samples=_bounded(clip.samples))


# --- the voice -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """Plays the clip faster or slower, pitch and formants with it (Ko et al., 2015)."""

    probability: float = 0.3
    lowest: float = 0.88
    highest: float = 1.14

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Resample by a factor of hundredths."""
        factor = round(random.uniform(self.lowest, self.highest), 2)
        samples = resample(clip.samples, round(SAMPLE_RATE * factor), SAMPLE_RATE)
        words = clip.words
        if words is not None:
            words = tuple((text, start / factor, end / factor) for text, start, end in words)
        return replace(clip, samples=samples, words=words)


@dataclass(frozen=True)
class SilencePads:
    """Puts silence of random length before and after the speech."""

    probability: float = 0.3
    longest_s: float = 0.6

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Shift the words by the silence before them."""
        before, after = (random.uniform(0.0, self.longest_s, size=2) * SAMPLE_RATE).astype(int)
        return clip.shifted(np.pad(clip.samples, (before, after)), before / SAMPLE_RATE)


# --- the room ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SyntheticReverb:
    """Convolves with an artificial room: direct sound, a few early echoes, a decaying noise tail.

    The tail falls by 60 dB within the reverberation time (Polack's statistical model of a room).
    """

    probability: float = 0.25
    shortest_s: float = 0.1
    longest_s: float = 0.7
    """Reverberation time (RT60)."""

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Keep length, level and the position of the direct sound."""
        response = self.response(random)
        wet = _convolve(clip.samples, response)[: len(clip.samples)]
        return replace(clip, samples=_with_level(wet, clip.samples))

    def response(self, random: Random) -> Samples:
        """Return an impulse response that starts with the direct sound, ``(taps,)``."""
        rt60 = random.uniform(self.shortest_s, self.longest_s)
        time = np.arange(int(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
        tail = random.standard_normal(len(time)) * np.exp(-6.908 * time / rt60)  # ln(10³) = 6.908
        tail[: int(0.004 * SAMPLE_RATE)] = 0.0
        tail *= random.uniform(0.1, 0.7) / (np.sqrt(np.sum(tail**2)) + 1e-9)
        for _ in range(random.integers(2, 7)):
            arrival = int(random.uniform(0.002, 0.04) * SAMPLE_RATE)
            tail[arrival] += random.uniform(-0.5, 0.5)
        tail[0] = 1.0
        return tail.astype(np.float32)


@dataclass(frozen=True)
class Noise:
    """Adds stationary noise of a random colour at a random signal-to-noise ratio."""

    probability: float = 0.5
    lowest_snr_db: float = 5.0
    highest_snr_db: float = 40.0
    colours: tuple[str, ...] = tuple(NOISE_SLOPES)

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """The ratio is taken to the level of the speech, not of the pauses."""
        noise = coloured_noise(len(clip.samples), str(random.choice(self.colours)), random)
        snr = random.uniform(self.lowest_snr_db, self.highest_snr_db)
        return replace(clip, samples=_add_at_snr(clip.samples, noise, snr))


@dataclass(frozen=True)
class ShortNoises:
    """Adds a few short noises: clicks, knocks, hisses and beeps."""

    probability: float = 0.15
    most: int = 4
    lowest_snr_db: float = 0.0
    highest_snr_db: float = 25.0

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Each noise has its own place, kind and level."""
        samples = clip.samples.copy()
        level = speech_level(samples)
        for _ in range(random.integers(1, self.most + 1)):
            noise = short_noise(random)
            gain = level * 10 ** (-random.uniform(self.lowest_snr_db, self.highest_snr_db) / 20)
            place = int(random.integers(0, max(1, len(samples) - len(noise))))
            room = samples[place : place + len(noise)]
            room += noise[: len(room)] * gain
        return replace(clip, samples=samples)


# --- the device ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tilt:
    """Tilts and bends the spectrum as microphones, loudspeakers and pockets do."""

    probability: float = 0.4
    most_db_per_octave: float = 3.0
    most_db_bump: float = 8.0

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """A tilt around 1 kHz and one broad resonance or dip; the level stays."""
        tilt = random.uniform(-self.most_db_per_octave, self.most_db_per_octave)
        centre, width = random.uniform(-3.0, 2.5), random.uniform(0.3, 1.2)
        bump = random.uniform(-self.most_db_bump, self.most_db_bump)

        def gain(frequencies: Samples) -> NDArray[Any]:
            octaves = np.log2(np.maximum(frequencies, 50.0) / 1000.0)
            gain_db = tilt * octaves + bump * np.exp(-0.5 * ((octaves - centre) / width) ** 2)
            return 10 ** (gain_db / 20)

        shaped = shape_spectrum(clip.samples, gain)
        return replace(clip, samples=_with_level(shaped, clip.samples))


@dataclass(frozen=True)
class BandLimit:
    """Removes what a cheap device does not pass: highs above, rumble below."""

    probability: float = 0.15
    lowest_top_hz: float = 2800.0
    highest_bottom_hz: float = 300.0

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Both edges are drawn at random."""
        top = random.uniform(self.lowest_top_hz, 7800.0)
        bottom = random.uniform(0.0, self.highest_bottom_hz)
        return replace(clip, samples=band_pass(clip.samples, bottom, top))


@dataclass(frozen=True)
class Telephone:
    """The public telephone: 300 to 3400 Hz, 8 kHz and µ-law of 8 bits (ITU-T G.711)."""

    probability: float = 0.15

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Down to 8 kHz, through µ-law at a random level, and up again."""
        narrow = resample(band_pass(clip.samples, *TELEPHONE_BAND_HZ), SAMPLE_RATE, 8_000)
        gain = random.uniform(0.1, 0.9) / (float(np.abs(narrow).max(initial=0.0)) + 1e-6)
        wide = resample(mu_law(narrow * gain) / gain, 8_000, SAMPLE_RATE)
        samples = np.zeros_like(clip.samples)
        samples[: len(wide)] = wide[: len(samples)]
        return replace(clip, samples=samples)


@dataclass(frozen=True)
class Gain:
    """Sets the peak to a random level."""

    probability: float = 0.8
    lowest_db: float = -32.0
    highest_db: float = -0.5

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Levels are dB relative to full scale; a silent clip stays silent."""
        peak = float(np.abs(clip.samples).max(initial=0.0))
        if peak < 1e-5:
            return clip
        gain = 10 ** (random.uniform(self.lowest_db, self.highest_db) / 20) / peak
        return replace(clip, samples=(clip.samples * np.float32(gain)).astype(np.float32))


@dataclass(frozen=True)
class Clipping:
    """Overdrives the input: peaks are cut off, hard or soft."""

    probability: float = 0.08
    most_clipped: float = 0.05
    """The largest part of the samples that is cut off."""

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """The ceiling is a quantile of the clip's own samples."""
        part = random.uniform(0.0, self.most_clipped)
        ceiling = max(float(np.quantile(np.abs(clip.samples), 1.0 - part)), 1e-4)
        if random.random() < 0.5:
            samples = np.clip(clip.samples, -ceiling, ceiling)
        else:
            samples = np.tanh(clip.samples / ceiling) * ceiling
        return replace(clip, samples=samples.astype(np.float32))


@dataclass(frozen=True)
class SensorFloor:
    """The converter's own noise and steps: faint white noise, sometimes few bits."""

    probability: float = 0.2
    highest_floor_db: float = -55.0
    fewest_bits: int = 9

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Noise between -90 dB and the highest floor relative to full scale, then rounding."""
        floor = 10 ** (random.uniform(-90.0, self.highest_floor_db) / 20)
        noise = random.standard_normal(len(clip.samples), dtype=np.float32)
        steps = 2.0 ** (int(random.integers(self.fewest_bits, 17)) - 1)
        samples = np.round((clip.samples + floor * noise) * steps) / steps
        return replace(clip, samples=samples.astype(np.float32))


# --- recordings ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecordedRoom:
    """Convolves with a room response recorded elsewhere (Ko et al., 2017).

    What a recording has before its direct sound is cut off, so that word times stay.
    """

    recordings: tuple[Path, ...]
    probability: float = 0.3

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Keep length and level; raises `AudioError` where the recording has become unreadable."""
        path = self.recordings[random.integers(len(self.recordings))]
        response = from_direct_sound(_read_part(path, LONGEST_RESPONSE_S))
        wet = _convolve(clip.samples, response)[: len(clip.samples)]
        return replace(clip, samples=_with_level(wet, clip.samples))


@dataclass(frozen=True)
class RecordedNoise:
    """Adds a random part of a recorded background (Hannun et al., 2014).

    A recording shorter than the clip is repeated.
    """

    recordings: tuple[Path, ...]
    probability: float = 0.4
    lowest_snr_db: float = 3.0
    highest_snr_db: float = 30.0

    def __call__(self, clip: Clip, random: Random) -> Clip:
        """Take the ratio as `Noise` does; raises `AudioError` as `RecordedRoom`."""
        path = self.recordings[random.integers(len(self.recordings))]
        part = _read_part(path, clip.duration, place=random.random())
        snr = random.uniform(self.lowest_snr_db, self.highest_snr_db)
        level = float(np.sqrt(np.mean(part**2))) if len(part) else 0.0
        if level < 1e-5:  # digital silence has no background to amplify
            return clip
        noise = np.resize(part / np.float32(level), len(clip.samples))
        return replace(clip, samples=_add_at_snr(clip.samples, noise, snr))


def recorded_rooms(folder: str, **settings: float) -> RecordedRoom:
    """Convolve with the room responses under ``folder``; settings of `RecordedRoom`.

    Raises:
        ConfigurationError: ``folder`` holds no audio, or a file that cannot be read as audio.
    """
    return RecordedRoom(_recordings(folder, "rooms"), **settings)


def recorded_noise(folder: str, **settings: float) -> RecordedNoise:
    """Mix in the backgrounds under ``folder``; settings of `RecordedNoise`.

    Raises:
        ConfigurationError: as `recorded_rooms`.
    """
    return RecordedNoise(_recordings(folder, "backgrounds"), **settings)


# --- clips without speech ------------------------------------------------------------------------


def empty_clip(duration: float, random: Random) -> Clip:
    """Return a clip of ``duration`` seconds without speech and with an empty label.

    Silence, steady noise, swelling noise, tones, mains hum, clicks and mixtures of them: what a
    recogniser that has only met speech would make words of.
    """
    count = max(1, round(duration * SAMPLE_RATE))
    samples = np.zeros(count, dtype=np.float32)
    kinds = ["silence", "noise", "swell", "tones", "beeps", "beeps", "hum", "short", "mixture"]
    kind = random.choice(kinds)  # beeps twice: lone tones come nearest to a vowel
    if kind in ("noise", "swell", "mixture"):
        noise = coloured_noise(count, str(random.choice(list(NOISE_SLOPES))), random)
        if kind == "swell":
            noise *= _slow_envelope(count, random)
        samples += noise
    if kind in ("tones", "mixture"):
        samples += _tones(count, random)
    if kind == "beeps":
        samples += _beeps(count, random)
    if kind == "hum":
        samples += _hum(count, random)
    if kind in ("short", "mixture"):
        for _ in range(random.integers(1, 6)):
            noise = short_noise(random)[:count] * random.uniform(0.2, 3.0)
            place = int(random.integers(0, count - len(noise) + 1))
            samples[place : place + len(noise)] += noise
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > 0.0:
        samples *= 10 ** (random.uniform(-55.0, -3.0) / 20) / peak
    if random.random() < 0.7:  # digital silence is rarer than a converter's noise
        floor = 10 ** (random.uniform(-95.0, -60.0) / 20)
        samples += floor * random.standard_normal(count, dtype=np.float32)
    return Clip(samples.astype(np.float32), text="", words=())


def _tones(count: int, random: Random) -> Samples:
    """Return one to four tones, each steady, gliding or beeping."""
    time = np.arange(count) / SAMPLE_RATE
    total = np.zeros(count)
    for _ in range(random.integers(1, 5)):
        start = np.exp(random.uniform(np.log(60.0), np.log(4000.0)))
        glide = random.choice([0.0, random.uniform(-0.4, 0.4) * start])
        phase = 2 * np.pi * (start + 0.5 * glide * time / max(time[-1], 0.1)) * time
        tone = np.sin(phase + random.uniform(0, 2 * np.pi))
        if random.random() < 0.4:
            period = random.uniform(0.1, 1.0)
            tone *= (time % period) < period * random.uniform(0.3, 0.7)
        total += tone * random.uniform(0.2, 1.0)
    return total.astype(np.float32)


def _beeps(count: int, random: Random) -> Samples:
    """Return signals one after another, each of one to three steady tones, with pauses between."""
    total = np.zeros(count, dtype=np.float32)
    place = 0
    while place < count:
        length = min(int(random.uniform(0.05, 2.5) * SAMPLE_RATE), count - place)
        time = np.arange(length) / SAMPLE_RATE
        pitches = np.exp(random.uniform(np.log(80.0), np.log(4500.0), random.integers(1, 4)))
        beep = np.sin(2 * np.pi * np.outer(pitches, time)).sum(axis=0)
        ramp_seconds = random.uniform(0.001, 0.02)  # without a ramp it would click
        beep *= np.minimum(1.0, np.minimum(time, time[::-1]) / ramp_seconds)
        total[place : place + length] = beep * random.uniform(0.3, 1.0)
        place += length + int(random.choice([0.0, random.uniform(0.02, 1.0)]) * SAMPLE_RATE)
    return total


def _hum(count: int, random: Random) -> Samples:
    """Return mains hum: 50 or 60 Hz and its overtones."""
    time = np.arange(count) / SAMPLE_RATE
    mains = random.choice([50.0, 60.0])
    total = np.zeros(count)
    for overtone in range(1, 12):
        total += np.sin(2 * np.pi * mains * overtone * time) * random.random() / overtone
    return total.astype(np.float32)


def _slow_envelope(count: int, random: Random) -> Samples:
    """Return a gain that wanders between 0 and 1 a few times a second."""
    points = max(2, int(count / SAMPLE_RATE * random.uniform(0.5, 6.0)) + 2)
    gains = random.random(points) ** 2
    return np.interp(np.linspace(0, points - 1, count), np.arange(points), gains).astype(np.float32)


# --- signals -------------------------------------------------------------------------------------


def coloured_noise(count: int, colour: str, random: Random) -> Samples:
    """Return ``(count,)`` samples of noise of unit level, one of `NOISE_SLOPES`."""
    slope, knee = NOISE_SLOPES[colour], SPEECH_KNEE_HZ if colour == "speech" else 30.0
    noise = random.standard_normal(count, dtype=np.float32)
    if slope:
        noise = shape_spectrum(noise, lambda hertz: np.maximum(hertz, knee) ** (-slope / 2))
    return noise / (np.sqrt(np.mean(noise**2)) + np.float32(1e-12))


def short_noise(random: Random) -> Samples:
    """Return a click, knock, hiss or beep of 5 to 300 ms and unit level at its loudest."""
    count = int(random.uniform(0.005, 0.3) * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    kind = random.integers(4)
    if kind == 0:
        body = random.standard_normal(count) * np.exp(-time / random.uniform(0.001, 0.01))
    elif kind == 1:
        ring = np.sin(2 * np.pi * random.uniform(60.0, 600.0) * time)
        body = ring * np.exp(-time / random.uniform(0.01, 0.08))
    elif kind == 2:
        body = coloured_noise(count, "blue", random) * np.hanning(count)
    else:
        body = np.sin(2 * np.pi * random.uniform(300.0, 3000.0) * time)
    return (body / (np.abs(body).max() + 1e-9)).astype(np.float32)


def mu_law(samples: Samples) -> Samples:
    """Round samples in ±1 to the 256 steps of µ-law (the continuous law of G.711)."""
    compressed = np.sign(samples) * np.log1p(MU * np.abs(samples)) / np.log1p(MU)
    rounded = np.round((compressed + 1.0) / 2.0 * 255.0) / 255.0 * 2.0 - 1.0
    return (np.sign(rounded) * np.expm1(np.abs(rounded) * np.log1p(MU)) / MU).astype(np.float32)


def band_pass(samples: Samples, bottom_hz: float, top_hz: float) -> Samples:
    """Fade out what lies below ``bottom_hz`` and above ``top_hz``, within a sixth of an octave."""

    def gain(frequencies: Samples) -> NDArray[Any]:
        passed = np.clip((top_hz * 1.06 - frequencies) / (top_hz * 0.12), 0.0, 1.0)
        if bottom_hz > 1.0:
            passed *= np.clip((frequencies - bottom_hz * 0.94) / (bottom_hz * 0.12), 0.0, 1.0)
        return passed

    return shape_spectrum(samples, gain)


def shape_spectrum(samples: Samples, gain: Callable[[Samples], NDArray[Any]]) -> Samples:
    """Multiply the spectrum by a gain, a function of the frequency in Hz."""
    size = _fast_size(len(samples))
    spectrum = np.fft.rfft(samples, size)
    spectrum *= gain(_frequencies(size)).astype(np.float32)
    return np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)


def speech_level(samples: Samples) -> float:
    """Return the root mean square of the loud parts: 20 ms frames within 20 dB of the loudest."""
    frame = SAMPLE_RATE // 50
    if len(samples) < frame:
        return float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    powers = np.mean(frames**2, axis=1)
    return float(np.sqrt(powers[powers >= powers.max() * 0.01].mean()))


def _add_at_snr(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """Add noise of unit level at ``snr_db`` below the speech."""
    return (samples + noise * np.float32(speech_level(samples) * 10 ** (-snr_db / 20))).astype(
        np.float32
    )


def _with_level(samples: Samples, reference: Samples) -> Samples:
    """Scale ``samples`` to the root mean square of ``reference``."""
    power = float(np.mean(samples**2)) if len(samples) else 0.0
    if power < 1e-14:
        return samples.astype(np.float32)
    gain = np.sqrt(float(np.mean(reference**2)) / power)
    return (samples * np.float32(gain)).astype(np.float32)


def _bounded(samples: Samples) -> Samples:
    """Scale down a clip that has left ±1: overload is the work of `Clipping` alone."""
    peak = float(np.abs(samples).max(initial=0.0))
    return (samples / np.float32(peak)).astype(np.float32) if peak > 1.0 else samples


def _convolve(samples: Samples, response: Samples) -> Samples:
    """Convolve by the fast Fourier transform."""
    count = len(samples) + len(response) - 1
    size = _fast_size(count)
    product = np.fft.rfft(samples, size) * np.fft.rfft(response, size)
    return np.fft.irfft(product, size)[:count].astype(np.float32)


def _fast_size(count: int) -> int:
    """Return a size from ``count`` up to an eighth more whose transform is quick.

    Sizes with large prime factors take several times longer; this one has none above 13.
    """
    step = 1 << max(0, count.bit_length() - 4)
    return max(2, -(-count // step) * step)


@lru_cache(maxsize=64)
def _frequencies(size: int) -> Samples:
    """Return the frequencies in Hz of the real transform of ``size`` samples."""
    return np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32)


def from_direct_sound(response: Samples) -> Samples:
    """Return an impulse response from its first sample within 20 dB of the loudest (ISO 3382-1)."""
    magnitudes = np.abs(response)
    return response[int(np.argmax(magnitudes >= 0.1 * magnitudes.max(initial=0.0))) :]


def _read_part(path: Path, seconds: float, place: float = 0.0) -> Samples:
    """Read up to ``seconds`` of a recording: mono, 16 kHz, ``(samples,)``.

    ``place`` says where: 0 is the first part of that length, 1 the last.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            count = max(1, round(seconds * rate))
            file.seek(int(place * max(0, file.frames - count)))
            channels = file.read(count, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise AudioError(
            f"{path} cannot be read as audio ({error}): take it out of its folder.", path=str(path)
        ) from error
    samples = np.nan_to_num(channels.mean(axis=1), posinf=0.0, neginf=0.0)
    return resample(samples, rate, SAMPLE_RATE)


def _recordings(folder: str, key: str) -> tuple[Path, ...]:
    """Return the audio files under ``folder`` in order; all are opened now, none in the middle."""
    key = f"data.augmentation.{key}"
    root = Path(folder).expanduser()
    paths = tuple(sorted(p for p in root.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES))
    if not paths:
        raise ConfigurationError(
            f"{key} names {folder}, which is not a folder with audio files "
            f"({', '.join(AUDIO_SUFFIXES)}).",
            key=key,
        )
    for path in paths:
        try:
            empty = soundfile.info(str(path)).frames == 0
        except (OSError, RuntimeError) as error:
            raise ConfigurationError(
                f"{key}: {path} cannot be read as audio ({error}): take it out of the folder.",
                key=key,
            ) from error
        if empty:
            raise ConfigurationError(f"{key}: {path} is empty: take it out of the folder.", key=key)
    return paths


# --- what a configuration builds -----------------------------------------------------------------

TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "speed": Speed,
    "pads": SilencePads,
    "reverb": SyntheticReverb,
    "rooms": recorded_rooms,
    "noise": Noise,
    "backgrounds": recorded_noise,
    "short_noises": ShortNoises,
    "tilt": Tilt,
    "band_limit": BandLimit,
    "telephone": Telephone,
    "gain": Gain,
    "clipping": Clipping,
    "sensor_floor": SensorFloor,
}
"""Transforms by their configuration key, in the order in which they are applied. A device's gain
comes before its overload and its converter."""


def build_augmentation(settings: Mapping[str, Mapping[str, Any] | None]) -> Augmentation:
    """Build the augmentation that a configuration describes: ``{"noise": {"probability": 0.5}}``.

    A key with no settings (``None``), with probability 0, or a recorded one without a folder, is
    left out; the order of the keys does not matter.

    Raises:
        ConfigurationError: an unknown transform or setting, or a probability outside 0 to 1.
    """
    unknown = set(settings) - set(TRANSFORMS)
    if unknown:
        raise ConfigurationError(
            f"data.augmentation.{min(unknown)} is not a transform: "
            f"choose among {', '.join(TRANSFORMS)}.",
            key=f"data.augmentation.{min(unknown)}",
        )
    transforms = []
    for name, make in TRANSFORMS.items():
        options = settings.get(name)
        if options is None or options.get("probability", 1) == 0:
            continue
        if name in ("rooms", "backgrounds") and not options.get("folder"):
            continue
        try:
            transform = make(**options)
        except TypeError as error:
            raise ConfigurationError(
                f"data.augmentation.{name}: {error}.", key=f"data.augmentation.{name}"
            ) from error
        if not 0.0 <= transform.probability <= 1.0:
            raise ConfigurationError(
                f"data.augmentation.{name}.probability must lie between 0 and 1.",
                key=f"data.augmentation.{name}.probability",
            )
        transforms.append(transform)
    return Augmentation(tuple(transforms))
