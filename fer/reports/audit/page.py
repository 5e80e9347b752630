"""The report of an audit.

The report is ``audit.html``, ``faces/`` with a sheet of faces for each class, and ``figures/``. ``write(found, facts,
folder)`` writes all of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from fer.data.audit.inspection import Findings, Light, present
from fer.data.audit.results import Audit, Classes
from fer.data.faces import bad_rows_in_words
from fer.data.labels import EMOTIONS, SPLITS
from fer.data.readers.images import PHOTOGRAPHS
from fer.reports import figures, html, plotting
from fer.reports.audit import doubtful, duplicates
from fer.reports.audit.duplicates import by_label, conflicts, count_with_share, largest, rows_in_words, share, shrunk
from fer.reports.html import Section, card, joined, paragraph, tag
from fer.reports.theme import PAPER
from fer.system.text import plural, sentence

ACROSS = 8  # faces in a row of a class's sheet
ENLARGED = 2  # factor by which a sheet's file enlarges each pixel
SHOWN = 24  # faces shown of each kind: four rows of six
SHOWN_SKIPPED = 200  # lines
COLOURS = {name: PAPER[name] for name in SPLITS}  # of each split; any other is "soft"
LINES = {"train": "-", "val": (0, (4, 1.5)), "test": (0, (1.5, 1))}  # dashes: the splits differ in grey print, too
GREYS = 255  # the largest level of grey
KINDS = {
    "darkest": "The lowest mean grey.",
    "brightest": "The highest mean grey.",
    "flattest": "The lowest standard deviation of the pixels: low contrast, dim light or a blank picture.",
}


def write(found: Findings, facts: Audit, folder: Path) -> Path:
    """Write ``faces/``, ``figures/`` and ``audit.html`` to ``folder``, and return the page.

    Args:
        found: the faces and the findings of the audit.
        facts: contents of ``audit.json``.
        folder: an existing one.

    Raises:
        OSError: the folder may not be written.
    """
    write_sheets(found, folder / "faces")
    drawn = draw(found, facts, folder / "figures")
    file = folder / "audit.html"
    foot = f"Written by fer {facts.machine.versions['fer']}."
    html.write(file, f"Audit of {facts.dataset.name}", lead(facts), sections(found, facts, drawn), foot)
    return file


# --- pictures -------------------------------------------------------------------------------------------------------


def write_sheets(found: Findings, folder: Path) -> None:
    """Write a random sample of each class as ``<class>.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, indices in found.sheets.items():
        sheet = figures.mosaic(shrunk(found, indices), min(ACROSS, len(indices)))
        enlarged = sheet.repeat(ENLARGED, 0).repeat(ENLARGED, 1)
        Image.fromarray(enlarged).save(folder / f"{label}.png")


def draw(found: Findings, facts: Audit, folder: Path) -> dict[str, str]:
    """Write the figures as PNG and SVG, and return name -> SVG."""
    made = {}
    with plotting.style():
        made["classes"] = class_shares(facts.classes)
        for name, indices in (("conflicts", conflicts(found)), ("twins", largest(found))):
            if indices:
                groups = [found.groups[number] for number in indices[:SHOWN]]
                captions = [group_caption(found, group) for group in groups]
                made[name] = figures.faces(shrunk(found, [group[0] for group in groups]), captions)
        if found.light is not None:
            made["light"] = light(found.light, found.splits)
        for kind, extreme in found.extremes.items():
            if extreme.size:
                shown = extreme[:SHOWN]
                made[kind] = figures.faces(shrunk(found, shown), [light_caption(found, kind, p) for p in shown])
    return {name: plotting.save(figure, folder, name) for name, figure in made.items()}


def group_caption(found: Findings, group: NDArray[np.int64]) -> list[str]:
    """Return the lines below the face of a group of duplicates in a figure."""
    labels = [f"{len(indices)} {label}" for label, indices in by_label(found, group).items()]
    rows = found.faces.rows[group].tolist()
    where = f"{rows[0]}, {rows[1]}" if len(rows) == 2 else f"row {rows[0]} +{len(rows) - 1}"
    second = labels[1:2] if len(labels) < 3 else ["and others"]
    return [*labels[:1], *second, where]


