"""The page of an explanation: the verdict and its check on top, then the maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fer.metrics.explanation import (
    BLOB,
    LEAST_FACES,
    TITLES,
    Curves,
    Difference,
    Explanation,
    Mean,
    OfEmotion,
    OfFace,
)
from fer.reports import html, plotting
from fer.reports.explanation import figures
from fer.reports.explanation.overlay import enlarged, overlay
from fer.reports.html import Section, joined, paragraph, tag
from fer.system.text import plural

MOST = 60  # faces on a page, each with four pictures of 15 kB
OF_KIND = 12  # right faces, and wrong ones, of a split
LEAST_MEAN = 3  # faces of a mean map


class Maps(Protocol):
    """The maps of N faces, (N, S, S): of the predicted emotion, of the next one, of the label."""

    @property
    def images(self) -> NDArray[np.uint8]: ...  # noqa: D102
    @property
    def predicted(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def second(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def label(self) -> NDArray[np.float32] | None: ...  # noqa: D102


class Shown(NamedTuple):
    """A picture of the page and the words beneath it."""

    image: NDArray[np.uint8]
    words: str


def write(file: Path, found: Explanation, maps: Maps) -> None:
    """Write the page, whole or not at all.

    Args:
        file: path of the page.
        found: the explanation.
        maps: of its faces.
    """
    parts = _of_split(found, maps) if found.emotions else [Section("faces", "Faces", faces(found, maps))]
    left_out = list(found.left_out.items())
    sections = [Section("check", "Do the maps explain the network?", check(found), "The check"), *parts]
    if left_out:
        rows = html.table(("picture", "why"), left_out, stack=True)
        sections.append(Section("left-out", "Pictures and faces without a map", rows, "Without a map"))
    sections.append(Section("made", "How this was made", provenance(found), "How it was made"))
    html.write(file, "What the network looks at", lead(found), sections, "Written by fer explain.")


def lead(found: Explanation) -> Markup:
    """Return the verdict and how to read a map."""
    return joined(html.note(tag("strong", found.check.verdict)), key())


def key() -> Markup:
    """Return how to read a map."""
    return paragraph(
        tag("span", class_="swatch", style="background:var(--train)"), "speaks for the emotion, ",
        tag("span", class_="swatch", style="background:var(--val)"), "speaks against it. ",
        "Each picture of a face has its own strongest tint. ",
        "A map shows what the network looks at. It does not show what a person feels.", class_="soft",
    )  # fmt: skip


# --- check ----------------------------------------------------------------------------------------------------------


def check(found: Explanation) -> Markup:
    """Return the curves, their areas with differences, and the comparison with random weights."""
    checked = found.check
    meaning = paragraph(
        f"{_faces_of(checked.faces)}. Deletion blurs the pixels of a face, those first that the map ranks first: a "
        "good map makes the probability fall early. Insertion shows them in a blurred face: a good map makes it rise "
        "early. The blob is the same for every face, and knows no more than where a face's middle is."
    )
    with plotting.style():
        drawn = plotting.svg(figures.curves(checked.curves), "explain-curves")
    label = "Probability of the predicted emotion as pixels are deleted and inserted"
    table = _areas(found.method, checked.curves, checked.differences)
    areas = joined(tag("h3", "Areas"), table, paragraph(_areas_in_words(checked.faces), class_="soft"))
    return joined(meaning, html.columns(html.drawing(drawn, label), areas), _imputed(found), _random_weights(found))


def _areas_in_words(faces: int) -> str:
    """Return how to read the areas; fewer than ``LEAST_FACES`` have neither intervals nor a verdict."""
    few = faces < LEAST_FACES
    return (
        f"Areas under the curves{'' if few else ', with 95 % intervals over the faces'}. Small is good for deletion, "
        f"large for insertion. The lower rows are differences face by face{'' if few else '; they decide the verdict'}."
    )


def _imputed(found: Explanation) -> Markup:
    """Return the comparison with imputed pixels."""
    again = found.check.imputed
    meaning = paragraph(
        f"{_faces_of(again.faces)}. Removed pixels are the mean of their neighbours with a little noise (ROAD, Rong et "
        "al. 2022), in place of blurred. Maps that explain a network do so in both ways.", class_="soft",
    )  # fmt: skip
    verdict = "" if again.verdict == found.check.verdict else paragraph(again.verdict)  # the page opens with that one
    words = joined(tag("h3", "With imputed pixels"), meaning, verdict)
    return html.columns(words, _areas(found.method, again.curves, again.differences))


def _random_weights(found: Explanation) -> Markup:
    """Return the comparison with random weights, which exported files cannot have."""
    checked, head = found.check, tag("h3", "Random weights")
    if not checked.randomised:
        return joined(
            head, paragraph("An exported file has no weights that could be put in a random order.", class_="soft")
        )
    with plotting.style():
        cascade = plotting.svg(figures.randomised(checked.randomised), "explain-randomised")
    layers = "Rank correlation of the maps with those of networks with random layers"
    weights = joined(head, paragraph(_weights_in_words(found), class_="soft"))
    return html.columns(weights, html.drawing(cascade, layers))


def _faces_of(count: int) -> str:
    words = "One face" if count == 1 else plural(count, "face")
    return words if count >= LEAST_FACES else f"{words}: intervals need at least {LEAST_FACES}"


def _areas(method: str, curves: Sequence[Curves], differences: Sequence[Difference]) -> Markup:
    name = TITLES[method]
    rows = [(TITLES[curve.map], _mean_cell(curve.deletion_area), _mean_cell(curve.insertion_area)) for curve in curves]
    rows += [
        (
            f"{name} minus {'blob' if one.baseline == BLOB else 'random'}",
            _mean_cell(one.deletion, sign=True),
            _mean_cell(one.insertion, sign=True),
        )
        for one in differences
    ]
    return html.table(("maps", "deletion", "insertion"), rows)


def _mean_cell(mean: Mean, *, sign: bool = False) -> Markup:
    value, _, ends = mean.written(sign=sign).partition(" ")
    return joined(tag("div", value), tag("div", ends, class_="soft whole"))


def _weights_in_words(found: Explanation) -> str:
    checked = found.check
    last = checked.randomised[-1]
    return (
        f"Maps of networks whose last layers have their weights in a random order, beside those of the network "
        f"({checked.faces_of_randomised} faces). With all {last.of} layers random the correlation is "
        f"{last.correlation.written()}; maps that show the network and not the face have 0. Mirrored faces: "
        f"{checked.mirrored.written()}; maps that follow the face have 1."
    )


# --- faces ----------------------------------------------------------------------------------------------------------


def faces(found: Explanation, maps: Maps) -> Markup:
    """Return faces with their maps, the first ``MOST``."""
    shown = [_face(found.faces[index], maps, index) for index in range(min(len(found.faces), MOST))]
    rest = html.note(f"The first {MOST} of {len(found.faces):,} faces.") if len(found.faces) > MOST else ""
    return joined(tag("div", *shown, class_="explained"), rest)


def _face(face: OfFace, maps: Maps, index: int) -> Markup:
    """Return a face, the maps of its two likeliest emotions, of a mistake the label's, and their difference."""
    image, first, second = maps.images[index], maps.predicted[index], maps.second[index]
    second_name = face.second
    if maps.label is not None and face.label not in (None, face.predicted):
        second_name, second = str(face.label), maps.label[index]
    pictures = [Shown(enlarged(image), "face"), *_two(image, (face.predicted, first), (second_name, second))]
    likely = [f"{name} {100 * face.probabilities[name]:.0f} %" for name in (face.predicted, face.second)]
    label = [] if face.label is None else [f"labelled {face.label}"]
    return _row(pictures, [", ".join(likely), *label, Path(face.name).name])


