"""Turns the RTP packets of a microphone track into one unbroken stream of pcm16.

Any codec that aiortc decodes comes out as mono samples of one rate, in the order in which they were
spoken. What is missing has its length: a lost packet is taken from the copy in a later one where
the sender sends copies, and concealed elsewhere; the rest of a longer gap and the pauses in which a
sender sends nothing (discontinuous transmission) are silence, and a sender from whom nothing comes
is heard as silence in real time. What follows counts on an audio clock that never stands still. It
knows no peer connection and reads no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from aiortc.codecs import get_decoder
from aiortc.codecs.base import Decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import AudioFrame, FFmpegError
from numpy.typing import NDArray

from tinyvoice.audio.polyphase import PolyphaseResampler
from tinyvoice.webrtc.concealment import Concealment
from tinyvoice.webrtc.jitter_buffer import JitterBuffer, Packet
from tinyvoice.webrtc.redundancy import is_redundancy, unpacked

_TIMESTAMPS = 1 << 32

_STEP_S = 0.02
"""Silence of an idle sender is made in frames of this length, that of most packets."""

_PAUSE_BYTES = 2
"""A packet this short is the last before a pause in which the sender sends nothing (RFC 6716: an
Opus frame without content)."""

_LONGEST_JUMP_S = 1.0
"""How far a timestamp may run ahead of the time that passed; beyond it, the sender's clock was set
anew, and its timestamps say nothing about the gap."""


@dataclass
class IncomingStatistics:
    """What has come in so far."""

    packets: int = 0
    lost: int = 0
    late: int = 0
    recovered: int = 0
    """Taken from the copy that a later packet carried."""
    undecodable: int = 0
    filled_ms: float = 0.0
    """Put in for what did not come."""


@dataclass
class _Clock:
    """Where the next packet's timestamp should be, on the RTP clock of its codec."""

    rate: int
    sample_rate: int
    expected: int
    """Timestamp after the last packet's sound."""
    released_at: float
    """When that packet was released."""
    pausing: bool = False
    """Whether that packet announced a pause."""
    made: int = 0
    """Samples of silence made since, because nothing came."""
    ahead: int = 0
    """Samples of silence that turned out to be too much; later gaps are shorter by it."""


