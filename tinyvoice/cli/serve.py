"""Stand in for an OpenAI Realtime endpoint: speech to text, and conversations.

OpenAI's clients, Pipecat, agent SDKs and browsers talk to it unchanged; it says where to point each
of them. Every option is also an environment variable (TINYVOICE_MAX_SESSIONS) and a key of a
settings file (max_sessions). Ctrl-C and SIGTERM let turns in hand finish, then end it.
"""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import inspect
import os
import socket
import types
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from tinyvoice import __version__
from tinyvoice.cli.progress import Activity
from tinyvoice.errors import ConfigurationError, MissingExtraError

try:
    from tinyvoice.server.settings import ENVIRONMENT_PREFIX, ServerSettings
except ModuleNotFoundError:
    raise MissingExtraError("serve", "tinyvoice serve") from None

if TYPE_CHECKING:
    from tinyvoice.model.modeling import ASRModel
    from tinyvoice.realtime.backends.interface import Responder
    from tinyvoice.server.tls import Certificate

app = typer.Typer(add_completion=False)

_INTERRUPTED = 130
_NEEDED = ("aiortc", "fastapi", "prometheus_client", "python_multipart", "uvicorn", "websockets")

_PANELS = {
    "Where to listen": ("host", "port"),
    "Speech recognition": ("model", "device", "dtype", "threads", "max_batch", "refuse"),
    "Answers in conversations": ("llm", "tts", "connect_timeout_s", "espeak_processes"),
    "Who may come in": (
        "api_key",
        "api_key_file",
        "signing_secret",
        "insecure_no_key",
        "allowed_origins",
        "tls_cert",
        "tls_key",
        "tls_self_signed",
    ),
    "What is logged": ("log_level", "log_format", "log_content"),
}
"""Where --help lists a setting, or all settings whose first word it is; the others are limits."""

_SHORT = {"model": "-m", "port": "-p"}


def serve(**flags: Any) -> None:
    """Stand in for an OpenAI Realtime endpoint: speech to text, and conversations.

    Every option is also an environment variable (TINYVOICE_MAX_SESSIONS) and a key of a settings
    file (max_sessions); an option wins over the variable, and the variable over the file.
    """
    file = flags.pop("settings")
    settings = _load(flags, file)
    from tinyvoice.server import logs

    check_extra()
    settings.check()
    settings.backends  # noqa: B018 - an unknown backend is found before the model is loaded
    from tinyvoice.server.tls import certificate

    shown = certificate(settings)
    with bound(settings.host, settings.port) as sockets:
        logs.configure(settings.log_level, settings.log_format, settings.log_content)
        run(settings, sockets, shown, lambda port: _announce(settings, port, shown))


def run(
    settings: ServerSettings,
    sockets: list[socket.socket],
    shown: Certificate | None,
    announce: Callable[[int], None],
) -> None:
    """Open backends, load the model and serve until told to stop.

    ``announce`` is told the port to be reached at.

    Raises:
        typer.Exit: it was Ctrl-C.
    """
    from tinyvoice.server.app import opened_responder

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            # First, so that what they lack is said before the model is loaded, and that outside of
            # the event loop, so that Ctrl-C ends it.
            responder = runner.run(stack.enter_async_context(opened_responder(settings)))
            model = _load_model(settings)
            stopped = _serve(settings, model, responder, sockets, shown, announce)
            interrupted = runner.run(stopped)
        finally:
            runner.run(stack.aclose())
    if interrupted:
        raise typer.Exit(_INTERRUPTED)


def _load(flags: dict[str, Any], file: Path | None) -> ServerSettings:
    if file is None and (named := os.environ.get(ENVIRONMENT_PREFIX + "SETTINGS")):
        file = Path(named)
    given = {name: value for name, value in flags.items() if value is not None and value != []}
    try:
        return ServerSettings.load(given, file)
    except ConfigurationError as error:
        if error.key in given:
            raise typer.BadParameter(str(error)) from None
        raise


def check_extra() -> None:
    """Find out that something is missing before the model is loaded."""
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError("serve", "tinyvoice serve")


def _load_model(settings: ServerSettings) -> ASRModel:
    from tinyvoice.cli.transcribe import load_model

    with Activity(f"Loading the model {settings.model}"):
        return load_model(settings.model, device=settings.device, dtype=settings.dtype)


