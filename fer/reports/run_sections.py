"""The contents of a run's report, and its sections as HTML."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fer.config.settings import Config, leaves
from fer.metrics.explanation import Explanation
from fer.metrics.results import (
    Annotators,
    BaselineComparison,
    Results,
    SetsRecord,
    TrainingRecord,
)
from fer.reports import figures, html
from fer.reports.explanation import page
from fer.reports.explanation.page import Maps
from fer.reports.html import Section, joined, paragraph, tag
from fer.reports.summary import (
    AGREEMENT_HEADS,
    CHANCE,
    MEMBER_HEADS,
    OF_DATA_SET_HEADS,
    SET_HEADS,
    absent_in_words,
    agreement_rows,
    answering_in_words,
    by_data_set_rows,
    calibration_beside,
    calibration_verdict,
    difference_rows,
    errors_by_vote,
    if_any,
    if_predicted,
    member_rows,
    metric_rows,
    others,
    same_views,
    seen_by_baseline,
    selection_in_words,
    set_rows,
    sets_in_words,
    teachers_in_words,
    training_in_words,
)
from fer.runs.predictions import Scored
from fer.system.text import sentence

NO_INTERVAL = "too few faces for an interval"
SHOWN_FACES = 18  # of each kind: three rows of six


@dataclass(frozen=True)
class Report:
    """The contents of a report; parts that are empty are left out.

    Args:
        results: as in ``metrics.json``.
        scored: the faces behind them.
        history: a row an epoch, as in ``history.csv``.
        augmented: (K, S, S) faces as they are and (K, M, S, S) as training sees them, uint8.
        settings: the whole configuration.
        changes: key -> (value, default), of the settings that differ from the defaults.
        explained: the most confident mistakes with their maps, in the order of ``mistakes``; None if not asked for.
    """

    results: Results
    scored: Scored
    history: Sequence[Mapping[str, float]] = ()
    augmented: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
    settings: Config = field(default_factory=dict)
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    explained: tuple[Explanation, Maps] | None = None


def mistakes(scored: Scored, count: int = SHOWN_FACES) -> NDArray[np.int64]:
    """Return the indices of the wrong predictions with the highest confidence, the highest first."""
    predicted, confidence = scored.probabilities.argmax(1), scored.probabilities.max(1)
    wrong = np.flatnonzero(predicted != scored.targets)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:count]


def doubtful(scored: Scored, count: int = SHOWN_FACES) -> NDArray[np.int64]:
    """Return the indices of the faces whose two likeliest emotions are nearest to each other, the nearest first."""
    ranked = np.sort(scored.probabilities, axis=1)
    return np.argsort(ranked[:, -1] - ranked[:, -2], kind="stable")[:count]


def caption(scored: Scored, index: int) -> list[str]:
    """Return the lines beneath a face in a figure."""
    chances = scored.probabilities[index]
    predicted, label = scored.classes[chances.argmax()], scored.classes[scored.targets[index]]
    return [f"{predicted} {100 * chances.max():.0f} %", f"label: {label}", f"row {scored.rows[index]}"]


# --- the page -------------------------------------------------------------------------------------------------------


def sections(report: Report, drawn: Mapping[str, str]) -> list[Section]:
    """Return the parts of the page, in order."""
    trained = report.results.training if "curves" in drawn else None
    of_sets = by_data_set_rows(report.results)
    parts = [
        Section("training", "Training", training(report, trained, drawn)) if trained else None,
        Section("confusion", "Which emotions are confused", confusions(report, drawn)),
        Section("emotions", "Emotion by emotion", emotions(report, drawn)),
        Section("data-sets", "Data set by data set", html.table(OF_DATA_SET_HEADS, of_sets, (1,))) if of_sets else None,
        Section("metrics", "All metrics", all_metrics(report)),
        Section("ensemble", "The ensemble", networks) if (networks := ensemble(report, drawn)) else None,
        Section("comparison", "Comparison with a baseline", comparison(report.results, compared))
        if (compared := report.results.comparison)
        else None,
        Section("annotators", "FER+ annotators", annotators(votes)) if (votes := report.results.annotators) else None,
        Section("calibration", "Does it know when it is wrong?", calibration(report, drawn)),
        Section("sets", "Prediction sets", prediction_sets(sets)) if (sets := report.results.sets) else None,
        _faces_section(report, "mistakes", "Most confident mistakes", mistakes(report.scored)),
        _faces_section(report, "doubtful", "Most doubtful faces", doubtful(report.scored)),
        Section("augmented", "Augmentation", augmentation(report, drawn)) if "augmented" in drawn else None,
        Section("configuration", "Configuration", configuration(report)) if report.settings else None,
        Section("provenance", "Provenance", provenance(report)),
    ]
    return [part for part in parts if part is not None]


def training(report: Report, trained: TrainingRecord, drawn: Mapping[str, str]) -> Markup:
    """Return the learning curves and the numbers behind them."""
    best = next(row for row in report.history if row["epoch"] == trained.best_epoch)
    last = report.history[-1]
    gap = 100 * (best["accuracy/train"] - best["accuracy/val"])
    facts = [
        ("chosen epoch", f"{trained.best_epoch} of {trained.epochs}"),
        ("its val accuracy", f"{100 * best['accuracy/val']:.2f} %"),
        ("its train accuracy", f"{100 * best['accuracy/train']:.2f} % ({gap:+.1f} points)"),
        ("val accuracy at the end", f"{100 * last['accuracy/val']:.2f} %"),
        ("an epoch", f"{np.median([row['seconds'] for row in report.history]):.1f} s (median)"),
        ("training faces a second", f"{trained.images_per_second:,.0f}"),
    ]
    if trained.peak_memory_mb:
        facts.append(("peak memory", f"{trained.peak_memory_mb:,.0f} MB"))
    meaning = paragraph(
        "Train metrics are running means over each epoch's augmented faces with dropout on. Val metrics are computed "
        "after the epoch on plain faces: train may lie below val at first. A growing gap later is overfitting. "
        "Training minimises the loss, which includes label smoothing and class weights; the NLL above does not.",
        class_="soft",
    )
    return html.columns(
        html.drawing(drawn["curves"], "loss, accuracy and learning rate by epoch"),
        joined(meaning, html.table((), facts, (1,))),
    )


def confusions(report: Report, drawn: Mapping[str, str]) -> Markup:
    """Return the confusion matrix and its largest entries in words."""
    classes = report.scored.classes
    counts = np.asarray(report.results.scores.confusion)
    totals = counts.sum(1).clip(min=1)
    off = [(counts[i, j] / totals[i], i, j) for i, j in np.ndindex(counts.shape) if i != j and counts[i, j]]
    rows = [
        (f"{classes[i]} predicted as {classes[j]}", f"{counts[i, j]:,} of {counts[i].sum():,}", f"{100 * share:.1f} %")
        for share, i, j in sorted(off, reverse=True)[:8]
    ]
    legend = paragraph("Rows are labels: each adds up to 100 %. The diagonal is the recall.", class_="soft")
    largest = (
        joined(tag("h3", "Most often confused"), html.table(("", "faces", "of its label"), rows, (1, 2)))
        if rows
        else paragraph("Nothing is confused.")
    )
    return html.columns(html.drawing(drawn["confusion"], "confusion matrix"), joined(legend, largest))


def emotions(report: Report, drawn: Mapping[str, str]) -> Markup:
    """Return precision, recall and F1 of each class."""
    rows = [
        (
            name,
            if_predicted(report.results.scores, name, f"{100 * values.precision.number:.1f}"),
            if_any(values, f"{100 * values.recall.number:.1f}"),
            if_any(values, "{:.0f} – {:.0f}".format(*(100 * end for end in values.recall.ci95 or (0, 1)))),
            if_any(values, f"{100 * values.f1.number:.1f}"),
            f"{values.support:,}",
        )
        for name, values in report.results.scores.per_class.items()
    ]
    heads = ("in per cent", "precision", "recall", "its 95 %", "F1", "faces")
    missing = [paragraph(sentence(words), class_="soft") for words in absent_in_words(report.results)]
    return html.columns(
        html.drawing(drawn["per_class"], "precision and recall by emotion"),
        joined(html.table(heads, rows, (1, 2, 3, 4, 5)), *missing),
    )


def ensemble(report: Report, drawn: Mapping[str, str]) -> Markup:
    """Return the networks of an ensemble, how they differ, and how they were chosen."""
    results, parts = report.results, []
    if "disagreement" in drawn:
        legend = paragraph(
            "Temperature: each network's logits are divided by it before mixing. Alone: the accuracy of each network "
            "on these faces. Answers differently: the share of these faces on which two networks disagree, averaged "
            "over the others. An ensemble gains where networks are accurate and differ.",
            class_="soft",
        )
        parts.append(html.table(MEMBER_HEADS, member_rows(results), (1, 2, 3, 4)))
        parts.append(html.columns(html.drawing(drawn["disagreement"], "share of faces answered differently"), legend))
    if results.selection:
        words = paragraph(sentence(selection_in_words(results.selection)), class_="soft")
        parts.append(html.columns(html.drawing(drawn["selection"], "val accuracy and NLL by networks added"), words))
    return joined(*parts)


def calibration(report: Report, drawn: Mapping[str, str]) -> Markup:
    """Return the reliability diagrams, and the error where only confident answers count."""
    results = report.results
    uncalibrated = paragraph(
        "No temperature is known: no val split on which all networks were chosen could be read.", class_="soft"
    )
    surest = results.selective.error_at_coverage if results.selective else {}
    rows = [(f"{100 * float(coverage):.0f} %", f"{100 * error:.1f} %") for coverage, error in surest.items()]
    return joined(
        paragraph(_confidence_in_words(report), class_="soft"),
        html.columns(
            html.drawing(drawn["reliability"], "accuracy against confidence"),
            html.drawing(drawn["calibrated"], "the same with the temperature")
            if "calibrated" in drawn
            else uncalibrated,
        ),
        paragraph(_temperature_in_words(results), class_="soft"),
        *([paragraph(answering_in_words(results.answering))] if results.answering else []),
        html.columns(
            html.drawing(drawn["coverage"], "error against the share of faces answered"),
            html.table(("most confident faces", "wrong among them"), rows, (1,)),
        ),
    )


def prediction_sets(found: SetsRecord) -> Markup:
    """Return coverage and size of the prediction sets, and how many emotions they hold."""
    limit = f"{found.threshold:.3f}" if found.by == "all" else "a threshold of each emotion's own"
    legend = paragraph(
        "A set holds the most probable emotions of a face, until their probabilities together exceed "
        f"{limit}. Coverage is the share of the faces whose set holds the label. {sets_in_words(found)}",
        class_="soft",
    )
    total = max(1, found.scores.n)
    sizes = [(size, f"{100 * count / total:.1f} %") for size, count in enumerate(found.scores.sizes, start=1)]
    return joined(
        legend,
        html.columns(
            html.named(html.table(SET_HEADS, set_rows(found), (1, 2, 3))),
            html.table(("emotions in a set", "share of the faces"), sizes, (0, 1)),
        ),
    )


def _confidence_in_words(report: Report) -> str:
    """Return in words how the mean confidence compares with the accuracy."""
    confidence = float(report.scored.probabilities.max(1).mean())
    accuracy = report.results.scores.accuracy
    low, high = accuracy.ci95 or (0.0, 1.0)
    verdict = "more confident than it is right" if confidence > high else "more often right than it claims"
    verdict = "the difference is within the interval" if low <= confidence <= high else verdict
    return (
        f"Its mean confidence is {100 * confidence:.1f} %, and it is right in {100 * accuracy.number:.1f} %: {verdict}."
        " Bars on the dashed line mean: of all faces predicted with, say, 70 % confidence, 70 % are right."
    )


def after_semicolon(words: str) -> str:
    """Return words to append to a sentence; nothing where there are none."""
    return f"; {words}" if words else ""


def _temperature_in_words(results: Results) -> str:
    """Return in words what the temperature is and what it changes."""
    below = "Below: the error where only the most confident answers count."
    if not results.calibrated:
        return below
    before, after = results.metrics, results.calibrated
    beside = after_semicolon(calibration_beside(after, 3))
    return (
        f"With temperature: logits are divided by {results.temperature:.3f}, which maximises the likelihood of the "
        f"labels of {results.temperature_fitted_on or 'val'}. It changes no answer, only the confidence: NLL "
        f"{before['nll'].number:.3f} becomes {after['nll'].number:.3f}, the calibration error "
        f"{before['ece'].number:.3f} becomes {after['ece'].number:.3f}, "
        f"{calibration_verdict('ece', after, 3)}{beside}. {below}"
    )


def all_metrics(report: Report) -> Markup:
    """Return every metric with its interval, with a column for the clean faces."""
    results, clean = report.results, report.results.clean
    heads = ["", f"{results.split}, {results.scores.n:,} faces", *([f"clean, {clean.n:,} faces"] if clean else [])]
    legend = paragraph(
        f"With 95 % intervals for {others(results.scores)}. Clean: without the faces that were trained on, which are "
        "found by exact duplicates and by content. A calibration error has no honest interval near 0; what chance "
        f"makes it is given instead. {CHANCE}",
        class_="soft",
    )
    return joined(legend, html.table(heads, metric_rows(results), stack=True))


def annotators(found: Annotators) -> Markup:
    """Return the agreement with FER+'s annotators, and the network's errors by their votes."""
    legend = paragraph(
        "FER+ has ten annotators' votes for each face (Barsoum et al. 2016). Best possible: the answer that most give.",
        class_="soft",
    )
    errors = html.table((f"of its {found.errors.all:,} errors", "faces", "share"), errors_by_vote(found.errors), (1, 2))
    return joined(legend, html.columns(html.table(AGREEMENT_HEADS, agreement_rows(found), (1, 2, 3)), errors))


def comparison(results: Results, found: BaselineComparison) -> Markup:
    """Return the paired differences to a baseline."""
    test = found.paired.mcnemar
    legend = paragraph(
        "This minus ", tag("code", found.name), f", on the same faces{same_views(results)}, with 95 % intervals "
        f"for {others(results.scores)}. Only this one is right on {test.first:,} faces, only the other on "
        f"{test.second:,}: McNemar's exact p = {test.p:.3g}. Of these two networks, not of their seeds. ",
        seen_by_baseline(found),
        class_="soft",
    )  # fmt: skip
    return joined(legend, html.table(("", "difference", "95 %"), difference_rows(found.paired), (1, 2)))


def _faces_section(report: Report, name: str, title: str, indices: NDArray[np.int64]) -> Section | None:
    if not indices.size:
        return None
    meaning = {
        "mistakes": "Wrong answers with the highest confidence: some of these labels may be wrong.",
        "doubtful": "Faces whose two likeliest emotions lie nearest to each other.",
    }[name]
    key = paragraph(
        meaning, " ", tag("span", "Green", class_="good"), " is the label, ", tag("span", "red", class_="bad"),
        " a wrong answer; probabilities in per cent.", class_="soft",
    )  # fmt: skip
    shown = tag("div", *(_face(report.scored, int(index)) for index in indices), class_="faces")
    maps = _maps(*report.explained) if name == "mistakes" and report.explained else ""
    return Section(name, title, joined(key, shown, maps))


def _maps(found: Explanation, maps: Maps) -> Markup:
    """Return the maps of the most confident mistakes, below the verdict of their check."""
    meaning = (
        "One view of each face; an ensemble's networks count equally. Probabilities are calibrated here, where the "
        "networks have a temperature; in the mistakes above they are not."
    )
    return joined(
        tag("h3", "What the network looked at"), html.note(found.check.verdict), page.key(),
        paragraph(meaning, class_="soft"), page.faces(found, maps),
    )  # fmt: skip


def _face(scored: Scored, index: int) -> Markup:
    chances = dict(zip(scored.classes, scored.probabilities[index].tolist(), strict=True))
    predicted, label = max(chances, key=lambda name: chances[name]), scored.classes[scored.targets[index]]
    lines = (f"{predicted} {100 * chances[predicted]:.0f} %", f"labelled {label}", f"row {scored.rows[index]}")
    (image,) = figures.shrunk(scored.images[index][None])
    return html.face(image, lines, html.chances(chances, {predicted: "predicted", label: "label"}))


def augmentation(report: Report, drawn: Mapping[str, str]) -> Markup:
    """Return the sheet of augmented faces and the settings behind it."""
    chosen = {key: value for key, value in report.settings.get("augment", {}).items() if value}
    if "erase" not in chosen:
        chosen.pop("erase_area", None)  # without effect
    text = ", ".join(f"{key} {value}" for key, value in chosen.items()) or "none"
    border = " Shifts of whole pixels fill the border with its mirror image." if "crop_padding" in chosen else ""
    return joined(
        paragraph("augment: ", tag("code", text), ".", border, class_="soft"),
        html.drawing(drawn["augmented"], "training faces before and after augmentation", large=True),
    )


def configuration(report: Report) -> Markup:
    """Return the settings that differ from the defaults, and all of them."""
    rows = [(tag("code", key), plain(value), plain(default)) for key, (value, default) in report.changes.items()]
    differs = html.table(("key", "here", "default"), rows) if rows else paragraph("Nothing differs from the defaults.")
    lines = [f"{key}: {plain(value)}" for key, value in leaves(report.settings)]
    return joined(differs, html.details("the whole configuration", tag("pre", "\n".join(lines))))


def plain(value: Any) -> str:
    """Return a setting's value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def provenance(report: Report) -> Markup:
    """Return where the metrics come from: enough to compute them again."""
    results, dataset, machine = report.results, report.results.dataset, report.results.machine
    counts = "; ".join(f"{split} {sum(classes.values()):,}" for split, classes in dataset.counts.items())
    trained = [words for member in results.members if (words := training_in_words(member.trained))]
    rows: list[tuple[object, object]] = [
        *(("trained by", tag("code", words)) for words in trained),
        ("command", tag("code", results.command)),
        ("seed", "" if results.seed is None else results.seed),
        ("data", f"{dataset.path or dataset.name} ({dataset.layout}), labels: {dataset.labels}"),
        ("faces", counts),
        ("split", dataset.split),
        ("fingerprint", tag("code", dataset.fingerprint)),
        ("finished", machine.finished or ""),
        ("machine", machine_in_words(results)),
        ("code", tag("code", machine.commit or "no checkout: the installed package")),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
        ("parameters", f"{results.parameters:,}" if results.parameters else ""),
        ("pretrained weights", pretrained_in_words(results)),
        ("learnt from", teachers_in_words(results) or "labels alone"),
        *(("checkpoint", name) for name in _checkpoints(results)),
        ("notes", "; ".join(dataset.notes)),
    ]
    return html.table((), [row for row in rows if row[1] != ""], stack=True)


def _checkpoints(results: Results) -> list[str]:
    if len(results.members) > 1:
        return [f"{member.checkpoint}, weight {member.weight:.3f}" for member in results.members]
    return [results.evaluation.checkpoint if results.evaluation else ""]


def pretrained_in_words(results: Results) -> str:
    """Return in words which weights the training began with."""
    weights = results.pretrained
    return f"{weights.name} ({weights.file}, sha256 {weights.sha256})" if weights else "none"


def machine_in_words(results: Results) -> str:
    """Return the processor or GPU that made the results, with its cores or threads."""
    about = results.machine.hardware
    if about.threads is None:  # torch was not there to count them
        return f"{about.cpu}, {about.cores} cores"
    threads = f"{about.threads} thread{'' if about.threads == 1 else 's'} on {about.cores} cores"
    return f"{about.gpu} ({about.cpu})" if about.gpu else f"{about.cpu}, {threads}, no GPU"
