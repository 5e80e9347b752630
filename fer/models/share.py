"""The shared form of an evaluated network.

It is one safetensors file, with a model card beside it. Kernels and matrices are stored in half precision, vectors in
full. The file records the training data by name and fingerprint, so that others who have the same data can evaluate the
network on clean faces. A network whose file has no thresholds of prediction sets gets those that the evaluation
calibrated on val.
"""

import json
import logging
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.config.errors import FerError
from fer.metrics import results as metrics_json
from fer.metrics.results import Results
from fer.runs import zoo
from fer.system import hub
from fer.system.files import check_beside, contents, read_json, why, written_whole
from fer.system.records import Json
from fer.system.text import in_markdown

if TYPE_CHECKING:
    from torch import Tensor

    from fer.models import EmotionClassifier

log = logging.getLogger(__name__)

RESULT_KEYS = (  # values of the evaluation's metrics.json that the file repeats
    "split", "n", "accuracy", "accuracy_ci95", "macro_f1", "nll", "ece", "ece_if_calibrated", "ece_if_calibrated_mean",
    "ece_rms_debiased", "tta", "commit", "command",
)  # fmt: skip
# the folders of a path, but not of a URL: of a quoted path, which may hold spaces, and of an unquoted one
QUOTED = re.compile(r"""(?P<quote>['"])(?:file://)?(?:~|\.{1,2})?/(?:(?!(?P=quote))[^\n])*/(?=[^/'"\n])""")
FOLDERS = re.compile(r"""(?<![\w/.<~])(?!(?<=:)//)(?:file://)?(?:~|\.{1,2})?/(?:[^\s/"'\],()]+/)+(?=[^\s/"'\],()])""")
PATHS = ("path", "votes", "exclude", "cache")  # keys of data settings whose values may be local paths

METRICS = re.compile(r"\n## (?:Metrics|Figures)\n\n")  # of a card; earlier ones say figures
ROUNDED = "Of the network before its weights were rounded to half precision; `fer.evaluate` gives this file's own.\n\n"


LOADS = re.compile(r'fer\.load\("[^"]*"(?:, download=True)?\)')  # of a card: its example
TITLE = re.compile(r"^# .*(, facial-emotion recognition)$", re.MULTILINE)  # of a card
MODEL_NAME = re.compile(r"^(model-index:\n- name: ).*$", re.MULTILINE)  # in a card's metadata


@dataclass(frozen=True)
class Shareable:
    """A network that is ready to be shared.

    Args:
        content: bytes of a safetensors file.
        card: its model card, Markdown.
    """

    content: bytes
    card: str

    def write(self, file: Path, card: Path, *, name: str, loads: str) -> None:
        """Write the network and its card, and load it again.

        Args:
            file: of the network.
            card: of the card.
            name: of the network in its card.
            loads: argument of ``fer.load`` in the card's example, and of ``download`` where that is needed.

        Raises:
            FerError: a file cannot be written, or that of the network cannot be read again.
        """
        from fer.models import checkpoints

        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(file, binary=True) as stream:
                stream.write(self.content)
            checkpoints.load(file)  # raises if the written file cannot be read
            with written_whole(card) as stream:
                stream.write(with_loading_example(titled(self.card, name), loads))
        except OSError as error:
            raise FerError(f"{file}: could not be written ({why(error)})") from error


def share(given: Path, file: Path, *, half: bool) -> int:
    """Write a network as one file, and its model card beside it; return the size of the network's file in bytes.

    Args:
        given: see ``shareable``.
        file: path to write, ending in ``.safetensors``.
        half: round kernels and matrices to half precision.

    Raises:
        FerError: there is no evaluated network, the network is bad, or a file cannot be written or would replace
            another one.
    """
    from fer.models import safetensors

    if file.suffix != safetensors.SUFFIX:
        raise FerError(f"{file}: expected a name that ends in {safetensors.SUFFIX}, or FOLDER/ for the hub")
    card = file.with_suffix(".md")
    check_beside(file, card)
    made = shareable(given, half=half)
    made.write(file, card, name=file.stem, loads=f'"{zoo.called(file)}"')
    return len(made.content)


