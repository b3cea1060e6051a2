"""Write down what is said in recordings.

Results go to standard output (or one file each into a folder), everything else to standard error.
A file that cannot be used is reported in one sentence; the others are still transcribed, and the
exit code is 1. The model is imported and loaded only once there is something for it to do.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from tinyvoice.cli.app import debugging, print_error
from tinyvoice.cli.options import Device, LoadInt8, ModelName, ModelPrecision, Precision
from tinyvoice.cli.progress import Activity, hidden
from tinyvoice.errors import AudioError, TinyvoiceError

if TYPE_CHECKING:
    from tinyvoice.audio import Audio, AudioLimits
    from tinyvoice.cli.streamed import StreamedRecording
    from tinyvoice.model.modeling import ASRModel
    from tinyvoice.model.transcript import Transcript

logger = logging.getLogger(__name__)

app = typer.Typer(add_completion=False)

STANDARD_INPUT = "-"

SMALL_MODEL_PARAMETERS = 50_000_000
"""Below this a CPU's threads cost more than they bring."""

_BATCH_SECONDS = 1800.0
"""Audio held in memory at a time, unless one clip alone is longer."""

_ANY_SIZE = 1e12
"""Megabytes that no file has: where ``inf`` is given for a limit."""


class Segmentation(StrEnum):
    """Where recordings are cut that the model does not take whole."""

    PAUSES = "pauses"
    FIXED = "fixed"


class OutputFormat(StrEnum):
    """How transcripts are written; the value is the suffix of their files."""

    TEXT = "txt"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


@dataclass(frozen=True)
class _Clip:
    """An input that could be read, and what messages and results call it."""

    name: str
    audio: Audio


@app.command(
    epilog="Subtitles: tinyvoice transcribe talk.mp3 --srt > talk.srt",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def transcribe(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...", help="Recordings: files, http(s) URLs, or - for standard input."
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per file, a line each.")
    ] = False,
    as_srt: Annotated[bool, typer.Option("--srt", help="Subtitles in SubRip format.")] = False,
    as_vtt: Annotated[bool, typer.Option("--vtt", help="Subtitles in WebVTT format.")] = False,
    words: Annotated[
        bool, typer.Option("--words", "-w", help="Add times and a confidence for each word.")
    ] = False,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Play the recordings into the streaming engine, which ends an utterance at each "
            "pause; partials are shown on a terminal.",
        ),
    ] = False,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="With --stream: the offline transcript beside it."),
    ] = False,
    speed: Annotated[
        float | None,
        typer.Option(
            "--speed",
            metavar="FACTOR",
            min=0.01,
            max=10_000.0,
            help="With --stream: 1 plays at speaking pace; without it as fast as it goes. "
            "The result is the same.",
        ),
    ] = None,
    model: ModelName = "embedded",
    device: Annotated[
        Device, typer.Option("--device", help="Where to compute; auto takes the fastest.")
    ] = Device.AUTO,
    dtype: ModelPrecision = Precision.AUTO,
    int8: LoadInt8 = False,
    segment: Annotated[
        Segmentation,
        typer.Option(
            "--segment",
            help="Where recordings longer than the model takes, 30 s or less, are cut: in pauses, "
            "leaving out what is no speech, or at the quietest points near that length.",
        ),
    ] = Segmentation.PAUSES,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=1, help="Clips computed together.")
    ] = 16,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Write one file per recording into DIR."
        ),
    ] = None,
    max_duration: Annotated[
        float,
        typer.Option(
            "--max-duration",
            envvar="TINYVOICE_MAX_DURATION",
            metavar="SECONDS",
            min=0.1,
            help="Refuse longer recordings.",
        ),
    ] = 14400.0,
    max_size: Annotated[
        float,
        typer.Option(
            "--max-size",
            envvar="TINYVOICE_MAX_SIZE",
            metavar="MB",
            min=0.001,
            help="Refuse larger files.",
        ),
    ] = 2048.0,
) -> None:
    """Write down what is said in recordings.

    Any length, almost any format (MP4, WebM and other video take the extra 'media').
    One file gives its plain text, several give 'name: text'.
    """
    from tinyvoice.audio import AudioLimits

    layout = _layout(as_json, as_srt, as_vtt)
    if files.count(STANDARD_INPUT) > 1:
        raise typer.BadParameter("- may be given once", param_hint="FILES")
    if layout in (OutputFormat.SRT, OutputFormat.VTT) and len(files) > 1 and output is None:
        raise typer.BadParameter(
            f"subtitles of several files need a folder: add --output DIR to --{layout}",
            param_hint="--output",
        )
    if not stream and (compare or speed is not None):
        raise typer.BadParameter("needs --stream", param_hint="--compare" if compare else "--speed")
    if stream and not compare and segment is not Segmentation.PAUSES:
        raise typer.BadParameter(
            "the engine ends an utterance at each pause; with --stream it is for --compare",
            param_hint="--segment",
        )
    if compare and layout in (OutputFormat.SRT, OutputFormat.VTT):
        raise typer.BadParameter("goes with text and --json only", param_hint="--compare")
    limits = AudioLimits(
        max_seconds=max_duration, max_bytes=int(min(max_size, _ANY_SIZE) * (1 << 20))
    )
    writer = _Writer(layout, words, [_display_name(file) for file in files], output)
    timed = words or layout in (OutputFormat.SRT, OutputFormat.VTT)
    options = {"device": device.value, "dtype": dtype.value, "load_in_8bit": int8}
    with Activity("Reading", total=len(files)) as activity, ExitStack() as stack:
        transcriber: _Transcriber | None = None
        reader = _Reader(files, limits, activity)
        failures = 0
        for clips in reader.batches(batch_size):
            if transcriber is None:
                activity.describe(f"Loading the model {model}")
                loaded = load_model(model, **options)
                transcriber = _Offline(loaded, timed, batch_size, segment, activity)
                if stream:
                    transcriber = _Streamed(stack, transcriber, speed, compare)
            activity.describe("Transcribing " + clips[0].name)
            results = transcriber([clip.audio for clip in clips])
            for clip, result in zip(clips, results, strict=True):
                if isinstance(result, TinyvoiceError):
                    print_error(_about(clip.name, result))
                    failures += 1
                else:
                    _print(writer.write(clip.name, result))
            activity.advance(len(clips))
    if failures or reader.failures:
        raise typer.Exit(1)


