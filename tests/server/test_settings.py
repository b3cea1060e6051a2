"""Where settings come from, which one wins, and what is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT
from tinyvoice.errors import ConfigurationError
from tinyvoice.realtime.backends.registry import BackendSettings
from tinyvoice.server.settings import ServerSettings


def write(folder: Path, text: str) -> Path:
    path = folder / "server.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "port = 1001\nmax-sessions = 11\nmax_requests = 21\n")
    monkeypatch.setenv("TINYVOICE_PORT", "1002")
    monkeypatch.setenv("TINYVOICE_MAX_SESSIONS", "12")
    settings = ServerSettings.load({"port": 1003, "max_batch": None}, file)
    assert (settings.port, settings.max_sessions, settings.max_requests) == (1003, 12, 21)
    assert settings.max_batch == 32


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("porte = 1", "porte", "there is no setting porte"),
        ("port = 70000", "port", "server.toml: port cannot be used"),
        ("device = 'tpu'", "device", "device cannot be used"),
        ("port = ", "settings", "is not TOML"),
        ("[server]\nport = 1", "server", "there is no setting server"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(
    tmp_path: Path, text: str, key: str, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as raised:
        ServerSettings.load({}, write(tmp_path, text))
    assert raised.value.key == key


def test_a_missing_file_and_a_wrong_variable_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: cannot be read"):
        ServerSettings.load({}, tmp_path / "none.toml")
    monkeypatch.setenv("TINYVOICE_MAX_SESSIONS", "many")
    with pytest.raises(ConfigurationError, match="TINYVOICE_MAX_SESSIONS cannot be used"):
        ServerSettings.load()


def test_keys_come_from_everywhere_and_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("# of the office\nthree\n\none\n")
    monkeypatch.setenv("TINYVOICE_API_KEY", "one, two")
    settings = ServerSettings.load({"api_key_file": tmp_path / "keys"})
    assert settings.keys == ("one", "two", "three")
    assert "two" not in repr(settings)
    (tmp_path / "keys").write_text("# none\n")
    with pytest.raises(ConfigurationError, match="holds no key"):
        _ = settings.keys


def test_other_machines_are_let_in_with_a_key_only() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1"):
        ServerSettings(host=host).check()
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.org"):
        with pytest.raises(ConfigurationError, match="--insecure-no-key") as raised:
            ServerSettings(host=host).check()
        assert raised.value.key == "host"
        ServerSettings(host=host, insecure_no_key=True).check()
        ServerSettings.load({"host": host, "api_key": ["k"]}).check()


def test_certificate_and_key_belong_together(tmp_path: Path) -> None:
    there = tmp_path / "a.pem"
    there.touch()
    with pytest.raises(ConfigurationError, match="belong together"):
        ServerSettings(tls_cert=there).check()
    with pytest.raises(ConfigurationError, match="there is no such file; check --tls-key"):
        ServerSettings(tls_cert=there, tls_key=tmp_path / "b.pem").check()
    with pytest.raises(ConfigurationError, match="Choose --tls-self-signed or"):
        ServerSettings(tls_cert=there, tls_key=there, tls_self_signed=True).check()


def test_every_setting_of_the_backends_is_one_of_the_server() -> None:
    for field in fields(BackendSettings):
        assert field.name in ServerSettings.model_fields
    assert ServerSettings().backends == BackendSettings()
    settings = ServerSettings.load({"llm_key": "secret", "tts": "none", "llm_temperature": 0.5})
    assert settings.backends == BackendSettings(llm_key="secret", tts="none", llm_temperature=0.5)
    with pytest.raises(ConfigurationError, match="llm"):
        _ = ServerSettings(llm="abacus").backends


def test_every_setting_is_explained_in_the_guide() -> None:
    guide = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    table = guide.split("\n## Settings\n")[1].split("\n## ")[0]
    rows = {
        line.split("`")[1]: [cell.strip() for cell in line.split(" | ")]
        for line in table.splitlines()
        if line.startswith("| `")
    }
    assert list(rows) == list(ServerSettings.model_fields)
    for name, field in ServerSettings.model_fields.items():
        default = field.get_default()
        assert rows[name][1], name
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert rows[name][2] == str(default).removesuffix(".0"), name
