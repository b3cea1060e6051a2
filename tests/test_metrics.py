"""The metrics' definitions, on utterances written by hand."""

import pytest

from tinyvoice.metrics import (
    METRICS,
    Distribution,
    Update,
    UtteranceRecord,
    WordErrors,
    delta_wer,
    distribution,
    first_partial,
    first_stable_word,
    join_text,
    partial_intervals,
    partial_lags,
    revised_words,
    revision_rate,
    stable_is_prefix,
    stable_prefix_rate,
    streams_held,
    time_to_final,
    ttfs,
    word_error_rate,
    word_errors,
)


def update(received: float, stable: str, tail: str, covered: float = 0.0) -> Update:
    return Update(received, stable, tail, fed=covered + 0.1, covered=covered)


# Speech from 10.0 to 11.5, its end decided at 11.7: first a wrong tail, then a right one.
SPOKEN = UtteranceRecord(
    onset=10.0,
    voice_end=11.5,
    decided=11.7,
    updates=(
        update(10.3, "", "turn of", 0.25),
        update(10.6, "turn", " on the", 0.55),
        update(10.95, "turn on", " the lie", 0.9),
    ),
    final="turn on the light",
    received=11.72,
    first_word_end=10.2,
)
SILENT = UtteranceRecord(
    onset=20.0, voice_end=20.8, decided=21.0, updates=(), final="stop", received=21.5
)


def test_latencies() -> None:
    assert time_to_final(SPOKEN) == pytest.approx(0.02)
    assert ttfs(SPOKEN) == pytest.approx(0.22)
    assert ttfs(SPOKEN, silence_s=0.5) == pytest.approx(0.52)
    assert first_partial(SPOKEN) == pytest.approx(0.3)
    assert first_stable_word(SPOKEN) == pytest.approx(0.4)
    assert partial_lags(SPOKEN) == pytest.approx([0.1, 0.1, 0.1])
    assert partial_intervals(SPOKEN) == pytest.approx([0.1, 0.3, 0.35, 0.55])


def test_an_utterance_without_partials() -> None:
    assert first_partial(SILENT) == pytest.approx(1.5)
    assert partial_intervals(SILENT) == pytest.approx([0.8])
    assert partial_lags(SILENT) == []
    assert first_stable_word(SILENT) is None
    assert revised_words(SILENT) == 0


def test_a_final_that_cuts_ongoing_speech_has_no_time_to_final() -> None:
    cut = UtteranceRecord(
        onset=0.0, voice_end=30.5, decided=None, updates=(), final="on and on", received=31.0
    )
    assert time_to_final(cut) is None
    assert ttfs(cut) is None


def test_a_partial_without_text_is_no_news() -> None:
    early = UtteranceRecord(
        10.0, 11.5, 11.7, (update(10.1, "", ""), update(10.3, "", "a")), "a", 11.72, 10.2
    )
    assert first_partial(early) == pytest.approx(0.3)
    assert partial_intervals(early) == pytest.approx([0.1, 1.2])
    assert first_stable_word(early) == pytest.approx(1.52)


def test_a_partial_after_the_voice_ends_the_intervals() -> None:
    late = UtteranceRecord(0, 0.8, 1.0, (update(0.4, "", "a"), update(0.9, "", "a")), "a", 1.0)
    assert partial_intervals(late) == pytest.approx([0.4, 0.5])


def test_revised_words_are_those_behind_the_common_beginning() -> None:
    assert revised_words(SPOKEN) == 2  # "of" and "lie"; "on the" stayed
    assert revision_rate([SPOKEN, SILENT]) == pytest.approx(2 / 5)
    assert revision_rate([]) is None
    taken_back = UtteranceRecord(0, 0.8, 1, (update(0.5, "", "one two three"),), "one", 1.1)
    assert revised_words(taken_back) == 2


def test_stable_text_is_a_prefix_by_characters() -> None:
    assert stable_is_prefix(SPOKEN)
    broken = UtteranceRecord(0, 0.8, 1, (update(0.5, "turn off", ""),), "turn on", 1.1)
    assert not stable_is_prefix(broken)
    assert stable_prefix_rate([SPOKEN, SILENT, broken]) == pytest.approx(2 / 3)
    assert stable_prefix_rate([]) is None


def test_the_blank_between_stable_and_tail() -> None:
    assert join_text("turn", " on") == join_text("turn ", "on") == join_text("turn", "on")
    assert join_text("", "on") == "on"
    assert join_text("turn", "") == "turn"


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("turn on the light", "turn on the light", WordErrors(0, 4)),
        ("Turn on, the light!", "turn ON the light", WordErrors(0, 4)),
        ("turn on the light", "turn off the big light", WordErrors(2, 4)),
        ("turn on the light", "", WordErrors(4, 4)),
        ("", "hello there", WordErrors(2, 0)),
        ("it’s me", "it's me", WordErrors(0, 2)),
    ],
)
def test_word_errors(reference: str, hypothesis: str, expected: WordErrors) -> None:
    assert word_errors(reference, hypothesis) == expected


def test_rate_weighs_utterances_by_their_words() -> None:
    assert word_error_rate([WordErrors(1, 1), WordErrors(0, 9)]) == pytest.approx(0.1)
    assert word_error_rate([WordErrors(2, 0)]) is None


def test_equal_texts_differ_by_nothing_with_certainty() -> None:
    errors = [WordErrors(1, 5), WordErrors(0, 3)] * 10
    difference = delta_wer(errors, errors)
    assert difference is not None
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    assert delta_wer([], []) is None


def test_the_interval_of_a_difference_is_paired() -> None:
    offline = [WordErrors(3, 10), WordErrors(0, 10)] * 50
    streamed = [WordErrors(4, 10), WordErrors(1, 10)] * 50
    difference = delta_wer(streamed, offline)
    assert difference is not None
    # Every utterance is worse by the same: however uneven they are, nothing is uncertain.
    assert difference.value == pytest.approx(0.1)
    assert difference.low == difference.high == pytest.approx(0.1)
    uneven = delta_wer([WordErrors(2, 10), WordErrors(0, 10)] * 50, [WordErrors(0, 10)] * 100)
    assert uneven is not None
    assert uneven.low < uneven.value < uneven.high


def test_distribution_leaves_out_what_is_unknown() -> None:
    spread = distribution([None, 0.1, 0.3, 0.2, None])
    assert spread is not None
    assert (spread.count, spread.greatest) == (3, 0.3)
    assert spread.p50 == pytest.approx(0.2)
    assert spread.p95 == pytest.approx(0.29)
    assert distribution([None]) is None


def spread(p95: float) -> Distribution:
    return Distribution(100, p95 / 2, p95, p95, p95)


@pytest.mark.parametrize(
    ("final", "interval", "counts", "reason"),
    [
        (0.3, 0.5, {}, ""),
        (0.301, 0.4, {}, "finals after 301 ms"),
        (0.1, 0.6, {}, "partials every 600 ms"),
        (0.1, 0.4, {"refused": 2}, "2 streams refused"),
        (0.1, 0.4, {"failed": 1}, "1 streams failed"),
        (0.1, 0.4, {"lost": 3}, "3 utterances lost"),
    ],
)
def test_streams_held(final: float, interval: float, counts: dict[str, int], reason: str) -> None:
    verdict = streams_held(spread(final), spread(interval), **counts)
    assert (verdict.held, verdict.reason) == (not reason, reason)


def test_nothing_heard_is_not_held() -> None:
    assert not streams_held(None, None).held


def test_names_are_those_of_the_table() -> None:
    assert all(name == metric.name and metric.definition for name, metric in METRICS.items())