def shareable(given: Path, *, half: bool) -> Shareable:
    """Return a network as it is shared.

    Args:
        given: folder of the evaluation of one network, a run, or what was shared before, such as a network of the
            package. Of a run the test evaluation is taken, else the newest. Weights that were shared stay as they are.
        half: round kernels and matrices to half precision.

    Raises:
        FerError: it is neither, or has no card.
    """
    from fer.models import checkpoints, hub_folder

    evaluation = evaluation_of(given)
    if (evaluation / "metrics.json").is_file():
        return _evaluated(evaluation, half=half)
    try:
        file = checkpoints.find(given)
    except FerError:
        if not hub_folder.is_hub_folder(given):
            read_evaluation(evaluation)  # raises, and says what an evaluation is
        raise
    card = hub_folder.card_beside(file)
    if not card.is_file() or not checkpoints.is_shared(file):
        raise FerError(
            f"{given}: has no model card; name the folder that python -m fer.evaluate {shlex.quote(str(given))} writes"
        )
    if not half:
        log.warning("--full: %s was shared before, and keeps the precision that it has", given)
    return Shareable(contents(file, hub.NEEDED[hub.NETWORK]), card.read_text(encoding="utf-8"))


def _evaluated(evaluation: Path, *, half: bool) -> Shareable:
    """Return the network of an evaluation, see ``shareable``."""
    from fer.models import checkpoints, safetensors

    results, card = read_evaluation(evaluation), evaluation / "model_card.md"
    if not card.is_file():
        raise FerError(f"{evaluation}: has no model_card.md; evaluate again without --no-report")
    member = results["members"][0]
    file, _ = checkpoints.evaluated(member["checkpoint"], member.get("weights_sha256"), evaluation)
    checkpoint = checkpoints.read(file)
    weights = checkpoint["state_dict"]
    tensors = {name: rounded(value, half) for name, value in weights.items()}
    lossy = any(not tensors[name].to(value.dtype).equal(value) for name, value in weights.items())
    content = safetensors.to_bytes(tensors, {"format": "pt", checkpoints.METADATA: metadata(checkpoint, results)})
    text = without_folders(card.read_text(encoding="utf-8"))
    return Shareable(content, METRICS.sub(lambda head: head[0] + ROUNDED, text, count=1) if lossy else text)


def evaluation_of(given: Path) -> Path:
    """Return the evaluation in a run that states most: of its own test, best in single view, else the newest.

    Those of several networks, and of the weights of an earlier epoch, are passed over. Any other path is returned as it
    is.

    Raises:
        FerError: the run has none with a card.
    """
    from fer.models import checkpoints

    best = given / "checkpoints" / "best.ckpt"
    if not best.is_file():
        return given
    model = checkpoints.load(best)
    cards = sorted((given / "evaluations").glob("*/model_card.md"), key=lambda card: card.stat().st_mtime_ns)
    found = [(card.parent, results) for card in cards if (results := _of_network(card.parent, model)) is not None]
    if not found:
        others = f"; of {len(cards)} none is of this network alone and its present weights" if cards else ""
        remedy = f"python -m fer.evaluate {shlex.quote(str(given))} --split test writes one"
        raise FerError(f"{given}: has no evaluation with a model card{others}; {remedy}")

    def states(results: Results) -> tuple[bool, bool]:
        fingerprint = model.provenance.dataset.get("fingerprint")
        own_test = results.split == "test" and results.dataset.fingerprint == fingerprint
        return own_test, own_test and results.tta == "none"

    most = max(states(results) for _, results in found)
    return [folder for folder, results in found if states(results) == most][-1]


def _of_network(evaluation: Path, model: "EmotionClassifier") -> Results | None:
    """Return the results of an evaluation of these weights alone; None of others, or where they cannot be read."""
    try:
        results = metrics_json.read(evaluation / "metrics.json")
    except FerError:
        return None
    hashes = [member.network and member.network.weights_sha256 for member in results.members]
    return results if hashes in ([None], [model.weights_sha256]) else None  # older evaluations have no hash


def without_folders(text: str) -> str:
    """Return a text with absolute paths and paths from ``~`` or ``..`` cut to file names; other paths stay."""
    return FOLDERS.sub("", QUOTED.sub(r"\g<quote>", text))


