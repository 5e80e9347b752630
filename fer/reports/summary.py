"""The metrics of an evaluation in tables and sentences, for the terminal and the pages."""

from collections.abc import Iterable, Mapping
from typing import Any

from fer.metrics.table import METRICS, TEMPERED
from fer.system.text import text_table

# errors of a network by what FER+'s annotators say
WHOSE_ERRORS = {
    "crowd_agrees_with_the_label": "the crowd agrees with the label: the network's",
    "crowd_agrees_with_the_network": "the crowd agrees with the network: the label's",
    "crowd_says_another_emotion": "the crowd says a third emotion: both",
    "crowd_is_divided": "the crowd is divided, or sees none: nobody's",
}


def score_table(results: Mapping[str, Any]) -> str:
    """Return the closing table: split, faces, accuracy with its interval, macro-F1, balanced accuracy, NLL, ECE."""
    low, high = (100 * value for value in results["accuracy_ci95"])
    heads = ("split", "faces", "accuracy, 95 % interval", "macro-F1", "balanced", "NLL", "ECE")
    cells = (
        str(results["split"]),
        f"{results['n']:,}",
        f"{100 * results['accuracy']:.2f} %  [{low:.2f}, {high:.2f}]",
        f"{100 * results['macro_f1']:.2f} %",
        f"{100 * results['balanced_accuracy']:.2f} %",
        f"{results['nll']:.4f}",
        worded("ece", results),
    )
    return text_table(heads, [cells])


def metric_table(results: Mapping[str, Any]) -> str:
    """Return the table of all metrics with their 95 % intervals, those over the clean faces beside them."""
    clean = results.get("clean")
    heads = ["metric", f"{results['split']}, {results['n']:,} faces"]
    heads += [f"clean, {clean['n']:,} faces"] if clean else []
    rows = metric_rows(results)
    if warm := results.get("calibrated"):
        for name in stated(TEMPERED, warm):
            title = f"{METRICS[name].title}, temperature {results['temperature']:.3f}"
            rows.append([title, worded(name, warm), *([""] if clean else [])])
    return text_table(heads, rows)


def metric_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a row a metric: its title, its value, and that over the clean faces where it is known."""
    scored = [results, clean] if (clean := results.get("clean")) else [results]
    return [[METRICS[name].title, *(worded(name, each) for each in scored)] for name in stated(METRICS, results)]


def worded(name: str, held: Mapping[str, Any]) -> str:
    """Return a figure with its interval as text, in per cent where it is a share."""
    value, ends = held[name], held.get(f"{name}_ci95")
    if value is None:
        return "none"
    metric = METRICS[name]
    text = metric.written(value) + (" %" if metric.percent else "")
    if ends:
        text += "  [{}, {}]".format(*(metric.written(end) for end in ends))
    return "  ".join(filter(None, [text, calibration_verdict(name, held)]))


def difference_table(against: Mapping[str, Any]) -> str:
    """Return the table of paired differences of two networks, with their 95 % intervals for other faces."""
    return text_table(["metric", "difference", "95 %"], difference_rows(against))


def difference_rows(against: Mapping[str, Any]) -> list[list[str]]:
    """Return a row a metric: its title, the paired difference, its interval."""
    return [[METRICS[name].title, *difference(name, against[name])] for name in stated(METRICS, against)]


def taught_in_words(results: Mapping[str, Any]) -> str:
    """Return of how many other networks a network's training has had the answers; nothing where it had none."""
    count = len(results.get("teachers") or [])
    return f"the answers of {count} other network{'' if count == 1 else 's'}, beside the labels" if count else ""


def same_views(against: Mapping[str, Any]) -> str:
    """Return in words that the other network was given the same views, where it was given any."""
    return f" with the same views ({against['tta']})" if against.get("tta") not in (None, "none") else ""


def difference(name: str, found: Mapping[str, Any]) -> tuple[str, str]:
    """Return the difference of a figure and its interval as text, in points where it is a share."""
    value, ends = found["difference"], found["ci95"]
    metric = METRICS[name]
    interval = "[{}, {}]".format(*(metric.written(end, sign=True) for end in ends)) if ends else "too few differ"
    return "none" if value is None else metric.written(value, sign=True), interval


