"""HTTPS and WSS: a certificate from files, or one made for this run.

A certificate made here stands for the addresses of this machine and is kept in memory; clients have
to be told to trust it, for which its fingerprint is shown.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tinyvoice.errors import ConfigurationError, MissingExtraError
from tinyvoice.server.settings import ServerSettings

VALID_DAYS = 90
"""A run hardly lasts longer; browsers refuse more than 398."""

_ANY_ADDRESS = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class Certificate:
    """What the server shows to its clients."""

    context: ssl.SSLContext
    fingerprint: str | None = None
    """SHA-256 of a certificate made here, as browsers show it."""


def certificate(settings: ServerSettings) -> Certificate | None:
    """The certificate that the settings ask for; None where they ask for none.

    Raises:
        ConfigurationError: certificate and key cannot be used; ``key`` names the setting.
        MissingExtraError: what makes certificates is not installed.
    """
    if settings.tls_self_signed:
        return self_signed(settings.host)
    if settings.tls_cert is None:
        return None
    context = _context()
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_refuse_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or error.args[-1]
        raise ConfigurationError(
            f"{settings.tls_cert} and {settings.tls_key}: cannot be used together ({reason}); give "
            "a certificate and its private key, both as PEM and without a password.",
            key="tls_cert",
        ) from None
    return Certificate(context)


def self_signed(host: str) -> Certificate:
    """A new certificate for this host and the names that this machine has for itself.

    Raises:
        MissingExtraError: what makes certificates is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ModuleNotFoundError:
        raise MissingExtraError("serve", "making a certificate") from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tinyvoice")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = []
    for known in _own_names(host):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(known)))
        except ValueError:
            names.append(x509.DNSName(known))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    digest = made.fingerprint(hashes.SHA256()).hex(":").upper()
    return Certificate(_loaded(made.public_bytes(serialization.Encoding.PEM), private), digest)


def _loaded(public: bytes, private: bytes) -> ssl.SSLContext:
    """A context with this certificate. The library reads files only: they live for a moment."""
    context = _context()
    with tempfile.TemporaryDirectory(prefix="tinyvoice-") as folder:  # nobody else may enter it
        path = Path(folder) / "certificate.pem"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(private + public)
        context.load_cert_chain(path)
    return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _own_names(host: str) -> list[str]:
    names = ["localhost", "127.0.0.1", "::1"]
    if host not in _ANY_ADDRESS:
        names.append(host)
    own = socket.gethostname()
    if own.isascii() and own:
        names.append(own)
    return list(dict.fromkeys(names))


def _refuse_password() -> str:
    raise ValueError("the key has a password")
