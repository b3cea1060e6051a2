"""A draft finds its way back to what it may still be right about."""

from __future__ import annotations

from tinyvoice.engine.draft import CAUTIOUS_TOKENS, RESYNC_WINDOW, Draft


def follow(draft: Draft, tokens: list[int]) -> list[tuple[bool, list[int]]]:
    """Whether each token was proposed, and what is proposed after it."""
    return [(draft.said(token), draft.proposal(99)) for token in tokens]


def test_what_is_proposed_is_the_rest() -> None:
    draft = Draft([1, 2, 3, 4], stops=())
    assert draft.proposal(9) == [1, 2, 3, 4]
    assert draft.proposal(2) == [1, 2]
    assert draft.proposal(-1) == []
    assert follow(draft, [1, 2]) == [(True, [2, 3, 4]), (True, [3, 4])]


def test_it_ends_before_a_stop_token() -> None:
    assert Draft([1, 2, 0, 3], stops={0}).proposal(9) == [1, 2]
    assert Draft([0], stops={0}).proposal(9) == []


def test_a_replaced_token_is_passed_over() -> None:
    assert follow(Draft([1, 2, 3, 4], ()), [1, 9, 3]) == [
        (True, [2, 3, 4]),
        (False, [3, 4]),
        (True, [4]),
    ]


def test_dropped_tokens_are_passed_over() -> None:
    assert follow(Draft([1, 2, 3, 4, 5], ()), [1, 4, 5]) == [
        (True, [2, 3, 4, 5]),
        (False, [5]),
        (True, []),
    ]


def test_after_added_tokens_it_goes_on_where_it_was() -> None:
    assert follow(Draft([1, 2, 3], ()), [1, 8, 9, 2, 3]) == [
        (True, [2, 3]),
        (False, [3]),
        (False, []),
        (False, [3]),
        (True, []),
    ]


def test_it_looks_a_few_tokens_ahead_only() -> None:
    far = [1, *range(10, 10 + RESYNC_WINDOW), 5, 6]
    cautious = far[1 : 1 + CAUTIOUS_TOKENS]
    assert follow(Draft(far, ()), [9, 9, 5]) == [(False, cautious), (False, []), (False, [])]


def test_after_a_departure_it_proposes_more_the_longer_it_is_right() -> None:
    draft = Draft(range(40), ())
    assert len(draft.proposal(100)) == 40
    draft.said(99)
    lengths = [len(draft.proposal(100))]
    for token in range(1, 13):
        draft.said(token)
        lengths.append(len(draft.proposal(100)))
    assert lengths == [4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8, 16]
