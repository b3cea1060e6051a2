"""G.711 against values of the standard and, where Python has it, another implementation."""

import warnings

import numpy as np
import pytest

from tinyvoice.audio.g711 import ALAW, MULAW, decode_alaw, decode_mulaw


@pytest.mark.parametrize(
    ("code", "value"),
    [(0x80, 32124), (0x00, -32124), (0xFF, 0), (0x7F, 0), (0xFE, 8), (0x7E, -8), (0xEF, 132)],
)
def test_mulaw_values_of_the_standard(code: int, value: int) -> None:
    assert MULAW[code] * 32768 == value


@pytest.mark.parametrize(
    ("code", "value"),
    [(0xAA, 32256), (0x2A, -32256), (0xD5, 8), (0x55, -8), (0xD4, 24), (0xC5, 264), (0xF5, 528)],
)
def test_alaw_values_of_the_standard(code: int, value: int) -> None:
    assert ALAW[code] * 32768 == value


def test_every_code_equals_the_standard_librarys() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop")
    codes = bytes(range(256))
    for table, convert in ((MULAW, audioop.ulaw2lin), (ALAW, audioop.alaw2lin)):
        np.testing.assert_array_equal(table * 32768, np.frombuffer(convert(codes, 2), "<i2"))


def test_any_shape_is_decoded_as_float32() -> None:
    codes = np.array([[0x80, 0x00], [0xFF, 0x7F]], dtype=np.uint8)
    for decode in (decode_mulaw, decode_alaw):
        samples = decode(codes)
        assert samples.shape == codes.shape
        assert samples.dtype == np.float32
        assert np.abs(samples).max() <= 1
