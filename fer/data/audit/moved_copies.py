"""Copies of a photograph that were turned, moved or enlarged: pairs that ``near_duplicates`` does not propose.

Each face is described by 144 values of its blurred details, taken on a grid in the middle of the frame. The grid of one
face is laid over the other one in 33 positions: turned by -10, 0 and 10 degrees, moved by 3 of 48 pixels to each side,
smaller and larger. Faces with black edges are compared with repeated edges too. The nearest descriptions propose pairs.
The exact turn, shift and size of each pair are then fitted by least squares (Lucas & Kanade 1981, with a similarity
transform). A pair is accepted if the pixels that both show correlate, and their details too.

The limits were chosen on FER2013, for the faces of val and test with a copy in train, by viewing pairs.

- Pairs: 1,496 are accepted. Viewed were the 50 that correlate least, by less than 0.95, and 250 others. They show the
  same photograph, some of the 50 another moment of the same sitting.
- Changes: 300 faces of PrivateTest were changed, and each was sought among 3,300 faces. All were found after a turn by
  5, 10, 15 and 18 degrees. So were all that were moved by 3 or 4 pixels both across and down, or made larger or smaller
  by a tenth. Turned by 22 degrees 232 were found, moved by 5 and 6 pixels 290 and 108. Made larger by 20 and 30 % 299
  and 271 were found, smaller by 20 % 300. After a random turn, shift and change of size together 299 were found, of up
  to 15 degrees, 4 pixels to each side and a tenth. What lay beyond the edge was repeated from it. Where it was black,
  at most 3 fewer were found.
- Mirrored copies: a search for them, which takes as long again, found 46 pairs of 38 faces. Symmetrical faces and icons
  are among them.
"""

from collections.abc import Iterator, Sequence
from itertools import starmap
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.data.audit.near_duplicates import detail, parts, small
from fer.data.labels import SPLITS

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

TURNS = (-10.0, 0.0, 10.0)  # degrees
SHIFTS = (-3 / 48, 0.0, 3 / 48)  # of the side
ZOOMS = (0.85, 1.18)  # of faces that are turned and not moved
POINTS = 12  # of the grid along a side
FINE, COARSE = 2 / 48, 8 / 48  # standard deviations of two blurs, of the side; a description is of their difference
WINDOW = 14 / 48  # standard deviation of the weights of a description, of the side
NEAREST = 16  # descriptions whose faces are fitted to each face
LEAST_DESCRIBED = 0.78  # correlation of two descriptions below which no fit is tried
ROUNDS = ((3, 4, 0.75), (2, 2, 0.82), (5, 2, 0.82))  # of the fit, see ``_Round``
SMOOTH = 1 / 48  # standard deviation of the blur during the fit, of the side
NOTHING = 1e-20  # weight of a blur that is set to 0: Intel's processors multiply subnormal numbers 12 times slower
LEAST = 0.88  # least correlation of the pixels of a pair, where the frames overlap
LEAST_DETAIL = 0.7  # least correlation of its details
MOST_TURN, MOST_SHIFT, MOST_ZOOM = 25.0, 8 / 48, 1.35  # of a pair that is accepted: degrees, of the side, factor
LIMIT = (
    "not found are most copies that were moved by 6 of 48 pixels (of 300 faces of FER2013, 108 were found); mirrored "
    "ones and copies within train are not sought"
)
QUERIES = 32  # faces described in all positions at once
FITTED = 256  # pairs fitted at once
BLACK = 2  # largest value, of 255, of pixels that may be blank
LEAST_BLANK, MOST_BLANK = 0.02, 0.4  # share of blank pixels of a face whose edges are filled


class _Round(NamedTuple):
    """Some steps of a fit, after which pairs that are not alike are left out.

    Of FER2013 813 pairs are accepted. The one least alike correlated by 0.82 after two steps at a spacing of 2, and by
    0.89 after three.

    Args:
        steps: number of steps.
        spacing: distance of the pixels that the fit looks at, along both sides.
        least: correlation of the blurred pixels below which a pair is left out.
    """

    steps: int
    spacing: int
    least: float


