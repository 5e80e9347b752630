"""The report of a run: ``report.html`` and ``figures/``.

One page explains the run. The folder has the same figures, fit for papers.
"""

from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from fer.data.faces import bad_rows_in_words
from fer.data.readers.images import PHOTOGRAPHS
from fer.data.split_notes import NOT_OFFICIAL
from fer.metrics.calibration import tempered
from fer.metrics.results import (
    DatasetRecord,
    Results,
    Values,
)
from fer.reports import figures, html, plotting
from fer.reports.html import card, joined, paragraph
from fer.reports.run_sections import (
    NO_INTERVAL,
    Report,
    after_semicolon,
    caption,
    doubtful,
    machine_in_words,
    mistakes,
    sections,
)
from fer.reports.summary import (
    calibration_beside,
    calibration_verdict,
    ensemble_in_words,
    limits_of_val,
    seen_by_content_in_words,
    seen_in_choice_in_words,
    teachers_in_words,
)
from fer.system.text import clock, sentence, times


def write(report: Report, folder: Path) -> None:
    """Write ``figures/`` and ``report.html`` to ``folder``.

    Raises:
        OSError: the folder may not be written.
    """
    drawn = draw(report, folder / "figures")
    results = report.results
    several = "Ensemble of " if len(results.members) > 1 else ""
    split = "" if report.history else f": {results.split}"
    title = f"{several}{results.architecture} on {results.dataset.name}{split}"
    version = results.machine.versions.get("fer", "")
    html.write(folder / "report.html", title, lead(report), sections(report, drawn), f"Written by fer {version}.")


def draw(report: Report, folder: Path) -> dict[str, str]:
    """Write the figures, and return name -> SVG."""
    with plotting.style():
        made = {**_metric_figures(report), **_face_figures(report)}
    return {name: plotting.save(figure, folder, name) for name, figure in made.items()}


def _metric_figures(report: Report) -> dict[str, Figure]:
    scored, results = report.scored, report.results
    made = {
        "confusion": figures.confusion(results.scores.confusion, scored.classes),
        "reliability": figures.reliability(scored.probabilities, scored.targets, _ece(results.metrics)),
    }
    warm = tempered(scored.probabilities, results.temperature or 1.0)
    if results.calibrated:
        ece = _ece(results.calibrated)
        made["calibrated"] = figures.reliability(warm, scored.targets, ece, results.temperature)
    made["coverage"] = figures.risk_coverage(warm, scored.targets, _answered(results))
    made["per_class"] = figures.per_class(results.scores.per_class)
    if results.diversity:
        made["disagreement"] = figures.disagreement(results.diversity.disagreement)
    if results.selection:
        made["selection"] = figures.selection(results.selection)
    if report.history and results.training:
        made["curves"] = figures.curves(report.history, results.training.best_epoch)
    return made


def _face_figures(report: Report) -> dict[str, Figure]:
    scored, made = report.scored, {}
    for name, indices in (("mistakes", mistakes(scored)), ("doubtful", doubtful(scored))):
        if indices.size:
            captions = [caption(scored, index) for index in indices]
            made[name] = figures.faces(scored.images[indices], captions)
    if report.augmented is not None:
        made["augmented"] = figures.augmented(*report.augmented)
    return made


def _ece(metrics: Values) -> tuple[float, float]:
    """Return the ECE, and the 95th percentile of a calibrated network's."""
    ece = metrics["ece"]
    return ece.number, ece.if_calibrated or 0.0


def _answered(results: Results) -> tuple[float, float] | None:
    """Return coverage and error on these faces of the threshold that was chosen for a target error."""
    answered = results.answering.answered if results.answering else None
    return None if answered is None or answered.error is None else (answered.coverage, answered.error)


