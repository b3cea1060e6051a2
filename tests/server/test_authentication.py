"""Keys, wherever clients put them, on a server that wants one."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import httpx2 as httpx
import openai
import pytest
import websockets

from tests.server.conftest import RunningServer, running
from tests.server.realtime import connected
from tinyvoice.model.modeling import ASRModel
from tinyvoice.server.authentication import Authenticator, credential_of
from tinyvoice.server.ephemeral_keys import EphemeralKeys, derive_secret
from tinyvoice.server.errors import ApiError
from tinyvoice.server.settings import ServerSettings

KEYS = ("office-key", "home-key")


@pytest.fixture(scope="module")
def locked(asr_model: ASRModel) -> Iterator[RunningServer]:
    """A server with two keys, and pages of one origin."""
    settings = ServerSettings.load(
        {"port": 0, "api_key": list(KEYS), "allowed_origins": ["https://app.example"]}
        | {"refuse_partial_gap_s": 3_600}
    )
    with running(settings, asr_model) as found:
        yield found


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer office-key"},
        {"Authorization": "bearer  home-key"},
        {"api-key": "home-key"},
    ],
)
async def test_keys_in_headers(locked: RunningServer, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=locked.url) as client:
        answer = await client.get("/v1/models", headers=headers)
        assert answer.status_code == 200
    async with connected(locked.websocket_url, headers=headers):
        pass


async def test_a_key_in_the_address_and_in_the_subprotocol(locked: RunningServer) -> None:
    async with connected(locked.websocket_url, "intent=transcription&api-key=home-key"):
        pass
    offered = ["realtime", "openai-insecure-api-key.office-key"]
    async with connected(locked.websocket_url, subprotocols=offered) as client:
        assert client.socket.subprotocol == "realtime"


@pytest.mark.parametrize("key", [None, "wrong", "office-ke", "office-key2", "ek_x"])
async def test_programs_are_refused_with_401(locked: RunningServer, key: str | None) -> None:
    headers = {} if key is None else {"api-key": key}
    async with httpx.AsyncClient(base_url=locked.url) as client:
        answer = await client.get("/v1/models", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    with pytest.raises(websockets.InvalidStatus) as raised:
        async with connected(locked.websocket_url, headers=headers):
            pass
    assert raised.value.response.status_code == 401
    assert b'"invalid_api_key"' in (raised.value.response.body or b"")


async def test_browsers_are_told_by_an_event_and_a_close_code(locked: RunningServer) -> None:
    offered = ["realtime", "openai-insecure-api-key.wrong"]
    async with connected(locked.websocket_url, created=False, subprotocols=offered) as client:
        code, before = await client.closed()
    assert [event["type"] for event in before] == ["error"]
    assert before[0]["error"]["code"] == "invalid_api_key"
    assert (code, client.socket.close_reason) == (3000, "invalid_request_error.invalid_api_key")


async def test_the_official_client_says_that_its_key_is_wrong(locked: RunningServer) -> None:
    client = openai.AsyncOpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
        await client.models.list()


async def test_pages_of_other_origins_are_refused(locked: RunningServer) -> None:
    key = {"Authorization": "Bearer home-key"}
    with pytest.raises(websockets.InvalidStatus) as raised:
        async with connected(
            locked.websocket_url, headers={"Origin": "https://elsewhere.example", **key}
        ):
            pass
    assert raised.value.response.status_code == 403
    async with connected(locked.websocket_url, headers={"Origin": "https://app.example", **key}):
        pass


async def test_health_needs_no_key(locked: RunningServer) -> None:
    async with httpx.AsyncClient(base_url=locked.url) as client:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200


async def test_a_page_may_ask_from_its_origin_and_read_the_location(locked: RunningServer) -> None:
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-openai-agents-sdk, "
        "openai-beta, openai-safety-identifier",
    }
    async with httpx.AsyncClient(base_url=locked.url) as client:
        preflight = await client.options("/v1/realtime/calls", headers=asked)
        assert preflight.status_code == 200
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "openai-beta" in preflight.headers["access-control-allow-headers"]
        refused = await client.post(
            "/v1/realtime/client_secrets", headers={"Origin": "https://app.example"}
        )
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.example"
    assert "Location" in refused.headers["access-control-expose-headers"]


def test_an_ephemeral_key_opens_sessions_only() -> None:
    keys = EphemeralKeys(derive_secret(KEYS))
    key = keys.make("transcription", {"type": "transcription"}, 60)
    authenticator = Authenticator(KEYS, keys)
    identity = authenticator.check(key, ephemeral=True)
    assert identity.kind == "ephemeral"
    assert identity.ephemeral is not None
    assert identity.ephemeral.kind == "transcription"
    with pytest.raises(ApiError, match="sessions and calls only"):
        authenticator.check(key)


def test_without_keys_everybody_may_come_but_a_broken_session_is_not_opened() -> None:
    keys = EphemeralKeys(derive_secret([]))
    authenticator = Authenticator([], keys)
    assert not authenticator.required
    for credential in (None, "any", "sk-1", "ek_local"):
        assert authenticator.check(credential, ephemeral=True).kind == "anyone"
    foreign = EphemeralKeys(derive_secret([])).make("realtime", {}, 60)
    with pytest.raises(ApiError, match="was not made by this server"):
        authenticator.check(foreign, ephemeral=True)


def test_where_a_key_is_looked_for_first() -> None:
    everywhere = SimpleNamespace(
        headers={"authorization": "Bearer a", "api-key": "b"},
        query_params={"api-key": "c"},
        scope={"subprotocols": ["realtime", "openai-insecure-api-key.d"]},
    )
    found = []
    for place in ("authorization", "api-key"):
        found.append(credential_of(everywhere))  # type: ignore[arg-type]
        everywhere.headers.pop(place)
    found.append(credential_of(everywhere))  # type: ignore[arg-type]
    everywhere.query_params.clear()
    found.append(credential_of(everywhere))  # type: ignore[arg-type]
    everywhere.headers["authorization"] = "Basic eDp5"
    everywhere.scope["subprotocols"] = ["realtime"]
    found.append(credential_of(everywhere))  # type: ignore[arg-type]
    assert found == ["a", "b", "c", "d", None]


async def test_ephemeral_keys_of_a_replica_open_a_session_here(locked: RunningServer) -> None:
    """Nothing is kept: a key made elsewhere with the same API keys is as good as ours."""
    configuration = {"type": "transcription", "include": None}
    key = EphemeralKeys(derive_secret(KEYS)).make("transcription", configuration, 60)
    async with connected(
        locked.websocket_url, "model=m", headers={"Authorization": f"Bearer {key}"}
    ) as client:
        assert client.events[0]["session"]["type"] == "transcription"
    expired = EphemeralKeys(derive_secret(KEYS), now=lambda: 1_000.0).make("realtime", {}, 60)
    with pytest.raises(websockets.InvalidStatus) as raised:
        async with connected(locked.websocket_url, headers={"Authorization": f"Bearer {expired}"}):
            pass
    assert raised.value.response.status_code == 401
    assert b"has expired" in (raised.value.response.body or b"")


async def test_an_ephemeral_key_is_used_again_until_it_expires(
    locked: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As documented: by several sessions, at once and in turn; open ones outlive it."""
    session = {"type": "realtime", "instructions": "from the key"}
    async with httpx.AsyncClient(base_url=locked.url, timeout=60) as http:
        made = await http.post(
            "/v1/realtime/client_secrets",
            json={"session": session},
            headers={"Authorization": f"Bearer {KEYS[0]}"},
        )
    bearer = {"Authorization": f"Bearer {made.json()['value']}"}
    async with connected(locked.websocket_url, "", headers=bearer) as first:
        for _ in range(2):
            async with connected(locked.websocket_url, "", headers=bearer) as again:
                assert again.events[0]["session"]["instructions"] == "from the key"
        later = made.json()["expires_at"] + 1
        monkeypatch.setattr(locked.app.state.ephemeral_keys, "_now", lambda: later)
        with pytest.raises(websockets.InvalidStatus) as raised:
            async with connected(locked.websocket_url, "", headers=bearer):
                pass
        assert raised.value.response.status_code == 401
        await first.send({"type": "input_audio_buffer.clear"})
        await first.until("input_audio_buffer.cleared")
