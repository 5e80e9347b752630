"""An explanation: the maps of faces, the check of these maps, and what they show over a split."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer.config.errors import FerError
from fer.data.readers.images import PictureError
from fer.evaluation.evaluate import check_classes
from fer.evaluation.faithfulness import check, rank_correlation
from fer.evaluation.leakage import TrainingData, find_again
from fer.evaluation.request import Faces, Member, Request, Tables, members_of, settings_of
from fer.inference.explain import Explained, explained, layer_of, predicted
from fer.inference.predictor import LEAST_SIDE, Predictor
from fer.metrics.explanation import Explanation, OfConfusion, OfEmotion, OfFace, means
from fer.models import checkpoints
from fer.runs.predictions import Scored
from fer.system.text import plural

AT_ONCE = 16  # faces between two reports of progress
MOST_CONFUSIONS = 6
LEAST_CONFUSED = 3  # faces of a confusion that is shown
SEED = 0


@dataclass(frozen=True)
class Given:
    """N faces to explain.

    Args:
        images: (N, S, S) uint8.
        names: of the faces.
        boxes: of the faces in their pictures, x, y, width, height; None of faces that were cut out already.
        targets: (N,) label indices; None without labels.
        source: where the faces are from, in words.
        left_out: picture -> why it has no explained face.
    """

    images: NDArray[np.uint8]
    names: Sequence[str]
    boxes: Sequence[tuple[float, float, float, float] | None]
    targets: NDArray[np.int64] | None
    source: str
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Maps:
    """The maps of N faces.

    Args:
        images: (N, S, S) uint8.
        predicted: (N, S, S) float32, of the predicted emotion.
        second: (N, S, S), of the next one.
        label: (N, S, S), of the label; None without labels.
    """

    images: NDArray[np.uint8]
    predicted: NDArray[np.float32]
    second: NDArray[np.float32]
    label: NDArray[np.float32] | None


# --- faces of pictures ----------------------------------------------------------------------------------------------


def of_pictures(files: Sequence[Path], predictor: Predictor, count: int) -> Given:
    """Return the faces of pictures; what has no face, or one too many, is listed with the reason.

    Args:
        files: the pictures.
        predictor: finds and cuts out faces.
        count: of faces, at most.
    """
    side = predictor.image_size
    given = Given(np.empty((0, side, side), np.uint8), [], [], None, "", {})
    for file in files:
        given = _with_picture(given, file, predictor, count - len(given.names))
    return replace(given, source=f"{plural(len(given.names), 'face')} of {plural(len(files), 'picture')}")


def _with_picture(given: Given, file: Path, predictor: Predictor, room: int) -> Given:
    """Return the faces so far and those of one more picture."""
    if room <= 0:
        return _without(given, file, "not opened: as many faces as --faces allows were found before")
    try:
        answer = predictor.answer(file)
    except PictureError as error:
        return _without(given, file, str(error))
    boxes = [face.box for face in answer.faces[:room]]
    several = len(answer.faces) > 1
    with_faces = replace(
        given,
        images=np.concatenate([given.images, *(crop[None] for crop in answer.crops[:room])]),
        names=[*given.names, *(f"{file}, face {at}" if several else str(file) for at in range(1, len(boxes) + 1))],
        boxes=[*given.boxes, *((box.x, box.y, box.width, box.height) for box in boxes)],
    )
    more = len(answer.faces) - len(boxes)
    reasons = [f"{plural(more, 'face')} more than --faces allows"] if more else []
    reasons += [f"{plural(answer.too_small, 'face')} below {LEAST_SIDE} pixels"] if answer.too_small else []
    reasons = reasons if answer.faces or reasons else ["no face found"]
    return _without(with_faces, file, ", ".join(reasons)) if reasons else with_faces


def _without(given: Given, file: Path, reason: str) -> Given:
    return replace(given, left_out={**given.left_out, str(file): reason})


# --- faces of a split -----------------------------------------------------------------------------------------------


def of_split(request: Request, members: Sequence[Member], count: int) -> Given:
    """Return faces of a split: a seeded draw, as many of each emotion as there are, up to equal numbers.

    Args:
        request: names data and split.
        members: the networks, of one image size.
        count: of faces, at most.

    Raises:
        FerError: the data are missing or bad, have no such split, or are the networks' test faces.
    """
    tables = Tables(request.batch_size)
    faces = Faces(settings_of(request, members), request.split, tables)
    data = faces.at(members[0].model.image_size)
    check_classes(members[0], data)
    find_again(members, data)
    split = data.datasets[request.split]
    images = split.grey
    if request.split == "test" or TrainingData(members, tables).is_test(images):
        raise FerError(
            f"--split {request.split}: holds test faces, which fer.evaluate alone opens; explain val, from which "
            "conclusions may be drawn"
        )
    rows = data.faces.rows[data.indices(request.split)]
    drawn = stratified(split.targets.numpy(), count)
    return Given(
        images=images[drawn],
        names=[f"row {rows[index]}" for index in drawn],
        boxes=[None] * len(drawn),
        targets=split.targets.numpy()[drawn],
        source=f"{len(drawn):,} of {len(images):,} faces of {request.split} of {data.data.path}",
        left_out={},
    )


def stratified(targets: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return rising indices of at most ``count`` faces, a seeded draw with equal numbers of each emotion if they last.

    Args:
        targets: (N,) labels.
        count: of faces.
    """
    shuffled = np.random.default_rng(SEED).permutation(len(targets))
    turn = np.empty(len(targets), np.int64)  # which of its emotion's faces each one is, in the shuffled order
    for emotion in np.unique(targets):
        of = shuffled[targets[shuffled] == emotion]
        turn[of] = np.arange(len(of))
    return np.sort(shuffled[np.argsort(turn[shuffled], kind="stable")][:count])


