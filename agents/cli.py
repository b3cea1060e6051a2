"""Talk to a voice agent: parrot, dictation, receptionist or assistant.

By the machine's own microphone, in a browser (webrtc), or from a program of Pipecat's (websocket).
None of them needs a key or a network; the receptionist and the assistant take a language model with
--llm-url. The agents are files to copy: see the folder agents.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import importlib.util
import os
import socket
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyvoice.cli.options import ModelName
from tinyvoice.errors import ConfigurationError, MissingExtraError, TinyvoiceError

if TYPE_CHECKING:
    from .settings import AgentSettings

app = typer.Typer(add_completion=False)

_NEEDED = {
    "mic": ("sounddevice",),
    "websocket": ("fastapi", "uvicorn"),
    "webrtc": ("aiortc", "fastapi", "uvicorn"),
}


class Agent(StrEnum):
    """The agents there are."""

    PARROT = "parrot"
    DICTATION = "dictation"
    RECEPTIONIST = "receptionist"
    ASSISTANT = "assistant"


class Transport(StrEnum):
    """How to reach one."""

    MIC = "mic"
    WEBSOCKET = "websocket"
    WEBRTC = "webrtc"


@app.command(
    epilog="In a browser: tinyvoice agent parrot --transport webrtc",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def agent(
    name: Annotated[Agent, typer.Argument(help="Which one.")],
    transport: Annotated[
        Transport, typer.Option("--transport", "-t", help="How to talk to it.")
    ] = Transport.MIC,
    model: ModelName = "embedded",
    voice: Annotated[
        str, typer.Option(help="Its voice: alloy, coral, …, or a name of eSpeak NG's.")
    ] = "alloy",
    speed: Annotated[float, typer.Option(min=0.5, max=2.5, help="How fast it speaks.")] = 1.0,
    silence_ms: Annotated[
        int, typer.Option(min=100, max=5000, help="Silence that ends your turn.")
    ] = 600,
    llm_url: Annotated[
        str | None,
        typer.Option(
            envvar="TINYVOICE_AGENT_LLM_URL", help="OpenAI-compatible endpoint; none: a script."
        ),
    ] = None,
    llm_model: Annotated[
        str, typer.Option(envvar="TINYVOICE_AGENT_LLM_MODEL", help="The model's name there.")
    ] = "gpt-4.1-mini",
    llm_key_variable: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable that holds its key.")
    ] = "OPENAI_API_KEY",
    folder: Annotated[Path, typer.Option(help="Where notes and bookings are kept.")] = Path(
        "tinyvoice-agents"
    ),
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Microphone: its number or name.")
    ] = None,
    loudspeaker: Annotated[
        str | None, typer.Option(help="mic: loudspeaker, its number or name.")
    ] = None,
    half_duplex: Annotated[
        bool, typer.Option(help="mic: deaf while it speaks, for loudspeakers.")
    ] = False,
    host: Annotated[str, typer.Option(help="websocket, webrtc: where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 7860,
) -> None:
    """Talk to a voice agent: parrot, dictation, receptionist or assistant."""
    _check_installed(transport)
    # What can be wrong with the way in is found before anything heavy is loaded.
    listener = None
    if transport is Transport.MIC:
        from tinyvoice.audio.loudspeaker import find_loudspeaker
        from tinyvoice.audio.microphone import find_device

        find_device(device)
        find_loudspeaker(loudspeaker)
    else:
        listener = _listener(host, port)
    _quieten()
    from .settings import AgentSettings

    settings = AgentSettings(
        model=model,
        voice=voice,
        speed=speed,
        silence_ms=silence_ms,
        llm_url=llm_url,
        llm_model=llm_model,
        llm_key=os.environ.get(llm_key_variable),
        folder=folder,
    )
    run = importlib.import_module(f".{name.value}", __package__).run
    error = None
    try:
        if listener is None:
            error = asyncio.run(_talk_here(run, settings, device, loudspeaker, half_duplex))
        else:
            asyncio.run(_serve(run, settings, transport, listener))
    except KeyboardInterrupt:
        pass  # as announced
    if error is not None:
        raise error.with_traceback(None)


async def _talk_here(
    run: Any,
    settings: AgentSettings,
    device: str | None,
    loudspeaker: str | None,
    half_duplex: bool,
) -> TinyvoiceError | None:
    """Hold a conversation here; what it broke off for, if anything."""
    from tinyvoice.integrations import PipecatASRService
    from tinyvoice.integrations.pipecat_microphone import MicrophoneTransport
    from tinyvoice.integrations.shared_engine import close_engines

    transport = MicrophoneTransport(device, loudspeaker, half_duplex=half_duplex)
    await PipecatASRService.load(settings.model)
    print(f"Listening to {transport.device.name}. Ctrl-C ends.", file=sys.stderr, flush=True)
    try:
        await run(transport, settings)
    finally:
        await close_engines()
    return transport.error


async def _serve(
    run: Any, settings: AgentSettings, transport: Transport, listener: socket.socket
) -> None:
    import uvicorn

    from tinyvoice.integrations import PipecatASRService
    from tinyvoice.integrations.shared_engine import close_engines

    from .doors import Door

    await PipecatASRService.load(settings.model)
    config = uvicorn.Config(
        Door(run, settings).app(), log_level="warning", timeout_graceful_shutdown=1
    )
    host, port = listener.getsockname()[:2]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if transport is Transport.WEBRTC:
        print(f"Open http://{where}/ in a browser. Ctrl-C ends.", file=sys.stderr, flush=True)
    else:
        print(f"Listening on ws://{where}/ws. Ctrl-C ends.", file=sys.stderr, flush=True)
    try:
        await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        await close_engines()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"Port {port} is taken by another program: choose another with --port, or 0.",
                key="port",
            ) from None
        raise ConfigurationError(
            f"It cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}): give another "
            "--host or --port.",
            key="host",
        ) from None


def _check_installed(transport: Transport) -> None:
    for module in ("pipecat", "espeakng_loader", *_NEEDED[transport.value]):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError("agents", f"tinyvoice agent --transport {transport.value}")


def _quieten() -> None:
    """Pipecat logs every step to standard error unless told otherwise."""
    from loguru import logger

    from tinyvoice.cli.app import debugging

    logger.remove()
    logger.add(sys.stderr, level="DEBUG" if debugging() else "CRITICAL")
