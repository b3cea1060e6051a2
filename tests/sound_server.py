"""A PulseAudio of a test's own: virtual rooms to play into and to record from, without hardware.

A null sink is a loudspeaker that nobody hears; its monitor is a microphone in the same room.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL

import pytest


@dataclass
class SoundServer:
    """A running server."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    """What leads programs to it."""

    def play(self, sound: Path, sink: str) -> None:
        """Play a file into a room, to its end."""
        subprocess.run(
            ["paplay", "--device", sink, sound],
            env=os.environ | self.environment,
            timeout=60,
            check=True,
        )

    def record(self, sink: str, sample_rate: int) -> subprocess.Popen[bytes]:
        """What a room hears, as int16 mono on standard output, until the process is ended."""
        return subprocess.Popen(
            [
                *("parec", "--raw", "--device", f"{sink}.monitor", "--format", "s16le"),
                *("--channels", "1", "--rate", str(sample_rate)),
            ],
            stdout=subprocess.PIPE,
            env=os.environ | self.environment,
        )


@contextmanager
def sound_server(folder: Path, *sinks: str) -> Iterator[SoundServer]:
    """A server with a null sink of 16 kHz for each name; the first is what programs find first."""
    for name in ("pulseaudio", "pactl", "paplay", "parec"):
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}: apt-get install pulseaudio pulseaudio-utils")
    if not list(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so")):
        pytest.skip("needs ALSA's way to PulseAudio: apt-get install libasound2-plugins")
    # A socket's path may have 107 characters, which pytest's folders may exceed.
    socket = Path(f"/tmp/tinyvoice-{os.getpid()}.pulse")
    environment = {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "PULSE_RUNTIME_PATH": str(folder),
        "PULSE_STATE_PATH": str(folder),
        "PULSE_SERVER": f"unix:{socket}",
        "DBUS_SESSION_BUS_ADDRESS": "disabled:",
    }
    modules = [f"module-native-protocol-unix socket={socket} auth-anonymous=1"]
    modules += [f"module-null-sink sink_name={sink} rate=16000 channels=1" for sink in sinks]
    server = subprocess.Popen(
        [
            *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"),
            "--high-priority=no",
            *(argument for module in modules for argument in ("-L", module)),
        ],
        env=os.environ | environment,
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        answers = False
        for _ in range(300):
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=0.1)
            answers = not subprocess.call(
                ["pactl", "info"], env=os.environ | environment, stdout=DEVNULL, stderr=DEVNULL
            )
            if answers or server.poll() is not None:
                break
        assert answers, f"pulseaudio does not start: {server.poll()}"
        yield SoundServer(server, environment)
    finally:
        server.terminate()
        server.wait(timeout=30)
        socket.unlink(missing_ok=True)
