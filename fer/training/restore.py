"""The state of a resumed run: its newest valid checkpoint, if data and teachers are those of its beginning."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer.config.errors import FerError
from fer.models import checkpoints
from fer.models.trainable import Trainable
from fer.runs import status
from fer.runs.provenance import Provenance
from fer.system import ranks
from fer.system.files import readable, why
from fer.training.callbacks import checkpointing
from fer.training.callbacks.guards import Signals
from fer.training.session import ran_out_of_memory

log = logging.getLogger(__name__)


def resume_from(folder: Path, model: Trainable, *, trains: bool = True) -> tuple[Path, int]:
    """Load the newest valid checkpoint of a run; return its file and the number of finished epochs.

    Args:
        folder: folder of the run.
        model: network of its settings.
        trains: whether the training goes on, which is then logged.

    Raises:
        FerError: there is no valid checkpoint, or data or teachers have changed since.
    """
    file, checkpoint = _newest(folder)
    recorded = Provenance.of(checkpoint["fer"])
    before, now = recorded.dataset, model.provenance.dataset
    if before.get("fingerprint") != now["fingerprint"]:
        raise FerError(
            f"resume={folder}: its data were {before.get('path')}; {now['path']} has other contents; restore the data"
        )
    excluded = [(dataset.get("excluded") or {}).get("rows_sha256") for dataset in (before, now)]
    if excluded[0] != excluded[1]:
        raise FerError(f"resume={folder}: data.exclude names other rows than when the run began; restore its file")
    if _identities(recorded.teachers) != _identities(model.provenance.teachers):
        raise FerError(
            f"resume={folder}: distill.teachers are other networks or weights than when the run began; restore them"
        )
    model.load_state_dict(checkpoint["state_dict"])
    model.provenance = replace(model.provenance, plan=recorded.plan)
    with readable(file):
        epoch, step = int(checkpoint["epoch"]) + 1, int(checkpoint["global_step"])
        done = int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    if trains:
        latest = status.read(folder)
        earlier = f"; before: {latest.before}" if latest and latest.before else ""
        log.info("resuming from epoch %d, step %d%s", epoch, step, earlier)
    return file, done


def _newest(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """Return file and contents of the newest valid checkpoint; of ranks, rank 0 chooses the file."""
    if not ranks.current().first:
        file = Path(ranks.text_of_first(""))
        return file, checkpoints.read(file)
    file, checkpoint = checkpointing.newest(folder)
    ranks.text_of_first(str(file))
    return file, checkpoint


def _identities(teachers: Sequence[Mapping[str, Any]] | None) -> list[tuple[Any, ...]]:
    """Return hash, weight and temperature of each teacher's record."""
    return [(record["sha256"], record["weight"], record.get("temperature", 1.0)) for record in teachers or []]


@contextmanager
def restoring(checkpoint: Path | None, signals: Signals) -> Iterator[None]:
    """Turn the errors of restoring a damaged state of a training into one line.

    Raises:
        FerError: naming the checkpoint.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if checkpoint is None or signals.began or ran_out_of_memory(error):
            raise
        best = checkpoint.with_name("best.ckpt")
        other = f"remove it, and {best.name} is resumed; or " if checkpoint != best and best.exists() else ""
        raise FerError(
            f"{checkpoint}: its state of the training cannot be restored ({why(error)}); {other}train anew from its "
            f"weights: init_from={checkpoint}"
        ) from error
