"""The model card of the network that is served, as a page."""

import html as entities
import re
from pathlib import Path
from xml.etree.ElementTree import Element

import markdown
import markdown.treeprocessors
import markdown.util
from markupsafe import Markup

from fer.inference.exported import ExportedNetwork
from fer.inference.network import UNNAMED, Network
from fer.models import checkpoints, hub_folder
from fer.reports import html, model_card
from fer.reports.html import joined, tag

METADATA = "---\n"  # before and after the card's metadata
LINKS = re.compile(r"https?://|mailto:|#", re.IGNORECASE)  # how the target of a link may begin


def text_of(path: str | Path, network: Network) -> str:
    """Return the card in an exported file, beside a network's file, or of the run's last evaluation.

    Args:
        path: name or path of the network.
        network: without a card, what it says of itself is the answer.
    """
    if isinstance(network, ExportedNetwork):
        return network.about.card or without_card(network)
    file = checkpoints.find(path)
    run = file.parent.parent
    evaluated = sorted(run.glob("evaluations/*/model_card.md"), key=lambda card: card.stat().st_mtime_ns)
    cards = [hub_folder.card_beside(file), *reversed(evaluated if file.parent.name == "checkpoints" else [])]
    for card in cards:
        if card.is_file():
            return card.read_text(encoding="utf-8", errors="replace")
    return without_card(network)


def without_card(network: Network) -> str:
    """Return what is known of a network without a card."""
    trained = network.trained_on or UNNAMED
    return (
        f"# {network.architecture}, facial-emotion recognition\n\nTrained on {trained}. It has no card: `python -m "
        f"fer.evaluate NETWORK` measures it and writes one.\n\n{model_card.LIMITS.read_text(encoding='utf-8')}"
    )


class _Harmless(markdown.treeprocessors.Treeprocessor):  # type: ignore[misc]  # markdown has no types
    """Takes the scripts out of links, and leaves the words of pictures, which would be loaded from elsewhere."""

    def run(self, root: Element) -> None:
        """Change the card's elements in place."""
        for element in root.iter():
            target = entities.unescape(element.get("href", "").replace(markdown.util.AMP_SUBSTITUTE, "&"))
            if LINKS.match(target) is None:
                element.attrib.pop("href", None)
            if element.tag == "img":
                element.tag, element.text = "span", element.get("alt")
                element.attrib.clear()


def page(card: str) -> str:
    """Return a card as a page that links to the theme.

    HTML inside it is shown as text, pictures as their words. Only links to the web, mail and the page itself are kept.
    Its metadata are left out.

    Args:
        card: in Markdown.
    """
    written = markdown.Markdown(extensions=["tables", "fenced_code", "toc"])
    written.preprocessors.deregister("html_block")  # a card may come from a stranger
    written.inlinePatterns.deregister("html")
    written.treeprocessors.register(_Harmless(written), "harmless", -1)  # after all that writes links
    text = written.convert(without_metadata(card))
    scrolled = text.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    head = joined(
        *(Markup(f'<link rel="stylesheet" href="{name}">') for name in ("theme.css", "page.css")),
        Markup('<link rel="icon" href="data:,"><script type="module" src="theme.js"></script>'),
    )
    back = tag("nav", tag("div", tag("a", "Back to the pictures", href="index.html"), html.BUTTON))
    return html.document("Model card", head, joined(back, tag("main", tag("section", Markup(scrolled), class_="text"))))


def without_metadata(card: str) -> str:
    """Return a card without the YAML at its top."""
    parts = card.split(METADATA, 2)
    return parts[2] if len(parts) == 3 and not parts[0] else card
