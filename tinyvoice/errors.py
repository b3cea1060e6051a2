"""The errors tinyvoice raises on purpose.

Each message is one sentence that says what is wrong with which file or key and what to do about it,
so that a program may show it to its user as it is. Faults of the program itself are not wrapped:
they surface as the exceptions they are.
"""

from __future__ import annotations


class TinyvoiceError(Exception):
    """Base of every error whose message is meant for the user."""


class AudioError(TinyvoiceError):
    """Audio that cannot be read or used.

    ``path`` is the name of the file, URL or other source as the caller gave it, if there is one.
    """

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class AudioTooLongError(AudioError):
    """Audio that is longer than a limit allows."""


class CheckpointError(TinyvoiceError):
    """A checkpoint that cannot be loaded or written.

    ``key`` is the configuration key, tensor name or file at fault, if there is one.
    """

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class ManifestError(TinyvoiceError):
    """A line of a data manifest that cannot be used; ``line`` counts from 1."""

    def __init__(self, message: str, *, path: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.line = line


class ConfigurationError(TinyvoiceError):
    """A setting with a value that cannot work; ``key`` names the setting, if there is one."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class MissingExtraError(TinyvoiceError):
    """Something needs an optional dependency that is not installed.

    ``extra`` is the extra of the package (``media`` in ``tinyvoice[media]``), ``what`` says what
    needs it and begins the sentence: ``"reading clip.mp4"``.
    """

    def __init__(self, extra: str, what: str) -> None:
        self.extra = extra
        self.what = what
        super().__init__(
            f"{what} needs the optional extra '{extra}': pip install 'tinyvoice[{extra}]'"
        )

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        # The default would call the class with the finished message, its only argument of record.
        return type(self), (self.extra, self.what)
