"""Drawn faces: a small data set that is built in.

It has grey cartoon faces with the seven expressions of FER2013. The faces are drawn from parameters, and nothing has to
be downloaded. Each of the seven expressions is a set of facial action units (P. Ekman and W. V. Friesen, *Facial Action
Coding System*, 1978, and the prototypes of their EMFACS guide, 1983). Each action unit moves brows, lids, cheeks, nose
or lips. Identity, pose, lighting, background, blur and noise vary from picture to picture. Some expressions are weak.
Some faces blend two of them, with the label drawn from the blend, so that no classifier can be perfect.

The set is for tests, demonstrations and first runs. It rewards the same ideas as photographs. Networks were trained on
5,600 faces of 48 x 48 pixels. A dense one classifies 55 to 60 % of new faces correctly, a convolutional one of three
blocks 85 to 90 %. Accuracies on it do not predict accuracies on real faces.

Lengths are in face units. The origin is the middle of the face, x runs to the right, y down. The chin is at about 1.
Arrays are written with B for the faces drawn together, and H and W (both ``image_size``) for the picture.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.data.labels import EMOTIONS

Floats = NDArray[np.floating[Any]]
Traits = dict[str, Floats]

# The strength, from 0 to 1, of each action unit in the full expression, in the order of the class numbers. The units of
# an emotion are those of the prototypes of Ekman and Friesen (EMFACS, 1983); the strengths were chosen by eye.
EXPRESSIONS: Final[dict[str, dict[int, float]]] = {
    "angry": {4: 1.0, 5: 0.4, 7: 0.7, 23: 1.0},
    "disgust": {9: 1.0, 15: 0.6, 16: 0.8},
    "fear": {1: 1.0, 2: 0.5, 4: 0.6, 5: 1.0, 20: 1.0, 26: 0.5},
    "happy": {6: 1.0, 12: 1.0},
    "sad": {1: 1.0, 4: 0.5, 15: 1.0},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.8, 26: 1.0},
    "neutral": {},
}

# The effect of each action unit at full strength on the traits below.
ACTION_UNITS: Final[dict[int, dict[str, float]]] = {
    1: {"brow_inner": -0.15, "forehead_lines": 0.4},  # inner brow raiser
    2: {"brow_outer": -0.13, "brow_y": -0.03, "forehead_lines": 0.5},  # outer brow raiser
    4: {"brow_inner": 0.14, "brow_y": 0.02, "brow_x": -0.06, "furrow": 0.9},  # brow lowerer
    5: {"eye_top": 0.065},  # upper lid raiser
    6: {"eye_bottom": -0.045, "eye_top": -0.01, "cheek": 0.9, "fold": 0.2},  # cheek raiser
    7: {"eye_top": -0.02, "eye_bottom": -0.02},  # lid tightener
    9: {"nose_y": -0.05, "wrinkle": 1.0, "fold": 0.7, "brow_inner": 0.07, "brow_y": 0.03, "eye_top": -0.035,
        "eye_bottom": -0.02, "lip_rise": 0.06, "teeth": 0.5},  # nose wrinkler
    12: {"mouth_corner": -0.17, "mouth_width": 0.10, "fold": 0.5, "teeth": 0.9},  # lip corner puller
    15: {"mouth_corner": 0.15, "mouth_width": 0.01},  # lip corner depressor
    16: {"mouth_drop": 0.06, "lip": 0.015, "teeth": 0.3},  # lower lip depressor
    20: {"mouth_width": 0.10, "mouth_corner": 0.04, "mouth_drop": 0.02, "teeth": 0.7},  # lip stretcher
    23: {"lip": -0.04, "mouth_width": -0.05},  # lip tightener
    25: {"lip_rise": 0.02, "mouth_drop": 0.08},  # lips part
    26: {"lip_rise": 0.05, "mouth_drop": 0.19, "mouth_width": -0.09, "head_height": 0.04, "mouth_y": 0.02},  # jaw drop
}  # fmt: skip

# How often the lips part (action unit 25) in each class, in addition to the units above: most smiles show teeth.
LIPS_PART: Final[dict[str, float]] = {
    "angry": 0.35, "disgust": 0.3, "fear": 0.4, "happy": 0.7, "sad": 0.1, "surprise": 0.2, "neutral": 0.1,
}  # fmt: skip

# Middle and spread of each trait over people and pictures: normal, cut off at two spreads.
TRAITS: Final[dict[str, tuple[float, float]]] = {
    "head_width": (0.78, 0.05), "head_height": (1.02, 0.05), "jaw": (0.16, 0.07),
    "eye_x": (0.36, 0.025), "eye_y": (-0.14, 0.03), "eye_width": (0.195, 0.018), "eye_tilt": (-0.015, 0.015),
    "eye_top": (0.095, 0.012), "eye_bottom": (0.06, 0.008), "iris": (0.088, 0.008), "gaze": (0.0, 0.025),
    "iris_shade": (0.25, 0.1), "lashes": (0.75, 0.12),
    "brow_x": (0.16, 0.02), "brow_length": (0.42, 0.03), "brow_y": (-0.40, 0.03), "brow_inner": (0.0, 0.02),
    "brow_outer": (0.0, 0.02), "brow_arch": (0.06, 0.025), "brow_thickness": (0.036, 0.010), "brow_skew": (0.0, 0.02),
    "furrow": (0.0, 0.1), "forehead_lines": (0.0, 0.1), "wrinkle": (0.0, 0.1), "fold": (0.12, 0.1),
    "cheek": (0.1, 0.1),
    "nose_y": (0.22, 0.03), "nose_width": (0.13, 0.02), "nose_ridge": (0.22, 0.08),
    "mouth_y": (0.54, 0.03), "mouth_width": (0.30, 0.035), "mouth_corner": (0.0, 0.02), "mouth_skew": (0.0, 0.02),
    "lip": (0.068, 0.018), "lip_shade": (0.68, 0.09), "lip_rise": (0.0, 0.004), "mouth_drop": (0.0, 0.006),
    "teeth": (0.2, 0.1),
    "hairline": (-0.71, 0.09), "hair_part": (0.0, 0.12), "hair_length": (0.1, 0.45), "hair_volume": (0.12, 0.04),
    "skin": (0.64, 0.10), "hair": (0.27, 0.14), "cloth": (0.4, 0.2),
    "backdrop": (0.5, 0.16), "backdrop_slope": (0.0, 0.12),
    "yaw": (0.0, 0.14), "roll": (0.0, 0.12), "shift_x": (0.0, 0.09), "shift_y": (-0.04, 0.07), "scale": (0.52, 0.03),
    "light_x": (0.0, 0.2), "light_y": (-0.08, 0.1), "contrast": (1.0, 0.13), "brightness": (0.5, 0.06),
}  # fmt: skip


@dataclass(frozen=True)
class Canvas:
    """A batch of pictures being painted, with the face coordinates of every pixel.

    ``head_x`` and ``y`` follow the outline of the head. ``x`` follows the features, which yaw moves sideways. ``side``
    is the sign of ``x`` and ``reach`` its size, since most features come in mirrored pairs. ``bulge`` is how far the
    head stands out of the picture plane. All are (B, H, W), but ``pixel``, the width of a pixel in face units, is
    (B, 1, 1).
    """

    grey: Floats
    head_x: Floats
    y: Floats
    x: Floats
    side: Floats
    reach: Floats
    bulge: Floats
    pixel: Floats

    def cover(self, distance: Floats) -> Floats:
        """Share of each pixel inside a shape, from the signed distance (B, H, W) to its edge: antialiasing."""
        covered: Floats = np.clip(0.5 - distance / self.pixel, 0, 1)
        return covered

    def paint(self, mask: Floats, shade: Floats | float) -> None:
        """Paint ``shade`` over the pictures, with the mask (B, H, W) as opacity."""
        self.grey[...] += mask * (shade - self.grey)

    def shadow(self, mask: Floats) -> None:
        """Darken the pictures by the share given in the mask (B, H, W); negative shares lighten them."""
        self.grey[...] *= 1 - mask


def draw_faces(
    count: int, *, seed: int = 0, image_size: int = 48, ambiguity: float = 0.2
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw grey faces that show the seven expressions, with their labels.

    The classes are balanced up to one face and shuffled. The same arguments give the same bytes every time.

    Args:
        count: Number of faces.
        seed: Seed of every random choice.
        image_size: Height and width in pixels; 24 to 112 are recommended.
        ambiguity: Share of the faces that blend two expressions; their label is drawn from the blend.

    Returns:
        The pictures, uint8 (count, image_size, image_size), and the class numbers, int64 (count,), in the order of
        ``EMOTIONS``.

    Raises:
        ValueError: If ``count``, ``image_size`` or ``ambiguity`` is out of range.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if image_size < 16:
        raise ValueError(f"image_size must be at least 16, got {image_size}")
    if not 0 <= ambiguity <= 1:
        raise ValueError(f"ambiguity must lie between 0 and 1, got {ambiguity}")
    # Two streams, one for the faces and one for pixel noise, so that the chunk size does not change the pictures.
    face_rng, noise_rng = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    targets = face_rng.permutation(np.arange(count) % len(EMOTIONS)).astype(np.int64)
    faces = _sample_faces(face_rng, targets, ambiguity)
    images = np.empty((count, image_size, image_size), dtype=np.uint8)
    chunk = max(1, 2**15 // image_size**2)  # small arrays stay in the processor's cache: three times faster
    for start in range(0, count, chunk):
        part = {name: values[start : start + chunk] for name, values in faces.items()}
        images[start : start + chunk] = _render(part, image_size, noise_rng)
    return images, targets


def _sample_faces(rng: np.random.Generator, targets: NDArray[np.int64], ambiguity: float) -> Traits:
    """Return the traits of every face, each (count, 1, 1) to broadcast over the pixels."""
    count = len(targets)
    faces = {
        name: middle + spread * np.clip(rng.standard_normal(count), -2, 2) for name, (middle, spread) in TRAITS.items()
    }
    for unit, strength in _sample_action_units(rng, targets, ambiguity).items():
        for name, displacement in ACTION_UNITS[unit].items():
            faces[name] = faces[name] + strength * displacement
    # Traits with skewed distributions: few faces have glasses or a beard, and most pictures are fairly clear.
    faces["glasses"] = (rng.random(count) < 0.15).astype(np.float64)
    faces["beard"] = np.clip(rng.normal(-0.3, 0.35, count), 0, 0.45)
    faces["blur"] = rng.random(count) ** 2
    faces["noise"] = 0.005 + 0.03 * rng.random(count) ** 2
    return {name: values.astype(np.float32).reshape(count, 1, 1) for name, values in faces.items()}


def _sample_action_units(
    rng: np.random.Generator, targets: NDArray[np.int64], ambiguity: float
) -> dict[int, NDArray[np.float64]]:
    """Return the strength of every action unit in every face, each (count,)."""
    count, classes = len(targets), len(EMOTIONS)
    # Of two expressions blended a : 1 - a with a uniform, the first becomes the label with probability a. Given the
    # label, its share then has the density 2a, which is that of the square root of a uniform number.
    share = np.where(rng.random(count) < ambiguity, np.sqrt(rng.random(count)), 1.0)
    second = (targets + rng.integers(1, classes, count)) % classes
    intensity = 0.4 + 0.8 * rng.beta(2.5, 1.5, count)

    def blend(by_class: list[float]) -> NDArray[np.float64]:
        """Return the value of each face, (count,), from values of the classes, blended for mixed faces."""
        values = np.array(by_class)
        mixed: NDArray[np.float64] = share * values[targets] + (1 - share) * values[second]
        return mixed

    units: dict[int, NDArray[np.float64]] = {}
    for unit in ACTION_UNITS:
        strength = intensity * blend([EXPRESSIONS[name].get(unit, 0.0) for name in EMOTIONS])
        # Real expressions vary: each unit varies alone, and is weakly active at random.
        units[unit] = strength * rng.uniform(0.6, 1.3, count) + 0.12 * rng.random(count) ** 3
    parted = rng.random(count) < blend([LIPS_PART[name] for name in EMOTIONS])
    units[25] = units[25] + parted * rng.uniform(0.3, 1.0, count)
    return units


def _render(face: Traits, image_size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one chunk of faces, from the back to the front: uint8 (B, H, W)."""
    canvas = _canvas(face, image_size)
    _draw_body(canvas, face)
    _draw_head(canvas, face)
    _draw_relief(canvas, face)
    _draw_nose(canvas, face)
    _draw_mouth(canvas, face)
    _draw_eyes(canvas, face)
    _draw_brows(canvas, face)
    _draw_hair(canvas, face)
    _draw_glasses(canvas, face)
    _light(canvas, face)
    return _photograph(canvas.grey, face, rng)


