"""eSpeak NG in a process of its own: the same speech whatever happens beside it."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tinyvoice.errors import ConfigurationError, MissingExtraError
from tinyvoice.voices import espeak, espeak_process
from tinyvoice.voices.espeak_process import EspeakError, EspeakProcess

TEXT = "can you tell me the weather in new york"


@pytest.fixture
def process():
    with_voice = EspeakProcess()
    yield with_voice
    with_voice.close()


def test_a_text_sounds_the_same_whatever_was_said_before(process: EspeakProcess) -> None:
    first = process.speak(TEXT, "en-us+f2")
    process.speak("something else", "en-029+m1", rate=0.7, pitch=1.4)
    assert process.speak(TEXT, "en-us+f2") == first
    other = EspeakProcess()
    try:
        assert other.speak(TEXT, "en-us+f2") == first
    finally:
        other.close()


def test_it_says_what_the_library_says(process: EspeakProcess) -> None:
    spoken = process.speak(TEXT, "en-us")
    here = espeak.speak(TEXT, "en-us")
    assert spoken.sample_rate == process.sample_rate == here.sample_rate
    assert [position for position, _ in spoken.words] == [position for position, _ in here.words]
    assert [name for name, _ in spoken.phonemes] == [name for name, _ in here.phonemes]
    assert len(spoken.pcm16) == pytest.approx(len(here.pcm16), rel=0.02)


def test_rate_and_pitch_are_followed(process: EspeakProcess) -> None:
    plain = process.speak(TEXT, "en-us")
    assert len(process.speak(TEXT, "en-us", rate=2.0).pcm16) < 0.65 * len(plain.pcm16)
    assert process.speak(TEXT, "en-us", pitch=1.5).pcm16 != plain.pcm16


def test_a_voice_that_does_not_exist_is_an_error_of_that_text(process: EspeakProcess) -> None:
    with pytest.raises(EspeakError, match="xx"):
        process.speak(TEXT, "xx")
    assert process.alive
    assert process.speak(TEXT, "en-us").pcm16


def test_a_process_that_dies_says_so(process: EspeakProcess) -> None:
    os.kill(process._process.pid, signal.SIGKILL)
    with pytest.raises(EspeakError, match="ended"):
        process.speak(TEXT, "en-us")
    assert not process.alive


def test_it_ends_with_its_parent(process: EspeakProcess) -> None:
    process._requests.close()  # what the system does when the parent is gone
    assert process._process.wait(30) == 0


def test_two_speak_at_the_same_time_as_each_would_alone() -> None:
    processes = [EspeakProcess(), EspeakProcess()]
    voices = ["en-us+f2", "en-gb-x-rp"]
    alone = [of.speak(TEXT, voice) for of, voice in zip(processes, voices, strict=True)]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(5):
            together = list(threads.map(lambda of, v: of.speak(TEXT, v), processes, voices))
            assert together == alone
    for of in processes:
        of.close()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeak_process, "_installed", lambda _: False)
    with pytest.raises(MissingExtraError, match="serve"):
        EspeakProcess()


def test_a_library_that_cannot_be_started_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # A process that ends at once stands in for a broken installation.
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigurationError, match="cannot be started"):
        EspeakProcess()
