"""The example of docs/choosing-the-ratio.md: its table of runs, its pictures and the answers below its snippets.

    python benchmarks/laws_pictures.py                                   pictures and answers, from the table as it is
    python benchmarks/laws_pictures.py --observations observations.csv   the table too, from a sweep's observations

The table is the demo's own sweep: `make demo`, then .ratoon/refreshes/ratoon-nano/*/sweep/observations.csv.
"""

import argparse
import contextlib
import csv
import io
import os
import re
from pathlib import Path

from ratoon import records
from ratoon.laws import read_runs, study
from ratoon.report import laws

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "choosing-the-ratio.md"
TABLE = ROOT / "docs" / "examples" / "runs.csv"
IMAGES = ROOT / "docs" / "images"
COLUMNS = "general=loss_prose,domain=loss_code"
TARGET = {"N": 150_976, "D": 800_000}
SHOWN = ("ratio-general", "ratio-domain", "contours-general", "pareto", "residuals-share", "calibration-runs")
CELL = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)


def widen(observations: Path) -> None:
    """One row per run: what most people's tables look like."""
    found: dict[tuple[str, int], dict[str, object]] = {}
    for item in records.read_observations(observations):
        row = found.setdefault((item.run, item.tokens), {"run": item.run, "group": item.group})
        row |= {"params": item.params_non_embedding, "tokens": item.tokens, "share": item.share}
        assert item.loss_nats is not None
        row["loss_prose" if item.role == "general" else "loss_code"] = round(item.loss_nats, 5)
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, ["run", "group", "params", "tokens", "share", "loss_prose", "loss_code"], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(found.values())


def draw() -> None:
    found = study(read_runs(TABLE, COLUMNS), target=TARGET, decide=True)
    figures = laws.draw(found, laws.foretell(found))
    for name in SHOWN:
        records.write_text(IMAGES / f"laws-{name}.svg", laws.standalone(figures[name], laws.role_of(name)))


def cells(page: str) -> list[tuple[str, str]]:
    """(snippet, the answer printed below it) in the order of the page."""
    return [(match[1], match[2] or "") for match in CELL.finditer(page)]


def run_cells(page: str) -> list[str]:
    """What each snippet prints; they share one namespace, from the project's folder."""
    names: dict[str, object] = {}
    said = []
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        for code, _ in cells(page):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(code, str(PAGE), "exec"), names)
            said.append(out.getvalue())
    finally:
        os.chdir(before)
    return said


def answer() -> None:
    """The page with what its snippets print today."""
    page = PAGE.read_text(encoding="utf-8")
    said = iter(run_cells(page))

    def again(match: re.Match[str]) -> str:
        found = next(said)
        return f"```python\n{match[1]}```\n" + (f"\n```text\n{found}```\n" if found else "")

    records.write_text(PAGE, CELL.sub(again, page))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observations", type=Path, help="a sweep's observations.csv")
    asked = parser.parse_args()
    if asked.observations:
        widen(asked.observations)
    draw()
    answer()
