"""The request for an evaluation: networks, and the faces that they are scored on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.config.paths import expand_home
from fer.config.schema import build
from fer.config.settings import ALL_SPLIT_KEYS, SPLIT_KEYS, DataSettings, FurtherSet
from fer.data.locate import locate
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.data.table import Split, Table
from fer.inference.exported_model import ExportedModel, load
from fer.inference.network import Opened, check_different, check_emotions, file_of, opened
from fer.metrics.arrays import Array, together
from fer.metrics.conformal import By
from fer.metrics.results import Results, Trained
from fer.runs import predictions, zoo
from fer.runs.predictions import Predictions
from fer.runs.provenance import Dataset
from fer.system import hub
from fer.system.files import read_json
from fer.system.records import read

if TYPE_CHECKING:
    from fer.models import EmotionClassifier

# data settings that change neither the faces of val and test nor their labels
NO_EFFECT_ON_FACES = (
    "image_size",
    "crop",
    "batch_size",
    "cache",
    "memory_limit_gb",
    "exclude",
    "conflicts",
    "sampler",
    "weights",
    "on_bad",
)
DataKeys = Mapping[str, Any]  # key -> value of ``DataSettings``, of a training
OF_PACKAGE = Path("outputs/pretrained")  # stands for the run folder of the package's networks
OF_HUB = Path("outputs/hub")  # and of those in the hub's cache, which nothing is added to
OF_SETS = {"more": None, "weights": None, "val_of": "all"}  # of several data sets, where one alone is named
OF_VOTES = ("votes", "ferplus_rule", "classes")  # without effect where labels are not made of votes


@dataclass(frozen=True)
class Request:
    """A request for an evaluation.

    Args:
        networks: run folders or checkpoints; several are an ensemble, which may have folders of predictions too.
        split: "train", "val", "test", or "all" faces of a data set.
        data: path of other data than those of the training, or None.
        rule: how they are split, if not as in training.
        on_bad: "error" or "skip" for a bad row or picture, if not as in training.
        class_names: class folder -> emotion, of other data with such folders.
        votes: FER+'s file, to be joined by row.
        labels: whose labels are the targets, "fer2013" or "ferplus", if not as in training.
        ferplus_rule: how votes become labels, if not as in training.
        views: of each face, a name of ``fer.inference.tta.VIEWS``.
        weights: of an ensemble, "equal" or fitted on "val".
        choose: choose the networks of the ensemble and their weights, greedily on val.
        baseline: run, checkpoint, or folder or file of predictions to compare with.
        error_rate: target share of wrong answers, for which to find the least confidence.
        coverage_by: whether the coverage is promised over all faces, or for those of each emotion.
        coverage: promised share of faces whose prediction set holds the label. None is the usual share, and val is not
            predicted for it alone.
        batch_size: faces at a time.
        on_gpu: compute on the GPU.
    """

    networks: Sequence[str]
    split: str = "val"
    data: str | None = None
    rule: str | None = None
    on_bad: str | None = None
    class_names: Mapping[str, str] | None = None
    votes: str | None = None
    labels: str | None = None
    ferplus_rule: str | None = None
    views: str = "none"
    weights: str = "equal"
    choose: bool = False
    baseline: str | None = None
    error_rate: float | None = None
    coverage: float | None = None
    coverage_by: By = "all"
    batch_size: int = 128
    on_gpu: bool = False


class Member(NamedTuple):
    """A network, with weights or of an exported file, and the file that it came from."""

    file: Path
    model: "EmotionClassifier | ExportedModel"

    @property
    def run(self) -> Path:
        """The folder of its run or checkpoint; networks of the package and of the hub have one in outputs/."""
        if origin := hub.origin(self.file):
            return OF_HUB / origin.name
        if zoo.of_package(self.file):
            return OF_PACKAGE / self.file.stem
        folder = self.file.resolve().parent
        return folder.parent if folder.name == "checkpoints" else folder

    @property
    def trained(self) -> Trained | None:
        """How it was trained, as the ``metrics.json`` of its run states for the best epoch; None without one."""
        if self.file.name != "best.ckpt":
            return None
        try:
            return read(Trained, read_json(self.run / "metrics.json"))
        except (OSError, ValueError, LookupError, TypeError):  # a checkpoint may lie anywhere
            return None

    @property
    def opened(self) -> Opened:
        """The network as one that predicts from arrays, on the device where it is."""
        if isinstance(self.model, ExportedModel):
            return Opened(self.file, self.model.network)
        return Opened(self.file, opened(self.model, self.model.device))

    @property
    def weighted(self) -> "EmotionClassifier":
        """The network with its weights.

        Raises:
            FerError: it is an exported file, which has none.
        """
        if isinstance(self.model, ExportedModel):
            raise FerError(f"{self.file}: is an exported file; name the run or network that it was made from")
        return self.model

    @property
    def trained_with(self) -> DataKeys:
        """The data settings of its training."""
        return whole(self.model.provenance.dataset)


class PredictionsMember(NamedTuple):
    """A network of an ensemble that is known by its predictions alone, without weights.

    Args:
        file: folder of the predictions.
        beside: a network of the same ensemble with its weights, which states data and emotions.
    """

    file: Path
    beside: Member

    def results(self, request: Request) -> Results:
        """Return its results on the faces and views that are asked for.

        Raises:
            FerError: there are none, or they are damaged.
        """
        return predictions.recorded(self.file, request.split, request.views).results

    def refuse_other_val(self, views: str) -> None:
        """Raise unless its val is that of the network beside it, which was not trained on these faces.

        Raises:
            FerError: its val is another one, or no predictions of it with these views are recorded.
        """
        dataset = predictions.recorded(self.file, "val", views).results.dataset
        theirs = self.beside.model.provenance.dataset
        here = dataset.fingerprint, dataset.split, dataset.labels  # rows are compared elsewhere
        if here != tuple(theirs.get(key) for key in ("fingerprint", "split", "labels")):
            raise FerError(f"{self.file}: its val is of other data or another split than that of {self.beside.file}")

    def probabilities(self, data: Table, split: str, views: str) -> NDArray[np.float32]:
        """Return its probabilities (N, C) of a split's faces, in their order.

        Raises:
            FerError: it has none of them, or they are of other faces, labels or emotions.
        """
        file = predictions.recorded(self.file, split, views).file
        return of_split(predictions.read(file), str(file), data, split)


EnsembleMember = Member | PredictionsMember  # of an ensemble


def of_split(table: Predictions, name: str, data: Table, split: str) -> NDArray[np.float32]:
    """Return the probabilities (N, C) that predictions hold of a split's faces, in their order.

    Args:
        table: predictions, as read.
        name: of their file, for messages.
        data: the table of the faces.
        split: its name.

    Raises:
        FerError: they are of other faces.
    """
    index_of = {row: index for index, row in enumerate(table.rows.tolist())}
    rows, targets = data.faces.rows[data.indices(split)].tolist(), data.split(split).targets.tolist()
    labels = {row: table.targets[index] for row, index in index_of.items()}
    names = dict(enumerate(table.classes))  # they may be fewer than here
    expected = {row: names.get(target) for row, target in zip(rows, targets, strict=True)}
    if labels != expected:
        raise FerError(f"{name}: holds other faces or labels than {split} here; score both on the same")
    return table.probabilities[[index_of[row] for row in rows]].astype(np.float32)


def with_weights(given: Sequence[EnsembleMember]) -> list[Member]:
    """Return the networks of an ensemble that have weights; where none has, the one that stands beside them."""
    members = [network for network in given if isinstance(network, Member)]
    return members or [network.beside for network in given[:1] if isinstance(network, PredictionsMember)]


def whole(dataset: Dataset) -> DataKeys:
    """Return the data settings that the checkpoint of a training states; defaults for keys that an older one lacks."""
    return asdict(DataSettings()) | dict(dataset.get("settings", {}))


def same_split(settings: DataKeys, other: DataKeys) -> bool:
    """Return whether two data settings give the same faces, splits and labels."""
    besides = {*NO_EFFECT_ON_FACES, *(() if "ferplus" in (settings["labels"], other["labels"]) else OF_VOTES)}
    if not (settings["more"] or other.get("more")):  # further data sets may have other rules
        besides |= {*ALL_SPLIT_KEYS} - {*SPLIT_KEYS.get(settings["split"], ALL_SPLIT_KEYS)}
    return all(settings[key] == other.get(key) for key in settings.keys() - besides)


def members_of(networks: Sequence[str]) -> list[Member]:
    """Return the networks of run folders, checkpoints or exported files.

    Raises:
        FerError: one is bad or given twice, or they name different emotions.
    """
    files = [file_of(network) for network in networks]
    check_different(files)
    members = [Member(file, load(file)) for file in files]
    check_emotions((member.file, member.model.hparams["classes"]) for member in members)
    return members


def ensemble_members(networks: Sequence[str]) -> list[EnsembleMember]:
    """Return the networks of run folders and checkpoints, and after them those of folders of predictions.

    Raises:
        FerError: as in ``members_of``; or none has weights, and so none states which faces to score.
    """
    folders = [expand_home(name) for name in networks if predictions.holds_predictions(expand_home(name))]
    others = [name for name in networks if expand_home(name) not in folders]
    if not others:
        raise FerError(f"{folders[0]}: holds predictions without weights; name a run or checkpoint beside it")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise FerError("a folder of predictions is given twice; name each network once")
    members = members_of(others)
    return [*members, *(PredictionsMember(folder, members[0]) for folder in folders)]


@dataclass
class Tables:
    """The tables of an evaluation, each opened once.

    Args:
        batch_size: faces at a time.
        cache: as ``data.cache``.
    """

    batch_size: int
    cache: str | None = "auto"
    _opened: dict[str, Table] = field(default_factory=dict)

    def at(self, settings: DataKeys, image_size: int) -> Table:
        """Return the data of settings at a size in pixels.

        Raises:
            FerError: a setting is bad.
        """
        keys = {**settings, "image_size": image_size, "batch_size": self.batch_size, "cache": self.cache}
        data = build(DataSettings, keys, "the checkpoint's data settings")
        if repr(data) not in self._opened:
            self._opened[repr(data)] = Table(data)
        return self._opened[repr(data)]


@dataclass
class FacesBySize:
    """Faces at the size of each network.

    Args:
        settings: of the data, as plain values without the size.
        split: of the data.
        tables: of the evaluation.
    """

    settings: DataKeys
    split: str
    tables: Tables

    def at(self, image_size: int) -> Table:
        """Return the table of the faces at a size in pixels, their split in memory.

        Raises:
            FerError: the data are missing or bad, or have no such split.
        """
        data = self.tables.at(self.settings, image_size)
        data.split(self.split)
        return data

    def predicted(self, given: Sequence[EnsembleMember], request: Request) -> Array:
        """Return the probabilities of each network, (M, N, C).

        Raises:
            FerError: predictions that replace a network are missing, damaged, or of other faces or emotions.
        """
        parts = [
            self._scored(one, request) if isinstance(one, Member) else self._recorded(one, request.views)
            for one in given
        ]
        return together(parts)

    def _scored(self, member: Member, request: Request) -> Array:
        faces, size = self.at(member.model.image_size).split(self.split), self.tables.batch_size
        if isinstance(member.model, ExportedModel):
            parts = [faces.pixels(slice(start, start + size)) for start in range(0, len(faces), size)]
            return np.concatenate([member.model.uncalibrated(part, request.views) for part in parts])
        return _predicted(member.model, faces, size, request)

    def _recorded(self, member: PredictionsMember, views: str) -> NDArray[np.float32]:
        network = member.beside.model
        predicted = member.probabilities(self.at(network.image_size), self.split, views)
        if predicted.shape[1] != network.num_classes:
            counts = f"{predicted.shape[1]} emotions, {member.beside.file} predicts {network.num_classes}"
            raise FerError(f"{member.file}: predicts {counts}")
        return predicted


def _predicted(model: "EmotionClassifier", faces: Split, size: int, request: Request) -> Array:
    import torch  # here alone: exported files need none of these

    from fer.data.dataset import FaceDataset
    from fer.inference.tta import VIEWS
    from fer.models.base import predicted_probabilities

    views, device = VIEWS[request.views], torch.device("cuda" if request.on_gpu else "cpu")
    return predicted_probabilities(model, FaceDataset.of(faces), batch_size=size, device=device, views=views)


def settings_of(request: Request, members: Sequence[Member]) -> DataKeys:
    """Return the data settings of the training, changed as the request says.

    Raises:
        FerError: the data are not found (drawn faces never replace them), or differ among the networks.
    """
    known = dict(members[0].trained_with)
    channels = members[0].model.in_channels
    for member in members[1:]:
        if member.model.in_channels != channels:
            raise FerError(
                f"{member.file}: takes {member.model.in_channels} channels of a face, {members[0].file} {channels}; "
                "score them apart"
            )
        if request.data is None and not same_split(member.trained_with, known):
            raise FerError(
                f"{member.file}: was trained on other data or another split than {members[0].file}; name the data to "
                f"score all of them on with --data (what each was trained on is counted)"
            )
    if request.data is not None:
        path, _ = locate(request.data, drawn_faces_allowed=False)
        rule = rule_of_set(members[0], path)
        known |= {"votes": None, "labels": "fer2013", "class_names": None, **OF_SETS, **rule, "path": path}
    elif known["more"] and request.rule is not None:
        raise FerError(f"--rule {request.rule}: each of several data sets has its own; name one of them with --data")
    elif not present(known):
        known["path"] = found_again(known)
    changes = {
        "split": request.rule,
        "on_bad": request.on_bad,
        "class_names": request.class_names,
        "votes": request.votes,
        "labels": request.labels,
        "ferplus_rule": request.ferplus_rule,
    }
    known |= {key: value for key, value in changes.items() if value is not None} | {"exclude": None}  # of train alone
    if request.ferplus_rule is not None and known["labels"] != "ferplus":
        raise FerError(
            f"--ferplus-rule {request.ferplus_rule}: makes labels of votes; add --labels ferplus and --votes"
        )
    known["channels"] = channels
    known["classes"] = members[0].model.num_classes  # labels may be fewer: those of FER2013 have no contempt
    return known


def rule_of_set(member: Member, path: str) -> DataKeys:
    """Return how a network's training read and split its data set, or one of several; empty for other data.

    A set that was moved since is known by the name of its file or folder.
    """
    sets, known = member.model.provenance.dataset.get("sets") or (), member.trained_with
    before = [Path(name) for name in paths(known)][: max(1, len(sets))]
    equal = [file.resolve() == Path(path).resolve() for file in before]
    named = [not file.exists() and file.name == Path(path).name for file in before]
    index = next((matches.index(True) for matches in (equal, named) if True in matches), None)
    if index is None:
        return {}
    of_first = {key: known[key] for key in ("votes", "labels", "ferplus_rule", "class_names")}
    keys = of_first if index == 0 else {"class_names": further(known)[index - 1].class_names}
    return {"split": sets[index]["split"] if sets else known["split"], **keys}


def found_again(known: DataKeys) -> str:
    """Return the path of a training's data that have moved, searched for where a training would search.

    Raises:
        FerError: they are not found.
    """
    if known["more"]:
        missing = next(path for path in paths(known) if not Path(path).exists())
        raise FerError(
            f"trained on {len(paths(known))} data sets, of which {missing} was not found; name one to evaluate on "
            "with --data"
        )
    try:
        path, _ = locate(None, drawn_faces_allowed=False)
    except FerError as error:
        before = known["path"]
        reason = f"trained on {before}, which was not found" if before else "its file does not name its training data"
        raise FerError(f"{reason}; {error}") from error
    return path


def further(settings: DataKeys) -> list[FurtherSet]:
    """Return the further data sets of data settings.

    Raises:
        FerError: they are bad.
    """
    return [FurtherSet.of(part, "the checkpoint's data.more") for part in settings.get("more") or ()]


def paths(settings: DataKeys) -> list[str]:
    """Return the paths of all data sets of data settings."""
    return [str(settings.get("path")), *(part.path for part in further(settings))]


def present(settings: DataKeys) -> bool:
    """Return whether all data that settings name exist."""
    return settings["path"] is not None and all(map(is_at_hand, paths(settings)))


def is_at_hand(path: str) -> bool:
    """Return whether a data set exists; drawn faces always do."""
    return path == SYNTHETIC or Path(path).exists()