def _canvas(face: Traits, image_size: int) -> Canvas:
    """Return a canvas with coordinates in which no face is moved, rotated or scaled."""
    steps = ((np.arange(image_size, dtype=np.float32) + 0.5) / image_size - 0.5).astype(np.float32)
    column = steps.reshape(1, 1, image_size) / face["scale"] - face["shift_x"]  # (B, 1, W)
    row = steps.reshape(1, image_size, 1) / face["scale"] - face["shift_y"]  # (B, H, 1)
    cos, sin = np.cos(face["roll"]), np.sin(face["roll"])
    head_x, y = cos * column + sin * row, cos * row - sin * column
    width = face["head_width"]
    bulge = np.sqrt(np.maximum(1 - (head_x / width) ** 2 - (y / face["head_height"]) ** 2, 0))
    # Turning an ellipsoid about its upright axis moves its features sideways and shortens the far side.
    x = np.cos(face["yaw"]) * head_x - np.sin(face["yaw"]) * width * bulge
    grey = face["backdrop"] + face["backdrop_slope"] * (column + row)
    return Canvas(grey, head_x, y, x, np.sign(x), np.abs(x), bulge, 1 / (image_size * face["scale"]))


def _norm(x: Floats, y: Floats) -> Floats:
    """Return the length of the vectors (x, y), each (B, H, W); much faster than ``np.hypot``."""
    return np.sqrt(x * x + y * y)


