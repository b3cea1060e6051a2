import numpy as np
import pytest

from tinyvoice.errors import ConfigurationError
from training.synthesis.phonemes import PHONEME_IDS
from training.synthesis.speech import Synthesiser, Utterance

TEXT = "can you tell me the weather in new york tomorrow"


def speech_level(utterance: Utterance, start: float, end: float) -> float:
    samples = utterance.samples[int(start * 16000) : int(end * 16000)]
    return float(np.sqrt(np.mean(samples**2)))


@pytest.mark.parametrize(
    "voice", ["espeak/en-us", "espeak/en-gb-x-rp+m3", "flite/slt", "flite/kal"]
)
def test_words_have_times_where_the_sound_is(voice: str) -> None:
    utterance = Synthesiser(voice).speak(TEXT)
    assert [word for word, _, _ in utterance.words] == TEXT.split()
    assert all(start < end for _, start, end in utterance.words)
    edges = [edge for _, start, end in utterance.words for edge in (start, end)]
    assert edges == sorted(edges)
    assert edges[-1] <= utterance.duration
    first, last = utterance.words[0][1], utterance.words[-1][2]
    speaking = speech_level(utterance, first, last)
    assert speaking > 0.01
    # What lies behind the last word is the engine's closing pause.
    if utterance.duration - last > 0.05:
        assert speech_level(utterance, last + 0.03, utterance.duration) < 0.2 * speaking


def test_phonemes_are_known_classes_in_rising_time() -> None:
    utterance = Synthesiser("espeak/en-us+f2").speak(TEXT)
    starts = [start for _, start in utterance.phonemes]
    assert starts == sorted(starts)
    assert {name for name, _ in utterance.phonemes} <= set(PHONEME_IDS)
    assert len(utterance.phonemes) > 25


def test_samples_are_16_khz_float_within_full_scale() -> None:
    utterance = Synthesiser("espeak/en+m1").speak("good morning", rate=0.9, pitch=1.2)
    assert utterance.samples.dtype == np.float32
    assert 0.1 < float(np.abs(utterance.samples).max()) <= 1.0
    assert 0.5 < utterance.duration < 2.0


def test_rate_changes_duration_and_times_together() -> None:
    voice = Synthesiser("espeak/en-us")
    slow, fast = voice.speak(TEXT, rate=0.8), voice.speak(TEXT, rate=1.25)
    assert slow.duration > 1.3 * fast.duration
    assert slow.words[-1][1] > 1.3 * fast.words[-1][1]


def test_words_that_the_engine_joins_each_get_a_share() -> None:
    # eSpeak speaks "of the" as one unit, with one event.
    utterance = Synthesiser("espeak/en-us").speak("the end of the story")
    assert [word for word, _, _ in utterance.words] == "the end of the story".split()
    assert all(end - start > 0.02 for _, start, end in utterance.words)


@pytest.mark.parametrize("voice", ["espeak/xx-nowhere", "flite/nobody"])
def test_unknown_voice_is_refused_by_name(voice: str) -> None:
    with pytest.raises(ConfigurationError, match=voice.partition("/")[2]):
        Synthesiser(voice)
