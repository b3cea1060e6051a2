"""eSpeak NG as the voice of a conversation: small, quick, offline, unmistakably a machine.

It speaks in processes of its own, so that the event loop never waits for it and sessions do not
meet in its global state. A text gives the same samples each time, whoever else is speaking.
The voice names of OpenAI's API stand for voices of eSpeak NG that differ in sound; names of eSpeak
NG itself (``de``, ``en-gb-scotland+f3``) are taken as well.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from types import MappingProxyType
from typing import TypeVar

from tinyvoice.errors import ConfigurationError
from tinyvoice.realtime.backends.errors import VoiceError
from tinyvoice.realtime.backends.interface import SpokenAudio
from tinyvoice.voices.espeak import Synthesis
from tinyvoice.voices.espeak_process import EspeakError, EspeakProcess

T = TypeVar("T")

VOICES = MappingProxyType(
    {
        "alloy": ("en-us", 1.0),
        "ash": ("en-us+m3", 1.0),
        "ballad": ("en-gb-x-rp+m3", 1.0),
        "cedar": ("en-us+m7", 0.85),
        "coral": ("en-us+f2", 1.1),
        "echo": ("en-us+m1", 1.0),
        "fable": ("en-gb-x-rp", 1.05),
        "marin": ("en-us+f5", 1.0),
        "nova": ("en+f2", 1.0),
        "onyx": ("en-us+m2", 0.7),
        "sage": ("en-us+f1", 0.95),
        "shimmer": ("en-us+f3", 1.15),
        "verse": ("en+m6", 1.0),
    }
)
"""Names of OpenAI's API: eSpeak NG's voice and a factor of its pitch."""

DEFAULT_VOICE = "alloy"
SLOWEST, FASTEST = 0.5, 2.5
"""Speeds, as factors, beyond which eSpeak NG is not understood; others are brought to these."""

# What eSpeak NG calls a voice: a language, and perhaps a variant. Nothing that could be a path.
_OWN_NAME = re.compile(r"[a-z]{2,3}(-[a-z0-9]+)*(\+[A-Za-z0-9_-]+)?")


class EspeakVoice:
    """Speaks with eSpeak NG.

    Args:
        processes: how many texts may be spoken at the same time; each process takes about 15 MB
            and is started when it is first needed.

    Raises:
        ConfigurationError: ``processes`` is not positive.
    """

    name = "espeak"
    sample_rate = 22_050

    def __init__(self, processes: int = 2) -> None:
        if processes < 1:
            raise ConfigurationError("eSpeak NG needs at least one process.", key="processes")
        self._processes = processes
        self._threads: ThreadPoolExecutor | None = None
        self._idle: list[EspeakProcess] = []
        self._all: set[EspeakProcess] = set()
        self._lock = Lock()

    async def open(self) -> None:
        """Start the first process.

        Raises:
            MissingExtraError: the package espeakng-loader is not installed.
            ConfigurationError: its library cannot be started.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._processes, "espeak")
            try:
                await self._run(self._start_first)
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """End the processes; what is being spoken fails."""
        threads, self._threads = self._threads, None
        if threads is None:
            return
        with self._lock:
            processes, self._all, self._idle = self._all, set(), []
        for process in processes:
            process.close()
        await asyncio.get_running_loop().run_in_executor(None, threads.shutdown)

    async def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[SpokenAudio]:
        """Speak ``text`` in one stretch, with the time at which each word ends.

        Raises:
            VoiceError: it cannot be spoken, or the voice is not open.
        """
        name, pitch = _own_voice(voice)
        rate = min(max(speed, SLOWEST), FASTEST)
        try:
            spoken = await self._run(self._speak, text, name, rate, pitch)
        except EspeakError as error:
            raise VoiceError(f"The voice failed: {error}") from error
        pcm16 = spoken.pcm16
        if pcm16:
            yield SpokenAudio(pcm16, word_ends(text, spoken))

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        if self._threads is None:
            raise VoiceError("The voice is not open.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _start_first(self) -> None:
        process = self._take()
        self.sample_rate = process.sample_rate
        self._put_back(process)

    def _speak(self, text: str, voice: str, rate: float, pitch: float) -> Synthesis:
        """In a thread of ours: speak with a process that has nothing else to do."""
        process = self._take()
        try:
            try:
                return process.speak(text, voice, rate=rate, pitch=pitch)
            except EspeakError:
                if process.alive and voice != VOICES[DEFAULT_VOICE][0]:
                    # A name of eSpeak NG's form that it does not have.
                    return process.speak(text, VOICES[DEFAULT_VOICE][0], rate=rate)
                raise
        finally:
            self._put_back(process)

    def _take(self) -> EspeakProcess:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.alive:
                    return process
                self._all.discard(process)
        process = EspeakProcess()
        with self._lock:
            self._all.add(process)
        return process

    def _put_back(self, process: EspeakProcess) -> None:
        with self._lock:
            if process in self._all and process.alive:
                self._idle.append(process)
                return
            self._all.discard(process)
        process.close()


def _own_voice(voice: str) -> tuple[str, float]:
    if voice in VOICES:
        return VOICES[voice]
    return (voice, 1.0) if _OWN_NAME.fullmatch(voice) else VOICES[DEFAULT_VOICE]


def word_ends(text: str, spoken: Synthesis) -> list[tuple[int, float]]:
    """(characters of ``text`` spoken by then, seconds), rising, one for each word that is heard.

    A word ends where the next begins, or where a pause begins before that; its punctuation belongs
    to it. Words that eSpeak NG speaks as one, and the parts of a number, end together.
    """
    starts: list[tuple[int, float]] = []
    for position, sample in spoken.words:
        if not starts or position > starts[-1][0]:
            starts.append((position, sample / spoken.sample_rate))
    pauses = [
        sample / spoken.sample_rate for name, sample in spoken.phonemes if name.startswith("_")
    ]
    length = len(spoken.pcm16) / 2 / spoken.sample_rate
    ends: list[tuple[int, float]] = []
    for index, (_, start) in enumerate(starts):
        last = index + 1 == len(starts)
        until, end = (len(text), length) if last else starts[index + 1]
        if not last and not text[until - 1].isspace():
            continue  # within a number, or letters spelled one by one
        end = min([end, *(pause for pause in pauses if pause > start)])
        ends.append((len(text[:until].rstrip()), end))
    return ends