Named = tuple[str, NDArray[np.float32]]  # an emotion and its map (S, S)


def _two(image: NDArray[np.uint8], first: Named, second: Named) -> list[Shown]:
    """Return the maps of two emotions and their difference, each with its own strongest tint."""
    gap = (f"why {first[0]}, not {second[0]}", first[1] - second[1])
    return [Shown(overlay(image, values, float(np.abs(values).max())), words) for words, values in (first, second, gap)]


def _row(pictures: Sequence[Shown], lines: Sequence[str]) -> Markup:
    """Return pictures with words beneath each, below a caption whose first line is bold."""
    cells = [
        tag("div", html.picture(one.image, f"{lines[0]}: {one.words}"), tag("div", one.words, class_="label"))
        for one in pictures
    ]
    return tag("figure", *html.caption(lines), tag("div", *cells, class_="maps"), class_="face")


# --- a split --------------------------------------------------------------------------------------------------------


def _of_split(found: Explanation, maps: Maps) -> list[Section]:
    pages = [Section("emotions", "Each emotion", emotions(found, maps))]
    if found.confusions:
        pages.append(Section("confusions", "The largest confusions", confusions(found, maps), "Confusions"))
    for name, title, right in (("right", "Right answers", True), ("wrong", "Wrong answers", False)):
        if rows := surest(found.faces, right=right):
            note = paragraph("The most confident predictions of these faces.", class_="soft")
            shown = [_face(found.faces[index], maps, index) for index in rows]
            pages.append(Section(name, title, joined(note, tag("div", *shown, class_="explained"))))
    return pages


