"""An explanation: the maps of faces, the check of these maps, and what they show over a split."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.data.readers.images import PictureError
from fer.evaluation.faithfulness import check, rank_correlation
from fer.inference.explain import Explained, explained
from fer.inference.network import Opened
from fer.inference.predictor import LEAST_SIDE, Predictor
from fer.metrics.explanation import Explanation, OfConfusion, OfEmotion, OfFace, means
from fer.system.text import plural

AT_ONCE = 16  # faces between two reports of progress
MOST_CONFUSIONS = 6
LEAST_CONFUSED = 3  # faces of a confusion that is shown


@dataclass(frozen=True)
class ExplainedFaces:
    """N faces to explain.

    Args:
        images: (N, S, S) uint8 grey, as they are shown.
        inputs: (N, 1, S, S), in colour (N, 3, S, S), uint8, as the networks take them.
        names: of the faces.
        boxes: of the faces in their pictures, x, y, width, height; None of faces that were cut out already.
        targets: (N,) label indices; None without labels.
        source: where the faces are from, in words.
        left_out: picture -> why it has no explained face.
    """

    images: NDArray[np.uint8]
    inputs: NDArray[np.uint8]
    names: Sequence[str]
    boxes: Sequence[tuple[float, float, float, float] | None]
    targets: NDArray[np.int64] | None
    source: str
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Maps:
    """The maps of N faces.

    Args:
        images: (N, S, S) uint8 grey.
        predicted: (N, S, S) float32, of the predicted emotion.
        second: (N, S, S), of the next one.
        label: (N, S, S), of the label; None without labels.
    """

    images: NDArray[np.uint8]
    predicted: NDArray[np.float32]
    second: NDArray[np.float32]
    label: NDArray[np.float32] | None


# --- faces of pictures ----------------------------------------------------------------------------------------------


def of_pictures(files: Sequence[Path], predictor: Predictor, count: int) -> ExplainedFaces:
    """Return the faces of pictures, and list the reason where a picture has no face or more than are explained.

    Args:
        files: the pictures.
        predictor: finds and cuts out faces.
        count: of faces, at most.
    """
    side = predictor.image_size
    none = np.empty((0, side, side), np.uint8)
    channels = 3 if predictor.in_colour else 1
    given = ExplainedFaces(none, np.empty((0, channels, side, side), np.uint8), [], [], None, "", {})
    for file in files:
        given = _with_picture(given, file, predictor, count - len(given.names))
    return replace(given, source=f"{plural(len(given.names), 'face')} of {plural(len(files), 'picture')}")


def _with_picture(given: ExplainedFaces, file: Path, predictor: Predictor, most: int) -> ExplainedFaces:
    """Return the faces so far and those of one more picture."""
    if most <= 0:
        return _without(given, file, "not opened: as many faces as --faces allows were found before")
    try:
        answer = predictor.answer(file)
    except PictureError as error:
        return _without(given, file, str(error))
    boxes = [face.box for face in answer.faces[:most]]
    several = len(answer.faces) > 1
    with_faces = replace(
        given,
        images=np.concatenate([given.images, *(crop[None] for crop in answer.crops[:most])]),
        inputs=np.concatenate([given.inputs, *(taken[None] for taken in answer.inputs[:most])]),
        names=[*given.names, *(f"{file}, face {at}" if several else str(file) for at in range(1, len(boxes) + 1))],
        boxes=[*given.boxes, *((box.x, box.y, box.width, box.height) for box in boxes)],
    )
    more = len(answer.faces) - len(boxes)
    reasons = [f"{plural(more, 'face')} more than --faces allows"] if more else []
    reasons += [f"{plural(answer.too_small, 'face')} below {LEAST_SIDE} pixels"] if answer.too_small else []
    reasons = reasons if answer.faces or reasons else ["no face found"]
    return _without(with_faces, file, ", ".join(reasons)) if reasons else with_faces


def _without(given: ExplainedFaces, file: Path, reason: str) -> ExplainedFaces:
    return replace(given, left_out={**given.left_out, str(file): reason})


# --- explanation ----------------------------------------------------------------------------------------------------


def explain(
    networks: Sequence[Opened], method: str, given: ExplainedFaces, command: str, done: Callable[[int], None]
) -> tuple[Explanation, Maps]:
    """Return the explanation of faces and their maps.

    Args:
        networks: one, or several as an ensemble.
        method: see ``fer.inference.explain.explained``.
        given: the faces, at least one.
        command: the command line, for the record.
        done: called with the number of faces that are explained so far.

    Raises:
        FerError: the method does not apply to these networks.
    """
    what = Explained([member.network for member in networks])
    layer = _layer_side(what) if method == "gradcam" else None
    faces = given.inputs
    began = time.perf_counter()
    chances = what.probabilities(faces)
    emotions = _two_likeliest(chances)
    if given.targets is not None:
        emotions = np.concatenate([emotions, given.targets[:, None]], 1)
    maps = np.concatenate(list(_in_parts(what, method, faces, emotions, done)))
    speed = len(faces) / (time.perf_counter() - began)
    explanations = _of_faces(what, given, chances)
    kept = Maps(given.images, maps[:, 0], maps[:, 1], None if given.targets is None else maps[:, 2])
    return Explanation(
        method=method,
        layer=layer,
        networks=tuple(member.called for member in networks),
        architecture=" + ".join(dict.fromkeys(member.network.architecture for member in networks)),
        source=given.source,
        faces=tuple(explanations),
        check=check(what, method, faces, emotions[:, 0], maps[:, 0]),
        emotions=() if given.targets is None else tuple(of_emotions(explanations, kept)),
        confusions=() if given.targets is None else tuple(confusions(explanations)),
        left_out=given.left_out,
        faces_per_second=speed,
        command=command,
    ), kept


def _layer_side(what: Explained) -> int:
    model = what.alone("gradcam")
    from fer.inference.gradients import layer_of  # imports torch

    return layer_of(model).side


def _two_likeliest(chances: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the two most probable emotions (N, 2) of probabilities (N, C), the first of equal ones first."""
    return np.argsort(-chances, axis=1, kind="stable")[:, :2]


