"""What one refresh found, for people: a page for the browser and a summary for the terminal.

The page is a single HTML file. It loads nothing, runs nothing, follows the reader's light or dark mode,
and is the same bytes for the same record.
"""

from pathlib import Path

from ratoon import records
from ratoon.report.terminal import summary

__all__ = ["render", "summary", "write"]


def render(refresh: records.Refresh, links: dict[str, str] | None = None) -> str:
    """The whole page as HTML.

    `links` (label -> address) are shown at the top; an address that is neither http(s), file nor relative
    is shown as text. They are the only addresses on the page, and nothing is loaded from them.
    """
    from ratoon.report import page

    return page.render(refresh, links or {})


def write(refresh: records.Refresh, path: Path | str, links: dict[str, str] | None = None) -> Path:
    """The page as the file `path`, whole or not at all; returns it. Raises OSError when it cannot be written."""
    target = Path(path)
    records.write_text(target, render(refresh, links))
    return target
