"""Word errors that change what was meant, counted by rule instead of by a judge.

Pipecat's benchmark of recognisers lets a language model decide which differences would change an
agent's answer. Here the same kinds of difference that its instructions call harmless (case,
punctuation, contractions, digits or words, fillers, articles, plurals and possessives, spelling)
are written out by fixed rules, so that the same texts always give the same count. A judge forgives
more than rules can: this count is an upper bound of its.
"""

from __future__ import annotations

import re

from tinyvoice.metrics import WordErrors, normal_words, word_errors

FILLERS = frozenset("ah eh er erm hm hmm huh mhm mm mmm oh uh uhm um".split())

ARTICLES = frozenset({"a", "an", "the"})

CONTRACTIONS = {
    "ain't": "is not",
    "can't": "can not",
    "cannot": "can not",
    "gimme": "give me",
    "gonna": "going to",
    "gotta": "got to",
    "let's": "let us",
    "shan't": "shall not",
    "wanna": "want to",
    "won't": "will not",
    "y'all": "you all",
}

ENDINGS = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will", "'m": "am", "'d": "would"}

IS_AFTER = frozenset("he here how it she that there what when where who".split())
"""Words whose 's stands for "is"; behind others it is a possessive."""

SPELLINGS = {
    "alright": "all right",
    "catalogue": "catalog",
    "centre": "center",
    "cheque": "check",
    "colour": "color",
    "dialogue": "dialog",
    "favourite": "favorite",
    "flavour": "flavor",
    "grey": "gray",
    "metre": "meter",
    "neighbour": "neighbor",
    "ok": "okay",
    "organise": "organize",
    "programme": "program",
    "realise": "realize",
    "theatre": "theater",
    "travelling": "traveling",
    "tyre": "tire",
}


def meaning_errors(reference: str, hypothesis: str) -> WordErrors:
    """Least number of word edits between two texts, harmless differences left out."""
    return word_errors(meaning_text(reference), meaning_text(hypothesis))


def meaning_text(text: str) -> str:
    """The text with everything harmless made alike, words separated by single spaces."""
    words: list[str] = []
    for word in normal_words(_spelt_out(text)):
        words.extend(_expanded(word))
    return " ".join(_singular(word) for word in words if word not in FILLERS | ARTICLES)


def _spelt_out(text: str) -> str:
    """Digits as words, as people say them: years and telephone numbers keep their digits' order."""
    from num2words import num2words

    def say(match: re.Match[str]) -> str:
        digits = match.group().replace(",", "")
        if len(digits) > 4 or digits.startswith("0"):
            return " ".join(num2words(int(digit)) for digit in digits)
        return str(num2words(int(digits))).replace("-", " ").replace(" and ", " ")

    text = text.replace("-", " ").replace("%", " percent").replace("&", " and ")
    return re.sub(r"\d[\d,]*", say, text)


def _expanded(word: str) -> list[str]:
    known = CONTRACTIONS.get(word) or SPELLINGS.get(word)
    if known:
        return known.split()
    stem, _, rest = word.partition("'")
    if rest == "s":
        return [stem, "is"] if stem in IS_AFTER else [stem]
    for ending, full in ENDINGS.items():
        if word.endswith(ending) and len(word) > len(ending):
            return [word.removesuffix(ending), full]
    return [word.replace("'", "")]


def _singular(word: str) -> str:
    """Without a plural's s; a rule for comparing, not for reading."""
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
