"""A microphone's packets, with a real encoder, on a clock that the test moves."""

from __future__ import annotations

import fractions
import random

import numpy as np
import pytest
from aiortc.codecs import CODECS, get_encoder
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import AudioFrame, CodecContext
from numpy.typing import NDArray

from tinyvoice.webrtc.incoming import IncomingAudio
from tinyvoice.webrtc.jitter_buffer import Packet

AUDIO = {codec.name: codec for codec in CODECS["audio"]}
OPUS = AUDIO["opus"]
FIRST_TIMESTAMP = 2**32 - 5_000
"""Soon wraps around."""


def tone(seconds: float, rate: int = 48_000, hertz: float = 440.0) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def encoded(codec: RTCRtpCodecParameters, signal: NDArray[np.float64]) -> list[Packet]:
    """The signal (48 kHz) in packets of 20 ms, as aiortc sends it."""
    encoder = get_encoder(codec)
    packets: list[Packet] = []
    for n, start in enumerate(range(0, len(signal) - 959, 960)):
        sound = np.repeat((signal[start : start + 960] * 32767).astype(np.int16), 2)
        frame = AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = (
            48_000,
            n * 960,
            fractions.Fraction(1, 48000),
        )
        payloads, timestamp = encoder.encode(frame)
        assert len(payloads) <= 1
        packets += [
            Packet(
                (65_500 + len(packets)) % 65_536,
                (FIRST_TIMESTAMP + timestamp) % 2**32,
                codec.payloadType or 0,
                payload,
            )
            for payload in payloads
        ]
    return packets


def samples(pcm: bytes) -> NDArray[np.int16]:
    return np.frombuffer(pcm, dtype="<i2")


def received(packets: list[Packet], codec: RTCRtpCodecParameters = OPUS) -> NDArray[np.int16]:
    """What comes out when every packet comes in time."""
    incoming = IncomingAudio([codec])
    return samples(b"".join(incoming.receive(each, n * 0.02) for n, each in enumerate(packets)))


@pytest.mark.parametrize("name", ["opus", "G722", "PCMU", "PCMA"])
def test_every_codec_comes_out_at_24_khz(name: str) -> None:
    packets = encoded(AUDIO[name], tone(2.0))
    heard = received(packets, AUDIO[name])
    assert len(heard) == len(packets) * 480
    middle = heard[12_000:36_000] / 32767
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) == 440
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


def test_stereo_is_averaged() -> None:
    left = tone(0.5)
    context = CodecContext.create("libopus", "w")
    context.sample_rate, context.layout, context.format = 48_000, "stereo", "s16"
    packets = []
    for n, start in enumerate(range(0, len(left), 960)):
        both = np.stack([left[start : start + 960], -left[start : start + 960]], axis=1)
        frame = AudioFrame.from_ndarray(
            (both.reshape(1, -1) * 32767).astype(np.int16), format="s16", layout="stereo"
        )
        frame.sample_rate, frame.pts = 48_000, n * 960
        packets += [bytes(each) for each in context.encode(frame)]
    heard = received([Packet(n, n * 960, 96, each) for n, each in enumerate(packets)])
    assert np.abs(heard).max() < 1_500  # of 16,384 in each channel


def test_packets_out_of_order_give_the_same_sound() -> None:
    packets = encoded(OPUS, tone(1.0))
    chance = random.Random(1)
    arrivals = sorted(
        (n * 0.02 + chance.uniform(0, 0.06) * (n > 0), n) for n in range(len(packets))
    )
    incoming = IncomingAudio([OPUS])
    heard = b"".join(incoming.receive(packets[n], at) for at, n in arrivals)
    assert samples(heard).tolist() == received(packets).tolist()
    assert incoming.statistics.filled_ms == 0


def test_what_is_lost_keeps_its_length_and_fades_into_silence() -> None:
    packets = encoded(OPUS, tone(1.0))
    incoming = IncomingAudio([OPUS])
    pieces = [
        incoming.receive(packet, n * 0.02) for n, packet in enumerate(packets) if not 20 <= n < 25
    ]
    heard = samples(b"".join(pieces))
    whole = received(packets)
    assert len(heard) == len(whole)
    # The encoder's look-ahead and the resampling filter move the gap by a few milliseconds.
    gap = np.abs(heard[20 * 480 : 25 * 480])
    assert gap[:480].max() > 8_000
    assert gap[480:960].max() < 10_000
    assert gap[1_200:-240].max() <= 1
    assert np.abs(heard[10 * 480 : 19 * 480]).max() > 10_000
    assert np.abs(heard[26 * 480 :]).max() > 10_000
    assert (incoming.statistics.lost, incoming.statistics.filled_ms) == (5, 100.0)


