"""Our computation of Silero VAD against the package's own model."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tinyvoice.audio import load_audio
from tinyvoice.cli.demo import RECORDING
from tinyvoice.errors import CheckpointError
from tinyvoice.vad import WINDOW_SAMPLES, SileroVAD

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def vad() -> SileroVAD:
    return SileroVAD.load()


@pytest.fixture(scope="module")
def signals() -> dict[str, np.ndarray]:
    """Windows (k, 512) of what a microphone hears, of different lengths."""
    random = np.random.default_rng(7)
    speech = load_audio(RECORDING).samples
    sounds = {
        "speech": speech,
        "quiet speech": speech[8000:40000] * 0.05,
        "silence": np.zeros(16000, dtype=np.float32),
        "noise": random.normal(0, 0.1, 20000),
        "speech in noise": speech[:30000] + random.normal(0, 0.02, 30000),
        "clipped": np.clip(speech[20000:30000] * 50, -1, 1),
        "one window": speech[12000:12600],
    }
    return {name: windows(sound) for name, sound in sounds.items()}


def windows(samples: np.ndarray) -> np.ndarray:
    count = len(samples) // WINDOW_SAMPLES
    return samples[: count * WINDOW_SAMPLES].reshape(count, WINDOW_SAMPLES).astype(np.float32)


@pytest.fixture(scope="module")
def reference() -> Callable[[np.ndarray], np.ndarray]:
    from silero_vad import load_silero_vad

    model = load_silero_vad(onnx=False)

    def probabilities(stream: np.ndarray) -> np.ndarray:
        model.reset_states()
        with torch.no_grad():
            return np.array([float(model(torch.from_numpy(row), 16000)) for row in stream])

    return probabilities


def test_each_stream_alone_equals_the_package(
    vad: SileroVAD,
    signals: dict[str, np.ndarray],
    reference: Callable[[np.ndarray], np.ndarray],
) -> None:
    for name, stream in signals.items():
        (ours,) = vad.probabilities([vad.new_state()], [stream])
        assert ours.shape == (len(stream),)
        np.testing.assert_allclose(ours, reference(stream), atol=TOLERANCE, err_msg=name)


def test_speech_is_told_from_silence_and_noise(
    vad: SileroVAD, signals: dict[str, np.ndarray]
) -> None:
    likely = {
        name: vad.probabilities([vad.new_state()], [stream])[0] for name, stream in signals.items()
    }
    assert np.median(likely["speech"]) > 0.9
    assert likely["silence"].max() < 0.1
    assert likely["noise"].max() < 0.5


def test_streams_of_any_length_in_one_batch_give_what_each_gives_alone(
    vad: SileroVAD, signals: dict[str, np.ndarray]
) -> None:
    """Cut at random between calls, streams joining and pausing: neither cut nor company shows."""
    random = np.random.default_rng(3)
    alone = [vad.probabilities([vad.new_state()], [stream])[0] for stream in signals.values()]
    states = [vad.new_state() for _ in signals]
    left = list(signals.values())
    heard: list[list[np.ndarray]] = [[] for _ in signals]
    while any(len(stream) for stream in left):
        counts = [int(random.integers(0, 6)) for _ in left]
        pieces = [stream[:count] for stream, count in zip(left, counts, strict=True)]
        left = [stream[count:] for stream, count in zip(left, counts, strict=True)]
        for got, piece, result in zip(
            heard, pieces, vad.probabilities(states, pieces), strict=True
        ):
            assert result.shape == (len(piece),)
            got.append(result)
    for name, got, expected in zip(signals, heard, alone, strict=True):
        np.testing.assert_allclose(np.concatenate(got), expected, atol=1e-5, err_msg=name)


def test_one_window_at_a_time_gives_the_same(
    vad: SileroVAD, signals: dict[str, np.ndarray]
) -> None:
    stream = signals["speech"]
    (whole,) = vad.probabilities([vad.new_state()], [stream])
    state = vad.new_state()
    single = [vad.probabilities([state], [row[None]])[0][0] for row in stream]
    np.testing.assert_allclose(single, whole, atol=1e-5)


def test_results_of_one_call_do_not_change_with_the_next(
    vad: SileroVAD, signals: dict[str, np.ndarray]
) -> None:
    state = vad.new_state()
    (first,) = vad.probabilities([state], [signals["speech"]])
    kept = first.copy()
    vad.probabilities([state], [signals["noise"]])
    np.testing.assert_array_equal(first, kept)


def test_nothing_in_gives_nothing_out(vad: SileroVAD) -> None:
    assert vad.probabilities([], []) == []
    empty = np.zeros((0, WINDOW_SAMPLES), dtype=np.float32)
    (result,) = vad.probabilities([vad.new_state()], [empty])
    assert result.shape == (0,)


def test_windows_of_another_length_are_refused(vad: SileroVAD) -> None:
    with pytest.raises(ValueError, match=r"shape \(k, 512\), not \(1, 480\)"):
        vad.probabilities([vad.new_state()], [np.zeros((1, 480), dtype=np.float32)])


def test_weights_of_another_layout_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"another layout.*pip install"):
        SileroVAD({"stft.forward_basis_buffer": torch.zeros(258, 1, 256)})


def test_loading_leaves_the_number_of_threads_and_the_package_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Importing the package would limit torch to one thread for the whole program."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "silero_vad"]:
        monkeypatch.delitem(sys.modules, name)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        SileroVAD.load()
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert "silero_vad" not in sys.modules
