"""``python -m fer.train [-m] [group=name] [key=value]``: fit a network, or sweep over settings with ``-m``.

Nothing here imports torch before the configuration has been found good: ``--help``, ``--cfg job`` and a mistyped key
answer at once.
"""

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fer import configuration, sweep
from fer.arguments import build
from fer.configuration import composed, import_plugins, offer_plugins, plain, refuse_additions
from fer.data.locate import locate
from fer.errors import FerError, command
from fer.settings import TrainSettings

log = logging.getLogger(__name__)


@command("fer.train")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    refuse_additions(arguments)
    offer_plugins(arguments)
    arguments = resuming(arguments)
    sweep.finished.clear()
    configuration.run(task, arguments)
    return max(map(sweep.report, sweep.finished), default=0)


def task(config: DictConfig) -> int | None:
    """What Hydra calls with a composed configuration: one run, or one job of a sweep."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        folder = Path(hydra_config.sweep.dir) / hydra_config.sweep.subdir
        return sweep.run_job(list(hydra_config.overrides.task), folder, config.data.path)
    settings = build(TrainSettings, plain(config))
    run(settings, Path(hydra_config.runtime.output_dir), hydra_config)
    return None


def run(settings: TrainSettings, folder: Path, hydra_config: Any) -> None:
    """Fit one run in ``folder`` and say where everything lies."""
    shown = _shown(folder)
    if settings.resume and (folder / "metrics.json").exists():
        log.info("finished already, nothing to resume: %s", shown)
        return
    if not settings.resume and (folder / "checkpoints").exists():
        raise FerError(
            f"hydra.run.dir={shown}: holds a run already; choose another folder, or go on with resume={shown}"
        )
    import_plugins(settings.plugins)
    path, stand_in = _data(settings, folder, experiment=hydra_config.runtime.choices.get("experiment"))
    from fer.training import fit, with_path  # torch comes in here, with everything checked that can be

    overrides = [text for text in hydra_config.overrides.task if not text.startswith("resume=")]
    fit(
        with_path(settings, path),
        folder,
        command=shlex.join(["python", "-m", "fer.train", *overrides]),
        stand_in=stand_in,
    )
    log.info("results:  %s", shown)
    for name, purpose in (
        ("metrics.json", "the figures"),
        ("predictions.csv", "a row a face"),
        ("history.csv", "a row an epoch"),
        ("checkpoints/best.ckpt", "the network: fer.load(path)"),
    ):
        log.info("  %-22s %s", name, purpose)
    log.info("next:     python -m fer.evaluate %s --split test", shlex.quote(str(shown)))


def _data(settings: TrainSettings, folder: Path, experiment: str | None) -> tuple[str, bool]:
    """Return the path of the data and whether drawn faces stand in; a resumed run goes on with what it had."""
    if settings.resume and settings.data.path is None:
        from fer.checkpoints import find, read

        about = read(find(folder, "last"))["fer"]["dataset"]
        return about["settings"]["path"], about["stand_in"]
    return locate(settings.data.path, drawn_faces_allowed=experiment is None and not settings.resume)


def _shown(folder: Path) -> Path:
    """Return the folder relative to the current one where it lies inside."""
    try:
        return folder.relative_to(Path.cwd())
    except ValueError:
        return folder


# --- resume ---------------------------------------------------------------------------------------------------------


def resuming(arguments: list[str]) -> list[str]:
    """Return the command line that continues a run in its own folder, if ``resume=`` is among the arguments.

    The run's own overrides are taken up. Done before Hydra starts, since Hydra rewrites the folder's ``.hydra``.

    Raises:
        FerError: there is no such run, or the other arguments, or the library's defaults, would change it.
    """
    given = [argument for argument in arguments if argument.startswith("resume=")]
    path = _unquoted(given[-1].partition("=")[2]) if given else "null"
    if path in ("", "null"):
        return arguments
    folder = Path(path).expanduser().resolve()
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise FerError(f"resume={path}: no run folder (it has no .hydra/config.yaml)")
    if {"-m", "--multirun"} & set(arguments):
        raise FerError("resume= continues one run; leave out -m")
    before = [str(text) for text in OmegaConf.load(folder / ".hydra" / "overrides.yaml")]
    merged = {text.partition("=")[0]: text for text in (*before, *arguments) if not text.startswith("resume=")}
    overrides = [text for key, text in merged.items() if not key.startswith(("hydra.", "-"))]
    offer_plugins(overrides)
    _refuse_changes(folder, path, plain(composed(overrides)))
    flags = [text for text in arguments if text.startswith("-")]
    return [*flags, *overrides, f"resume={sweep.quoted(str(folder))}", f"hydra.run.dir={sweep.quoted(str(folder))}"]


def _unquoted(value: str) -> str:
    quotes = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quotes else value


def _refuse_changes(folder: Path, path: str, now: Mapping[str, Any]) -> None:
    stored = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert isinstance(stored, DictConfig)
    before, after = dict(_leaves(plain(stored))), dict(_leaves(now))
    changed = [key for key in sorted(before | after) if key != "resume" and before.get(key) != after.get(key)]
    if changed:
        key = changed[0]
        more = f" (and {len(changed) - 1} more keys)" if len(changed) > 1 else ""
        raise FerError(
            f"resume={path}: the run has {key}={before.get(key)}, now it is {after.get(key)}{more}; a run goes on as "
            f"it began. To train on from its weights with other settings: init_from={path}"
        )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return found


if __name__ == "__main__":
    sys.exit(main(None))
