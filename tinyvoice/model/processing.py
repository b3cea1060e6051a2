"""What goes into the model: log-mel features, the chat prompt, and training examples.

:class:`ASRProcessor` joins a Whisper feature extractor and the language model's tokenizer. Features
are those of :class:`~transformers.WhisperFeatureExtractor` for the clip as it is: nothing is padded
to 30 seconds, and each clip is clamped to its own maximum, so a clip has the same features alone
and in a batch. The processor does not read files, resample, or know how many audio tokens a clip
becomes: that depends on the projector, so the model says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import BatchFeature, WhisperFeatureExtractor
from transformers.processing_utils import ProcessorMixin
from transformers.tokenization_utils_base import AddedToken, PreTrainedTokenizerBase

from tinyvoice.errors import CheckpointError, ConfigurationError

AUDIO_TOKEN = "<audio>"  # stands for one projected frame in the prompt
END_OF_TURN = "<|im_end|>"
INSTRUCTION = "Transcribe the speech to text"
IGNORED_LABEL = -100  # torch's cross entropy leaves these positions out

# Whisper's clamp: nothing further than this below the clip's loudest bin, in log10 of power.
DYNAMIC_RANGE = 8.0
POWER_FLOOR = 1e-10


class TrainingExample(NamedTuple):
    """Token ids of a whole conversation and the labels of its answer, equally long lists."""

    input_ids: list[int]
    labels: list[int]


class ASRProcessor(ProcessorMixin):
    """Features and prompts of an :class:`~tinyvoice.model.modeling.ASRModel`.

    Args:
        feature_extractor: says sample rate, mel bands, window and hop of the features.
        tokenizer: the language model's, with a chat template. ``<audio>`` is added where missing.
        chat_template: replaces the tokenizer's own template when given.

    Raises:
        ConfigurationError: if there is no chat template.
    """

    def __init__(
        self,
        feature_extractor: WhisperFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
    ) -> None:
        chat_template = chat_template or tokenizer.chat_template
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)
        if not self.chat_template:
            raise ConfigurationError(
                "The tokenizer has no chat template: add chat_template.jinja to its folder.",
                key="chat_template",
            )
        if AUDIO_TOKEN not in tokenizer.get_vocab():
            token = AddedToken(AUDIO_TOKEN, normalized=False, special=True)
            tokenizer.add_tokens([token], special_tokens=True)
        self.audio_token_id: int = tokenizer.get_vocab()[AUDIO_TOKEN]
        self.end_of_turn_id: int = _end_of_turn_id(tokenizer)
        # The constants of the spectrogram, as the feature extractor makes them for every clip.
        self._window = torch.hann_window(feature_extractor.n_fft)
        self._mel_filters = torch.from_numpy(feature_extractor.mel_filters).to(torch.float32).T
        self._prompt_pieces: dict[tuple[str, str], tuple[list[int], list[int]]] = {}

    @property
    def sample_rate(self) -> int:
        """Samples per second that :meth:`features` expects."""
        return self.feature_extractor.sampling_rate

    @property
    def hop_seconds(self) -> float:
        """Seconds from one feature frame to the next."""
        return self.feature_extractor.hop_length / self.feature_extractor.sampling_rate

    @property
    def model_input_names(self) -> list[str]:
        """Names of what :meth:`__call__` returns."""
        return ["input_features", "input_features_mask"]

    def __call__(
        self,
        audio: np.ndarray | Sequence[np.ndarray],
        sampling_rate: int | None = None,
        **_: Any,
    ) -> BatchFeature:
        """Features of one clip or of several, as a mapping: see :meth:`features`.

        Raises:
            ConfigurationError: if ``sampling_rate`` is not the model's.
        """
        if sampling_rate is not None and sampling_rate != self.sample_rate:
            raise ConfigurationError(
                f"The clip has {sampling_rate} samples per second and the model takes "
                f"{self.sample_rate}: resample it first (tinyvoice.audio.resample).",
                key="sampling_rate",
            )
        single = isinstance(audio, np.ndarray) and audio.ndim == 1
        clips: Sequence[np.ndarray] = [np.asarray(audio)] if single else list(audio)
        features, mask = self.features(clips)
        return BatchFeature({"input_features": features, "input_features_mask": mask})

    def features(
        self, clips: Sequence[np.ndarray], device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel features of mono clips at :attr:`sample_rate`.

        Args:
            clips: float arrays ``(samples,)`` in [-1, 1], of any lengths.
            device: where to compute, and where the result lies.

        Returns:
            ``input_features (batch, mels, frames)``, float32, zero behind each clip's end, and
            ``input_features_mask (batch, frames)``, true where the clip is. A clip has
            ``samples // hop`` frames, and one at least.

        Raises:
            ConfigurationError: if there is no clip, or one that is not mono.
        """
        if len(clips) == 0:
            raise ConfigurationError("There is no clip to compute features of.", key="clips")
        spectra = [self._log_mel(clip, torch.device(device)) for clip in clips]
        lengths = torch.tensor([s.shape[1] for s in spectra], device=spectra[0].device)
        frames = int(lengths.max())
        features = spectra[0].new_zeros(len(spectra), spectra[0].shape[0], frames)
        for row, spectrum in zip(features, spectra, strict=True):
            row[:, : spectrum.shape[1]] = spectrum
        mask = torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]
        return features, mask

    def _log_mel(self, clip: np.ndarray, device: torch.device) -> torch.Tensor:
        """Whisper's log-mel ``(mels, frames)`` of one clip, unpadded."""
        samples = np.ascontiguousarray(clip, dtype=np.float32)
        if samples.ndim != 1:
            raise ConfigurationError(
                f"A clip must be mono, of shape (samples,), and this one has shape {clip.shape}.",
                key="clips",
            )
        extractor = self.feature_extractor
        shortest = max(extractor.n_fft, extractor.hop_length)
        if len(samples) < shortest:  # too short for one window: silence makes up the rest
            samples = np.pad(samples, (0, shortest - len(samples)))
        waveform = torch.from_numpy(samples).to(device)[None]
        window, filters = self._window.to(device), self._mel_filters.to(device)
        stft = torch.stft(
            waveform, extractor.n_fft, extractor.hop_length, window=window, return_complex=True
        )
        power = (stft[..., :-1].abs() ** 2).contiguous()
        log_mel = torch.clamp(filters @ power, min=POWER_FLOOR).log10()
        log_mel = torch.maximum(log_mel, log_mel.max() - DYNAMIC_RANGE)
        return ((log_mel + 4.0) / 4.0)[0]

    def prompt_ids(
        self, n_audio_tokens: int, system_prompt: str = "", instruction: str = INSTRUCTION
    ) -> list[int]:
        """Token ids of the prompt up to where the transcript begins.

        The user's message is ``<audio>`` once per projected frame, a space, and the instruction;
        a system message comes first when ``system_prompt`` is not empty.
        """
        before, after = self._pieces(system_prompt, instruction)
        return [*before, *[self.audio_token_id] * n_audio_tokens, *after]

    def training_example(
        self,
        text: str,
        n_audio_tokens: int,
        system_prompt: str = "",
        instruction: str = INSTRUCTION,
    ) -> TrainingExample:
        """Prompt, transcript and end of turn; the prompt's labels are :data:`IGNORED_LABEL`.

        An empty ``text`` teaches the model to answer nothing (silence, noise). Special tokens
        written out in ``text`` are read as plain characters.
        """
        prompt = self.prompt_ids(n_audio_tokens, system_prompt, instruction)
        answer = [*self.text_ids(text), self.end_of_turn_id]
        return TrainingExample(prompt + answer, [IGNORED_LABEL] * len(prompt) + answer)

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a transcript, without any special token."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids

    def _pieces(self, system_prompt: str, instruction: str) -> tuple[list[int], list[int]]:
        """The prompt's ids before and after the audio tokens.

        The template runs once per wording: a special token always splits the text around it, so
        the two sides have the same ids however many audio tokens stand between them.
        """
        key = (system_prompt, instruction)
        if key not in self._prompt_pieces:
            messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
            messages.append({"role": "user", "content": f"{AUDIO_TOKEN} {instruction}"})
            rendered = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.chat_template,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
            before, found, after = rendered.partition(AUDIO_TOKEN)
            if not found or AUDIO_TOKEN in after:
                raise ConfigurationError(
                    f"The chat template must write the user's {AUDIO_TOKEN} exactly once, and it "
                    f"wrote: {rendered[:200]!r}.",
                    key="chat_template",
                )
            ids = [self.tokenizer.encode(t, add_special_tokens=False) for t in (before, after)]
            self._prompt_pieces[key] = (ids[0], ids[1])
        return self._prompt_pieces[key]

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, **kwargs: Any
    ) -> list[str]:
        """Write tokenizer files, ``chat_template.jinja`` and ``preprocessor_config.json``.

        These are the files of the published checkpoints; the ``processor_config.json`` that newer
        transformers writes instead is left out.
        """
        self.tokenizer.chat_template = self.chat_template
        written = list(self.tokenizer.save_pretrained(save_directory, **kwargs))
        return written + self.feature_extractor.save_pretrained(save_directory, **kwargs)


def _end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that ends an answer: ``<|im_end|>``, or the tokenizer's own end of sequence."""
    if END_OF_TURN in tokenizer.get_vocab():
        return tokenizer.get_vocab()[END_OF_TURN]
    if tokenizer.eos_token_id is None:
        raise CheckpointError(
            f"The tokenizer has neither {END_OF_TURN} nor an end-of-sequence token.",
            key="eos_token",
        )
    return int(tokenizer.eos_token_id)
