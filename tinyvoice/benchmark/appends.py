"""A stream's packets as a client of the Realtime protocol sends them: 24 kHz PCM in base64 in JSON.

All of it is made in the load generator's process, and the resampling before the first packet is
due, so that whoever measures only hands ready messages on. Nothing heavy is imported.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.audio.pcm import PCMStream
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.load import LoadPlan, all_packets
from tinyvoice.benchmark.timeline import Placed, Timeline

PCM_RATE = 24_000
"""Samples a second of ``audio/pcm``."""

_HEAD, _TAIL = b'{"type":"input_audio_buffer.append","audio":"', b'"}'


def append_events(plan: LoadPlan) -> list[Iterator[bytes]]:
    """For each stream of a plan its packets as ``input_audio_buffer.append`` events."""
    return [map(append_event, packets) for packets in pcm_packets(plan)]


def append_event(pcm: bytes) -> bytes:
    """The event, in ASCII, that appends this 16-bit PCM."""
    return _HEAD + base64.b64encode(pcm) + _TAIL


def pcm_packets(plan: LoadPlan) -> list[Iterator[bytes]]:
    """For each stream of a plan its packets as 16-bit PCM of 24 kHz, as many as at 16 kHz."""
    timelines = [
        Timeline(
            tuple(Placed(one.clip, _scaled(one.start)) for one in timeline.placed),
            _scaled(timeline.samples),
        )
        for timeline in plan.timelines
    ]
    sounds = [_resampled(sound) for sound in plan.sounds]
    return all_packets(LoadPlan(sounds, timelines, plan.starts, _scaled(plan.packet_samples)))


def heard_by_server(plan: LoadPlan) -> Callable[[int, float, float], NDArray[np.float32]]:
    """What a server hears of a plan's streams: what is sent, resampled as a server does it.

    It is asked for a stream and two times in seconds, and gives the 16 kHz samples between them.
    """
    streams: dict[int, NDArray[np.float32]] = {}

    def listen(stream: int, begin: float, end: float) -> NDArray[np.float32]:
        if stream not in streams:
            sent = b"".join(pcm_packets(plan)[stream])
            streams[stream] = PCMStream(PCM_RATE).decode(sent)
        return streams[stream][round(begin * SAMPLE_RATE) : round(end * SAMPLE_RATE)]

    return listen


def _scaled(samples: int) -> int:
    return round(samples * PCM_RATE / SAMPLE_RATE)


def _resampled(sound: NDArray[np.int16]) -> NDArray[np.int16]:
    samples = resample(sound.astype(np.float32) / 32768.0, SAMPLE_RATE, PCM_RATE)
    return np.round(np.clip(samples * 32768.0, -32768.0, 32767.0)).astype(np.int16)
