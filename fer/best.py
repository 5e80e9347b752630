"""``python -m fer.best --hours 2``: the best networks that this machine can train in a given time.

The campaign measures the speed of each kind of network and plans epochs for the time. It trains different networks side
by side, and chooses teachers among them on val. These teach three students and a network below half a million
parameters. Then it chooses an ensemble on val, and opens test at the end. ``best.html`` shows the plan and the results.
"""

import argparse
import logging
import math
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.campaign.record import FILE, PARTS, Record, Request, read
from fer.config.command import Grammar, command
from fer.config.errors import PLACE, FerError, Interrupted
from fer.config.paths import expand_home
from fer.config.settings import DataSettings
from fer.config.trust import runs_nothing
from fer.data.locate import existing, locate
from fer.runs.run_folder import CAMPAIGN, named
from fer.system.files import new_folder
from fer.system.locks import hold
from fer.system.slots import let_waiting_threads_sleep
from fer.system.terminal import logged, shown

if TYPE_CHECKING:
    from fer.campaign.campaign import Campaign

log = logging.getLogger(__name__)

CAMPAIGNS = Path("outputs/best")
LOG = "best.log"
LARGEST_SEED = 2**31  # other networks have seeds some above it; torch takes them below 2^32
MISSING = "Name a file or folder that exists."
ONCE = ("data", "rule", "set", "parts", "earlier", "seed", "no_test", "device", "jobs", "out", "dry_run")  # not resumed
OPTIONS = {  # key of fer.train that the campaign sets itself -> option that controls it
    "data.path": "--data",
    "data.split": "--rule",
    "trainer.accelerator": "--device",
    "seed": "--seed",
    "trainer.max_epochs": "--hours",
    "budget.hours": "--hours",
    "budget.until": "--hours",
    "distill.teachers": "--with",
    "experiment": "--parts",
}
OWN = ("logger", "trainer.bar", "resume", "lr_finder", "sweep")  # other keys that a campaign sets, or cannot use


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(
        prog="python -m fer.best",
        description="Train the best networks that this machine can train in a given time: different networks side by "
        "side, three students and a small network taught by the best of them, and an ensemble. Everything is chosen on "
        "val; test is opened at the end, once in each view for each network of the table and once for the ensemble.",
    )
    grammar.add_argument("--hours", type=float, help="time of the whole campaign in hours, such as 0.15 or 8")
    grammar.add_argument("--data", help="table, archive, folder or 'synthetic'; default: $FER_DATA, then data/")
    grammar.add_argument(
        "--rule", choices=["official", "as_given", "holdout"], help="how the data are split; default: official"
    )
    grammar.add_argument(
        "--set", nargs="+", action="extend", metavar="KEY=VALUE",
        help="settings of fer.train for every network, such as data.on_bad=skip",
    )  # fmt: skip
    grammar.add_argument(
        "--with", nargs="+", action="extend", metavar="FOLDER", dest="earlier",
        help="earlier campaigns (or latest), runs or results (docs/results) whose networks may join the ensemble and "
        "teach; to join, predictions of val and test with ten crops are enough",
    )  # fmt: skip
    grammar.add_argument(
        "--parts", nargs="+", action="extend", choices=PARTS, help="parts to train; default: all three"
    )
    grammar.add_argument(
        "--seed", type=int, default=None,
        help="first of the students' three seeds, added to the members' seeds too; default: 0. Choose another one "
        "where --with names an earlier campaign",
    )  # fmt: skip
    grammar.add_argument(
        "--no-test", action="store_true", default=None, help="leave test closed: the table has metrics of val only"
    )
    grammar.add_argument("--device", choices=["auto", "cpu", "gpu"], default=None, help="where to train; default: auto")
    grammar.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="trainings side by side; default: three on each GPU, or one on each core, four at most",
    )
    grammar.add_folder("--out", f"folder of the campaign; default: {CAMPAIGNS}/<date>_<time>")
    grammar.add_argument("--dry-run", action="store_true", default=None, help="measure the speed and print the plan")
    grammar.add_argument(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="resume an interrupted campaign (or latest) in its remaining time; --hours changes the time of the whole "
        "campaign",
    )
    return grammar


