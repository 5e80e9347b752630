"""The colours of all figures and pages, by role, for paper, light screens and dark screens.

Figures are drawn once, in the colours of ``PAPER``. In a page each of these colours becomes a CSS variable, so that the
same figure follows the light or dark setting of the screen.
"""

from collections.abc import Mapping
from types import MappingProxyType

# role -> colour on white. Text has a contrast of at least 4.5 to its background in both sets (WCAG 2.2, 1.4.3). Train
# and val differ in lightness as well as in hue, for grey print and colour-blind readers.
PAPER: Mapping[str, str] = MappingProxyType(
    {
        "ink": "#1b1f27",  # text, axes
        "soft": "#5a6372",  # secondary text, ticks
        "rule": "#d5dae1",  # grids, borders
        "val": "#2455c3",  # val; the main colour
        "train": "#c96f0b",
        "test": "#7d4bb5",
        "good": "#1d7d46",
        "bad": "#bd2f2a",
        "ground": "#fefefe",  # background of figures
        "faint": "#f2f4f7",  # stripes, cards
        "page": "#f7f8fa",
    }
)
DARK: Mapping[str, str] = MappingProxyType(
    {
        "ink": "#e7eaf0",
        "soft": "#a0a9b8",
        "rule": "#363e4b",
        "val": "#86acff",
        "train": "#f2a24e",
        "test": "#c4a1f2",
        "good": "#62cd92",
        "bad": "#ff8379",
        "ground": "#1a1f27",
        "faint": "#232a34",
        "page": "#12161c",
    }
)


def variables(colours: Mapping[str, str]) -> str:
    """Return the colours as CSS variables, ``--ink: #1b1f27; ...``."""
    return " ".join(f"--{role}: {colour};" for role, colour in colours.items())


def themed(svg: str) -> str:
    """Return an SVG with each colour of ``PAPER`` replaced by its CSS variable."""
    for role, colour in PAPER.items():
        svg = svg.replace(colour, f"var(--{role})")
    return svg
