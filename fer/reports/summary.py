"""The metrics of an evaluation in tables and sentences, for the terminal and the pages."""

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fer.config.settings import TrainSettings, batches_of
from fer.metrics.conformal import without_promise
from fer.metrics.results import (
    THESE_FACES,
    Annotators,
    Answering,
    BaselineComparison,
    Difference,
    ErrorsByVote,
    Paired,
    PerClass,
    Results,
    Scores,
    SelectionRecord,
    SetScores,
    SetsRecord,
    Trained,
    Value,
    Values,
)
from fer.metrics.table import METRICS, TEMPERED
from fer.system.text import clock, plural, text_table

CHANCE = (
    "Chance: the error of a perfectly calibrated network with the same confidences on as many faces; it is never 0. "
    "Debiased: the root mean square of the bins' gaps without chance (Kumar, Liang & Ma 2019); a calibrated network "
    "has about 0."
)
MEMBER_HEADS = ("#", "weight", "temperature", "accuracy alone", "answers differently", "network")
SET_HEADS = ("prediction sets", "faces", "coverage, 95 %", "mean size, 95 %")
OF_DATA_SET_HEADS = ("data set", "faces", "accuracy, 95 % interval")
AGREEMENT_HEADS = ("agreement", "network", "labels", "best possible")

# --- metrics --------------------------------------------------------------------------------------------------------


def score_table(results: Results) -> str:
    """Return the closing table: split, faces, accuracy with its interval, macro-F1, balanced accuracy, NLL, ECE."""
    metrics = results.metrics
    heads = ("split", "faces", "accuracy, 95 % interval", "macro-F1", "balanced", "NLL", "ECE")
    shares = [metric_text(name, metrics, interval=False) for name in ("macro_f1", "balanced_accuracy", "nll")]
    cells = (results.split, f"{results.scores.n:,}", metric_text("accuracy", metrics), *shares)
    return text_table(heads, [(*cells, metric_text("ece", metrics))])


def data_set_table(results: Sequence[Results]) -> str:
    """Return one table of a network's results on several data sets, a row each; classes without faces are named."""
    heads = ("data set", "split", "faces", "accuracy, 95 % interval", "macro-F1", "balanced", "clean", "no face of")
    rows = []
    for one in results:
        metrics, clean = one.metrics, one.clean
        rows.append(
            (
                f"{one.dataset.name} ({one.dataset.path})",
                one.split,
                f"{one.scores.n:,}",
                metric_text("accuracy", metrics),
                *(metric_text(name, metrics, interval=False) for name in ("macro_f1", "balanced_accuracy")),
                f"{metric_text('accuracy', clean.metrics, interval=False)} of {clean.n:,}" if clean else "not known",
                ", ".join(one.scores.absent) or "-",
            )
        )
    return text_table(heads, rows)


def by_data_set_table(results: Results) -> list[str]:
    """Return the table of the accuracy over the faces of each of several data sets; nothing of one alone."""
    rows = by_data_set_rows(results)
    return [text_table(OF_DATA_SET_HEADS, rows)] if rows else []


def by_data_set_rows(results: Results) -> list[tuple[str, ...]]:
    """Return a row a data set of several: name, faces, accuracy with its interval."""
    return [
        (one.name, f"{one.n:,}", metric_text("accuracy", {"accuracy": Value(one.accuracy, one.accuracy_ci95)}))
        for one in results.data_sets or ()
    ]


def metric_table(results: Results) -> str:
    """Return the table of all metrics with their 95 % intervals, with a column for the clean faces."""
    clean = results.clean
    heads = ["metric", f"{results.split}, {results.scores.n:,} faces"]
    heads += [f"clean, {clean.n:,} faces"] if clean else []
    rows = metric_rows(results)
    if results.calibrated:
        calibrated = results.calibrated
        for name in stated(TEMPERED, calibrated):
            title = f"{METRICS[name].title}, temperature {results.temperature:.3f}"
            rows.append([title, metric_text(name, calibrated), *([""] if clean else [])])
    return text_table(heads, rows)