def answering_in_words(found: Mapping[str, Any]) -> str:
    """Return in words what answering only from the chosen confidence on promises, and does here.

    Args:
        found: as "answering" in ``metrics.json``.
    """
    promise = f"At most {100 * found['wanted_error']:g} % wrong, with probability 95 %, of faces like those of val"
    if found["threshold"] is None:
        return f"{promise}: no confidence can promise that, by {found['chosen_on']}."
    error = "none" if found["error"] is None else "{:.2f} % [{:.2f}, {:.2f}]".format(
        100 * found["error"], *(100 * end for end in found["error_ci95"])
    )  # fmt: skip
    return (
        f"{promise}: answer from a confidence of {found['threshold']:.3f}, chosen on {found['chosen_on']}, where it "
        f"answers {100 * found['coverage_there']:.1f} % of the faces; here it answers "
        f"{100 * found['coverage']:.1f} %, wrong among them: {error}."
    )


def seen_in_choice_in_words(results: Mapping[str, Any]) -> str:
    """Return in words how many faces are copies of those that chose; empty where none is, or all are."""
    count = results.get("seen_in_choice")
    if not count or results["temperature_fitted_on"] == "these faces":
        return ""
    return (
        f"{count:,} of these faces are exact copies of faces of val, which chose the epoch; clean figures leave out "
        "copies of train alone."
    )


def ensemble_in_words(results: Mapping[str, Any]) -> str:
    """Return in words of how many networks an ensemble is and how they came by it; empty of one that was named."""
    count = len(results.get("members", ()))
    selection = results.get("selection")
    if count < 2:
        return f"the one network that val chose among {selection['given']}" if selection else ""
    tempered = any(own_temperature(member) != 1 for member in results["members"])
    each = ", each at its own temperature" if tempered else ""
    if selection:
        return f"an ensemble of {count} networks{each}, chosen with their weights among {selection['given']} on val"
    return f"an ensemble of {count} networks{each}, weights {results['weights']}"


