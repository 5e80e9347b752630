"""``python -m fer.tune [space=name] [tune.key=value] [key=value]``: search for good settings.

A group and its choice are written like a key, as in ``model=cnn``.

The space lists the settings that vary; all other keys of ``fer.train`` are the same for all trials. Each trial is a
run of ``fer.train``, and bad trials are ended early. The best trial is chosen on val and written as an experiment for
``fer.train``.

Needs Optuna: pip install 'fer-lightning[tune]'.
"""

import logging
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fer.config.command import command
from fer.config.conf import conf_folder, plain
from fer.config.errors import FerError, Interrupted
from fer.config.hydra import composed, tidied, with_folder
from fer.config.keys import filled_section, meanings, row, rows
from fer.config.trust import again
from fer.runs.trials import Trial, counted, counts, ended_in
from fer.sweeps import jobs
from fer.sweeps.fork_server import servers_for
from fer.system.files import new_folder
from fer.system.slots import slots
from fer.system.terminal import logged, shown

if TYPE_CHECKING:
    from fer.sweeps.tuning.outcome import Outcome
    from fer.sweeps.tuning.request import Request

log = logging.getLogger(__name__)

OPTUNA = 5  # least major version: its default sampler takes all parameters together
EXAMPLES = """Examples:
  python -m fer.tune model=mlp data.path=fer2013.csv tune.trials=30 tune.hours=2
  python -m fer.tune --out outputs/tune/first model=cnn space=cnn trainer.max_epochs=20 tune.jobs=2 logger=none
  python -m fer.tune model=mlp space.optimizer=[adamw,sgd] 'space.model.dropout={low:0,high:0.5}' space.augment=null
  python -m fer.tune tune.resume=outputs/tune/<date>_<time>    # after Ctrl-C, or with tune.trials=60 for more trials
  python -m fer.train --config-dir outputs/tune/<date>_<time> experiment=best

To add a space, write space/<name>.yaml in a folder and name the folder with --config-dir.
python -m fer.train --help describes all other keys."""


@command("fer.tune")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(given):
        print(help_text())
        return 0
    require_optuna()
    from fer.sweeps.tuning.request import read

    return run(read(tidied(with_folder(given, "tune.folder"))), shlex.join(["python", "-m", "fer.tune", *given]))


def help_text() -> str:
    """Return the purpose, the keys with their meaning in ``conf/tune.yaml``, the spaces, and examples."""
    folder = conf_folder()
    default = (folder / "space" / "default.yaml").read_text(encoding="utf-8")
    names = ", ".join(sorted(file.stem for file in (folder / "space").glob("*.yaml")))
    of_tune = rows({"tune": plain(composed([], "tune"))["tune"]}, meanings(folder / "tune.yaml"))
    listed = {key: meaning for key, meaning in of_tune.items() if not key.startswith("tune.folder=")}  # it is --out
    keys = filled_section("Keys with their default and their meaning:", listed)
    out = row(
        "--out folder",
        "folder of the search; default: outputs/tune/<date>_<time>; a search that is there is resumed, or joined while "
        "other processes work on it",
    )
    space = "\n".join(f"  {line}" for line in default.splitlines())
    purpose = (__doc__ or "").strip().replace("``", "")
    return f"{purpose}\n\nOptions:\n{out}\n\n{keys}\n\nSpaces: {names}. space=default is\n{space}\n\n{EXAMPLES}"


def require_optuna() -> None:
    """Refuse to start without Optuna of the required version.

    Raises:
        FerError: Optuna is missing or too old; the message names the command that installs it.
    """
    version = None
    with suppress(metadata.PackageNotFoundError):
        version = metadata.version("optuna")
    if version is None or int(version.partition(".")[0]) < OPTUNA:
        problem = "is not installed" if version is None else f"is version {version}, {OPTUNA} is needed"
        raise FerError(f"Optuna {problem}: pip install 'fer-lightning[tune]'")