def light_caption(found: Findings, kind: str, index: int) -> list[str]:
    """Return the lines below a dark, bright or flat face in a figure."""
    return [light_value(found, kind, index), str(found.labels[index]), f"row {found.faces.rows[index]}"]


def light_value(found: Findings, kind: str, index: int) -> str:
    """Return the value that makes a face extreme, ``sd 3.1`` or ``mean 12.0``."""
    assert found.light is not None
    return f"sd {found.light.spread[index]:.1f}" if kind == "flattest" else f"mean {found.light.mean[index]:.1f}"


# --- figures --------------------------------------------------------------------------------------------------------


def class_shares(classes: Classes) -> Figure:
    """Draw the share of each class in each split."""
    counts, sizes, labels = classes.counts, classes.sizes, list(classes.total)
    bar = 0.8 / len(counts)
    figure, rows = plotting.canvas(0.7 + len(labels) * max(0.3, 0.14 * len(counts)))
    axes = rows[0, 0]
    for number, (name, by_class) in enumerate(counts.items()):
        shares = [by_class[label] / sizes[name] for label in labels]
        heights = np.arange(len(labels)) + bar * (number - (len(counts) - 1) / 2)
        axes.barh(heights, shares, bar * 0.9, color=COLOURS.get(name, PAPER["soft"]), label=name)
    axes.set_yticks(np.arange(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(plotting.PerCent())
    axes.set_xlabel("share of the split" if len(counts) > 1 else "share")
    if len(counts) > 1:
        figure.legend(loc="outside upper left", ncols=len(counts))
    return figure


def light(values: Light, splits: NDArray[np.str_]) -> Figure:
    """Draw histograms of the brightness and the contrast of the faces of each split.

    Args:
        values: of N faces.
        splits: (N,) names.
    """
    figure, rows = plotting.canvas(4.2, 2)
    for axes, column, most, title in zip(
        rows[:, 0], values, (GREYS, GREYS / 2), ("Brightness: mean grey", "Contrast: standard deviation"), strict=True
    ):
        _histogram(axes, column, splits, np.linspace(0, most, 52))
        axes.set_title(title)
        axes.set_ylabel("share of the faces")
    rows[-1, 0].set_xlabel("levels of grey")
    names = present(splits)
    if len(names) > 1:
        rows[0, 0].legend(loc="upper right")
    return figure


def _histogram(axes: Axes, values: NDArray[np.float64], splits: NDArray[np.str_], edges: NDArray[np.float64]) -> None:
    for name in present(splits):
        of_split = values[splits == name]
        shares = np.histogram(of_split, edges)[0] / len(of_split)
        axes.stairs(
            shares, edges, color=COLOURS.get(name, PAPER["soft"]), linestyle=LINES.get(name, "-"), linewidth=1.3,
            label=name,
        )  # fmt: skip
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.set_major_formatter(plotting.PerCent())


# --- the page -------------------------------------------------------------------------------------------------------


def lead(facts: Audit) -> Markup:
    """Return the part below the title: the data set, warnings, and the headline cards."""
    dataset, size = facts.dataset, facts.dataset.image_size
    parts = [dataset.layout, f"{size}x{size} pixels", f"split: {facts.split.meaning}"]
    notes = [html.note(text) for text in warnings(facts)]
    return joined(paragraph(" · ".join(parts), class_="soft"), *notes, headline(facts))


def warnings(facts: Audit) -> list[str]:
    """Return the warnings for a user of the data."""
    messages = []
    classes, dataset = facts.classes, facts.dataset
    if why := facts.split.why_not_official:
        messages.append(f"The official split does not apply: {why}. Shown instead: {facts.split.meaning}.")
    messages += [sentence(words) for words in facts.split.warnings()]
    messages += [sentence(note) for note in dataset.notes if PHOTOGRAPHS in note]
    if unlabelled := classes.total.get("unlabelled"):
        messages.append(f"{unlabelled:,} of {classes.n:,} faces have no label.")
    empty = [label for label in EMOTIONS if not classes.total[label]]
    if empty and len(empty) < len(EMOTIONS):
        messages.append(f"No face is labelled {' or '.join(empty)}.")
    if dataset.skipped:
        messages.append(f"Skipped: {bad_rows_in_words(dataset.skipped)}, listed below.")
    return messages


def headline(facts: Audit) -> Markup:
    """Return the headline cards: faces, imbalance, duplicates, overlap with train, conflicts."""
    classes, exact = facts.classes, facts.duplicates.all
    splits = " · ".join(f"{name} {classes.sizes[name]:,}" for name in classes.counts if name != "all")
    groups = f"in {plural(exact.groups, 'group')} of {plural(exact.faces, 'face')}"
    meaning = "the same picture under different labels"
    return html.cards(
        [
            card("Faces", f"{classes.n:,}", splits, ""),
            *imbalance(classes),
            card("Exact duplicates", f"{exact.copies:,}", groups, "the same pixels as an earlier face"),
            *near_copies(facts),
            *seen_in_training(facts),
            card("Conflicts", f"{exact.conflicting_groups:,}", f"of {plural(exact.groups, 'group')}", meaning),
        ]
    )


def imbalance(classes: Classes) -> list[Markup]:
    """Return the card of the ratio between the largest and the smallest class; none if a class is empty."""
    ratio, total = classes.imbalance["total"], classes.total
    if ratio is None:
        return []
    ranked = sorted(EMOTIONS, key=lambda label: total[label])
    ends = f"{ranked[-1]} {total[ranked[-1]]:,}, {ranked[0]} {total[ranked[0]]:,}"
    return [card("Imbalance", f"{ratio:.1f} times", ends, "ratio of the largest class to the smallest")]


def near_copies(facts: Audit) -> list[Markup]:
    """Return the card of the near duplicates; none if the audit did not search for them."""
    if facts.near_duplicates is None:
        return []
    near = facts.near_duplicates.all
    groups = f"of {near.groups:,} photographs; labels conflict in {near.conflicting_groups:,}"
    return [card("Near duplicates", f"{near.pictures:,}", groups, "different pictures of the same photograph")]


def seen_in_training(facts: Audit) -> list[Markup]:
    """Return the card of the val and test faces with a copy in train of any kind; none without a train split."""
    exact, sizes = facts.duplicates.splits, facts.classes.sizes
    near = facts.near_duplicates.splits if facts.near_duplicates else {}
    moved = facts.moved_copies.splits if facts.moved_copies else {}
    known = [
        (name, exact[name]["train"] + near.get(name, {}).get("train", 0) + moved.get(name, 0))
        for name in ("test", "val")
        if name in exact and "train" in exact
    ]
    if not known:
        return []
    value = " + ".join(f"{count:,}" for _, count in known)
    of = " + ".join(f"{share(count, sizes[name])} of {name}" for name, count in known)
    kinds = "an exact, near or moved copy" if moved else "an exact or near duplicate" if near else "an exact duplicate"
    return [card("Overlap with train", value, of, f"have {kinds} in train, which inflates accuracy")]


def sections(found: Findings, facts: Audit, drawn: Mapping[str, str]) -> list[Section]:
    """Return the parts of the page, in order."""
    parts = [
        Section("classes", "Classes and splits", classes(facts.classes, drawn)),
        Section("faces", "A sample of each class", sheets(found, facts)),
        Section("duplicates", "Exact duplicates", duplicates.exact_duplicates(found, facts)),
        Section("near-duplicates", "Near duplicates", duplicates.near_duplicates(found, facts)) if found.near else None,
        Section("moved-copies", "Moved copies", duplicates.moved_copies(found, facts)) if found.moved else None,
        Section("one-colour", "One-colour faces", one_colour(found)) if found.one_colour.any() else None,
        Section("no-faces", "Pictures without a face", doubtful.no_faces(found, facts))
        if doubtful.faceless(found)
        else None,
        Section("votes", "FER+ votes", votes(facts)) if facts.votes else None,
        Section("suspects", "Suspect labels", doubtful.suspects(found, facts)) if found.suspects else None,
        Section("light", "Brightness and contrast", brightness(found, facts, drawn)) if found.light else None,
        Section("advice", "Suggestions", advice(facts)),
        Section("provenance", "Provenance", provenance(facts)),
    ]
    return [part for part in parts if part is not None]


def classes(counts: Classes, drawn: Mapping[str, str]) -> Markup:
    """Return the table of classes by split beside its figure."""
    columns, sizes = counts.columns, counts.sizes
    rows: list[Sequence[object]] = [
        (label, *(count_with_share(by_class[label], sizes[name]) for name, by_class in columns.items()))
        for label in counts.total
    ]
    rows.append(("total", *(f"{sizes[name]:,}" for name in columns)))
    ratios = [counts.imbalance[name] for name in columns]
    rows.append(("largest / smallest", *("–" if ratio is None else f"{ratio:.1f}" for ratio in ratios)))
    numbers = range(1, len(columns) + 1)
    return html.columns(
        html.drawing(drawn["classes"], "share of each class in each split"),
        html.table(("class", *columns), rows, numbers),
    )


def sheets(found: Findings, facts: Audit) -> Markup:
    """Return a random sample of faces of each class."""
    intro = paragraph(
        f"Up to {max(map(len, found.sheets.values()))} faces of each class, drawn with seed "
        f"{facts.sheets.seed} from all splits; audit.json lists their rows. Do the labels fit?",
        class_="soft",
    )
    parts = []
    for label, indices in found.sheets.items():
        images = zip(shrunk(found, indices), indices.tolist(), strict=True)
        shown = [html.picture(image, f"{label}, row {found.faces.rows[index]}") for image, index in images]
        parts += [tag("h3", f"{label} ({facts.classes.total[label]:,})"), tag("div", *shown, class_="sheet")]
    return joined(intro, *parts)


def one_colour(found: Findings) -> Markup:
    """Return the section on one-colour faces: a row for each level of grey."""
    indices = np.flatnonzero(found.one_colour)
    intro = paragraph(
        f"{len(indices):,} pictures have a single level of grey and show nothing. Those of the same grey also count "
        "as exact duplicates, but are left out of the largest groups there.",
        class_="soft",
    )
    rows = []
    for grey in np.unique(found.faces.images[indices, 0, 0]).tolist():
        of_grey = indices[found.faces.images[indices, 0, 0] == grey]
        parts = by_label(found, of_grey)
        rows.append((grey, f"{len(of_grey):,}", "; ".join(f"{k}: {rows_in_words(found, p)}" for k, p in parts.items())))
    return joined(intro, html.table(("grey", "faces", "labels, splits and rows"), rows, (1,)))


def votes(facts: Audit) -> Markup:
    """Return the section on FER+'s votes: a table of the most frequent answers by label."""
    summary, total = facts.votes, facts.classes.n
    assert summary is not None
    low, high = summary.votes_per_face
    intro = paragraph(
        f"Each face has {low} to {high} votes. The most frequent answer equals the label of "
        f"{share(summary.agreeing, total)} of the faces. It is none of the seven emotions for "
        f"{share(summary.outside_the_seven, total)}, and has at most half of the votes for "
        f"{share(summary.without_majority, total)}. Rows are labels, columns are the most frequent answers; NF "
        "means no face.",
        class_="soft",
    )
    answers = summary.answers.items()
    rows = [(tag("span", label, class_="whole"), *(f"{count:,}" for count in row.values())) for label, row in answers]
    heads = ("label", *next(iter(summary.answers.values())))
    return joined(intro, html.table(heads, rows, range(1, len(heads))))


def brightness(found: Findings, facts: Audit, drawn: Mapping[str, str]) -> Markup:
    """Return the section on brightness and contrast: distributions, and the most extreme faces."""
    spans = facts.light or {}
    described = [
        *((f"brightness, {name}", span.mean) for name, span in spans.items()),
        *((f"contrast, {name}", span.sd) for name, span in spans.items()),
    ]
    rows = [(what, f"{of.p5:.0f}", f"{of.median:.0f}", f"{of.p95:.0f}") for what, of in described]
    intro = paragraph(
        "Brightness is the mean and contrast the standard deviation of a face's pixels, in levels of grey from 0 to "
        "255. Splits that differ here were collected or prepared differently. extremes.csv lists more extreme faces "
        "than are shown below; one-colour faces are left out.",
        class_="soft",
    )
    table = html.table(("", "5th percentile", "median", "95th percentile"), rows, (1, 2, 3))
    parts = []
    for kind, meaning in KINDS.items():
        indices = found.extremes[kind][:SHOWN]
        if indices.size:
            parts += [
                tag("h3", kind.capitalize()),
                paragraph(meaning, class_="soft"),
                extreme_faces(found, kind, indices),
            ]
    label = "brightness and contrast of the faces by split"
    return joined(html.columns(html.drawing(drawn["light"], label), joined(intro, table)), *parts)


def extreme_faces(found: Findings, kind: str, indices: NDArray[np.int64]) -> Markup:
    """Return the most extreme faces of a kind with their values, labels and rows."""
    shown = []
    for image, index in zip(shrunk(found, indices), indices.tolist(), strict=True):
        lines = [str(found.labels[index]), f"{found.splits[index]}, row {found.faces.rows[index]}"]
        shown.append(html.face(image, [light_value(found, kind, index), *lines]))
    return tag("div", *shown, class_="faces")


def advice(facts: Audit) -> Markup:
    """Return the section on the suggestions of ``audit.csv``, by reason."""
    intro = paragraph(
        "audit.csv holds a row for each face and reason; a face may have several reasons. Training with "
        "data.exclude=audit.csv leaves out of train the faces whose suggestion is exclude. Faces of val and test "
        "never get this suggestion, so that results stay comparable. The other suggestions change nothing.",
        class_="soft",
    )
    rows = []
    for suggestion, summary in facts.advice.items():
        rows += [(suggestion, reason, f"{count:,}") for reason, count in summary.reasons.items()]
        if len(summary.reasons) > 1:
            rows.append((suggestion, "any of these reasons", f"{summary.faces:,}"))
    return joined(intro, html.table(("suggestion", "reason", "faces"), rows, (2,)) if rows else paragraph("Nothing."))


def provenance(facts: Audit) -> Markup:
    """Return the section on the source of the faces, with the reader's notes and skipped rows."""
    dataset, machine = facts.dataset, facts.machine
    rows: list[tuple[object, object]] = [
        ("data", dataset.path),
        ("layout", dataset.layout),
        ("labels", dataset.labels),
        ("split", facts.split.meaning),
        ("row", "index from 0 in the data set's file; in a folder of pictures, the index in its sorted listing"),
        ("fingerprint", tag("code", dataset.fingerprint)),
        ("notes", "; ".join(dataset.notes) or "none"),
        ("skipped", bad_rows_in_words(dataset.skipped)),
        ("command", tag("code", facts.command)),
        ("written", machine.finished),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
    ]
    table = html.table((), rows, stack=True)
    if not dataset.skipped:
        return table
    shown = "\n".join(dataset.skipped[:SHOWN_SKIPPED])
    more = len(dataset.skipped) - SHOWN_SKIPPED
    rest = f"\nand {more:,} more, listed in audit.json" if more > 0 else ""
    return joined(table, html.details("skipped rows and files", tag("pre", shown + rest)))