def metric_rows(results: Results) -> list[list[str]]:
    """Return a row a metric: its title, its value, and its value over the clean faces where that is known."""
    columns = [results.metrics, results.clean.metrics] if results.clean else [results.metrics]
    names = stated(METRICS, results.metrics)
    return [[METRICS[name].title, *(metric_text(name, metrics) for metrics in columns)] for name in names]


def metric_text(name: str, metrics: Values, *, interval: bool = True) -> str:
    """Return a metric with its 95 % interval as text, in per cent where it is a share.

    Args:
        name: of the metric.
        metrics: that have it.
        interval: with the interval.
    """
    metric, value = METRICS[name], metrics[name]
    if value.value is None:
        return "none"
    text = metric.written(value.value) + (" %" if metric.percent else "")
    if value.ci95 and interval:
        text += "  [{}, {}]".format(*(metric.written(end) for end in value.ci95))
    return "  ".join(filter(None, [text, calibration_verdict(name, metrics)]))


def stated(names: Iterable[str], metrics: Mapping[str, object]) -> list[str]:
    """Return the metrics that a file has: older files lack some."""
    return [name for name in names if name in metrics]


def calibration_verdict(name: str, metrics: Values, digits: int = 4) -> str:
    """Return in words whether chance alone explains a calibration error; empty for any other metric.

    Chance: what a calibrated network of the same confidences shows on as many faces.

    Args:
        name: of the metric.
        metrics: that have it.
        digits: after the point.
    """
    value = metrics[name]
    if value.if_calibrated is None:
        return ""
    verdict = "within" if value.number <= value.if_calibrated else "above"
    return f"{verdict} chance (95th percentile {value.if_calibrated:.{digits}f})"


def calibration_beside(metrics: Values, digits: int = 4) -> str:
    """Return in words the mean ECE of a calibrated network and the debiased error; empty for files that lack them.

    Args:
        metrics: of the file.
        digits: after the point.
    """
    if not {"ece_if_calibrated_mean", "ece_rms_debiased"} <= metrics.keys():
        return ""
    mean, debiased = metrics["ece_if_calibrated_mean"].number, metrics["ece_rms_debiased"].number
    return f"mean of a calibrated network {mean:.{digits}f}; debiased, RMS {debiased:.{digits}f}"


# --- the end of a training ------------------------------------------------------------------------------------------


def scores_of_training(settings: TrainSettings, results: Results) -> list[str]:
    """Return the tables of val's metrics that end a training, what they are metrics of, and the best epoch.

    Args:
        settings: of the run.
        results: of its best epoch.
    """
    tables = [class_table(results), score_table(results), *by_data_set_table(results)]
    lines = ["\n{}\n".format("\n\n".join(tables))]
    record = results.training
    assert record is not None
    if limits_of_val(asdict(settings.trainer), results.scores.n, record.batch_size):
        lines.append("(the epoch was chosen by val metrics over a part of these faces)")
    stopped = record.planned_epochs is not None and record.epochs < record.planned_epochs
    early = f" (stopped early, {record.planned_epochs} planned)" if stopped else ""
    seconds = clock(record.train_seconds)
    return [*lines, f"best epoch {record.best_epoch} of {record.epochs}{early}, trained in {seconds}"]


def limits_of_val(trainer: Mapping[str, Any], faces: int, batch_size: int | None) -> list[str]:
    """Return the settings by which a training computed val metrics over a part of the faces, each with its value.

    Args:
        trainer: section ``trainer`` of the training.
        faces: number of all val faces.
        batch_size: faces of a step; None where an older record has none.
    """
    fraction, overfitted = trainer.get("limit_val", 1.0), trainer.get("overfit_batches", 0)
    limits, overfits = fraction < 1, overfitted > 0
    if batch_size is not None:
        batches = math.ceil(faces / batch_size)
        limits &= batches_of(fraction, faces, batch_size) < batches
        overfits &= overfitted < batches
    stated = {f"trainer.limit_val={fraction}": limits, f"trainer.overfit_batches={overfitted}": overfits}
    return [setting for setting, cuts in stated.items() if cuts]