def run(request: "Request", line: str) -> int:
    """Search, write the results, and return the exit code: 1 if no trial is complete.

    Args:
        request: the parsed command line.
        line: the command line, for the record.

    Raises:
        FerError: no data are found, or the storage cannot be used.
        Interrupted: a signal arrived; running trials have saved themselves.
    """
    from fer.sweeps.tuning import outcome, proposals
    from fer.sweeps.tuning.request import joined
    from fer.sweeps.tuning.search import Search, Task
    from fer.sweeps.tuning.workers import Workers

    environment = jobs.environment(request.config["data"]["path"])
    settings, folder = request.settings, _made(request)
    trainer = request.config["trainer"]
    trial_slots = slots(settings.jobs, settings.trials, {trainer["accelerator"]}, trainer["devices"])
    workers, storage = Workers(folder), settings.storage or str(folder / proposals.JOURNAL)

    def keep() -> None:
        with workers.turn():
            outcome.keep(state)

    with logged(folder / "tune.log"), proposals.reachable(storage), servers_for(trial_slots) as servers:
        with workers.turn():
            request = joined(request, folder)
            before = request.before
            task = Task(
                folder, settings, request.parameters, request.trial_overrides, request.config, environment,
                trial_slots.environments, servers, spent=before.seconds if before else 0.0,
            )  # fmt: skip
            study = proposals.opened(
                workers, settings, task.monitor, task.most_epochs, task.baseline(), begun=before is not None
            )
            search = Search(study, task, keep, workers)
            _refuse_forgotten(folder, storage, search.trials())
            state = outcome.Outcome(request, search, folder, before.command if before and before.command else line)
            outcome.keep(state)
        announce(state, trial_slots.description)
        try:
            search.run()
        except Interrupted as error:
            with workers.turn():
                outcome.conclude(state)
            line = f"python -m fer.tune tune.resume={shlex.quote(str(shown(folder)))}{again(request.overrides)}"
            raise Interrupted(f"{error}; resume with: {line}", error.code) from None
        with workers.turn():
            return outcome.conclude(state)


def _made(request: "Request") -> Path:
    """Make and return the folder of the search."""
    if request.folder is None:
        return new_folder(Path("outputs", "tune").absolute(), f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    request.folder.mkdir(parents=True, exist_ok=True)
    return request.folder


def _refuse_forgotten(folder: Path, storage: object, trials: Sequence[Trial]) -> None:
    """Refuse a storage without all trials of ``trials.csv``: new trials would overwrite the missing ones."""
    recorded, stored = ended_in(folder / "trials.csv"), len(trials) - counts(trials)["running"]
    if stored < recorded:
        raise FerError(
            f"{storage}: has {stored} ended trials, {folder / 'trials.csv'} has {recorded}; restore the storage, or "
            "start another search with --out"
        )


def announce(state: "Outcome", where: str) -> None:
    """Print the budget, the parameters, and what limits the search."""
    from fer.sweeps.tuning.proposals import prunes

    request, trials = state.request, state.search.trials()
    settings, task = request.settings, state.search.task
    budget = f"{settings.trials} trials" + (f", {settings.hours:g} hours" if settings.hours else "")
    done = f", {counted(trials)} so far" if trials else ""
    log.info("search for %s: %s%s, %s: %s", state.monitor, budget, done, where, shown(state.folder))
    for parameter in request.parameters:
        log.info("  %-24s %s", parameter.key, parameter)
    if request.fixed:
        log.info("  fixed by the command line: %s", ", ".join(request.fixed))
    if settings.pruner != "none" and not prunes(settings, task.most_epochs):
        warm = f"tune.warmup_epochs={settings.warmup_epochs}"
        log.info("  no trial is pruned: a trial has %d epochs at most, and %s", task.most_epochs, warm)
    if not state.search.affords_one() and not counts(trials)["running"]:
        log.info("  the budget is spent; tune.trials= and tune.hours= raise it")


if __name__ == "__main__":
    sys.exit(main(None))
