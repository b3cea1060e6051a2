"""Saving what `tinyvoice listen` hears: the sound as it came in, and the finals as text.

Both files grow while the stream runs, so that what was said until then survives a crash, except
for what the operating system had not yet written. Existing files are never overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from tinyvoice.cli.live_view import final_line
from tinyvoice.engine.events import Event, Final
from tinyvoice.errors import TinyvoiceError

_AUDIO_SUFFIXES = (".flac", ".wav")


def save_paths(place: str, now: datetime) -> tuple[Path, Path]:
    """Where sound and text go for what the user gave.

    A folder (one that exists, or with a slash at its end) gets files named after the time;
    ``talk`` means ``talk.flac`` and ``talk.txt``; ``talk.wav`` and ``talk.flac`` choose the format.
    """
    path = Path(place)
    if place.endswith(("/", "\\")) or path.is_dir():
        path = path / f"listen-{now:%Y%m%d-%H%M%S}"
    if path.suffix.lower() in _AUDIO_SUFFIXES:
        return path, path.with_suffix(".txt")
    return path.with_name(path.name + ".flac"), path.with_name(path.name + ".txt")


class Recorder:
    """Writes packets and events to files; used as a context.

    Raises:
        TinyvoiceError: a file exists already or cannot be written, at first or later: the disk may
            have filled up. Nothing is kept any more then, and what was kept stays.
    """

    def __init__(self, place: str, sample_rate: int, channels: int) -> None:
        self.sound_path, self.text_path = save_paths(place, datetime.now())
        self._sample_rate, self._channels = sample_rate, channels
        self._sound: soundfile.SoundFile | None = None
        self._text: TextIO | None = None
        self.failed = False
        """Whether a file could not be written: not all is kept."""

    def __enter__(self) -> Recorder:
        for path in (self.sound_path, self.text_path):
            if path.exists():
                raise TinyvoiceError(f"{path}: exists already; choose another name for --save.")
        try:
            self.sound_path.parent.mkdir(parents=True, exist_ok=True)
            self._text = self.text_path.open("x", encoding="utf-8")
            self._sound = soundfile.SoundFile(
                self.sound_path,
                "x",
                samplerate=self._sample_rate,
                channels=self._channels,
                subtype="PCM_16",
            )
        except (OSError, soundfile.LibsndfileError) as error:
            self.__exit__(None, None, None)
            raise TinyvoiceError(
                f"{self.sound_path}: cannot be written ({_reason(error)}); choose another place "
                "for --save."
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file, path in ((self._sound, self.sound_path), (self._text, self.text_path)):
            if file is None:
                continue
            known = self.failed
            try:
                with self._writing(path):
                    file.close()
            except TinyvoiceError:
                if not known and error is None:
                    raise

    def hear(self, packet: NDArray[Any]) -> None:
        """Add samples, ``(n,)`` or ``(n, channels)``, int16 or float32."""
        if self._sound is not None and not self.failed:
            with self._writing(self.sound_path):
                self._sound.write(np.ascontiguousarray(packet))

    def note(self, event: Event) -> None:
        """Add a final's line; other events leave no trace."""
        if self._text is None or self.failed:
            return
        if isinstance(event, Final) and event.text.strip():
            with self._writing(self.text_path):
                self._text.write(final_line(event) + "\n")
                self._text.flush()

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, soundfile.LibsndfileError) as error:
            self.failed = True
            raise TinyvoiceError(
                f"{path}: cannot be written any further ({_reason(error)}); make room on the disk, "
                "or choose another place for --save."
            ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).rstrip(".")