def lead(report: Report) -> Markup:
    """Return what stands below the title: the faces, the choice, the time, and warnings."""
    results = report.results
    parts = [f"{results.scores.n:,} faces of {results.split} ({results.dataset.split} split)"]
    if report.history and results.training:
        trained = results.training
        parts.append(f"epoch {trained.best_epoch} of {trained.epochs}, chosen on val")
        parts.append(f"trained in {clock(trained.train_seconds)} on {machine_in_words(results)}")
    if ensemble := ensemble_in_words(results):
        parts.append(ensemble)
    if results.tta != "none":
        parts.append(f"test-time augmentation: {results.tta}")
    if results.test_opened:
        parts.append(f"test opened {times(results.test_opened)} by now")
    if results.pretrained:
        parts.append(f"began with pretrained weights: {results.pretrained.name}")
    if teachers := teachers_in_words(results):
        parts.append(f"learnt from {teachers}")
    notes = [html.note(text) for text in warnings(report)]
    return joined(paragraph(" · ".join(parts), class_="soft"), *notes, headline(results))


def warnings(report: Report) -> list[str]:
    """Return the warnings that a reader of the metrics needs first."""
    dataset = report.results.dataset
    notes = _of_split(dataset)
    trainer = report.settings.get("trainer", {})
    if report.history and (limit := trainer.get("limit_train", 1.0)) < 1:
        notes.append(f"Each epoch trained on a part of the faces (trainer.limit_train={limit}).")
    trained = report.results.training
    part = limits_of_val(trainer, report.results.scores.n, trained.batch_size) if report.history and trained else []
    if part:
        notes.append(
            f"The epoch was chosen by val metrics over a part of the faces ({', '.join(part)}); "
            "all other metrics are over all faces."
        )
    copies = seen_by_content_in_words(report.results), seen_in_choice_in_words(report.results)
    notes += [words for words in copies if words]
    telling = (f"{report.results.split} faces have an exact", NOT_OFFICIAL, PHOTOGRAPHS)
    notes += [note for note in dataset.notes if any(words in note for words in telling)]
    if dataset.skipped:
        notes.append(f"Skipped: {bad_rows_in_words(dataset.skipped)}, listed in metrics.json.")
    return notes


def _of_split(dataset: DatasetRecord) -> list[str]:
    """Return why metrics of this data and split cannot be compared with those of PrivateTest."""
    notes = []
    if dataset.stand_in:
        notes.append("Drawn faces replaced FER2013, which was not found: these metrics say nothing about photographs.")
    if dataset.split == "holdout":
        notes.append("The split is a seeded 80/20 of all faces: do not compare with metrics on PrivateTest.")
    if dataset.split == "folds":
        notes.append("Val is one of several folds of all faces: do not compare with metrics on PrivateTest.")
    return notes + [sentence(words) for words in (dataset.missing.in_words() if dataset.missing else [])]


def headline(results: Results) -> Markup:
    """Return the cards of the main metrics, each with its 95 % interval."""
    made = []
    for title, name, meaning in (
        ("Accuracy", "accuracy", "share of faces predicted as labelled"),
        ("Macro-F1", "macro_f1", "precision and recall together, every emotion counting the same"),
        ("Balanced accuracy", "balanced_accuracy", "mean recall of the emotions"),
    ):
        value, ends = results.metrics[name].number, results.metrics[name].ci95
        interval = "{:.1f} to {:.1f} (95 %)".format(*(100 * end for end in ends)) if ends else NO_INTERVAL
        drawn = (ends.low, value, ends.high) if ends else None
        made.append(card(title, f"{100 * value:.2f} %", interval, meaning, drawn))
    return html.cards([*made, _nll_card(results), _ece_card(results.metrics)])


def _nll_card(results: Results) -> Markup:
    nll, guessing = results.metrics["nll"], np.log(len(results.scores.per_class))
    interval = "{:.3f} to {:.3f} (95 %)".format(*nll.ci95) if nll.ci95 else NO_INTERVAL
    meaning = f"negative log-likelihood of the labels, lower is better; guessing gives {guessing:.2f}"
    return card("NLL", f"{nll.number:.3f}", interval, meaning)


def _ece_card(metrics: Values) -> Markup:
    meaning = (
        "mean gap between confidence and accuracy, 15 bins; chance: what a calibrated network shows on as many "
        f"faces{after_semicolon(calibration_beside(metrics, 3))}"
    )
    verdict = calibration_verdict("ece", metrics, 3)
    return card("Calibration error", f"{metrics['ece'].number:.3f}", verdict, meaning)
