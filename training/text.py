"""Text normalisation: written English to the words a speaker says.

Training labels pass through :func:`normalise`, and so do both sides of every word-error comparison:
``what's 200 + 3.5?`` and ``what's two hundred plus three point five`` are the same words.

The result holds lower-case words separated by single blanks: letters and apostrophes inside words,
nothing else. Where English allows several readings one is chosen, so that labels are consistent:

* Cardinals have no "and": 123 is *one hundred twenty three*.
* Four digits from 1100 to 1999 and from 2010 to 2099 are read in pairs, as years are (*twenty
  nineteen*, *nineteen oh five*, *nineteen hundred*), unless a currency sign stands before them or a
  unit or thing counted behind them (``1200 dollars``); other numbers are cardinals (2000 is *two
  thousand*, 2005 *two thousand five*).
* A leading zero, and seven digits or more that are not a round number, are read digit by digit,
  and so are three digits or more behind letters (``abc123``); ``401k`` is *four oh one k*.
* 7:00 is *seven o'clock*, 7:00 pm *seven pm*, 7:05 *seven oh five*; am and pm are one word.
* 3/15 is *three fifteen*, 1/2 *one half*.
* Words that sound the same and are written in several ways have one spelling: *okay*, *goodbye*,
  *to do*, *traveling*; contractions get their apostrophe back (*whats* is *what's*).

It does not guess a date's month, read Roman numerals or spell out names, and it knows English only:
letters of other scripts pass through unchanged.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from tinyvoice.errors import MissingExtraError

_ABBREVIATIONS = {
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "drs": "doctors",
    "jr": "junior",
    "sr": "senior",
    "vs": "versus",
    "etc": "et cetera",
    "sgt": "sergeant",
}
"""Read out with or without a full stop."""

_DOTTED_ABBREVIATIONS = {
    "ms": "miss",
    "prof": "professor",
    "capt": "captain",
    "col": "colonel",
    "gen": "general",
    "gov": "governor",
    "hon": "honorable",
    "lt": "lieutenant",
    "maj": "major",
    "rev": "reverend",
    "sen": "senator",
    "rep": "representative",
    "ave": "avenue",
    "blvd": "boulevard",
    "dept": "department",
    "approx": "approximately",
}
"""Words of their own without the full stop, or too rare without it."""

_UNITS = {
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "kg": ("kilogram", "kilograms"),
    "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "ml": ("milliliter", "milliliters"),
    "ft": ("foot", "feet"),
    "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"),
    "tbsp": ("tablespoon", "tablespoons"),
    "tsp": ("teaspoon", "teaspoons"),
    "mph": ("mile per hour", "miles per hour"),
    "kmh": ("kilometer per hour", "kilometers per hour"),
}
"""Read out behind a number only."""

_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "sen", "sen"),
}

_SYMBOLS = {
    "&": "and",
    "+": "plus",
    "=": "equals",
    "%": "percent",
    "@": "at",
    "×": "times",
    "*": "times",
    "÷": "divided by",
    "#": "hash",
}

_FRACTIONS = {
    "1/2": "one half",
    "1/3": "one third",
    "2/3": "two thirds",
    "1/4": "one quarter",
    "3/4": "three quarters",
}

_COUNTED = (
    "dollars|bucks|euros|pounds|pence|cents|rubles|rupees|pesos|yen|yuan|won|francs|people|persons"
    "|miles|kilometers|meters|feet|yards|inches|grams|kilograms|ounces|tons|liters|gallons|calories"
    "|times|points|words|pages|steps|degrees|percent|watts|volts|square|cubic|"
    + "|".join(unit for unit in _UNITS)
)
"""What follows a number that counts: such a number is never a year."""

_SPELLINGS = {
    "ok": "okay",
    "goodnight": "good night",
    "todo": "to do",
    "todos": "to dos",
    "cancelled": "canceled",
    "cancelling": "canceling",
    "travelling": "traveling",
    "travelled": "traveled",
    "traveller": "traveler",
    "favourite": "favorite",
    "colour": "color",
    "grey": "gray",
    **{
        word.replace("'", ""): word
        for word in (
            "what's who's where's how's that's there's i'm i've you're you've they're isn't aren't "
            "wasn't weren't don't doesn't didn't can't couldn't wouldn't shouldn't haven't hasn't"
        ).split()
    },
}
"""One spelling of what sounds the same. Contractions only where the bare letters are no word."""

_DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NUMBER_WORD = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|oh|thirteen|fourteen|fifteen"
    "|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|noon|midnight"
)

# Characters without a decomposition into a base letter and an accent.
_FOLDED = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l", "ð": "d", "þ": "th", "ı": "i"}
    | dict.fromkeys("’‘ʼ`´′", "'")
    | dict.fromkeys("–—―−‐‑‒", "-")
)

_MARKER = re.compile(r"<\s*/?\s*\w+\s*/?\s*>|\[\s*\w+\s*\]")
_NUMBER = r"\d+(?:,\d{3})+(?!\d)|\d+"
_PLAIN = re.compile(r"[a-z ]*")
_CURRENCY = re.compile(
    rf"([$€£¥])\s*({_NUMBER})?(?:\.(\d+))?(?:\s*(k|m|bn|hundred|thousand|million|billion|trillion)\b)?"
)
_SCALES = {"k": "thousand", "m": "million", "bn": "billion"}
_CLOCK = re.compile(r"\b(\d{1,2}):([0-5]\d)(?!\d|:\d)(?:\s*(am|pm)\b)?(?:\s*(o'clock)\b)?")
_BARE_CLOCK = re.compile(r"\b(1[0-2]|[1-9])([0-5]\d)?\s*(am|pm)\b")
_SEVERAL_PARTS = re.compile(r"\b\d+(?:\.\d+){2,}\b")
_PHONE = re.compile(r"\b(?:(\d{3})[- .])?(\d{3})[-.](\d{4})\b")
_SPEAKABLE_MERIDIEM = re.compile(rf"\b({_NUMBER_WORD}|o'clock) am\b")


def normalise(text: str) -> str:
    """Return ``text`` as the lower-case words a speaker of English says, without punctuation.

    Normalising twice changes nothing. Text without any word gives ``""``.
    Raises MissingExtraError when a number has to be spelled out and num2words is not installed.
    """
    text = _fold(text) if _PLAIN.fullmatch(text) is None else f" {text} "
    text = _abbreviations(text)
    if any(character.isdigit() or character in "$€£¥°&+=%@×*÷#½¼¾" for character in text):
        text = _symbols(_numbers(text))
    text = re.sub(r"[^\w']|_", " ", text)
    # An apostrophe belongs to a word only between two of its letters.
    text = re.sub(r"(?<!\w)'+|'+(?!\w)|'(?=')", " ", text)
    text = re.sub(rf"\b({_NUMBER_WORD}|o'clock) ([ap]) m\b", r"\1 \2m", " ".join(text.split()))
    text = re.sub(r"\bo ?clock\b", "o'clock", text).replace("good bye", "goodbye")
    return " ".join(_SPELLINGS.get(word, word) for word in text.split())


def speakable(text: str) -> str:
    """Respell the words of a normalised ``text`` that a speech synthesiser would misread.

    Word for word: the result has as many blank-separated words as ``text``. Only *am* behind a
    time of day is concerned, which engines take for the verb.
    """
    return _SPEAKABLE_MERIDIEM.sub(r"\1 a.m.", text)


def _fold(text: str) -> str:
    """Lower-case, without accents, typographic variants and corpus markers, padded with blanks."""
    text = re.sub(r"(?<=\d) ?½", " and a half", text)
    text = re.sub(r"([½¼¾])", r" \1", text)
    text = unicodedata.normalize("NFKC", text.replace("…", " ").replace("´", "'"))
    text = text.replace("\N{FRACTION SLASH}", "/").lower()
    decomposed = unicodedata.normalize("NFD", text)
    # Combining marks are accents on Latin letters; other scripts keep theirs.
    text = re.sub(r"(?<=[a-z])[\u0300-\u036f]+", "", decomposed)
    text = unicodedata.normalize("NFC", text).translate(_FOLDED)
    return f" {_MARKER.sub(' ', text)} "


def _abbreviations(text: str) -> str:
    text = re.sub(r"\b([ap])\. ?m\b\.?", r"\1m", text)
    text = re.sub(r"(?<![\w'])((?:[a-z]\.){2,})", lambda m: m[1].replace(".", " "), text)
    text = re.sub(r"\bno\. ?(?=\d)", "number ", text)
    text = re.sub(r"(?<!\d)(?<!\d )\bft\. (?=[a-z])", "fort ", text)
    text = re.sub(r"\bmt\.? (?=[a-z])", "mount ", text)
    # "st louis" but "main st": the saint stands before a name, the street behind one.
    text = re.sub(r"(?<!\d)(?<!\d )\bst\.? (?=[a-z]{3})", "saint ", text)
    text = re.sub(r"(?<=[a-z] )st\b\.?", "street", text)
    for table, stop in ((_ABBREVIATIONS, r"\.?"), (_DOTTED_ABBREVIATIONS, r"\.")):
        pattern = rf"(?<![\w'.@])({'|'.join(table)}){stop}(?![\w'.])"
        text = re.sub(pattern, lambda m, table=table: table[m[1]], text)  # type: ignore[misc]
    return re.sub(r"(?<=\w)\.(com|org|net|edu|gov|io)\b", r" dot \1", text)


def _numbers(text: str) -> str:
    """Spell out everything with digits, special readings first."""
    text = _CURRENCY.sub(_currency, text)
    text = _PHONE.sub(lambda m: f" {' '.join(_digits(part) for part in m.groups() if part)} ", text)
    text = _CLOCK.sub(_clock, text)
    text = _BARE_CLOCK.sub(_bare_clock, text)
    text = re.sub(r"\b(\d/\d)\b(?!/)", lambda m: f" {_FRACTIONS.get(m[1], m[1])} ", text)
    text = re.sub(r"\b401 ?\(?k\b", " four oh one k ", text)
    text = re.sub(r"(?<=\d) ?x ?(?=\d)", " times ", text)
    text = re.sub(r"(?<=\d) - (?=\d)|(?<= )-(?=\.?\d)", " minus ", text)
    text = re.sub(r"#\s*(?=\d)", " number ", text)
    text = re.sub(r"\b(\d+)(?:st|nd|rd|th)(s?)\b", lambda m: _ordinal(int(m[1])) + m[2], text)
    text = re.sub(r"(?<![\w.])(\d{1,3}0)'?s\b", lambda m: _decade(m[1]), text)
    text = re.sub(
        rf"\b({_NUMBER}) ?({'|'.join(_UNITS)})\b\.?",
        lambda m: f"{m[1]} {_UNITS[m[2]][m[1] != '1']}",
        text,
    )
    text = _SEVERAL_PARTS.sub(lambda m: m[0].replace(".", " point "), text)
    text = re.sub(
        rf"(?<![\w.])({_NUMBER})?\.(\d+)",
        lambda m: f"{_cardinal(m[1]) if m[1] else ''} point {_digits(m[2])} ",
        text,
    )
    # Letters joined to digits are a code: its digits are read one by one when there are many.
    text = re.sub(r"(?<=[a-z])(\d+)", lambda m: f" {_code(m[1])} ", text)
    text = re.sub(rf"\b(1[1-9]|20)(\d\d)\b(?!,\d)(?!\s*(?:{_COUNTED})\b)", _year, text)
    return re.sub(_NUMBER, lambda m: f" {_cardinal(m[0])} ", text)


def _symbols(text: str) -> str:
    text = re.sub(r"°\s*([cf])\b", lambda m: f" degrees {_SCALE_NAMES[m[1]]} ", text)
    text = text.replace("°", " degrees ")
    return re.sub(r"[&+=%@×*÷#]", lambda m: f" {_SYMBOLS[m[0]]} ", text)


_SCALE_NAMES = {"c": "celsius", "f": "fahrenheit"}


def _currency(match: re.Match[str]) -> str:
    sign, whole, decimals, scale = match.groups()
    one, many, cent, cents = _CURRENCIES[sign]
    if whole is None and decimals is None:
        return f" {one} "
    whole = (whole or "0").replace(",", "")
    if scale:
        number = _cardinal(whole) + (f" point {_digits(decimals)}" if decimals else "")
        return f" {number} {_SCALES.get(scale, scale)} {many} "
    if decimals and len(decimals) > 2:
        return f" {_cardinal(whole)} point {_digits(decimals)} {many} "
    fraction = int((decimals or "0").ljust(2, "0"))
    parts = []
    if int(whole) or not fraction:
        parts.append(f"{_cardinal(whole)} {one if int(whole) == 1 else many}")
    if fraction:
        parts.append(f"{_cardinal(str(fraction))} {cent if fraction == 1 else cents}")
    return f" {' and '.join(parts)} "


def _clock(match: re.Match[str]) -> str:
    hour, minute, meridiem, oclock = match.groups()
    words = _cardinal(str(int(hour)))
    if minute == "00":
        words += "" if meridiem else " o'clock" if int(hour) <= 12 else " hundred"
    elif minute[0] == "0":
        words += f" oh {_DIGIT_NAMES[int(minute[1])]}"
    else:
        words += f" {_cardinal(minute)}"
    if oclock and minute != "00":
        words += " o'clock"
    return f" {words} {meridiem or ''} "


def _bare_clock(match: re.Match[str]) -> str:
    """``615am``: hour and minute without a colon."""
    hour, minute, meridiem = match.groups()
    if minute in (None, "00"):
        words = ""
    elif minute[0] == "0":
        words = f" oh {_DIGIT_NAMES[int(minute[1])]}"
    else:
        words = f" {_cardinal(minute)}"
    return f" {_cardinal(hour)}{words} {meridiem} "


def _year(match: re.Match[str]) -> str:
    century, rest = match[1], match[2]
    if century == "20" and rest < "10":
        return match[0]
    if rest == "00":
        return f" {_cardinal(century)} hundred "
    small = f"oh {_DIGIT_NAMES[int(rest)]}" if rest < "10" else _cardinal(rest)
    return f" {_cardinal(century)} {small} "


def _decade(digits: str) -> str:
    """``80`` → *eighties*, ``1990`` → *nineteen nineties*."""
    head, tens = digits[:-2], digits[-2:]
    if tens == "00":
        plural = "hundreds"
    elif tens == "10" or tens[0] == "0":
        plural = "tens"
    else:
        plural = _cardinal(tens)[:-1] + "ies"
    return f" {_cardinal(head) if head else ''} {plural} "


def _code(digits: str) -> str:
    return _digits(digits) if len(digits) >= 3 else _cardinal(digits)


def _cardinal(digits: str) -> str:
    digits = digits.replace(",", "")
    if len(digits) > 1 and digits[0] == "0":
        return _digits(digits)
    if len(digits) >= 7 and not digits.endswith("000"):
        return _digits(digits)
    if len(digits) > 15:
        return _digits(digits)
    return _words(int(digits), ordinal=False)


def _ordinal(number: int) -> str:
    return _words(number, ordinal=True)


def _digits(digits: str) -> str:
    return " ".join(_DIGIT_NAMES[int(digit)] for digit in digits)


@lru_cache(maxsize=10_000)
def _words(number: int, *, ordinal: bool) -> str:
    try:
        from num2words import num2words
    except ImportError as error:
        raise MissingExtraError("synthesis", "spelling out numbers") from error
    spelled: str = num2words(number, lang="en", to="ordinal" if ordinal else "cardinal")
    return re.sub(r"[-,]", " ", spelled.replace(" and ", " ")).replace("  ", " ")
