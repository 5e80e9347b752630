"""Errors that a user can cause, and the wording of settings in their messages.

An error is one line: the wrong value, its key or location, and the correct value. ``config/command.py`` prints it.
"""

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from numbers import Real

# Control characters move the cursor or set a terminal's title. Marks turn the direction of writing. Bytes of names that
# are no UTF-8 can stand in no file of text.
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return a text with its control characters as escapes, such as those of a screen's colours; line ends stay."""
    return HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def in_one_line(text: str) -> str:
    """Return a text from a file, such as a name, with its control characters and line ends as escapes."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


class FerError(Exception):
    """An error that the user can correct; its message is one line."""


class NotFinite(FerError):
    """A network's values became NaN or infinite; nothing of that epoch is saved or scored."""


class OutOfMemory(FerError):
    """The memory of the computer or of the GPU is exhausted.

    Args:
        message: of one line.
        smaller_batch: ``data.batch_size`` with which the training may begin again; None if it may not.
    """

    def __init__(self, message: str, smaller_batch: int | None = None) -> None:
        super().__init__(message)
        self.smaller_batch = smaller_batch


class Interrupted(BaseException):
    """A signal ended a run or a sweep; ``code`` is 128 + the signal's number.

    Like ``KeyboardInterrupt`` it is no ``Exception``: code that continues after a failed job must stop here.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'cnn'?"`` for the choice nearest to ``word``, or an empty string if none is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


PLACE = "<value>"  # in the text of a setting
_options: dict[str, str] = {}  # key of fer.train -> option of the running command; empty in fer.train itself


def setting(key: str, value: object = "", plain: str | None = None) -> str:
    """Return a setting as the running command takes it: ``data.on_bad=skip``, or ``--on-bad skip``.

    Args:
        key: key of ``fer.train``.
        value: value of the key; empty where the user has to fill it in.
        plain: the value as an option takes it; None is ``value`` without brackets.
    """
    option = _options.get(key)
    if option is None or PLACE in option:
        text = f"{key}={value}" if option is None else option.replace(PLACE, str(value))
        return shlex.quote(text) if "{" in text or "'" in text else text  # a shell would expand braces, drop quotes
    text = str(value).strip("[]{}") if plain is None else shlex.quote(plain)
    return f"{option} {text}".rstrip()


def takes(key: str) -> bool:
    """Return whether the running command takes a setting, as an option of its own or as ``fer.train`` does."""
    return not _options or key in _options


def check_number(key: str, value: object, low: float, high: float, words: str = "{} to {}") -> None:
    """Raise unless a setting is a number in a range, which ``words`` states.

    Raises:
        FerError: naming the setting and the range.
    """
    expected = f"expected {words.format(f'{low:g}', f'{high:g}')}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise FerError(f"{key}: got {value!r}, which is no number; {expected}")
    if not low <= float(value) <= high:
        raise FerError(f"{setting(key, f'{float(value):g}')}: {expected}")


@contextmanager
def with_options(options: Mapping[str, str]) -> Iterator[None]:
    """Make ``setting`` name these options while a command runs.

    Args:
        options: key of ``fer.train`` -> the command's option, with ``PLACE`` where the value stands if not at its end.
    """
    before = dict(_options)
    _options.clear()
    _options.update(options)
    try:
        yield
    finally:
        _options.clear()
        _options.update(before)


def with_settings(settings: Mapping[str, str]) -> AbstractContextManager[None]:
    """Make ``setting`` write other settings for some keys, and those of the running command for the others.

    Args:
        settings: key -> the setting, with ``PLACE`` where the value stands.
    """
    return with_options({**_options, **settings})
