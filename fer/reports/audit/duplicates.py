"""The sections of an audit's page on exact duplicates, near duplicates and moved copies."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fer.data.audit import moved_copies as search
from fer.data.audit.inspection import Findings, present
from fer.data.audit.near_duplicates import LIMIT
from fer.data.audit.results import Audit, Classes, Counts, Duplicates, Near
from fer.reports import figures, html
from fer.reports.html import joined, paragraph, tag

SHOWN = 24  # groups of a kind, as pictures: four rows of six
SHOWN_CONFLICTS = 60  # groups with conflicting labels: FER2013 has 56 groups of exact duplicates with such labels
SHOWN_ROWS = 8  # row numbers listed for each label of a group
SIDE_BY_SIDE = 3  # pictures shown of a group of near duplicates


def exact_duplicates(found: Findings, facts: Audit) -> Markup:
    """Return the section on exact duplicates: counts, groups with conflicting labels, the largest groups."""
    counts, size = facts.duplicates, facts.dataset.image_size
    if not counts.all.groups:
        return paragraph("No two faces are the same, pixel for pixel.")
    intro = paragraph(
        f"Faces with the same {size}x{size} pixels. A val or test face with a duplicate in train leaks: the network "
        "was trained on the picture that it is scored on. The numbers below a face are its rows in the data set; "
        "twins.csv lists all groups.",
        class_="soft",
    )
    return joined(
        intro,
        html.columns(exact_table(counts), matrix(facts.classes, counts.splits, "duplicate")),
        *groups_shown(found, "Conflicting labels", conflicts(found), SHOWN_CONFLICTS),
        *groups_shown(found, "The largest groups", largest(found), SHOWN),
    )


def exact_table(counts: Duplicates) -> Markup:
    """Return the table of groups by the splits that hold their faces."""
    parts = dict(counts.where)
    if len(parts) > 1:
        parts["all"] = counts.all
    if counts.one_colour.groups:
        parts["of which one-colour"] = counts.one_colour
    rows = [
        (name, f"{part.groups:,}", f"{part.faces:,}", f"{part.copies:,}", f"{part.conflicting_groups:,}")
        for name, part in parts.items()
    ]
    heads = ("", "groups", "faces", "copies", "conflicts")
    return html.table(heads, rows, (1, 2, 3, 4))


def matrix(classes: Classes, counts: Mapping[str, Counts], what: str) -> Markup:
    """Return the table that counts the faces of each split with a duplicate in each split.

    Args:
        classes: faces of each split.
        counts: split -> other split -> faces of the first split with a duplicate in the other.
        what: kind of duplicate, for the head.
    """
    if len(counts) < 2:
        return Markup("")
    sizes = classes.sizes
    rows = [
        (f"{sizes[name]:,} of {name}", *(count_with_share(count, sizes[name]) for count in by_split.values()))
        for name, by_split in counts.items()
    ]
    return html.named(html.table((f"{what} in", *counts), rows, range(1, len(counts) + 1)))


def groups_shown(found: Findings, title: str, numbers: Sequence[int], most: int) -> list[Markup]:
    """Return a title with the number of groups, and a picture of each with its labels and rows."""
    if not numbers:
        return []
    images = shrunk(found, [found.groups[number][0] for number in numbers[:most]])
    shown = [group_card(found, number, image) for number, image in zip(numbers, images, strict=False)]
    return [tag("h3", f"{title} ({cut_short(len(numbers), most)})"), tag("div", *shown, class_="faces")]


def group_card(found: Findings, number: int, image: NDArray[np.uint8]) -> Markup:
    """Return the card of a group of exact duplicates: one picture, then splits and rows by label."""
    parts = by_label(found, found.groups[number])
    labels = ", ".join(f"{len(indices)} {label}" for label, indices in parts.items())
    lines = [f"{label}: {rows_in_words(found, indices)}" for label, indices in parts.items()]
    return html.face(image, [labels, f"group {number + 1}", *lines])


def near_duplicates(found: Findings, facts: Audit) -> Markup:
    """Return the section on near duplicates: counts, groups with conflicting labels, the least similar others."""
    counts, size = facts.near_duplicates, facts.dataset.image_size
    assert counts is not None
    if not counts.all.groups:
        return paragraph("No two faces that differ show the same photograph.")
    intro = paragraph(
        "Different pictures of one photograph: another crop, compression, light or watermark, or mirrored. Two "
        "pictures are near duplicates if their hashes differ in at most "
        f"{counts.radius} of 64 bits ({counts.radius_mirrored} if mirrored), their {size}x{size} pixels "
        f"correlate by at least {counts.least_correlation} and their fine details by at least "
        f"{counts.least_detail}. A group joins all pictures that are linked by such pairs; photographs taken in "
        "one sitting may be among them. Below the pictures: the correlation with the first picture of the group, the "
        "labels, and the rows in the data set; near_twins.csv lists all groups. The search has a limit: " + LIMIT + ".",
        class_="soft",
    )
    conflicting = found.near_conflicting
    numbers = np.arange(len(conflicting))
    return joined(
        intro,
        html.columns(near_table(counts), matrix(facts.classes, counts.splits, "only near duplicate")),
        *near_shown(found, "Conflicting labels", numbers[conflicting].tolist(), SHOWN_CONFLICTS),
        *near_shown(found, "Equal labels", numbers[~conflicting].tolist(), SHOWN),
    )


def near_table(counts: Near) -> Markup:
    """Return the table of groups by the splits that hold their faces."""
    parts = dict(counts.where)
    if len(parts) > 1:
        parts["all"] = counts.all
    rows = [
        (name, f"{part.groups:,}", f"{part.pictures:,}", f"{part.faces:,}", f"{part.conflicting_groups:,}")
        for name, part in parts.items()
    ]
    return html.table(("", "groups", "pictures", "faces", "conflicts"), rows, (1, 2, 3, 4))


def near_shown(found: Findings, title: str, numbers: Sequence[int], most: int) -> list[Markup]:
    """Return a title with the number of groups, and each group's pictures side by side."""
    if not numbers:
        return []
    shown = [near_card(found, number) for number in numbers[:most]]
    return [tag("h3", f"{title} ({cut_short(len(numbers), most)})"), tag("div", *shown, class_="faces beside")]


