"""The model that listens on both ends, and the voice of the person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from agents.settings import AgentSettings
from tinyvoice.integrations.shared_engine import close_engines
from tinyvoice.model.modeling import ASRModel
from tinyvoice.voices.espeak_process import EspeakProcess


@pytest.fixture(scope="session")
def model() -> ASRModel:
    loaded = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    loaded.eval()
    return loaded


@pytest.fixture(scope="session")
def mouth() -> Iterator[EspeakProcess]:
    process = EspeakProcess()
    yield process
    process.close()


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory) -> AgentSettings:
    return AgentSettings(word_times=False, folder=tmp_path_factory.mktemp("agent"))


@pytest_asyncio.fixture(autouse=True)
async def _closed_engines() -> AsyncIterator[None]:
    yield
    await close_engines()