def with_loading_example(card: str, loads: str) -> str:
    """Return a model card whose example loads the network by these arguments of ``fer.load``."""
    return LOADS.sub(lambda _: f"fer.load({loads})", card)


def titled(card: str, name: str) -> str:
    """Return a model card with the name of a network in its title and its metadata, in place of its architecture's."""
    named = MODEL_NAME.sub(lambda head: head[1] + json.dumps(name, ensure_ascii=False), card, count=1)
    return TITLE.sub(lambda head: f"# {in_markdown(name)}{head[1]}", named, count=1)


def read_evaluation(evaluation: Path) -> dict[str, Any]:
    """Return the contents of ``metrics.json`` of an evaluation of one network.

    Raises:
        FerError: the folder holds no evaluation, or one of several networks.
    """
    try:
        results: dict[str, Any] = read_json(evaluation / "metrics.json")
        members = results["members"]
        results["members"] = [{**member, "checkpoint": str(Path(member["checkpoint"]))} for member in members]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FerError(
            f"{evaluation}: no evaluation (its metrics.json lists no networks); name a folder that fer.evaluate "
            "wrote, such as <run>/evaluations/val"
        ) from error
    if len(members) != 1:
        raise FerError(f"{evaluation}: evaluates {len(members)} networks together; expected one, evaluated alone")
    return results


def rounded(tensor: "Tensor", half: bool) -> "Tensor":
    """Return kernels and matrices in half precision; vectors stay, being small and perhaps beyond its range."""
    return tensor.half() if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor


def metadata(checkpoint: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the description of a shared network as JSON, with file names in place of local paths."""
    entry = checkpoint["fer"]
    description = {
        **description_of(checkpoint),
        "sets": sets_of(entry, results),
        "results": {
            **{key: results.get(key) for key in RESULT_KEYS},
            "clean": {key: (results.get("clean") or {}).get(key) for key in ("n", "accuracy", "macro_f1")},
        },
    }
    return without_folders(json.dumps(description))


def description_of(checkpoint: Mapping[str, Any]) -> Json:
    """Return what rebuilds a network from its weights, with file names in place of local paths."""
    entry = checkpoint["fer"]
    return {
        **entry,
        "dataset": without_paths(entry["dataset"]),
        "ancestors": [without_paths(dataset) for dataset in entry.get("ancestors", [])],
        "teachers": [without_path(teacher) for teacher in entry.get("teachers") or []] or None,
        "hyper_parameters": checkpoint["hyper_parameters"],
    }


def without_path(teacher: Json) -> Json:
    """Return the record of a teacher with the name of its file in place of the path."""
    return {**teacher, "checkpoint": Path(teacher["checkpoint"]).name}


def sets_of(entry: Mapping[str, Any], results: Mapping[str, Any]) -> Any:
    """Return the thresholds of prediction sets for a file: the network's own, if they serve each class too."""
    stored, measured = entry.get("sets"), calibrated_sets(entry, results)
    return stored if stored and (stored.get("by_class") or not measured) else measured


def calibrated_sets(entry: Mapping[str, Any], results: Mapping[str, Any]) -> Any:
    """Return the thresholds of prediction sets that an evaluation calibrated for the probabilities of a network.

    Those for several views of a face, or with another temperature than the network's own, do not fit; None then.
    """
    fits = results.get("tta", "none") == "none" and results.get("temperature") == entry.get("temperature")
    return results["sets"]["thresholds"] if fits and results.get("sets") else None


def without_paths(dataset: Json) -> Json:
    """Return the record of a data set with file names in place of paths."""
    settings = {key: file_name(value) if key in PATHS else value for key, value in dataset.get("settings", {}).items()}
    if settings.get("more"):
        settings["more"] = [
            {**one, "path": file_name(one["path"])} if isinstance(one, Mapping) else file_name(one)
            for one in settings["more"]
        ]
    path = file_name(dataset.get("path"))
    if not dataset.get("sets"):
        return {**dataset, "path": path, "settings": settings}
    sets = [without_paths(part) for part in dataset["sets"]]
    path = " + ".join(part["path"] or part["name"] for part in sets)
    return {**dataset, "path": path, "settings": settings, "sets": sets}


def file_name(path: Any) -> Any:
    """Return the last part of a path; other values, such as None, stay."""
    return Path(path).name if isinstance(path, str) else path
