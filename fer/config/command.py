"""The command line's side: a grammar, and a wrapper round each main that prints one line for an error."""

import argparse
import functools
import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn

from fer.config.errors import FerError, Interrupted, with_options

Main = Callable[[Sequence[str] | None], int]


def command(name: str, options: Mapping[str, str] = MappingProxyType({})) -> Callable[[Main], Main]:
    """Wrap a command's ``main(argv) -> exit code`` so that a user's error is one line on stderr and exit code 1.

    Args:
        name: stands before the error.
        options: key of ``fer.train`` -> the command's option for it, by which its messages name the setting.
    """

    def wrap(main: Main) -> Main:
        @functools.wraps(main)
        def guarded(argv: Sequence[str] | None = None) -> int:
            logging.raiseExceptions = False  # a closed pipe, as of "| head", must not flood the terminal
            _open_streams()
            logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # tells of its cache, once
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                with with_options(options):
                    return main(argv)
            try:
                with with_options(options):
                    return main(argv)
            except FerError as error:
                return _say(name, str(error), 1)
            except Interrupted as error:
                return _say(name, str(error), error.code)
            except KeyboardInterrupt:
                return _say(name, "interrupted", 130)
            except BrokenPipeError:  # whoever read this has read enough, as of "| head"
                sys.stdout = open(os.devnull, "w")  # or Python complains at its end
                return 0
            except OSError as error:  # a full disk, a folder that may not be written: the path is the news
                return _say(name, f"{error.filename or 'file system'}: {error.strerror or error}", 1)

        return guarded

    return wrap


def _open_streams() -> None:
    """Let nothing be lost or crash where standard output is closed or its encoding lacks a character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


class Grammar(argparse.ArgumentParser):
    """A command line whose faults are one line and exit code 1, as every other fault is."""

    def begin(self, argv: Sequence[str] | None) -> tuple[argparse.Namespace, str]:
        """Let what is logged go to standard output as it is, and return the arguments and, for the record, the line."""
        arguments = self.parse_args(argv)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
        return arguments, f"{self.prog} {shlex.join(sys.argv[1:] if argv is None else argv)}".strip()

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print after its usage."""
        raise FerError(f"{message}; --help lists what there is")


def _say(name: str, message: str, code: int) -> int:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    return code
