from collections.abc import Iterator

import pytest

from tests.realtime.backends.model_server import ModelServer, RunningServer


@pytest.fixture(scope="session")
def running_server() -> Iterator[ModelServer]:
    with RunningServer() as server:
        yield server


@pytest.fixture
def model_server(running_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    """The server, with nothing seen yet, and no settings of OpenAI's in the environment."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    running_server.requests.clear()
    running_server.headers.clear()
    running_server.left.clear()
    return running_server
