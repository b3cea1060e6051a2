"""The table of figures in the documentation, written from what `tinyvoice eval -o` left behind.

Documents hold the table between two marks, so that a new measurement replaces the old one whole and
no figure is copied by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tinyvoice.errors import ConfigurationError, ManifestError

BEGIN = "<!-- figures: written by `tinyvoice analyse table` -->"
END = "<!-- end of figures -->"

VOICES_BEGIN = "<!-- voices: written by `tinyvoice analyse table` -->"
VOICES_END = "<!-- end of voices -->"

UNSEEN = "clinc-unseen"
"""The test set whose voices the model has never heard."""

_ORDER = ("clinc-known", "clinc-unseen", "fsdd", "no-speech", "ljspeech", "word-times", "speed")

_TITLES = {
    "clinc-known": "requests to an assistant, synthetic voices of the training set",
    "clinc-unseen": "the same requests, synthetic voices kept out of training",
    "fsdd": "single digits, two human speakers kept out of training",
    "no-speech": "silence, noise, hum, tones and clicks",
    "ljspeech": "a human reader, five clips",
    "word-times": "starts and ends of words, against the synthesiser",
}


def figures_table(folder: Path) -> str:
    """Return the Markdown table of all summaries in ``folder``.

    Raises ManifestError where there is none, or one that is broken.
    """
    figures: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            figures[summary["test_set"]] = summary
        except (ValueError, TypeError, KeyError) as error:
            raise ManifestError(
                f"{path} is no summary of `tinyvoice eval` ({error}): evaluate again.",
                path=str(path),
            ) from error
    if not figures:
        raise ManifestError(
            f"{folder} holds no figures: write them with `tinyvoice eval -d all -o {folder}`.",
            path=str(folder),
        )
    names = [name for name in _ORDER if name in figures]
    names += [name for name in figures if name not in _ORDER]
    rows = [row for name in names for row in _rows(figures[name])]
    return "\n".join(["| measured | on | figure |", "| --- | --- | --- |", *rows])


def voices_table(folder: Path) -> str | None:
    """Return the Markdown table of kept-out voices, the best understood first.

    None where the folder has no figures of `UNSEEN`. Raises ManifestError where they are broken.
    """
    path = folder / f"{UNSEEN}.json"
    if not path.is_file():
        return None
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["groups"]
        rows = [
            f"| {voice} | {group['utterances']:,} | {group['words']:,} | {group['wer']:.1%} | "
            f"{group['exact']:.0%} |"
            for voice, group in sorted(groups.items(), key=lambda item: float(item[1]["wer"]))
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ManifestError(
            f"{path} is no summary of `tinyvoice eval` ({error}): evaluate again.", path=str(path)
        ) from error
    head = "| voice kept out of training | utterances | words | word error rate | all right |"
    return "\n".join([head, "| --- | ---: | ---: | ---: | ---: |", *rows])


def _rows(summary: dict[str, Any]) -> list[str]:
    name = summary["test_set"]
    if name == "speed":
        return _speed_rows(summary)
    title = _TITLES.get(name, summary["title"])
    if name == "fsdd":
        return [_row("digits right", title, summary, f"**{summary['exact']:.1%}**")]
    if summary["wer"] is None:
        minutes = f"{summary['audio_seconds'] / 60:.0f} minutes"
        words = f"**{summary['insertions']}** words"
        return [f"| words heard where nobody speaks (`{name}`) | {title}, {minutes} | {words} |"]
    if name == "word-times" and summary["word_times"]:
        times = summary["word_times"]
        on = f"{title}, {times['words']:,} words"
        error = f"**{times['median_ms']:.0f} ms** median, {times['p95_ms']:.0f} ms at 95 %"
        return [f"| word times (`{name}`) | {on} | {error} |"]
    low, high = summary["wer_interval"]
    rate = f"**{summary['wer']:.1%}** ({low:.1%} to {high:.1%})"
    return [_row("word error rate", title, summary, rate)]


def _row(measured: str, title: str, summary: dict[str, Any], figure: str) -> str:
    on = f"{title}, {summary['utterances']:,} utterances"
    return f"| {measured} (`{summary['test_set']}`) | {on} | {figure} |"


def _speed_rows(speed: dict[str, Any]) -> list[str]:
    """Time waited; the processor's share is in ``speed.json``."""
    on = f"one core, {speed['machine'].partition(',')[0]}"
    rows = []
    for front in speed["front_ends"]:
        for key, what in (("single", "single clips of 3 to 10 s"), ("batch", "batches of 16")):
            rows.append(
                f"| real-time factor, {what} (`{front['front_end']}`) | {on} "
                f"| **{front[key]['wall']:.3f}** |"
            )
    return [
        *rows,
        f"| start of the program to the first transcript | {on} "
        f"| **{speed['start_seconds']:.1f} s** |",
        f"| peak memory of that program | {on} | **{speed['start_peak_mb']:,.0f} MB** |",
    ]


def replace_table(document: str, table: str, mark: str = BEGIN, last_mark: str = END) -> str:
    """Put ``table`` between two marks of ``document``.

    Raises ConfigurationError where the marks are missing.
    """
    head, begin, rest = document.partition(mark)
    _, end, tail = rest.partition(last_mark)
    if not begin or not end:
        raise ConfigurationError(f"The document lacks the lines {mark} and {last_mark}: add them.")
    return f"{head}{mark}\n\n{table}\n\n{last_mark}{tail}"