def of_mistakes(
    networks: Sequence[str], scored: Scored, rows: NDArray[np.int64], command: str
) -> tuple[Explanation, Maps]:
    """Return the explanation of some scored faces, by occlusion.

    Args:
        networks: those that scored them; several count equally here.
        scored: the faces.
        rows: indices of the faces to explain, at least one.
        command: the command line, for the record.

    Raises:
        FerError: a network is a folder of predictions, or the networks take faces of different sizes.
    """
    names = [f"row {scored.rows[index]}" for index in rows]
    source = f"{len(rows)} surest mistakes"
    boxes = [None] * len(rows)
    given = Given(scored.images[rows], names, boxes, scored.targets[rows], source, {})
    return explain(members_of(networks), "occlusion", given, command, lambda done: None)


# --- explanation ----------------------------------------------------------------------------------------------------


def explain(
    members: Sequence[Member], method: str, given: Given, command: str, done: Callable[[int], None]
) -> tuple[Explanation, Maps]:
    """Return the explanation of faces and their maps.

    Args:
        members: the networks.
        method: a name in ``fer.inference.explain.METHODS``.
        given: the faces, at least one.
        command: the command line, for the record.
        done: called with the number of explained faces, as they grow.

    Raises:
        FerError: the method does not apply to these networks.
    """
    for member in members:
        if member.model.in_channels != 1:
            raise FerError(
                f"{member.file}: takes faces in colour; maps are made of grey ones; explain a network that "
                "is trained with data.channels=1"
            )
    what = Explained([member.model.eval() for member in members])
    layer = layer_of(what.alone(method)).side if method == "gradcam" else None
    faces = torch.from_numpy(given.images)[:, None]
    began = time.perf_counter()
    chances = predicted(what, faces)
    wanted = chances.topk(2).indices  # (N, 2)
    if given.targets is not None:
        wanted = torch.cat([wanted, torch.from_numpy(given.targets)[:, None]], 1)
    maps = torch.cat(list(_in_parts(what, method, faces, wanted, done)))
    speed = len(faces) / (time.perf_counter() - began)
    found = _of_faces(what, given, chances)
    arrays = maps.numpy()
    kept = Maps(given.images, arrays[:, 0], arrays[:, 1], None if given.targets is None else arrays[:, 2])
    return Explanation(
        method=method,
        layer=layer,
        networks=tuple(_called(member) for member in members),
        architecture=" + ".join(dict.fromkeys(member.model.architecture for member in members)),
        source=given.source,
        faces=tuple(found),
        check=check(what, method, faces, wanted[:, 0], maps[:, 0]),
        emotions=() if given.targets is None else tuple(of_emotions(found, kept)),
        confusions=() if given.targets is None else tuple(confusions(found)),
        left_out=given.left_out,
        faces_per_second=speed,
        command=command,
    ), kept


def _called(member: Member) -> str:
    return member.file.stem if checkpoints.of_package(member.file) else str(member.file)


def _in_parts(
    what: Explained, method: str, faces: Tensor, wanted: Tensor, done: Callable[[int], None]
) -> Iterator[Tensor]:
    for start in range(0, len(faces), AT_ONCE):
        done(start)
        rows = slice(start, start + AT_ONCE)
        yield explained(what, method, faces[rows], wanted[rows])


def _of_faces(what: Explained, given: Given, chances: Tensor) -> list[OfFace]:
    best = chances.topk(2).indices.tolist()
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
    found = []
    for emotion in faces[0].probabilities:
        rows = [index for index, face in enumerate(faces) if face.label == emotion]
        if not rows:
            continue
        right = sum(faces[index].predicted == emotion for index in rows)
        average = torch.from_numpy(maps.predicted[rows].mean(0))[None]
        (left,) = means(left_shares(maps.predicted[rows])[:, None])
        mirror = float(rank_correlation(average, average.flip(-1))[0])
        found.append(OfEmotion(emotion, right, len(rows) - right, left, mirror))
    return found


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