def pausing(packets: list[Packet], first: int, last: int) -> list[tuple[float, Packet]]:
    """A sender that says in packet ``first`` that it pauses, and sends again from ``last`` on."""
    kept = []
    for n, packet in enumerate(packets):
        if n < first or n >= last:
            number = (packet.sequence_number - (last - first - 1) * (n >= last)) % 65_536
            kept.append((n * 0.02, Packet(number, packet.timestamp, 96, packet.payload)))
        elif n == first:
            toc = packet.payload[:1]
            kept.append((n * 0.02, Packet(packet.sequence_number, packet.timestamp, 96, toc)))
    return kept


def play(incoming: IncomingAudio, arrivals: list[tuple[float, Packet]], until: float) -> list[int]:
    """Samples that had come out by each 20 ms of the clock."""
    counts, total, waiting = [], 0, list(arrivals)
    for tick in range(round(until / 0.02)):
        now = tick * 0.02
        while waiting and waiting[0][0] <= now:
            total += len(incoming.receive(waiting.pop(0)[1], now)) // 2
        total += len(incoming.elapse(now)) // 2
        counts.append(total)
    return counts


def test_a_sender_that_pauses_is_heard_as_silence_in_real_time() -> None:
    packets = encoded(OPUS, tone(2.0))
    incoming = IncomingAudio([OPUS])
    counts = play(incoming, pausing(packets, 30, 70), len(packets) * 0.02)
    behind = [(tick + 1) * 480 - count for tick, count in enumerate(counts)]
    assert max(behind) <= 0.1 * 24_000
    assert behind[-1] <= 0.02 * 24_000  # and afterwards nothing is missing or too much
    assert behind[-1] >= 0
    assert incoming.statistics.filled_ms == pytest.approx(39 * 20, abs=20)


def test_a_network_that_stalls_puts_no_silence_into_the_speech() -> None:
    packets = encoded(OPUS, tone(2.0))
    arrivals = [(n * 0.02 if not 30 <= n < 45 else 0.9, p) for n, p in enumerate(packets)]
    incoming = IncomingAudio([OPUS])
    counts = play(incoming, arrivals, len(packets) * 0.02)
    assert incoming.statistics.filled_ms == 0
    assert counts[-1] == len(packets) * 480


def test_a_sender_who_stops_is_heard_as_silence() -> None:
    incoming = IncomingAudio([OPUS])
    packets = encoded(OPUS, tone(0.5))
    counts = play(incoming, [(n * 0.02, p) for n, p in enumerate(packets)], 3.0)
    assert counts[-1] == pytest.approx(3.0 * 24_000, abs=0.1 * 24_000)


def test_silence_made_in_a_stall_is_taken_out_of_the_next_pause() -> None:
    packets = encoded(OPUS, tone(3.0))
    arrivals = pausing(packets, 80, 120)
    arrivals = [(max(at, 1.2) if at >= 0.5 else at, packet) for at, packet in arrivals]
    arrivals.sort(key=lambda each: each[0])
    incoming = IncomingAudio([OPUS])
    counts = play(incoming, arrivals, len(packets) * 0.02)
    assert counts[-1] - len(packets) * 480 < 0.6 * 24_000


def test_a_timestamp_that_jumps_without_time_passing_is_no_gap() -> None:
    packets = encoded(OPUS, tone(1.0))
    jumped = [
        Packet(p.sequence_number, (p.timestamp + 10**9 * (n >= 25)) % 2**32, 96, p.payload)
        for n, p in enumerate(packets)
    ]
    assert len(received(jumped)) == len(received(packets))


def test_damaged_and_empty_packets_are_gaps() -> None:
    packets = encoded(OPUS, tone(1.0))
    for n, payload in ((10, b""), (20, b"\xff" * 40), (30, b"\x03")):
        old = packets[n]
        packets[n] = Packet(old.sequence_number, old.timestamp, 96, payload)
    assert len(received(packets)) == len(received(encoded(OPUS, tone(1.0))))


def test_a_codec_that_was_not_agreed_on_is_not_heard() -> None:
    packets = encoded(AUDIO["PCMU"], tone(0.1))
    assert len(received(packets, OPUS)) == 0


def test_a_sender_that_changes_its_codec_goes_on_being_heard() -> None:
    incoming = IncomingAudio([OPUS, AUDIO["PCMA"]])
    first, second = encoded(OPUS, tone(1.0)), encoded(AUDIO["PCMA"], tone(1.0))
    arrivals = first + [
        Packet((first[-1].sequence_number + 1 + n) % 65_536, p.timestamp, 8, p.payload)
        for n, p in enumerate(second)
    ]
    heard = b"".join(incoming.receive(p, n * 0.02) for n, p in enumerate(arrivals))
    assert len(heard) // 2 == pytest.approx((len(first) + len(second)) * 480, abs=480)