def member_rows(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row a network of an ensemble: number, weight, temperature, accuracy alone, disagreement, checkpoint."""
    alone, matrix = (results["diversity"][key] for key in ("accuracy", "disagreement"))
    others = len(alone) - 1
    return [
        (
            str(place + 1),
            f"{member['weight']:.3f}",
            f"{own_temperature(member):.3f}",
            f"{100 * alone[place]:.2f} %",
            f"{100 * sum(matrix[place]) / others:.1f} %",
            str(member["checkpoint"]),
        )
        for place, member in enumerate(results["members"])
    ]


MEMBER_HEADS = ("#", "weight", "temperature", "accuracy alone", "answers differently", "network")


def selection_in_words(selection: Mapping[str, Any]) -> str:
    """Return in words what a greedy choice of an ensemble's networks came to, on val."""
    steps, left = selection["steps"], selection["left_out"]
    return (
        f"on val, where they were chosen: {100 * steps[-1]['accuracy_val']:.2f} %, the best network alone "
        f"{100 * selection['best_alone_val']:.2f} %, all {selection['given']} with equal weights "
        f"{100 * selection['all_equal_val']:.2f} %; left out: {', '.join(left) if left else 'none'}"
    )


def training_in_words(member: Mapping[str, Any]) -> str:
    """Return in words how a network of an evaluation was trained; empty where its run's record is not there.

    Args:
        member: of "members" in ``metrics.json``.
    """
    told = member.get("trained")
    if not told:
        return ""
    code = f", code {told['commit']}" if told.get("commit") else ""
    return f"{told['command']} (seed {told['seed']}, epoch {told['best_epoch']} of {told['epochs']}{code})"


def crowd_table(crowd: Mapping[str, Any]) -> str:
    """Return the tables of agreement with FER+'s annotators, and of whose the network's errors are."""
    annotator, majority, errors = crowd["annotator"], crowd["majority"], crowd["errors"]
    heads = ("agreement", "network", "labels", "best possible")
    rows = [("with one annotator, drawn at random", *(f"{100 * annotator[who]:.1f} %" for who in annotator))]
    if majority["faces"]:
        shares = [f"{100 * majority[who]:.1f} %" for who in ("network", "labels")]
        rows.append((f"with the majority, where there is one ({majority['faces']:,} faces)", *shares, "100.0 %"))
    every = max(1, errors["all"])
    parts = [(words, f"{errors[key]:,}", f"{100 * errors[key] / every:.1f} %") for key, words in WHOSE_ERRORS.items()]
    named = text_table((f"of the network's {errors['all']:,} errors", "faces", "share"), parts)
    return f"{text_table(heads, rows)}\n\n{named}"


def class_table(results: Mapping[str, Any]) -> str:
    """Return the table of the classes: faces, precision, recall with its interval, F1."""
    rows = []
    for name, values in results["per_class"].items():
        low, high = (100 * value for value in values["recall_ci95"])
        precision, recall, f1 = (f"{100 * values[figure]:5.1f} %" for figure in ("precision", "recall", "f1"))
        told = (if_any(values, f"{recall}  [{low:.1f}, {high:.1f}]"), if_any(values, f1))
        rows.append((name, f"{values['support']:>6,}", precision, *told))
    table = text_table(("emotion", " faces", "precision", "recall, 95 % interval", "F1"), rows)
    return "\n".join([table, *absent_in_words(results)])


def if_any(values: Mapping[str, Any], text: str) -> str:
    """Return what is told of a class's own faces, where there are any."""
    return text if values["support"] else "-"


def absent_in_words(results: Mapping[str, Any]) -> list[str]:
    """Return in words which classes have no faces; nothing where all have."""
    absent = [name for name, values in results["per_class"].items() if not values["support"]]
    return [f"no face of {', '.join(absent)}: left out of macro-F1 and balanced accuracy"] if absent else []


def remarks(results: Mapping[str, Any]) -> list[str]:
    """Return what else was asked for, and what a reader of the figures must know."""
    from fer.reports.summary import (
        MEMBER_HEADS,
        answering_in_words,
        crowd_table,
        difference_table,
        ensemble_in_words,
        member_rows,
        same_views,
        seen_in_choice_in_words,
        selection_in_words,
    )
    from fer.system.text import text_table

    told = []
    if "diversity" in results:
        told.append(f"{ensemble_in_words(results)}:\n{text_table(MEMBER_HEADS, member_rows(results))}")
    if selection := results.get("selection"):
        told.append(selection_in_words(selection))
    if against := results.get("against"):
        test = against["mcnemar"]
        told.append(
            f"minus {against['name']}, on the same faces{same_views(against)}:\n{difference_table(against)}\n"
            f"only this one is right on {test['first']:,} faces, only the other on {test['second']:,}: McNemar's exact "
            f"p = {test['p']:.3g} (of these networks, not of their seeds)"
        )
    if crowd := results.get("crowd"):
        told.append(crowd_table(crowd))
    if "answering" in results:
        told.append(answering_in_words(results["answering"]))
    if copies := seen_in_choice_in_words(results):
        told.append(copies)
    if "test_opened" in results:
        count = results["test_opened"]
        told.append(
            f"test was opened {'for the first time' if count == 1 else f'{count} times by now'}"
            f"{'' if count == 1 else ': what is chosen after a look is chosen on test'}"
        )
    return told


def stated(names: Iterable[str], held: Mapping[str, Any]) -> list[str]:
    """Return the metrics that a file has: older ones lack some."""
    return [name for name in names if name in held]


def calibration_verdict(name: str, held: Mapping[str, Any], digits: int = 4) -> str:
    """Return in words whether chance alone explains a calibration error; empty for any other metric.

    Chance: what a calibrated network of the same confidences shows on as many faces.

    Args:
        name: of the metric.
        held: as ``metrics.json``, or its ``clean`` or ``calibrated``.
        digits: after the point.
    """
    high = held.get(f"{name}_if_calibrated")
    if high is None:
        return ""
    return f"{'within' if held[name] <= high else 'above'} chance (95th percentile {high:.{digits}f})"


def own_temperature(member: Mapping[str, Any]) -> float:
    """Return by what a member's logits were divided before mixing: 1 in evaluations from before that was done."""
    return float(member.get("temperature", 1.0))
