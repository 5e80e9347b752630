"""The report of an audit: ``audit.html``, a page to look at a data set, ``faces/`` with a sheet a class, ``figures/``.

write(found, facts, folder)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from fer.data.audit.inspection import Found, Light, present
from fer.data.labels import EMOTIONS, SPLITS
from fer.reports import figures, html, plotting
from fer.reports.audit import doubtful, duplicates
from fer.reports.audit.duplicates import by_label, conflicts, largest, places_in_words, share, shared, shrunk
from fer.reports.html import Section, card, joined, paragraph, tag
from fer.reports.theme import PAPER

ACROSS = 8  # faces in a row of a class's sheet
ENLARGED = 2  # a sheet's pixel as so many of its file
SHOWN = 24  # faces of a kind, as pictures: four rows of six
SHOWN_SKIPPED = 200  # lines
COLOURS = {name: PAPER[name] for name in SPLITS}  # any other: soft
LINES = {"train": "-", "val": (0, (4, 1.5)), "test": (0, (1.5, 1))}  # so that grey print tells them apart, too
GREYS = 255  # the largest level
KINDS = {
    "darkest": "The lowest mean grey.",
    "brightest": "The highest mean grey.",
    "flattest": "The lowest standard deviation of the pixels: low contrast, dim light or a blank picture.",
}


def write(found: Found, facts: Mapping[str, Any], folder: Path) -> Path:
    """Write ``faces/``, ``figures/`` and ``audit.html`` to ``folder``, and return the page.

    Args:
        found: the faces and what was found among them.
        facts: the same in numbers, as in ``audit.json``.
        folder: exists.

    Raises:
        OSError: the folder may not be written.
    """
    write_sheets(found, folder / "faces")
    drawn = draw(found, facts, folder / "figures")
    file = folder / "audit.html"
    foot = f"Written by fer {facts['versions']['fer']}."
    html.write(file, f"Audit of {facts['dataset']['name']}", lead(facts), sections(found, facts, drawn), foot)
    return file


# --- pictures -------------------------------------------------------------------------------------------------------


def write_sheets(found: Found, folder: Path) -> None:
    """Write a draw of faces of each class as ``<class>.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, places in found.sheets.items():
        sheet = figures.mosaic(shrunk(found, places), min(ACROSS, len(places)))
        enlarged = sheet.repeat(ENLARGED, 0).repeat(ENLARGED, 1)
        Image.fromarray(enlarged).save(folder / f"{label}.png")


