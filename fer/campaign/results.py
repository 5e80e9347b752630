"""``results/``: the results of a campaign in small files.

They fit into a paper or a repository, as those in docs/results do.
"""

import gzip
import json
import shutil
from pathlib import Path

from fer.campaign.earlier import VIEWS
from fer.models.share import without_folders
from fer.runs.predictions import name_of
from fer.system.files import read_json, written_whole

EVALUATIONS = (("val", "none"), ("val", VIEWS), ("test", "none"), ("test", VIEWS))


def write(name: str, run: Path, evaluations: Path, out: Path) -> Path | None:
    """Copy history, metrics and predictions of a network or ensemble to ``out``/``name``, without absolute paths.

    Args:
        name: name of the network or ensemble.
        run: run folder, which holds the results on val in single view; for an ensemble the parent of ``evaluations``.
        evaluations: folder of the evaluations.
        out: folder of all results.

    Returns:
        The folder; None if there are no results.
    """
    folder = out / name
    for split, views in EVALUATIONS:
        source = evaluations / name_of(split, views)
        if (split, views) == ("val", "none") and not (source / "metrics.json").is_file():
            source = run
        if (source / "metrics.json").is_file() and (source / "predictions.csv").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _write_one(source, folder / name_of(split, views))
    if folder.is_dir() and (run / "history.csv").is_file():
        shutil.copyfile(run / "history.csv", folder / "history.csv")
    return folder if folder.is_dir() else None


def _write_one(source: Path, target: Path) -> None:
    """Write an evaluation as ``<target>.json`` and ``<target>.csv.gz``."""
    contents = read_json(source / "metrics.json")
    with written_whole(target.with_name(f"{target.name}.json")) as stream:
        stream.write(without_folders(json.dumps(contents, indent=2)) + "\n")
    with (
        written_whole(target.with_name(f"{target.name}.csv.gz"), binary=True) as stream,
        gzip.GzipFile("", "wb", 9, stream, mtime=0) as packed,  # no name and time: equal results give equal bytes
    ):
        packed.write((source / "predictions.csv").read_bytes())
