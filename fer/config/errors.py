"""The errors that a user can cause, and the one wrapper that prints them.

Bad input gets one line (what was wrong, where, what would be right) and exit code 1. ``HYDRA_FULL_ERROR=1`` shows the
traceback instead, for whoever hunts a bug of ours.
"""

import difflib
from collections.abc import Iterable


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