def files_and_commands(settings: TrainSettings, path: Path, *, test: bool) -> Iterator[str]:
    """Give the lines that end a training: the files of the run, and the commands that evaluate it.

    Args:
        settings: of the run.
        path: run folder.
        test: whether its data have a test split.
    """
    yield f"results:  {path}"
    for name, purpose in (
        ("report.html", "report of the run on one page; its figures as PNG and SVG in figures/"),
        ("tensorboard/", f"tensorboard --logdir {_log_folder(path)}"),
        ("csv/metrics.csv", "a row for each epoch, recalls included"),
        ("mlruns/", "MLflow's files"),
        ("wandb/", f"wandb sync {shlex.quote(str(path))}/wandb/offline-run-*"),
        ("profile.json", "time of each part of a step; profile_trace.json.gz opens in ui.perfetto.dev"),
        ("metrics.json", "the metrics"),
        ("predictions.csv", "a row for each face"),
        ("history.csv", "a row for each epoch"),
        ("checkpoints/best.ckpt", "the network: fer.load(path)"),
    ):
        if (path / name).exists():
            yield f"  {name:<22} {purpose}"
    if (path / "report.html").exists():
        yield f"report:   {path / 'report.html'}"
    plugins = f" --plugins {','.join(settings.plugins)}" if settings.plugins else ""
    yield f"next:     python -m fer.evaluate {shlex.quote(str(path))} --tta ten_crop{plugins}"
    if test:
        yield "last:     once, when everything is chosen on val: the same command with --split test"


def _log_folder(path: Path) -> str:
    """Return the folder for TensorBoard: all of ``outputs`` if the run is in it, else the run."""
    return "outputs" if path.parts[:1] == ("outputs",) else shlex.quote(str(path))


# --- classes --------------------------------------------------------------------------------------------------------


def class_table(results: Results) -> str:
    """Return the table of the classes: faces, precision, recall with its interval, F1."""
    rows = []
    for name, values in results.scores.per_class.items():
        low, high = (100 * end for end in values.recall.ci95 or (0.0, 1.0))
        precision, recall, f1 = (
            f"{100 * value.number:5.1f} %" for value in (values.precision, values.recall, values.f1)
        )
        of_faces = (if_any(values, f"{recall}  [{low:.1f}, {high:.1f}]"), if_any(values, f1))
        rows.append((name, f"{values.support:>6,}", if_predicted(results.scores, name, precision), *of_faces))
    table = text_table(("emotion", " faces", "precision", "recall, 95 % interval", "F1"), rows)
    of_groups = [] if results.scores.groups is None else [f"95 % intervals are for {others(results.scores)}"]
    return "\n".join([table, *absent_in_words(results), *of_groups])


def others(scores: Scores) -> str:
    """Return in words for what else the intervals are: other faces, or other people, videos or pictures."""
    if scores.groups is None:
        return "other faces"
    return f"other people, videos or pictures; these {scores.n:,} faces are of {scores.groups:,}"


def if_any(values: PerClass, text: str) -> str:
    """Return the text of a metric over a class's faces; a dash where the class has none."""
    return text if values.support else "-"


def if_predicted(scores: Scores, name: str, text: str) -> str:
    """Return the text of a metric over the faces predicted as a class; a dash where there are none."""
    return "-" if name in scores.unpredicted else text


def absent_in_words(results: Results) -> list[str]:
    """Return in words which classes have no faces and which means leave them out; nothing where all have faces."""
    absent = results.scores.absent
    return [f"no face of {', '.join(absent)}: left out of macro-F1 and balanced accuracy"] if absent else []


