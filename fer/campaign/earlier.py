"""Networks of earlier campaigns, runs and results, as candidates for an ensemble.

They join by their predictions. No torch here.
"""

from dataclasses import dataclass
from pathlib import Path

from fer.campaign import record
from fer.config.errors import FerError
from fer.runs.predictions import name_of

VIEWS = "ten_crop"  # view of every member of an ensemble


@dataclass(frozen=True)
class Candidate:
    """A network that may be chosen for the ensemble.

    Args:
        name: name in the table.
        network: run folder; None if only predictions are left.
        val: file of the predictions on val with ten crops; None if they do not exist yet.
        test: file of the predictions on test with ten crops; None if they do not exist yet.
    """

    name: str
    network: Path | None
    val: Path | None
    test: Path | None

    @property
    def teaches(self) -> bool:
        """Whether it can teach: its weights exist."""
        return self.network is not None


def candidates_of(folders: list[Path]) -> tuple[list[Candidate], list[str]]:
    """Return the networks of earlier folders, and a note for each that cannot be used.

    Args:
        folders: folders of a campaign, a run or results as in docs/results, or folders that contain several of these.

    Raises:
        FerError: a folder is missing or contains no network.
    """
    candidates: dict[str, Candidate] = {}
    notes: list[str] = []
    taken: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise FerError(f"--with {folder}: no such folder; name a campaign, a run, or results as in docs/results")
        in_folder = _candidates_in(folder)
        if not in_folder:
            raise FerError(
                f"--with {folder}: holds no network: no {record.FILE}, checkpoints/best.ckpt or val_{VIEWS}.csv.gz"
            )
        for candidate in in_folder:
            if candidate.val is None and candidate.network is None:
                notes.append(f"{candidate.name} of {folder}: has no predictions of val with ten crops; left out")
                continue
            path = (candidate.network or candidate.val or folder).resolve()
            if path in taken:
                notes.append(f"{candidate.name} of {folder}: --with names it twice; taken once")
                continue
            taken.add(path)
            name = _free(candidate.name, candidates)
            candidates[name] = Candidate(name, candidate.network, candidate.val, candidate.test)
    return list(candidates.values()), notes


def _free(name: str, used: dict[str, Candidate]) -> str:
    number = 2
    free = name
    while free in used:
        free, number = f"{name}_{number}", number + 1
    return free


def _candidates_in(folder: Path) -> list[Candidate]:
    """Return the networks of one folder."""
    if (folder / record.FILE).is_file():
        networks = record.read(folder).usable("member", "student", "small")
        return [_of_run(folder / network.name, f"{network.name}@{folder.name}") for network in networks]
    if (folder / "checkpoints" / "best.ckpt").is_file() or (folder / "evaluations").is_dir():
        return [_of_run(folder, _name_of(folder))]
    if any(folder.glob("*.csv.gz")):
        return [_of_results(folder)]
    inside = [entry for entry in sorted(folder.iterdir()) if entry.is_dir()]
    return [candidate for entry in inside for candidate in _candidates_in(entry)] if _is_a_collection(inside) else []


def _is_a_collection(folders: list[Path]) -> bool:
    return any(
        (entry / record.FILE).exists() or (entry / "checkpoints").is_dir() or any(entry.glob("*.csv.gz"))
        for entry in folders
    )


def _name_of(folder: Path) -> str:
    """Return ``<folder>@<parent>``, a name that no network of the current campaign has."""
    return f"{folder.name}@{folder.absolute().parent.name}"


def _of_run(folder: Path, name: str) -> Candidate:
    def predictions(split: str) -> Path | None:
        file = folder / "evaluations" / name_of(split, VIEWS) / "predictions.csv"
        return file if file.is_file() else None

    network = folder if (folder / "checkpoints" / "best.ckpt").is_file() else None
    return Candidate(name, network, predictions("val"), predictions("test"))


def _of_results(folder: Path) -> Candidate:
    def predictions(split: str) -> Path | None:
        file = folder / f"{name_of(split, VIEWS)}.csv.gz"
        return file if file.is_file() else None

    return Candidate(_name_of(folder), None, predictions("val"), predictions("test"))
