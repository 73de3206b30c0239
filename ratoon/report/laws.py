"""A study of laws as a page, as figures one by one, and as JSON."""

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import unescape
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ratoon import records
from ratoon.laws.decision.evidence import Evidence, HeldOutPoint, calibrate
from ratoon.laws.decision.study import Study
from ratoon.report import drawing, evidence_figures, law_figures, wording
from ratoon.report.facts import ROLES
from ratoon.report.laws_text import parameters

FIGURE = re.compile(
    r'<svg class="figure" viewBox="0 0 (?P<width>\d+) (?P<height>\d+)" (?P<rest>[^>]*>)'
    r"(?P<titled><title[^>]*>(?P<title>[^<]*)</title>)"
)
ZOOM = 1.6  # of a figure of its own
LETTER, LINE = 7.4, 17  # width of a letter of a title, height of its lines
LABELS = {
    "share": "domain share",
    "r": "own share of training tokens",
    "D": "tokens",
    "N": "parameters",
    "U": "unique tokens",
    "lr": "peak learning rate",
    "p": "share injected",
    "N_mean": "mean parameters",
}
RESIDUALS = ("share", "r", "D", "N", "U", "lr")  # what residuals are shown against, as far as a law reads it


def write(study: Study, folder: Path) -> Path:
    """laws.html, figures/*.svg and result.json in `folder`; returns the page."""
    points = foretell(study)
    figures = draw(study, points)
    for name, figure in figures.items():
        records.write_text(folder / "figures" / f"{name}.svg", standalone(figure, role_of(name)))
    document = {**study.document(), "held_out": {on: [asdict(p) for p in found] for on, found in points.items()}}
    records.write_text(folder / "result.json", json.dumps(document, indent=2) + "\n")
    page = folder / "laws.html"
    records.write_text(page, render(study, points, figures))
    return page


def role_of(name: str) -> str:
    """Whose colour a figure of this name is in."""
    return "domain" if name == "pareto" else name.rsplit("-", 1)[-1]


def foretell(study: Study) -> dict[str, tuple[HeldOutPoint, ...]]:
    """What the believed law of each loss said of the runs left out; without the losses of which none could be."""
    found = {on: calibrate(study.best(on)) for on in study.losses}
    return {on: points for on, points in found.items() if points}


def draw(study: Study, points: Mapping[str, Sequence[HeldOutPoint]]) -> dict[str, Markup]:
    """Name -> figure."""
    believed = [study.best(on) for on in study.losses]
    found: dict[str, Markup] = {}
    if study.believed is not None:
        found |= {f"ratio-{role}": law_figures.ratio(study, role) for role in ROLES}
        found |= {f"contours-{role}": law_figures.contours(study, role) for role in ROLES}
        found["pareto"] = law_figures.pareto(study)
    else:
        drawings = {f"along-{one.on}": evidence_figures.along(one, LABELS, study.target) for one in believed}
        found |= {name: figure for name, figure in drawings.items() if figure is not None}
    names = ("predicted", *_against(study))
    drawn = evidence_figures.residuals(believed, {name: LABELS[name] for name in names[1:]})
    found |= {f"residuals-{name}": figure for name, figure in zip(names, drawn, strict=True)}
    found["agreement"] = evidence_figures.agreement(believed)
    if points:
        found["calibration-runs"] = evidence_figures.held_out(points)
        found["calibration-coverage"] = evidence_figures.coverage(points)
    return found


def _against(study: Study) -> list[str]:
    """Inputs that vary, of every believed law."""
    laws = [study.best(on) for on in study.losses]
    names = [name for name in RESIDUALS if name != "r" or study.believed is None]
    held = [name for name in names if all(("r" if name == "share" else name) in one.runs.inputs for one in laws)]
    held = [name for name in held if name != "share" or study.believed is not None]
    return [name for name in held if any(_varies(one, name) for one in laws)]