def near_card(found: Findings, number: int) -> Markup:
    """Return the card of a group of near duplicates: pictures, their correlations, splits and rows by label."""
    assert found.near is not None
    group = found.near.groups[number]
    parts = by_label(found, group)
    _, firsts = np.unique(found.faces.images[group].reshape(len(group), -1), axis=0, return_index=True)
    pictures = group[np.sort(firsts)]
    # at least one picture of each label, then the first of the rest
    leading = [int(indices[0]) for indices in parts.values()]
    chosen = sorted([*leading, *(p for p in pictures.tolist() if p not in leading)][:SIDE_BY_SIDE])
    labels = ", ".join(f"{len(indices)} {label}" for label, indices in parts.items())
    correlations = [correlation_in_words(found, index) for index in chosen if index != group[0]]
    more = f"; {len(pictures) - len(chosen)} more" if len(pictures) > len(chosen) else ""
    lines = [f"{label}: {rows_in_words(found, indices)}" for label, indices in parts.items()]
    images = [
        html.picture(image, f"row {found.faces.rows[p]}")
        for image, p in zip(shrunk(found, chosen), chosen, strict=True)
    ]
    return html.side_by_side(images, [labels, f"group {number + 1}: {', '.join(correlations)}{more}", *lines])


def moved_copies(found: Findings, facts: Audit) -> Markup:
    """Return the section on copies in train that were turned, moved or enlarged: counts and pairs."""
    counts, moved = facts.moved_copies, found.moved
    assert counts is not None
    assert moved is not None
    if not counts.pairs:
        return paragraph(f"No face of val or test has a moved copy in train; {search.LIMIT}.")
    intro = paragraph(
        "Faces of val and test whose photograph is in train too, turned, moved or enlarged, and which have no exact or "
        "near duplicate there. Two faces are such a pair if, laid on each other, their pixels correlate by at least "
        f"{counts.least_correlation} and their fine details by at least {counts.least_detail}. Photographs taken in "
        "one sitting may be among them. Below the pictures: correlation, turn, shift in pixels and size of the first, "
        f"labels and rows; moved_copies.csv lists all pairs. The search has a limit: {search.LIMIT}.",
        class_="soft",
    )
    sizes = facts.classes.sizes
    shares = {name: count_with_share(count, sizes[name]) for name, count in counts.splits.items()}
    rows = [(f"{sizes[name]:,} of {name}", cell) for name, cell in shares.items()]
    different = found.labels[moved.first] != found.labels[moved.second]
    return joined(
        intro,
        html.table(("faces", "only a moved copy in train"), rows, (1,)),
        *moved_shown(found, "Different labels", np.flatnonzero(different).tolist()),
        *moved_shown(found, "Equal labels", np.flatnonzero(~different).tolist()),
    )


