"""The faces of a split that are explained: a seeded draw, or the most confident mistakes of an evaluation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.evaluation.evaluate import check_classes
from fer.evaluation.explanation import ExplainedFaces, Maps, explain
from fer.evaluation.leakage import TrainingData, search_moved_data, use_data_at_hand
from fer.evaluation.request import FacesBySize, Member, Request, Tables, members_of, settings_of
from fer.inference.explain import OCCLUSION
from fer.metrics.explanation import Explanation
from fer.runs.predictions import Scored

SEED = 0


def of_split(request: Request, members: Sequence[Member], count: int) -> ExplainedFaces:
    """Return a seeded draw of a split's faces, with equal numbers of each emotion as far as they last.

    Args:
        request: names data and split.
        members: the networks, of one image size.
        count: of faces, at most.

    Raises:
        FerError: the data are missing or bad, have no such split, or are the networks' test faces.
    """
    tables = Tables(request.batch_size)
    faces = FacesBySize(settings_of(request, members), request.split, tables)
    data = faces.at(members[0].model.image_size)
    check_classes(members[0], data)
    use_data_at_hand(members, data)
    search_moved_data(members, tables)
    split = data.split(request.split)
    images = split.grey
    if request.split == "test" or TrainingData(members, tables).is_test(images):
        raise FerError(_holds_test(request))
    rows = data.faces.rows[data.indices(request.split)]
    drawn = evenly_drawn(split.targets, count)
    return ExplainedFaces(
        images=images[drawn],
        inputs=split.pixels(drawn),
        names=[f"row {rows[index]}" for index in drawn],
        boxes=[None] * len(drawn),
        targets=split.targets[drawn],
        source=f"{len(drawn):,} of {len(images):,} faces of {request.split} of {data.data.path}",
        left_out={},
    )


def _holds_test(request: Request) -> str:
    """Return in words that the split holds test faces, and what to explain instead."""
    if request.split == "test":
        instead = "explain val"
    elif request.rule is not None:
        instead = f"leave out --rule {request.rule}, which draws val from all faces"
    else:
        instead = "explain val of the data that the networks were trained on"
    return (
        f"--split {request.split}: holds test faces, which fer.evaluate alone opens; {instead}, from which conclusions "
        "may be drawn"
    )


def evenly_drawn(targets: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return sorted indices of at most ``count`` faces: a seeded draw, equally many of each emotion if they last.

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
        networks: the networks that scored the faces; several count equally here.
        scored: the faces.
        rows: indices of the faces to explain, at least one.
        command: the command line, for the record.

    Raises:
        FerError: a network is a folder of predictions, or the networks take faces of different sizes or colours.
    """
    names = [f"row {scored.rows[index]}" for index in rows]
    source = f"{len(rows)} most confident mistakes"
    boxes = [None] * len(rows)
    images = scored.images[rows]
    inputs = images[:, None] if scored.colour is None else scored.colour[rows]
    given = ExplainedFaces(images, inputs, names, boxes, scored.targets[rows], source, {})
    return explain([member.opened for member in members_of(networks)], OCCLUSION, given, command, lambda done: None)
