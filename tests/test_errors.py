"""Errors that cross process borders and say what to install."""

import pickle

import pytest

from tinyvoice.errors import (
    AudioError,
    CheckpointError,
    ConfigurationError,
    ManifestError,
    MissingExtraError,
    TinyvoiceError,
)

ERRORS = [
    AudioError("a.wav: is empty.", path="a.wav"),
    CheckpointError("no tensor projector.norm", key="projector.norm"),
    ManifestError("line 3 is not JSON", path="train.jsonl", line=3),
    ConfigurationError("projector_type must be known", key="projector_type"),
    MissingExtraError("media", "clip.mp4: reading MP4 files"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_with_their_attributes(error: TinyvoiceError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_a_missing_extra_names_the_command_that_installs_it() -> None:
    error = MissingExtraError("media", "clip.mp4: reading MP4 files")
    assert str(error) == (
        "clip.mp4: reading MP4 files needs the optional extra 'media': "
        "pip install 'tinyvoice[media]'"
    )
