from training.synthesis.phonemes import PHONEME_IDS, PHONEMES, SILENCE, from_espeak, from_flite


def test_silence_is_class_zero() -> None:
    assert PHONEMES[0] == SILENCE
    assert len(set(PHONEMES)) == len(PHONEMES)
    assert PHONEME_IDS[SILENCE] == 0


def test_espeak_stress_and_pauses() -> None:
    assert from_espeak("'eI") == "ey"
    assert from_espeak(",V") == "ah"
    assert from_espeak("_:") == SILENCE
    assert from_espeak("_") == SILENCE


def test_marks_that_are_no_sound_are_left_out() -> None:
    assert from_espeak(";") is None
    assert from_espeak("no such phoneme") is None
    assert from_flite("no such phone") is None


def test_both_engines_meet_in_one_inventory() -> None:
    assert from_espeak("tS") == from_flite("ch") == "ch"
    assert from_espeak("D") == from_flite("dh") == "dh"
    assert from_flite("pau") == SILENCE
