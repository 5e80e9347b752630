"""The report of a run: ``report.html``, one page that explains it, and ``figures/``: the same, fit for papers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fer.config.settings import leaves
from fer.metrics.calibration import tempered
from fer.reports import figures, html, plotting
from fer.reports.html import Section, card, joined, paragraph, tag
from fer.reports.summary import (
    MEMBER_HEADS,
    WHOSE_ERRORS,
    absent_in_words,
    answering_in_words,
    calibration_verdict,
    difference_rows,
    ensemble_in_words,
    if_any,
    member_rows,
    metric_rows,
    same_views,
    seen_in_choice_in_words,
    selection_in_words,
    taught_in_words,
    training_in_words,
)
from fer.runs.predictions import Scored
from fer.system.files import CHANCE, calibration_beside
from fer.system.text import clock, sentence, times

NO_INTERVAL = "too few faces for an interval"
SHOWN_FACES = 18  # of each kind: three rows of six


@dataclass(frozen=True)
class Report:
    """What a report tells; parts that are empty are left out.

    Args:
        results: as in ``metrics.json``.
        scored: the faces behind it.
        history: a row an epoch, as in ``history.csv``.
        augmented: (K, S, S) faces as they are and (K, M, S, S) as training sees them, uint8.
        settings: the whole configuration.
        changes: key -> (value, default), of what differs from the defaults.
    """

    results: Mapping[str, Any]
    scored: Scored
    history: Sequence[Mapping[str, float]] = ()
    augmented: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


def write(report: Report, folder: Path) -> None:
    """Write ``figures/`` and ``report.html`` to ``folder``.

    Raises:
        OSError: the folder may not be written.
    """
    drawn = draw(report, folder / "figures")
    file = folder / "report.html"
    results = report.results
    several = len(results.get("members", ())) > 1
    title = f"{'Ensemble of ' if several else ''}{results['architecture']} on {results['dataset']['name']}" + (
        "" if report.history else f": {results['split']}"
    )
    html.write(file, title, lead(report), sections(report, drawn), f"Written by fer {_version(results)}.")


def draw(report: Report, folder: Path) -> dict[str, str]:
    """Write the figures, and return name -> SVG."""
    scored, results = report.scored, report.results
    made = {}
    with plotting.style():
        made["confusion"] = figures.confusion(results["confusion"], scored.classes)
        made["reliability"] = figures.reliability(scored.probabilities, scored.targets, _with_chance(results))
        warm = tempered(scored.probabilities, results.get("temperature") or 1.0)
        if results.get("calibrated"):
            made["calibrated"] = figures.reliability(
                warm, scored.targets, _with_chance(results["calibrated"]), results["temperature"]
            )
        made["coverage"] = figures.risk_coverage(warm, scored.targets, _answered(results))
        made["per_class"] = figures.per_class(results["per_class"])
        if "diversity" in results:
            made["disagreement"] = figures.disagreement(results["diversity"]["disagreement"])
        if "selection" in results:
            made["selection"] = figures.selection(results["selection"])
        if report.history:
            made["curves"] = figures.curves(report.history, results["best_epoch"])
        for name, places in (("mistakes", mistakes(scored)), ("doubtful", doubtful(scored))):
            if places.size:
                captions = [caption(scored, place) for place in places]
                made[name] = figures.faces(scored.images[places], captions)
        if report.augmented is not None:
            made["augmented"] = figures.augmented(*report.augmented)
    return {name: plotting.save(figure, folder, name) for name, figure in made.items()}


def _answered(results: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return coverage and error here of the confidence that was chosen for a wanted error rate."""
    found = results.get("answering") or {}
    return None if found.get("error") is None else (found["coverage"], found["error"])


def mistakes(scored: Scored, count: int = SHOWN_FACES) -> NDArray[np.int64]:
    """Return the places of the wrong predictions that the network was surest of, the surest first."""
    predicted, confidence = scored.probabilities.argmax(1), scored.probabilities.max(1)
    wrong = np.flatnonzero(predicted != scored.targets)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:count]


