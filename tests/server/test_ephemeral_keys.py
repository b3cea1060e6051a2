"""Ephemeral keys: what they carry, how long they hold, and what breaks them."""

from __future__ import annotations

import json

import pytest

from tinyvoice.server.ephemeral_keys import (
    EphemeralKeyError,
    EphemeralKeys,
    derive_secret,
    looks_ephemeral,
)

CONFIGURATION = {"type": "realtime", "instructions": "Be brief. Ä\ud800", "tools": []}


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_carries_its_session_until_it_expires() -> None:
    clock = Clock()
    keys = EphemeralKeys(derive_secret(["k"]), now=clock)
    key = keys.make("realtime", CONFIGURATION, 10)
    assert key.startswith("ek_")
    assert looks_ephemeral(key)
    found = keys.read(key)
    assert (found.kind, found.configuration, found.expires_at) == (
        "realtime",
        CONFIGURATION,
        1_000_010,
    )
    clock.now += 9.9
    assert keys.read(key) == found  # a key may be used more than once
    clock.now += 0.1
    with pytest.raises(EphemeralKeyError, match="has expired"):
        keys.read(key)


def test_replicas_with_the_same_keys_accept_each_others() -> None:
    key = EphemeralKeys(derive_secret(["a", "b"])).make("transcription", {}, 60)
    assert EphemeralKeys(derive_secret(["b", "a"])).read(key).kind == "transcription"
    signed = EphemeralKeys(derive_secret(["a"], "shared")).make("realtime", {}, 60)
    assert EphemeralKeys(derive_secret(["other"], "shared")).read(signed).kind == "realtime"
    for other in (derive_secret(["a"]), derive_secret([], "a"), derive_secret([])):
        with pytest.raises(EphemeralKeyError, match="was not made by this server"):
            EphemeralKeys(other).read(key)
    assert derive_secret([]) != derive_secret([])


def test_no_change_goes_unnoticed() -> None:
    keys = EphemeralKeys(derive_secret([], "s"))
    key = keys.make("realtime", {"type": "realtime"}, 60)
    for at in range(3, len(key)):
        for replacement in "AQ.":
            changed = key[:at] + replacement + key[at + 1 :]
            if changed == key:
                continue
            with pytest.raises(EphemeralKeyError):
                keys.read(changed)


@pytest.mark.parametrize(
    "text", ["", "ek_", "ek_test", "ek_a.b", "sk-1", "ek_é.é", "ek_.", "ek_" + "A" * 100, "ek_A=.A"]
)
def test_what_is_no_key_of_ours_is_not_taken_for_one(text: str) -> None:
    assert not looks_ephemeral(text)
    with pytest.raises(EphemeralKeyError, match="malformed"):
        EphemeralKeys(b"s").read(text)


def test_a_session_that_does_not_fit_is_refused() -> None:
    keys = EphemeralKeys(b"s", largest=1_000)
    # What repeats itself is packed well, chance is not.
    keys.make("realtime", {"instructions": "Say nothing. " * 500}, 60)
    from secrets import token_hex

    with pytest.raises(EphemeralKeyError, match=r"send long instructions .* session\.update"):
        keys.make("realtime", {"instructions": token_hex(2_000)}, 60)


def test_the_signature_covers_what_is_read() -> None:
    """A key with claims of another is refused although both were signed."""
    keys = EphemeralKeys(b"s")
    first, second = (keys.make("realtime", {"n": number}, 60) for number in (1, 2))
    mixed = first.partition(".")[0] + "." + second.partition(".")[2]
    with pytest.raises(EphemeralKeyError, match="was changed"):
        keys.read(mixed)
    assert json.dumps(keys.read(first).configuration) == '{"n": 1}'