def _bump(square: Floats) -> Floats:
    """Return a soft spot, 1 at the centre and 0 from radius 1 on, from the squared distance (B, H, W)."""
    spot = np.maximum(1 - square, 0)
    return spot * spot


def _draw_body(canvas: Canvas, face: Traits) -> None:
    """Hair behind the head, neck and clothes."""
    x, y, volume = np.abs(canvas.head_x), canvas.y, face["hair_volume"]
    below = np.maximum(y, 0) / np.maximum(face["hair_length"], 0.12)
    height = np.minimum(y, 0) / (face["head_height"] + volume) + below * below
    canvas.paint(canvas.cover(0.8 * _norm(x / (face["head_width"] + volume), height) - 0.8), face["hair"] * 0.8)
    canvas.paint(canvas.cover(np.maximum(x - 0.42, 0.5 - y)), face["skin"] * 0.66)
    canvas.paint(canvas.cover(1.12 + 0.25 * x - y), face["cloth"])


def _draw_head(canvas: Canvas, face: Traits) -> None:
    """Ears and the outline of the head, narrower at the jaw."""
    x, y = np.abs(canvas.head_x), canvas.y
    ear = _norm((x - face["head_width"]) / 0.09, (y - 0.02) / 0.17) - 1
    canvas.paint(canvas.cover(0.1 * ear), face["skin"] * 0.82)
    jaw = 1 - face["jaw"] * np.maximum(y, 0)
    outline = _norm(x / (face["head_width"] * jaw), y / face["head_height"]) - 1
    canvas.paint(canvas.cover(0.8 * outline), face["skin"])


