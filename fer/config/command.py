"""The argument parser of all commands, and the wrapper of their ``main``.

The wrapper prints a user's error in one line.
"""

import argparse
import functools
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from fer.config.errors import FerError, Interrupted, visible, with_options
from fer.config.paths import expand_home

Main = Callable[[Sequence[str] | None], int]


def command(name: str, options: Mapping[str, str] = MappingProxyType({})) -> Callable[[Main], Main]:
    """Wrap a command's ``main(argv) -> exit code``: an error of the user is one line on stderr and exit code 1.

    With ``HYDRA_FULL_ERROR=1`` the error and its traceback pass through.

    Args:
        name: the command's name, before the error.
        options: key of ``fer.train`` -> the command's option for it, which messages name in place of the key.
    """

    def wrap(main: Main) -> Main:
        @functools.wraps(main)
        def guarded(argv: Sequence[str] | None = None) -> int:
            logging.setLogRecordFactory(Visible)
            logging.raiseExceptions = False  # a closed pipe, as of "| head", must not flood the terminal
            _open_streams()
            logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # else reports its cache
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                with with_options(options):
                    return main(argv)
            try:
                with with_options(options):
                    return main(argv)
            except Shown:
                raise
            except SystemExit as error:
                return _print_error(name, f"ended early: a network or plugin called exit({error.code})", 1)
            except FerError as error:
                return _print_error(name, str(error), 1)
            except Interrupted as error:
                return _print_error(name, str(error), error.code)
            except KeyboardInterrupt:
                return _print_error(name, "interrupted", 130)
            except BrokenPipeError:  # the reader has closed the pipe, as "| head" does
                sys.stdout = open(os.devnull, "w")  # else Python prints an error when it flushes at exit
                return 0
            except OSError as error:  # a full disk, a folder without write permission
                return _print_error(name, f"{error.filename or 'file system'}: {error.strerror or error}", 1)

        return guarded

    return wrap


