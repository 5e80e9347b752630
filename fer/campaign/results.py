"""``results/``: what a campaign found, small enough to be kept with a paper or a repository, as in docs/results."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

from fer.campaign.earlier import VIEWS
from fer.models.share import without_folders
from fer.runs.predictions import name_of
from fer.system.files import written_whole

EVALUATIONS = (("val", "none"), ("val", VIEWS), ("test", "none"), ("test", VIEWS))


def write(name: str, run: Path, evaluations: Path, out: Path) -> Path | None:
    """Copy history, metrics and predictions of a network or ensemble to ``out``/``name``; paths become names.

    Args:
        name: of the network or ensemble.
        run: its run folder, whose own result is val in single view; for an ensemble the folder above its evaluations.
        evaluations: folder of its evaluations.
        out: folder of all results.

    Returns:
        The folder; None where nothing was found.
    """
    folder = out / name
    for split, views in EVALUATIONS:
        held = evaluations / name_of(split, views)
        if (split, views) == ("val", "none") and not (held / "metrics.json").is_file():
            held = run
        if (held / "metrics.json").is_file() and (held / "predictions.csv").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _write_one(held, folder / name_of(split, views))
    if folder.is_dir() and (run / "history.csv").is_file():
        shutil.copyfile(run / "history.csv", folder / "history.csv")
    return folder if folder.is_dir() else None


def _write_one(held: Path, target: Path) -> None:
    """Write an evaluation as ``<target>.json`` and ``<target>.csv.gz``."""
    contents: dict[str, Any] = json.loads((held / "metrics.json").read_text(encoding="utf-8"))
    with written_whole(target.with_name(f"{target.name}.json")) as stream:
        stream.write(without_folders(json.dumps(contents, indent=2)) + "\n")
    with (
        written_whole(target.with_name(f"{target.name}.csv.gz"), binary=True) as stream,
        gzip.GzipFile("", "wb", 9, stream, mtime=0) as packed,  # without name and time: equal results, equal bytes
    ):
        packed.write((held / "predictions.csv").read_bytes())