def _varies(one: Evidence, name: str) -> bool:
    values = one.runs.inputs["r" if name == "share" else name]
    return float(values.max()) > float(values.min())


def render(study: Study, points: Mapping[str, Sequence[HeldOutPoint]], figures: Mapping[str, Markup]) -> str:
    """The page as HTML: one file that loads nothing, runs nothing and follows light or dark mode."""
    environment = Environment(
        loader=PackageLoader("ratoon.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["words"] = wording
    every = [point for found in points.values() for point in found]
    context = {
        "study": study,
        "choice": study.choice,
        "band": study.choice and law_figures.decided(study.choice),
        "name": Path(study.table.sheet.where).name,
        "law_count": len({one.law for one in study.laws}),
        "lede": f"Believed: {', '.join(_believed(study))}.",
        "regret": _regret(study),
        "asked": _asked(study),
        "ratio": {role: figures[f"ratio-{role}"] for role in ROLES if f"ratio-{role}" in figures},
        "contours": {role: figures[f"contours-{role}"] for role in ROLES if f"contours-{role}" in figures},
        "pareto": figures.get("pareto"),
        "along": [figure for name, figure in figures.items() if name.startswith("along-")],
        "residuals": [figure for name, figure in figures.items() if name.startswith("residuals-")],
        "calibration": [figure for name, figure in figures.items() if name.startswith("calibration-")],
        "agreement": figures["agreement"],
        "inside": sum(point.inside for point in every),
        "foretold": len(every),
        "params": parameters,
    }
    return environment.get_template("laws.html").render(**context).strip() + "\n"


def _believed(study: Study) -> list[str]:
    return [f"{study.best(on).law}{'' if on == 'loss' else f' for {on} loss'}" for on in study.losses]


def _regret(study: Study) -> str | None:
    return f"{study.choice.regret:.3g}" if study.choice and study.choice.regret is not None else None


def _asked(study: Study) -> list[tuple[str, str]]:
    """The target, where no choice fills the tiles."""
    if study.choice:
        return []
    return [(LABELS.get(k, k).capitalize(), wording.compact(v)) for k, v in study.target.items()]


# ---------------------------------------------------------------- figures of their own


def standalone(figure: Markup, role: str = "") -> str:
    """A figure as a file: titled, with its own style, so that it follows light or dark mode wherever it is shown."""
    drawn = FIGURE.match(str(figure))
    assert drawn is not None
    width, height = int(drawn["width"]), int(drawn["height"])
    lines = textwrap.wrap(unescape(drawn["title"]), int(width / LETTER))
    above = LINE * len(lines) + 8
    titles = [drawing.text((2, LINE * k + 14 - above), line, "strong") for k, line in enumerate(lines)]
    paper = f'<rect class="paper" y="{-above}" width="{width}" height="{height + above}"/>'
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{ZOOM * width:.0f}" height="{ZOOM * (height + above):.0f}" '
        f'viewBox="0 {-above} {width} {height + above}" class="figure {role if role in ROLES else "general"}" '
    )
    inner = drawn["rest"] + drawn["titled"] + f"<style>{_style()}</style>" + paper + "".join(titles)
    return opening + inner + str(figure)[drawn.end() :] + "\n"


def _style() -> str:
    """The colours and the rules of figures, out of the pages' style sheets."""
    environment = Environment(loader=PackageLoader("ratoon.report", "templates"))
    page, laws = (environment.loader.get_source(environment, name)[0] for name in ("page.css", "laws.css"))  # type: ignore[union-attr]
    colours = page[: page.index("* { box-sizing")]
    figures = page[page.index("svg text {") : page.index(".legend {")]
    own = laws[: laws.index(".triple")]
    text = "svg { font-family: system-ui, sans-serif; }\n"
    roles = ".general { --role: var(--general); }\n.domain { --role: var(--domain); }\n"
    return f"\n{colours}{roles}{text}{figures}{own}"