@command("fer.best", {**OPTIONS, "data.on_bad": f"--set data.on_bad={PLACE}"})
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    let_waiting_threads_sleep()
    arguments, line = parser().begin(argv)
    check(arguments)
    if arguments.resume is not None:
        return resume(arguments)
    request = request_of(arguments)
    record = Record(request, line, datetime.now(UTC).isoformat(timespec="seconds"))
    if arguments.dry_run:
        return dry_run(record)
    folder = arguments.out or new_folder(CAMPAIGNS.absolute(), f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    if (folder / FILE).exists():
        raise FerError(f"--out {folder}: a campaign is in it already; resume it: --resume {shlex.quote(str(folder))}")
    if folder.exists() and any(entry.name != LOG for entry in folder.iterdir()):  # a refused campaign leaves its log
        raise FerError(f"--out {folder}: is not empty; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with working_in(folder):
        return run(record, folder)


def check(arguments: argparse.Namespace) -> None:
    """Refuse options that are out of range or contradict each other.

    Raises:
        FerError: the message names the option.
    """
    if arguments.resume is not None:
        for name in ONCE:
            if getattr(arguments, name) is not None:
                option = {"earlier": "--with"}.get(name, f"--{name.replace('_', '-')}")
                raise FerError(f"{option}: a resumed campaign keeps it; beside --resume only --hours may be given")
    elif arguments.hours is None:
        raise FerError("--hours is missing: give the time of the whole campaign, such as --hours 2")
    if arguments.hours is not None and not 0 < arguments.hours < float("inf"):
        raise FerError(f"--hours {arguments.hours:g}: expected more than 0")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise FerError(f"--jobs {arguments.jobs}: expected at least 1")
    for text in arguments.set or ():
        if not runs_nothing(text):
            raise FerError(f"--set {text}: expected KEY=VALUE of fer.train, such as data.on_bad=skip")
        if (key := text.partition("=")[0]) in OPTIONS:
            raise FerError(f"--set {text}: a campaign sets {key} itself; use {OPTIONS[key]}")
        if key in OWN or key.startswith("sweep."):
            raise FerError(f"--set {text}: a campaign sets {key} itself or has no use for it; leave it out")
    if arguments.seed is not None and not 0 <= arguments.seed <= LARGEST_SEED:
        raise FerError(f"--seed {arguments.seed}: expected 0 to {LARGEST_SEED}")
    if arguments.dry_run and arguments.out is not None:
        raise FerError(f"--out {arguments.out}: --dry-run writes nothing; leave one of them out")


def request_of(arguments: argparse.Namespace) -> Request:
    """Return the request of a parsed command line.

    Raises:
        FerError: no data are found, or a setting is no key of ``fer.train``.
    """
    from fer.config.conf import plain
    from fer.config.hydra import composed

    data, _ = locate(arguments.data, drawn_faces_allowed=False)
    # refuses a mistyped key before anything is measured
    config = plain(composed(["experiment=best/cpu", "stages=[]", *(arguments.set or ())]))
    return Request(
        hours=arguments.hours,
        data=data,
        rule=arguments.rule or "official",
        settings=tuple(_from_anywhere(text, config["data"]) for text in arguments.set or ()),
        device=arguments.device or "auto",
        slots=arguments.jobs,
        parts=tuple(part for part in PARTS if part in (arguments.parts or PARTS)),
        earlier=tuple(str(named(folder, CAMPAIGN).absolute()) for folder in arguments.earlier or ()),
        seed=arguments.seed or 0,
        test=not arguments.no_test,
    )


def _from_anywhere(text: str, data: Mapping[str, Any]) -> str:
    """Return a setting of ``--set`` with absolute paths: a campaign may be resumed from another folder.

    Args:
        text: KEY=VALUE.
        data: section ``data`` of the composed configuration.

    Raises:
        FerError: a file or folder is missing.
    """
    from fer.config.conf import spelled

    key = text.partition("=")[0]
    value = data.get(key.removeprefix("data."))
    if key in ("data.votes", "data.exclude") and value is not None:
        return f"{key}={spelled(existing(value, f'--set {text}', MISSING))}"
    if key != "data.more" or not value:
        return text
    sets = [asdict(part) for part in DataSettings(more=value).further]
    return f"{key}={spelled([{**one, 'path': existing(one['path'], f'--set {text}', MISSING)} for one in sets])}"


def dry_run(record: Record) -> int:
    """Measure the speed and print the plan, without writing results."""
    from fer.campaign.campaign import Campaign

    with tempfile.TemporaryDirectory(prefix="fer-best-") as scratch:
        campaign = Campaign(record, Path(scratch))
        campaign.begin()
        campaign.selection.read_earlier()
        made = campaign.plan(campaign.measure(Path(scratch) / "speed"))
        log.info("%s", campaign.plan_text(made))
    return 0


def resume(arguments: argparse.Namespace) -> int:
    """Resume a campaign."""
    folder = expand_home(named(arguments.resume, CAMPAIGN)).absolute()
    read(folder)  # another folder is refused before anything is written to it
    with working_in(folder):
        return go_on(folder, arguments)


def go_on(folder: Path, arguments: argparse.Namespace) -> int:
    """Resume the campaign in a folder that no other process works in."""
    record = read(folder)
    if record.finished and arguments.hours is None and (folder / "best.html").is_file():
        log.info("finished already: %s", shown(folder / "best.html"))
        return 0
    if arguments.hours is not None:
        if 3600 * arguments.hours <= record.spent:
            more = math.ceil(record.spent / 36) / 100
            raise FerError(f"--hours {arguments.hours:g}: the campaign has used {more:g} hours already; give more")
        record.request, record.finished = replace(record.request, hours=arguments.hours), None
        record.note(f"resumed with --hours {arguments.hours:g}, in place of the hours of the command line")
        for network in record.networks:  # with a new time, failed and left-out networks get another try
            network.state = "waiting" if network.state in ("failed", "left out") else network.state
    return run(record, folder)


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Work alone in the folder of a campaign, and copy the log messages into it.

    Raises:
        FerError: another process works there.
    """
    with open(folder / LOG, "ab") as lock, logged(folder / LOG):
        try:
            hold(lock)
        except BlockingIOError:
            raise FerError(f"{folder}: a campaign still runs in it; wait for its end, or stop it") from None
        yield


def run(record: Record, folder: Path) -> int:
    """Run a campaign in its folder, and return the exit code: 1 if no network was evaluated.

    Raises:
        FerError: the data are bad, or the time is too short.
        Interrupted: a signal arrived; finished work is kept.
    """
    from fer.campaign.campaign import Campaign

    campaign = Campaign(record, folder)
    try:
        campaign.run()
    except Interrupted as error:
        campaign.keep()
        again = f"python -m fer.best --resume {shlex.quote(str(shown(folder)))}"
        raise Interrupted(f"{error}; resume with: {again}", error.code) from None
    return conclude(campaign)


def conclude(campaign: "Campaign") -> int:
    """Print the table and the paths of the results."""
    from fer.campaign.summary import rows_of
    from fer.reports import campaign as page

    record, folder = campaign.record, campaign.folder
    log.info("\n%s\n", page.text(rows_of(record, folder)))
    for text in record.notes:
        log.info("note: %s", text)
    log.info("campaign: %s, of %g hours", shown(folder), record.request.hours)
    for name, purpose in (
        ("best.html", "plan, table, curves and cost on one page"),
        ("best.json", "the campaign as data"),
        ("best.safetensors", "the best single network, half precision; its card beside it"),
        ("small.safetensors", "the network below half a million parameters"),
        ("results/", "predictions, histories and metrics, in small files to keep"),
    ):
        if (folder / name).exists():
            log.info("  %-18s %s", name, purpose)
    return 0 if record.lines else 1


if __name__ == "__main__":
    sys.exit(main(None))