class Moved(NamedTuple):
    """K pairs of faces that show the same photograph.

    Args:
        first: (K,) indices of the faces that were looked for.
        second: (K,) indices of the faces that were found.
        correlation: (K,) of the pixels that both show.
        turn: (K,) by how many degrees the first is turned clockwise from the second.
        across: (K,) by which fraction of the side it is moved to the right.
        down: (K,) by which fraction of the side it is moved down.
        zoom: (K,) how much larger it is.
    """

    first: Numbers
    second: Numbers
    correlation: Floats
    turn: Floats
    across: Floats
    down: Floats
    zoom: Floats

    def taken(self, rows: Numbers) -> "Moved":
        """Return the pairs at some indices."""
        return self._replace(**{name: values[rows] for name, values in self._asdict().items()})


def of_train(
    images: NDArray[np.uint8],
    splits: NDArray[np.int8],
    duplicates: Sequence[Sequence[Numbers]],
    leave_out: NDArray[np.bool_],
) -> Moved | None:
    """Return the faces of val and test with a moved copy in train, and with no other duplicate there.

    Args:
        images: (N, S, S).
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
        duplicates: groups of exact duplicates, and groups of near ones.
        leave_out: (N,) whether a face is left out, since it shows too little to be compared.

    Returns:
        None where the data have no train, or nothing else.
    """
    train = splits == SPLITS.index("train")
    other = (splits == SPLITS.index("val")) | (splits == SPLITS.index("test"))
    if not train.any() or not other.any():
        return None
    sought, among = other & ~leave_out, train & ~leave_out
    for number, group in enumerate(group for kind in duplicates for group in kind):
        in_train = group[train[group]]
        if len(in_train):
            sought[group] = False
        if number < len(duplicates[0]):
            among[in_train[1:]] = False  # equal pixels need one comparison
    return moved_copies(images, np.flatnonzero(sought), np.flatnonzero(among))


def moved_copies(images: NDArray[np.uint8], sought: Numbers, among: Numbers) -> Moved:
    """Return the pairs of a face that is sought and one of the others that shows the same photograph.

    Args:
        images: (N, S, S).
        sought: (Q,) indices.
        among: (M,) indices, other faces.
    """
    views = _Views(images)
    sought, among = views.of(sought), views.of(among)
    known = np.concatenate([np.empty((0, POINTS**2), np.float32), *_described(views, among)])
    none = np.empty(0, np.int64)
    found = [_accepted(views, none, none, np.empty((0, 4), np.float32))]
    for rows in _blocks(len(sought), QUERIES):
        first, second, start = _proposed(views, sought[rows], known)
        for part in _blocks(len(first), FITTED):
            found.append(_accepted(views, sought[rows][first[part]], among[second[part]], start[part]))
    pairs = {name: np.concatenate([getattr(one, name) for one in found]) for name in Moved._fields}
    return _once(Moved(**pairs), len(images))


def _accepted(views: "_Views", first: Numbers, second: Numbers, start: Floats) -> Moved:
    """Return those of the pairs of views that show the same photograph after a fit of their transforms (K, 4)."""
    fitted, correlation, details = _fitted(views(first), views(second), start)
    turn, zoom = np.degrees(np.arctan2(fitted[:, 1], fitted[:, 0])), np.hypot(fitted[:, 0], fitted[:, 1])
    accepted = (correlation >= LEAST) & (details >= LEAST_DETAIL)
    accepted &= (np.abs(turn) <= MOST_TURN) & (np.abs(np.log(zoom)) <= np.log(MOST_ZOOM))
    accepted &= np.abs(fitted[:, 2:]).max(1, initial=0) <= MOST_SHIFT
    pairs = Moved(first, second, correlation, turn, fitted[:, 2], fitted[:, 3], zoom)
    return pairs.taken(np.flatnonzero(accepted))


def _once(pairs: Moved, count: int) -> Moved:
    """Return pairs of ``count`` faces in place of pairs of views; of several views of a pair, the one most alike."""
    pairs = pairs._replace(first=pairs.first % count, second=pairs.second % count)
    pairs = pairs.taken(np.lexsort((-pairs.correlation, pairs.second, pairs.first)))
    again = (np.diff(pairs.first) == 0) & (np.diff(pairs.second) == 0)
    return pairs.taken(np.delete(np.arange(len(pairs.first)), np.flatnonzero(again) + 1))