def _print(text: str) -> None:
    """Write to standard output at once, for whoever reads along."""
    with hidden():
        try:
            print(text, flush=True)
        except BrokenPipeError:
            raise  # nobody reads any more, which is no fault
        except OSError as error:
            raise TinyvoiceError(
                f"Standard output cannot be written ({error.strerror}): make room, or send it "
                "elsewhere."
            ) from error


def _layout(as_json: bool, as_srt: bool, as_vtt: bool) -> OutputFormat:
    chosen = [
        layout
        for layout, wanted in (
            (OutputFormat.JSON, as_json),
            (OutputFormat.SRT, as_srt),
            (OutputFormat.VTT, as_vtt),
        )
        if wanted
    ]
    if len(chosen) > 1:
        raise typer.BadParameter(
            "choose one of --json, --srt and --vtt", param_hint=f"--{chosen[1]}"
        )
    return chosen[0] if chosen else OutputFormat.TEXT


class _Reader:
    """Reads the inputs one after the other, reports those that fail, groups the others."""

    def __init__(self, files: Sequence[str], limits: AudioLimits, activity: Activity) -> None:
        self.failures = 0
        self._activity = activity
        self._files = files
        self._limits = limits

    def batches(self, batch_size: int) -> Iterator[list[_Clip]]:
        batch: list[_Clip] = []
        seconds = 0.0
        for file in self._files:
            try:
                clip = self._read(file)
            except TinyvoiceError as error:
                print_error(str(error))
                self.failures += 1
                self._activity.advance()
                continue
            if batch and seconds + clip.audio.duration > _BATCH_SECONDS:
                yield batch
                batch, seconds = [], 0.0
            batch.append(clip)
            seconds += clip.audio.duration
            if len(batch) == batch_size:
                yield batch
                batch, seconds = [], 0.0
        if batch:
            yield batch

    def _read(self, file: str) -> _Clip:
        from tinyvoice.audio import load_audio

        name = _display_name(file)
        if file != STANDARD_INPUT:
            return _Clip(name, load_audio(file, limits=self._limits))
        if sys.stdin is None or sys.stdin.isatty():
            raise AudioError(
                "standard input: is a terminal; pipe a recording into it, for example "
                "tinyvoice transcribe - < recording.wav",
                path=name,
            )
        logger.debug("reading standard input")
        return _Clip(name, load_audio(sys.stdin.buffer, name=name, limits=self._limits))


