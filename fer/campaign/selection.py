"""The networks of a campaign that are evaluated, and what val chooses among them: teachers and the ensemble."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fer.campaign import earlier, lines
from fer.campaign.board import Board
from fer.campaign.earlier import VIEWS, Candidate
from fer.campaign.evaluations import Evaluation, Evaluations
from fer.campaign.record import Record, metrics_of
from fer.config.errors import FerError
from fer.data.datamodule import FERDataModule
from fer.evaluation.from_predictions import PredictionsChoice
from fer.runs.predictions import name_of

log = logging.getLogger(__name__)

ENSEMBLE = "ensemble"  # name and role


@dataclass(frozen=True)
class Context:
    """What the evaluations of a campaign need to know of it.

    Args:
        record: of the campaign.
        folder: of the campaign.
        data: its faces.
        board: shows how it goes.
        seconds_left: gives the seconds until its deadline.
    """

    record: Record
    folder: Path
    data: FERDataModule
    board: Board
    seconds_left: Callable[[], float]


class Selection:
    """Evaluates the networks of a campaign and of earlier ones, and chooses among them on val.

    Args:
        context: of the campaign.
        evaluations: the processes that evaluate.
    """

    def __init__(self, context: Context, evaluations: Evaluations) -> None:
        self.context, self.evaluations = context, evaluations
        self.record, self.folder = context.record, context.folder
        self.before: list[Candidate] = []  # networks of earlier folders, once they are read

    # --- evaluations ------------------------------------------------------------------------------------------------

    def of(self, name: str, split: str, views: str, *, report: bool = False) -> Evaluation:
        """Return the evaluation of one of the campaign's networks."""
        return Evaluation(name, self.folder / name, split, views, report=report)

    def evaluate(self, asked: Sequence[Evaluation], seconds: float) -> None:
        """Evaluate side by side, for so many seconds at most; what fails is noted."""
        failed = self.evaluations.run(asked, seconds, self._say)
        for one, reason in failed.items():
            self.record.note(f"{one.name} was not evaluated on {one.split} ({one.views}): {reason}")

    def _say(self, one: Evaluation, reason: str) -> None:
        self.context.board.say(f"{one.name}, {one.split} ({one.views}): {reason}")

    # --- candidates -------------------------------------------------------------------------------------------------

    def read_earlier(self) -> None:
        """Read which networks earlier folders bring; what cannot be used is noted.

        Raises:
            FerError: a folder is missing, or holds no network.
        """
        found, notes = earlier.found([Path(folder) for folder in self.record.request.earlier])
        for text in notes:
            self._leave_out(text)
        self.before = self._fitting(found)

    def _fitting(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates whose predictions may be mixed with the campaign's; the others are noted."""
        fitting = []
        for one in candidates:
            if why := lines.unfit(one, self.context.data):
                self._leave_out(f"{one.name}: {why}; left out")
            else:
                fitting.append(one)
        return fitting

    def _leave_out(self, text: str) -> None:
        self.record.note(text)
        log.warning("%s", text)

    def evaluate_earlier(self, split: str, seconds: float, names: Sequence[str] | None = None) -> None:
        """Evaluate networks of earlier folders whose predictions of a split are missing.

        Args:
            split: "val" or "test".
            seconds: after which what is not done is given up.
            names: of the networks; None for all.
        """
        missing = [one for one in self.before if (one.val if split == "val" else one.test) is None]
        missing = [one for one in missing if names is None or one.name in names]
        networks = [(one.name, one.network) for one in missing if one.network is not None]
        if not networks:
            return
        self.evaluate([Evaluation(name, network, split, VIEWS) for name, network in networks], seconds)
        self.before = self._fitting([self._with_predictions(one, split) for one in self.before])

    @staticmethod
    def _with_predictions(one: Candidate, split: str) -> Candidate:
        if one.network is None:
            return one
        file = one.network / "evaluations" / name_of(split, VIEWS) / "predictions.csv"
        there = file if file.is_file() else None
        return replace(one, val=one.val or there) if split == "val" else replace(one, test=one.test or there)

    def candidates(self, *roles: str) -> list[Candidate]:
        """Return the campaign's networks of some roles, and those of earlier folders, with what was predicted."""
        own = [Candidate(one.name, self.folder / one.name, None, None) for one in self.record.usable(*roles)]
        for split in ("val", "test"):
            own = [self._with_predictions(one, split) for one in own]
        return [*own, *self.before]

    # --- choices on val ---------------------------------------------------------------------------------------------

    def teachers(self, seconds: float, most: int) -> list[str]:
        """Return the names of the networks that val chooses as teachers, at most so many; none where it cannot.

        Args:
            seconds: after which evaluations that are not done are given up.
            most: teachers.
        """
        self.evaluate([self.of(one.name, "val", VIEWS) for one in self.record.usable("member")], seconds)
        self.evaluate_earlier("val", seconds)
        try:
            return [one.name for one in lines.teachers(self.candidates("member"), most)]
        except FerError as error:
            self.record.note(f"teachers could not be chosen: {error}")
            return []

    def best_single(self) -> str | None:
        """Return the name of the best network on val, ten crops; the small one stands for itself."""
        found = {}
        for network in self.record.usable("student", "member"):
            folder = self.folder / network.name / "evaluations" / name_of("val", VIEWS)
            if (folder / "metrics.json").is_file():
                found[network.name] = metrics_of(folder)["accuracy"]
        return max(found, key=lambda name: found[name]) if found else None

    def ensemble(self, *, with_test: bool) -> None:
        """Choose the ensemble on val, and score it there and on test; why there is none is noted."""
        try:
            found = self._whole_choice(with_test)
        except FerError as error:
            self.record.note(f"no ensemble: {error}")
            return
        if found is None:
            return
        candidates, choice = found
        about = _about(candidates, choice)
        out = self.folder / ENSEMBLE / "evaluations"
        same = self.record.ensemble is not None and self.record.ensemble["members"] == about["members"]
        for split in ("val", "test") if with_test else ("val",):
            if not (same and (out / name_of(split, VIEWS) / "metrics.json").is_file()):  # test is opened once
                lines.write_ensemble(candidates, choice, split, self.context.data, out, self.record.command)
        self.record.ensemble = about

    def _whole_choice(self, with_test: bool) -> tuple[list[Candidate], PredictionsChoice] | None:
        """Return what val chooses among the networks whose predictions of test are there too, where it is opened.

        Raises:
            FerError: there are no predictions of val, or damaged ones.
        """
        lacking: list[str] = []
        while True:
            every = [one for one in self.candidates("member", "student", "small") if one.name not in lacking]
            candidates, choice = lines.choose(every)
            picked = [one.name for one, weight in zip(candidates, choice.weights, strict=True) if weight > 0]
            if len(picked) < 2:
                self.record.note(f"no ensemble: val chose {picked[0]} alone")
                return None
            if not with_test:
                return candidates, choice
            candidates = self._with_test(candidates, picked)
            missing = [one.name for one in candidates if one.name in picked and one.test is None]
            if not missing:
                return candidates, choice
            self.record.note(f"no predictions of test by {', '.join(missing)}: left out of the ensemble")
            lacking += missing

    def _with_test(self, candidates: Sequence[Candidate], picked: Sequence[str]) -> list[Candidate]:
        """Evaluate the picked networks on test, and return the candidates with their predictions of it."""
        seconds = self.context.seconds_left()
        own = [network.name for network in self.record.networks if network.name in picked]
        self.evaluate([self.of(name, "test", VIEWS) for name in own], seconds)
        self.evaluate_earlier("test", seconds, picked)
        now = {one.name: one for one in self.candidates("member", "student", "small")}
        return [now.get(one.name, replace(one, test=None)) for one in candidates]


def _about(candidates: Sequence[Candidate], choice: PredictionsChoice) -> dict[str, Any]:
    weights = zip(candidates, choice.weights.tolist(), choice.temperatures.tolist(), strict=True)
    members = [
        {"name": one.name, "weight": weight, "temperature": temperature}
        for one, weight, temperature in weights
        if weight > 0
    ]
    return {"members": members, "temperature": choice.temperature, "selection": choice.report}
