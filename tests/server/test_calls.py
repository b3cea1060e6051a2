"""Calls over WebRTC against a running server, by a caller that speaks and listens."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import soundfile
import websockets
from openai.types.realtime import RealtimeServerEvent
from pydantic import SecretStr, TypeAdapter

from tests.server.conftest import RunningServer, changed, eventually, running
from tests.webrtc.caller import Caller, Network
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip
from tinyvoice.model.modeling import ASRModel
from tinyvoice.server.calls import fitting
from tinyvoice.server.settings import ServerSettings

SDP = {"Content-Type": "application/sdp"}
TRANSCRIBED = {"type": "realtime", "audio": {"input": {"transcription": {"model": "m"}}}}
COMPLETED = "conversation.item.input_audio_transcription.completed"
EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@asynccontextmanager
async def client(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as http:
        yield http


@asynccontextmanager
async def calling(
    server: RunningServer,
    session: dict[str, Any] | None = None,
    key: str | None = None,
    network: Network | None = None,
    beta: bool = False,
) -> AsyncIterator[tuple[Caller, str]]:
    """A call that stands and has seen ``session.created``; with its id."""
    caller = Caller(network)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= {"OpenAI-Beta": "realtime=v1"} if beta else {}
    try:
        offer = await caller.offer()
        async with client(server) as http:
            if session is None:
                answer = await http.post(
                    "/v1/realtime/calls?model=m", content=offer, headers={**SDP, **headers}
                )
            else:
                parts = {
                    "sdp": (None, offer, "application/sdp"),
                    "session": (None, json.dumps(session), "application/json"),
                }
                answer = await http.post("/v1/realtime/calls", files=parts, headers=headers)
        assert answer.status_code == 201, answer.text
        assert answer.headers["content-type"].startswith("application/sdp")
        location = answer.headers["location"]
        assert re.fullmatch(r"/v1/realtime/calls/rtc_\w+", location)
        await caller.accept(answer.text)
        await caller.wait_for_type("session.created")
        yield caller, location.rsplit("/", 1)[-1]
        for event in caller.events:
            if not beta:
                EVENTS.validate_python(event)
    finally:
        await caller.close()


async def gone(server: RunningServer, call_id: str) -> None:
    """Return when the server holds nothing of a call any more."""
    async with asyncio.timeout(90):
        while await asyncio.to_thread(
            server.call, lambda: server.app.state.sessions.get(call_id) is not None
        ):
            await asyncio.sleep(0.02)


async def test_speech_is_transcribed_and_answered_aloud(
    server: RunningServer, clips: list[Clip], asr_model: ASRModel
) -> None:
    clip = clips[11]
    async with calling(server, TRANSCRIBED) as (caller, call_id):
        caller.microphone.say(np.pad(clip.samples, (4_000, 0)))
        completed = await caller.wait_for_type(COMPLETED)
        await caller.wait_for_type("output_audio_buffer.started")
        done = await caller.wait_for_type("response.done")
        stopped = await caller.wait_for_type("output_audio_buffer.stopped")
        heard = len(caller.sound)
        await caller.hear(lambda sound: len(sound) > heard + 9_600)
        voice = caller.sound
    await gone(server, call_id)
    assert clip.text is not None
    assert words(completed["transcript"]) == words(clip.text)
    assert done["response"]["status"] == "completed"
    assert stopped["response_id"] == done["response"]["id"]
    said = done["response"]["output"][0]["content"][0]["transcript"]
    assert words(said) == ["you", "said", *words(completed["transcript"])]
    assert not caller.of_type("response.output_audio.delta")
    kinds = [event["type"] for event in caller.events]
    assert kinds[0] == "session.created"
    assert kinds.index("output_audio_buffer.started") < kinds.index("output_audio_buffer.stopped")
    understood = words(asr_model.transcribe(resample(voice, 48_000, 16_000)).text)
    expected = words(said)
    assert sum(word in understood for word in expected) >= 0.8 * len(expected), understood


async def test_over_a_bad_network_turns_come_and_the_call_goes_on(
    server: RunningServer, clips: list[Clip]
) -> None:
    # Delays of up to 60 ms let packets, 20 ms apart, overtake each other.
    network = Network(loss=0.05, jitter_s=0.06, seed=1)
    async with calling(server, TRANSCRIBED, network=network) as (caller, call_id):
        for turn, clip in enumerate((clips[11], clips[0]), start=1):
            caller.microphone.say(np.pad(clip.samples, (4_000, 0)))
            completed = await caller.wait_for_type(COMPLETED, turn, timeout=60)
            assert completed["transcript"]
            await caller.wait_for_type("output_audio_buffer.stopped", turn, timeout=60)
        assert network.dropped > 0
        assert not caller.of_type("error")
        alive = server.call(lambda: server.app.state.sessions.get(call_id) is not None)
        assert alive
        turns = [words(each["transcript"]) for each in caller.of_type(COMPLETED)]
    spoken = {word for clip in (clips[11], clips[0]) for word in words(clip.text or "")}
    understood = {word for turn in turns for word in turn}
    assert len(spoken & understood) >= len(spoken) // 2


async def test_speaking_into_an_answer_stops_the_voice_at_once(
    server: RunningServer, clips: list[Clip]
) -> None:
    async with calling(server, TRANSCRIBED) as (caller, _):
        caller.microphone.say(np.pad(clips[6].samples, (4_000, 0)))
        started = await caller.wait_for_type("output_audio_buffer.started", timeout=30)
        before = len(caller.sound)
        await caller.hear(lambda sound: np.abs(sound[before:]).max(initial=0) > 0.05)
        caller.microphone.say(clips[2].samples)
        cleared = await caller.wait_for_type("output_audio_buffer.cleared")
        at_decision = len(caller.sound)
        await caller.hear(lambda sound: len(sound) > at_decision + 48_000 * 0.6)
        after = np.abs(caller.sound[at_decision : at_decision + round(48_000 * 0.6)])
        second = await caller.wait_for_type(COMPLETED, 2)
        await caller.wait_for_type("output_audio_buffer.started", 2)
    loud = np.flatnonzero(after > 0.01)
    late_ms = (loud[-1] + 1) / 48 if len(loud) else 0.0
    print(f"\n{late_ms:.0f} ms of the voice were heard after the interruption was decided")
    # A frame in the encoder, and what the caller's own jitter buffer holds back (up to 16 frames).
    assert late_ms <= 340
    assert cleared["response_id"] == started["response_id"]
    kinds = [event["type"] for event in caller.events]
    assert kinds.index("input_audio_buffer.speech_started", kinds.index("response.created")) < (
        kinds.index("output_audio_buffer.cleared")
    )
    first = caller.of_type("response.done")[0]["response"]
    assert first["status"] in ("cancelled", "completed")
    assert clips[2].text is not None
    assert words(second["transcript"]) == words(clips[2].text)
    truncated = caller.of_type("conversation.item.truncated")
    assert first["status"] == "cancelled" or truncated


async def test_a_client_that_stops_the_voice_itself_gets_no_error(server: RunningServer) -> None:
    async with calling(server) as (caller, _):
        text = "one two three four five six seven eight nine ten eleven twelve"
        item = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": text}],
        }
        caller.send({"type": "conversation.item.create", "item": item})
        caller.send({"type": "response.create"})
        await caller.wait_for_type("output_audio_buffer.started")
        caller.send({"type": "response.cancel"})
        caller.send({"type": "output_audio_buffer.clear"})
        await caller.wait_for_type("output_audio_buffer.cleared")
        await caller.wait_for_type("response.done")
        caller.send({"type": "output_audio_buffer.clear"})
        caller.send({"type": "session.update", "session": {"type": "realtime"}})
        await caller.wait_for_type("session.updated")
        assert not caller.of_type("error")
        assert not caller.of_type("output_audio_buffer.stopped")


async def test_a_sideband_connection_hears_and_sends_every_event(server: RunningServer) -> None:
    async with calling(server) as (caller, call_id):
        address = f"{server.websocket_url}/v1/realtime?call_id={call_id}"
        async with websockets.connect(address) as sideband:
            first = json.loads(await sideband.recv())
            assert first["type"] == "session.created"
            assert first["session"]["id"] == caller.events[0]["session"]["id"]
            update = {"type": "realtime", "instructions": "from the side"}
            await sideband.send(json.dumps({"type": "session.update", "session": update}))
            mirrored = json.loads(await sideband.recv())
            direct = await caller.wait_for_type("session.updated")
            assert mirrored == direct
            assert direct["session"]["instructions"] == "from the side"
            caller.send({"type": "input_audio_buffer.clear"})
            assert json.loads(await sideband.recv())["type"] == "input_audio_buffer.cleared"
        caller.send({"type": "input_audio_buffer.clear"})  # the call goes on without it
        await caller.wait_for_type("input_audio_buffer.cleared", 2)
    await gone(server, call_id)
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(address)
    assert refused.value.response.status_code == 404


async def test_a_sideband_is_spoken_to_as_its_call_is(server: RunningServer) -> None:
    async with calling(server, beta=True) as (caller, call_id):
        address = f"{server.websocket_url}/v1/realtime?call_id={call_id}"
        async with websockets.connect(address) as sideband:
            joined = json.loads(await sideband.recv())
    assert "audio" not in joined["session"]
    assert joined["session"] == caller.events[0]["session"]


async def test_hanging_up_ends_the_call_for_everybody(server: RunningServer) -> None:
    async with calling(server) as (caller, call_id), client(server) as http:
        address = f"{server.websocket_url}/v1/realtime?call_id={call_id}"
        async with websockets.connect(address) as sideband:
            assert (await http.post(f"/v1/realtime/calls/{call_id}/hangup")).status_code == 200
            async with asyncio.timeout(10):
                await caller.hung_up.wait()
                await sideband.wait_closed()
            assert sideband.close_code == 1000
        await gone(server, call_id)
        again = await http.post(f"/v1/realtime/calls/{call_id}/hangup")
    assert again.status_code == 404
    assert again.json()["error"]["code"] == "call_not_found"


async def test_what_only_telephone_calls_can_do_is_said_so(server: RunningServer) -> None:
    async with calling(server) as (_, call_id), client(server) as http:
        for action in ("accept", "reject", "refer"):
            answer = await http.post(f"/v1/realtime/calls/{call_id}/{action}", json={})
            assert answer.status_code == 400
            assert f"told to {action}: only SIP calls" in answer.json()["error"]["message"]


async def test_an_ephemeral_key_brings_its_session(server: RunningServer) -> None:
    session = {"type": "realtime", "instructions": "from the key", "output_modalities": ["text"]}
    async with client(server) as http:
        secret = await http.post("/v1/realtime/client_secrets", json={"session": session})
    async with calling(server, key=secret.json()["value"]) as (caller, _):
        created = caller.events[0]["session"]
        assert created["instructions"] == "from the key"
        assert created["output_modalities"] == ["text"]


async def test_the_session_part_makes_a_transcription_session(server: RunningServer) -> None:
    async with calling(server, {**TRANSCRIBED, "type": "transcription"}) as (caller, _):
        created = caller.events[0]["session"]
        assert created["type"] == "transcription"
        assert created["audio"]["input"]["transcription"]["model"] == "m"


async def test_the_older_address_answers_offers_too(server: RunningServer) -> None:
    caller = Caller()
    before = time.time()
    async with client(server) as http:
        answer = await http.post("/v1/realtime?model=m", content=await caller.offer(), headers=SDP)
        assert answer.status_code == 201
        await caller.accept(answer.text)
        created = await caller.wait_for_type("session.created")
    await caller.close()
    lasts_s = server.app.state.settings.session_seconds
    assert int(before) + lasts_s <= created["session"]["expires_at"] <= time.time() + lasts_s


async def test_a_page_of_another_origin_may_call_and_read_the_location(
    server: RunningServer,
) -> None:
    asks = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-openai-agents-sdk, "
        "openai-beta, openai-safety-identifier",
    }
    async with client(server) as http:
        preflight = await http.options("/v1/realtime/calls", headers=asks)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        allowed = preflight.headers["access-control-allow-headers"].lower()
        assert all(name in allowed for name in ("authorization", "x-openai-agents-sdk"))
        refused = await http.post(
            "/v1/realtime/calls", content="x", headers={**SDP, "Origin": "http://localhost:3000"}
        )
    assert refused.headers["access-control-allow-origin"] == "*"
    assert "Location" in refused.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"", SDP, 400, "invalid_offer"),
        (b"hello", SDP, 400, "invalid_offer"),
        (b"v=0\r\nm=audio nonsense\r\n", SDP, 400, "invalid_offer"),
        (b"\xff\xfe", SDP, 400, None),
        (b"v=0\r\n" + b"a=x\r\n" * 20_000, SDP, 413, None),
        (b'{"sdp": "v=0"}', {"Content-Type": "application/json"}, 415, "unsupported_content_type"),
        (b"--x--", {"Content-Type": "multipart/form-data; boundary=x"}, 400, None),
        (b"nonsense", {"Content-Type": "multipart/form-data"}, 400, None),
    ],
)
async def test_a_malformed_offer_is_refused_and_leaves_nothing(
    server: RunningServer, content: bytes, headers: dict[str, str], status: int, code: str | None
) -> None:
    registry = server.app.state.sessions

    def held() -> list[str]:
        return [name for name in registry._sessions if "rtc" in name]

    await eventually(server, lambda: not held())  # of calls before
    async with client(server) as http:
        answer = await http.post("/v1/realtime/calls", content=content, headers=headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    assert code is None or error["code"] == code
    assert await asyncio.to_thread(server.call, held) == []


@pytest.mark.parametrize(
    ("session", "param"),
    [("[]", "session"), ("{", "session"), ('{"audio": {"output": {"speed": 9}}}', None)],
)
async def test_a_session_part_that_cannot_be_used_is_refused(
    server: RunningServer, session: str, param: str | None
) -> None:
    caller = Caller()
    parts = {"sdp": (None, await caller.offer()), "session": (None, session)}
    await caller.close()
    async with client(server) as http:
        answer = await http.post("/v1/realtime/calls", files=parts)
    assert answer.status_code == 400
    assert param is None or answer.json()["error"]["param"] == param


async def test_long_events_pass_both_ways(server: RunningServer) -> None:
    async with calling(server) as (caller, _):
        long = "x" * 200_000
        session = {"type": "realtime", "instructions": long}
        caller.send({"type": "session.update", "session": session})
        updated = await caller.wait_for_type("session.updated")
        assert updated["session"]["instructions"] == long


def test_a_session_that_does_not_fit_is_shown_shorter_and_other_events_are_reported() -> None:
    tools = [{"type": "function", "name": "n" * 50}] * 10
    session = {"type": "realtime", "instructions": "i" * 1_000, "tools": tools}
    event = {"type": "session.updated", "event_id": "event_1", "session": session}
    shorter = json.loads(fitting(json.dumps(event), 1_500))
    assert shorter == {**event, "session": {**session, "instructions": ""}}
    shortest = json.loads(fitting(json.dumps(event), 300))
    assert shortest == {**event, "session": {**session, "instructions": "", "tools": []}}
    error = json.loads(fitting(json.dumps({"type": "response.done", "x": "y" * 999}), 500))
    assert error["error"]["code"] == "event_too_large"
    assert "'response.done'" in error["error"]["message"]


async def test_keys_callers_limits_and_vanishing(asr_model: ASRModel) -> None:
    """A server of its own: with a key, and for one session."""
    settings = ServerSettings(
        port=0,
        api_key=(SecretStr("secret"),),
        max_sessions=1,
        call_setup_seconds=120.0,
        call_message_bytes=16_384,
    )
    with running(settings, asr_model) as server:
        await _only_with_a_key(server)
        await _one_at_a_time(server)
        with changed(server, call_vanished_seconds=1.5):
            await _a_caller_who_vanishes_is_given_up(server)
        with changed(server, call_setup_seconds=1.0):
            await _a_caller_who_never_comes_is_given_up(server)
        await _a_server_that_stops_ends_its_calls(server)


async def _only_with_a_key(server: RunningServer) -> None:
    async with client(server) as http:
        for headers in (SDP, {**SDP, "Authorization": "Bearer wrong"}):
            answer = await http.post("/v1/realtime/calls", content="v=0", headers=headers)
            assert answer.status_code == 401
        answer = await http.post("/v1/realtime/calls/rtc_x/hangup")
        assert answer.status_code == 401


async def _one_at_a_time(server: RunningServer) -> None:
    async with calling(server, key="secret") as (caller, call_id):
        await _what_is_too_long_is_told_to_everybody_in_its_order(server, caller, call_id)
        second = Caller()
        async with client(server) as http:
            full = await http.post(
                "/v1/realtime/calls",
                content=await second.offer(),
                headers={**SDP, "Authorization": "Bearer secret"},
            )
        await second.close()
        assert full.status_code == 503
        assert int(full.headers["retry-after"]) > 0
    await gone(server, call_id)


async def _a_caller_who_vanishes_is_given_up(server: RunningServer) -> None:
    async with calling(server, key="secret") as (caller, call_id):
        caller.vanish()
        await gone(server, call_id)


async def _what_is_too_long_is_told_to_everybody_in_its_order(
    server: RunningServer, caller: Caller, call_id: str
) -> None:
    address = f"{server.websocket_url}/v1/realtime?call_id={call_id}"
    key = {"Authorization": "Bearer secret"}
    async with websockets.connect(address, additional_headers=key) as sideband:
        assert json.loads(await sideband.recv())["type"] == "session.created"
        caller.send({"type": "input_audio_buffer.clear"})
        caller.send({"type": "x" * 20_000})
        caller.send({"type": "input_audio_buffer.clear"})
        told = [json.loads(await sideband.recv()) for _ in range(3)]
    await caller.wait_for_type("input_audio_buffer.cleared", 2)
    assert told == caller.events[1:4]
    kinds = [event["type"] for event in told]
    assert kinds == ["input_audio_buffer.cleared", "error", "input_audio_buffer.cleared"]
    assert told[1]["error"]["code"] == "event_too_large"


async def _a_caller_who_never_comes_is_given_up(server: RunningServer) -> None:
    caller = Caller()
    async with client(server) as http:
        answer = await http.post(
            "/v1/realtime/calls",
            content=await caller.offer(),
            headers={**SDP, "Authorization": "Bearer secret"},
        )
    await gone(server, answer.headers["location"].rsplit("/", 1)[-1])
    await caller.close()


async def _a_server_that_stops_ends_its_calls(server: RunningServer) -> None:
    async with calling(server, key="secret") as (caller, _):
        await asyncio.to_thread(
            lambda: asyncio.run_coroutine_threadsafe(
                server.app.state.sessions.drain(5.0), server.loop
            ).result(90)
        )
        async with asyncio.timeout(90):
            await caller.hung_up.wait()


def test_the_guides_program_talks_to_the_server(
    server: RunningServer,
    clips: list[Clip],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    guide = Path(__file__).parents[2] / "docs" / "webrtc.md"
    block = re.search(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    program = block[1].replace("http://127.0.0.1:8000", server.url)
    assert program != block[1]
    monkeypatch.chdir(tmp_path)
    clip = clips[19]
    soundfile.write("question.wav", np.pad(clip.samples, (4_000, 16_000)), 16_000)
    exec(compile(program, str(guide), "exec"), {"__name__": "__main__"})
    you, answer = capsys.readouterr().out.splitlines()
    assert clip.text is not None
    assert words(you) == ["you", *words(clip.text)]
    assert words(answer) == ["answer", "you", "said", *words(clip.text)]
    spoken, rate = soundfile.read("answer.wav")
    assert len(spoken) > rate
    assert np.abs(spoken).max() > 0.05