def _draw_relief(canvas: Canvas, face: Traits) -> None:
    """Eye sockets, cheeks, beard, and the lines that moving muscles fold into the skin."""
    reach, y = canvas.reach, canvas.y
    canvas.shadow(0.22 * _bump(((reach - face["eye_x"] + 0.03) / 0.33) ** 2 + ((y - face["eye_y"] + 0.05) / 0.24) ** 2))
    cheek_y = y - 0.24 + 0.06 * face["cheek"]
    canvas.shadow(-0.16 * face["cheek"] * _bump((reach - 0.42) ** 2 / 0.05 + cheek_y**2 / 0.03))
    stubble = np.clip((y - 0.24 + 0.4 * (reach - 0.45)) / 0.2, 0, 1) * np.minimum(3 * canvas.bulge, 1)
    canvas.shadow(face["beard"] * stubble)
    # Nasolabial fold: from the wing of the nose outwards around the corner of the mouth.
    depth = y - face["nose_y"] + 0.06
    fold = reach - face["nose_width"] - 0.05 - 0.62 * depth * (1 - 0.5 * depth)
    canvas.shadow(0.4 * face["fold"] * _bump((fold / 0.055) ** 2) * _bump(((depth - 0.17) / 0.3) ** 2))
    # Frown lines between the brows, wrinkles across the root of the nose, lines across the forehead.
    frown = _bump(((reach - 0.055) / 0.04) ** 2) * _bump(((y - face["brow_y"] - 0.06) / 0.17) ** 2)
    root = _bump((reach / 0.16) ** 2) * _bump((y / 0.17) ** 2) * np.clip(np.sin(y * 55), 0, 1)
    brow_top = y - face["brow_y"] - 0.5 * face["brow_inner"] + 0.20 - 0.15 * reach**2
    ripple = _bump((reach / 0.5) ** 2) * (_bump((brow_top / 0.035) ** 2) + _bump(((brow_top + 0.11) / 0.035) ** 2))
    lines = 0.5 * face["furrow"] * frown + 0.5 * face["wrinkle"] * root + 0.25 * face["forehead_lines"] * ripple
    canvas.shadow(np.clip(lines, 0, 0.7))


