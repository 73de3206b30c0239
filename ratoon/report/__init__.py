"""What one refresh found, for people: a page for the browser and a summary for the terminal.

The page is a single HTML file. It loads nothing, runs nothing, follows the reader's light or dark mode,
and is the same bytes for the same record.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ratoon import records
from ratoon.config import Base
from ratoon.report.terminal import summary

if TYPE_CHECKING:
    from ratoon.report.beside import Beside

CARD = "model-card.md"

__all__ = ["CARD", "hub_name", "render", "summary", "write", "write_card"]


def render(refresh: records.Refresh, links: dict[str, str] | None = None, beside: "Beside | None" = None) -> str:
    """The whole page as HTML.

    `links` (label -> address) are shown at the top; an address that is neither http(s), file nor relative
    is shown as text. With them, the files the numbers are from are the only addresses on the page, and nothing is
    loaded from any. `beside` is what lies beside the record; none: the record alone is told.
    """
    from ratoon.report import page

    return page.render(refresh, links or {}, beside or page.NOTHING)


def write(refresh: records.Refresh, path: Path | str, links: dict[str, str] | None = None) -> Path:
    """The page as the file `path`, whole or not at all, with what lies in its folder; returns it.

    Raises OSError when it cannot be written.
    """
    from ratoon.report.beside import gather

    target = Path(path)
    records.write_text(target, render(refresh, links, gather(refresh, target.parent)))
    return target


def write_card(refresh: records.Refresh, folder: Path | str, base_model: str | None = None) -> Path:
    """The model card in the refresh's folder, as `model-card.md`; returns it.

    `base_model` is the hub's name of the base, where it has one. Raises OSError when it cannot be written.
    """
    from ratoon.report import card
    from ratoon.report.beside import gather

    target = Path(folder) / CARD
    records.write_text(target, card.text(refresh, gather(refresh, Path(folder)), base_model))
    return target


def hub_name(base: Base, root: Path) -> str | None:
    """What a hub knows the base as; None for one that is trained here, or lies in a folder or a package."""
    path = getattr(base.weights, "path", None)
    return path if path and re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not (root / path).exists() else None
