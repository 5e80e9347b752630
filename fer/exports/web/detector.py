"""The parts of ``fer predict``'s face detector that the page shares.

They are OpenCV's cascade and the constants of the search. The cascade is the XML of the installed OpenCV, as the JSON
that ``cascade.js`` reads. Its licence text is kept, as the licence asks.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from fer.inference import detect
from fer.system.files import contents, readable

RULES = (
    "LONGEST", "SMALLEST", "SMALL_PICTURE", "SMALLEST_THERE", "SMALLEST_SHARE", "SCALE", "NEIGHBOURS", "TURNED_SCALE",
    "CONFIRMING", "LEAST_SCORE", "TILT", "REFINED", "SAME_FACE", "PATCH",
)  # fmt: skip
NODE = 4  # numbers of a node: left, right, feature, threshold
WEIGHT = 4  # index of a rectangle's weight


def rules() -> Mapping[str, float]:
    """Return the constants of the search for faces of ``fer.inference.detect``, by their names in small letters."""
    return {rule.lower(): getattr(detect, rule) for rule in RULES}


def cascade_json(file: Path) -> str:
    """Return a cascade of OpenCV as JSON in one line.

    Its entries are ``licence``, ``side`` (of a window in pixels), ``stages`` and ``features``. A stage has a
    ``threshold`` and ``trees``. A tree has ``nodes`` ``[left, right, feature, threshold]`` and ``leaves``. A feature is
    a list of up to three rectangles ``[x, y, width, height, weight]``. Numbers are those of the XML.

    Raises:
        FerError: the file is missing, or is no cascade of upright Haar features.
    """
    with readable(file):
        text = contents(file).decode("utf-8")
        licence = re.search(r"<!--(.*?)-->", text, re.DOTALL)
        root = ElementTree.fromstring(text).find("cascade")
        if root is None or licence is None or root.findtext("featureType") != "HAAR" or _is_tilted(root):
            raise ValueError("it is no cascade of upright Haar features with a licence")
        described = {
            "licence": licence[1].strip(),
            "side": int(_text(root, "width")),
            "stages": [_stage(stage) for stage in root.iterfind("stages/_")],
            "features": [_feature(feature) for feature in root.iterfind("features/_")],
        }
    return json.dumps(described, separators=(",", ":"))


def _is_tilted(root: Element) -> bool:
    return any((mark.text or "").strip() != "0" for mark in root.iter("tilted"))


def _feature(feature: Element) -> list[list[float]]:
    """Return the rectangles of a feature; the page adds them up in whole numbers."""
    rectangles = [_numbers(rectangle.text) for rectangle in feature.iterfind("rects/_")]
    if any(not isinstance(rectangle[WEIGHT], int) for rectangle in rectangles):
        raise ValueError("it has weights that are not whole")
    return rectangles


def _stage(stage: Element) -> dict[str, object]:
    return {
        "threshold": float(_text(stage, "stageThreshold")),
        "trees": [_tree(tree) for tree in stage.iterfind("weakClassifiers/_")],
    }


def _tree(tree: Element) -> dict[str, object]:
    nodes = _numbers(_text(tree, "internalNodes"))
    return {
        "nodes": [nodes[start : start + NODE] for start in range(0, len(nodes), NODE)],
        "leaves": _numbers(_text(tree, "leafValues")),
    }


def _text(element: Element, name: str) -> str:
    text = element.findtext(name)
    if text is None:
        raise ValueError(f"it has no {name}")
    return text


def _numbers(text: str | None) -> list[float]:
    """Return the numbers of a text, whole ones as such."""
    values = map(float, (text or "").split())
    return [int(value) if value.is_integer() else value for value in values]