# --- comparison with a baseline -------------------------------------------------------------------------------------


def difference_table(paired: Paired) -> str:
    """Return the table of paired differences of two networks, with their 95 % intervals for other faces."""
    return text_table(["metric", "difference", "95 %"], difference_rows(paired))


def difference_rows(paired: Paired) -> list[list[str]]:
    """Return a row a metric: its title, the paired difference, its interval."""
    differences = paired.differences
    return [[METRICS[name].title, *_difference(name, differences[name])] for name in stated(METRICS, differences)]


def _difference(name: str, found: Difference) -> tuple[str, str]:
    """Return the difference of a metric and its interval as text, in points where it is a share."""
    metric, ends = METRICS[name], found.ci95
    interval = "[{}, {}]".format(*(metric.written(end, sign=True) for end in ends)) if ends else "too few faces"
    return "none" if found.difference is None else metric.written(found.difference, sign=True), interval


def same_views(results: Results) -> str:
    """Return in words whether the baseline was given the views of the network; empty where both had none."""
    assert results.comparison is not None
    views = results.comparison.tta
    if views is None or views == results.tta == "none":
        return ""
    return f" with the same views ({views})" if views == results.tta else f" with other views (--tta {views})"


def seen_by_baseline(comparison: BaselineComparison) -> str:
    """Return in words how many faces the baseline was trained on, and the difference without; empty where on none."""
    if not comparison.seen_by_it:
        return ""
    seen = f"The baseline was trained on {comparison.seen_by_it:,} of these {comparison.paired.n:,} faces"
    if comparison.clean is None:
        return f"{seen}; no comparison on faces that are new to both is possible."
    difference, interval = _difference("accuracy", comparison.clean.differences["accuracy"])
    unit = f"{METRICS['accuracy'].title} {difference}, 95 %: {interval}"
    return f"{seen}; on the {comparison.clean.n:,} faces that are new to both: {unit}."


# --- networks -------------------------------------------------------------------------------------------------------


def ensemble_in_words(results: Results) -> str:
    """Return in words how many networks an ensemble has and how they were chosen; empty for a single named network."""
    count, selection = len(results.members), results.selection
    if count < 2:
        return f"the one network that val chose among {selection.given}" if selection else ""
    each = ", each at its own temperature" if any(member.temperature != 1 for member in results.members) else ""
    if selection:
        return f"an ensemble of {count} networks{each}, chosen with their weights among {selection.given} on val"
    weights = results.evaluation.weights if results.evaluation else None
    return f"an ensemble of {count} networks{each}, weights {weights}"


def member_rows(results: Results) -> list[tuple[str, ...]]:
    """Return a row a network of an ensemble: number, weight, temperature, accuracy alone, disagreement, checkpoint."""
    if results.diversity is None:
        return []
    alone, matrix = results.diversity.accuracy, results.diversity.disagreement
    return [
        (
            str(index + 1),
            f"{member.weight:.3f}",
            f"{member.temperature:.3f}",
            f"{100 * alone[index]:.2f} %",
            f"{100 * sum(matrix[index]) / (len(alone) - 1):.1f} %",
            member.checkpoint,
        )
        for index, member in enumerate(results.members)
    ]


def selection_in_words(selection: SelectionRecord) -> str:
    """Return in words the accuracies on val of a greedily chosen ensemble, of its best network, and of all networks."""
    left_out = ", ".join(selection.left_out) or "none"
    return (
        f"on val, where they were chosen: {100 * selection.steps[-1].accuracy_val:.2f} %, the best network alone "
        f"{100 * selection.best_alone_val:.2f} %, all {selection.given} with equal weights "
        f"{100 * selection.all_equal_val:.2f} %; left out: {left_out}"
    )


