"""Parts of a self-contained HTML page, for light and dark, wide and narrow screens.

A page loads no script, font or picture from elsewhere. Every text is escaped here; what is HTML already is MarkupSafe's
``Markup``.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from fer.config.errors import visible
from fer.reports.plotting import inline
from fer.reports.theme import DARK, PAPER, variables
from fer.system.files import written_whole

# the button overrides the system's light or dark setting; without scripts the system's setting applies
SWITCH = """
const root = document.documentElement, button = document.getElementById("light");
const system = () => matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
const dark = () => (root.dataset.theme || system()) === "dark";
const relabel = () => { button.textContent = dark() ? "light" : "dark"; };
button.hidden = false;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", relabel);
button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; relabel(); });
relabel();
"""
BUTTON = Markup('<button id="light" type="button" hidden></button>')


class Section(NamedTuple):
    """A section of a page.

    Args:
        name: one word for the address.
        title: its heading.
        body: its contents.
        short: its title in the navigation; default: the name with a capital.
    """

    name: str
    title: str
    body: Markup
    short: str = ""

    @property
    def link(self) -> str:
        """Its title in the navigation."""
        return self.short or f"{self.name[:1].upper()}{self.name[1:]}".replace("-", " ")


def text(part: object) -> Markup:
    """Return a text for a page: HTML in it escaped, marks that turn the direction of writing shown; Markup stays."""
    return escape(part) if hasattr(part, "__html__") else escape(visible(str(part)))


def joined(*parts: object) -> Markup:
    """Return parts one after the other, texts escaped."""
    return Markup("").join(map(text, parts))


def tag(name: str, *parts: object, **attributes: object) -> Markup:
    """Return an element with its attributes; write ``class_`` for ``class``."""
    given = "".join(f' {key.rstrip("_")}="{text(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>{joined(*parts)}</{name}>")


def paragraph(*parts: object, class_: str = "") -> Markup:
    """Return a paragraph."""
    return tag("p", *parts, class_=class_) if class_ else tag("p", *parts)


def note(*parts: object) -> Markup:
    """Return a highlighted paragraph, for a warning."""
    return paragraph(*parts, class_="note")


def columns(*parts: Markup) -> Markup:
    """Return parts side by side on wide screens, below each other on narrow ones."""
    return tag("div", *(tag("div", part) for part in parts), class_="columns")


def drawing(svg: str, label: str, *, large: bool = False) -> Markup:
    """Return a figure's SVG for the page; ``label`` describes it to screen readers."""
    return tag("div", Markup(inline(svg, text(label))), class_="drawing large" if large else "drawing")


def table(
    heads: Sequence[object], rows: Sequence[Sequence[object]], numbers: Sequence[int] = (), *, stack: bool = False
) -> Markup:
    """Return a table.

    Args:
        heads: heads of the columns; empty for none.
        rows: cells of each row.
        numbers: indices of the columns that hold numbers, which are right-aligned.
        stack: whether a phone shows the cells of a row below each other.
    """

    def line(name: str, cells: Sequence[object]) -> Markup:
        kinds = ["number" if index in numbers else "wide" for index in range(len(cells))]
        return tag("tr", *(tag(name, cell, class_=kind) for cell, kind in zip(cells, kinds, strict=True)))

    head = tag("thead", line("th", heads)) if heads else Markup("")
    body = tag("tbody", *(line("td", cells) for cells in rows))
    return tag("div", tag("table", head, body, class_="stack" if stack else ""), class_="scroll")


def named(part: Markup) -> Markup:
    """Return a table whose rows have long names, so that their column keeps a minimum width."""
    return tag("div", part, class_="named")


def card(name: str, value: str, interval: str, meaning: str, ends: tuple[float, float, float] | None = None) -> Markup:
    """Return the card of a headline metric.

    Args:
        name: name of the metric.
        value: its value, in large letters.
        interval: its interval or a remark, below the value.
        meaning: explanation, at the bottom.
        ends: low end, value and high end on a scale from 0 to 1, drawn as a bar.
    """
    scale = Markup("")
    if ends is not None:
        low, middle, high = (100 * min(1.0, max(0.0, x)) for x in ends)
        inside = tag("i", style=f"left:{low:.2f}%;width:{high - low:.2f}%"), tag("b", style=f"left:{middle:.2f}%")
        scale = tag("div", *inside, class_="range")
    return tag(
        "div",
        tag("div", name, class_="name"),
        tag("div", value, class_="value"),
        scale,
        tag("div", interval, class_="interval"),
        tag("div", meaning, class_="meaning"),
        class_="card",
    )