@contextmanager
def bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets at all addresses of a host, not yet listening; the port is taken from here on.

    Raises:
        ConfigurationError: the address cannot be used; ``key`` names the setting.
    """
    sockets: list[socket.socket] = []
    try:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not a name"
            raise ConfigurationError(
                f"There is no address {host} ({reason}): check --host.", key="host"
            ) from None
        for family, kind, protocol, _, address in dict.fromkeys(found):
            taken = socket.socket(family, kind, protocol)
            sockets.append(taken)
            if os.name == "posix":
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                taken.bind((address[0], port, *address[2:]))
            except OSError as error:
                raise _unusable(host, port, error) from None
            port = taken.getsockname()[1]
        yield sockets
    finally:
        for taken in sockets:
            taken.close()


def _unusable(host: str, port: int, error: OSError) -> ConfigurationError:
    if error.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"Port {port} of {host} is in use: stop the program that has it, or choose another "
            "--port (0 takes a free one).",
            key="port",
        )
    if error.errno == errno.EACCES:
        return ConfigurationError(
            f"Port {port} may not be used by this user: choose one from 1024 on.", key="port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigurationError(
            f"{host} is not an address of this machine: check --host.", key="host"
        )
    return ConfigurationError(
        f"Port {port} of {host} cannot be used ({error.strerror}): check --host and --port.",
        key="port",
    )


async def _serve(
    settings: ServerSettings,
    model: ASRModel,
    responder: Responder,
    sockets: list[socket.socket],
    shown: Certificate | None,
    announce: Callable[[int], None],
) -> bool:
    """Serve until told to stop; whether that was Ctrl-C."""
    from tinyvoice.server.app import build_app, build_engine, drain
    from tinyvoice.server.listener import Server, listener_config
    from tinyvoice.server.metrics import ServerMetrics

    metrics = ServerMetrics()
    async with build_engine(settings, model, metrics) as engine:
        application = build_app(settings, engine, responder, metrics)
        tls = {"ssl_context_factory": lambda *_: shown.context} if shown else {}
        port = sockets[0].getsockname()[1]

        listener = Server(
            listener_config(application, settings, **tls),
            lambda: drain(application, settings.drain_seconds),
            lambda: announce(port),
        )
        try:
            await listener.serve(sockets)
        except OSError as error:
            raise _unusable(settings.host, port, error) from error
        return listener.interrupted


def _announce(settings: ServerSettings, port: int, shown: Certificate | None) -> None:
    """Say where to point which client."""
    from rich.console import Console
    from rich.text import Text

    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    secure = "s" if shown else ""
    http, ws = f"http{secure}://{host}:{port}", f"ws{secure}://{host}:{port}"
    key = "YOUR_KEY" if settings.keys else "any"
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"tinyvoice {__version__} listens at {http}  "
        f"({settings.model} hears, {settings.llm} answers, {settings.tts} speaks)\n"
    )
    for client, how in _pointers(http, ws, key, secure=bool(shown)):
        console.print(Text(f"{client:20}", style="bold") + Text(how))
    if shown is not None and shown.fingerprint is not None:
        console.print(f"\nThe certificate's SHA-256 fingerprint is {shown.fingerprint}")
    if not (settings.keys or settings.is_loopback):
        console.print("\nNo key is needed: anybody who reaches this address may use the server.")
    console.print("\nCtrl-C lets turns in hand finish, then stops.")
    console.file.flush()


def _pointers(http: str, ws: str, key: str, *, secure: bool) -> Iterator[tuple[str, str]]:
    yield "OpenAI, Python", f'OpenAI(base_url="{http}/v1", api_key="{key}")'
    note = "" if secure else "  (its Realtime wants --tls-self-signed)"
    yield "OpenAI, JavaScript", f'new OpenAI({{ baseURL: "{http}/v1", apiKey: "{key}" }}){note}'
    # A page refuses to connect with anything but an ephemeral key, unless told that it is none.
    insecure = ", useInsecureApiKey: true" if key == "any" else ""
    shown = '"any"' if key == "any" else "an ephemeral key"
    yield (
        "Agents SDK, browser",
        f'new OpenAIRealtimeWebRTC({{ baseUrl: "{http}/v1/realtime/calls"{insecure} }})'
        f"  (connect with apiKey: {shown})",
    )
    yield "Pipecat", f'OpenAIRealtimeSTTService(base_url="{ws}/v1/realtime", api_key="{key}")'
    yield "WebSocket", f"{ws}/v1/realtime?intent=transcription"
    bearer = f' -H "Authorization: Bearer {key}"' if key != "any" else ""
    trust = " -k" if secure else ""
    yield (
        "curl",
        f"curl{trust} {http}/v1/audio/transcriptions{bearer} -F model=tinyvoice -F file=@talk.wav",
    )


# The options ---------------------------------------------------------------------------------


def _parameters() -> Iterator[inspect.Parameter]:
    """An option for each setting, in the order of `ServerSettings`, and --settings."""
    file = typer.Option(
        "--settings",
        metavar="FILE",
        help="TOML file with settings; also TINYVOICE_SETTINGS.",
        show_default=False,
    )
    yield _parameter("settings", Path | None, file)
    for name, field in ServerSettings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        described = " ".join((field.description or "").split()).replace("``", "'")
        option = typer.Option(
            *[flag, *([_SHORT[name]] if name in _SHORT else [])],
            help=described + _default(field.get_default()),
            show_default=False,
            rich_help_panel=_panel(name),
        )
        yield _parameter(name, _kind(name, field.annotation), option)


def _parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _kind(name: str, annotation: Any) -> Any:
    """What typer is to read for a setting of this type."""
    if get_origin(annotation) is Literal:
        words = {word.upper(): word for word in get_args(annotation)}
        choices: Any = StrEnum(name, words)  # type: ignore[misc]
        return choices | None
    if get_origin(annotation) is tuple:
        return list[str] | None
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    return (annotation if annotation in (int, float, bool, Path) else str) | None


def _default(value: Any) -> str:
    """What --help says of a default; nothing where there is none to speak of."""
    if value in (None, "", (), False) or "Secret" in type(value).__name__:
        return ""
    words = ", ".join(value) if isinstance(value, tuple) else str(value).removesuffix(".0")
    return f" Default: {words}."


def _panel(name: str) -> str:
    for panel, members in _PANELS.items():
        if name in members or name.partition("_")[0] in members:
            return panel
    return "Limits"


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the settings; typer reads its signature."""
    parameters = list(_parameters())
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return command


app.command(
    epilog="With a key, for other machines: tinyvoice serve --host 0.0.0.0 --api-key-file keys.txt",
    context_settings={"help_option_names": ["-h", "--help"]},
)(_with_options(serve))
