"""The setting ``language``: what the checkpoints do not understand is refused, and told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pipecat.frames.frames import (
    InterimTranscriptionFrame,
    STTUpdateSettingsFrame,
    TranscriptionFrame,
)
from pipecat.transcriptions.language import Language
from pipecat.utils.errors import ErrorCategory

from tests.integrations.conftest import start
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import StreamingEngine
from tinyvoice.errors import ConfigurationError
from tinyvoice.integrations import PipecatASRService, PipecatRemoteASRService

UNDERSTOOD = [None, "en-GB", Language.EN_GB]
REFUSED = [Language.FR, "fr", "english", "nonsense", ""]


@pytest.mark.parametrize("service", [PipecatASRService, PipecatRemoteASRService])
@pytest.mark.parametrize("language", REFUSED)
def test_another_language_is_refused_at_construction(service: Any, language: Any) -> None:
    with pytest.raises(ConfigurationError, match="give en, one of its variants, or None") as error:
        service(settings=service.Settings(language=language))
    assert error.value.key == "language"


@pytest.mark.parametrize("language", UNDERSTOOD)
async def test_english_by_any_name_is_labelled_english(
    engine: StreamingEngine, clips: list[Clip], language: Any
) -> None:
    settings = PipecatASRService.Settings(language=language)
    found = await start(PipecatASRService(engine=engine, settings=settings))
    await found.feed(clips[0].samples)
    await found.silence(0.5)
    [final] = await found.until(TranscriptionFrame)
    sink = await found.end()
    assert final.text == clips[0].text
    assert {f.language for f in sink.of(InterimTranscriptionFrame, TranscriptionFrame)} == {
        Language.EN
    }
    assert not found.errors


async def test_another_language_is_told_while_running_and_nothing_changes(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    service = PipecatASRService(engine=engine)
    found = await start(service)
    for number, language in enumerate(REFUSED, 1):
        delta = PipecatASRService.Settings(language=language, silence_ms=300)
        await found.worker.queue_frame(STTUpdateSettingsFrame(delta=delta))
        await found.until_errors(number)
    await found.feed(clips[0].samples)
    await found.silence(0.5)
    [final] = await found.until(TranscriptionFrame)
    await found.end()
    assert final.text == clips[0].text
    assert final.language == Language.EN
    assert service._settings.language == "en"
    assert service._settings.silence_ms == 1000
    assert {error.category for error in found.errors} == {ErrorCategory.APPLICATION}
    assert all("give en, one of its variants, or None" in error.error for error in found.errors)


async def test_english_by_any_name_is_taken_while_running(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    service = PipecatASRService(engine=engine)
    found = await start(service)
    for language in ["EN-us", *UNDERSTOOD]:
        delta = PipecatASRService.Settings(language=language)
        await found.worker.queue_frame(STTUpdateSettingsFrame(delta=delta))
    delta = PipecatASRService.Settings(partials=False)
    await found.worker.queue_frame(STTUpdateSettingsFrame(delta=delta))
    async with asyncio.timeout(25):
        while service._settings.partials:
            await asyncio.sleep(0.01)
    await found.feed(clips[0].samples)
    await found.silence(0.5)
    [final] = await found.until(TranscriptionFrame)
    await found.end()
    assert final.language == Language.EN
    assert not found.errors
