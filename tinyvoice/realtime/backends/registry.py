"""From settings to what answers in a conversation.

Backends are imported when they are chosen: `openai`, torch and the like are needed by those who
use them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from tinyvoice.checks import one_of
from tinyvoice.errors import ConfigurationError
from tinyvoice.realtime.backends.interface import LanguageModel, Voice
from tinyvoice.realtime.backends.responder import ConversationResponder

LanguageModelName = Literal["echo", "openai", "local"]
VoiceName = Literal["espeak", "openai", "piper", "none"]


@dataclass(frozen=True)
class BackendSettings:
    """Which language model answers, and which voice speaks.

    Raises:
        ConfigurationError: there is no such backend, or a value is out of range; ``key`` names it.
    """

    llm: LanguageModelName = "echo"
    """``echo``: the built-in rules, no model. ``openai``: any server of OpenAI's chat completions.
    ``local``: a language model run here, such as Qwen3."""
    llm_url: str = ""
    """Base address of the server (``http://localhost:11434/v1``); "" is OpenAI itself."""
    llm_model: str = ""
    """Name of the model at the server; a folder or Hub id for ``local`` (default Qwen3-0.6B)."""
    llm_key: str = field(default="", repr=False)
    """Key for the server; "" takes ``OPENAI_API_KEY`` for OpenAI itself; other servers get none."""
    llm_temperature: float | None = None
    """0 to 2; None leaves it to the server, and is greedy for ``local``."""
    llm_max_tokens: int | None = None
    """Longest answer in tokens where a client sets no limit; None leaves it to the server, and is
    1024 for ``local``."""
    llm_device: str = "auto"
    """Where ``local`` runs: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    llm_timeout_s: float = 30.0
    """Longest wait for the first or the next part of an answer."""
    connect_timeout_s: float = 5.0
    """Longest wait for a connection to a server, of the language model or of the voice."""
    tts: VoiceName = "espeak"
    """``espeak``: eSpeak NG. ``openai``: any server of OpenAI's speech endpoint. ``piper``: a
    neural voice run here. ``none``: audio answers are text alone."""
    tts_url: str = ""
    """Base address of the voice's server; "" is OpenAI itself."""
    tts_model: str = ""
    """Name of the model at the server; for ``piper`` a voice's ``.onnx`` file, or a folder of such
    files."""
    tts_key: str = field(default="", repr=False)
    """Key for the voice's server; as ``llm_key``."""
    tts_voice: str = ""
    """The voice that speaks, whatever clients ask for; "" follows them."""
    tts_timeout_s: float = 15.0
    """Longest wait for the first or the next part of a clause's sound."""
    espeak_processes: int = 2
    """Texts that eSpeak NG speaks at the same time."""

    def __post_init__(self) -> None:
        one_of("llm", self.llm, get_args(LanguageModelName))
        one_of("tts", self.tts, get_args(VoiceName))
        for name in ("llm_timeout_s", "connect_timeout_s", "tts_timeout_s"):
            if not 0 < getattr(self, name) <= 3600:
                raise ConfigurationError(f"{name} lies between 0 and 3600 seconds.", key=name)
        if self.llm_temperature is not None and not 0 <= self.llm_temperature <= 2:
            raise ConfigurationError("llm_temperature lies between 0 and 2.", key="llm_temperature")
        if self.llm_max_tokens is not None and self.llm_max_tokens < 1:
            raise ConfigurationError("llm_max_tokens is at least 1.", key="llm_max_tokens")
        if self.espeak_processes < 1:
            raise ConfigurationError("espeak_processes is at least 1.", key="espeak_processes")


def build_responder(settings: BackendSettings | None = None) -> ConversationResponder:
    """A responder as configured, not yet open.

    Raises:
        ConfigurationError: a setting is missing, or cannot work.
        MissingExtraError: a backend's package is not installed.
    """
    settings = settings or BackendSettings()
    return ConversationResponder(
        build_language_model(settings), build_voice(settings), speaker=settings.tts_voice
    )


def build_language_model(settings: BackendSettings) -> LanguageModel:
    """The language model alone; raises as `build_responder`."""
    if settings.llm == "echo":
        from tinyvoice.realtime.backends.echo import EchoModel

        return EchoModel()
    if settings.llm == "openai":
        from tinyvoice.realtime.backends.openai_chat import OpenAIChatModel

        return OpenAIChatModel(
            settings.llm_url,
            settings.llm_model,
            settings.llm_key,
            temperature=settings.llm_temperature,
            max_tokens=settings.llm_max_tokens,
            timeout_s=settings.llm_timeout_s,
            connect_timeout_s=settings.connect_timeout_s,
        )
    from tinyvoice.realtime.backends.local import DEFAULT_MODEL, MAX_TOKENS, LocalModel

    return LocalModel(
        settings.llm_model or DEFAULT_MODEL,
        device=settings.llm_device,
        temperature=settings.llm_temperature,
        max_tokens=settings.llm_max_tokens or MAX_TOKENS,
    )


def build_voice(settings: BackendSettings) -> Voice | None:
    """The voice alone, None for ``none``; raises as `build_responder`."""
    if settings.tts == "none":
        return None
    if settings.tts == "espeak":
        from tinyvoice.realtime.backends.espeak import EspeakVoice

        return EspeakVoice(settings.espeak_processes)
    if settings.tts == "openai":
        from tinyvoice.realtime.backends.openai_speech import OpenAISpeechVoice

        return OpenAISpeechVoice(
            settings.tts_url,
            settings.tts_model,
            settings.tts_key,
            timeout_s=settings.tts_timeout_s,
            connect_timeout_s=settings.connect_timeout_s,
        )
    from tinyvoice.realtime.backends.piper import PiperVoice

    return PiperVoice(settings.tts_model)
