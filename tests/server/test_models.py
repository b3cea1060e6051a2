"""The list of models, as the official client reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import NotFoundError, OpenAI

from tests.server.conftest import RunningServer
from tinyvoice.server.models import public_name


@pytest.fixture
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_list_names_what_is_there(client: OpenAI) -> None:
    models = list(client.models.list())

    assert models[0].id == "embedded"
    assert {model.object for model in models} == {"model"}
    assert {model.owned_by for model in models} == {"tinyvoice"}
    assert all(model.created > 1_700_000_000 for model in models)


def test_one_of_them(client: OpenAI) -> None:
    assert client.models.retrieve("embedded").id == "embedded"


@pytest.mark.parametrize("name", ["whisper-2", "mazesmazes/tiny-audio", "a/b/c"])
def test_one_that_is_not_there(client: OpenAI, name: str) -> None:
    with pytest.raises(NotFoundError, match="does not exist") as caught:
        client.models.retrieve(name)

    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_an_id_with_a_slash_is_one_id(server: RunningServer, client: OpenAI) -> None:
    settings = server.app.state.settings
    server.app.state.settings = settings.model_copy(update={"model": "mazesmazes/tiny-audio"})
    try:
        assert client.models.retrieve("mazesmazes/tiny-audio").id == "mazesmazes/tiny-audio"
    finally:
        server.app.state.settings = settings


def test_folders_keep_their_place_to_themselves(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()

    assert public_name(str(folder)) == "checkpoint-7"
    assert public_name("/models/that/are/gone") == "gone"
    assert public_name("mazesmazes/tiny-audio") == "mazesmazes/tiny-audio"
