"""Lightning's loggers besides TensorBoard's: a CSV file, MLflow, Weights & Biases.

No torch here until they are made. ``logger=[tensorboard,csv]`` chooses several. A resumed run goes on in the same run
of MLflow and of Weights & Biases, whose names ``loggers.json`` keeps.
"""

import csv
import importlib.util
import logging
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fer.config.errors import FerError
from fer.config.settings import LoggerSettings
from fer.system import records
from fer.system.files import UNREADABLE, read_json, why, write_json

if TYPE_CHECKING:
    from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, WandbLogger

log = logging.getLogger(__name__)

FILE = "loggers.json"
PACKAGES = {"mlflow": "MLflow", "wandb": "Weights & Biases"}  # module and extra of the same name -> in words
LEFT_OUT = "pictures, precision-recall curves and HPARAMS need TensorBoard, and are left out"


@dataclass(frozen=True)
class RunNames:
    """The contents of ``loggers.json``: the names of the run in MLflow and in Weights & Biases."""

    mlflow: str | None = None
    wandb: str | None = None


def chosen(settings: LoggerSettings) -> list[str]:
    """Return the loggers besides TensorBoard's that the settings choose."""
    return [name for name in ("csv", *PACKAGES) if getattr(settings, name)]


def require_packages(settings: LoggerSettings) -> None:
    """Raise if a chosen logger's package is not installed.

    Raises:
        FerError: naming the command that installs it.
    """
    for name in chosen(settings):
        if name in PACKAGES and importlib.util.find_spec(name) is None:
            raise FerError(
                f"logger.{name}=true: {PACKAGES[name]} is not installed: pip install 'fer-lightning[{name}]', or leave "
                "it out"
            )


def opened(settings: LoggerSettings, folder: Path, begin: int, *, resumed: bool) -> "dict[str, Logger]":
    """Return name -> logger of each chosen one besides TensorBoard's, ready to be written to.

    Args:
        settings: section ``logger``.
        folder: folder of the run.
        begin: finished epochs of a resumed run.
        resumed: whether the run is resumed.

    Raises:
        FerError: a package is missing, or a server or store cannot be used.
    """
    require_packages(settings)
    before = names_in(folder) if resumed else RunNames()
    makers: dict[str, Callable[[], Logger]] = {
        "csv": lambda: _csv(folder, begin),
        "mlflow": lambda: _mlflow(settings, folder, before.mlflow),
        "wandb": lambda: _wandb(settings, folder, before.wandb),
    }
    loggers = {name: _usable(name, settings, makers[name]) for name in chosen(settings)}
    if set(PACKAGES) & set(loggers):
        names = {name: str(loggers[name].version) for name in PACKAGES if name in loggers}
        write_json(folder / FILE, records.plain(RunNames(**names)))
    return loggers


def names_in(folder: Path) -> RunNames:
    """Return the contents of a run's ``loggers.json``; empty if it is missing or damaged."""
    try:
        return records.read(RunNames, read_json(folder / FILE))
    except UNREADABLE:
        return RunNames()


def run_name(folder: Path) -> str:
    """Return a run's name in MLflow and Weights & Biases: its folder and the one above, which is a sweep's or a day."""
    return f"{folder.absolute().parent.name}/{folder.name}"


def _usable(name: str, settings: LoggerSettings, make: "Callable[[], Logger]") -> "Logger":
    """Return a logger; its errors become one line."""
    try:
        return make()
    except Exception as error:  # each package has errors of its own
        where = f"logger.{name}=true"
        if name == "mlflow" and settings.mlflow_uri:
            where = f"logger.mlflow_uri={settings.mlflow_uri}"
        elif name == "mlflow" and os.environ.get("MLFLOW_TRACKING_URI"):  # it may hold a password
            where = "logger.mlflow=true, with MLFLOW_TRACKING_URI"
        remedy = " wandb login, or logger.wandb_mode=offline;" if name == "wandb" else ""
        raise FerError(f"{where}: cannot be used ({why(error)});{remedy} logger=tensorboard does without it") from error


def _csv(folder: Path, begin: int) -> "CSVLogger":
    """Return the logger of ``csv/metrics.csv``; of a resumed run it keeps the rows of the finished epochs.

    Lightning's logger deletes a file that it finds, so that a file of an interrupted run is moved aside first.
    """
    from pytorch_lightning.loggers import CSVLogger

    aside, now = folder / "csv.before", folder / "csv"
    if now.exists() and not aside.exists():
        now.rename(aside)
    shutil.rmtree(now, ignore_errors=True)
    logger = CSVLogger(folder, name="", version="csv", flush_logs_every_n_steps=1)
    if aside.exists():
        for row in _rows(aside / logger.experiment.NAME_METRICS_FILE):
            if float(row["step"]) <= begin:
                logger.log_metrics({name: float(value) for name, value in row.items() if value}, int(row["step"]))
        shutil.rmtree(aside)
    return logger


def _rows(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _mlflow(settings: LoggerSettings, folder: Path, run: str | None) -> "MLFlowLogger":
    from pytorch_lightning.loggers import MLFlowLogger

    logging.getLogger("pytorch_lightning.loggers.mlflow").setLevel(logging.ERROR)  # it warns of a new experiment
    store = settings.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI") or (folder.absolute() / "mlruns").as_uri()
    if "://" not in store or store.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for it, in favour of databases
    logger = MLFlowLogger(settings.project, run_name(folder), store, run_id=run)
    logger.experiment.update_run(str(logger.run_id), status="RUNNING")
    return logger


def _wandb(settings: LoggerSettings, folder: Path, run: str | None) -> "WandbLogger":
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    name = run or uuid.uuid4().hex[:8]
    experiment = wandb.init(  # without an account it fails here; Lightning's own call passes an argument that warns
        project=settings.project, name=run_name(folder), dir=folder, id=name, resume="allow",
        mode=settings.wandb_mode, settings=wandb.Settings(silent=True, console="off"),
    )  # fmt: skip
    experiment.define_metric("trainer/global_step")  # Lightning's axis
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(project=settings.project, id=name, experiment=experiment)


def close(name: str, logger: "Logger", *, complete: bool) -> None:
    """End a logger's run: what it holds back is written or sent."""
    logger.finalize("success" if complete else "failed")
    if name == "wandb":
        logger.experiment.finish(exit_code=0 if complete else 1)  # type: ignore[attr-defined]