def _display_name(file: str) -> str:
    return "standard input" if file == STANDARD_INPUT else file


def load_model(name: str, **options: Any) -> ASRModel:
    """Load a model for use on the command line: quickly, and without transformers' own progress."""
    with _uncollected():
        from tinyvoice.model.startup import import_transformers

        import_transformers()

        from transformers.utils import logging as transformers_logging

        from tinyvoice.model.modeling import ASRModel

        if not debugging():
            transformers_logging.set_verbosity_error()
            transformers_logging.disable_progress_bar()
        model = ASRModel.from_pretrained(name, **options)
    _choose_threads(model)
    return model


def _choose_threads(model: ASRModel) -> None:
    """One thread for a small model on a CPU, unless ``OMP_NUM_THREADS`` says otherwise.

    Its matrices are too small to share: threads wait for each other longer than they work, many
    times longer where other programs run beside them.
    """
    import torch

    small = sum(parameter.numel() for parameter in model.parameters()) < SMALL_MODEL_PARAMETERS
    if small and model.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Suspend the search for garbage: importing torch and transformers makes none worth its time.

    They create a million objects that stay; looking through them again and again takes a fifth of
    the time from start to first word.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@dataclass(frozen=True)
class _Outcome:
    """What a recording gave; the other ways of transcribing it where they were asked for."""

    transcript: Transcript
    streamed: StreamedRecording | None = None
    offline: Transcript | None = None
    """Set where it is to be shown beside what was streamed."""


class _Transcriber(Protocol):
    def __call__(self, clips: Sequence[Audio], /) -> list[_Outcome | TinyvoiceError]:
        """Transcribe clips; for one that cannot be, the error."""


class _Offline:
    """Transcribes clips with all of their audio at hand."""

    def __init__(
        self,
        model: ASRModel,
        timed: bool,
        batch_size: int,
        segment: Segmentation,
        activity: Activity,
    ) -> None:
        self.model, self.timed, self.batch_size = model, timed, batch_size
        self._segment, self._activity = segment, activity

    def __call__(self, clips: Sequence[Audio]) -> list[_Outcome | TinyvoiceError]:
        """Transcribe clips together; if one of them makes that fail, one by one."""
        options: dict[str, Any] = {
            "word_timestamps": self.timed,
            "batch_size": self.batch_size,
            "segment": self._segment.value,
            "progress": lambda share: self._activity.under_way(share * len(clips)),
        }
        try:
            return [_Outcome(found) for found in self.model.transcribe(list(clips), **options)]
        except TinyvoiceError as error:
            if len(clips) == 1:
                return [error]
        return [self([clip])[0] for clip in clips]


class _Streamed:
    """Plays clips into an engine, which the stack closes."""

    def __init__(
        self, stack: ExitStack, offline: _Offline, speed: float | None, compare: bool
    ) -> None:
        from tinyvoice.cli.streamed import StreamedTranscriber

        self._offline = offline if compare else None
        self._engine = stack.enter_context(
            StreamedTranscriber(
                offline.model, word_times=offline.timed, at_once=offline.batch_size, speed=speed
            )
        )

    def __call__(self, clips: Sequence[Audio]) -> list[_Outcome | TinyvoiceError]:
        return [
            streamed if isinstance(streamed, TinyvoiceError) else self._outcome(clip, streamed)
            for clip, streamed in zip(clips, self._engine(clips), strict=True)
        ]

    def _outcome(self, clip: Audio, streamed: StreamedRecording) -> _Outcome | TinyvoiceError:
        if self._offline is None:
            return _Outcome(streamed.transcript, streamed)
        offline = self._offline([clip])[0]
        if isinstance(offline, TinyvoiceError):
            return offline
        return _Outcome(streamed.transcript, streamed, offline.transcript)


