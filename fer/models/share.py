"""A network in one safetensors file for others, with its card beside it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.config.errors import FerError
from fer.system.files import why, written_whole

if TYPE_CHECKING:
    from torch import Tensor
from typing import TYPE_CHECKING

TOLD = (
    "split", "n", "accuracy", "accuracy_ci95", "macro_f1", "nll", "ece", "ece_if_calibrated", "ece_if_calibrated_mean",
    "ece_rms_debiased", "tta", "commit", "command",
)  # fmt: skip
# folders of a path, but not of a page: of one in quotes, where it may hold spaces, and of any other
QUOTED = re.compile(r"""(?P<quote>['"])(?:file://)?(?:~|\.{1,2})?/(?:(?!(?P=quote))[^\n])*/(?=[^/'"\n])""")
FOLDERS = re.compile(r"""(?<![\w/.<~])(?!(?<=:)//)(?:file://)?(?:~|\.{1,2})?/(?:[^\s/"'\],()]+/)+(?=[^\s/"'\],()])""")
PATHS = ("path", "votes", "exclude", "cache")  # keys of data settings that may name files of this machine

FIGURES = "\n## Figures\n\n"  # of a card
ROUNDED = "Of the network before its weights were rounded to half precision; `fer.evaluate` gives this file's own.\n\n"


def share(evaluation: Path, file: Path, *, half: bool) -> int:
    """Write the network of an evaluation, and the evaluation's card; return the file's size in bytes.

    Args:
        evaluation: folder of one network's evaluation.
        file: to write.
        half: whether kernels and matrices are rounded to half precision.

    Raises:
        FerError: it is no evaluation of one network, the network is bad, or something cannot be written.
    """
    from fer.models import checkpoints, safetensors

    if file.suffix != safetensors.SUFFIX:
        raise FerError(f"{file}: expected a name that ends in {safetensors.SUFFIX}")
    results, card = told(evaluation), evaluation / "model_card.md"
    if not card.is_file():
        raise FerError(f"{evaluation}: has no model_card.md; evaluate without --no-report")
    checkpoint = checkpoints.read(checkpoints.evaluated(results["members"][0])[0])
    tensors = {name: rounded(value, half) for name, value in checkpoint["state_dict"].items()}
    content = safetensors.to_bytes(tensors, {"format": "pt", checkpoints.ABOUT: about(checkpoint, results)})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file, binary=True) as stream:
            stream.write(content)
        checkpoints.load(file)  # what cannot be read is of no use to anybody
        with written_whole(file.with_suffix(".md")) as stream:
            shown = naming(without_folders(card.read_text(encoding="utf-8")), file)
            stream.write(shown.replace(FIGURES, FIGURES + ROUNDED, 1) if half else shown)
    except OSError as error:
        raise FerError(f"{file}: could not be written ({why(error)})") from error
    return len(content)


def without_folders(text: str) -> str:
    """Return a text whose paths from the root, the home or the folder above are names alone; relative ones stay."""
    return FOLDERS.sub("", QUOTED.sub(r"\g<quote>", text))


def naming(card: str, file: Path) -> str:
    """Return a model card whose example loads this file, or the package's network of its name."""
    from fer.models.checkpoints import called

    return re.sub(r'fer\.load\("[^"]*"\)', lambda _: f'fer.load("{called(file)}")', card)


def told(evaluation: Path) -> dict[str, Any]:
    """Return the figures of an evaluation of one network.

    Raises:
        FerError: it is none.
    """
    try:
        results: dict[str, Any] = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
        count = len(results["members"])
        results["members"] = [{**one, "checkpoint": str(Path(one["checkpoint"]))} for one in results["members"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FerError(
            f"{evaluation}: no evaluation (its metrics.json tells of no networks); name a folder that fer.evaluate "
            "has written, such as <run>/evaluations/val"
        ) from error
    if count != 1:
        raise FerError(f"{evaluation}: is of {count} networks; one at a time can be shared")
    return results


def rounded(tensor: "Tensor", half: bool) -> "Tensor":
    """Return kernels and matrices in half precision; what has one dimension is small, and may be too large for it."""
    return tensor.half() if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor


def about(checkpoint: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return what a shared file tells of its network, as JSON; of files their names, nowhere the folders."""
    held = checkpoint["fer"]
    told = {
        **held,
        "dataset": without_paths(held["dataset"]),
        "ancestors": [without_paths(dataset) for dataset in held.get("ancestors", [])],
        "teachers": [{**one, "checkpoint": Path(one["checkpoint"]).name} for one in held.get("teachers") or []] or None,
        "hyper_parameters": checkpoint["hyper_parameters"],
        "results": {
            **{key: results.get(key) for key in TOLD},
            "clean": {key: (results.get("clean") or {}).get(key) for key in ("n", "accuracy", "macro_f1")},
        },
    }
    return without_folders(json.dumps(told))


def without_paths(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of a data set, its files by their names alone."""
    settings = {key: named(value) if key in PATHS else value for key, value in dataset.get("settings", {}).items()}
    return {**dataset, "path": named(dataset.get("path")), "settings": settings}


def named(path: Any) -> Any:
    """Return the last part of a path; nothing of nothing."""
    return Path(path).name if isinstance(path, str) else path
