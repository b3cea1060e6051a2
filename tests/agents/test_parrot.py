"""A recorded conversation with the parrot."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from agents import parrot
from agents.settings import AgentSettings
from tests.agents.talk import Talk, talking
from tinyvoice.benchmark.speech import bundled_speech
from tinyvoice.model.modeling import ASRModel
from tinyvoice.voices.espeak_process import EspeakProcess

CLIPS = {clip.text: clip.samples for clip in bundled_speech()}


async def test_it_says_again_what_it_hears(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    async with talking(lambda t: parrot.build_pipeline(t, settings), model, mouth) as talk:
        for text in ("what is twenty nine times seven", "will it be windy in the morning"):
            await talk.play(CLIPS[text])
            assert await talk.hears(text) == text
        assert await talk.answer("tell me a joke", "joke") == "tell me a joke"


async def interrupt(talk: Talk) -> None:
    """Speak while the agent's voice is held in the middle of its answer."""
    talk.output.playing.clear()
    talk.output.played.clear()
    await talk.say("book a flight from paris to denver on saturday")
    async with asyncio.timeout(20):
        await talk.output.played.wait()
    await talk.say("tell me a story")
    await talk.until(lambda: talk.output.interruptions > 0)


async def test_who_interrupts_it_is_listened_to(
    model: ASRModel, mouth: EspeakProcess, settings: AgentSettings
) -> None:
    settings = replace(settings, word_times=True)  # what was heard of the answer counts as said
    async with talking(lambda t: parrot.build_pipeline(t, settings), model, mouth) as talk:
        await interrupt(talk)
        talk.output.sound.clear()
        talk.output.playing.set()
        assert await talk.hears("tell me a story") == "tell me a story"
