"""Piper's neural voices, run here: natural, quick on a CPU, in some forty languages.

A voice is a file ``NAME.onnx`` with its ``NAME.onnx.json`` beside it, as Piper publishes them. They
are the user's to fetch; nothing is downloaded. The package ``piper-tts`` is GPL, so it is an extra
that is loaded at run time. It tells no word times.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from tinyvoice.audio.resample import resample
from tinyvoice.errors import ConfigurationError, MissingExtraError
from tinyvoice.realtime.backends.errors import VoiceError
from tinyvoice.realtime.backends.espeak import VOICES as KNOWN_NAMES
from tinyvoice.realtime.backends.interface import SpokenAudio

T = TypeVar("T")

SLOWEST, FASTEST = 0.5, 2.0
"""Speeds, as factors, beyond which the voices break down; others are brought to these."""

_THREADS = 2
_FETCH = "fetch NAME.onnx and NAME.onnx.json from huggingface.co/rhasspy/piper-voices"


@dataclass(frozen=True)
class _Speaker:
    """One way to speak: a file, and the number of a speaker in it."""

    file: Path
    name: str
    number: int | None


class PiperVoice:
    """Speaks with Piper.

    A client's voice name may be a file's (``en_US-lessac-medium``), or with a speaker of it
    (``en_US-libritts-high#p3922``); the names of OpenAI's API are dealt out over what there is.

    Args:
        model: a voice's ``.onnx`` file, or a folder of them.
    """

    name = "piper"
    sample_rate = 22_050

    def __init__(self, model: str | Path) -> None:
        self._source = Path(model) if str(model) else None
        self._threads: ThreadPoolExecutor | None = None
        self._speakers: list[_Speaker] = []
        self._loaded: dict[Path, Any] = {}
        self._loading = Lock()

    async def open(self) -> None:
        """Load the first voice; the others are loaded when they first speak.

        Raises:
            MissingExtraError: the package piper-tts is not installed.
            ConfigurationError: no voice is given, or it cannot be read.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "piper")
            try:
                await self._run(self._find)
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """Let go of the voices, when they have said what they are saying."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.get_running_loop().run_in_executor(None, threads.shutdown)
        self._loaded.clear()

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[SpokenAudio]:
        """Speak ``text`` in one stretch for each sentence.

        Raises:
            VoiceError: it cannot be spoken, or the voice is not open.
        """
        if self._threads is None:
            raise VoiceError("The voice is not open.")
        sentences = await self._run(self._begin, text, self._speaker(voice), speed)
        while (pcm16 := await self._run(self._next, sentences)) is not None:
            yield SpokenAudio(pcm16)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        if self._threads is None:
            raise VoiceError("The voice is not open.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _find(self) -> None:
        try:
            import piper  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("piper", "speaking with Piper") from error
        files = _files(self._source)
        for file in files:
            self._speakers.extend(_speakers_of(file))
        first = self._load(files[0])
        self.sample_rate = int(first.config.sample_rate)

    def _load(self, file: Path) -> Any:
        from piper import PiperVoice as Network

        with self._loading:
            if file not in self._loaded:
                try:
                    self._loaded[file] = Network.load(file)
                except Exception as error:  # onnxruntime's classes have no common base but this
                    raise ConfigurationError(
                        f"{file.name} cannot be read as a voice of Piper "
                        f"({' '.join(str(error).split())[:200]}): {_FETCH}.",
                        key="tts_model",
                    ) from error
            return self._loaded[file]

    def _speaker(self, voice: str) -> _Speaker:
        for speaker in self._speakers:
            if voice in (speaker.name, speaker.file.stem):
                return speaker
        known = list(KNOWN_NAMES)
        place = known.index(voice) if voice in known else 0
        return self._speakers[place % len(self._speakers)]

    def _begin(self, text: str, speaker: _Speaker, speed: float) -> Any:
        """An iterator over the sentences; each is spoken when it is asked for."""
        from piper import SynthesisConfig

        try:
            network = self._load(speaker.file)
        except ConfigurationError as error:
            raise VoiceError(str(error)) from error
        scale = network.config.length_scale / min(max(speed, SLOWEST), FASTEST)
        settings = SynthesisConfig(speaker_id=speaker.number, length_scale=scale)
        # Double brackets would hold phonemes.
        return iter(network.synthesize(text.replace("[[", "[ ["), settings))

    def _next(self, sentences: Any) -> bytes | None:
        try:
            chunk = next(sentences, None)
        except Exception as error:  # as above
            raise VoiceError("The voice failed on this text.") from error
        if chunk is None:
            return None
        samples = resample(chunk.audio_float_array.reshape(-1), chunk.sample_rate, self.sample_rate)
        return np.clip(np.round(samples * 32767), -32768, 32767).astype("<i2").tobytes()


def _files(source: Path | None) -> list[Path]:
    if source is None:
        raise ConfigurationError(
            f"Piper needs a voice: {_FETCH}, and set tts_model to the .onnx file or its folder.",
            key="tts_model",
        )
    files = sorted(source.glob("*.onnx")) if source.is_dir() else [source]
    for file in files:
        for needed in (file, file.with_name(f"{file.name}.json")):
            if not needed.is_file():
                raise ConfigurationError(f"There is no file {needed}: {_FETCH}.", key="tts_model")
    if not files:
        raise ConfigurationError(f"{source} holds no .onnx file: {_FETCH}.", key="tts_model")
    return files


def _speakers_of(file: Path) -> list[_Speaker]:
    try:
        content = json.loads(file.with_name(f"{file.name}.json").read_text(encoding="utf-8"))
        names: dict[str, int] = content.get("speaker_id_map") or {}
        several = content.get("num_speakers", 1) > 1
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"{file.name}.json cannot be read ({error}): {_FETCH}.", key="tts_model"
        ) from error
    if not several or not names:
        return [_Speaker(file, file.stem, None)]
    return [_Speaker(file, f"{file.stem}#{name}", number) for name, number in names.items()]