class _Views:
    """Faces as they are and, where the edges are blank, with repeated edges.

    A view is the index of a face, plus the number of faces if its blank edges are filled: what Pillow and torchvision
    leave black beyond the frame of a face that is turned or moved would hide that it is a copy.
    """

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images

    def of(self, indices: Numbers) -> Numbers:
        """Return the views of faces: each one, then those whose blank edges can be filled."""
        filled = [indices[part][_with_blank_edges(self.images[indices[part]])] for part in self._parts(indices)]
        return np.concatenate([indices, *(some + len(self.images) for some in filled)])

    def __call__(self, views: Numbers) -> Floats:
        """Return views (K,) as faces (K, s, s) of bounded size."""
        faces, filled = self.images[views % len(self.images)], views >= len(self.images)
        faces[filled] = _with_repeated_edges(faces[filled])
        return small(faces)

    def _parts(self, indices: Numbers) -> Iterator[slice]:
        return parts(len(indices), self.images.shape[-1])


def _blank(faces: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels of faces (K, S, S) are black, as are all between them and an edge to the left or right."""
    black = faces <= BLACK
    right = np.logical_and.accumulate(black[..., ::-1], axis=2)[..., ::-1]
    blank: NDArray[np.bool_] = np.logical_and.accumulate(black, axis=2) | right
    return blank


def _with_blank_edges(faces: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which of the faces (K, S, S) have enough blank pixels to be filled, and enough others."""
    share = _blank(faces).mean((1, 2))
    enough: NDArray[np.bool_] = (share >= LEAST_BLANK) & (share <= MOST_BLANK)
    return enough


def _with_repeated_edges(faces: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return faces (K, S, S) with the nearest pixel of the row, or the nearest row, in place of blank pixels."""
    shown = ~_blank(faces)
    filled = np.take_along_axis(faces, _nearest(shown), 2)
    return np.take_along_axis(filled, _nearest(np.any(shown, axis=2))[..., None], 1)


def _nearest(shown: NDArray[np.bool_]) -> Numbers:
    """Return for each place along the last axis the index of the nearest one that is shown and not at a blank edge.

    A pixel at the border of a blank edge is a mixture with black, where a face was turned or its size changed.
    """
    places = np.arange(shown.shape[-1])
    first = shown.argmax(-1)[..., None]
    last = places[-1] - shown[..., ::-1].argmax(-1)[..., None]
    return np.clip(places, np.where(first > 0, first + 1, 0), np.where(last < places[-1], last - 1, last))


def _blocks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


# --- descriptions ---------------------------------------------------------------------------------------------------


def _details(faces: Floats) -> Floats:
    """Return faces (K, s, s) without their finest and their coarsest features."""
    return _blurred(faces, FINE) - _blurred(faces, COARSE)


def _blurred(faces: Floats, spread: float) -> Floats:
    """Return faces (K, s, s) after a Gaussian blur whose standard deviation is a fraction of the side."""
    position = np.arange(faces.shape[-1]) / faces.shape[-1]
    weights = np.exp(-((position[:, None] - position[None]) ** 2) / (2 * spread**2))
    weights[weights < NOTHING] = 0.0
    rows = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    blurred: Floats = (rows @ faces @ rows.T).astype(np.float32, copy=False)
    return blurred


def _starts() -> Floats:
    """Return the transforms (V, 4) that a description is compared in, see ``_moved``."""
    moved = [(turn, 1.0, across, down) for turn in TURNS for across in SHIFTS for down in SHIFTS]
    zoomed = [(turn, zoom, 0.0, 0.0) for turn in TURNS for zoom in ZOOMS]
    turn, zoom, across, down = np.array(moved + zoomed, np.float32).T
    return np.stack([zoom * np.cos(np.radians(turn)), zoom * np.sin(np.radians(turn)), across, down], -1)


def _moved(points: Floats, transforms: Floats) -> Floats:
    """Return points (P, 2) after each of K transforms (K, 4), (K, P, 2).

    A transform has the cosine and the sine of its turn, both times its zoom, and its shift across and down.
    """
    x, y = points[None, :, 0], points[None, :, 1]
    cosine, sine, across, down = (transforms[:, [column]] for column in range(4))
    return np.stack([cosine * x - sine * y + across, sine * x + cosine * y + down], -1)


def _at(faces: Floats, points: Floats) -> Floats:
    """Return the values (K, P) of faces (K, s, s) at points (K, P, 2), bilinear; the edge is repeated beyond it."""
    return _Between.pixels(faces, points)(faces)


class _Between(NamedTuple):
    """Where points lie between the pixels of faces, to take the values of several pictures there.

    Args:
        side: of the faces.
        start: (K, P) index of the pixel at the upper left of each point, in all faces one after another.
        across: (K, P) distance from it, in pixels.
        down: (K, P) the same.
    """

    side: int
    start: Numbers
    across: Floats
    down: Floats

    @classmethod
    def pixels(cls, faces: Floats, points: Floats) -> "_Between":
        """Return where points (K, P, 2), or (1, P, 2), lie in faces (K, s, s)."""
        side = faces.shape[-1]
        position = ((points + 0.5) * side - 0.5).clip(0, side - 1.001)
        whole = position.astype(np.int64)
        share = (position - whole).astype(np.float32)
        start = np.arange(len(faces))[:, None] * side**2 + whole[..., 1] * side + whole[..., 0]
        return cls(side, start, share[..., 0], share[..., 1])

    def __call__(self, faces: Floats) -> Floats:
        """Return the values (K, P) of faces (K, s, s), or of other pictures of that shape, at the points."""
        flat, start, side = faces.reshape(-1), self.start, self.side
        left, lower_left = flat[start], flat[start + side]
        upper = left + (flat[start + 1] - left) * self.across
        lower = lower_left + (flat[start + side + 1] - lower_left) * self.across
        values: Floats = upper + (lower - upper) * self.down
        return values


def _described(views: _Views, indices: Numbers) -> Iterator[Floats]:
    """Yield the descriptions (K, POINTS**2) of views, part by part."""
    for part in parts(len(indices), views.images.shape[-1]):
        yield _standard(_at(_details(views(indices[part])), _pixels(POINTS)[None]), _weights())


def _weights() -> Floats:
    """Return the weights (POINTS**2,) of a description, larger towards the middle."""
    weights: Floats = np.exp(-((_pixels(POINTS) / WINDOW) ** 2).sum(1) / 2).astype(np.float32)
    return weights


def _standard(values: Floats, weights: Floats) -> Floats:
    """Return descriptions (..., POINTS**2) after weighting, with mean 0 and norm 1."""
    weighted = values * weights
    weighted -= weighted.mean(-1, keepdims=True)
    standard: Floats = weighted / np.maximum(np.linalg.norm(weighted, axis=-1, keepdims=True), 1e-6)
    return standard


def _proposed(views: _Views, sought: Numbers, known: Floats) -> tuple[Numbers, Numbers, Floats]:
    """Return the pairs with the nearest descriptions, as indices in both, and the transform (K, 4) of each."""
    faces, starts, weights = _details(views(sought)), _starts(), _weights()
    points = _moved(_pixels(POINTS), starts)  # (V, P, 2)
    described = np.stack([_standard(_at(faces, position[None]), weights) for position in points])  # (V, Q, P)
    similar = described.reshape(-1, POINTS**2) @ known.T
    similar = similar.reshape(len(starts), len(sought), len(known))
    best = similar.max(0)  # (Q, M)
    nearest = np.argpartition(-best, min(NEAREST, best.shape[1] - 1), axis=1)[:, :NEAREST]
    first, column = np.nonzero(np.take_along_axis(best, nearest, 1) >= LEAST_DESCRIBED)
    second = nearest[first, column]
    return first, second, starts[similar[:, first, second].argmax(0)]


# --- fit ------------------------------------------------------------------------------------------------------------


class _Pairs(NamedTuple):
    """K pairs of faces (K, s, s), and the first ones' slopes across and down, for the fit."""

    first: Floats
    second: Floats
    across: Floats
    down: Floats

    @classmethod
    def of(cls, first: Floats, second: Floats) -> "_Pairs":
        """Return blurred pairs."""
        smooth, side = _blurred(first, SMOOTH), first.shape[-1]
        down, across = np.gradient(smooth, axis=(1, 2))
        return cls(smooth, _blurred(second, SMOOTH), across * side, down * side)

    def taken(self, rows: Numbers) -> "_Pairs":
        """Return the pairs at some indices."""
        return _Pairs(*(values[rows] for values in self))


def _fitted(first: Floats, second: Floats, start: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the transforms (K, 4) from the second face (K, s, s) of each pair to the first, and both correlations."""
    pairs, transforms, rows = _Pairs.of(first, second), start.copy(), np.arange(len(first))
    coarse = _pixels(first.shape[-1], 2)
    for steps, spacing, least in starmap(_Round, ROUNDS):
        for _ in range(steps):
            transforms[rows] += _step(pairs, transforms[rows], spacing)
        alike = _alike(pairs.first, pairs.second, coarse, transforms[rows]) >= least
        pairs, rows = pairs.taken(np.flatnonzero(alike)), rows[alike]
    correlation, details = np.zeros((2, len(first)), np.float32)
    points = _pixels(first.shape[-1])
    correlation[rows] = _alike(first[rows], second[rows], points, transforms[rows])
    details[rows] = _alike(detail(first[rows]), detail(second[rows]), points, transforms[rows])
    return transforms, correlation, details


def _pixels(side: int, step: int = 1) -> Floats:
    """Return the middles (P, 2) of every ``step``-th pixel, in fractions of the side from the middle of the frame."""
    line = (np.arange(0, side, step) + 0.5) / side - 0.5
    return np.stack(np.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2).astype(np.float32)


def _alike(first: Floats, second: Floats, points: Floats, transforms: Floats) -> Floats:
    """Return Pearson's correlation (K,) of pairs of faces at the points (P, 2) that both frames have."""
    moved = _moved(points, transforms)
    inside = _inside(moved)
    one, other = (_centred(values, inside) for values in (_at(first, moved), _at(second, points[None])))
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: Floats = (one * other).sum(1) / np.maximum(sizes, 1e-6)
    return found


def _step(pairs: _Pairs, transforms: Floats, spacing: int) -> Floats:
    """Return the change (K, 4) of transforms that brings first faces nearer to second ones, by Gauss and Newton.

    Args:
        pairs: K pairs.
        transforms: (K, 4).
        spacing: distance of the pixels of the second faces that are compared.
    """
    points = _pixels(pairs.first.shape[-1], spacing)
    moved = _moved(points, transforms)
    inside, at_moved = _inside(moved), _Between.pixels(pairs.first, moved)
    second = pairs.second[:, ::spacing, ::spacing].reshape(len(transforms), len(points))
    values, goal = _centred(at_moved(pairs.first), inside), _centred(second, inside)
    size = np.sqrt((goal**2).sum(1, keepdims=True) / np.maximum((values**2).sum(1, keepdims=True), 1e-6))
    across, down = (size * at_moved(slope) for slope in (pairs.across, pairs.down))
    x, y = points[None, :, 0], points[None, :, 1]
    columns = [across * x + down * y, down * x - across * y, across, down]
    jacobian = np.stack([_centred(column, inside) for column in columns], 1)  # (K, 4, P)
    normal = jacobian @ jacobian.transpose(0, 2, 1) + 1e-3 * np.eye(4, dtype=np.float32)
    right = jacobian @ (goal - size * values)[..., None]
    change: Floats = np.linalg.solve(normal, right)[..., 0].clip(-0.1, 0.1)
    return change


def _inside(points: Floats) -> Floats:
    """Return 1 for each of the points (K, P, 2) that lies in the frame, and 0 for the others."""
    frame = np.abs(points) <= 0.5
    return (frame[..., 0] & frame[..., 1]).astype(np.float32)


def _centred(values: Floats, inside: Floats) -> Floats:
    """Return values (K, P) minus their mean over the points inside the frame, and 0 at the others."""
    mean = (values * inside).sum(1, keepdims=True) / np.maximum(inside.sum(1, keepdims=True), 1)
    centred: Floats = (values - mean) * inside
    return centred