class IncomingAudio:
    """The sound of one track.

    Args:
        codecs: those agreed on, by payload type.
        sample_rate: of the pcm16 that comes out, Hz.
        patience_s: how long a missing packet is waited for.
        pause_s: so long after a packet that announced a pause, silence is made.
        stall_s: so long after any other packet; a shorter stall of the network puts no silence
            into a word.
    """

    def __init__(
        self,
        codecs: Sequence[RTCRtpCodecParameters],
        sample_rate: int = 24_000,
        patience_s: float = 0.08,
        pause_s: float = 0.06,
        stall_s: float = 0.4,
    ) -> None:
        self.sample_rate = sample_rate
        self.statistics = IncomingStatistics()
        self._codecs: Mapping[int, RTCRtpCodecParameters] = {
            codec.payloadType: codec
            for codec in codecs
            if codec.payloadType is not None and not is_redundancy(codec)
        }
        self._redundant = {codec.payloadType for codec in codecs if is_redundancy(codec)}
        self._pause_s = pause_s
        self._stall_s = stall_s
        self._buffer = JitterBuffer(patience_s)
        self._decoder: Decoder | None = None
        self._payload_type: int | None = None
        self._resampler = PolyphaseResampler(sample_rate, sample_rate)
        self._concealment = Concealment(sample_rate)
        self._clock: _Clock | None = None

    def receive(self, packet: Packet, now: float) -> bytes:
        """Take a packet at ``now`` (seconds); return the pcm16 that is ready, maybe none."""
        self.statistics.packets += 1
        if packet.payload_type not in self._redundant or not packet.payload:
            return self._heard(self._buffer.add(packet, now), now)
        *copies, own = unpacked(packet) or [replace(packet, payload=b"")]
        released: list[Packet] = []
        for copy in copies:
            if self._buffer.lacks(copy):
                self.statistics.recovered += 1
                released += self._buffer.add(copy, now)
        return self._heard(released + self._buffer.add(own, now), now)

    def elapse(self, now: float) -> bytes:
        """Time passes without a packet; return the pcm16 that is ready. Call every 20 ms or so."""
        pcm = self._heard(self._buffer.expire(now), now)
        clock = self._clock
        if clock is None or len(self._buffer):
            return pcm
        idle = now - clock.released_at
        if idle < (self._pause_s if clock.pausing else self._stall_s):
            return pcm
        step = round(_STEP_S * clock.sample_rate)
        steps = (int((idle - self._pause_s) * clock.sample_rate) - clock.made) // step
        if steps <= 0:
            return pcm
        clock.made += steps * step
        return pcm + self._filled(_silence(steps * step))

    def _heard(self, packets: Sequence[Packet], now: float) -> bytes:
        pcm = b"".join(self._decoded(packet, now) for packet in packets)
        self.statistics.lost, self.statistics.late = self._buffer.lost, self._buffer.late
        return pcm

    def _decoded(self, packet: Packet, now: float) -> bytes:
        """The packet's sound, and before it silence for what is missing."""
        codec = self._codecs.get(packet.payload_type)
        if codec is None or not packet.payload:
            return b""  # padding to probe the bandwidth; its time shows as a gap, if it has any
        if packet.payload_type != self._payload_type:
            self._decoder, self._payload_type = get_decoder(codec), packet.payload_type
            self._clock = None
        assert self._decoder is not None
        try:
            frames = self._decoder.decode(JitterFrame(packet.payload, packet.timestamp))
        except FFmpegError:
            frames = []
        samples = [_mono(frame) for frame in frames if isinstance(frame, AudioFrame)]
        if not samples:
            self.statistics.undecodable += 1
            return b""  # its time shows as a gap before the next packet
        rate = frames[0].sample_rate  # type: ignore[attr-defined]
        sound = np.concatenate(samples)
        gap = self._gap(packet.timestamp, codec.clockRate, rate, now)
        assert self._clock is not None
        # Where silence has been made already, the gap is no longer in the middle of a sound.
        lost = not (self._clock.pausing or self._clock.made)
        filled = self._filled(self._concealment.extend(gap) if lost else _silence(gap))
        length = len(sound) * codec.clockRate // rate
        self._clock.expected = (packet.timestamp + length) % _TIMESTAMPS
        self._clock.released_at, self._clock.made = now, 0
        self._clock.pausing = len(packet.payload) <= _PAUSE_BYTES
        return filled + self._converted(sound)

    def _gap(self, timestamp: int, clock_rate: int, sample_rate: int, now: float) -> int:
        """Samples of silence that belong before the sound of this timestamp."""
        clock = self._clock
        if clock is None:
            self._clock = _Clock(clock_rate, sample_rate, timestamp, now)
            if self._resampler.source_rate != sample_rate:
                self._resampler = PolyphaseResampler(sample_rate, self.sample_rate)
                self._concealment = Concealment(sample_rate)
            return 0
        half = _TIMESTAMPS // 2
        jump = (timestamp - clock.expected + half) % _TIMESTAMPS - half
        if jump < 0 or jump / clock_rate > now - clock.released_at + _LONGEST_JUMP_S:
            jump = 0
        missing = jump * sample_rate // clock_rate - clock.made - clock.ahead
        clock.ahead = max(0, -missing)
        return max(0, missing)

    def _filled(self, samples: NDArray[np.float32]) -> bytes:
        """Samples, at the decoder's rate, that stand for what did not come."""
        if not len(samples):
            return b""
        self.statistics.filled_ms += 1000 * len(samples) / self._resampler.source_rate
        return self._converted(samples)

    def _converted(self, samples: NDArray[np.float32]) -> bytes:
        self._concealment.hear(samples)
        converted = self._resampler.process(samples)
        scaled = np.round(np.clip(converted, -1.0, 1.0) * 32767.0)
        return scaled.astype("<i2").tobytes()


def _silence(count: int) -> NDArray[np.float32]:
    return np.zeros(count, dtype=np.float32)


def _mono(frame: AudioFrame) -> NDArray[np.float32]:
    """Samples ``(n,)`` in [-1, 1] of a packed 16-bit frame, its channels averaged."""
    interleaved: NDArray[Any] = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    return interleaved.astype(np.float32).mean(axis=1) / np.float32(32768)
