"""Settings of the engine and of a stream, with their limits.

A stream's settings may change while it runs; each change is checked before anything takes effect.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from tinyvoice.checks import in_range, one_of
from tinyvoice.errors import ConfigurationError
from tinyvoice.vad.segmentation import MAX_SECONDS, MIN_SECONDS
from tinyvoice.vad.settings import EndpointingSettings

EncoderForm = Literal["auto", "block", "window"]


@dataclass(frozen=True)
class StreamSettings(EndpointingSettings):
    """How one stream is cut into utterances and how often it is told about.

    Raises:
        ConfigurationError: a value is out of its range; ``key`` names the setting.
    """

    partials: bool = True
    partial_interval_ms: int = 320
    """Audio from one partial to the next, 32 to 10000; more where the engine is overloaded."""
    word_times: bool = True
    background: bool = False
    """Whether the stream gives way: it is worked on while no other stream has anything to do, and a
    little now and then. For recordings, which nobody is listening to."""
    end_likely: bool = False
    """Whether `EndOfTurnLikely` is told when the final pass is begun."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("partial_interval_ms", self.partial_interval_ms, 32, 10_000)

    def changed(self, **changes: Any) -> StreamSettings:
        """The settings with some of them replaced.

        Raises:
            ConfigurationError: there is no such setting, or its value is out of range.
        """
        return change(self, changes)


@dataclass(frozen=True)
class EngineSettings:
    """Limits that hold for all streams together.

    Raises:
        ConfigurationError: a value is out of its range; ``key`` names the setting.
    """

    max_streams: int = 256
    """Open streams; one more is refused with `EngineFullError`."""
    max_batch: int = 32
    """Streams that one pass of the model takes."""
    max_pending_s: float = 30.0
    """Audio of a stream, in seconds, that may wait to be heard; then `feed` waits."""
    max_unread_events: int = 1_000
    """Events of a stream that may wait to be read; then the stream fails. Of partials only the
    newest waits."""
    max_utterance_s: float = MAX_SECONDS
    """Speech beyond this is cut at its quietest point; sooner where the model takes less."""
    refuse_partial_gap_s: float = 1.5
    """Where partials came this much late (on the audio clock, the median of the last seconds), new
    streams are refused with `EngineOverloadedError`. So they are where finals did, or where audio
    waits this long to be heard: streams without partials say so, too. Recordings that are fed
    faster than speech, and streams in the background, do not count."""
    max_restarts: int = 5
    """How often in a minute a worker that died is replaced, 0 to 1000; then the engine closes."""
    encoder: EncoderForm = "auto"
    """``block``: blocks of frames with the past in a cache, for an encoder trained so. ``window``:
    a window encoded anew, for any encoder. ``auto`` chooses by the checkpoint."""
    threads: int | None = None
    """Threads of the model on a CPU: more than one pays only for large models. None chooses."""
    blas_threads: int | None = 1
    """Threads of numpy's matrix products, in the whole process while the engine is open. OpenBLAS
    lets its threads spin on all cores when a product is done, just when turn detection, here or in
    Pipecat, and the final pass both want one. None leaves them as they are."""
    freeze_objects: bool = False
    """Whether every object that there is once the model is loaded, the host program's too, is taken
    out of Python's search for garbage for good (`gc.freeze`). Libraries and model are a million
    objects that stay, and each full search of them stops every thread, the event loop's too, for
    tens of milliseconds. For programs that load the model at their start, as ``serve``, ``listen``
    and ``bench`` do; cycles of objects that the program drops later are never freed."""

    def __post_init__(self) -> None:
        in_range("max_streams", self.max_streams, 1, 100_000)
        in_range("max_batch", self.max_batch, 1, 4_096)
        in_range("max_pending_s", self.max_pending_s, 1.0, 3_600.0)
        in_range("max_unread_events", self.max_unread_events, 10, 1_000_000)
        in_range("max_utterance_s", self.max_utterance_s, 4 * MIN_SECONDS, MAX_SECONDS)
        in_range("refuse_partial_gap_s", self.refuse_partial_gap_s, 0.1, 3_600.0)
        in_range("max_restarts", self.max_restarts, 0, 1_000)
        one_of("encoder", self.encoder, ("auto", "block", "window"))
        if self.threads is not None:
            in_range("threads", self.threads, 1, 1_024)
        if self.blas_threads is not None:
            in_range("blas_threads", self.blas_threads, 1, 1_024)

    def changed(self, **changes: Any) -> EngineSettings:
        """The settings with some of them replaced; raises like the constructor."""
        return change(self, changes)


def change(settings: Any, changes: dict[str, Any]) -> Any:
    """A copy of the dataclass with some fields replaced, unknown ones refused by name."""
    known = [field.name for field in fields(settings)]
    for name in changes:
        if name not in known:
            raise ConfigurationError(
                f"There is no setting {name}: choose from {', '.join(known)}.", key=name
            )
    return replace(settings, **changes)
