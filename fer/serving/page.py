"""The files of the page, by name.

They are its own in ``page/``, and the theme of the reports. A folder for static hosting takes the same files, with
another ``backend.js``.
"""

from collections.abc import Mapping
from pathlib import Path

from fer.reports import html

FOLDER = Path(__file__).with_name("page")


def files() -> Mapping[str, bytes]:
    """Return the contents of the page's files by name; ``index.html`` names the others relative to itself."""
    read = {file.name: file.read_bytes() for file in sorted(FOLDER.iterdir()) if file.is_file()}
    return read | {"theme.css": html.stylesheet().encode(), "theme.js": html.SWITCH.encode()}