def _draw_nose(canvas: Canvas, face: Traits) -> None:
    """Ridge shaded on the side away from the light, wings and nostrils."""
    y, tip, width = canvas.y, face["nose_y"], face["nose_width"]
    away = -np.sign(face["light_x"])
    along = np.clip((tip - y) / (tip - face["eye_y"]), 0, 1)  # 1 at the eyes, 0 at the tip
    ridge = _bump(((canvas.x - away * width * (0.9 - 0.35 * along)) / 0.075) ** 2)
    canvas.shadow(face["nose_ridge"] * ridge * _bump(((y - 0.5 * tip - 0.02) / (0.75 * tip + 0.18)) ** 2))
    canvas.shadow(-0.16 * _bump((canvas.x / 0.09) ** 2 + ((y - tip + 0.05) / 0.13) ** 2))
    base = _bump((canvas.reach / (1.35 * width)) ** 2) * _bump(((y - tip - 0.055 + canvas.reach * 0.15) / 0.05) ** 2)
    nostril = _bump(((canvas.reach - 0.6 * width) / 0.06) ** 2 + ((y - tip - 0.03) / 0.04) ** 2)
    canvas.shadow(np.maximum(0.25 * base, 0.65 * nostril))


def _draw_mouth(canvas: Canvas, face: Traits) -> None:
    """Lips around an opening that shows teeth and, when wide, the tongue."""
    across = canvas.x / face["mouth_width"]
    inside = 1 - across * across
    arch = np.sqrt(np.maximum(inside, 0))  # the lips meet at the corners
    ends = (np.abs(across) - 1) * face["mouth_width"]
    # When the corners rise, the middle of the mouth goes down a little.
    y = canvas.y - face["mouth_y"] - face["mouth_corner"] * (0.6 - inside) - face["mouth_skew"] * across
    above = -y - np.maximum(face["lip_rise"], 0) * arch  # distances outwards from the inner edges of the lips
    below = y - np.maximum(face["mouth_drop"], 0) * arch
    lip, shade = np.maximum(face["lip"], 0.015) * arch, face["skin"] * face["lip_shade"]
    canvas.shadow(0.25 * _bump((across / 0.7) ** 2 + ((below - 1.6 * lip - 0.03) / 0.06) ** 2))
    canvas.paint(canvas.cover(np.maximum(np.maximum(above - 0.8 * lip, below), ends)), shade * 0.85)
    canvas.paint(canvas.cover(np.maximum(np.maximum(below - 1.2 * lip, -y), ends)), shade)
    opening = canvas.cover(np.maximum(np.maximum(above, below) - 0.016, ends - 0.02))
    canvas.paint(opening * 0.9, 0.07)
    gap = np.maximum(above, below) + 0.012
    canvas.paint(0.8 * canvas.cover(np.maximum(gap, 0.13 - y)), shade * 0.8)  # tongue
    canvas.paint(np.clip(face["teeth"], 0, 1) * canvas.cover(np.maximum(gap, -above - 0.08)), 0.9)