def doubtful(scored: Scored, count: int = SHOWN_FACES) -> NDArray[np.int64]:
    """Return the places of the faces whose two likeliest emotions are nearest to each other, the nearest first."""
    ranked = np.sort(scored.probabilities, axis=1)
    return np.argsort(ranked[:, -1] - ranked[:, -2], kind="stable")[:count]


def caption(scored: Scored, place: int) -> list[str]:
    """Return the lines beneath a face in a figure."""
    chances = scored.probabilities[place]
    said, label = scored.classes[chances.argmax()], scored.classes[scored.targets[place]]
    return [f"{said} {100 * chances.max():.0f} %", f"label: {label}", f"row {scored.rows[place]}"]


# --- the page -------------------------------------------------------------------------------------------------------


def lead(report: Report) -> Markup:
    """Return what stands below the title: of what, how chosen, how long, and what must not be overlooked."""
    results = report.results
    dataset = results["dataset"]
    parts = [f"{results['n']:,} faces of {results['split']} ({dataset['split']} split)"]
    if report.history:
        parts.append(f"epoch {results['best_epoch']} of {results['epochs']}, chosen on val")
        parts.append(f"trained in {clock(results['train_seconds'])} on {_machine(results)}")
    if told := ensemble_in_words(results):
        parts.append(told)
    if results.get("tta", "none") != "none":
        parts.append(f"test-time augmentation: {results['tta']}")
    if results.get("test_opened"):
        parts.append(f"test opened {times(results['test_opened'])} by now")
    if results.get("pretrained"):
        parts.append(f"began with pretrained weights: {results['pretrained']['name']}")
    if taught := taught_in_words(results):
        parts.append(f"learnt from {taught}")
    notes = [html.note(text) for text in warnings(report)]
    return joined(paragraph(" · ".join(parts), class_="soft"), *notes, headline(results))


def warnings(report: Report) -> list[str]:
    """Return what a reader of the figures must know first."""
    dataset = report.results["dataset"]
    told = []
    if dataset.get("stand_in"):
        told.append("Drawn faces stood in for FER2013, which was not found: these figures say nothing of photographs.")
    if dataset["split"] == "holdout":
        told.append("The split is a seeded 80/20 of everything: not to be laid beside figures on PrivateTest.")
    if dataset["split"] == "folds":
        told.append("Val is one of several folds of everything: not to be laid beside figures on PrivateTest.")
    part = [f"{key}={value}" for key, value in _limits(report.settings) if report.history]
    if part:
        told.append(
            f"The epochs' val figures, which chose, are of a part of the faces ({', '.join(part)}); the rest is of all."
        )
    if copies := seen_in_choice_in_words(report.results):
        told.append(copies)
    told += [note for note in dataset["notes"] if f"{report.results['split']} faces have an exact twin" in note]
    if dataset["skipped"]:
        told.append(f"{len(dataset['skipped'])} bad rows or files were skipped; metrics.json lists them.")
    return told


