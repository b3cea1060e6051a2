"""Every setting of the server, and the four places it may come from.

A setting is given by a flag of ``tinyvoice serve``, by an environment variable (its name in
capitals after ``TINYVOICE_``), in a settings file (TOML), or not at all; the first of these that
names it wins. What is unknown or out of range is refused by name before anything is loaded.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from tinyvoice.errors import ConfigurationError
from tinyvoice.realtime.backends.registry import BackendSettings

ENVIRONMENT_PREFIX = "TINYVOICE_"

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Addresses that only programs of the same machine reach."""

MIB = 1 << 20


class ServerSettings(BaseSettings):
    """Settings of a server; `ServerSettings.load` reads all four places.

    Built directly it takes its arguments, then the environment. Raises `pydantic.ValidationError`
    where `load` raises `ConfigurationError`.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        extra="forbid",
        frozen=True,
        validate_default=True,
        # The texts below the settings are what `tinyvoice serve --help` says of them.
        use_attribute_docstrings=True,
    )

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""

    # --- speech recognition -----------------------------------------------------------------------

    model: str = Field(default="embedded", min_length=1)
    """Model: 'embedded', a folder, or a Hugging Face id."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the model runs."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """What the model computes in; auto suits the device."""
    threads: int | None = Field(default=None, ge=1, le=1_024)
    """CPU threads of the model; chosen by its size."""
    max_batch: int = Field(default=32, ge=1, le=4_096)
    """Streams that one pass of the model takes."""

    refuse_partial_gap_s: float = Field(default=1.5, ge=0.1, le=3_600)
    """Where partials or finals came this late in the last seconds, or audio waits this long to be
    heard, new sessions are refused."""

    # --- answers in conversations -----------------------------------------------------------------

    llm: str = "echo"
    """Language model: 'echo' (built in, no model), 'openai' (any server of OpenAI's chat
    completions) or 'local' (run here)."""
    llm_url: str = ""
    """Base address of the language model's server; OpenAI's own if not given."""
    llm_model: str = ""
    """Name of the language model at its server; a folder or Hugging Face id for 'local'."""
    llm_key: SecretStr = SecretStr("")
    """Key for the language model's server; OPENAI_API_KEY if not given."""
    llm_temperature: float | None = None
    """Temperature of the language model, 0 to 2."""
    llm_max_tokens: int | None = None
    """Longest answer in tokens where a client sets no limit; 1024 for the model 'local'."""
    llm_device: str = "auto"
    """Where the language model 'local' runs."""
    llm_timeout_s: float = 30.0
    """Longest wait in seconds for the next part of an answer."""
    tts: str = "espeak"
    """Voice: 'espeak', 'openai' (any server of OpenAI's speech endpoint), 'piper' (a neural voice
    run here) or 'none'."""
    tts_url: str = ""
    """Base address of the voice's server; OpenAI's own if not given."""
    tts_model: str = ""
    """Name of the voice's model at its server; an .onnx file or a folder of them for 'piper'."""
    tts_key: SecretStr = SecretStr("")
    """Key for the voice's server; OPENAI_API_KEY if not given."""
    tts_voice: str = ""
    """Voice that speaks, whatever clients ask for."""
    tts_timeout_s: float = 15.0
    """Longest wait in seconds for the next part of a clause's sound."""
    connect_timeout_s: float = 5.0
    """Longest wait in seconds for a connection to the server of language model or voice."""
    espeak_processes: int = 2
    """Texts that eSpeak NG speaks at the same time."""

    # --- who may come in --------------------------------------------------------------------------

    api_key: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys that clients may use, in a list or separated by commas."""
    api_key_file: Path | None = None
    """A file with one key a line; empty lines and lines that begin with # are skipped."""
    signing_secret: SecretStr | None = None
    """What ephemeral keys are signed with; by default it is derived from the keys."""
    insecure_no_key: bool = False
    """Listen on an address that others reach although anybody may then use the server."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ("*",)
    """Origins of web pages that may use the server."""
    tls_cert: Path | None = None
    """Certificate for HTTPS and WSS, a PEM file with its whole chain."""
    tls_key: Path | None = None
    """Private key of the certificate, a PEM file without a password."""
    tls_self_signed: bool = False
    """Speak HTTPS and WSS with a certificate made for this run; clients are to be told to trust
    it."""

    # --- limits -----------------------------------------------------------------------------------

    max_sessions: int = Field(default=256, ge=1, le=100_000)
    """Realtime sessions at once; one more is refused with close code 1013 or HTTP 503."""
    max_requests: int = Field(default=32, ge=1, le=100_000)
    """HTTP transcriptions and speech requests at once; one more is refused with HTTP 503."""
    max_frame_bytes: int = Field(default=20 * MIB + 65_536, ge=1_024, le=1 << 30)
    """Largest message of a client: 15 MiB of audio in base64 and its envelope."""
    max_upload_bytes: int = Field(default=25 * MIB, ge=1_024, le=1 << 40)
    """Largest body of an HTTP request."""
    max_file_seconds: float = Field(default=2 * 3_600.0, gt=0, le=24 * 3_600)
    """Longest recording that is transcribed over HTTP; an hour takes 230 MB while it is heard."""
    max_files_at_once: int = Field(default=2, ge=1, le=1_024)
    """Recordings heard at once beside the live sessions; others wait."""
    upload_seconds: float = Field(default=300.0, gt=0, le=24 * 3_600)
    """How long the upload of a recording may take."""
    max_speech_characters: int = Field(default=4_096, ge=1, le=1_000_000)
    """Longest text of a speech request."""
    session_seconds: float = Field(default=3_600.0, gt=0, le=7 * 86_400)
    """Longest session."""
    idle_seconds: float = Field(default=900.0, gt=0, le=7 * 86_400)
    """A session whose client has sent nothing for so long is closed."""
    max_append_bytes: int = Field(default=15 * MIB, ge=1_024, le=1 << 30)
    """Audio in one 'input_audio_buffer.append' of a session."""
    uncommitted_seconds: float = Field(default=600.0, gt=0, le=7 * 86_400)
    """Audio that may wait for a commit; with turn detection, the longest turn."""
    minimum_commit_ms: float = Field(default=100.0, gt=0, le=60_000)
    """Audio that a commit takes at least."""
    stall_seconds: float = Field(default=2.0, gt=0, le=3_600)
    """A turn that goes on ends when its client sends no audio at all for so long."""
    max_items: int = Field(default=1_000, ge=1, le=1_000_000)
    """Items that a conversation keeps; the oldest ones make room."""
    max_conversation_bytes: int = Field(default=32 * MIB, ge=1_024, le=1 << 40)
    """Size of all items together; the oldest ones make room."""
    max_tools: int = Field(default=128, ge=1, le=100_000)
    """Tools of a session or of a response."""
    max_tools_bytes: int = Field(default=512 * 1_024, ge=1_024, le=1 << 30)
    """JSON text of these tools together."""
    max_instruction_characters: int = Field(default=256 * 1_024, ge=1, le=1 << 30)
    """Length of instructions, and of each other text in a session."""
    max_json_depth: int = Field(default=64, ge=4, le=500)
    """Objects and lists within one another in a client's event."""
    max_out_of_band_responses: int = Field(default=8, ge=1, le=10_000)
    """Responses outside of the conversation that a session makes at once."""
    send_queue_bytes: int = Field(default=8 * MIB, ge=64 * 1_024, le=1 << 30)
    """Events that may wait for a client to read them; beyond that it is disconnected."""
    send_timeout_seconds: float = Field(default=30.0, gt=0, le=3_600)
    """A client that takes nothing for so long is disconnected."""
    ping_interval_seconds: float = Field(default=20.0, gt=0, le=3_600)
    """Time between two pings of a WebSocket."""
    ping_timeout_seconds: float = Field(default=20.0, gt=0, le=3_600)
    """A WebSocket client that answers no ping for so long, while it is read, is disconnected."""
    drain_seconds: float = Field(default=30.0, ge=0, le=3_600)
    """How long sessions may finish their turns, and requests be answered, when the server is told
    to stop."""
    client_secret_seconds: int = Field(default=600, ge=10, le=7_200)
    """How long an ephemeral key holds where the request does not say."""
    client_secret_bytes: int = Field(default=7_000, ge=1_000, le=60_000)
    """Longest ephemeral key: it carries its session's configuration, and goes into a header."""

    # --- WebRTC calls -----------------------------------------------------------------------------

    max_offer_bytes: int = Field(default=65_536, ge=1_024, le=1 << 20)
    """Longest session description of a caller."""
    call_setup_seconds: float = Field(default=15.0, gt=0, le=300)
    """How long a caller may take to connect once it has been answered."""
    call_vanished_seconds: float = Field(default=10.0, gt=0, le=3_600)
    """A caller from whom no packet comes for so long is gone."""
    call_message_bytes: int = Field(default=262_144, ge=16_384, le=1 << 24)
    """Longest event that a caller may send over its data channel."""
    call_playback_seconds: float = Field(default=900.0, gt=0, le=86_400)
    """Audio that may wait to be played to a caller."""
    call_addresses: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses of this machine that callers are told; none given, all of them."""

    # --- what is logged ---------------------------------------------------------------------------

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is worth a line."""
    log_format: Literal["text", "json"] = "text"
    """Lines for people, or a JSON object a line."""
    log_content: bool = False
    """Log what is said and written, too."""

    @field_validator("api_key", "allowed_origins", "call_addresses", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
        return value

    @classmethod
    def load(
        cls, flags: Mapping[str, Any] | None = None, file: Path | None = None
    ) -> ServerSettings:
        """Settings from flags, then the environment, then the file, then the defaults.

        Flags that are None have not been given.

        Raises:
            ConfigurationError: the file cannot be read, or a setting is unknown or out of range;
                ``key`` names it.
        """
        from_file = _read(file) if file is not None else {}
        for name in from_file:
            if name not in cls.model_fields:
                raise ConfigurationError(
                    f"{file}: there is no setting {name}: choose from "
                    f"{', '.join(sorted(cls.model_fields))}.",
                    key=name,
                )
        given = {name: value for name, value in (flags or {}).items() if value is not None}
        try:
            environment = EnvSettingsSource(cls)()
            return cls(**{**from_file, **environment, **given})
        except ValidationError as error:
            raise _sentence(error, given, file, from_file) from None

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that clients may use, those of the key file included; no key twice.

        Raises:
            ConfigurationError: the key file cannot be read, or holds no key.
        """
        keys = [key.get_secret_value() for key in self.api_key]
        if self.api_key_file is not None:
            keys += _read_keys(self.api_key_file)
        return tuple(dict.fromkeys(keys))

    @property
    def backends(self) -> BackendSettings:
        """The part that is about language model and voice.

        Raises:
            ConfigurationError: there is no such backend, or a value is out of range.
        """
        values: dict[str, Any] = {}
        for field in fields(BackendSettings):
            value = getattr(self, field.name)
            values[field.name] = value.get_secret_value() if isinstance(value, SecretStr) else value
        return BackendSettings(**values)

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine reach the server."""
        return self.host in LOOPBACK or self.host.startswith("127.")

    @property
    def uses_tls(self) -> bool:
        """Whether the server speaks HTTPS and WSS."""
        return self.tls_self_signed or self.tls_cert is not None

    def check(self) -> None:
        """Find what is wrong between settings.

        Raises:
            ConfigurationError: settings contradict each other, keys cannot be read, or the server
                would be open to anybody; ``key`` names the setting to change.
        """
        if not (self.keys or self.is_loopback or self.insecure_no_key):
            raise ConfigurationError(
                f"Anybody who reaches {self.host} could use the server: give --api-key or "
                "--api-key-file, listen on 127.0.0.1, or say --insecure-no-key.",
                key="host",
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_cert"
            raise ConfigurationError(
                "A certificate and its private key belong together: give --tls-cert and --tls-key.",
                key=missing,
            )
        if self.tls_self_signed and self.tls_cert is not None:
            raise ConfigurationError(
                "Choose --tls-self-signed or --tls-cert with --tls-key.", key="tls_self_signed"
            )
        for name in ("tls_cert", "tls_key"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ConfigurationError(
                    f"{path}: there is no such file; check --{name.replace('_', '-')}.", key=name
                )


def _read(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"{file}: cannot be read ({error.strerror}); check --settings.", key="settings"
        ) from None
    except ValueError as error:
        raise ConfigurationError(
            f"{file}: is not TOML ({error}); correct it.", key="settings"
        ) from None
    return {name.replace("-", "_"): value for name, value in values.items()}


def _read_keys(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigurationError(
            f"{file}: cannot be read ({reason}); check --api-key-file.", key="api_key_file"
        ) from None
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise ConfigurationError(
            f"{file}: holds no key; write one into each line.", key="api_key_file"
        )
    return keys


def _sentence(
    error: ValidationError,
    flags: Mapping[str, Any],
    file: Path | None,
    from_file: Mapping[str, Any],
) -> ConfigurationError:
    """The first thing that is wrong, where it was said, and what would be right."""
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    reason = first["msg"][:1].lower() + first["msg"][1:]
    if name in flags:
        where = f"--{name.replace('_', '-')}"
    elif name in from_file:
        where = f"{file}: {name}"
    else:
        where = ENVIRONMENT_PREFIX + name.upper()
    return ConfigurationError(f"{where} cannot be used: {reason}.", key=name)
