"""The part of an audit's page on copies of a face: exact twins, and near twins side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fer.data.audit.inspection import Found, present
from fer.reports import figures, html
from fer.reports.html import joined, paragraph, tag

SHOWN = 24  # groups of a kind, as pictures: four rows of six
SHOWN_CONFLICTS = 60  # groups with conflicting labels: FER2013 has 56 of exact twins
SHOWN_ROWS = 8  # of the faces of a group and a label, in words
SIDE_BY_SIDE = 3  # pictures of a group of near twins


def exact_twins(found: Found, facts: Mapping[str, Any]) -> Markup:
    """Return the exact twins in numbers, those whose labels conflict, and the largest groups."""
    counted = facts["twins"]
    if not counted["groups"]:
        return paragraph("No two faces are the same, pixel for pixel.")
    size = facts["dataset"]["image_size"]
    told = paragraph(
        f"Faces that are the same, pixel for pixel, as read at {size}x{size}. A twin in another split is a leak: what "
        "is scored was trained on. The numbers beneath the faces are rows of the source; twins.csv lists all of them.",
        class_="soft",
    )
    return joined(
        told,
        html.columns(twin_table(counted), matrix(facts, counted["splits"], "twin")),
        *groups_shown(found, "Conflicting labels", conflicts(found), SHOWN_CONFLICTS),
        *groups_shown(found, "The largest groups", largest(found), SHOWN),
    )


def twin_table(counted: Mapping[str, Any]) -> Markup:
    """Return the groups by where their faces lie."""
    keys = ("groups", "faces", "copies", "conflicting_groups")
    parts = dict(counted["where"])
    if len(parts) > 1:
        parts["all"] = counted
    if counted["one_colour"]["groups"]:
        parts["of which one-colour"] = counted["one_colour"]
    rows = [(name, *(f"{values[key]:,}" for key in keys)) for name, values in parts.items()]
    heads = ("", "groups", "faces", "copies", "conflicts")
    return html.table(heads, rows, (1, 2, 3, 4))


def matrix(facts: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]], what: str) -> Markup:
    """Return how many faces of each split have a twin in each split.

    Args:
        facts: of the audit.
        counts: split -> split -> faces of the first.
        what: kind of twin, for the head.
    """
    if len(counts) < 2:
        return Markup("")
    sums = {name: sum(held.values()) for name, held in facts["counts"].items()}
    rows = [
        (f"{sums[name]:,} of {name}", *(shared(count, sums[name]) for count in held.values()))
        for name, held in counts.items()
    ]
    return html.named(html.table((f"{what} in", *counts), rows, range(1, len(counts) + 1)))


def groups_shown(found: Found, title: str, numbers: Sequence[int], most: int) -> list[Markup]:
    """Return groups of twins as pictures with labels and rows, under a title that says how many."""
    if not numbers:
        return []
    images = shrunk(found, [found.groups[number][0] for number in numbers[:most]])
    shown = [group_card(found, number, image) for number, image in zip(numbers, images, strict=False)]
    return [tag("h3", f"{title} ({cut_short(len(numbers), most)})"), tag("div", *shown, class_="faces")]


def group_card(found: Found, number: int, image: NDArray[np.uint8]) -> Markup:
    """Return a group of twins: their picture, and rows and splits by label."""
    parts = by_label(found, found.groups[number])
    said = ", ".join(f"{len(places)} {label}" for label, places in parts.items())
    lines = [f"{label}: {places_in_words(found, places)}" for label, places in parts.items()]
    return html.face(image, [said, f"group {number + 1}", *lines])


def near_twins(found: Found, facts: Mapping[str, Any]) -> Markup:
    """Return the near twins in numbers, those whose labels conflict, and the least alike of the others."""
    counted, size = facts["near_twins"], facts["dataset"]["image_size"]
    if not counted["groups"]:
        return paragraph("No two faces that differ show the same photograph.")
    told = paragraph(
        "Different pictures of one photograph: cropped, compressed, lit or marked otherwise, or mirrored. Their hashes "
        f"differ in at most {counted['radius']} of 64 bits (mirrored {counted['radius_mirrored']}) and their pixels, "
        f"{size}x{size}, correlate by at least {counted['least_correlation']}, their details by "
        f"{counted['least_detail']}, with each other or by way of others of the group. A series of one sitting may be "
        "among them. Beneath the pictures stand their correlation with the "
        "first of the group, the labels, and rows of the source; near_twins.csv lists all.",
        class_="soft",
    )
    numbers = np.arange(len(counted_groups(found)))
    conflicting = found.near_conflicting
    return joined(
        told,
        html.columns(near_table(counted), matrix(facts, counted["splits"], "only near twin")),
        *near_shown(found, "Conflicting labels", numbers[conflicting].tolist(), SHOWN_CONFLICTS),
        *near_shown(found, "Equal labels", numbers[~conflicting].tolist(), SHOWN),
    )


def counted_groups(found: Found) -> list[NDArray[np.int64]]:
    """Return the groups of near twins."""
    assert found.near is not None
    return found.near.groups


def near_table(counted: Mapping[str, Any]) -> Markup:
    """Return the groups by where their faces lie."""
    keys = ("groups", "pictures", "faces", "conflicting_groups")
    parts = dict(counted["where"])
    if len(parts) > 1:
        parts["all"] = counted
    rows = [(name, *(f"{values[key]:,}" for key in keys)) for name, values in parts.items()]
    return html.table(("", "groups", "pictures", "faces", "conflicts"), rows, (1, 2, 3, 4))


def near_shown(found: Found, title: str, numbers: Sequence[int], most: int) -> list[Markup]:
    """Return groups of near twins, each with its pictures side by side, under a title that says how many."""
    if not numbers:
        return []
    shown = [near_card(found, number) for number in numbers[:most]]
    return [tag("h3", f"{title} ({cut_short(len(numbers), most)})"), tag("div", *shown, class_="faces beside")]


def near_card(found: Found, number: int) -> Markup:
    """Return a group of near twins: its pictures side by side as they are, how alike, rows and splits by label."""
    assert found.near is not None
    group = found.near.groups[number]
    parts = by_label(found, group)
    _, firsts = np.unique(found.faces.images[group].reshape(len(group), -1), axis=0, return_index=True)
    pictures = group[np.sort(firsts)]
    # of each label at least one, then those that come first
    leading = [int(places[0]) for places in parts.values()]
    chosen = sorted([*leading, *(p for p in pictures.tolist() if p not in leading)][:SIDE_BY_SIDE])
    said = ", ".join(f"{len(places)} {label}" for label, places in parts.items())
    alike = [alike_in_words(found, place) for place in chosen if place != group[0]]
    more = f"; {len(pictures) - len(chosen)} more" if len(pictures) > len(chosen) else ""
    lines = [f"{label}: {places_in_words(found, places)}" for label, places in parts.items()]
    images = [
        html.picture(image, f"row {found.faces.rows[p]}")
        for image, p in zip(shrunk(found, chosen), chosen, strict=True)
    ]
    return html.beside(images, [said, f"group {number + 1}: {', '.join(alike)}{more}", *lines])


def alike_in_words(found: Found, place: int) -> str:
    """Return how alike a face is to the first of its group."""
    assert found.near is not None
    turned = " mirrored" if found.near.mirrored[place] else ""
    return f"{found.near.likeness[place]:.2f}{turned}"


def cut_short(count: int, most: int) -> str:
    """Return how many there are, and how many of them are shown."""
    return f"{count:,}" if count <= most else f"the first {most} of {count:,}"


# --- of what both are made ---


def conflicts(found: Found) -> list[int]:
    """Return the numbers of the groups of twins whose labels differ, in the table's order, one-colour faces last."""
    numbers = np.flatnonzero(found.conflicting).tolist()
    return sorted(numbers, key=lambda number: bool(found.one_colour[found.groups[number][0]]))