def draw(found: Found, facts: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Write the figures as PNG and SVG, and return name -> SVG."""
    made = {}
    with plotting.style():
        made["classes"] = class_shares(facts)
        for name, places in (("conflicts", conflicts(found)), ("twins", largest(found))):
            if places:
                groups = [found.groups[number] for number in places[:SHOWN]]
                captions = [group_caption(found, group) for group in groups]
                made[name] = figures.faces(shrunk(found, [group[0] for group in groups]), captions)
        if found.light is not None:
            made["light"] = light(found.light, found.splits)
        for kind, extreme in found.extremes.items():
            if extreme.size:
                shown = extreme[:SHOWN]
                made[kind] = figures.faces(shrunk(found, shown), [light_caption(found, kind, p) for p in shown])
    return {name: plotting.save(figure, folder, name) for name, figure in made.items()}


def group_caption(found: Found, group: NDArray[np.int64]) -> list[str]:
    """Return the lines beneath a group's face in a figure."""
    labels = [f"{len(places)} {label}" for label, places in by_label(found, group).items()]
    rows = found.faces.rows[group].tolist()
    where = f"{rows[0]}, {rows[1]}" if len(rows) == 2 else f"row {rows[0]} +{len(rows) - 1}"
    second = labels[1:2] if len(labels) < 3 else ["and others"]
    return [*labels[:1], *second, where]


def light_caption(found: Found, kind: str, place: int) -> list[str]:
    """Return the lines beneath a dark, bright or flat face in a figure."""
    return [light_value(found, kind, place), str(found.labels[place]), f"row {found.faces.rows[place]}"]


def light_value(found: Found, kind: str, place: int) -> str:
    """Return what makes a face extreme, in words."""
    assert found.light is not None
    return f"sd {found.light.spread[place]:.1f}" if kind == "flattest" else f"mean {found.light.mean[place]:.1f}"


# --- figures --------------------------------------------------------------------------------------------------------


def class_shares(facts: Mapping[str, Any]) -> Figure:
    """Draw the share of each class in each split."""
    counts: Mapping[str, Mapping[str, int]] = facts["counts"]
    labels = list(facts["total"])
    bar = 0.8 / len(counts)
    figure, rows = plotting.canvas(0.7 + len(labels) * max(0.3, 0.14 * len(counts)))
    axes = rows[0, 0]
    for number, (name, held) in enumerate(counts.items()):
        shares = [held[label] / sum(held.values()) for label in labels]
        place = np.arange(len(labels)) + bar * (number - (len(counts) - 1) / 2)
        axes.barh(place, shares, bar * 0.9, color=COLOURS.get(name, PAPER["soft"]), label=name)
    axes.set_yticks(np.arange(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    _in_per_cent(axes.xaxis)
    axes.set_xlabel("share of the split" if len(counts) > 1 else "share")
    if len(counts) > 1:
        figure.legend(loc="outside upper left", ncols=len(counts))
    return figure


def light(values: Light, splits: NDArray[np.str_]) -> Figure:
    """Draw how bright and how rich in contrast the faces of each split are.

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
        own = values[splits == name]
        shares = np.histogram(own, edges)[0] / len(own)
        axes.stairs(
            shares, edges, color=COLOURS.get(name, PAPER["soft"]), linestyle=LINES.get(name, "-"), linewidth=1.3,
            label=name,
        )  # fmt: skip
    axes.set_xlim(edges[0], edges[-1])
    _in_per_cent(axes.yaxis)


def _in_per_cent(axis: Axis) -> None:
    axis.set_major_formatter(figures.PERCENT)
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))  # no 2.5 %, which would be labelled 2 %


# --- the page -------------------------------------------------------------------------------------------------------


def lead(facts: Mapping[str, Any]) -> Markup:
    """Return what stands below the title: which faces, what must not be overlooked, and the headline figures."""
    dataset, size = facts["dataset"], facts["dataset"]["image_size"]
    parts = [dataset["layout"], f"{size}x{size} pixels", f"split: {facts['split']['meaning']}"]
    notes = [html.note(text) for text in warnings(facts)]
    return joined(paragraph(" · ".join(parts), class_="soft"), *notes, headline(facts))


def warnings(facts: Mapping[str, Any]) -> list[str]:
    """Return what a user of the data must know first."""
    told = []
    if why := facts["split"]["why_not_official"]:
        told.append(f"The official split does not apply: {why}. Shown instead: {facts['split']['meaning']}.")
    if unlabelled := facts["total"].get("unlabelled"):
        told.append(f"{unlabelled:,} of {facts['n']:,} faces have no label.")
    empty = [label for label in EMOTIONS if not facts["total"][label]]
    if empty and len(empty) < len(EMOTIONS):
        told.append(f"No face is labelled {' or '.join(empty)}.")
    if facts["dataset"]["skipped"]:
        told.append(f"{len(facts['dataset']['skipped']):,} bad rows or files were skipped; they are listed below.")
    return told


def headline(facts: Mapping[str, Any]) -> Markup:
    """Return the cards of the headline figures."""
    counted = facts["twins"]
    held = " · ".join(f"{name} {sum(count.values()):,}" for name, count in facts["counts"].items() if name != "all")
    groups = f"in {counted['groups']:,} groups of {counted['faces']:,} faces"
    meaning = "the same picture under different labels"
    return html.cards(
        [
            card("Faces", f"{facts['n']:,}", held, ""),
            *imbalance(facts),
            card("Exact copies", f"{counted['copies']:,}", groups, "beyond the first face, the same pixel for pixel"),
            *near_copies(facts),
            *seen_in_training(facts),
            card("Conflicts", f"{counted['conflicting_groups']:,}", f"of {counted['groups']:,} groups", meaning),
        ]
    )


def imbalance(facts: Mapping[str, Any]) -> list[Markup]:
    """Return the card of the largest class against the smallest, where none is empty."""
    ratio, total = facts["imbalance"]["total"], facts["total"]
    if ratio is None:
        return []
    ranked = sorted(EMOTIONS, key=lambda label: total[label])
    ends = f"{ranked[-1]} {total[ranked[-1]]:,}, {ranked[0]} {total[ranked[0]]:,}"
    return [card("Imbalance", f"{ratio:.1f} times", ends, "the largest class against the smallest")]


def near_copies(facts: Mapping[str, Any]) -> list[Markup]:
    """Return the card of the near twins, where they were looked for."""
    if (counted := facts["near_twins"]) is None:
        return []
    groups = f"of {counted['groups']:,} photographs; labels conflict in {counted['conflicting_groups']:,}"
    return [card("Near twins", f"{counted['pictures']:,}", groups, "different pictures of the same photograph")]


def seen_in_training(facts: Mapping[str, Any]) -> list[Markup]:
    """Return the card of the scored faces that have a twin in train, where there is a train split."""
    matrix = facts["twins"]["splits"]
    known = [(name, matrix[name]["train"]) for name in ("test", "val") if name in matrix and "train" in matrix]
    if not known:
        return []
    sums = {name: sum(held.values()) for name, held in facts["counts"].items()}
    value = " + ".join(f"{count:,}" for _, count in known)
    of = " + ".join(f"{share(count, sums[name])} of {name}" for name, count in known)
    return [card("Seen in training", value, of, "an exact twin in train flatters the score")]


def sections(found: Found, facts: Mapping[str, Any], drawn: Mapping[str, str]) -> list[Section]:
    """Return the parts of the page, in order."""
    parts = [
        Section("classes", "Classes and splits", classes(facts, drawn)),
        Section("faces", "A draw of faces", sheets(found, facts)),
        Section("twins", "Exact twins", duplicates.exact_twins(found, facts)),
        Section("near-twins", "Near twins", duplicates.near_twins(found, facts)) if found.near else None,
        Section("one-colour", "One-colour faces", one_colour(found)) if found.one_colour.any() else None,
        Section("no-faces", "Pictures without a face", doubtful.no_faces(found, facts))
        if doubtful.faceless(found)
        else None,
        Section("votes", "FER+ votes", votes(facts)) if facts["votes"] else None,
        Section("suspects", "Suspect labels", doubtful.suspects(found, facts)) if found.suspects else None,
        Section("light", "Brightness and contrast", brightness(found, facts, drawn)) if found.light else None,
        Section("advice", "What may be done", advice(facts)),
        Section("provenance", "Provenance", provenance(facts)),
    ]
    return [part for part in parts if part is not None]


def classes(facts: Mapping[str, Any], drawn: Mapping[str, str]) -> Markup:
    """Return the table of classes by split beside its figure."""
    columns = dict(facts["counts"])
    if len(columns) > 1:
        columns["total"] = facts["total"]
    sums = {name: sum(held.values()) for name, held in columns.items()}
    rows: list[Sequence[object]] = [
        (label, *(shared(held[label], sums[name]) for name, held in columns.items())) for label in facts["total"]
    ]
    rows.append(("together", *(f"{count:,}" for count in sums.values())))
    ratios = [facts["imbalance"][name] for name in columns]
    rows.append(("largest / smallest", *("–" if ratio is None else f"{ratio:.1f}" for ratio in ratios)))
    numbers = range(1, len(columns) + 1)
    return html.columns(
        html.drawing(drawn["classes"], "share of each class in each split"),
        html.table(("class", *columns), rows, numbers),
    )


def sheets(found: Found, facts: Mapping[str, Any]) -> Markup:
    """Return a draw of faces of each class."""
    told = paragraph(
        f"Up to {max(map(len, found.sheets.values()))} of each class, drawn with seed {facts['sheets']['seed']} from "
        "all splits; audit.json names their rows. Is the label what you see?",
        class_="soft",
    )
    parts = []
    for label, places in found.sheets.items():
        images = zip(shrunk(found, places), places.tolist(), strict=True)
        shown = [html.picture(image, f"{label}, row {found.faces.rows[place]}") for image, place in images]
        parts += [tag("h3", f"{label} ({facts['total'][label]:,})"), tag("div", *shown, class_="sheet")]
    return joined(told, *parts)


def one_colour(found: Found) -> Markup:
    """Return the faces that hold a single grey."""
    places = np.flatnonzero(found.one_colour)
    told = paragraph(
        f"{len(places):,} faces hold one grey alone and show nothing. Those of the same grey are each other's twins "
        "and are counted there, too; among the largest groups they are left out.",
        class_="soft",
    )
    rows = []
    for grey in np.unique(found.faces.images[places, 0, 0]).tolist():
        own = places[found.faces.images[places, 0, 0] == grey]
        parts = by_label(found, own)
        rows.append((grey, f"{len(own):,}", "; ".join(f"{k}: {places_in_words(found, p)}" for k, p in parts.items())))
    return joined(told, html.table(("grey", "faces", "labels, splits and rows"), rows, (1,)))


def votes(facts: Mapping[str, Any]) -> Markup:
    """Return what FER+'s annotators said, by label."""
    counted, total = facts["votes"], facts["n"]
    low, high = counted["votes_per_face"]
    told = paragraph(
        f"{low} to {high} votes a face. The most frequent answer agrees with the label of "
        f"{share(counted['agreeing'], total)} of the faces, is none of the seven emotions for "
        f"{share(counted['outside_the_seven'], total)}, and has no more than half of the votes for "
        f"{share(counted['without_majority'], total)}. Rows are labels, columns the most frequent answers; NF: no "
        "face.",
        class_="soft",
    )
    answers = counted["answers"].items()
    rows = [(tag("span", label, class_="whole"), *(f"{count:,}" for count in held.values())) for label, held in answers]
    heads = ("label", *next(iter(counted["answers"].values())))
    return joined(told, html.table(heads, rows, range(1, len(heads))))


def brightness(found: Found, facts: Mapping[str, Any], drawn: Mapping[str, str]) -> Markup:
    """Return the distribution of brightness and contrast, and the most extreme faces."""
    rows = [
        (f"{what}, {name}", *(f"{value:.0f}" for value in values[key].values()))
        for key, what in (("mean", "brightness"), ("sd", "contrast"))
        for name, values in facts["light"].items()
    ]
    told = paragraph(
        "Brightness is the mean, contrast the standard deviation of a face's pixels, in levels of grey from 0 to 255. "
        "Splits that differ here were gathered or prepared differently. extremes.csv lists more of the faces below; "
        "one-colour faces are left out of them.",
        class_="soft",
    )
    table = html.table(("", "5 % below", "half below", "95 % below"), rows, (1, 2, 3))
    parts = []
    for kind, meaning in KINDS.items():
        places = found.extremes[kind][:SHOWN]
        if places.size:
            parts += [
                tag("h3", kind.capitalize()),
                paragraph(meaning, class_="soft"),
                extreme_faces(found, kind, places),
            ]
    label = "brightness and contrast of the faces by split"
    return joined(html.columns(html.drawing(drawn["light"], label), joined(told, table)), *parts)


def extreme_faces(found: Found, kind: str, places: NDArray[np.int64]) -> Markup:
    """Return the faces of a kind with their values, labels and rows."""
    shown = []
    for image, place in zip(shrunk(found, places), places.tolist(), strict=True):
        lines = [str(found.labels[place]), f"{found.splits[place]}, row {found.faces.rows[place]}"]
        shown.append(html.face(image, [light_value(found, kind, place), *lines]))
    return tag("div", *shown, class_="faces")


def advice(facts: Mapping[str, Any]) -> Markup:
    """Return what ``audit.csv`` suggests, by reason."""
    told = paragraph(
        "audit.csv holds a row for each face and reason. data.exclude=audit.csv leaves out of train the rows whose "
        "suggestion is exclude; it is never said of a face of val or test, so that figures stay comparable, and the "
        "others change nothing. A face may have several reasons.",
        class_="soft",
    )
    rows = []
    for suggestion, held in facts["advice"].items():
        rows += [(suggestion, reason, f"{count:,}") for reason, count in held["reasons"].items()]
        if len(held["reasons"]) > 1:
            rows.append((suggestion, "faces in all", f"{held['faces']:,}"))
    return joined(told, html.table(("suggestion", "reason", "faces"), rows, (2,)) if rows else paragraph("Nothing."))


def provenance(facts: Mapping[str, Any]) -> Markup:
    """Return where the faces come from, and what the reader noted and skipped."""
    dataset = facts["dataset"]
    rows: list[tuple[object, object]] = [
        ("data", dataset["path"]),
        ("layout", dataset["layout"]),
        ("labels", dataset["labels"]),
        ("split", facts["split"]["meaning"]),
        ("row", "counted from 0 in the source; in a tree of pictures, place in its sorted listing"),
        ("fingerprint", tag("code", dataset["fingerprint"])),
        ("notes", "; ".join(dataset["notes"]) or "none"),
        ("skipped", f"{len(dataset['skipped']):,} bad rows or files"),
        ("command", tag("code", facts["command"])),
        ("written", facts["finished"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
    ]
    table = html.table((), rows, stack=True)
    if not dataset["skipped"]:
        return table
    shown = "\n".join(dataset["skipped"][:SHOWN_SKIPPED])
    more = len(dataset["skipped"]) - SHOWN_SKIPPED
    rest = f"\nand {more:,} more, listed in audit.json" if more > 0 else ""
    return joined(table, html.details("what was skipped", tag("pre", shown + rest)))
