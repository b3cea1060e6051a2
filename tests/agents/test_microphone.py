"""An agent at the machine's own microphone and loudspeaker, which are virtual here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.agents.running import agent, running
from tests.sound_server import SoundServer, sound_server
from tinyvoice.benchmark.speech import bundled_speech
from tinyvoice.model.modeling import ASRModel

pytest.importorskip("sounddevice")

RATE = 16_000
SAID = "what happened in nineteen fifty seven"
LOUD = 0.01
PAUSE_S = 1.5
LONGEST_GAP_S = 0.2
PATIENCE_S = 90.0


class Recording:
    """What comes out of the loudspeaker, written down."""

    def __init__(self, server: SoundServer, sink: str, model: ASRModel) -> None:
        self._model = model
        self._sound = bytearray()
        self._news = threading.Condition()
        self._process = server.record(sink, RATE)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def close(self) -> None:
        self._process.terminate()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()

    def forget(self) -> None:
        """Begin anew."""
        with self._news:
            self._sound.clear()

    def hears(self, words: str | None = None, patience_s: float = PATIENCE_S) -> bool:
        """Whether anything is said, or some of these words.

        That all words come through is tested where sound is not lost to a busy machine's card.
        """

        def found() -> bool:
            text = self._text()
            return bool(text) if words is None else len({*words.split()} & {*text.split()}) >= 2

        with self._news:
            return self._news.wait_for(found, timeout=patience_s)

    def _text(self) -> str:
        """What was said, once there is a pause behind it.

        A machine too busy for its sound card makes gaps of digital silence, which are cut out.
        """
        samples = np.frombuffer(bytes(self._sound), dtype="<i2").astype(np.float32) / 32768
        [loud] = np.nonzero(np.abs(samples) > LOUD)
        if not len(loud) or len(samples) - loud[-1] < PAUSE_S * RATE:
            return ""
        spoken = samples[loud[0] : loud[-1]]
        [there] = np.nonzero(spoken)
        gaps = np.diff(there, prepend=there[0])
        kept = np.cumsum(np.minimum(gaps, int(LONGEST_GAP_S * RATE)))
        whole = np.zeros(int(kept[-1]) + 1, dtype=np.float32)
        whole[kept] = spoken[there]
        [transcript] = self._model.transcribe([np.pad(whole, RATE // 2)], sample_rate=RATE)
        return transcript.text

    def _read(self) -> None:
        assert self._process.stdout is not None
        while packet := self._process.stdout.read(RATE // 5 * 2):
            with self._news:
                self._sound += packet
                self._news.notify()


@contextmanager
def recording(server: SoundServer, sink: str, model: ASRModel) -> Iterator[Recording]:
    tape = Recording(server, sink, model)
    try:
        yield tape
    finally:
        tape.close()


@pytest.fixture
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoundServer]:
    folder = tmp_path_factory.mktemp("pulse", numbered=True)
    with sound_server(folder, "room", "loudspeaker") as server:
        # The agent hears the room, and not itself.
        server.environment |= {"PULSE_SOURCE": "room.monitor", "PULSE_SINK": "loudspeaker"}
        yield server


@pytest.fixture
def question(tmp_path: Path) -> Path:
    [clip] = [clip for clip in bundled_speech() if clip.text == SAID]
    path = tmp_path / "question.wav"
    soundfile.write(path, np.pad(clip.samples, RATE // 2), RATE)
    return path


def test_it_hears_the_room_speaks_into_it_and_ends_when_the_devices_go(
    sound: SoundServer, question: Path, model: ASRModel
) -> None:
    devices = ("--device", "pulse", "--loudspeaker", "pulse")
    with (
        recording(sound, "loudspeaker", model) as tape,
        running("parrot", *devices, **sound.environment) as run,
    ):
        assert run.announcement == "Listening to pulse. Ctrl-C ends.\n"
        assert tape.hears()  # the greeting
        for _ in range(3):  # and drops words; a person says it again
            tape.forget()
            sound.play(question, "room")
            if tape.hears(SAID, PATIENCE_S / 2):
                break
        else:
            raise AssertionError("the question was not said again")
        sound.process.terminate()
        code, errors = run.finish()
    assert code == 1
    # PortAudio and ALSA have words of their own.
    said = [line for line in errors.splitlines() if line.startswith(("error:", "warning:"))]
    assert len(said) == 1
    assert said[0].startswith("error: The ")
    assert "pulse is gone: plug it in again, or choose another one." in said[0]
    assert "Traceback" not in errors


def test_it_ends_with_control_c(sound: SoundServer, model: ASRModel) -> None:
    devices = ("--device", "pulse", "--loudspeaker", "pulse")
    with (
        recording(sound, "loudspeaker", model) as tape,
        running("dictation", *devices, **sound.environment) as run,
    ):
        assert tape.hears()
        code, errors = run.interrupt()
    assert code == 0, errors
    assert "Traceback" not in errors


def test_a_wrong_name_is_a_sentence_that_lists_the_right_ones(sound: SoundServer) -> None:
    for option, device in (("--device", "microphone"), ("--loudspeaker", "loudspeaker")):
        result = agent("parrot", option, "gramophone", **sound.environment)
        assert result.returncode == 1
        assert f"error: There is no {device} 'gramophone'; choose from" in result.stderr
        assert "pulse" in result.stderr
        assert "Traceback" not in result.stderr