def _limits(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the settings that cut validation short."""
    trainer = settings.get("trainer", {})
    usual = {"limit_val": 1.0, "overfit_batches": 0}
    return [(f"trainer.{key}", trainer[key]) for key, value in usual.items() if trainer.get(key, value) != value]


def headline(results: Mapping[str, Any]) -> Markup:
    """Return the cards of the headline figures, each with its 95 % interval."""
    made = []
    kinds = len(results["per_class"])
    for name, key, meaning in (
        ("Accuracy", "accuracy", "share of faces read as labelled"),
        ("Macro-F1", "macro_f1", "precision and recall together, every emotion counting the same"),
        ("Balanced accuracy", "balanced_accuracy", "mean recall of the emotions"),
    ):
        value, ends = results[key], results[f"{key}_ci95"]
        interval = "{:.1f} to {:.1f} (95 %)".format(*(100 * end for end in ends)) if ends else NO_INTERVAL
        place = (ends[0], value, ends[1]) if ends else None
        made.append(card(name, f"{100 * value:.2f} %", interval, meaning, place))
    ends = results["nll_ci95"]
    interval = "{:.3f} to {:.3f} (95 %)".format(*ends) if ends else NO_INTERVAL
    made.append(
        card(
            "NLL",
            f"{results['nll']:.3f}",
            interval,
            f"negative log-likelihood of the labels, lower is better; guessing gives {np.log(kinds):.2f}",
        )
    )
    made.append(
        card(
            "Calibration error",
            f"{results['ece']:.3f}",
            calibration_verdict("ece", results, 3),
            "mean gap between confidence and accuracy, 15 bins; chance: what a calibrated network shows on as many "
            f"faces{_after_semicolon(calibration_beside(results, 3))}",
        )
    )
    return html.cards(made)


def sections(report: Report, drawn: Mapping[str, str]) -> list[Section]:
    """Return the parts of the page, in order."""
    parts = [
        Section("training", "Training", training(report, drawn)) if "curves" in drawn else None,
        Section("confusion", "What is taken for what", confusions(report, drawn)),
        Section("emotions", "Emotion by emotion", emotions(report, drawn)),
        Section("figures", "All figures", all_figures(report)),
        Section("ensemble", "The ensemble", told) if (told := ensemble(report, drawn)) else None,
        Section("against", "Against another", against(report)) if "against" in report.results else None,
        Section("crowd", "What the crowd says", the_crowd(report)) if "crowd" in report.results else None,
        Section("calibration", "Does it know when it is wrong?", calibration(report, drawn)),
        _faces_section(report, "mistakes", "Surest mistakes", mistakes(report.scored)),
        _faces_section(report, "doubtful", "Most doubtful faces", doubtful(report.scored)),
        Section("augmented", "Augmentation", augmentation(report, drawn)) if "augmented" in drawn else None,
        Section("configuration", "Configuration", configuration(report)) if report.settings else None,
        Section("provenance", "Provenance", provenance(report)),
    ]
    return [part for part in parts if part is not None]


def training(report: Report, drawn: Mapping[str, str]) -> Markup:
    """Return the curves and what they say."""
    results = report.results
    best = next(row for row in report.history if row["epoch"] == results["best_epoch"])
    last = report.history[-1]
    gap = 100 * (best["accuracy/train"] - best["accuracy/val"])
    facts = [
        ("chosen epoch", f"{results['best_epoch']} of {results['epochs']}"),
        ("val accuracy there", f"{100 * best['accuracy/val']:.2f} %"),
        ("train accuracy there", f"{100 * best['accuracy/train']:.2f} % ({gap:+.1f} points)"),
        ("val accuracy at the end", f"{100 * last['accuracy/val']:.2f} %"),
        ("an epoch", f"{np.median([row['seconds'] for row in report.history]):.1f} s (median)"),
        ("training faces a second", f"{results['images_per_second']:,.0f}"),
    ]
    if results.get("peak_memory_mb"):
        facts.append(("largest memory", f"{results['peak_memory_mb']:,.0f} MB"))
    meaning = paragraph(
        "Train figures are running means over each epoch's augmented faces with dropout on, val figures are taken "
        "after it on faces as they are; train may therefore lie below val early on. A growing gap later is "
        "overfitting. The loss is what training minimises, label smoothing and class weights included; the NLL "
        "above is without them.",
        class_="soft",
    )
    return html.columns(
        html.drawing(drawn["curves"], "loss, accuracy and learning rate by epoch"),
        joined(meaning, html.table((), facts, (1,))),
    )


def confusions(report: Report, drawn: Mapping[str, str]) -> Markup:
    """Return the confusion matrix and its largest entries in words."""
    classes = report.scored.classes
    counts = np.asarray(report.results["confusion"])
    totals = counts.sum(1).clip(min=1)
    off = [(counts[i, j] / totals[i], i, j) for i, j in np.ndindex(counts.shape) if i != j and counts[i, j]]
    rows = [
        (f"{classes[i]} read as {classes[j]}", f"{counts[i, j]:,} of {counts[i].sum():,}", f"{100 * share:.1f} %")
        for share, i, j in sorted(off, reverse=True)[:8]
    ]
    told = paragraph("Rows are labels: each adds up to 100 %. The diagonal is the recall.", class_="soft")
    most = (
        joined(tag("h3", "Most often confused"), html.table(("", "faces", "of its label"), rows, (1, 2)))
        if rows
        else paragraph("Nothing is confused.")
    )
    return html.columns(html.drawing(drawn["confusion"], "confusion matrix"), joined(told, most))


def emotions(report: Report, drawn: Mapping[str, str]) -> Markup:
    """Return precision, recall and F1 of each class."""
    rows = [
        (
            name,
            f"{100 * values['precision']:.1f}",
            if_any(values, f"{100 * values['recall']:.1f}"),
            if_any(values, "{:.0f} – {:.0f}".format(*(100 * end for end in values["recall_ci95"]))),
            if_any(values, f"{100 * values['f1']:.1f}"),
            f"{values['support']:,}",
        )
        for name, values in report.results["per_class"].items()
    ]
    heads = ("in per cent", "precision", "recall", "its 95 %", "F1", "faces")
    missing = [paragraph(sentence(told), class_="soft") for told in absent_in_words(report.results)]
    return html.columns(
        html.drawing(drawn["per_class"], "precision and recall by emotion"),
        joined(html.table(heads, rows, (1, 2, 3, 4, 5)), *missing),
    )


def ensemble(report: Report, drawn: Mapping[str, str]) -> Markup:
    """Return the networks of an ensemble, how they differ, and how they were chosen."""
    results, parts = report.results, []
    if "disagreement" in drawn:
        told = paragraph(
            "Temperature: what each network's logits are divided by before mixing. "
            "Alone: each network's accuracy on these faces. Answers differently: the share of these faces on which its "
            "answer is not another's, in the mean of the others. An ensemble gains where networks are good and differ.",
            class_="soft",
        )
        parts.append(html.table(MEMBER_HEADS, member_rows(results), (1, 2, 3, 4)))
        parts.append(html.columns(html.drawing(drawn["disagreement"], "share of faces answered differently"), told))
    if "selection" in drawn:
        words = paragraph(sentence(selection_in_words(results["selection"])), class_="soft")
        parts.append(html.columns(html.drawing(drawn["selection"], "val accuracy and NLL by networks added"), words))
    return joined(*parts)


def calibration(report: Report, drawn: Mapping[str, str]) -> Markup:
    """Return the reliability diagram and the mean confidence beside the accuracy."""
    confidence = float(report.scored.probabilities.max(1).mean())
    accuracy = report.results["accuracy"]
    low, high = report.results["accuracy_ci95"]
    verdict = "surer than it is right" if confidence > high else "more often right than it claims"
    verdict = "which so many faces cannot tell apart" if low <= confidence <= high else verdict
    text = paragraph(
        f"Its mean confidence is {100 * confidence:.1f} %, and it is right in {100 * accuracy:.1f} %: {verdict}. "
        "Bars on the dashed line would mean that, say, of all faces read with 70 % confidence, 70 % are right.",
        class_="soft",
    )
    return joined(
        text,
        html.columns(
            html.drawing(drawn["reliability"], "accuracy against confidence"),
            html.drawing(drawn["calibrated"], "the same with the temperature")
            if "calibrated" in drawn
            else paragraph("No temperature is known: the val split of the training could not be read.", class_="soft"),
        ),
        paragraph(_warmth(report.results), class_="soft"),
        *([paragraph(answering_in_words(found))] if (found := report.results.get("answering")) else []),
        html.columns(
            html.drawing(drawn["coverage"], "error against the share of faces answered"),
            html.table(
                ("of the faces, the surest", "wrong among them"),
                [
                    (f"{100 * float(coverage):.0f} %", f"{100 * error:.1f} %")
                    for coverage, error in report.results.get("selective", {}).get("error_at_coverage", {}).items()
                ],
                (1,),
            ),
        ),
    )


def _with_chance(held: Mapping[str, Any]) -> tuple[float, float]:
    """Return the ECE, and the 95th percentile of a calibrated network's."""
    return held["ece"], held["ece_if_calibrated"]


def _after_semicolon(words: str) -> str:
    """Return words to append to a sentence, where there are any."""
    return f"; {words}" if words else ""


def _warmth(results: Mapping[str, Any]) -> str:
    """Return in words what the temperature is and does."""
    if not results.get("calibrated"):
        return "Below: answering only where it is surest."
    on, warm = results.get("temperature_fitted_on") or "val", results["calibrated"]
    return (
        f"With temperature: its logits divided by {results['temperature']:.3f}, under which "
        f"the labels of {on} are likeliest. It changes no answer, only how sure it claims to be: NLL "
        f"{results['nll']:.3f} becomes {warm['nll']:.3f}, the calibration error {results['ece']:.3f} becomes "
        f"{warm['ece']:.3f}, {calibration_verdict('ece', warm, 3)}{_after_semicolon(calibration_beside(warm, 3))}. "
        "Below: answering only where it is surest."
    )


def all_figures(report: Report) -> Markup:
    """Return every figure with its interval, that over the clean faces beside it."""
    results = report.results
    clean = results.get("clean")
    heads = ["", f"{results['split']}, {results['n']:,} faces", *([f"clean, {clean['n']:,} faces"] if clean else [])]
    rows = metric_rows(results)
    told = paragraph(
        "With 95 % intervals for other faces. Clean: without the faces that have an exact twin among those trained on. "
        f"A calibration error has no honest interval near 0; what chance makes it is given instead. {CHANCE}",
        class_="soft",
    )
    return joined(told, html.table(heads, rows, stack=True))


def the_crowd(report: Report) -> Markup:
    """Return the agreement with FER+'s annotators, and whose the errors are."""
    crowd = report.results["crowd"]
    annotator, majority, errors = crowd["annotator"], crowd["majority"], crowd["errors"]
    rows: list[tuple[object, ...]] = [
        ("with one annotator, drawn at random", *(f"{100 * annotator[who]:.1f} %" for who in annotator))
    ]
    if majority["faces"]:
        shares = [f"{100 * majority[who]:.1f} %" for who in ("network", "labels")]
        rows.append((f"with the majority ({majority['faces']:,} faces have one)", *shares, "100.0 %"))
    parts = [
        (words, f"{errors[key]:,}", f"{100 * errors[key] / max(1, errors['all']):.1f} %")
        for key, words in WHOSE_ERRORS.items()
    ]
    told = paragraph(
        "FER+ has ten annotators' votes for each face (Barsoum et al. 2016). Best possible: the answer that most give.",
        class_="soft",
    )
    return joined(
        told,
        html.columns(
            html.table(("agreement", "network", "labels", "best possible"), rows, (1, 2, 3)),
            html.table((f"of its {errors['all']:,} errors", "faces", "share"), parts, (1, 2)),
        ),
    )


def against(report: Report) -> Markup:
    """Return the paired differences to another network."""
    found = report.results["against"]
    rows = difference_rows(found)
    test = found["mcnemar"]
    told = paragraph(
        "This minus ", tag("code", found["name"]), f", on the same faces{same_views(found)}, with 95 % intervals "
        f"for other faces. Only this one is right on {test['first']:,} faces, only the other on {test['second']:,}: "
        f"McNemar's exact p = {test['p']:.3g}. Of these two networks, not of their seeds.", class_="soft",
    )  # fmt: skip
    return joined(told, html.table(("", "difference", "95 %"), rows, (1, 2)))


def _faces_section(report: Report, name: str, title: str, places: NDArray[np.int64]) -> Section | None:
    if not places.size:
        return None
    told = {
        "mistakes": "Wrong answers given with the most confidence: look here for wrong labels, too.",
        "doubtful": "Faces whose two likeliest emotions lie nearest to each other.",
    }[name]
    key = paragraph(
        told, " ", tag("span", "Green", class_="good"), " is the label, ", tag("span", "red", class_="bad"),
        " a wrong answer; probabilities in per cent.", class_="soft",
    )  # fmt: skip
    return Section(
        name, title, joined(key, tag("div", *(_face(report.scored, int(p)) for p in places), class_="faces"))
    )


def _face(scored: Scored, place: int) -> Markup:
    chances = dict(zip(scored.classes, scored.probabilities[place].tolist(), strict=True))
    said, label = max(chances, key=lambda name: chances[name]), scored.classes[scored.targets[place]]
    lines = (f"{said} {100 * chances[said]:.0f} %", f"labelled {label}", f"row {scored.rows[place]}")
    (image,) = figures.shrunk(scored.images[place][None])
    return html.face(image, lines, html.chances(chances, {said: "predicted", label: "label"}))


def augmentation(report: Report, drawn: Mapping[str, str]) -> Markup:
    """Return the sheet of augmented faces and the settings behind it."""
    chosen = {key: value for key, value in report.settings.get("augment", {}).items() if value}
    if "erase" not in chosen:
        chosen.pop("erase_area", None)  # the size of what is not drawn
    text = ", ".join(f"{key} {value}" for key, value in chosen.items()) or "none"
    told = " Shifts of whole pixels fill the border with its mirror image." if "crop_padding" in chosen else ""
    return joined(
        paragraph("augment: ", tag("code", text), ".", told, class_="soft"),
        html.drawing(drawn["augmented"], "training faces before and after augmentation", large=True),
    )


def configuration(report: Report) -> Markup:
    """Return what differs from the defaults, and the whole."""
    rows = [(tag("code", key), plain(value), plain(default)) for key, (value, default) in report.changes.items()]
    differs = html.table(("key", "here", "default"), rows) if rows else paragraph("Nothing differs from the defaults.")
    lines = [f"{key}: {plain(value)}" for key, value in leaves(report.settings)]
    return joined(differs, html.details("the whole configuration", tag("pre", "\n".join(lines))))


def plain(value: Any) -> str:
    """Return a setting's value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def provenance(report: Report) -> Markup:
    """Return where the figures come from: enough to make them again."""
    results = report.results
    dataset = results["dataset"]
    counts = "; ".join(f"{split} {sum(held.values()):,}" for split, held in dataset["counts"].items())
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    rows: list[tuple[object, object]] = [
        *(("trained by", tag("code", told)) for told in map(training_in_words, results.get("members", ())) if told),
        ("command", tag("code", results["command"])),
        ("seed", results.get("seed", "")),
        ("data", f"{dataset['path'] or dataset['name']} ({dataset['layout']}), labels: {dataset['labels']}"),
        ("faces", counts),
        ("split", dataset["split"]),
        ("fingerprint", tag("code", dataset["fingerprint"])),
        ("finished", results.get("finished", "")),
        ("machine", _machine(results)),
        ("code", tag("code", results.get("commit") or "no checkout: the installed package")),
        ("versions", versions),
        ("parameters", f"{results['parameters']:,}" if "parameters" in results else ""),
        ("pretrained weights", started_from(results)),
        ("learnt from", taught_in_words(results) or "labels alone"),
        *(("checkpoint", name) for name in _checkpoints(results)),
        ("notes", "; ".join(dataset["notes"])),
    ]
    return html.table((), [row for row in rows if row[1] != ""], stack=True)


def _checkpoints(results: Mapping[str, Any]) -> list[str]:
    members = [f"{member['checkpoint']}, weight {member['weight']:.3f}" for member in results.get("members", ())]
    return members if len(members) > 1 else [str(results.get("checkpoint", ""))]


def started_from(results: Mapping[str, Any]) -> str:
    """Return in words what weights the network began with."""
    weights = results.get("pretrained")
    return f"{weights['name']} ({weights['file']}, sha256 {weights['sha256']})" if weights else "none"


def _machine(results: Mapping[str, Any]) -> str:
    about = results["hardware"]
    threads = f"{about['threads']} thread{'' if about['threads'] == 1 else 's'} on {about['cores']} cores"
    return f"{about['gpu']} ({about['cpu']})" if about["gpu"] else f"{about['cpu']}, {threads}, no GPU"


def _version(results: Mapping[str, Any]) -> str:
    return str(results["versions"].get("fer", ""))
