"""Certificates: made for the run, or from files."""

from __future__ import annotations

import hashlib
import socket
import ssl
from pathlib import Path

import httpx2 as httpx
import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.server.conftest import running
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel
from tinyvoice.server.settings import ServerSettings
from tinyvoice.server.tls import certificate, self_signed


async def test_https_and_wss_with_a_certificate_of_our_own(asr_model: ASRModel) -> None:
    made = self_signed("127.0.0.1")
    settings = ServerSettings(port=0, tls_self_signed=True, refuse_partial_gap_s=3_600)
    with running(settings, asr_model, ssl_context_factory=lambda *_: made.context) as server:
        assert server.url.startswith("https://")
        port = int(server.url.rpartition(":")[2])
        der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))
        # Whoever trusts this one certificate can check it, by name and by address.
        trust = ssl.create_default_context(cadata=der)
        async with httpx.AsyncClient(base_url=server.url, verify=trust) as client:
            assert (await client.get("/healthz")).status_code == 200
        url = f"wss://localhost:{port}/v1/realtime?intent=transcription"
        async with websockets.connect(url, ssl=trust, host="127.0.0.1") as client:
            assert "session.created" in str(await client.recv())
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient(base_url=server.url) as client:
                await client.get("/healthz")
    assert made.fingerprint is not None
    assert made.fingerprint.replace(":", "").lower() == hashlib.sha256(der).hexdigest()
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert {"localhost"} <= set(names.value.get_values_for_type(x509.DNSName))
    assert "127.0.0.1" in map(str, names.value.get_values_for_type(x509.IPAddress))


def test_the_names_of_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyvoice.server.tls import _own_names

    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    assert _own_names("voice.example") == ["localhost", "127.0.0.1", "::1", "voice.example", "box"]
    assert _own_names("0.0.0.0") == ["localhost", "127.0.0.1", "::1", "box"]


def pem_key(password: bytes | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


@pytest.mark.parametrize("key", [b"nonsense", pem_key(), pem_key(b"secret")])
def test_files_that_do_not_fit_are_named(tmp_path: Path, key: bytes) -> None:
    public, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    public.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    private.write_bytes(key)
    settings = ServerSettings(tls_cert=public, tls_key=private)
    with pytest.raises(ConfigurationError, match=r"cert\.pem and .*key\.pem: cannot be used"):
        certificate(settings)


def test_none_is_made_where_none_is_asked_for() -> None:
    assert certificate(ServerSettings()) is None