def _draw_eyes(canvas: Canvas, face: Traits) -> None:
    """Eyeball, iris, pupil and glint between two lids."""
    across = (canvas.reach - face["eye_x"]) / face["eye_width"]
    inside = 1 - across**2
    y = canvas.y - face["eye_y"] - face["eye_tilt"] * across
    upper = -y - np.maximum(face["eye_top"], 0.012) * inside
    lower = y - np.maximum(face["eye_bottom"], 0.005) * inside
    opening = canvas.cover(np.maximum(upper, lower))
    canvas.paint(opening, 0.35 + 0.6 * face["skin"])
    from_iris = canvas.x - canvas.side * face["eye_x"] - face["gaze"]
    radius = _norm(from_iris, y + 0.015)
    canvas.paint(opening * canvas.cover(radius - face["iris"]), face["iris_shade"])
    canvas.paint(opening * canvas.cover(radius - 0.5 * face["iris"]), 0.03)
    canvas.paint(opening * canvas.cover(_norm(from_iris + 0.03, y + 0.05) - 0.022), 0.95)
    near = np.clip(1.15 - np.abs(across), 0, 0.2) * 5  # lids end a little beyond the corners
    canvas.shadow(near * face["lashes"] * canvas.cover(np.abs(upper) - 0.017))
    canvas.shadow(near * 0.3 * canvas.cover(np.abs(lower) - 0.01))
    canvas.shadow(near * 0.22 * _bump(((upper - 0.055) / 0.03) ** 2))


def _draw_brows(canvas: Canvas, face: Traits) -> None:
    """Brows that start at ``brow_x``, bend, and thin out towards the temples."""
    along = (canvas.reach - face["brow_x"]) / face["brow_length"]
    inner = np.clip(1 - along, 0, 1.2)
    line = face["brow_y"] + face["brow_inner"] * inner + face["brow_outer"] * np.clip(along, 0, 1)
    line = line - 4 * face["brow_arch"] * along * (1 - along) + face["brow_arch"] + face["brow_skew"] * canvas.side
    thickness = face["brow_thickness"] * (1.15 - 0.6 * np.clip(along, 0, 1))
    ends = (np.abs(along - 0.5) - 0.5) * face["brow_length"]
    brow = canvas.cover(np.maximum(np.abs(canvas.y - line) - thickness, ends))
    canvas.paint(0.85 * brow, np.minimum(0.75 * face["hair"], 0.55 * face["skin"]))


def _draw_hair(canvas: Canvas, face: Traits) -> None:
    """Hair on top of the head, down to a parted hairline."""
    square = canvas.head_x * canvas.head_x
    line = face["hairline"] + 0.25 * np.abs(canvas.x - face["hair_part"]) + 1.3 * square * square
    width, height = face["head_width"] + 0.4 * face["hair_volume"], face["head_height"] + face["hair_volume"]
    cap = _norm(canvas.head_x / width, (canvas.y + 0.02) / height) - 1
    strands = 1 + 0.1 * np.sin(30 * canvas.x + 12 * canvas.y)
    canvas.paint(canvas.cover(np.maximum(canvas.y - line, 0.8 * cap)), face["hair"] * strands)


def _draw_glasses(canvas: Canvas, face: Traits) -> None:
    """Thin frames around the eyes and a bridge, for the faces that wear them."""
    radius = _norm((canvas.reach - face["eye_x"]) / 0.27, (canvas.y - face["eye_y"] - 0.02) / 0.2)
    frame = np.abs(radius - 1) * 0.22 - 0.016
    bridge = np.maximum(np.abs(canvas.y - face["eye_y"]) - 0.016, canvas.reach - face["eye_x"] + 0.26)
    canvas.paint(face["glasses"] * 0.9 * canvas.cover(np.minimum(frame, bridge)), 0.12)


def _light(canvas: Canvas, face: Traits) -> None:
    """Shade the head like an ellipsoid lit from ``light_x``, ``light_y`` and the front."""
    slope = face["light_x"] * canvas.head_x + face["light_y"] * canvas.y
    canvas.grey[...] *= 0.85 + slope + 0.25 * canvas.bulge


def _photograph(grey: Floats, face: Traits, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, set contrast and brightness, add noise and round: uint8 (B, H, W)."""
    soft = grey.copy()
    soft[:, 1:-1] = 0.5 * grey[:, 1:-1] + 0.25 * (grey[:, :-2] + grey[:, 2:])
    soft[:, :, 1:-1] = 0.5 * soft[:, :, 1:-1] + 0.25 * (soft[:, :, :-2] + soft[:, :, 2:])
    grey = grey + face["blur"] * (soft - grey)
    grey = (grey - 0.5) * face["contrast"] + face["brightness"]
    grey += face["noise"] * rng.standard_normal(grey.shape, dtype=np.float32)
    levels: Floats = np.clip(255 * grey + 0.5, 0, 255)
    return levels.astype(np.uint8)
