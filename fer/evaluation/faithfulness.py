"""Whether maps explain a network: deletion and insertion, random weights, mirrored faces.

Every face has its eyes, nose and mouth in the middle of the frame. A map is worth something if the pixels that it ranks
first matter more to the network than this middle. So the maps compete with a blob in the middle, the same for every
face, and with random maps. Intervals of the paired differences decide the verdict. A blurred face is one way to remove
pixels; beside it stand the same curves with pixels imputed from their neighbours, see ``fer.evaluation.imputation``.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fer.evaluation.imputation import imputed
from fer.inference.explain import Explained, between, covered, explained, to_unit
from fer.metrics.explanation import (
    BLOB,
    LEAST_FACES,
    RANDOM,
    Check,
    Curves,
    Difference,
    Imputed,
    Mean,
    Randomised,
    means,
)

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

PARTS = 12  # steps of the curves
BLUR = 1 / 12  # of the side, the standard deviation of the blur: 4 of 48 pixels
MOST_IMPUTED = 200  # faces whose curves are drawn again with imputed pixels, which takes a quarter of a second a face
MOST_RANDOMISED = 64  # faces whose maps are made again with random weights and mirrored
SEED = 0


def check(what: Explained, method: str, faces: NDArray[np.uint8], emotions: Numbers, maps: Floats) -> Check:
    """Return whether maps explain what the networks predict.

    Args:
        what: the networks.
        method: of the maps.
        faces: (N, 1, S, S), in colour (N, 3, S, S), uint8.
        emotions: (N,) predicted emotions.
        maps: (N, S, S) of these emotions.
    """
    given = to_unit(faces)
    compared = {method: maps, BLOB: blob(given), RANDOM: random_maps(given)}
    areas = {name: paths(what, given, emotions, ranked) for name, ranked in compared.items()}
    differences = _differences(method, areas)
    some = spread(len(faces), MOST_RANDOMISED)
    few = (given[some], emotions[some], maps[some])
    return Check(
        faces=len(faces),
        curves=tuple(_curves(name, *path) for name, path in areas.items()),
        differences=tuple(differences),
        faces_of_randomised=len(some),
        randomised=tuple(_cascade(what, method, *few)),
        mirrored=mirrored(what, method, *few),
        verdict=verdict(method, differences, len(faces)),
        imputed=_imputed(what, method, given, emotions, compared),
    )


def _imputed(what: Explained, method: str, faces: Floats, emotions: Numbers, compared: Mapping[str, Floats]) -> Imputed:
    """Return the comparison of maps with removed pixels imputed from their neighbours."""
    some = spread(len(faces), MOST_IMPUTED)
    areas = {name: paths(what, faces[some], emotions[some], ranked[some], imputed) for name, ranked in compared.items()}
    differences = _differences(method, areas)
    return Imputed(
        faces=len(some),
        curves=tuple(_curves(name, *path) for name, path in areas.items()),
        differences=tuple(differences),
        verdict=verdict(method, differences, len(some)),
    )


def _differences(method: str, areas: "Mapping[str, Paths]") -> list[Difference]:
    return [_difference(name, areas[method], areas[name]) for name in (BLOB, RANDOM)]


def spread(count: int, most: int) -> list[int]:
    """Return at most ``most`` of ``count`` indices, evenly spread."""
    return list(range(count)) if count <= most else np.linspace(0, count - 1, most).round().astype(int).tolist()


# --- verdict --------------------------------------------------------------------------------------------------------

WORDS = {BLOB: "a blob in the middle of the frame", RANDOM: "random maps"}
MAPS = {
    "occlusion": "occlusion maps",
    "gradcam": "Grad-CAM maps",
    "integrated_gradients": "integrated-gradients maps",
}


def verdict(method: str, differences: Sequence[Difference], faces: int) -> str:
    """Return one sentence: whether the maps explain the network better than each baseline.

    Maps are better if the intervals of both areas lie on their side of 0, and worse if both lie on the other side.
    Deletion and insertion have to agree, so that two measures are no two chances.
    """
    maps = MAPS[method]
    if faces < LEAST_FACES:
        count = "1 face is" if faces == 1 else f"{faces} faces are"
        return (
            f"{count} too few to say whether {maps} explain this network; {LEAST_FACES} are needed, and "
            "fer explain --data checks as many as asked for."
        )
    outcomes = {difference.baseline: outcome(difference) for difference in differences}
    subject = f"{maps[0].upper()}{maps[1:]} of this network"
    beside_blob, beside_random = outcomes[BLOB], outcomes[RANDOM]
    first = {"better": "explain it better than", "worse": "explain it worse than"}.get(
        beside_blob, "are not better than"
    )
    second = {"better": "they are better than", "worse": "they are worse than"}.get(
        beside_random, "they are not better than"
    )
    joint = "but" if (beside_blob == "better") != (beside_random == "better") else "and"
    return f"{subject} {first} {WORDS[BLOB]}, {joint} {second} {WORDS[RANDOM]}."


def outcome(difference: Difference) -> str:
    """Return "better", "worse" or "not better", by the intervals of both areas.

    Args:
        difference: from a baseline; with intervals.
    """
    deletion, insertion = difference.deletion.ci95, difference.insertion.ci95
    assert deletion is not None
    assert insertion is not None
    if deletion.high < 0 < insertion.low:
        return "better"
    return "worse" if insertion.high < 0 < deletion.low else "not better"


# --- deletion and insertion -----------------------------------------------------------------------------------------

Paths = tuple[NDArray[np.float64], NDArray[np.float64]]  # (N, PARTS + 1) of deletion, the same of insertion


def paths(
    what: Explained,
    faces: Floats,
    emotions: Numbers,
    maps: Floats,
    keep: Callable[[Floats, NDArray[np.bool_]], Floats] | None = None,
) -> Paths:
    """Return the probabilities of an emotion while its first pixels are removed, and while they alone are shown.

    These are deletion and insertion (Petsiuk, Das & Saenko 2018, "RISE"), towards a blurred face. A blurred face is
    nearer to the faces that a network knows than a grey one.

    Args:
        what: the networks.
        faces: (N, 1, S, S), in colour (N, 3, S, S), in [0, 1].
        emotions: (N,) indices.
        maps: (N, S, S), whose largest values come first.
        keep: function of faces and a mask (N, 1, S, S). It keeps the pixels that are True and removes the others; by
            default these are blurred.
    """
    order, away = ranks(maps)[:, None], blurred(faces)
    keep = keep or (lambda given, kept: np.where(kept, given, away))
    counts = [round(part / PARTS * order[0].size) for part in range(PARTS + 1)]
    curves = []
    for kept in ([order >= count for count in counts], [order < count for count in counts]):
        steps = [keep(faces, mask) for mask in kept]
        chances = [np.take_along_axis(what.probabilities(step), emotions[:, None], 1) for step in steps]
        curves.append(np.concatenate(chances, 1).astype(np.float64))
    return curves[0], curves[1]


def ranks(maps: Floats) -> Numbers:
    """Return the rank of each pixel of maps (N, S, S), 0 for the largest; equal ones in a random order."""
    flat = maps.reshape(len(maps), -1)
    shuffled = np.random.default_rng(SEED).permutation(flat.shape[1])
    order = shuffled[np.argsort(-flat[:, shuffled], axis=1, kind="stable")]
    ranked = np.empty_like(order)
    np.put_along_axis(ranked, order, np.arange(flat.shape[1])[None], 1)
    return ranked.reshape(maps.shape)


def blurred(faces: Floats) -> Floats:
    """Return faces (N, C, S, S) in [0, 1], blurred until hardly an emotion is left; the edge is repeated."""
    side, spread_ = faces.shape[-1], faces.shape[-1] * BLUR
    reach = math.ceil(3 * spread_)
    away = np.arange(-reach, reach + 1)
    bell = np.exp(-((away / spread_) ** 2) / 2)
    weights = np.zeros((side, side))  # of each pixel of a line in each blurred one
    for offset, weight in zip(away, bell / bell.sum(), strict=True):
        np.add.at(weights, (np.arange(side), (np.arange(side) + offset).clip(0, side - 1)), weight)
    return (weights @ faces @ weights.T).clip(0, 1).astype(np.float32)


def blob(faces: Floats) -> Floats:
    """Return a map (N, S, S) that falls from the middle of the frame, the same for every face.

    Only the order of the pixels counts, so that its width does not matter.
    """
    side = faces.shape[-1]
    across = (np.arange(side) - (side - 1) / 2) / side
    bell = np.exp(-4 * (across[:, None] ** 2 + across**2)).astype(np.float32)
    return np.broadcast_to(bell, (len(faces), side, side))


def random_maps(faces: Floats) -> Floats:
    """Return random maps (N, S, S), as smooth as those of occlusion: noise for each pixel would be easier to beat."""
    side = faces.shape[-1]
    corners, _ = covered(side)
    values = np.random.default_rng(SEED).random((len(faces), 1, len(corners), len(corners)), np.float32)
    return between(values, corners, side)[:, 0]


def area(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas (N,) under curves (N, PARTS + 1) over the shares from 0 to 1."""
    areas: NDArray[np.float64] = np.trapezoid(curves, axis=1) / (curves.shape[1] - 1)
    return areas


