"""The report says everything the record says, to people, and nothing else."""

import math
import re
import subprocess
import sys
from html import escape
from html.parser import HTMLParser

import pytest

from ratoon import report
from ratoon.records import (
    Changes,
    Choice,
    Comparison,
    Funnel,
    Interval,
    LawReport,
    Ledger,
    Lineage,
    Observation,
    RatioPoint,
    Refresh,
    Verdict,
)
from ratoon.report import drawing, wording

RATIOS = (0.1, 0.25, 0.4, 0.55, 0.7, 1.0)
SOURCES = {"python-prose": "general", "python-code": "domain"}
VOID = {"meta", "link", "br", "img", "hr", "input"}


def interval(value, half, confidence=0.95):
    return Interval(value=value, low=value - half, high=value + half, confidence=confidence)


def level(role, share, tokens, params):
    """A trade-off like the measured one: general rises steeply at the domain alone, domain falls with its share."""
    small, read = (142_000 / params) ** 0.05, (tokens / 2_000_000) ** 0.4
    if role == "general":
        return small * (2.31 * (1 - 0.015 * read) + read * (0.05 * share + 0.42 * share**6))
    return small * (2.74 - 0.34 * read * share**0.45)


def observation(role, share, tokens, *, params=142_000, run="target", finished=True, shift=0.0):
    name = next(source for source, of in SOURCES.items() if of == role)
    nats = level(role, share, tokens, params) + shift
    return Observation(
        run=run, group=run, commit="4f2c1d9", config="9b1f03aa77c2", model="nano", params_non_embedding=params,
        tokens=tokens, share=share, learning_rate=3e-3, step=tokens // 8192, finished=finished,
        evaluated=name, role=role, loss_nats=nats, bits_per_byte=nats / math.log(2) / 2.12,
    )  # fmt: skip


def sweep():
    start = [
        observation(role, 0.1, 0, run="p0", finished=False, params=p)
        for role in SOURCES.values()
        for p in (71_000, 142_000)
    ]
    ends = [
        observation(role, share, tokens, params=params, run=f"p-{params}-{share}-{tokens}", shift=0.004 * math.sin(k))
        for role in SOURCES.values()
        for k, share in enumerate(RATIOS)
        for params in (71_000, 142_000)
        for tokens in (125_000, 250_000, 500_000, 1_000_000)
    ]
    return tuple(start + ends)


