import re

from training.synthesis.grammar import sentences
from training.text import normalise


def test_same_seed_same_sentences() -> None:
    assert list(sentences(50, seed=4)) == list(sentences(50, seed=4))
    assert list(sentences(50, seed=4)) != list(sentences(50, seed=5))


def test_sentences_differ_and_are_complete() -> None:
    made = list(sentences(2000, seed=1))
    assert len(set(made)) > 1900
    assert not [text for text in made if "{" in text or "@" in text]


def test_every_sentence_is_speakable() -> None:
    for text in sentences(500, seed=2):
        assert re.fullmatch(r"[a-z']+( [a-z']+)*", normalise(text)), text
