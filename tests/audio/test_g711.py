"""G.711 against values of the standard and, where Python has it, another implementation."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest

from tinyvoice.audio.g711 import (
    ALAW,
    MULAW,
    decode_alaw,
    decode_mulaw,
    encode_alaw,
    encode_mulaw,
)

Codec = Callable[[np.ndarray], np.ndarray]


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


@pytest.mark.parametrize(
    ("encode", "decode"), [(encode_mulaw, decode_mulaw), (encode_alaw, decode_alaw)]
)
def test_a_sample_becomes_the_code_of_the_nearest_value(encode: Codec, decode: Codec) -> None:
    values = np.unique(decode(np.arange(256, dtype=np.uint8)))
    np.testing.assert_array_equal(decode(encode(values)), values)
    samples = np.random.default_rng(0).uniform(-1.2, 1.2, (50, 40)).astype(np.float32)
    nearest = np.abs(samples[..., None] - values).min(axis=-1)
    assert encode(samples).dtype == np.uint8
    assert encode(samples).shape == samples.shape
    np.testing.assert_allclose(np.abs(decode(encode(samples)) - samples), nearest, atol=1e-6)


def test_silence_has_the_codes_of_the_standard() -> None:
    silence = np.zeros(3, dtype=np.float32)
    assert encode_mulaw(silence).tolist() == [0xFF] * 3
    assert set(encode_alaw(silence).tolist()) <= {0xD5, 0x55}


def test_codes_equal_the_standard_librarys_but_at_ties() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop")
    integers = np.arange(-32768, 32768, dtype=np.int32).astype("<i2")
    samples = integers.astype(np.float32) / np.float32(32768)
    for encode, table, convert in (
        (encode_mulaw, MULAW, audioop.lin2ulaw),
        (encode_alaw, ALAW, audioop.lin2alaw),
    ):
        theirs = np.frombuffer(convert(integers.tobytes(), 2), np.uint8)
        ours = np.abs(table[encode(samples)] - samples)
        assert (ours <= np.abs(table[theirs] - samples)).all()