def _curves(name: str, deletion: NDArray[np.float64], insertion: NDArray[np.float64]) -> Curves:
    areas = means(np.stack([area(deletion), area(insertion)], 1))
    return Curves(name, tuple(means(deletion)), tuple(means(insertion)), *areas)


def _difference(baseline: str, ours: Paths, theirs: Paths) -> Difference:
    gaps = [area(one) - area(other) for one, other in zip(ours, theirs, strict=True)]
    return Difference(baseline, *means(np.stack(gaps, 1)))


# --- random weights, mirrored faces ---------------------------------------------------------------------------------


def _cascade(what: Explained, method: str, faces: Floats, emotions: Numbers, maps: Floats) -> list[Randomised]:
    """Return how maps change as the networks' layers are randomised; nothing of exported files, which have no layers.

    Args:
        what: the networks.
        method: of the maps.
        faces: (N, C, S, S) in [0, 1].
        emotions: (N,) predicted emotions.
        maps: (N, S, S) of these emotions.
    """
    if len(what.models) < len(what.networks):
        return []
    from fer.evaluation.randomisation import cascade  # imports torch

    return [
        Randomised(layers, of, agreement(maps, explained(again, method, faces, emotions[:, None])[:, 0]))
        for layers, of, again in cascade(what.models)
    ]