def _open_streams() -> None:
    """Make printing safe: a closed stream discards its text, and a character outside the encoding becomes "?"."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def class_names(text: str) -> dict[str, str]:
    """Return folder -> emotion of an option such as ``1:surprise,2:fear``, with or without braces.

    Raises:
        argparse.ArgumentTypeError: it has another form.
    """
    parts: list[str] = []
    for part in text.strip("{} ").split(","):
        if parts and ":" not in parts[-1]:  # the comma is of a folder's name
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    pairs = [part.rpartition(":") for part in parts]
    if not all(name.strip() and emotion.strip() for name, _, emotion in pairs):
        raise argparse.ArgumentTypeError(f"{text!r}: expected FOLDER:EMOTION pairs, such as 1:surprise,2:fear")
    return {name.strip(): emotion.strip() for name, _, emotion in pairs}


def folder_named(text: str) -> Path:
    """Return the folder of an option, which may be missing; nothing is written.

    Raises:
        argparse.ArgumentTypeError: it has no name, or a file is in its way.
    """
    if not text:  # would stand for the current folder; such is a variable of a script that was not set
        raise argparse.ArgumentTypeError("an empty name; expected a folder")
    folder = expand_home(text)
    if in_the_way := next((part for part in (folder, *folder.parents) if part.is_file()), None):
        file = "" if in_the_way == folder else f"{in_the_way} "
        raise argparse.ArgumentTypeError(f"{text}: {file}is a file; name a folder")
    return folder


def writable_folder(text: str) -> Path:
    """Return the folder of an option for results; what is wrong with it is found before any work is done.

    Raises:
        argparse.ArgumentTypeError: it has no name, cannot be made, or cannot be written to.
    """
    folder = folder_named(text)
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: no folder can be made there ({error.strerror})") from error
    finally:
        for part in missing:  # made again by whoever writes: a refused command leaves none
            with suppress(OSError):
                part.rmdir()
    if not writable:
        raise argparse.ArgumentTypeError(f"{text}: without write permission; choose another folder")
    return folder


def writable_output(text: str) -> str:
    """Return the file of an option for a result, or the folder where it ends in a slash, checked before any work.

    Raises:
        argparse.ArgumentTypeError: it has no name, is of the other kind, or cannot be written.
    """
    if not text:
        raise argparse.ArgumentTypeError("an empty name; expected a file, or a folder that ends in a slash")
    output = str(expand_home(text))
    if names_folder(text):
        writable_folder(text)
        return output + os.sep  # which Path drops
    if Path(output).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: is a folder; name a file, or end it in a slash")
    writable_folder(str(Path(output).parent))
    return output


def names_folder(output: str) -> bool:
    """Return whether an output is a folder: its name ends in a slash."""
    return output.endswith(("/", os.sep))


class Visible(logging.LogRecord):
    """A log message whose names, which files state, cannot control the terminal."""

    def getMessage(self) -> str:
        """Return the message with its control characters as escapes."""
        return visible(super().getMessage())


class Shown(SystemExit):
    """Ends a command that has printed what it was asked to, such as its help."""


DETECTOR = "haar"  # where no option names another


def check_rule(split: str, rule: str | None) -> None:
    """Refuse a rule of the split where all faces are taken.

    Raises:
        FerError: ``--split all`` and ``--rule`` are given.
    """
    if split == "all" and rule is not None:
        raise FerError(f"--rule {rule}: --split all takes every face, whatever its split; leave one out")


class Grammar(argparse.ArgumentParser):
    """An argument parser whose errors are one line and exit code 1, like every other error."""

    def begin(self, argv: Sequence[str] | None) -> tuple[argparse.Namespace, str]:
        """Send log messages to standard output, and return the arguments and the command line as text."""
        arguments = self.parse_args(argv)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
        return arguments, f"{self.prog} {shlex.join(sys.argv[1:] if argv is None else argv)}".strip()

    def add_folder(self, name: str, meaning: str, default: Path | None = None) -> None:
        """Add the option of a folder for results."""
        self.add_argument(name, type=writable_folder, metavar="FOLDER", help=meaning, default=default)

    def add_network_and_detector(self) -> None:
        """Add the options of what predicts the faces of pictures."""
        self.add_argument(
            "--network",
            default="tiny",
            help="of the package (tiny), a run, a file of weights, an .onnx file, latest, or hf://owner/name of the "
            "hub; default: tiny",
        )
        self.add_download()
        self.add_detector()

    def add_detector(self) -> None:
        """Add the options of what finds the faces of pictures; ``fer.inference.detect.build`` makes it.

        Without the option its value is None, which stands for ``DETECTOR``.
        """
        self.add_argument(
            "--detector", choices=["haar", "yunet", "yuface", "none"],
            help="default: haar; none: each picture is a face that was cut out already",
        )  # fmt: skip
        self.add_argument("--detector-model", type=Path, metavar="FILE", help="YuNet's .onnx, of opencv_zoo")

    def add_download(self) -> None:
        """Add the option that allows to fetch a network; without it no command uses the internet."""
        self.add_argument(
            "--download", action="store_true",
            help="ask the hub for the newest files of hf://owner/name; default: read its cache alone",
        )  # fmt: skip

    def add_reading(self) -> None:
        """Add the options that say how ``--data`` is read, if not as in training."""
        self.add_argument(
            "--rule", choices=["official", "as_given", "holdout"],
            help="how --data is split; default: as in training",
        )  # fmt: skip
        self.add_argument("--on-bad", choices=["error", "skip"], help="what a bad row or picture of --data does")
        self.add_argument(
            "--class-names", type=class_names, metavar="FOLDER:EMOTION,...",
            help="meaning of class folders of --data, such as 1:surprise,2:fear; default: as in training, for its data",
        )  # fmt: skip

    def add_coverage(self) -> None:
        """Add the option of the prediction sets' promise."""
        self.add_argument(
            "--coverage", type=float, metavar="SHARE",
            help="promised share of faces whose prediction set holds the label; default: 0.9, of networks that have "
            "sets",
        )  # fmt: skip
        self.add_coverage_by()

    def add_coverage_by(self, of: str = "") -> None:
        """Add the option that names the faces of the promise; its help begins with what it is of."""
        self.add_argument(
            "--coverage-by", choices=["all", "class"], default="all",
            help=f"{of}all: promised over all faces together; class: for the faces of each emotion; default: all",
        )  # fmt: skip

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End after the help; any other exit is not the command's own."""
        raise Shown(status)

    def error(self, message: str) -> NoReturn:
        """Raise the error that argparse would print after the usage."""
        dashed = re.search(r"unrecognized arguments: (?:.* )?(-[^-= ][^= ]*)", message)
        file = f"; a file of that name is ./{dashed[1]}" if dashed and Path(dashed[1]).exists() else ""
        raise FerError(f"{message}; --help lists the options{file}")


def _print_error(name: str, message: str, code: int) -> int:
    print(f"{name}: {visible(' '.join(message.split()))}", file=sys.stderr)
    return code