def training_in_words(trained: Trained | None) -> str:
    """Return in words how a network of an evaluation was trained; empty where its run's record is missing."""
    if not trained:
        return ""
    code = f", code {trained.commit}" if trained.commit else ""
    return f"{trained.command} (seed {trained.seed}, epoch {trained.best_epoch} of {trained.epochs}{code})"


def teachers_in_words(results: Results) -> str:
    """Return in words how many networks taught this one; empty where none did."""
    count = len(results.teachers or ())
    return f"the answers of {count} other network{'' if count == 1 else 's'}, beside the labels" if count else ""


# --- annotators, thresholds, leakage --------------------------------------------------------------------------------


def annotator_table(annotators: Annotators) -> str:
    """Return the tables of agreement with FER+'s annotators, and of the network's errors by their votes."""
    errors = errors_by_vote(annotators.errors)
    by_vote = text_table((f"of the network's {annotators.errors.all:,} errors", "faces", "share"), errors)
    return f"{text_table(AGREEMENT_HEADS, agreement_rows(annotators))}\n\n{by_vote}"


def agreement_rows(annotators: Annotators) -> list[tuple[str, ...]]:
    """Return the shares of agreement with one annotator, and with the majority where any face has one."""
    one, majority = annotators.annotator, annotators.majority
    shares = [f"{100 * share:.1f} %" for share in (one.network, one.labels, one.best)]
    rows: list[tuple[str, ...]] = [("with one annotator, drawn at random", *shares)]
    if majority.faces and majority.network is not None and majority.labels is not None:
        shares = [f"{100 * share:.1f} %" for share in (majority.network, majority.labels)]
        rows.append((f"with the majority, where there is one ({majority.faces:,} faces)", *shares, "100.0 %"))
    return rows


def errors_by_vote(errors: ErrorsByVote) -> list[tuple[str, str, str]]:
    """Return a row a group of the network's errors: what the annotators say, faces, share."""
    groups = {
        "annotators agree with the label: the network's": errors.label,
        "annotators agree with the network: the label's": errors.network,
        "annotators name a third emotion: both": errors.other,
        "annotators are divided, or see none: nobody's": errors.divided,
    }
    return [(words, f"{count:,}", f"{100 * count / max(1, errors.all):.1f} %") for words, count in groups.items()]


def answering_in_words(answering: Answering) -> str:
    """Return in words which error a threshold of confidence promises, and what it does on these faces."""
    promise = f"At most {100 * answering.target_error:g} % wrong, with probability 95 %, of faces like those of val"
    answered = answering.answered
    if answering.threshold is None or answered is None:
        return f"{promise}: no confidence can promise that, by {answering.chosen_on}."
    error = "none"
    if answered.error is not None and answered.error_ci95 is not None:
        low, high = (100 * end for end in answered.error_ci95)
        error = f"{100 * answered.error:.2f} % [{low:.2f}, {high:.2f}]"
    return (
        f"{promise}: answer from a confidence of {rounded_up(answering.threshold)}, chosen on {answering.chosen_on}, "
        f"where it answers {100 * answered.coverage_there:.1f} % of the faces; here it answers "
        f"{100 * answered.coverage:.1f} %, wrong among them: {error}."
    )


def rounded_up(threshold: float) -> str:
    """Return a threshold with three digits, not below it: the promise holds from the threshold on."""
    return f"{math.ceil(1000 * threshold) / 1000:.3f}"


# --- prediction sets ------------------------------------------------------------------------------------------------


def sets_table(sets: SetsRecord) -> str:
    """Return the coverage and the size of prediction sets, over all faces and by emotion, and what is promised."""
    return f"{text_table(SET_HEADS, set_rows(sets))}\n{sets_in_words(sets)}"


