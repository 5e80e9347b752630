"""The findings of an audit as text for a terminal."""

import textwrap
from collections.abc import Mapping

from fer.data.audit import moved_copies
from fer.data.audit.near_duplicates import LIMIT
from fer.data.audit.results import Audit, Classes, Counts, LightSpan, Percentiles, Suggested, WithoutFace
from fer.data.audit.suggestions import EXCLUDE
from fer.data.faces import bad_rows_in_words
from fer.system.text import plural, text_table

WIDE = 120  # characters of a terminal
INDENT = " " * 13  # of the lines that continue a finding


def summary(facts: Audit) -> str:
    """Return the data set, the table of classes and the findings as text for a terminal."""
    dataset, split = facts.dataset, facts.split
    size = dataset.image_size
    lines = [
        f"data:  {dataset.path} ({dataset.layout}), {facts.classes.n:,} faces of {size}x{size}",
        f"split: {split.meaning}",
    ]
    if split.why_not_official:
        lines.append(f"       the official split does not apply: {split.why_not_official}")
    lines += [f"*** {warning} ***" for warning in split.warnings()]
    lines += [f"note:  {note}" for note in dataset.notes]
    if dataset.skipped:
        lines.append(f"skipped: {bad_rows_in_words(dataset.skipped)}, listed in audit.json")
    return "\n".join([*lines, "", count_table(facts.classes), "", *findings(facts)])


def count_table(classes: Classes) -> str:
    """Return the table of classes by split, each with its share of the split."""
    columns, sizes = classes.columns, classes.sizes
    rows = [
        (
            label,
            *(f"{counts[label]:>7,} {100 * counts[label] / sizes[name]:5.1f} %" for name, counts in columns.items()),
        )
        for label in classes.total
    ]
    ratios = [classes.imbalance[name] for name in columns]
    rows.append(("total", *(f"{sizes[name]:>7,}" for name in columns)))
    rows.append(("largest / smallest", *("      -" if ratio is None else f"{ratio:>7.1f}" for ratio in ratios)))
    return text_table(("class", *(f"{name:>7}" for name in columns)), rows)


def findings(facts: Audit) -> list[str]:
    """Return the findings of an audit, a line or more for each kind."""
    lines = [*exact_findings(facts), *near_findings(facts), *moved_findings(facts)]
    if one_colour := facts.one_colour.faces:
        lines.append(f"one colour:  {one_colour:,} faces; those of the same grey count as exact duplicates")
    lines += without_face(facts.no_faces)
    if votes := facts.votes:
        lines.append(
            f"FER+ votes:  the most frequent answer equals the label of {100 * votes.agreeing / facts.classes.n:.1f} % "
            f"of the faces; for {votes.outside_the_seven:,} faces it is none of the seven emotions"
        )
        lines.append(f"{INDENT}{votes.tied:,} faces have several most frequent answers: the first column counts")
    return [*lines, *light(facts.light or {}), *doubts(facts), *advised(facts.advice)]


def light(spans: Mapping[str, LightSpan]) -> list[str]:
    """Return a line on the brightness and the contrast of each split."""
    return [
        f"light:       {name}: mean grey {spread(span.mean)}; standard deviation {spread(span.sd)} (90 % of the faces)"
        for name, span in spans.items()
    ]


def spread(values: Percentiles) -> str:
    """Return ``40 to 200, median 120``."""
    return f"{values.p5:.0f} to {values.p95:.0f}, median {values.median:.0f}"


def exact_findings(facts: Audit) -> list[str]:
    """Return the lines on exact duplicates: how many, and how many val and test faces have one in train."""
    exact = facts.duplicates.all
    if not exact.groups:
        return ["exact duplicates: none"]
    lines = [
        f"exact duplicates: {exact.copies:,} copies beyond the first, in {exact.groups:,} groups of "
        f"{exact.faces:,} faces; in {exact.conflicting_groups:,} groups the labels conflict"
    ]
    return [*lines, *(f"{INDENT}{line} have one in train" for line in overlaps(facts, facts.duplicates.splits))]


def overlaps(facts: Audit, by_split: Mapping[str, Counts]) -> list[str]:
    """Return ``12 of 3,589 val faces`` for each split with duplicates in train."""
    return [
        f"{counts['train']:,} of {facts.classes.sizes[name]:,} {name} faces"
        for name, counts in by_split.items()
        if name != "train" and counts.get("train")
    ]


def near_findings(facts: Audit) -> list[str]:
    """Return the lines on near duplicates; none if the audit did not search for them."""
    if (near := facts.near_duplicates) is None:
        return []
    if not near.all.groups:
        return [f"near duplicates: none; {LIMIT}"]
    return [
        f"near duplicates: {near.all.pictures:,} different pictures of {plural(near.all.groups, 'photograph')}; in "
        f"{plural(near.all.conflicting_groups, 'group')} the labels conflict",
        *(f"{INDENT}{line} have one in train, and no exact one" for line in overlaps(facts, near.splits)),
        f"{INDENT}{LIMIT}",
    ]


def moved_findings(facts: Audit) -> list[str]:
    """Return the lines on copies in train that were turned, moved or enlarged; none if they were not searched for."""
    if (moved := facts.moved_copies) is None:
        return []
    if not moved.pairs:
        return [f"moved copies: no face of val or test has one in train; {moved_copies.LIMIT}"]
    sizes = facts.classes.sizes
    lines = [f"{count:,} of {sizes[name]:,} {name} faces" for name, count in moved.splits.items() if count]
    return [
        f"moved copies: turned, moved or enlarged, in train; of {moved.pairs:,} pairs {moved.conflicting:,} have "
        "different labels",
        *(f"{INDENT}{line} have one in train, and no exact or near one" for line in lines),
        f"{INDENT}{moved_copies.LIMIT}",
    ]


def without_face(counts: WithoutFace) -> list[str]:
    """Return the lines on pictures without a face."""
    lines = []
    if counts.likely:
        lines.append(
            f"no face:     {counts.likely:,} pictures by FER+'s most frequent answer, {counts.voted:,} by more "
            "than half of the votes"
        )
    if counts.flat:
        lines.append(f"nearly one colour: {counts.flat:,} pictures (standard deviation below {counts.flat_below:g})")
    return lines


def doubts(facts: Audit) -> list[str]:
    """Return the lines on labels that out-of-fold predictions contradict; none without predictions."""
    if (counts := facts.suspects) is None:
        return []
    lines = [
        f"labels:      {counts.suspects:,} of {counts.covered:,} predicted faces are suspect ({facts.classes.n:,} "
        f"faces in all); {len(counts.runs)} runs, {100 * counts.accuracy:.2f} % correct ({counts.settings})"
    ]
    for name, row in (counts.votes or {}).items():
        if row.faces:
            label, network = 100 * row.as_given / row.faces, 100 * row.as_predicted / row.faces
            lines.append(
                f"{INDENT}FER+ agrees with the label of {label:.1f} % of the {name}, with the network on "
                f"{network:.1f} %"
            )
    return lines


def advised(advice: Mapping[str, Suggested]) -> list[str]:
    """Return the lines on the faces that the audit suggests to leave out of train."""
    left_out = advice[EXCLUDE]
    if not left_out.faces:
        return ["to leave out of train: none"]
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out.reasons.items())
    line = f"to leave out of train: {left_out.faces:,} faces, listed in audit.csv ({reasons})"
    return [textwrap.fill(line, WIDE, subsequent_indent=INDENT)]
