"""The record as one HTML page: what templates/page.html is given."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ratoon.config import Role
from ratoon.records import Comparison, Demand, Refresh
from ratoon.report import (
    closer_sections,
    dip,
    facts,
    figures,
    forest,
    lead,
    pareto,
    terminal,
    wording,
    writing_sections,
)
from ratoon.report.beside import Beside
from ratoon.report.sections import Section

GROUPS = (
    ("bits_per_byte", "Held-out text, bits per byte", "lower is better"),
    ("accuracy", "Benchmarks, accuracy", "higher is better"),
)
# In the order of the page: the proof, then what may be wrong with it, then curiosity.
SECTIONS: tuple[tuple[str, Callable[[Any], Iterator[Section]]], ...] = (
    ("matrix", closer_sections.matrix),
    ("health", writing_sections.health),
    ("arms", writing_sections.arms),
    ("periods", closer_sections.periods),
    ("trajectory", closer_sections.trajectory),
    ("judges", closer_sections.judges),
    ("probes", closer_sections.probes),
    ("shift", closer_sections.shift),
    ("noise", closer_sections.noise),
)


NOTHING = Beside()


def render(refresh: Refresh, links: dict[str, str], beside: Beside = NOTHING) -> str:
    """The page. Every value is escaped; a template that asks for what is not there fails here, not in a browser."""
    environment = Environment(
        loader=PackageLoader("ratoon.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["words"] = wording
    context = {**_evidence(refresh), **_context(refresh), **_verdict(refresh, beside), **_beside(refresh, beside)}
    html = environment.get_template("page.html").render(refresh=refresh, links=safe(links), **context)
    return html.strip() + "\n"


def safe(links: dict[str, str]) -> list[tuple[str, str, bool]]:
    """(label, address, whether it may be followed): an address that would run script is only text."""
    return [
        (label, address, urlsplit(address).scheme in ("", "http", "https", "file")) for label, address in links.items()
    ]


def _context(refresh: Refresh) -> dict[str, Any]:
    return {
        "version": terminal.version(refresh),
        "sources": facts.sources(refresh),
        "corpora": facts.corpora(refresh),
        "asked": _asked(refresh.params),
        "warnings": _warnings(refresh),
        "params": json.dumps(refresh.params, indent=2, sort_keys=True, default=str, ensure_ascii=False),
        "total_seconds": sum(refresh.seconds.values()) if refresh.seconds else None,
        "longest": max(refresh.seconds.values(), default=0) or 1,
    }


def _verdict(refresh: Refresh, beside: Beside) -> dict[str, Any]:
    verdict = refresh.verdict
    said: dict[str, Demand] = {demand.reason: demand for demand in verdict.demands}
    return {
        "decision": lead.WORDS[verdict.decision],
        "title": lead.TITLES[verdict.decision],
        "paragraph": lead.paragraph(refresh),
        "by_hand": lead.command(refresh),
        "reasons": [(wording.typeset(reason), said.get(reason)) for reason in verdict.reasons],
        "outcomes": verdict.outcomes,
        "scores_file": beside.address("assess/gate.json"),
    }


def _beside(refresh: Refresh, beside: Beside) -> dict[str, Any]:
    arms = pareto.arms(beside.found["arms"]) if "arms" in beside.found else []
    found = [pareto.place(it) for it in beside.earlier] + [pareto.place(refresh, here=True)]
    places = [it for it in found if it is not None]
    gate = refresh.params.get("promote") or {}
    picture = pareto.picture([*arms, *places], gate.get("max_general_loss"), gate.get("min_domain_gain"))
    flips = refresh.verdict.flips
    return {
        "beside": beside,
        "pareto": picture if places else None,
        "flipped": [(f, shown) for f in flips if (shown := beside.flipped.get((f.against, f.benchmark, f.source)))],
        "flips_file": beside.address(*(f.file for f in flips)),
        "sections": [s for name, make in SECTIONS if name in beside.found for s in make(beside.found[name])],
    }


def _evidence(refresh: Refresh) -> dict[str, Any]:
    curves = facts.curves(refresh)
    return {
        "headline": {role: facts.headline(refresh, role) for role in facts.ROLES},
        "groups": _groups(refresh),
        "predictions": facts.predictions(refresh),
        "forgetting": facts.forgetting(refresh),
        "num_proxies": len({item.run for item in refresh.observations if item.finished and item.tokens}),
        "ratio_figures": {role: figures.ratio_panel(refresh, role) for role in facts.ROLES},
        "run_figures": [(c, figures.training_panel(c, k) if c.points else None) for k, c in enumerate(curves)],
        "gaps": dip.gaps(refresh.curve),
        "several": {role: sum(c.role == role for c in curves) > 1 for role in facts.ROLES},
    }


def _groups(refresh: Refresh) -> list[tuple[str, str, list[tuple[Comparison, Markup]], Markup]]:
    """The comparisons of each metric with their bars, which share one scale within a metric, and all in one plot."""
    made, number = [], 0
    for metric, title, better in GROUPS:
        chosen = [c for c in refresh.verdict.comparisons if c.metric == metric]
        by, rows = figures.scale(chosen, _limits(refresh.params, metric)), []
        asked = forest.limits(chosen, refresh.verdict.demands, by.limits)
        for comparison in chosen:
            rows.append((comparison, figures.change_bar(comparison, by, number)))
            number += 1
        if rows:
            made.append((title, better, rows, forest.plot(chosen, asked, f"forest-{metric}")))
    return made


def _limits(params: dict[str, Any], metric: str) -> dict[Role, float]:
    """The gate's limits as changes, where the parameters have them."""
    gate = params.get("promote") or {}
    if metric == "accuracy":
        fall = gate.get("max_benchmark_loss")
        return {role: -fall for role in facts.ROLES} if isinstance(fall, int | float) else {}
    rise, gain = gate.get("max_general_loss"), gate.get("min_domain_gain")
    limits: dict[Role, float] = {"general": rise} if isinstance(rise, int | float) else {}
    return limits | ({"domain": -gain} if isinstance(gain, int | float) else {})


def _asked(params: dict[str, Any]) -> dict[str, Any]:
    """The few parameters that the page names in words; None where the record does not hold them."""
    train, choose, sweep = (params.get(section) or {} for section in ("train", "choose", "sweep"))
    return {
        "budget": (params.get("refresh") or {}).get("budget"),
        "ratio": choose.get("ratio"),
        "ratios": sweep.get("ratios") or (),
        "proxy_tokens": sweep.get("tokens"),
        "learning_rate": train.get("learning_rate"),
        "schedule": (train.get("schedule") or {}).get("name"),
        "precision": train.get("precision"),
    }


def _warnings(refresh: Refresh) -> list[str]:
    """The choice's own, then what the page can see for itself."""
    said = list(refresh.choice.warnings)
    if refresh.lineage.dirty:
        said.append("made from a working tree with uncommitted changes: the commit alone does not make it again")
    lost = facts.forgetting(refresh)
    if lost and lost.rise is not None and lost.rise <= refresh.choice.tolerance:
        said.append(
            f"the proxy that read domain text only moved general loss by {wording.change(lost.rise)}, inside the "
            f"tolerance: at this budget there is little to protect, and the choice proves little"
        )
    return said + [_missed(item) for item in facts.predictions(refresh) if item.inside is False]


def _missed(item: facts.Prediction) -> str:
    predicted = wording.span(wording.loss(item.predicted.low), wording.loss(item.predicted.high))
    return f"measured {item.role} loss {wording.loss(item.measured)} lies outside the predicted interval {predicted}"
