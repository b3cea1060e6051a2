"""`PipecatRemoteASRService` in real pipelines of Pipecat, against a real server over a real socket.

Between some of the services and the server stands a `Wire`, which can be cut: the network is the
one fault that cannot be had otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import pytest_asyncio
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    MetricsFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    STTMetadataFrame,
    STTMuteFrame,
    STTUpdateSettingsFrame,
    TranscriptionFrame,
    UserMuteStartedFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import STTUsageMetricsData, TTFBMetricsData
from pipecat.transcriptions.language import Language
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies
from pipecat.utils.errors import ErrorCategory

from tests.integrations.conftest import RATE, Running, server_settings, start
from tests.server.conftest import RunningServer, changed, eventually, running
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip
from tinyvoice.errors import ConfigurationError
from tinyvoice.integrations import PipecatRemoteASRService, remote_stream
from tinyvoice.model.modeling import ASRModel

PATIENCE_S = 40.0


class Wire:
    """A way to the server that can be cut and mended; its address stays the same."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._listener: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    async def mend(self) -> None:
        self._listener = await asyncio.start_server(self._carry, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break what is open, refuse what comes."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in list(self._open):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        finally:
            self._open.discard(writer)
            writer.close()


@pytest_asyncio.fixture
async def wire(server: RunningServer) -> AsyncIterator[Wire]:
    found = Wire(server.url)
    await found.mend()
    yield found
    await found.cut()


async def eventually_here(holds: Callable[[], object]) -> None:
    """Wait until something holds in this process."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


def remote(url: str, *, drain_s: float = 20.0, **options: Any) -> PipecatRemoteASRService:
    """A service that waits for its last text as long as a busy machine takes."""
    return PipecatRemoteASRService(url=url, drain_s=drain_s, **options)


def texts(found: Running) -> list[str]:
    return [frame.text for frame in found.sink.of(TranscriptionFrame)]


async def test_interims_while_speaking_and_a_finalized_text(
    server: RunningServer, clips: list[Clip]
) -> None:
    found = await start(remote(server.url))
    await found.feed(clips[0].samples, pace_s=0.02)
    await found.silence(0.5, pace_s=0.02)
    [final] = await found.until(TranscriptionFrame)
    await found.end()

    frames = found.sink.frames
    interims = found.sink.of(InterimTranscriptionFrame)
    stop = found.sink.of(VADUserStoppedSpeakingFrame)[0]
    assert interims
    assert frames.index(interims[0]) < frames.index(stop)
    assert all(frame.text.strip() and frame.text == frame.text.strip() for frame in interims)
    assert all(frame.text.startswith(frame.result.stable) for frame in interims)
    assert final.text == clips[0].text
    assert final.finalized
    assert final.language == Language.EN
    assert [word.text for word in final.result.words] == final.text.split()
    assert 0.0 <= final.result.start < final.result.end <= clips[0].duration + 0.1
    assert 0.5 < final.result.confidence <= 1.0
    assert final.result.audio_secs > clips[0].duration / 2
    data = [item for frame in found.sink.of(MetricsFrame) for item in frame.data]
    [ttfb] = [item.value for item in data if isinstance(item, TTFBMetricsData) and item.value]
    assert ttfb > 0.0
    assert sum(item.value.audio_seconds for item in data if isinstance(item, STTUsageMetricsData))
    assert not found.errors


async def test_each_pause_ends_a_segment_and_segments_do_not_overlap(
    server: RunningServer, clips: list[Clip]
) -> None:
    found = await start(remote(server.url))
    for number, clip in enumerate(clips[:3], 1):
        await found.feed(clip.samples)
        await found.silence(0.8)
        await found.until(TranscriptionFrame, count=number)
    sink = await found.end()
    assert texts(found) == [clip.text for clip in clips[:3]]
    assert all(frame.finalized for frame in sink.of(TranscriptionFrame))
    bounds = [(frame.result.start, frame.result.end) for frame in sink.of(TranscriptionFrame)]
    assert bounds == sorted(bounds)
    await eventually(server, lambda: len(server.app.state.sessions) == 0)


async def test_turns_of_the_server_are_proposed(server: RunningServer, clips: list[Clip]) -> None:
    service = remote(server.url, turn_mode="model")
    found = await start(service, vad=False)
    for number, clip in enumerate(clips[:2], 1):
        await found.feed(clip.samples)
        await found.silence(1.0)
        await found.until(ProposedUserStoppedSpeakingFrame, count=number)
    sink = await found.end()
    [metadata] = sink.of(STTMetadataFrame)
    assert metadata.ttfs_p99_latency == 0.0
    assert isinstance(metadata.user_turn_strategies, ExternalUserTurnStrategies)
    turns = (
        ProposedUserStartedSpeakingFrame,
        TranscriptionFrame,
        ProposedUserStoppedSpeakingFrame,
    )
    assert [type(frame) for frame in sink.of(*turns)] == list(turns) * 2
    assert all(frame.finalized for frame in sink.of(TranscriptionFrame))
    assert texts(found) == [clip.text for clip in clips[:2]]


@pytest.mark.parametrize("rate", [8_000, 48_000])
async def test_other_sample_rates(
    server: RunningServer, clips: list[Clip], rate: int, model: ASRModel
) -> None:
    found = await start(remote(server.url), rate=rate, vad=False)
    sound = resample(clips[0].samples, RATE, rate)
    await found.feed(sound)
    await found.silence(1.5)
    [final] = await found.until(TranscriptionFrame)
    await found.end()
    assert final.text == model.transcribe(sound, sample_rate=rate).text


async def test_a_muted_service_hears_nothing_and_forgets_what_was_half_said(
    server: RunningServer, clips: list[Clip]
) -> None:
    found = await start(remote(server.url), vad=False)
    await found.feed(clips[0].samples[:RATE])
    await found.until(InterimTranscriptionFrame)
    await found.worker.queue_frame(STTMuteFrame(mute=True))
    await found.feed(clips[1].samples)
    await found.worker.queue_frame(STTMuteFrame(mute=False))
    await found.silence(1.0)
    await found.feed(clips[2].samples[: RATE // 2])
    await found.worker.queue_frame(UserMuteStartedFrame())
    await found.silence(1.0)
    await found.feed(clips[2].samples)
    await found.end()
    assert texts(found) == [clips[2].text]
    assert not found.errors


async def test_an_interruption_takes_no_words(server: RunningServer, clips: list[Clip]) -> None:
    found = await start(remote(server.url))
    half = len(clips[0].samples) // 2
    await found.feed(clips[0].samples[:half])
    await found.worker.queue_frame(InterruptionFrame())
    await found.feed(clips[0].samples[half:])
    await found.silence(0.8)
    [final] = await found.until(TranscriptionFrame)
    await found.end()
    assert final.text == clips[0].text
    assert final.finalized


async def test_settings_change_in_place_and_bad_ones_change_nothing(
    server: RunningServer, clips: list[Clip]
) -> None:
    service = remote(server.url)
    found = await start(service, vad=False)
    bad = PipecatRemoteASRService.Settings(silence_ms=5)
    await found.worker.queue_frame(STTUpdateSettingsFrame(delta=bad))
    await found.feed(clips[0].samples)
    await found.silence(1.3)
    await found.until(TranscriptionFrame)
    [error] = found.errors
    assert error.category is ErrorCategory.APPLICATION
    assert service.is_usable
    assert "silence_ms" in error.error
    good = PipecatRemoteASRService.Settings(silence_ms=300, partials=False)
    await found.worker.queue_frame(STTUpdateSettingsFrame(delta=good))
    # Audio overtakes the frame, which is no system frame.
    await eventually_here(lambda: service._settings.silence_ms == 300)
    before = len(found.sink.of(InterimTranscriptionFrame))
    await found.feed(clips[1].samples)
    await found.silence(0.6)  # less than it was, more than it is
    await found.until(TranscriptionFrame, count=2)
    await found.end()
    assert texts(found) == [clips[0].text, clips[1].text]
    assert len(found.sink.of(InterimTranscriptionFrame)) == before


async def test_an_unsure_text_is_dropped(server: RunningServer, clips: list[Clip]) -> None:
    unsure = PipecatRemoteASRService.Settings(min_confidence=1.0)
    found = await start(remote(server.url, settings=unsure), vad=False)
    await found.feed(clips[0].samples[:RATE])
    await found.until(InterimTranscriptionFrame)
    await found.feed(clips[0].samples[RATE:])
    await found.end()
    assert texts(found) == []


async def test_a_cut_line_costs_time_and_no_words(wire: Wire, clips: list[Clip]) -> None:
    service = remote(wire.url)
    found = await start(service)
    await found.feed(clips[0].samples)
    await found.silence(0.8)
    await found.until(TranscriptionFrame)
    before = len(found.sink.of(InterimTranscriptionFrame))
    await found.feed(clips[1].samples[: RATE * 3 // 2])
    await found.until(InterimTranscriptionFrame, count=before + 1)
    await wire.cut()
    await eventually_here(lambda: found.errors)
    # The rest is said, and the pipeline's own detection ends it, while nobody listens.
    await found.feed(clips[1].samples[RATE * 3 // 2 :])
    await found.silence(0.8)
    assert texts(found) == [clips[0].text]
    await wire.mend()
    await found.until(TranscriptionFrame, count=2)
    await found.feed(clips[2].samples)
    await found.silence(0.8)
    await found.until(TranscriptionFrame, count=3)
    sink = await found.end()
    assert texts(found) == [clip.text for clip in clips[:3]]
    assert all(frame.finalized for frame in sink.of(TranscriptionFrame))
    assert {error.category for error in found.errors} == {ErrorCategory.CONNECTIVITY}
    assert service.is_usable
    starts = [frame.result.start for frame in sink.of(TranscriptionFrame)]
    assert starts == sorted(starts)


async def test_what_was_understood_is_pushed_when_no_server_comes_back(
    wire: Wire, clips: list[Clip]
) -> None:
    found = await start(remote(wire.url, drain_s=0.2), vad=False)
    await found.feed(clips[0].samples, pace_s=0.01)
    await found.until(InterimTranscriptionFrame)
    await wire.cut()
    await eventually_here(lambda: found.errors)
    sink = await found.end()
    assert texts(found) == [sink.of(InterimTranscriptionFrame)[-1].text]
    assert not sink.of(TranscriptionFrame)[0].finalized
    assert "last text" in found.errors[-1].error


async def test_a_turn_does_not_wait_for_a_server_that_is_away(
    wire: Wire, clips: list[Clip]
) -> None:
    found = await start(remote(wire.url, turn_mode="model"), vad=False)
    await found.feed(clips[0].samples[:RATE])
    await found.until(ProposedUserStartedSpeakingFrame)
    await wire.cut()
    await found.until(ProposedUserStoppedSpeakingFrame)
    await wire.mend()
    await found.feed(clips[0].samples[RATE:])
    await found.silence(1.0)
    await found.until(ProposedUserStoppedSpeakingFrame, count=2)
    sink = await found.end()
    assert texts(found) == [clips[0].text]
    assert len(sink.of(ProposedUserStartedSpeakingFrame)) == 2


async def test_a_server_that_is_started_again_goes_on(model: ASRModel, clips: list[Clip]) -> None:
    with running(server_settings(drain_seconds=0.1), model) as first:
        port = urlsplit(first.url).port
        found = await start(remote(first.url), vad=False)
        await found.feed(clips[0].samples[:RATE])
        await found.until(InterimTranscriptionFrame)
    await eventually_here(lambda: found.errors)
    await found.feed(clips[0].samples[RATE:])
    with running(server_settings(port=port), model):
        await found.silence(1.5)
        await found.until(TranscriptionFrame)
        await found.end()
    # The first server may have finished its part before it went.
    assert " ".join(texts(found)) == clips[0].text
    assert {error.category for error in found.errors} == {ErrorCategory.CONNECTIVITY}


async def test_a_wrong_key_is_told_and_not_tried_again(model: ASRModel, clips: list[Clip]) -> None:
    with running(server_settings(api_key=("right",)), model) as server:
        service = remote(server.url, api_key="wrong")
        found = await start(service, vad=False)
        await eventually_here(lambda: found.errors)
        [error] = found.errors
        assert error.category is ErrorCategory.AUTHENTICATION
        assert "does not accept this key" in error.error
        assert "wrong" not in error.error
        assert not service.is_usable
        await found.end()
        found = await start(remote(server.url, api_key="right"), vad=False)
        await found.feed(clips[0].samples)
        await found.end()
        assert texts(found) == [clips[0].text]
        assert not found.errors


async def test_a_full_server_is_asked_again(server: RunningServer, clips: list[Clip]) -> None:
    registry = server.app.state.sessions
    before, registry.max_sessions = registry.max_sessions, 0
    try:
        service = remote(server.url)
        found = await start(service, vad=False)
        await eventually_here(lambda: found.errors)
        await found.feed(clips[0].samples)
    finally:
        registry.max_sessions = before
    await found.silence(1.5)
    await found.until(TranscriptionFrame)
    await found.end()
    assert texts(found) == [clips[0].text]
    assert [error.category for error in found.errors] == [ErrorCategory.RATE_LIMIT]
    assert "no place" in found.errors[0].error
    assert service.is_usable


async def test_no_server_is_told_once_and_holds_nothing_up(clips: list[Clip]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        service = remote(url, drain_s=0.2, keep_s=1.0)
        found = await start(service)
        await found.feed(clips[0].samples)
        await found.silence(0.8)
        await found.until(VADUserStoppedSpeakingFrame)
        await eventually_here(lambda: found.errors)
        assert [error.category for error in found.errors] == [ErrorCategory.CONNECTIVITY]
        assert "is `tinyvoice serve` running?" in found.errors[0].error
        await found.end()
    assert texts(found) == []


async def test_what_is_too_old_when_the_server_comes_is_told(wire: Wire, clips: list[Clip]) -> None:
    await wire.cut()
    found = await start(remote(wire.url, keep_s=4.0), vad=False)
    await found.silence(5.0)
    await found.feed(clips[0].samples)
    await wire.mend()
    await found.silence(0.5)
    await eventually_here(lambda: any("were lost" in error.error for error in found.errors))
    await found.end()
    assert texts(found) == [clips[0].text]


async def test_another_server_is_no_tinyvoice(server: RunningServer) -> None:
    service = remote(f"{server.url}/v2/realtime")
    found = await start(service, vad=False)
    await eventually_here(lambda: found.errors)
    await found.end()
    [error] = found.errors
    assert error.category is ErrorCategory.INVALID_REQUEST
    assert "is no `tinyvoice serve`" in error.error


@pytest.mark.parametrize("steady", [False, True])
async def test_a_session_that_gets_too_old_is_followed_by_another(
    server: RunningServer, clips: list[Clip], monkeypatch: pytest.MonkeyPatch, steady: bool
) -> None:
    # What held for long enough is followed without a word; a second is long enough here.
    monkeypatch.setattr(remote_stream, "STEADY_S", 0.5 if steady else 3_600.0)
    connected: list[object] = []
    service = remote(server.url)

    @service.event_handler("on_connected")
    async def _on_connected(_service: object) -> None:
        connected.append(_service)

    with changed(server, session_seconds=1.0):
        found = await start(service, vad=False)
        await found.feed(clips[0].samples[: RATE * 3 // 2])
        await eventually_here(lambda: len(connected) >= 2)
    await found.feed(clips[0].samples[RATE * 3 // 2 :])
    await found.silence(1.5)
    await found.until(TranscriptionFrame)
    await found.end()
    assert texts(found) == [clips[0].text]
    if not steady:
        assert {error.category for error in found.errors} == {ErrorCategory.CONNECTIVITY}
    else:
        assert not found.errors


async def test_eight_pipelines_share_a_server_and_hear_what_one_hears(
    server: RunningServer, clips: list[Clip]
) -> None:
    async def hear(clip: Clip) -> list[str]:
        found = await start(remote(server.url))
        await found.silence(0.3)
        await found.feed(clip.samples)
        await found.silence(0.8)
        await found.end()
        assert not found.errors
        return texts(found)

    chosen = [clips[number % 2] for number in range(8)]
    alone = {clip.name: await hear(clip) for clip in {c.name: c for c in chosen}.values()}
    together = await asyncio.gather(*map(hear, chosen))
    assert together == [alone[clip.name] for clip in chosen]
    assert all(len(heard) == 1 for heard in together)


async def test_stereo_sound_is_mixed(server: RunningServer, clips: list[Clip]) -> None:
    found = await start(remote(server.url), vad=False)
    pcm = np.repeat(clips[0].pcm16(), 2)
    for begin in range(0, len(pcm), 640):
        frame = InputAudioRawFrame(pcm[begin : begin + 640].tobytes(), RATE, 2)
        await found.worker.queue_frame(frame)
    await found.end()
    assert texts(found) == [clips[0].text]


def test_bad_settings_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match="silence_ms is 1; give a number from 32"):
        PipecatRemoteASRService(settings=PipecatRemoteASRService.Settings(silence_ms=1))
    with pytest.raises(ConfigurationError, match="choose from pipecat, model"):
        PipecatRemoteASRService(turn_mode="both")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is no address of a server"):
        remote("localhost:8000")
    with pytest.raises(ConfigurationError, match="leave out enable_eager_end_of_turn"):
        PipecatRemoteASRService(enable_eager_end_of_turn=True)