def _in_parts(
    what: Explained, method: str, faces: NDArray[np.uint8], emotions: NDArray[np.int64], done: Callable[[int], None]
) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(faces), AT_ONCE):
        done(start)
        rows = slice(start, start + AT_ONCE)
        yield explained(what, method, faces[rows], emotions[rows])


def _of_faces(what: Explained, given: ExplainedFaces, chances: NDArray[np.float32]) -> list[OfFace]:
    best = _two_likeliest(chances).tolist()
    return [
        OfFace(
            name=given.names[index],
            predicted=what.emotions[first],
            second=what.emotions[second],
            probabilities=dict(zip(what.emotions, map(float, chances[index]), strict=True)),
            box=given.boxes[index],
            label=None if given.targets is None else what.emotions[given.targets[index]],
        )
        for index, (first, second) in enumerate(best)
    ]


def of_emotions(faces: Sequence[OfFace], maps: Maps) -> list[OfEmotion]:
    """Return what the maps of each label's faces show, in the order of the emotions."""
    emotions = []
    for emotion in faces[0].probabilities:
        rows = [index for index, face in enumerate(faces) if face.label == emotion]
        if not rows:
            continue
        right = sum(faces[index].predicted == emotion for index in rows)
        average = maps.predicted[rows].mean(0, keepdims=True)
        (left,) = means(left_shares(maps.predicted[rows])[:, None])
        mirror = float(rank_correlation(average, average[..., ::-1])[0])
        emotions.append(OfEmotion(emotion, right, len(rows) - right, left, mirror))
    return emotions


def left_shares(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the share (N,) of positive values in the left half of maps (N, S, S); one half where none is positive."""
    support = maps.clip(min=0).astype(np.float64)
    half = maps.shape[-1] // 2
    left, right = support[..., :half].sum((1, 2)), support[..., -half:].sum((1, 2))
    total = left + right
    return np.where(total > 0, left / np.where(total > 0, total, 1), 0.5)


def confusions(faces: Sequence[OfFace]) -> list[OfConfusion]:
    """Return the confusions of at least three faces, the largest first, at most six."""
    counts: dict[tuple[str, str], int] = {}
    for face in faces:
        if face.label is not None and face.label != face.predicted:
            counts[face.label, face.predicted] = counts.get((face.label, face.predicted), 0) + 1
    largest = sorted(counts.items(), key=lambda item: -item[1])[:MOST_CONFUSIONS]
    return [OfConfusion(*pair, count) for pair, count in largest if count >= LEAST_CONFUSED]
