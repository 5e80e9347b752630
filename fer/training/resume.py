"""``resume=``: the run to resume, its data, the refusal of changed settings, and a report that is missing."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from fer.config.conf import plain, quoted, spelled, unquoted
from fer.config.errors import FerError, setting
from fer.config.hydra import composed, offer_registered
from fer.config.paths import expand_home
from fer.config.settings import DataSettings, Origin, Section, TrainSettings, leaves
from fer.data.locate import existing, locate
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.runs import stored
from fer.runs.run_folder import DEFAULTS, configuration_of
from fer.training.session import refuse_unsaved

UNTIL = "budget.until"
FREE = ("resume", UNTIL)  # keys that a resumed run may change


def located_data(settings: TrainSettings, folder: Path, *, drawn_faces_allowed: bool) -> tuple[DataSettings, bool]:
    """Return the data settings with absolute paths, and whether faces are drawn in place of FER2013.

    Absolute paths allow resuming and evaluating a run from another folder. A resumed run keeps the files of its
    beginning, if they still exist.
    """
    data = settings.data
    known: dict[str, Any] = {}
    if settings.resume:
        from fer.training.callbacks.checkpointing import newest

        entry = newest(folder)[1]["fer"]
        known, stand_in = entry["dataset"]["settings"], entry["dataset"]["stand_in"]
        # another GPU might choose another size, which would change the steps; a halved size stays halved
        if data.batch_size == "auto" or settings.trainer.halve_batch_on_oom:
            data = replace(data, batch_size=entry["batch_size"])
    data = replace(data, votes=_file(data.votes, known, "votes"), exclude=_file(data.exclude, known, "exclude"))
    data = replace(data, more=_more(data, known.get("more"), resumed=bool(settings.resume)))
    if known and (known["path"] == SYNTHETIC or Path(known["path"]).exists()):
        return replace(data, path=known["path"]), stand_in
    path, stand_in = locate(data.path, drawn_faces_allowed=drawn_faces_allowed and not settings.resume)
    return replace(data, path=path), stand_in


def write_report_again(settings: TrainSettings, folder: Path, origin: Origin) -> None:
    """Write the report and the projector of a finished run again, after their writing was interrupted.

    Raises:
        FerError: the data have changed.
    """
    from fer.evaluation import scoring  # these import torch
    from fer.metrics import results as metrics_json
    from fer.models import checkpoints
    from fer.training import restore, run, time_budget

    settings, data, resumed = run.prepared(settings, origin.stand_in)
    restore.resume_from(folder, resumed, trains=False)
    if resumed.provenance.plan:
        settings, data = time_budget.within_budget(settings, data, resumed, folder)
    model = checkpoints.load(folder / "checkpoints" / "best.ckpt")
    predicted, classes = run.predict_val(settings, data, model), list(model.hparams["classes"])
    scored = scoring.scored_faces(predicted, data, "val", classes)
    run.write_report(settings, folder, data, metrics_json.read(folder / "metrics.json"), scored, origin.changes)


def _more(data: DataSettings, recorded: list[str | Section] | None, *, resumed: bool) -> list[str | Section] | None:
    """Return the further data sets with absolute paths: those recorded by a resumed run, if they still exist."""
    if not data.more:
        return None
    known = replace(data, more=recorded, weights=None).further
    if known and all(Path(part.path).exists() for part in known):
        return recorded
    remedy = "Put it back, or a link to where it is now." if resumed else "Name the file or folder of each data set."
    named = ((one, setting("data.more", one.path)) for one in data.further)
    return [{**asdict(one), "path": existing(one.path, name, remedy)} for one, name in named]


def _file(given: str | None, known: Mapping[str, Any], key: str) -> str | None:
    """Return a file's absolute path: the one recorded by a resumed run, if it still exists."""
    recorded = known.get(key)
    if given is not None and recorded is not None and Path(recorded).exists():
        return str(recorded)
    return None if given is None else str(expand_home(given).absolute())


def resuming(arguments: list[str]) -> list[str]:
    """Return the command line that resumes the run of ``resume=`` in its own folder, with the run's overrides.

    Raises:
        FerError: the folder holds no run, or stores what only a command line may; other arguments or the library's
            defaults would change the run.
    """
    path = value_given(arguments, "resume")
    folder = expand_home(path).resolve()
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise FerError(f"resume={path}: no run folder (it has no .hydra/config.yaml)")
    if value_given(arguments, "hydra.run.dir"):
        raise FerError(f"resume={path} writes to the run's own folder; leave out --out (hydra.run.dir)")
    refuse_unsaved(folder, path)
    options = list(takewhile(_is_option, arguments))
    texts = (*stored.overrides(folder, arguments), *arguments[len(options) :])
    merged = {text.partition("=")[0]: text for text in texts if not text.startswith("resume=")}
    overrides = list(merged.values())
    offer_registered(overrides)
    _refuse_changes(folder, path, plain(composed(overrides)))
    return [*options, *overrides, f"resume={quoted(str(folder))}", f"hydra.run.dir={quoted(str(folder))}"]


def _is_option(text: str) -> bool:
    """Return whether an argument at the beginning of a command line is an option, or its value as in ``--cfg job``."""
    return text.startswith("-") or ("=" not in text and not text.startswith("~"))


def value_given(arguments: Sequence[str], key: str) -> str:
    """Return the last value given for a key, unquoted; empty if none, or null, is given."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{key}=")]
    return "" if not given or given[-1] == "null" else unquoted(given[-1])


def _refuse_changes(folder: Path, path: str, now: Mapping[str, Any]) -> None:
    # an older run does not store every key: it used what is the default now
    before, after = DEFAULTS | dict(leaves(configuration_of(folder))), DEFAULTS | dict(leaves(now))
    if before[UNTIL] is not None and after[UNTIL] is None:
        raise FerError(
            f"resume={path}: the run has {UNTIL}={before[UNTIL]}, and without an end its learning rate would jump; set "
            f"another time: {UNTIL}="
        )
    compared = [key for key in sorted(before | after) if key not in FREE and not key.startswith("sweep.")]
    changed = [key for key in compared if before.get(key) != after.get(key)]
    if changed:
        key = changed[0]
        more = f" (and {len(changed) - 1} more keys)" if len(changed) > 1 else ""
        raise FerError(
            f"resume={path}: the run has {key}={before.get(key)}, now it is {after.get(key)}{more}; a resumed run "
            "keeps its settings. To train with other settings from its weights: "
            f"{shlex.quote(f'init_from={spelled(str(path))}')}"
        )