def largest(found: Found) -> list[int]:
    """Return the numbers of the largest groups of twins, the largest first; one-colour faces have their own place."""
    numbers = [number for number, group in enumerate(found.groups) if not found.one_colour[group[0]]]
    return sorted(numbers, key=lambda number: -len(found.groups[number]))[:SHOWN]


def by_label(found: Found, group: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return label -> places of a group's faces, the most frequent label first."""
    labels = found.labels[group]
    parts = {str(label): group[labels == label] for label in dict.fromkeys(labels.tolist())}
    return dict(sorted(parts.items(), key=lambda part: -len(part[1])))


def places_in_words(found: Found, places: NDArray[np.int64]) -> str:
    """Return splits and rows of the first few faces, ``train 12, 403; test 30001``."""
    parts = []
    shown = places[:SHOWN_ROWS]
    for split in present(found.splits[shown]):
        rows = found.faces.rows[shown[found.splits[shown] == split]].tolist()
        parts.append(f"{'row' if split == 'all' else split} {', '.join(map(str, rows))}")
    more = f" and {len(places) - SHOWN_ROWS:,} more" if len(places) > SHOWN_ROWS else ""
    return "; ".join(parts) + more


def shared(count: int, total: int) -> Markup:
    """Return a count with its share beneath."""
    return joined(f"{count:,}", tag("div", f"{100 * count / total:.1f} %", class_="soft"))


def share(count: int, total: int) -> str:
    """Return a share in per cent."""
    return f"{100 * count / total:.1f} %"


def shrunk(found: Found, places: NDArray[np.int64] | Sequence[int]) -> NDArray[np.uint8]:
    """Return the faces at these places, (K, S, S), no larger than a page needs."""
    return figures.shrunk(found.faces.images[np.asarray(places, np.int64)])
