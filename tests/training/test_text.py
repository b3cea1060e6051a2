"""Tests of training.text."""

import pytest

from training.text import normalise, speakable

READINGS = {
    # the comparison both sides of a word error rate depend on
    "what's 200 + 3.5?": "what's two hundred plus three point five",
    "What's two hundred plus three point five": "what's two hundred plus three point five",
    # case, punctuation, typography
    "Hello, world!": "hello world",
    "“Don’t” — she said…": "don't she said",
    "café naïve Æon straße": "cafe naive aeon strasse",
    "the dogs' 'cause rock 'n' roll": "the dogs cause rock n roll",
    "well-known and/or k-12": "well known and or k twelve",
    "<noise> hi [laughter] there": "hi there",
    "": "",
    "?!": "",
    "привет": "привет",
    # cardinals, ordinals, decimals
    "123": "one hundred twenty three",
    "1,500,000 people": "one million five hundred thousand people",
    "007": "zero zero seven",
    "1234567": "one two three four five six seven",
    "3000000": "three million",
    "555-1234": "five five five one two three four",
    ".5 or 0.25 or 1.2.3": "point five or zero point two five or one point two point three",
    "the 1st, 22nd and 30th": "the first twenty second and thirtieth",
    "two 5ths": "two fifths",
    "1/2 cup, 3/15": "one half cup three fifteen",
    "1½ cups": "one and a half cups",
    "٣": "three",
    # years
    "in 1995": "in nineteen ninety five",
    "in 1905 and 1900": "in nineteen oh five and nineteen hundred",
    "in 2000 and 2005": "in two thousand and two thousand five",
    "in 2019": "in twenty nineteen",
    "1200 dollars": "one thousand two hundred dollars",
    "1066": "one thousand sixty six",
    "the 80s and 1990's": "the eighties and nineteen nineties",
    # money
    "$5": "five dollars",
    "$1": "one dollar",
    "$1200": "one thousand two hundred dollars",
    "$5.50": "five dollars and fifty cents",
    "$.50": "fifty cents",
    "£1,200.01": "one thousand two hundred pounds and one penny",
    "$3.5 million": "three point five million dollars",
    "€5k": "five thousand euros",
    # times of day
    "7:00": "seven o'clock",
    "7:00pm": "seven pm",
    "6:05 a.m.": "six oh five am",
    "615am": "six fifteen am",
    "7 p. m.": "seven pm",
    "seven a m": "seven am",
    "5 o'clock": "five o'clock",
    "five oclock": "five o'clock",
    "15:30": "fifteen thirty",
    # symbols and units
    "R&D": "r and d",
    "30% of #1": "thirty percent of number one",
    "me@example.com": "me at example dot com",
    "-5 °F": "minus five degrees fahrenheit",
    "5 - 6 = x": "five minus six equals x",
    "500 x 25": "five hundred times twenty five",
    "7lb 1 ft 60mph": "seven pounds one foot sixty miles per hour",
    # abbreviations and codes
    "Dr. Smith and Mr Jones": "doctor smith and mister jones",
    "St. Louis on Main St.": "saint louis on main street",
    "the U.S. economy": "the u s economy",
    "w2, w-2, abc123": "w two w two abc one two three",
    "my 401k": "my four oh one k",
}


@pytest.mark.parametrize(("written", "spoken"), READINGS.items(), ids=list(READINGS))
def test_reads_as_an_english_speaker_does(written: str, spoken: str) -> None:
    assert normalise(written) == spoken


@pytest.mark.parametrize("written", READINGS, ids=list(READINGS))
def test_is_idempotent(written: str) -> None:
    assert normalise(normalise(written)) == normalise(written)


def test_every_number_up_to_ten_thousand_becomes_words_only() -> None:
    for number in range(10_001):
        assert normalise(str(number)).replace(" ", "").isalpha(), number


def test_speakable_respells_the_time_of_day_and_keeps_the_number_of_words() -> None:
    text = "i am up at seven thirty am and six pm"
    assert speakable(text) == "i am up at seven thirty a.m. and six pm"
    assert len(speakable(text).split()) == len(text.split())


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("OK, add it to my todo list", "okay add it to my to do list"),
        ("whats the weather and hows traffic", "what's the weather and how's traffic"),
        ("good bye and goodnight", "goodbye and good night"),
        ("my flight was cancelled", "my flight was canceled"),
        ("I cant, you can't", "i can't you can't"),
        ("its cover and it's raining", "its cover and it's raining"),  # two words, both kept
    ],
)
def test_what_sounds_the_same_has_one_spelling(written: str, spoken: str) -> None:
    assert normalise(written) == spoken
    assert normalise(spoken) == spoken