def ledgers(source, role, documents, num_bytes):
    cut = {"too_short": documents // 40, "repeated_lines": documents // 90, "duplicate": documents // 12}
    cut_bytes = {"too_short": num_bytes // 400, "repeated_lines": num_bytes // 60, "duplicate": num_bytes // 11}
    kept, kept_bytes = documents - sum(cut.values()), num_bytes - sum(cut_bytes.values())
    into = Funnel(
        documents_in=documents + 12, bytes_in=num_bytes + 40_960, documents_kept=documents, bytes_kept=num_bytes,
        dropped={"invalid_utf8": 12}, dropped_bytes={"invalid_utf8": 40_960},
    )  # fmt: skip
    clean = Funnel(
        documents_in=documents, bytes_in=num_bytes, documents_kept=kept, bytes_kept=kept_bytes,
        dropped=cut, dropped_bytes=cut_bytes,
    )  # fmt: skip
    pack = Funnel(documents_in=kept, bytes_in=kept_bytes, documents_kept=kept, bytes_kept=kept_bytes)
    common = {"source": source, "role": role, "config": "c0ffee123456", "shards": {}}
    return (
        Ledger(stage="ingest", funnel=into, examples={"invalid_utf8": ["docs/a.txt:14", "docs/b.txt:2"]}, **common),
        Ledger(stage="clean", funnel=clean, held_out_documents=kept // 50, held_out_bytes=kept_bytes // 50, **common),
        Ledger(stage="pack", funnel=pack, tokens=kept_bytes // 3, held_out_tokens=kept_bytes // 150, **common),
    )


def choice(chosen=0.46):
    curve = tuple(
        RatioPoint(
            share=k / 40,
            general=interval(level("general", k / 40, 2_000_000, 142_000), 0.008 + 0.03 * (k / 40) ** 4, 0.9),
            domain=interval(level("domain", k / 40, 2_000_000, 142_000), 0.011, 0.9),
        )
        for k in range(2, 41)
    )
    law = {"params": {"E": 1.62, "A": 0.0131, "a": 0.31, "B": 3.2e-5}, "law": "dcpt", "observations": 48}
    return Choice(
        share=chosen, interval=Interval(value=0.49, low=0.46, high=0.53, confidence=0.9),
        reason="limited by general tolerance", law="dcpt",
        laws=(
            LawReport(role="general", seen_error=0.0031, unseen_error=0.0074, agreement=0.82, **law),
            LawReport(role="domain", seen_error=0.0022, unseen_error=None, agreement=0.95, at_bounds=("a",), **law),
        ),
        params_non_embedding=142_000, tokens=2_000_000, parent_general_nats=2.31, parent_domain_nats=2.74,
        ceiling_nats=2.31 * 1.02, tolerance=0.02, predicted_general=interval(2.302, 0.009, 0.9),
        predicted_domain=interval(2.5, 0.011, 0.9), curve=curve, second_opinion={"cmr": 0.51},
        warnings=("the domain law leaves a at its bound",),
    )  # fmt: skip


def comparison(benchmark, source, metric, parent, candidate, half, outcome):
    change = candidate - parent
    return Comparison(
        benchmark=benchmark, source=source, role=SOURCES[source], metric=metric, items=300,
        parent=interval(parent, 0.03), candidate=interval(candidate, 0.03), difference=interval(change, half),
        relative=interval(change / parent, half / parent) if metric == "bits_per_byte" else None, outcome=outcome,
    )  # fmt: skip


def verdict(promoted=True):
    reasons = (
        "domain text python-code: bits per byte -9.4% [-10.1, -8.7], asked for lower",
        "general text python-prose: bits per byte +0.6% [+0.2, +1.0], allowed +2.0%",
    )
    return Verdict(
        promoted=promoted, reasons=reasons, parent="ratoon-nano v1", candidate="train/checkpoint",
        comparisons=(
            comparison("held_out", "python-code", "bits_per_byte", 1.864, 1.689, 0.013, "win"),
            comparison("held_out", "python-prose", "bits_per_byte", 1.572, 1.581, 0.006, "loss"),
            comparison("continuation", "python-code", "accuracy", 0.455, 0.51, 0.041, "win"),
            comparison("continuation", "python-prose", "accuracy", 0.48, 0.475, 0.038, "tie"),
        ),
    )  # fmt: skip


def sample(**changes):
    tokens = [round(2_000_000 * k / 10) for k in range(11)]
    made = Refresh(
        name="ratoon-nano 2026-05-04 09:12", line="ratoon-nano", base="nano", started="2026-05-04T09:12:44+00:00",
        seconds={"prepare": 48.2, "sweep": 214.6, "train": 96.1, "assess": 61.0, "promote": 4.4},
        params={
            "refresh": {"base": "nano", "sources": list(SOURCES), "budget": "default"},
            "promote": {"min_domain_gain": 0.0, "max_general_loss": 0.02, "max_benchmark_loss": 0.1},
            "choose": {"ratio": None, "tolerance": 0.02}, "sweep": {"ratios": list(RATIOS), "tokens": 1_000_000},
            "train": {"learning_rate": 0.003, "schedule": {"name": "wsd"}, "precision": "fp32"},
        },
        ledgers=ledgers("python-prose", "general", 31_214, 24_812_113) + ledgers("python-code", "domain", 18_902, 9**8),
        observations=sweep(), choice=choice(),
        curve=tuple(
            observation(role, 0.46, t, finished=t == tokens[-1], shift=0.004 if t else 0.0)
            for t in tokens
            for role in SOURCES.values()
        ),
        verdict=verdict(), version=2,
        lineage=Lineage(
            license="apache-2.0",
            commit="4f2c1d9e0b7a44c1f2a9c8f1d0be6a4a1c2f3e4d", dirty=False, config="9b1f03aa77c2",
            parent="ratoon-nano v1",
            editions={"data/rows/nano/python-code": "5d41402abc4b2a76b9719d911017c592.dir"},
            mlflow_runs={"refresh": "0b5e2f7c9a1d4e3f8b6a", "train": "77aa2f7c9a1d4e3f8b6a"},
            packages={"torch": "2.13.0", "transformers": "5.23.1", "lm_eval": "0.4.13"},
        ),
    )  # fmt: skip
    return made.model_copy(update=changes)


class Page(HTMLParser):
    """Tags that close in order, the addresses they carry, and the words a reader sees."""

    def __init__(self, html):
        super().__init__()
        self.open, self.addresses, self.ids, self.tags, self.words = [], [], [], set(), ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [v for k, v in attrs if k in {"href", "src", "xlink:href", "action"}]
        self.ids += [v for k, v in attrs if k == "id"]

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open[-1:] == [tag], f"</{tag}> closes <{self.open[-1:]}> at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data


def read(refresh, links=None):
    return Page(report.render(refresh, links))


def test_the_page_is_well_formed_and_its_ids_are_unique():
    page = read(sample())
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)


def test_the_page_loads_nothing_and_runs_nothing():
    html = report.render(sample())
    page = Page(html)
    assert [a for a in page.addresses if a != "data:,"] == []
    assert not page.tags & {"script", "img", "iframe", "object", "embed", "form"}
    assert not re.search(r"https?://|@import", html)
    assert not re.search(r"url\((?!#)", html)


def test_the_same_record_gives_the_same_bytes_also_after_a_file(tmp_path):
    made = sample()
    page = report.write(made, tmp_path / "new" / "report.html")
    assert page.read_text(encoding="utf-8") == report.render(Refresh.model_validate_json(made.model_dump_json()))
    assert [p.name for p in page.parent.iterdir()] == ["report.html"]


def test_names_from_the_record_are_words_never_markup():
    name = "<script>alert(1)</script>"
    evil = sample()
    renamed = evil.model_dump_json().replace('"python-code"', f'"{name}"').replace("too_short", "<b>&x</b>")
    renamed = renamed.replace("limited by general tolerance", "'\\\"><svg onload=x>").replace("a.txt:14", "<i>")
    html = report.render(Refresh.model_validate_json(renamed))
    page = Page(html)
    assert page.open == []
    assert not page.tags & {"script", "b", "i"}
    assert "onload" not in re.sub(r">[^<]*<", "><", html)
    assert name in page.words


def test_every_comparison_reason_and_warning_is_on_the_page():
    made = sample()
    words = re.sub(r"\s+", " ", read(made).words)
    assert all(wording.typeset(reason) in words for reason in made.verdict.reasons)
    assert all(warning in words for warning in made.choice.warnings)
    for c in made.verdict.comparisons:
        assert f"{c.source}{c.benchmark}, {c.items} items" in words
    html = report.render(made)
    assert [html.count(f'outcome {o}"') for o in ("win", "tie", "loss")] == [2, 1, 1]
    for expected in (
        "invalid utf8",
        "duplicate",
        "docs/a.txt:14",
        "nano",
        "4f2c1d9e0b7a",
        "5d41402abc4b",
        "cmr would choose 51%",
    ):
        assert expected in words


def test_what_was_amended_kept_by_kind_and_divided_is_shown_beside_the_funnel():
    ingest, clean, pack = ledgers("docs", "general", 1000, 10**6)
    funnel = clean.funnel
    half = {"documents": funnel.documents_kept // 2, "bytes": funnel.bytes_kept // 2}
    rest = {name: getattr(funnel, f"{name}_kept") - half[name] for name in half}
    held = {"held_out_documents": clean.held_out_documents // 2, "held_out_bytes": clean.held_out_bytes // 2}
    over = {name: getattr(clean, name) - held[name] for name in held}
    told = {
        "kept_by": {"language": {"de": half, "<i>": rest}},
        "portions": {"de": {**half, **held}, "other": {**rest, **over}},
    }
    ingest = ingest.model_copy(update={"amended": {"private_key": Changes(documents=3, occurrences=1205)}})
    clean = Ledger.model_validate({**clean.model_dump(), **told})
    page = read(sample(ledgers=(ingest, clean, pack)))
    words = re.sub(r"\s+", " ", page.words)
    assert page.open == []
    assert "Changed in the documents kept: private key 1,205 in 3 documents." in words
    assert "Kept, by language" in words
    assert f"<i>: {rest['documents']} documents, {wording.size(rest['bytes'])}" in words
    assert "Portion" in words
    html = report.render(sample(ledgers=(ingest, clean, pack)))
    assert f'<tr><th scope="row">other</th><td class="n">{rest["documents"]}</td>' in html
    plain = report.render(sample())
    assert not any(heading in plain for heading in ("Changed in the documents", "Kept, by", ">Portion<"))


def test_forgetting_is_measured_from_where_the_proxy_itself_began():
    made = sample()
    alone = [o for o in made.observations if o.share == 1 and o.role == "general" and o.tokens == 1_000_000]
    largest = max(alone, key=lambda o: o.params_non_embedding)
    begun = next(
        o for o in made.observations if o.tokens == 0 and o.role == "general" and o.params_non_embedding == 142_000
    )
    assert wording.change(largest.loss_nats / begun.loss_nats - 1) in read(made).words
    mixed = tuple(o for o in made.observations if o.share < 1)
    assert "Not measured: no proxy read domain text only" in read(sample(observations=mixed)).words


def test_what_was_not_measured_is_said_and_is_never_zero():
    bare = sample(
        curve=(), observations=(), ledgers=(), seconds={}, version=None, params={},
        verdict=Verdict(promoted=False, reasons=(), comparisons=(), parent="p", candidate="c"),
        choice=choice().model_copy(update={"curve": (), "laws": (), "second_opinion": {}, "warnings": ()}),
        lineage=Lineage(commit=None, dirty=None, config="x", parent="nano"),
    )  # fmt: skip
    page = read(bare)
    assert page.open == []
    assert page.words.count("not measured") >= 10
    assert "Refused" in page.words
    assert "not registered" in page.words
    assert not re.search(r"\b(0\.000|nan|None|Undefined)\b", page.words)
    assert "not measured" in report.summary(bare)


def test_a_loss_that_is_missing_or_not_a_number_is_left_out_of_the_figures():
    gone = [o.model_copy(update={"loss_nats": None, "bits_per_byte": None}) for o in sweep()[:20]]
    wild = [o.model_copy(update={"loss_nats": math.inf, "bits_per_byte": math.nan}) for o in sweep()[20:30]]
    made = sample(observations=(*gone, *wild, *sweep()[30:]), curve=tuple(gone[:4]))
    html = report.render(made)
    assert Page(html).open == []
    assert not re.search(r'[ ",(ML-](nan|inf)[ ",)L]', html)


def test_an_address_that_would_run_script_is_only_text():
    page = read(sample(), {"MLflow": "http://127.0.0.1:5000/#/x", "bad": "javascript:alert(1)"})
    assert page.addresses == ["data:,", "http://127.0.0.1:5000/#/x"]
    assert "javascript:alert(1)" in page.words


def test_a_dirty_tree_and_a_miss_of_the_prediction_are_warned_of():
    made = sample()
    far = made.choice.model_copy(update={"predicted_domain": interval(2.9, 0.01, 0.9)})
    words = read(sample(choice=far, lineage=made.lineage.model_copy(update={"dirty": True}))).words
    assert "uncommitted changes" in words
    assert "lies outside the predicted interval" in words


def test_the_summary_fits_eighty_columns_of_ascii_and_says_what_matters():
    made = sample()
    text = report.summary(made)
    assert text.isascii()
    assert max(len(line) for line in text.splitlines()) <= 80
    for expected in (
        "PROMOTED",
        "ratoon-nano version 2",
        "46%",
        "46% to 53%",
        "limited by general tolerance",
        "1.864",
        "-9.4%",
    ):
        assert expected in text
    assert all(reason in re.sub(r"\s+", " ", text) for reason in made.verdict.reasons)


def test_the_summary_of_long_and_hostile_names_still_fits():
    renamed = sample().model_dump_json().replace("python-code", "p" * 64).replace("lower", "\\u001b[31m" + "x" * 300)
    text = report.summary(Refresh.model_validate_json(renamed))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_more_sources_of_one_role_and_a_ratio_at_its_end_are_shown_too(share):
    made = sample(choice=choice(share))
    more = [o.model_copy(update={"evaluated": "notes"}) for o in made.curve if o.role == "domain"]
    extra = made.verdict.comparisons[0].model_copy(update={"source": "notes", "relative": interval(-0.031, 0.004)})
    both = made.verdict.model_copy(update={"comparisons": (*made.verdict.comparisons, extra)})
    page = read(made.model_copy(update={"curve": (*made.curve, *more), "verdict": both}))
    assert page.open == []
    assert "There is more than one domain source" in page.words
    assert "−3.1%" in page.words


def test_a_refused_candidate_leaves_the_champion_where_it_is():
    made = sample(verdict=verdict(promoted=False), version=3)
    assert "REFUSED  ratoon-nano version 3; the champion stays" in report.summary(made)
    assert "Refused" in read(made).words


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (wording.compact(1_234_567), "1.23M"),
        (wording.compact(999_960), "1M"),
        (wording.compact(0), "0"),
        (wording.size(16_400_000), "16.4 MB"),
        (wording.change(-0.0945), "−9.4%"),
        (wording.change(0.00001), "0.0%"),
        (wording.change(None), "not measured"),
        (wording.loss(math.nan), "not measured"),
        (wording.share(0.4625), "46.2%"),
        (wording.duration(552), "9 min 12 s"),
        (wording.duration(3661), "1 h 01 min"),
        (wording.moment("2026-05-04T11:12:44+02:00"), "4 May 2026, 09:12 UTC"),
        (wording.moment("yesterday"), "yesterday"),
    ],
)
def test_numbers_read_as_people_write_them(made, expected):
    assert made == expected


@pytest.mark.parametrize("ends", [(0.0, 1.0), (2.25, 2.81), (0.0, 2e6), (1.5718, 1.5723), (-0.1, 0.02)])
def test_ticks_are_few_and_lie_inside_their_range(ends):
    found = drawing.ticks(*ends)
    assert 2 <= len(found) <= 8
    assert all(ends[0] - 1e-9 <= x <= ends[1] + 1e-9 for x in found)


def test_importing_the_report_costs_a_cheap_command_nothing():
    code = "import sys, ratoon.report; print([m for m in ('torch', 'matplotlib', 'jinja2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_escape_of_a_name_is_the_usual_one():
    assert escape("<script>") in report.render(sample(line="<script>"))


def test_the_licence_that_a_model_inherits_is_on_the_page():
    assert "apache-2.0" in read(sample()).words
    unsaid = sample().lineage.model_copy(update={"license": None})
    assert "none declared" in read(sample(lineage=unsaid)).words
