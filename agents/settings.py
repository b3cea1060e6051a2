"""What all agents can be told: which ear, which voice, which language model, where files go."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipecat.services.llm_service import LLMService

from tinyvoice.integrations import EspeakTTSService, PipecatASRService, ScriptedLLMService
from tinyvoice.integrations.openai_llm import SILENCE_S, OpenAIEndpointService
from tinyvoice.integrations.pipecat import PipecatASRSettings
from tinyvoice.integrations.scripted_llm import Script
from tinyvoice.integrations.spoken_failures import PATIENCE_S

SILENCE_MS = 600
"""Silence that ends a person's turn."""

TOOL_S = 30.0
IDLE_S = 60.0


@dataclass(frozen=True)
class AgentSettings:
    """Settings of an agent; the defaults need no key and no network."""

    model: str = "embedded"
    """The recogniser: ``embedded``, a folder with a checkpoint, or a Hugging Face id."""
    voice: str = "alloy"
    """A voice as `EspeakVoice` names them."""
    speed: float = 1.0
    silence_ms: int = SILENCE_MS
    llm_url: str | None = None
    """An OpenAI-compatible endpoint; without one, agents follow their scripts."""
    llm_model: str = "gpt-4.1-mini"
    llm_key: str | None = field(default=None, repr=False)
    llm_silence_s: float = SILENCE_S
    """Seconds without a byte after which an answer is given up."""
    patience_s: float = PATIENCE_S
    """Seconds without a word after which the person is asked to wait."""
    tool_s: float = TOOL_S
    """Seconds after which a tool is given up."""
    idle_s: float = IDLE_S
    """Seconds of silence after which the person is asked, once, whether they are there."""
    folder: Path = Path("tinyvoice-agents")
    """Where notes and bookings are kept."""
    word_times: bool = True
    """Whether answers enter the conversation word by word as they are heard; off for tests."""

    def hearing(self) -> PipecatASRService:
        """The recogniser, which also finds the turns."""
        return PipecatASRService(
            model=self.model,
            turn_mode="model",
            settings=PipecatASRSettings(silence_ms=self.silence_ms),
        )

    def speech(self) -> EspeakTTSService:
        """The voice."""
        return EspeakTTSService(
            word_timestamps=self.word_times,
            settings=EspeakTTSService.Settings(voice=self.voice, speed=self.speed),
        )

    def language_model(self, script: Script, instructions: str) -> LLMService[Any]:
        """The endpoint where there is one, which gets the instructions, else the script."""
        if self.llm_url is None:
            return ScriptedLLMService(script, function_call_timeout_secs=self.tool_s)
        return OpenAIEndpointService(
            model=self.llm_model,
            instructions=instructions,
            base_url=self.llm_url,
            api_key=self.llm_key,
            silence_s=self.llm_silence_s,
            function_call_timeout_secs=self.tool_s,
        )
