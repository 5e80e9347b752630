"""What an audit found, in the terminal's few lines."""

import textwrap
from typing import Any

from fer.system.text import text_table

WIDE = 120  # characters of a terminal


def summary(facts: dict[str, Any]) -> str:
    """Return what was found, in the terminal's few lines."""
    dataset, split = facts["dataset"], facts["split"]
    size = dataset["image_size"]
    lines = [
        f"data:  {dataset['path']} ({dataset['layout']}), {facts['n']:,} faces of {size}x{size}",
        f"split: {split['meaning']}",
    ]
    if split["why_not_official"]:
        lines.append(f"       the official split does not apply: {split['why_not_official']}")
    lines += [f"note:  {note}" for note in dataset["notes"]]
    if dataset["skipped"]:
        lines.append(f"skipped: {len(dataset['skipped']):,} bad rows or files, listed in audit.json")
    return "\n".join([*lines, "", count_table(facts), "", *findings(facts)])


def count_table(facts: dict[str, Any]) -> str:
    """Return the table of classes by split, each with its share of the split."""
    columns = {**facts["counts"], **({"total": facts["total"]} if len(facts["counts"]) > 1 else {})}
    sums = {name: sum(held.values()) for name, held in columns.items()}
    rows = [
        (label, *(f"{held[label]:>7,} {100 * held[label] / sums[name]:5.1f} %" for name, held in columns.items()))
        for label in facts["total"]
    ]
    ratios = [facts["imbalance"][name] for name in columns]
    rows.append(("together", *(f"{count:>7,}" for count in sums.values())))
    rows.append(("largest / smallest", *("      -" if ratio is None else f"{ratio:>7.1f}" for ratio in ratios)))
    return text_table(("class", *(f"{name:>7}" for name in columns)), rows)


def findings(facts: dict[str, Any]) -> list[str]:
    """Return a line for each thing that a user of the data should know."""
    twins, plain = facts["twins"], facts["one_colour"]["faces"]
    lines = ["exact twins: none"]
    if twins["groups"]:
        lines = [
            f"exact twins: {twins['copies']:,} copies beyond the first, in {twins['groups']:,} groups of "
            f"{twins['faces']:,} faces; in {twins['conflicting_groups']:,} groups the labels conflict"
        ]
    lines += [
        f"             {counted['train']:,} of {sum(facts['counts'][name].values()):,} {name} faces have one in train"
        for name, counted in twins["splits"].items()
        if name != "train" and counted.get("train")
    ]
    lines += near_findings(facts)
    if plain:
        lines.append(f"one colour:  {plain:,} faces, counted among the twins where several are alike")
    lines += without_face(facts["no_faces"])
    if votes := facts["votes"]:
        lines.append(
            f"FER+ votes:  the most frequent answer agrees with {100 * votes['agreeing'] / facts['n']:.1f} % of the "
            f"labels and is none of the seven for {votes['outside_the_seven']:,} faces"
        )
    for name, values in (facts["light"] or {}).items():
        spans = ["{p5:.0f} to {p95:.0f}, median {median:.0f}".format(**values[key]) for key in ("mean", "sd")]
        lines.append(f"light:       {name}: mean grey {spans[0]}; standard deviation {spans[1]} (90 % of the faces)")
    return [*lines, *doubts(facts), *advised(facts["advice"])]


def near_findings(facts: dict[str, Any]) -> list[str]:
    """Return what is to be known of near twins."""
    if (near := facts["near_twins"]) is None:
        return []
    if not near["groups"]:
        return ["near twins:  none"]
    return [
        f"near twins:  {near['pictures']:,} pictures that differ show {near['groups']:,} photographs; in "
        f"{near['conflicting_groups']:,} groups the labels conflict",
        *(
            f"             {held['train']:,} of {sum(facts['counts'][name].values()):,} {name} faces have one in "
            "train, and no exact twin"
            for name, held in near["splits"].items()
            if name != "train" and held.get("train")
        ),
    ]


def without_face(counts: dict[str, Any]) -> list[str]:
    """Return which pictures show no face, in words."""
    lines = []
    if counts["likely"]:
        lines.append(
            f"no face:     {counts['likely']:,} by the most frequent of FER+'s answers, {counts['voted']:,} by "
            "more than half of the votes"
        )
    if counts["flat"]:
        lines.append(f"nearly one colour: {counts['flat']:,} (standard deviation below {counts['flat_below']:g})")
    return lines


def doubts(facts: dict[str, Any]) -> list[str]:
    """Return what predictions say of the labels, in words."""
    if (counts := facts["suspects"]) is None:
        return []
    lines = [
        f"labels:      {counts['suspects']:,} of {counts['covered']:,} predicted faces are suspect ({facts['n']:,} "
        f"faces in all); {len(counts['runs'])} runs, {100 * counts['accuracy']:.2f} % right ({counts['settings']})"
    ]
    for name, held in (counts["votes"] or {}).items():
        if held["faces"]:
            shares = [100 * held[key] / held["faces"] for key in ("as_given", "as_predicted")]
            lines.append(
                f"             FER+ agrees with the label of {shares[0]:.1f} % of the {name}, with the network on "
                f"{shares[1]:.1f} %"
            )
    return lines


def advised(counts: dict[str, Any]) -> list[str]:
    """Return what the audit suggests, in words."""
    if not counts["exclude"]["faces"]:
        return ["to leave out of train: none"]
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts["exclude"]["reasons"].items())
    told = f"to leave out of train: {counts['exclude']['faces']:,} faces, listed in audit.csv ({reasons})"
    return [textwrap.fill(told, WIDE, subsequent_indent=" " * 13)]
