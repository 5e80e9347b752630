"""The errors that a user can cause, and the one wrapper that prints them.

Bad input gets one line (what was wrong, where, what would be right) and exit code 1. ``HYDRA_FULL_ERROR=1`` shows the
traceback instead, for whoever hunts a bug of ours.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager


class FerError(Exception):
    """A fault that the user can mend; its message is one line."""


class Interrupted(BaseException):
    """A signal ended a run or a sweep; ``code`` is 128 + its number.

    Like ``KeyboardInterrupt`` no ``Exception``: whoever goes on after a failed job must not go on after this.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'cnn'?"`` for the choice nearest to ``word``, or an empty string if none is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


_options: dict[str, str] = {}  # key of fer.train -> option of the command that runs, where that has options


def setting(key: str, value: object = "") -> str:
    """Return a setting as the command at hand takes it: ``data.on_bad=skip``, or ``--on-bad skip``.

    Args:
        key: of ``fer.train``.
        value: of it; empty where a message leaves it to the reader.
    """
    option = _options.get(key)
    if option is None:
        return f"{key}={value}"
    return f"{option}{'' if option.endswith('=') else ' '}{str(value).strip('[]')}".rstrip()


@contextmanager
def with_options(options: Mapping[str, str]) -> Iterator[None]:
    """Let ``setting`` name these options while a command runs.

    Args:
        options: key of ``fer.train`` -> the command's option.
    """
    before = dict(_options)
    _options.clear()
    _options.update(options)
    try:
        yield
    finally:
        _options.clear()
        _options.update(before)
