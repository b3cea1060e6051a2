"""Silero voice activity detection: how likely each 32 ms window of 16 kHz sound holds speech.

The network of Silero VAD v6 (https://github.com/snakers4/silero-vad, MIT), computed here from the
weights that the package ``silero-vad`` carries: magnitudes of a short-time Fourier transform, four
convolutions, an LSTM cell from window to window. Convolutions run over all windows of all streams
at once, and the LSTM over all streams, so that many streams cost little more than one.

It returns probabilities. What counts as the start and the end of speech is decided elsewhere. There
is no 8 kHz model here: resample first.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from tinyvoice.errors import CheckpointError

WINDOW_SAMPLES = 512
"""Samples of a window at 16 kHz: 32 ms."""

CONTEXT_SAMPLES = 64
"""Samples of the window before that the network sees in front of each window."""

_FFT_SAMPLES = 256
_HOP_SAMPLES = 128
_BINS = _FFT_SAMPLES // 2 + 1
_HIDDEN = 128
_LSTM_TENSORS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_ARCHIVE = "silero_vad.jit"


@dataclass
class VADState:
    """What the network remembers of one stream; a new one is silence before the first sample.

    Attributes:
        context: ``(64,)`` float32, the last samples of the last window.
        memory: ``(2, 128)`` float32, output and memory of the LSTM cell.
    """

    context: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros(CONTEXT_SAMPLES, dtype=np.float32)
    )
    memory: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((2, _HIDDEN), dtype=np.float32)
    )

    def copy(self) -> VADState:
        """The same state, which goes its own way from here."""
        return VADState(self.context.copy(), self.memory.copy())


class SileroVAD:
    """The network, on the CPU; one serves any number of streams, each with its own state."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        try:
            self._fourier = weights["stft.forward_basis_buffer"].reshape(2 * _BINS, _FFT_SAMPLES)
            kernels = [weights[f"encoder.{layer}.reparam_conv.weight"] for layer in range(4)]
            self._biases = [weights[f"encoder.{layer}.reparam_conv.bias"] for layer in range(4)]
            # A convolution over frames is a product with each frame between its neighbours. With
            # two frames at stride 2, and with one, the rest of the kernel meets only padding.
            used = (kernels[0], kernels[1], kernels[2][:, :, 1:], kernels[3][:, :, 1:2])
            self._kernels = [kernel.transpose(1, 2).flatten(1).contiguous() for kernel in used]
            self._lstm = nn.LSTM(_HIDDEN, _HIDDEN)
            self._lstm.load_state_dict(
                {f"{name}_l0": weights[f"decoder.rnn.{name}"] for name in _LSTM_TENSORS}
            )
            self._head = weights["decoder.decoder.2.weight"].reshape(1, _HIDDEN)
            self._head_bias = weights["decoder.decoder.2.bias"]
        except (KeyError, RuntimeError, IndexError) as error:
            raise CheckpointError(
                f"The weights of Silero VAD have another layout than expected ({error}): "
                "pip install 'silero-vad>=6.2,<7'"
            ) from error

    @classmethod
    def load(cls) -> SileroVAD:
        """Read the weights that come with the package ``silero-vad``; nothing is downloaded.

        Raises:
            CheckpointError: the package or its weights are missing, or laid out differently.
        """
        return cls(_read_weights())

    def new_state(self) -> VADState:
        """The state of a stream of which nothing has been heard."""
        return VADState()

    @torch.inference_mode()
    def probabilities(
        self, states: Sequence[VADState], windows: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Probability of speech in each new window, of any number of streams at once.

        Args:
            states: one for each stream; they move on to behind the windows. No state may be
                there twice.
            windows: for each stream ``(k, 512)`` float32 samples in [-1, 1] at 16 kHz, in order;
                k may differ between streams and may be 0.

        Returns:
            For each stream ``(k,)`` float32 in [0, 1].
        """
        counts = [len(stream) for stream in windows]
        # Longest first: the streams that still have windows at a step are then the first rows.
        order = sorted((i for i, count in enumerate(counts) if count), key=lambda i: -counts[i])
        results = [np.zeros(0, dtype=np.float32)] * len(counts)
        if not order:
            return results
        framed = [_with_context(states[i], windows[i]) for i in order]
        features = self._features(torch.from_numpy(np.concatenate(framed)))
        lengths = [counts[i] for i in order]
        outputs = self._remember([states[i] for i in order], features.split(lengths))
        logits = F.linear(outputs.relu(), self._head, self._head_bias).flatten()
        for i, stream in zip(order, logits.sigmoid().split(lengths), strict=True):
            results[i] = stream.numpy()
        return results

    def _features(self, samples: Tensor) -> Tensor:
        """What the LSTM takes, (windows, 128), of windows with their context, (windows, 576)."""
        samples = F.pad(samples, (0, CONTEXT_SAMPLES), mode="reflect")
        spectrum = F.linear(samples.unfold(1, _FFT_SAMPLES, _HOP_SAMPLES), self._fourier)
        power = spectrum.square_()
        magnitudes = (power[..., :_BINS] + power[..., _BINS:]).sqrt_()  # (windows, 4, 129)
        kernels, biases = self._kernels, self._biases
        hidden = F.linear(_neighbours(magnitudes, stride=1), kernels[0], biases[0]).relu_()
        hidden = F.linear(_neighbours(hidden, stride=2), kernels[1], biases[1]).relu_()
        hidden = F.linear(hidden.flatten(1), kernels[2], biases[2]).relu_()
        return F.linear(hidden, kernels[3], biases[3]).relu_()

    def _remember(self, states: Sequence[VADState], features: Sequence[Tensor]) -> Tensor:
        """Run the LSTM over each stream's features, longest first; flat outputs in that order."""
        before = torch.from_numpy(np.stack([state.memory for state in states], axis=1))
        hidden, cell = before[:1], before[1:]
        if len(features[0]) == 1:  # the usual step of live streams
            outputs, cell = torch.lstm_cell(
                torch.cat(list(features)), (hidden[0], cell[0]), *self._lstm.all_weights[0]
            )
            after = torch.stack((outputs, cell)).numpy()
        else:
            packed, (hidden, cell) = self._lstm(pack_sequence(list(features)), (hidden, cell))
            outputs = torch.cat(unpack_sequence(packed))
            after = torch.cat((hidden, cell)).numpy()
        for row, state in enumerate(states):
            state.memory[:] = after[:, row]
        return outputs


def _read_weights() -> dict[str, Tensor]:
    """The tensors of the 16 kHz network in the package's archive.

    The archive is a TorchScript program of which only the tensors are taken. (The package's
    safetensors file holds an earlier training of the same network.) The package is not imported:
    that would set torch's number of threads for the whole process.
    """
    found = importlib.util.find_spec("silero_vad")
    folders = found.submodule_search_locations if found else None
    path = Path(folders[0] if folders else ".", "data", _ARCHIVE)
    if not path.is_file():
        raise CheckpointError(
            "The weights of Silero VAD cannot be found: pip install 'silero-vad>=6.2,<7'",
            key=_ARCHIVE,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit as a whole
        program = torch.jit.load(path, map_location="cpu")
    prefix = "_model."
    return {
        name.removeprefix(prefix): tensor.detach().clone()
        for name, tensor in program.state_dict().items()
        if name.startswith(prefix)
    }


def _neighbours(frames: Tensor, stride: int) -> Tensor:
    """Each ``stride``-th frame between its neighbours: (n, frames, c) to (n, frames', 3 × c)."""
    padded = F.pad(frames, (0, 0, 1, 1))
    count, length, channels = padded.shape
    return padded.as_strided(
        (count, (length - 3) // stride + 1, 3 * channels),
        (length * channels, stride * channels, 1),
    )


def _with_context(state: VADState, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put the last samples before it in front of each window (k, 512), and remember the next."""
    if windows.ndim != 2 or windows.shape[1] != WINDOW_SAMPLES:
        raise ValueError(f"windows have the shape (k, {WINDOW_SAMPLES}), not {windows.shape}")
    framed = np.empty((len(windows), CONTEXT_SAMPLES + WINDOW_SAMPLES), dtype=np.float32)
    framed[:, CONTEXT_SAMPLES:] = windows
    framed[0, :CONTEXT_SAMPLES] = state.context
    framed[1:, :CONTEXT_SAMPLES] = framed[:-1, -CONTEXT_SAMPLES:]
    state.context[:] = framed[-1, -CONTEXT_SAMPLES:]
    return framed
