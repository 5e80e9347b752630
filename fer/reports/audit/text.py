"""The findings of an audit as text for a terminal."""

import textwrap
from typing import Any

from fer.system.text import text_table

WIDE = 120  # characters of a terminal
INDENT = " " * 13  # of the lines that continue a finding


def summary(facts: dict[str, Any]) -> str:
    """Return the data set, the table of classes and the findings as text for a terminal."""
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
    sums = {name: sum(counts.values()) for name, counts in columns.items()}
    rows = [
        (label, *(f"{counts[label]:>7,} {100 * counts[label] / sums[name]:5.1f} %" for name, counts in columns.items()))
        for label in facts["total"]
    ]
    ratios = [facts["imbalance"][name] for name in columns]
    rows.append(("total", *(f"{count:>7,}" for count in sums.values())))
    rows.append(("largest / smallest", *("      -" if ratio is None else f"{ratio:>7.1f}" for ratio in ratios)))
    return text_table(("class", *(f"{name:>7}" for name in columns)), rows)


def findings(facts: dict[str, Any]) -> list[str]:
    """Return the findings of an audit, a line or more for each kind."""
    lines = [*exact_findings(facts), *near_findings(facts)]
    if one_colour := facts["one_colour"]["faces"]:
        lines.append(f"one colour:  {one_colour:,} faces; those of the same grey count as exact duplicates")
    lines += without_face(facts["no_faces"])
    if votes := facts["votes"]:
        lines.append(
            f"FER+ votes:  the most frequent answer equals the label of {100 * votes['agreeing'] / facts['n']:.1f} % "
            f"of the faces; for {votes['outside_the_seven']:,} faces it is none of the seven emotions"
        )
    for name, values in (facts["light"] or {}).items():
        spans = ["{p5:.0f} to {p95:.0f}, median {median:.0f}".format(**values[key]) for key in ("mean", "sd")]
        lines.append(f"light:       {name}: mean grey {spans[0]}; standard deviation {spans[1]} (90 % of the faces)")
    return [*lines, *doubts(facts), *advised(facts["advice"])]


def exact_findings(facts: dict[str, Any]) -> list[str]:
    """Return the lines on exact duplicates: how many, and how many val and test faces have one in train."""
    summary = facts["twins"]
    if not summary["groups"]:
        return ["exact duplicates: none"]
    lines = [
        f"exact duplicates: {summary['copies']:,} copies beyond the first, in {summary['groups']:,} groups of "
        f"{summary['faces']:,} faces; in {summary['conflicting_groups']:,} groups the labels conflict"
    ]
    return [*lines, *(f"{INDENT}{line} have one in train" for line in overlaps(facts, summary["splits"]))]


def overlaps(facts: dict[str, Any], by_split: dict[str, dict[str, int]]) -> list[str]:
    """Return ``12 of 3,589 val faces`` for each split with duplicates in train."""
    return [
        f"{counts['train']:,} of {sum(facts['counts'][name].values()):,} {name} faces"
        for name, counts in by_split.items()
        if name != "train" and counts.get("train")
    ]


def near_findings(facts: dict[str, Any]) -> list[str]:
    """Return the lines on near duplicates; none if the audit did not search for them."""
    if (near := facts["near_twins"]) is None:
        return []
    if not near["groups"]:
        return ["near duplicates: none"]
    return [
        f"near duplicates: {near['pictures']:,} different pictures of {near['groups']:,} photographs; in "
        f"{near['conflicting_groups']:,} groups the labels conflict",
        *(f"{INDENT}{line} have one in train, and no exact one" for line in overlaps(facts, near["splits"])),
    ]


def without_face(counts: dict[str, Any]) -> list[str]:
    """Return the lines on pictures without a face."""
    lines = []
    if counts["likely"]:
        lines.append(
            f"no face:     {counts['likely']:,} pictures by FER+'s most frequent answer, {counts['voted']:,} by more "
            "than half of the votes"
        )
    if counts["flat"]:
        lines.append(
            f"nearly one colour: {counts['flat']:,} pictures (standard deviation below {counts['flat_below']:g})"
        )
    return lines


def doubts(facts: dict[str, Any]) -> list[str]:
    """Return the lines on labels that out-of-fold predictions contradict; none without predictions."""
    if (counts := facts["suspects"]) is None:
        return []
    lines = [
        f"labels:      {counts['suspects']:,} of {counts['covered']:,} predicted faces are suspect ({facts['n']:,} "
        f"faces in all); {len(counts['runs'])} runs, {100 * counts['accuracy']:.2f} % correct ({counts['settings']})"
    ]
    for name, row in (counts["votes"] or {}).items():
        if row["faces"]:
            shares = [100 * row[key] / row["faces"] for key in ("as_given", "as_predicted")]
            lines.append(
                f"{INDENT}FER+ agrees with the label of {shares[0]:.1f} % of the {name}, with the network on "
                f"{shares[1]:.1f} %"
            )
    return lines


def advised(counts: dict[str, Any]) -> list[str]:
    """Return the lines on the faces that the audit suggests to leave out of train."""
    if not counts["exclude"]["faces"]:
        return ["to leave out of train: none"]
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts["exclude"]["reasons"].items())
    line = f"to leave out of train: {counts['exclude']['faces']:,} faces, listed in audit.csv ({reasons})"
    return [textwrap.fill(line, WIDE, subsequent_indent=INDENT)]