def moved_shown(found: Findings, title: str, numbers: Sequence[int]) -> list[Markup]:
    """Return a title with the number of pairs, and the first of them side by side."""
    if not numbers:
        return []
    shown = [moved_card(found, number) for number in numbers[:SHOWN]]
    return [tag("h3", f"{title} ({cut_short(len(numbers), SHOWN)})"), tag("div", *shown, class_="faces beside")]


def moved_card(found: Findings, number: int) -> Markup:
    """Return the card of a face and its moved copy."""
    moved = found.moved
    assert moved is not None
    pair, side = [int(moved.first[number]), int(moved.second[number])], found.faces.images.shape[-1]
    lines = [f"{found.labels[index]}: {rows_in_words(found, np.array([index]))}" for index in pair]
    shift = " and ".join(f"{side * values[number]:+.1f}" for values in (moved.across, moved.down))
    change = f"{round(float(moved.turn[number])):+d}°, {shift} pixels, {moved.zoom[number]:.2f} times"
    images = [
        html.picture(image, f"row {found.faces.rows[index]}")
        for image, index in zip(shrunk(found, pair), pair, strict=True)
    ]
    return html.side_by_side(images, [f"{moved.correlation[number]:.2f}", change, *lines])


def correlation_in_words(found: Findings, index: int) -> str:
    """Return the correlation of a face with the first of its group, ``0.93 mirrored``."""
    assert found.near is not None
    mirrored = " mirrored" if found.near.mirrored[index] else ""
    return f"{found.near.likeness[index]:.2f}{mirrored}"


def cut_short(count: int, most: int) -> str:
    """Return a count, or ``the first 24 of 1,234`` where not all are shown."""
    return f"{count:,}" if count <= most else f"the first {most} of {count:,}"


# --- groups, rows and counts, for both sections ---


def conflicts(found: Findings) -> list[int]:
    """Return the indices of the groups of exact duplicates whose labels differ, in order, one-colour faces last."""
    numbers = np.flatnonzero(found.conflicting).tolist()
    return sorted(numbers, key=lambda number: bool(found.one_colour[found.groups[number][0]]))


def largest(found: Findings) -> list[int]:
    """Return the indices of the largest groups of exact duplicates, without one-colour faces, the largest first."""
    numbers = [number for number, group in enumerate(found.groups) if not found.one_colour[group[0]]]
    return sorted(numbers, key=lambda number: -len(found.groups[number]))[:SHOWN]


def by_label(found: Findings, group: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return label -> indices of the faces of a group with that label, the most frequent label first."""
    labels = found.labels[group]
    parts = {str(label): group[labels == label] for label in dict.fromkeys(labels.tolist())}
    return dict(sorted(parts.items(), key=lambda part: -len(part[1])))


def rows_in_words(found: Findings, indices: NDArray[np.int64]) -> str:
    """Return splits and rows of the first few faces, ``train 12, 403; test 30001``."""
    parts = []
    shown = indices[:SHOWN_ROWS]
    for split in present(found.splits[shown]):
        rows = found.faces.rows[shown[found.splits[shown] == split]].tolist()
        parts.append(f"{'row' if split == 'all' else split} {', '.join(map(str, rows))}")
    more = f" and {len(indices) - SHOWN_ROWS:,} more" if len(indices) > SHOWN_ROWS else ""
    return "; ".join(parts) + more


def count_with_share(count: int, total: int) -> Markup:
    """Return a count with its percentage below."""
    return joined(f"{count:,}", tag("div", f"{100 * count / total:.1f} %", class_="soft"))


def share(count: int, total: int) -> str:
    """Return ``count`` as a percentage of ``total``."""
    return f"{100 * count / total:.1f} %"


def shrunk(found: Findings, indices: NDArray[np.int64] | Sequence[int]) -> NDArray[np.uint8]:
    """Return the faces at some indices, (K, S, S), at most ``figures.LARGEST`` pixels wide."""
    return figures.shrunk(found.faces.images[np.asarray(indices, np.int64)])
