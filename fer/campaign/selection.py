"""The networks of a campaign that are evaluated, and the choices among them on val.

The choices are the teachers and the ensemble.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fer.campaign import earlier, ensemble
from fer.campaign.earlier import VIEWS, Candidate
from fer.campaign.evaluations import Evaluation, Evaluations
from fer.campaign.progress import Progress
from fer.campaign.record import Ensemble, Member, Record
from fer.config.errors import FerError
from fer.data.datamodule import FERDataModule
from fer.evaluation.from_predictions import PredictionsChoice
from fer.metrics import results as metrics_json
from fer.runs.predictions import name_of

log = logging.getLogger(__name__)

ENSEMBLE = "ensemble"  # name and role


@dataclass(frozen=True)
class Context:
    """The parts of a campaign that its evaluations need.

    Args:
        record: record of the campaign.
        folder: folder of the campaign.
        data: faces.
        progress: shows the progress.
        seconds_left: returns the seconds until the evaluations are stopped.
    """

    record: Record
    folder: Path
    data: FERDataModule
    progress: Progress
    seconds_left: Callable[[], float]


class Selection:
    """Evaluates the networks of a campaign and of earlier ones, and chooses among them on val.

    Args:
        context: parts of the campaign.
        evaluations: processes that evaluate.
    """

    def __init__(self, context: Context, evaluations: Evaluations) -> None:
        self.context, self.evaluations = context, evaluations
        self.record, self.folder = context.record, context.folder
        self.before: list[Candidate] = []  # networks of earlier folders, after ``read_earlier``

    # --- evaluations ------------------------------------------------------------------------------------------------

    def of(self, name: str, split: str, views: str, *, report: bool = False) -> Evaluation:
        """Return the evaluation of one of the campaign's networks."""
        return Evaluation(name, self.folder / name, split, views, report=report)

    def evaluate(self, evaluations: Sequence[Evaluation], seconds: float) -> None:
        """Run evaluations side by side for some seconds at most, and note failures."""
        failed = self.evaluations.run(evaluations, seconds, self._report)
        for evaluation, reason in failed.items():
            self.record.note(
                f"{evaluation.name} was not evaluated on {evaluation.split} ({evaluation.views}): {reason}"
            )

    def _report(self, evaluation: Evaluation, reason: str) -> None:
        self.context.progress.report(f"{evaluation.name}, {evaluation.split} ({evaluation.views}): {reason}")

    # --- candidates -------------------------------------------------------------------------------------------------

    def read_earlier(self) -> None:
        """Read the networks of earlier folders, and note those that cannot be used.

        Raises:
            FerError: a folder is missing or contains no network.
        """
        candidates, notes = earlier.candidates_of([Path(folder) for folder in self.record.request.earlier])
        for text in notes:
            self._leave_out(text)
        self.before = self._fitting(candidates)

    def _fitting(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates whose predictions can be mixed with the campaign's, and note the others."""
        fitting = []
        for candidate in candidates:
            if why := ensemble.mismatch(candidate, self.context.data):
                self._leave_out(f"{candidate.name}: {why}; left out")
            else:
                fitting.append(candidate)
        return fitting

    def _leave_out(self, text: str) -> None:
        self.record.note(text)
        log.warning("%s", text)

    def evaluate_earlier(self, split: str, seconds: float, names: Sequence[str] | None = None) -> None:
        """Evaluate networks of earlier folders whose predictions on a split are missing.

        Args:
            split: "val" or "test".
            seconds: time limit.
            names: names of the networks; None for all.
        """
        missing = [
            candidate for candidate in self.before if (candidate.val if split == "val" else candidate.test) is None
        ]
        missing = [candidate for candidate in missing if names is None or candidate.name in names]
        networks = [(candidate.name, candidate.network) for candidate in missing if candidate.network is not None]
        if not networks:
            return
        self.evaluate([Evaluation(name, network, split, VIEWS) for name, network in networks], seconds)
        self.before = self._fitting([self._with_predictions(candidate, split) for candidate in self.before])

    @staticmethod
    def _with_predictions(candidate: Candidate, split: str) -> Candidate:
        if candidate.network is None:
            return candidate
        file = candidate.network / "evaluations" / name_of(split, VIEWS) / "predictions.csv"
        existing = file if file.is_file() else None
        if split == "val":
            return replace(candidate, val=candidate.val or existing)
        return replace(candidate, test=candidate.test or existing)

    def candidates(self, *roles: str) -> list[Candidate]:
        """Return the campaign's networks of some roles, and those of earlier folders, with their predictions."""
        networks = [Candidate(one.name, self.folder / one.name, None, None) for one in self.record.usable(*roles)]
        for split in ("val", "test"):
            networks = [self._with_predictions(network, split) for network in networks]
        return [*networks, *self.before]

    # --- choices on val ---------------------------------------------------------------------------------------------

    def teachers(self, seconds: float, most: int) -> list[str]:
        """Return the names of the teachers, chosen on val; none if the choice fails.

        They are chosen among the members, the network that taught these, and the networks of earlier folders.

        Args:
            seconds: time limit of the evaluations.
            most: largest number of teachers.
        """
        members = [self.of(network.name, "val", VIEWS) for network in self.record.usable("member")]
        first = self._of_first_teacher()
        self.evaluate([*members, *first], seconds)
        self.evaluate_earlier("val", seconds)
        files = [(evaluation, evaluation.folder / "predictions.csv") for evaluation in first]
        firsts = self._fitting([Candidate(one.name, one.network, file, None) for one, file in files if file.is_file()])
        try:
            chosen = ensemble.teachers(self._able([*self.candidates("member"), *firsts]), most)
            return [candidate.name for candidate in chosen]
        except FerError as error:
            self.record.note(f"teachers could not be chosen: {error}")
            return []

    def _able(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates that can teach the campaign's networks, and note the earlier ones that cannot."""
        able = []
        for candidate in candidates:
            if not candidate.teaches:
                continue
            why = ensemble.why_no_teacher(candidate, self.context.data) if candidate in self.before else ""
            if why:
                self._leave_out(f"{candidate.name}: does not teach: {why}")
            else:
                able.append(candidate)
        return able

    def _of_first_teacher(self) -> list[Evaluation]:
        """Return the evaluation on val of the network that taught the members, in the campaign's folder; if any."""
        name, request = self.record.first_teacher, self.record.request
        out = self.folder / name / "evaluations"
        return [Evaluation(name, Path(name), "val", VIEWS, request.data, request.rule, out)] if name else []

    def best_single(self) -> str | None:
        """Return the name of the best network on val with ten crops, the small one excluded; None if there is none."""
        accuracies = {}
        for network in self.record.usable("student", "member"):
            file = self.folder / network.name / "evaluations" / name_of("val", VIEWS) / "metrics.json"
            if file.is_file():
                accuracies[network.name] = metrics_json.read(file).scores.accuracy.number
        return max(accuracies, key=lambda name: accuracies[name]) if accuracies else None

    def ensemble(self, *, with_test: bool) -> None:
        """Choose the ensemble on val, and evaluate it there and on test; note why if there is none."""
        try:
            chosen = self._choose_ensemble(with_test)
        except FerError as error:
            self.record.note(f"no ensemble: {error}")
            chosen = None
        about, before = None if chosen is None else _about(*chosen), self.record.ensemble
        out = self.folder / ENSEMBLE / "evaluations"
        if about is None or before is None or about.members != before.members:
            shutil.rmtree(out, ignore_errors=True)  # of the choice before --resume
            self.record.ensemble = None
        if chosen is None:
            return
        candidates, choice = chosen
        for split in ("val", "test") if with_test else ("val",):
            if not (out / name_of(split, VIEWS) / "metrics.json").is_file():  # test is evaluated once
                ensemble.write(candidates, choice, split, self.context.data, out, self.record.command)
        self.record.ensemble = about

    def _choose_ensemble(self, with_test: bool) -> tuple[list[Candidate], PredictionsChoice] | None:
        """Return the candidates and the ensemble chosen on val; None if one network alone is chosen.

        If test is evaluated, a chosen network without predictions on test is excluded, and the choice repeated.

        Raises:
            FerError: predictions of val are missing or damaged.
        """
        excluded: list[str] = []
        while True:
            every = [one for one in self.candidates("member", "student", "small") if one.name not in excluded]
            candidates, choice = ensemble.chosen(every)
            chosen_names = [one.name for one, weight in zip(candidates, choice.weights, strict=True) if weight > 0]
            if len(chosen_names) < 2:
                self.record.note(f"no ensemble: val chose {chosen_names[0]} alone")
                return None
            if not with_test:
                return candidates, choice
            candidates = self._with_test(candidates, chosen_names)
            missing = [one.name for one in candidates if one.name in chosen_names and one.test is None]
            if not missing:
                return candidates, choice
            self.record.note(f"{', '.join(missing)}: no predictions on test; left out of the ensemble")
            excluded += missing

    def _with_test(self, candidates: Sequence[Candidate], chosen_names: Sequence[str]) -> list[Candidate]:
        """Evaluate the chosen networks on test, and return all candidates with their predictions."""
        seconds = self.context.seconds_left()
        names = [network.name for network in self.record.networks if network.name in chosen_names]
        self.evaluate([self.of(name, "test", VIEWS) for name in names], seconds)
        self.evaluate_earlier("test", seconds, chosen_names)
        now = {candidate.name: candidate for candidate in self.candidates("member", "student", "small")}
        return [now.get(candidate.name, replace(candidate, test=None)) for candidate in candidates]


def _about(candidates: Sequence[Candidate], choice: PredictionsChoice) -> Ensemble:
    weights = zip(candidates, choice.weights.tolist(), choice.temperatures.tolist(), strict=True)
    members = [Member(candidate.name, weight, temperature) for candidate, weight, temperature in weights if weight > 0]
    return Ensemble(tuple(members), choice.temperature, choice.report)
