import pytest

from tinyvoice.errors import ConfigurationError
from training.synthesis.voices import HELD_OUT_VOICES, TRAINING_VOICES, Voice


def test_held_out_voices_are_never_trained_on() -> None:
    assert not set(HELD_OUT_VOICES) & set(TRAINING_VOICES)
    assert len(HELD_OUT_VOICES) >= 4
    assert len(set(TRAINING_VOICES)) == len(TRAINING_VOICES)


def test_voice_names_survive_parsing() -> None:
    for name in TRAINING_VOICES + HELD_OUT_VOICES:
        assert str(Voice.parse(name)) == name


@pytest.mark.parametrize("name", ["", "espeak", "espeak/", "festival/kal", "en-us+f2"])
def test_other_names_are_refused_with_an_example(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"espeak/en-us\+f2"):
        Voice.parse(name)
