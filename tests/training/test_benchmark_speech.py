"""The set of different utterances that the benchmark plays to Pipecat's pipelines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tinyvoice.benchmark.speech import load_speech
from training import benchmark_speech
from training.benchmark_speech import MIXED_SECONDS

LINES = [
    "what is the weather like in new york on tuesday",
    "please set an alarm for seven thirty in the morning",
    "how much money did i spend on groceries last month",
    "tell me how to change the oil of my old car",
    "book a table for four people at the italian place",
    "what is the best way to get from here to the station",
    "remind me to call my sister about the party tonight",
    "how do you say good evening in the french language",
    "i lost my credit card so i need to report it now",
    "play the next song on the list of things i like",
]


def make(monkeypatch: pytest.MonkeyPatch, texts: Path, output: Path, count: int) -> None:
    words = ("--texts", texts, "--output", output, "--count", count)
    monkeypatch.setattr(sys, "argv", ["benchmark_speech", *map(str, words)])
    benchmark_speech.main()


def test_utterances_of_other_texts_are_all_different_and_as_long_as_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join([*LINES, "", LINES[0]]))  # an empty line and one that is there twice
    make(monkeypatch, texts, tmp_path / "set", 3)
    clips = load_speech(tmp_path / "set")
    assert len(clips) == 3
    said = [line for clip in clips for line in str(clip.text).split(" and ")]
    assert len(set(said)) == len(said)
    assert set(said) <= set(LINES)
    for clip, (shortest, longest) in zip(clips, MIXED_SECONDS, strict=False):
        assert shortest <= clip.duration <= longest


def test_texts_that_do_not_suffice_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text(LINES[0])
    with pytest.raises(SystemExit, match="used up after 1 utterances: give more lines"):
        make(monkeypatch, texts, tmp_path / "set", 2)