def mirrored(what: Explained, method: str, faces: Floats, emotions: Numbers, maps: Floats) -> Mean:
    """Return the rank correlation of maps with those of the mirrored faces, mirrored back."""
    again = explained(what, method, np.ascontiguousarray(faces[..., ::-1]), emotions[:, None])[:, 0, :, ::-1]
    return agreement(maps, again)


def agreement(maps: Floats, others: Floats) -> Mean:
    """Return the mean rank correlation of maps (N, S, S) with others."""
    (mean,) = means(rank_correlation(maps, others)[:, None])
    return mean


def rank_correlation(maps: Floats, others: Floats) -> NDArray[np.float64]:
    """Return Spearman's rank correlations (N,) over the pixels of maps (N, S, S); 0 where a map is constant."""
    first, second = (_standardised(part.reshape(len(part), -1)) for part in (maps, others))
    correlations: NDArray[np.float64] = (first * second).mean(1)
    return correlations


def _standardised(values: Floats) -> NDArray[np.float64]:
    """Return the ranks of values (N, P), equal ones at their mean rank, with mean 0 and standard deviation 1."""
    ranks = np.stack([_mean_ranks(row) for row in values])
    spread_ = ranks.std(1, keepdims=True)
    standardised: NDArray[np.float64] = (ranks - ranks.mean(1, keepdims=True)) / np.where(spread_ > 0, spread_, 1)
    return standardised


def _mean_ranks(values: Floats) -> NDArray[np.float64]:
    """Return twice the ranks of values (P,), equal ones at their mean rank."""
    ordered = np.sort(values)
    below, up_to = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return (below + up_to).astype(np.float64)