def sets_in_words(sets: SetsRecord) -> str:
    """Return in words what the prediction sets promise, and which faces calibrated them."""
    in_sample = (
        " They are among the faces scored here (in-sample), so that this coverage does not test the promise."
        if sets.calibrated_on == THESE_FACES
        else ""
    )
    if sets.by == "all":
        scope = "It is made over all faces together; a single emotion may have a lower coverage."
    else:
        scope = f"It is made for the faces of each emotion. {without_promise(sets.unpromised)}".strip()
    return (
        f"The promise: of faces like those of val, {100 * sets.promised:g} % have a set that holds the label. {scope} "
        "The sets were calibrated on "
        f"{plural(sets.thresholds.faces, 'face')} of val.{in_sample}"
    )


def set_rows(sets: SetsRecord) -> list[tuple[str, ...]]:
    """Return a row for all faces, for the clean ones, and for those of each emotion that has any."""
    clean = {"clean": sets.clean} if sets.clean else {}
    groups = {"all": sets.scores, **clean, **sets.per_class}
    return [(name, f"{scores.n:,}", *set_cells(scores)) for name, scores in groups.items() if scores.n]


def set_cells(one: SetScores) -> tuple[str, str]:
    """Return coverage and mean size of the sets of at least one face, with their intervals."""
    coverage, size = one.coverage or 0.0, one.size or 0.0
    covered, sized = f"{100 * coverage:.1f} %", f"{size:.2f}"
    if one.coverage_ci95:
        covered += "  [{:.1f}, {:.1f}]".format(*(100 * end for end in one.coverage_ci95))
    if one.size_ci95:
        sized += "  [{:.2f}, {:.2f}]".format(*one.size_ci95)
    return covered, sized


def seen_in_choice_in_words(results: Results) -> str:
    """Return in words how many faces are copies of val's; empty where none is, or all are."""
    count = results.seen_in_choice
    if not count or results.temperature_fitted_on == THESE_FACES:
        return ""
    return (
        f"{count:,} of these faces are exact copies of faces of val, which chose the epoch; clean metrics leave out "
        "copies of train alone."
    )


def seen_by_content_in_words(results: Results) -> str:
    """Return in words how many faces of another data set are training faces of FER2013; empty where none is."""
    if not results.seen_by_content:
        return ""
    return (
        f"{results.seen_by_content:,} of these {results.scores.n:,} faces are copies of training faces of FER2013, "
        "exact ones or in another size or compression; clean metrics leave them out. Copies that were turned, moved or "
        "mirrored are not found."
    )


# --- everything else that a reader must know ------------------------------------------------------------------------


def remarks(results: Results) -> list[str]:
    """Return the tables and sentences that follow the metrics of an evaluation in the terminal."""
    lines = by_data_set_table(results)
    if results.diversity:
        lines.append(f"{ensemble_in_words(results)}:\n{text_table(MEMBER_HEADS, member_rows(results))}")
    if results.selection:
        lines.append(selection_in_words(results.selection))
    if results.comparison:
        lines.append(_comparison(results, results.comparison))
    if results.annotators:
        lines.append(annotator_table(results.annotators))
    if results.answering:
        lines.append(answering_in_words(results.answering))
    if results.sets:
        lines.append(sets_table(results.sets))
    lines += [words for words in (seen_by_content_in_words(results), seen_in_choice_in_words(results)) if words]
    if (count := results.test_opened) is not None:
        times = "for the first time" if count == 1 else f"{count} times by now"
        warning = "" if count == 1 else ": whatever is chosen from now on is chosen on test"
        lines.append(f"test was opened {times}{warning}")
    return lines


def _comparison(results: Results, comparison: BaselineComparison) -> str:
    test = comparison.paired.mcnemar
    return (
        f"minus {comparison.name}, on the same faces{same_views(results)}:\n{difference_table(comparison.paired)}\n"
        f"only this one is right on {test.first:,} faces, only the other on {test.second:,}: McNemar's exact "
        f"p = {test.p:.3g} (of these networks, not of their seeds)"
        + (f"\n{seen}" if (seen := seen_by_baseline(comparison)) else "")
    )