def cards(items: Sequence[Markup]) -> Markup:
    """Return cards side by side, as many as fit in a row."""
    return tag("div", *items, class_="cards")


def details(summary: str, body: Markup) -> Markup:
    """Return a part that a click on its summary opens."""
    return tag("details", tag("summary", summary), body)


def picture(image: NDArray[np.uint8], label: str) -> Markup:
    """Return a face, (S, S) grey or (S, S, 3), as an image element with its data."""
    size = f'width="{image.shape[1]}" height="{image.shape[0]}"'
    return Markup(f'<img alt="{text(label)}" {size} src="{data_url(image)}">')


def data_url(image: NDArray[np.uint8]) -> str:
    """Return a picture, (H, W) grey or (H, W, 3), as the data URL of a PNG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def face(image: NDArray[np.uint8], lines: Sequence[str], *more: Markup) -> Markup:
    """Return a face with its caption.

    Args:
        image: (S, S) grey.
        lines: caption; the first line is bold.
        more: parts below the caption.
    """
    return tag("figure", picture(image, ", ".join(lines)), *caption(lines), *more, class_="face")


def side_by_side(pictures: Sequence[Markup], lines: Sequence[str]) -> Markup:
    """Return pictures side by side with one caption, whose first line is bold."""
    return tag("figure", tag("div", *pictures, class_="pictures"), *caption(lines), class_="face")


def caption(lines: Sequence[str]) -> list[Markup]:
    """Return the lines of a caption, the first one bold."""
    first, *labels = lines
    return [tag("div", first, class_="caption"), *(tag("div", line, class_="label") for line in labels)]


def chances(probabilities: Mapping[str, float], marks: Mapping[str, str]) -> Markup:
    """Return probabilities as bars, in per cent.

    Args:
        probabilities: emotion -> probability.
        marks: emotion -> "predicted" or "label", which colour its bar.
    """
    bars = [
        joined(
            tag("span", name, class_=marks.get(name, "")),
            tag("i", class_=marks.get(name, ""), style=f"width:{100 * chance:.1f}%"),
            tag("span", f"{100 * chance:.0f} %"),
        )
        for name, chance in probabilities.items()
    ]
    return tag("div", *bars, class_="chances")


def write(file: Path, title: str, lead: Markup, sections: Sequence[Section], foot: str, script: str = "") -> None:
    """Write a page, whole or not at all.

    Args:
        file: path of the page.
        title: title of the page.
        lead: contents between title and navigation.
        sections: sections in order, linked in the navigation.
        foot: last line.
        script: script of this page; the page must work without it.
    """
    links = [tag("a", part.link, href=f"#{part.name}") for part in sections]
    bodies = [tag("section", tag("h2", part.title), part.body, id=part.name) for part in sections]
    body = joined(
        tag("header", tag("h1", title), lead),
        tag("nav", tag("div", *links, BUTTON)),
        tag("main", *bodies),
        tag("footer", foot),
        tag("script", Markup(SWITCH)),
        tag("script", Markup(script), type="module") if script else "",
    )
    with written_whole(file) as stream:
        stream.write(document(title, Markup(f"<style>{stylesheet()}</style>"), body))


def document(title: str, head: Markup, body: Markup) -> str:
    """Return a whole page; ``head`` holds or names its style and scripts."""
    start = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title>{head}"
    )
    return f'<!doctype html>\n<html lang="en">\n<head>{start}</head>\n<body>\n{body}\n</body>\n</html>\n'


def stylesheet() -> str:
    """Return the page's CSS: colours for light and dark, then the layout."""
    layout = Path(__file__).with_name("html.css").read_text(encoding="utf-8")
    light, dark = variables(PAPER), variables(DARK)
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        f':root[data-theme="light"] {{ color-scheme: light; {light} }}\n'
        f':root[data-theme="dark"] {{ color-scheme: dark; {dark} }}\n{layout}'
    )
