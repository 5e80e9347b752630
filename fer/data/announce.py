"""What a training, an evaluation and a campaign log of their data."""

import logging
from collections.abc import Sequence

from fer.data.faces import bad_rows_in_words
from fer.data.labels import SPLITS
from fer.data.locate import how_to_get
from fer.data.table import Table
from fer.metrics.results import DatasetRecord, MissingClasses

log = logging.getLogger(__name__)


def announce(data: Table, stand_in: bool) -> None:
    """Log the data of the run, with a warning if faces are drawn in place of FER2013."""
    if stand_in:
        log.warning(
            "*** NO FER2013 FOUND: TRAINING ON DRAWN FACES: no metric holds for real faces. %s ***", how_to_get()
        )
    source = data.faces.source
    counts = ", ".join(f"{len(data.indices(split)):,} {split}" for split in SPLITS[:2])
    if data.sets is None:
        log.info("data: %s (%s), split %s: %s", source.path, source.layout, data.data.split, counts)
    else:
        for one in data.sets.records(data.splits):
            log.info("data: %s", _data_set_in_words(one))
        log.info("together: %s", counts)
    log_notes(data.notes, source.skipped, data.missing)


def _data_set_in_words(one: DatasetRecord) -> str:
    """Return in words what one of several data sets gives to a training."""
    faces = {split: sum(classes.values()) for split, classes in one.counts.items()}
    counts = ", ".join(f"{count:,} {split}" for split, count in faces.items())
    share = "" if one.share is None else f"; {100 * one.share:.1f} % of an epoch's training faces"
    return f"{one.name}: {one.path} ({one.layout}), split {one.split}: {counts}{share}"


def log_notes(notes: Sequence[str], skipped: Sequence[str], missing: MissingClasses | None) -> None:
    """Log the notes on the data, the number of bad rows or files that were skipped, and classes without faces."""
    for note in notes:
        log.info("  %s", note)
    if skipped:
        log.warning("  skipped: %s, listed in metrics.json; first: %s", bad_rows_in_words(skipped), skipped[0])
    for words in missing.in_words() if missing else []:
        log.warning("  *** %s ***", words)
