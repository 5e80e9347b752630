"""Share an evaluated network with others: one safetensors file, and its model card beside it.

Kernels and matrices are stored in half precision, vectors in full. The file records the training data by name and
fingerprint, so that others who have the same data can evaluate the network on clean faces. A network whose file has no
thresholds of prediction sets gets those that the evaluation calibrated on val.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.config.errors import FerError
from fer.system.files import read_json, why, written_whole
from fer.system.records import Json

if TYPE_CHECKING:
    from torch import Tensor

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


def share(evaluation: Path, file: Path, *, half: bool) -> int:
    """Write the network of an evaluation and its model card; return the size of the network's file in bytes.

    Args:
        evaluation: folder of the evaluation of one network.
        file: path to write, ending in ``.safetensors``.
        half: round kernels and matrices to half precision.

    Raises:
        FerError: the folder is no evaluation of one network, the network is bad, or a file cannot be written.
    """
    from fer.models import checkpoints, safetensors

    if file.suffix != safetensors.SUFFIX:
        raise FerError(f"{file}: expected a name that ends in {safetensors.SUFFIX}")
    results, card = read_evaluation(evaluation), evaluation / "model_card.md"
    if not card.is_file():
        raise FerError(f"{evaluation}: has no model_card.md; evaluate again without --no-report")
    checkpoint = checkpoints.read(checkpoints.evaluated(results["members"][0])[0])
    weights = checkpoint["state_dict"]
    tensors = {name: rounded(value, half) for name, value in weights.items()}
    lossy = any(not tensors[name].to(value.dtype).equal(value) for name, value in weights.items())
    content = safetensors.to_bytes(tensors, {"format": "pt", checkpoints.METADATA: metadata(checkpoint, results)})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file, binary=True) as stream:
            stream.write(content)
        checkpoints.load(file)  # raises if the written file cannot be read
        with written_whole(file.with_suffix(".md")) as stream:
            shown = naming(without_folders(card.read_text(encoding="utf-8")), file)
            stream.write(METRICS.sub(lambda head: head[0] + ROUNDED, shown, count=1) if lossy else shown)
    except OSError as error:
        raise FerError(f"{file}: could not be written ({why(error)})") from error
    return len(content)


def without_folders(text: str) -> str:
    """Return a text with absolute paths and paths from ``~`` or ``..`` cut to file names; other paths stay."""
    return FOLDERS.sub("", QUOTED.sub(r"\g<quote>", text))


def naming(card: str, file: Path) -> str:
    """Return a model card whose example loads ``file``, by its name."""
    from fer.models.checkpoints import called

    return re.sub(r'fer\.load\("[^"]*"\)', lambda _: f'fer.load("{called(file)}")', card)


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
        raise FerError(f"{evaluation}: of {len(members)} networks; expected one, evaluated alone")
    return results


def rounded(tensor: "Tensor", half: bool) -> "Tensor":
    """Return kernels and matrices in half precision; vectors stay, being small and perhaps beyond its range."""
    return tensor.half() if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor


def metadata(checkpoint: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the description of a shared network as JSON, with file names in place of local paths."""
    entry = checkpoint["fer"]
    description = {
        **description_of(checkpoint),
        "sets": entry.get("sets") or calibrated_sets(entry, results),
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


def calibrated_sets(entry: Mapping[str, Any], results: Mapping[str, Any]) -> Any:
    """Return the thresholds of prediction sets that an evaluation calibrated for the probabilities of a network.

    Those for several views of a face, or with another temperature than the network's own, do not fit; None then.
    """
    fits = results.get("tta", "none") == "none" and results.get("temperature") == entry.get("temperature")
    return results["sets"]["thresholds"] if fits and results.get("sets") else None


def without_paths(dataset: Json) -> Json:
    """Return the record of a data set with file names in place of paths."""
    settings = {key: file_name(value) if key in PATHS else value for key, value in dataset.get("settings", {}).items()}
    return {**dataset, "path": file_name(dataset.get("path")), "settings": settings}


def file_name(path: Any) -> Any:
    """Return the last part of a path; other values, such as None, stay."""
    return Path(path).name if isinstance(path, str) else path