def surest(faces: Sequence[OfFace], *, right: bool) -> list[int]:
    """Return the indices of the most confident right or wrong faces."""
    rows = [index for index, face in enumerate(faces) if (face.predicted == face.label) == right]
    return sorted(rows, key=lambda index: -faces[index].probabilities[faces[index].predicted])[:OF_KIND]


def emotions(found: Explanation, maps: Maps) -> Markup:
    """Return the mean map of each emotion's right and wrong faces on their mean face, and how symmetric it is."""
    note = paragraph(
        "Mean maps of the predicted emotion over the faces of each label, on the mean face of these faces. Means of "
        "fewer than three faces are left out. The last picture is the mean map of all minus its mirror image. Left "
        "share: how much of the support lies in the left half of the picture; a network without a side has 0.5.",
        class_="soft",
    )  # fmt: skip
    shown = [_emotion(found, maps, one) for one in found.emotions if one.right + one.wrong >= LEAST_MEAN]
    return joined(note, tag("div", *shown, class_="explained"))


def _emotion(found: Explanation, maps: Maps, one: OfEmotion) -> Markup:
    every = _rows(found.faces, one.emotion)
    average = _mean(maps.predicted, every)
    groups = {words: _rows(found.faces, one.emotion, right=words == "right") for words in ("right", "wrong")}
    means = {words: _mean(maps.predicted, rows) for words, rows in groups.items() if len(rows) >= LEAST_MEAN}
    largest = max(float(np.abs(values).max()) for values in (average, *means.values()))
    pictures = []
    for words, values in means.items():
        face = _mean_face(maps, groups[words])
        pictures += [
            Shown(enlarged(face), f"mean of {len(groups[words])} {words}"),
            Shown(overlay(face, values, largest), f"mean map, {words}"),
        ]
    gap = overlay(_mean_face(maps, every), average - average[:, ::-1], largest)
    pictures.append(Shown(gap, "minus its mirror"))
    return _row(pictures, [one.emotion, f"left share {one.left_share.written()}; mirror correlation {one.mirror:.2f}"])


def confusions(found: Explanation, maps: Maps) -> Markup:
    """Return the mean maps of the largest confusions: of the prediction, of the label, and their difference."""
    assert maps.label is not None
    shown = []
    for one in found.confusions:
        rows = [
            index
            for index, face in enumerate(found.faces)
            if (face.label, face.predicted) == (one.label, one.predicted)
        ]
        average, label, face = _mean(maps.predicted, rows), _mean(maps.label, rows), _mean_face(maps, rows)
        pictures = [Shown(enlarged(face), "mean face"), *_two(face, (one.predicted, average), (one.label, label))]
        shown.append(_row(pictures, [f"{one.label} predicted as {one.predicted}", f"{one.faces} faces"]))
    return tag("div", *shown, class_="explained")


def _rows(faces: Sequence[OfFace], emotion: str, *, right: bool | None = None) -> list[int]:
    return [
        index
        for index, face in enumerate(faces)
        if face.label == emotion and right in (None, face.predicted == emotion)
    ]


def _mean(values: NDArray[np.float32], rows: Sequence[int]) -> NDArray[np.float32]:
    average: NDArray[np.float32] = values[list(rows)].mean(0)
    return average


def _mean_face(maps: Maps, rows: Sequence[int]) -> NDArray[np.uint8]:
    average: NDArray[np.uint8] = maps.images[list(rows)].mean(0).round().astype(np.uint8)
    return average


# --- how ------------------------------------------------------------------------------------------------------------


def provenance(found: Explanation) -> Markup:
    """Return how the maps were made, as a table."""
    how = {
        "occlusion": "a patch of 1/6 of the side, in the face's mean grey, at 11 x 11 positions; the log probability "
        "that the emotion loses",
        "gradcam": f"gradients of the emotion's logit at feature maps of {found.layer} x {found.layer} pixels",
        "integrated_gradients": "16 steps from the face's mean grey; averaged over 5 of 48 pixels",
    }[found.method]
    rows = [
        ("maps", f"{TITLES[found.method]}: {how}"),
        ("network", f"{found.architecture}: {', '.join(found.networks)}"),
        ("faces", found.source),
        ("speed", f"{found.faces_per_second:.1f} faces a second"),
        ("command", tag("code", found.command)),
    ]
    return html.table((), rows, stack=True)
