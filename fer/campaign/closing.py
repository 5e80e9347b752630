"""The last steps of a campaign: test evaluations, shared files, results and page."""

import shutil
from dataclasses import replace
from pathlib import Path

from fer.campaign import results
from fer.campaign.earlier import VIEWS
from fer.campaign.evaluations import Evaluation
from fer.campaign.recipes import SMALL, STUDENT
from fer.campaign.record import Line, Record, SharedFile
from fer.campaign.selection import ENSEMBLE, Selection
from fer.config.errors import FerError
from fer.metrics import results as metrics_json
from fer.models import checkpoints, share
from fer.runs.predictions import name_of
from fer.system.files import UNREADABLE, read_json

RESULTS = "results"
SHARED = "shared"  # folder of the evaluations of shared files
# settings with which val has other faces or labels, or its folders need their meanings
OTHER_VAL = ("data.labels=", "data.classes=", "data.class_names=", "data.more=")


class Closing:
    """Evaluates and shares the networks of a campaign.

    Args:
        selection: networks of the campaign.
    """

    def __init__(self, selection: Selection) -> None:
        self.selection, self.record, self.folder = selection, selection.record, selection.folder

    def evaluate(self, *, with_test: bool) -> None:
        """Evaluate all networks on val, choose the ensemble there, and evaluate on test."""
        selection, left = self.selection, self.selection.context.seconds_left
        selection.context.progress.report("evaluating on val")
        networks = self.record.usable("member", STUDENT, SMALL)
        selection.evaluate([selection.of(network.name, "val", VIEWS) for network in networks], left())
        selection.evaluate_earlier("val", left())
        if with_test:
            self._open_test()
        selection.ensemble(with_test=with_test)
        self.record.lines = self._lines()

    def _open_test(self) -> None:
        """Evaluate the students, the small network and the best one on test, in single view and with ten crops.

        The views run one after the other: two evaluations of one network at once would overwrite each other's record
        of the test access.
        """
        selection, best = self.selection, self.selection.best_single()
        names = dict.fromkeys([*(one.name for one in self.record.usable(STUDENT, SMALL)), *([best] if best else [])])
        selection.context.progress.report("opening test")
        for views in ("none", VIEWS):
            requests = [
                selection.of(name, "test", views, report=name in (best, SMALL) and views == VIEWS) for name in names
            ]
            selection.evaluate(requests, selection.context.seconds_left())

    def _lines(self) -> list[Line]:
        """Return the lines of the table: all finished evaluations."""
        lines = []
        rows = [(network.name, network.role) for network in self.record.usable(STUDENT, SMALL, "member")]
        ensemble = [(ENSEMBLE, ENSEMBLE)] if self.record.ensemble else []
        for name, role in [*rows, *ensemble]:
            for split, views in results.EVALUATIONS:
                folder = self.folder / name
                if role == ENSEMBLE or (split, views) != ("val", "none"):  # which a run has in its run folder
                    folder = folder / "evaluations" / name_of(split, views)
                if (folder / "metrics.json").is_file():
                    lines.append(Line(name, role, split, views, str(folder.relative_to(self.folder))))
        return lines

    # --- shared files -----------------------------------------------------------------------------------------------

    def share(self, *, with_test: bool) -> None:
        """Write the best network and the small one as shared files with cards, and evaluate the files on val.

        Half precision may change a prediction, so the accuracy of a file is measured again.
        """
        names = {network.name for network in self.record.usable(STUDENT, SMALL, "member")}
        splits = ("test", "val") if with_test else ("val",)  # the card states val where no time was left for test
        made = {}
        for name, stem in ((self.selection.best_single(), "best"), (SMALL, SMALL)):
            if name in names and name is not None:
                file = self.folder / f"{stem}.safetensors"
                try:
                    folders = [self.folder / name / "evaluations" / name_of(split, VIEWS) for split in splits]
                    size = _share(next((one for one in folders if (one / "metrics.json").is_file()), folders[0]), file)
                    made[file] = SharedFile(name, size, None)
                except FerError as error:
                    self.record.note(f"{name} could not be shared: {error}")
                    continue
                if not _is_of(self.folder / SHARED / stem / name_of("val", "none"), file):
                    shutil.rmtree(self.folder / SHARED / stem, ignore_errors=True)
        accuracies = self._evaluated(list(made))
        self.record.shared = {
            file.name: replace(about, accuracy_val=accuracies.get(file)) for file, about in made.items()
        }

    def _evaluated(self, files: list[Path]) -> dict[Path, float]:
        """Return the accuracy of shared files on val, single view, with the labels of the data set."""
        request = self.record.request
        if any(text.startswith(OTHER_VAL) for text in request.settings):
            return {}  # val of ``--data`` alone, with its own labels, is not val of the campaign
        requests = {
            file: Evaluation(
                file.name, file, "val", "none", request.data, request.rule, self.folder / SHARED / file.stem
            )
            for file in files
        }
        self.selection.evaluate(list(requests.values()), self.selection.context.seconds_left())
        finished = {file: one.folder for file, one in requests.items() if (one.folder / "metrics.json").is_file()}
        return {
            file: metrics_json.read(folder / "metrics.json").scores.accuracy.number for file, folder in finished.items()
        }


def _is_of(evaluation: Path, file: Path) -> bool:
    """Return whether an evaluation is of the weights that a shared file holds now."""
    try:
        (member,) = read_json(evaluation / "metrics.json")["members"]
        same: bool = member["weights_sha256"] == checkpoints.load(file).weights_sha256
    except (*UNREADABLE, FerError):
        return False
    return same


def _share(evaluation: Path, file: Path) -> int:
    """Write the network of an evaluation as a shared file, and return its size in bytes.

    Raises:
        FerError: the evaluation is missing, or the file cannot be written.
    """
    if not (evaluation / "model_card.md").is_file():
        from fer.reports import model_card

        model_card.write(metrics_json.read(evaluation / "metrics.json"), evaluation / "model_card.md")
    return share.share(evaluation, file, half=True)


def write_results(record: Record, folder: Path) -> None:
    """Write ``results/``, which is small enough for a repository, and the page.

    Raises:
        OSError: the folder is not writable.
    """
    from fer.campaign.summary import summary_of
    from fer.reports import campaign as page

    out = folder / RESULTS
    shutil.rmtree(out, ignore_errors=True)
    for name in dict.fromkeys(line.name for line in record.lines):
        results.write(name, folder / name, folder / name / "evaluations", out)
    page.write(summary_of(record, folder), folder)
