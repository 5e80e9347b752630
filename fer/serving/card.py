"""The model card of the network that is served, as a page."""

from pathlib import Path

import markdown
from markupsafe import Markup

from fer.models import checkpoints
from fer.models.provenance import Provenance
from fer.reports import html, model_card
from fer.reports.html import joined, tag

METADATA = "---\n"  # before and after the card's metadata


def text_of(network: str | Path, architecture: str, made: Provenance) -> str:
    """Return the card beside a network's file, or of the run's last evaluation; else what is known without one.

    Args:
        network: name or path, as given to ``checkpoints.load``.
        architecture: of the network.
        made: how it was made.
    """
    file = checkpoints.find(network)
    run = file.parent.parent
    evaluated = sorted(run.glob("evaluations/*/model_card.md"), key=lambda card: card.stat().st_mtime_ns)
    cards = [file.with_suffix(".md"), *reversed(evaluated if file.parent.name == "checkpoints" else [])]
    for card in cards:
        if card.is_file():
            return card.read_text(encoding="utf-8", errors="replace")
    trained = made.dataset.get("name", "data that its file does not name")
    return (
        f"# {architecture}, facial-emotion recognition\n\nTrained on {trained}. It has no card: `python -m "
        f"fer.evaluate NETWORK` measures it and writes one.\n\n{model_card.LIMITS.read_text(encoding='utf-8')}"
    )


def page(card: str) -> str:
    """Return a card as a page that links to the theme; HTML inside it is shown as text, its metadata are left out.

    Args:
        card: in Markdown.
    """
    written = markdown.Markdown(extensions=["tables", "fenced_code", "toc"])
    written.preprocessors.deregister("html_block")  # a card may come from a stranger
    written.inlinePatterns.deregister("html")
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