def _about(name: str, error: TinyvoiceError) -> str:
    return str(error) if name in str(error) else f"{name}: {error}"


class _Writer:
    """Gives a transcript its shape, and its place."""

    def __init__(
        self, layout: OutputFormat, words: bool, names: Sequence[str], folder: Path | None
    ) -> None:
        self._layout = layout
        self._words = words
        self._several = len(names) > 1
        self._targets = _targets(names, folder, layout) if folder else {}
        if folder:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TinyvoiceError(
                    f"{folder}: cannot be made a folder for the results ({error.strerror}); "
                    "choose another one."
                ) from error

    def write(self, name: str, outcome: _Outcome) -> str:
        """Return what belongs on standard output: the result, or where it has been written."""
        content = self._format(name, outcome)
        if name not in self._targets:
            between = " " if outcome.offline is None else "\n"
            named = self._several and self._layout is OutputFormat.TEXT
            prefix = f"{name}:{between}" if named else ""
            return prefix + content.removesuffix("\n")
        target = self._targets[name]
        try:
            target.write_text(content, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise TinyvoiceError(
                f"{target}: cannot be written ({error.strerror}); choose another --output."
            ) from error
        return str(target)

    def _format(self, name: str, outcome: _Outcome) -> str:
        transcript = outcome.transcript
        if self._layout is OutputFormat.JSON:
            return json.dumps(_record(name, outcome, self._words), ensure_ascii=False) + "\n"
        if self._layout is OutputFormat.TEXT:
            lines = [transcript.text]
            if outcome.offline is not None:
                lines = [f"streamed  {transcript.text}", f"offline   {outcome.offline.text}"]
            if self._words:
                lines += [
                    f"{word.start:9.3f} {word.end:9.3f} {word.confidence:6.3f}  {word.text}"
                    for word in transcript.words
                ]
            return "\n".join(lines) + "\n"
        from tinyvoice.subtitles import format_srt, format_vtt, make_cues, spread_words

        timed = transcript.words or spread_words(transcript.text, transcript.duration)
        return (format_srt if self._layout is OutputFormat.SRT else format_vtt)(make_cues(timed))


def _record(name: str, outcome: _Outcome, words: bool) -> dict[str, Any]:
    transcript = outcome.transcript
    record: dict[str, Any] = {
        "file": name,
        "text": transcript.text,
        "duration": round(transcript.duration, 3),
        "confidence": _rounded(transcript.confidence),
    }
    if words:
        record["words"] = [
            {
                "text": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "confidence": _rounded(word.confidence),
            }
            for word in transcript.words
        ]
    if outcome.streamed is not None:
        record["utterances"] = [
            {
                "text": final.text,
                "start": round(final.start, 3),
                "end": round(final.end, 3),
                "confidence": _rounded(final.confidence),
            }
            for final in outcome.streamed.finals
        ]
    if outcome.offline is not None:
        record["offline"] = outcome.offline.text
    return record


def _rounded(confidence: float | None) -> float | None:
    return None if confidence is None else round(confidence, 4)


def _targets(names: Sequence[str], folder: Path, layout: OutputFormat) -> dict[str, Path]:
    """Name a file for each result; recordings that share a stem keep their suffix, or a number."""
    stems = {name: _file_name(name).rpartition(".")[0] or _file_name(name) for name in names}
    targets: dict[str, Path] = {}
    for name, stem in stems.items():
        shared = sum(other == stem for other in stems.values()) > 1
        base = _file_name(name) if shared else stem
        candidate, number = folder / f"{base}.{layout}", 2
        while candidate in targets.values():
            candidate, number = folder / f"{base}-{number}.{layout}", number + 1
        targets[name] = candidate
    return targets


def _file_name(name: str) -> str:
    from urllib.parse import urlsplit

    if name.lower().startswith(("http://", "https://")):
        name = urlsplit(name).path.rstrip("/")
    return (
        Path(name).name.replace(" ", "_")
        if name == "standard input"
        else Path(name).name or "audio"
    )
