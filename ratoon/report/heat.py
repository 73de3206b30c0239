"""The matrix of a line as a heat map: how each model does on the text of each refresh, against the base."""

from collections.abc import Iterator

from markupsafe import Markup

from ratoon.evaluation.forgetting import Matrix
from ratoon.report import drawing, history, wording
from ratoon.report.drawing import Panel

LEFT, HEAD, ROW = 92, 40, 30
COLUMNS, ROWS = 8, 14  # that can be read; the newest, and the base
LEAST = 0.05  # relative: the change of the darkest shade, or more, so that small changes look small


def maps(matrix: Matrix) -> Iterator[tuple[str, str, Markup]]:
    """(source, role, figure)"""
    for number, source in enumerate(sorted({each.source for each in matrix.slices})):
        role = next(each.role for each in matrix.slices if each.source == source)
        yield source, role, heat(matrix, source, number)


def heat(matrix: Matrix, source: str, number: int) -> Markup:
    columns = [k for k, each in enumerate(matrix.slices) if each.source == source][-COLUMNS:]
    rows = list(range(len(matrix.models)))
    rows = rows if len(rows) <= ROWS else [0, *rows[-(ROWS - 1) :]]
    width = (440 - LEFT) / max(len(columns), 2)
    panel = Panel((0, 1), (0, 1), f"heat-{number}", 440, HEAD + ROW * len(rows) + 6, LEFT, 0, HEAD, 6)
    most = max([LEAST, *(abs(x) for k in columns for r in rows if (x := change(matrix, r, k)) is not None)])
    body = [drawing.text((0, 14), "text that came with", "label")]
    for across, k in enumerate(columns):
        middle = LEFT + (across + 0.5) * width
        body.append(drawing.text((middle, HEAD - 8), history.head(matrix.slices[k]), "strong", "middle"))
    for down, r in enumerate(rows):
        y = HEAD + down * ROW
        label = history.name(matrix.models[r]) if r == len(matrix.models) - 1 else matrix.models[r].label
        body.append(drawing.text((0, y + 19), label if len(label) < 15 else f"{label[:13]}…", "strong"))
        for across, k in enumerate(columns):
            body.append(cell(matrix, r, k, (LEFT + across * width, y), (width, most)))
    title = f"Bits per byte of each model on {source}, by the refresh that brought the text"
    return drawing.svg(panel, title, " ".join(said(matrix, r, columns) for r in rows), body)


def change(matrix: Matrix, row: int, column: int) -> float | None:
    """Against the oldest model that was asked, relative."""
    value = matrix.scores[row][column]
    first = next((line[column] for line in matrix.scores if line[column] is not None), None)
    return None if value is None or not first else value / first - 1


def cell(matrix: Matrix, row: int, column: int, corner: drawing.XY, by: tuple[float, float]) -> Markup:
    """Green: fewer bits than the base; red: more. A star: text the model had not read."""
    (x, y), (width, most) = corner, by
    moved = change(matrix, row, column)
    middle = (x + width / 2, y + 19)
    if moved is None:
        return drawing.text(middle, "–", "", "middle")
    words = drawing.text(middle, history.cell(matrix, row, column).strip(), "cell", "middle")
    if moved == 0:
        return words
    css = "better" if moved < 0 else "worse"
    fill = drawing.box((x + 1, y + 1), (x + width - 1, y + ROW - 1), css)
    shade = Markup('<g opacity="{}">{}</g>').format(f"{0.06 + 0.6 * abs(moved) / most:.2f}", fill)
    return shade + words


def said(matrix: Matrix, row: int, columns: list[int]) -> str:
    cells = [
        f"{history.head(matrix.slices[k])} {wording.loss(value)}"
        for k in columns
        if (value := matrix.scores[row][k]) is not None
    ]
    return f"{matrix.models[row].label}: {', '.join(cells) or 'not asked'}."
