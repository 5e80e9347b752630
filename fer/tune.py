"""``python -m fer.tune [space=name] [tune.key=value] [group=name] [key=value]``: search for good settings.

Everything that ``fer.train`` takes is fixed for all trials, the space says what varies. Trials are runs of
``fer.train``; bad ones are ended early. The best is chosen on val, and written as an experiment for ``fer.train``.

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
from typing import IO, TYPE_CHECKING

from fer.config.command import command
from fer.config.conf import conf_folder, plain
from fer.config.errors import FerError, Interrupted
from fer.config.hydra import composed, tidied, with_folder
from fer.config.keys import filled_section, meanings, row, rows
from fer.runs.trials import Trial, counted, counts, ended_in
from fer.sweeps import jobs
from fer.system.files import new_folder
from fer.system.slots import places
from fer.system.terminal import logged, shown

if TYPE_CHECKING:
    from fer.sweeps.tuning.outcome import Outcome
    from fer.sweeps.tuning.request import Request

log = logging.getLogger(__name__)

OPTUNA = 5  # the major version whose defaults are meant: its sampler takes all parameters together
EXAMPLES = """Examples:
  python -m fer.tune model=mlp data.path=fer2013.csv tune.trials=30 tune.hours=2
  python -m fer.tune --out outputs/tune/first model=cnn space=cnn trainer.max_epochs=20 tune.jobs=2 logger=none
  python -m fer.tune model=mlp space.optimizer=[adamw,sgd] 'space.model.dropout={low:0,high:0.5}' space.augment=null
  python -m fer.tune tune.resume=outputs/tune/<date>_<time>    # after Ctrl-C; with tune.trials=60, for more of them
  python -m fer.train --config-dir outputs/tune/<date>_<time> experiment=best

A space of your own: space/<name>.yaml in a folder that --config-dir names. Other keys: python -m fer.train --help"""


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
    """Return the purpose, the keys with their meaning as ``conf/`` has them, the spaces, examples."""
    folder = conf_folder()
    default = (folder / "space" / "default.yaml").read_text(encoding="utf-8")
    names = ", ".join(sorted(file.stem for file in (folder / "space").glob("*.yaml")))
    own = rows({"tune": plain(composed([], "tune"))["tune"]}, meanings(folder / "tune.yaml"))
    listed = {key: meaning for key, meaning in own.items() if not key.startswith("tune.folder=")}  # it is --out here
    keys = filled_section("Keys as they are set, with their meaning:", listed)
    out = row(
        "--out folder", "of the search; default: outputs/tune/<date>_<time>; one that holds it already is resumed"
    )
    space = "\n".join(f"  {line}" for line in default.splitlines())
    purpose = (__doc__ or "").strip().replace("``", "")
    return f"{purpose}\n\nOptions:\n{out}\n\n{keys}\n\nSpaces: {names}. space=default is\n{space}\n\n{EXAMPLES}"


def require_optuna() -> None:
    """Raise where Optuna is missing, or too old.

    Raises:
        FerError: naming the command that installs it.
    """
    found = None
    with suppress(metadata.PackageNotFoundError):
        found = metadata.version("optuna")
    if found is None or int(found.partition(".")[0]) < OPTUNA:
        told = "is not installed" if found is None else f"is version {found}, {OPTUNA} is needed"
        raise FerError(f"Optuna {told}: pip install 'fer-lightning[tune]'")


def run(request: "Request", line: str) -> int:
    """Search as asked, write what came out, and return the exit code: 1 if no trial is complete.

    Args:
        request: what is asked for.
        line: the command line that does.

    Raises:
        FerError: no data; another process searches in the same folder.
        Interrupted: a signal came; the trials in hand have saved themselves.
    """
    from fer.sweeps.tuning import outcome, proposals
    from fer.sweeps.tuning.search import Search, Task

    environment = jobs.environment(request.config["data"]["path"])
    settings, folder = request.settings, _made(request)
    where = places(settings.jobs, settings.trials, {request.config["trainer"]["accelerator"]})
    with open(folder / "tune.log", "ab") as held, logged(folder / "tune.log"):
        _hold(held, folder)
        before = request.before or {}
        task = Task(
            folder, settings, request.parameters, request.told, request.config, environment, where.environments,
            spent=before.get("seconds", 0.0),
        )  # fmt: skip
        study = proposals.opened(folder, settings, task.monitor, task.most_epochs, task.baseline())
        search = Search(study, task, lambda: outcome.keep(state))
        _refuse_forgotten(folder, settings.storage or folder / proposals.JOURNAL, search.trials())
        state = outcome.Outcome(request, search, folder, before.get("command", line))
        outcome.keep(state)
        announce(state, where.told)
        try:
            search.run()
        except Interrupted as error:
            outcome.conclude(state)
            again = f"python -m fer.tune tune.resume={shlex.quote(str(shown(folder)))}"
            raise Interrupted(f"{error}; go on with: {again}", error.code) from None
        return outcome.conclude(state)


def _made(request: "Request") -> Path:
    """Return the search's folder, which is there by then."""
    if request.folder is None:
        return new_folder(Path("outputs", "tune").absolute(), f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    request.folder.mkdir(parents=True, exist_ok=True)
    return request.folder


def _hold(stream: IO[bytes], folder: Path) -> None:
    try:
        jobs.hold(stream)
    except BlockingIOError:
        raise FerError(f"{folder}: a search still runs in it; wait for its end, or stop it") from None


def _refuse_forgotten(folder: Path, storage: object, trials: Sequence[Trial]) -> None:
    """Refuse a storage that lacks trials which the folder tells of: they would be overwritten."""
    told, held = ended_in(folder / "trials.csv"), len(trials) - counts(trials)["running"]
    if held < told:
        raise FerError(
            f"{storage}: holds {held} trials that have ended, {folder / 'trials.csv'} has {told}; a search goes on "
            "with all of them: bring its storage back, or begin another with --out"
        )


def announce(state: "Outcome", where: str) -> None:
    """Say what is going to be done, and what is not."""
    from fer.sweeps.tuning.proposals import prunes

    request, trials = state.request, state.search.trials()
    settings, task = request.settings, state.search.task
    budget = f"{settings.trials} trials" + (f", {settings.hours:g} hours" if settings.hours else "")
    done = f", {counted(trials)} so far" if trials else ""
    log.info("search for %s: %s%s, %s: %s", state.monitor, budget, done, where, shown(state.folder))
    for parameter in request.parameters:
        log.info("  %-24s %s", parameter.key, parameter)
    if request.fixed:
        log.info("  set by the command line, and not varied: %s", ", ".join(request.fixed))
    if settings.pruner != "none" and not prunes(settings, task.most_epochs):
        warm = f"tune.warmup_epochs={settings.warmup_epochs}"
        log.info("  no trial is pruned: %s leaves none of %d epochs for it", warm, task.most_epochs)
    if not state.search.affords_one() and not counts(trials)["running"]:
        log.info("  the budget is spent; tune.trials= and tune.hours= raise it")


if __name__ == "__main__":
    sys.exit(main(None))
