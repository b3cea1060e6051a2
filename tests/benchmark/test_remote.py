"""A server measured as the engine is: real servers, and the sentences where there is none."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import websockets

from tests.server.conftest import RunningServer, running
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.appends import (
    PCM_RATE,
    append_event,
    append_events,
    heard_by_server,
    pcm_packets,
)
from tinyvoice.benchmark.figures import (
    figures_of,
    seen_from_outside,
    streamed_word_error_rate,
    text_figures,
)
from tinyvoice.benchmark.harness import RunSettings, plan_run
from tinyvoice.benchmark.observation import Received
from tinyvoice.benchmark.remote import (
    RemoteEngine,
    ServerLostError,
    remote_run,
)
from tinyvoice.benchmark.remote_turns import END_MARK, RemoteError, Turns
from tinyvoice.benchmark.served import served
from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.benchmark.timeline import render
from tinyvoice.benchmark.usage import Usage, parse_usage
from tinyvoice.engine.engine import StreamingEngine
from tinyvoice.engine.errors import EngineOverloadedError
from tinyvoice.engine.events import (
    Event,
    Failed,
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    UtteranceFailed,
)
from tinyvoice.errors import ConfigurationError
from tinyvoice.metrics import PairedDifference
from tinyvoice.model.modeling import ASRModel
from tinyvoice.realtime.address import realtime_url
from tinyvoice.server.settings import ServerSettings

STREAM: dict[str, Any] = {"silence_ms": 200}
NEVER_OVERLOADED = {"port": 0, "tts": "none", "refuse_partial_gap_s": 3_600}
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def model() -> ASRModel:
    return ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return bundled_speech()[:4]


@pytest.fixture(scope="module")
def server(model: ASRModel) -> Iterator[RunningServer]:
    """A server with two places and a key."""
    settings = ServerSettings(**NEVER_OVERLOADED, max_sessions=2, api_key="right")  # type: ignore[arg-type]
    with running(settings, model) as found:
        yield found


def remote(server: RunningServer, key: str | None = "right") -> RemoteEngine:
    return RemoteEngine(f"{server.websocket_url}/v1/realtime", key)


# What is sent ----------------------------------------------------------------------------------


def test_packets_become_events_of_the_same_sound_at_24_khz(clips: list[Clip]) -> None:
    plan = plan_run(clips, RunSettings(streams=2, seconds=5.0), append_events)
    for stream, (events, packets) in enumerate(
        zip(append_events(plan), pcm_packets(plan), strict=True)
    ):
        pcm = list(packets)
        assert list(events) == [append_event(packet) for packet in pcm]
        assert len(pcm) == plan.packets(stream)
        assert {len(packet) for packet in pcm[:-1]} == {2 * 480}
        timeline = plan.timelines[stream]
        heard = render(timeline, plan.sounds, 0, timeline.samples).astype(np.float32)
        expected = resample(heard, 16_000, 24_000)
        sent = np.frombuffer(b"".join(pcm), dtype="<i2")
        assert len(sent) == len(expected)
        # A clip is resampled by itself: where it begins and ends, the filter rings a little.
        assert np.abs(sent - expected).max() < 100
    event = json.loads(append_event(b"\1\2"))
    assert event == {"type": "input_audio_buffer.append", "audio": "AQI="}


def test_the_generator_s_process_loads_no_torch() -> None:
    code = "import sys, tinyvoice.benchmark.appends; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# What is read ----------------------------------------------------------------------------------

TRANSCRIPTION = "conversation.item.input_audio_transcription"


def read(turns: Turns, *events: dict[str, Any]) -> list[tuple[Event, float]]:
    """The engine's events, each with its wall time: the place of the server's event."""
    found = []
    for wall, event in enumerate(events):
        found += [(one.event, one.wall) for one in turns.read(event, wall)]
    return found


def test_a_turn_s_events_become_an_utterance_s() -> None:
    turns = Turns(silence_ms=200)
    word = {"word": "lights", "start_ms": 1_300, "end_ms": 1_700, "confidence": 0.9}
    found = read(
        turns,
        {"type": "session.updated", "session": {}},
        {"type": "input_audio_buffer.speech_started", "item_id": "a", "audio_start_ms": 900},
        {"type": f"{TRANSCRIPTION}.delta", "item_id": "a", "delta": "lights"},
        {"type": "tinyvoice.transcription.partial", "item_id": "a", "stable": "lights",
         "tail": " on", "at_ms": 1_792},
        {"type": "input_audio_buffer.speech_stopped", "item_id": "a", "audio_end_ms": 2_240},
        {"type": "input_audio_buffer.committed", "item_id": "a"},
        {"type": f"{TRANSCRIPTION}.completed", "item_id": "a", "transcript": "lights on"},
        {"type": "tinyvoice.transcription.words", "item_id": "a", "words": [word]},
    )  # fmt: skip
    started, partial, ended, final = (event for event, _ in found)
    assert [wall for _, wall in found] == [1, 3, 4, 6]
    assert isinstance(started, SpeechStarted)
    assert started.time == pytest.approx(1.2)
    assert partial == Partial(0, "lights", " on", 1.792)
    assert isinstance(ended, SpeechEnded)
    assert (ended.time, ended.at) == (pytest.approx(2.016), 2.24)
    assert isinstance(final, Final)
    assert (final.text, final.start, final.end) == (
        "lights on",
        pytest.approx(1.2),
        pytest.approx(2.016),
    )
    assert [(w.text, w.start, w.end) for w in final.words] == [("lights", 1.3, 1.7)]
    # What a server does not tell is not made up.
    assert math.isnan(final.confidence)
    assert math.isnan(final.audio_end)


def test_the_usage_of_a_turn_says_which_audio_its_text_stands_for() -> None:
    found = read(
        Turns(silence_ms=200),
        {"type": "input_audio_buffer.speech_started", "item_id": "a", "audio_start_ms": 900},
        {"type": "input_audio_buffer.speech_stopped", "item_id": "a", "audio_end_ms": 2_240},
        {"type": f"{TRANSCRIPTION}.completed", "item_id": "a", "transcript": "lights on",
         "usage": {"type": "duration", "seconds": 1.212}},
        {"type": "tinyvoice.transcription.words", "item_id": "a", "words": []},
    )  # fmt: skip
    final = found[-1][0]
    assert isinstance(final, Final)
    assert (final.audio_start, final.audio_end) == (pytest.approx(0.9), pytest.approx(2.112))


def test_turns_are_numbered_and_may_fail() -> None:
    turns = Turns(silence_ms=200)
    failed = {"type": f"{TRANSCRIPTION}.failed", "item_id": "b", "error": {"message": "no words"}}
    found = read(
        turns,
        {"type": "input_audio_buffer.speech_started", "item_id": "a", "audio_start_ms": 0},
        {"type": "input_audio_buffer.speech_started", "item_id": "b", "audio_start_ms": 3_000},
        failed,
    )
    assert isinstance(found[1][0], SpeechStarted)
    assert found[1][0].utterance == 1
    last = found[2][0]
    assert isinstance(last, UtteranceFailed)
    assert (last.utterance, str(last.error)) == (1, "A turn was not transcribed: no words")


def test_the_end_is_reached_when_the_mark_is_answered_and_every_transcript_is_there() -> None:
    turns = Turns(silence_ms=200)
    read(turns, {"type": "input_audio_buffer.speech_started", "item_id": "a", "audio_start_ms": 0})
    read(turns, {"type": "input_audio_buffer.committed", "item_id": "a"})
    reached = [turns.settled]
    for event in (
        {"type": "input_audio_buffer.cleared"},
        {"type": f"{TRANSCRIPTION}.completed", "item_id": "a", "transcript": "yes"},
    ):
        read(turns, event)
        reached.append(turns.settled)
    assert reached == [False, False, True]
    [rest] = turns.rest()  # its words did not come
    assert isinstance(rest.event, Final)
    assert (rest.event.text, rest.event.words) == ("yes", ())


def test_silence_that_the_mark_commits_is_no_utterance() -> None:
    turns = Turns(silence_ms=200)
    found = read(
        turns,
        {"type": "input_audio_buffer.committed", "item_id": "a"},
        {"type": f"{TRANSCRIPTION}.completed", "item_id": "a", "transcript": ""},
        {"type": "tinyvoice.transcription.words", "item_id": "a", "words": []},
        {"type": "error", "error": {"message": "too short", "event_id": END_MARK}},
        {"type": "input_audio_buffer.cleared"},
    )
    assert found == []
    assert turns.settled
    [(other, _)] = read(turns, {"type": "error", "error": {"message": "odd", "event_id": None}})
    assert isinstance(other, Failed)
    assert str(other.error) == "The server reported an error: odd"


def test_what_a_process_says_of_itself() -> None:
    page = (
        "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 12.5\n"
        'tinyvoice_sessions{kind="transcription"} 3.0\n'
        "process_resident_memory_bytes 4.5e+08\n"
    )
    later = parse_usage(page)
    assert later == Usage(12.5, 450_000_000)
    assert later.since(Usage(2.5, 1)) == Usage(10.0, 450_000_000)
    assert parse_usage("up 1\n").since(later) == Usage(None, None)


# Real servers ----------------------------------------------------------------------------------


async def played(stream: Any, packets: list[bytes]) -> list[Event]:
    """All events of what is fed as fast as it is taken."""
    events: list[Event] = []

    async def listen() -> None:
        async for item in stream:
            events.append(item.event if isinstance(item, Received) else item)

    async with asyncio.timeout(PATIENCE_S):
        reader = asyncio.create_task(listen())
        for packet in packets:
            await stream.feed(packet)
        await stream.close()
        await reader
    return events


async def test_a_session_says_what_the_engine_says(
    server: RunningServer, model: ASRModel, clips: list[Clip]
) -> None:
    plan = plan_run(clips[:2], RunSettings(seconds=9.0))
    pcm = [*pcm_packets(plan)[0]]
    async with StreamingEngine(model) as engine, engine.stream(PCM_RATE, **STREAM) as stream:
        ours = await played(stream, pcm)
    async with remote(server) as engine_of_server:
        async with engine_of_server.stream(16_000, **STREAM) as session:
            theirs = await played(session, [append_event(packet) for packet in pcm])
        assert engine_of_server.lost == []

    def outline(events: list[Event]) -> list[Any]:
        ends = [(e.time, e.at) for e in events if isinstance(e, SpeechEnded)]
        finals = [
            (e.utterance, e.text, e.start, e.end, [(w.text, w.start, w.end) for w in e.words])
            for e in events
            if isinstance(e, Final)
        ]
        return [ends, finals]

    (our_ends, our_finals), (ends, finals) = outline(ours), outline(theirs)
    assert len(finals) == 2
    assert ends == [pytest.approx(end) for end in our_ends]
    for one, other in zip(our_finals, finals, strict=True):
        assert other[:2] == one[:2]
        assert other[2:4] == pytest.approx(one[2:4])
        assert [w[0] for w in other[4]] == [w[0] for w in one[4]]
        assert [w[1:] for w in other[4]] == [pytest.approx(w[1:], abs=6e-4) for w in one[4]]
    assert any(isinstance(e, Partial) and e.stable for e in theirs)


async def test_what_is_being_said_at_the_end_is_waited_for(
    server: RunningServer, clips: list[Clip]
) -> None:
    plan = plan_run(clips[:1], RunSettings(seconds=3.0))
    packets = list(append_events(plan)[0])
    async with remote(server) as engine, engine.stream(16_000, **STREAM) as session:
        events = await played(session, packets[:80])  # 1.6 s: in the middle of it
    assert [type(e) for e in events if not isinstance(e, Partial)] == [
        SpeechStarted,
        SpeechEnded,
        Final,
    ]


async def test_a_run_through_a_server_sees_every_utterance(
    server: RunningServer, model: ASRModel, clips: list[Clip]
) -> None:
    settings = RunSettings(streams=2, seconds=5.0, stream=STREAM)
    async with remote(server) as engine:
        run, usage = await remote_run(engine, clips, settings, asyncio.Event())
    placed = [len(timeline.placed) for timeline in run.plan.timelines]
    assert (run.lost, run.refused, run.failures) == (0, 0, [])
    assert [len({item.clip for item in heard}) for heard in run.heard] == placed
    assert run.audio_s == pytest.approx(10.0, abs=1.0)
    assert run.lateness is not None
    for item in [item for heard in run.heard for item in heard]:
        assert item.record.decided is not None
        assert item.record.received >= item.record.decided
        assert item.record.updates
        assert all(update.fed >= update.covered for update in item.record.updates)
    figures = seen_from_outside(figures_of(run, 0.2), run, usage)
    stood = [
        all(item.final.text.startswith(update.stable) for update in item.record.updates)
        for heard in run.heard
        for item in heard
    ]
    assert figures.stable_prefix_rate == sum(stood) / len(stood)
    assert figures.harness == run.cpu_s / run.audio_s
    if sys.platform == "linux":
        assert figures.compute is not None
        assert figures.compute > 0
        assert figures.memory is not None
    error_rate = streamed_word_error_rate(run, clips)
    assert error_rate is not None
    assert error_rate < 0.5

    def offline(sounds: Sequence[np.ndarray]) -> list[str]:
        found = model.transcribe(list(sounds), sample_rate=16_000)
        return [transcript.text for transcript in found]

    # Of the audio as the server heard it, which is not quite what was played.
    text = text_figures(run, clips, offline, heard_by_server(run.plan))
    assert text.same_as_offline == 1.0
    assert text.wer_streamed == text.wer_stretches == error_rate
    assert text.delta_wer_stretches == PairedDifference(0.0, 0.0, 0.0)


async def test_sessions_beyond_the_server_s_places_are_counted(
    server: RunningServer, clips: list[Clip]
) -> None:
    async with remote(server) as engine:
        settings = RunSettings(streams=3, seconds=1.0, stream=STREAM)
        run, _ = await remote_run(engine, clips[:1], settings, asyncio.Event())
        assert run.refused == 1
        assert figures_of(run, 0.2).reason == "1 streams refused"
        async with engine.stream(16_000), engine.stream(16_000):
            with pytest.raises(EngineOverloadedError, match="sessions are taken"):
                await engine.stream(16_000).__aenter__()


async def test_a_server_that_goes_away_is_told_in_a_sentence(
    model: ASRModel, clips: list[Clip]
) -> None:
    with running(ServerSettings(**NEVER_OVERLOADED, drain_seconds=0), model) as server:  # type: ignore[arg-type]
        stopped: list[float] = []

        def stop(share: float) -> None:
            if share > 0.02 and not stopped:
                stopped.append(share)
                server.loop.call_soon_threadsafe(server.listener.stop)

        settings = RunSettings(streams=2, seconds=60.0, stream=STREAM)
        began = time.monotonic()
        with pytest.raises(ServerLostError) as caught:
            async with remote(server) as engine:
                await remote_run(engine, clips, settings, asyncio.Event(), stop)
        assert time.monotonic() - began < 55.0  # not played to its end
    assert str(caught.value).startswith(f"The server at {engine.shown} went away while it was")
    assert "close code 1001" in str(caught.value)
    assert str(caught.value).count("\n") == 0


async def test_a_server_that_goes_away_while_a_session_opens() -> None:
    """A fake: of a real server, the moment cannot be had."""

    async def leave(connection: websockets.ServerConnection) -> None:
        await connection.send('{"type": "session.created", "session": {}}')
        await connection.close(1001, "server shutting down")

    async with websockets.serve(leave, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(ServerLostError, match=r"went away while .* code 1001 'server"):
            await RemoteEngine(f"ws://127.0.0.1:{port}").__aenter__()


async def test_a_wrong_key_and_no_key(server: RunningServer) -> None:
    for key, words in (("wrong", "does not accept this key"), (None, "wants a key")):
        with pytest.raises(RemoteError, match=f"{words}: give the right --api-key") as caught:
            async with remote(server, key):
                raise AssertionError
        assert "wrong" not in str(caught.value)


async def test_an_address_of_something_else(server: RunningServer) -> None:
    with pytest.raises(RemoteError, match="answers with HTTP 404"):
        async with RemoteEngine(f"{server.websocket_url}/elsewhere", "right"):
            raise AssertionError
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        port = taken.getsockname()[1]
        with pytest.raises(RemoteError, match=r"cannot be reached \(Connection refused\)"):
            async with RemoteEngine(f"ws://127.0.0.1:{port}/v1/realtime"):
                raise AssertionError


@asynccontextmanager
async def talking(*answers: dict[str, Any]) -> AsyncIterator[str]:
    """A WebSocket server that is none of ours: it says this and then what it hears."""

    async def speak(connection: websockets.ServerConnection) -> None:
        for answer in answers:
            await connection.send(json.dumps(answer))
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(speak, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}"


async def test_servers_of_another_kind(clips: list[Clip]) -> None:
    created = {"type": "session.created", "session": {}}
    plain = {"type": "session.updated", "session": {"include": None}}
    async with talking({"type": "hello"}) as url:
        with pytest.raises(RemoteError, match="does not speak the Realtime protocol"):
            await RemoteEngine(url).__aenter__()
    async with talking(created, plain) as url:
        with pytest.raises(RemoteError, match=r"does not tell tinyvoice\.partials"):
            await RemoteEngine(url).__aenter__()
    able = {"type": "session.updated", "session": {"include": ["tinyvoice.partials"]}}
    odd = {"type": "input_audio_buffer.speech_started"}
    async with talking(created, able, odd) as url, RemoteEngine(url) as engine:
        async with engine.stream(16_000, **STREAM) as stream:
            first = await anext(aiter(stream))
        assert await engine.usage() == Usage(None, None)
    assert isinstance(first.event, Failed)
    assert "cannot be read (KeyError('audio_start_ms'))" in str(first.event.error)


async def test_settings_that_sessions_do_not_have(server: RunningServer) -> None:
    with pytest.raises(ConfigurationError, match="have no setting partial_interval_ms"):
        await remote(server).stream(16_000, partial_interval_ms=500).__aenter__()


def test_addresses() -> None:
    assert realtime_url("ws://a:8000/v1/realtime") == "ws://a:8000/v1/realtime"
    assert realtime_url("http://a:8000") == "ws://a:8000/v1/realtime"
    assert realtime_url("https://a/x/v1/realtime?model=m") == "wss://a/x/v1/realtime?model=m"
    for wrong in ("", "a:8000", "ftp://a", "ws://", "ws://a:x", "ws://a:99999"):
        with pytest.raises(ConfigurationError, match="is no address of a server"):
            realtime_url(wrong)
    shown = RemoteEngine("wss://me:secret@a/v1/realtime?api-key=secret").shown
    assert shown == "wss://a/v1/realtime"


# A server of the benchmark's own ---------------------------------------------------------------


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(RemoteError, match=r"did not start: .*none-such"):  # noqa: SIM117
        with served(["--model", "none-such-folder"]):
            raise AssertionError


@pytest.mark.skipif(os.name == "nt", reason="processes are ended otherwise there")
def test_the_server_ends_with_whoever_measures() -> None:
    code = (
        "import sys, time\n"
        "from tinyvoice.benchmark.served import served\n"
        "with served(['--tts', 'none']) as address:\n"
        "    print(address, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as measuring:
        assert measuring.stdout is not None
        address = measuring.stdout.readline().decode().strip()
        assert address.startswith("ws://127.0.0.1:")
        measuring.send_signal(signal.SIGKILL)
    port = int(address.rpartition(":")[2].partition("/")[0])
    deadline = time.monotonic() + PATIENCE_S
    while _listens(port):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
