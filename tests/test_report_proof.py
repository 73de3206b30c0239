"""What lies beside a record is on its page with its own numbers; what is not there is no section and breaks nothing."""

import json
import math
import re
from html import unescape

import pytest

from ratoon import records, report
from ratoon.evaluation.forgetting import Matrix
from ratoon.evaluation.history import Row, Slice
from ratoon.evaluation.noise import Rise, Sensitivity
from ratoon.evaluation.periods import Period, Periods, PeriodScore, Slope
from ratoon.records import Choice, Comparison, Demand, Flips, Interval, Lineage, Refresh, Verdict
from ratoon.report import beside, lead, pareto


def interval(value, half=0.01, confidence=0.95):
    return Interval(value=value, low=value - half, high=value + half, confidence=confidence)


def comparison(source, role, change, metric="bits_per_byte", **more):
    moved = interval(change)
    better = moved if metric == "accuracy" else interval(-change)
    return Comparison(
        benchmark="held-out" if metric == "bits_per_byte" else "next-passage", source=source, role=role, metric=metric,
        items=200, parent=interval(2.0 if metric == "bits_per_byte" else 0.4),
        candidate=interval(2.0 * (1 + change) if metric == "bits_per_byte" else 0.4 + change), difference=moved,
        relative=moved if metric == "bits_per_byte" else None, samples=f"candidate/held-out--{source}.parquet",
        outcome="win" if better.low > 0 else "loss" if better.high < 0 else "tie", **more,
    )  # fmt: skip


def verdict(decision="ask", gain=-0.1234, loss=0.0071, **more):
    reasons = ("the domain gained 12.3%", "the general text may have lost more than is allowed")
    return Verdict(
        decision=decision, promoted=decision == "promote", reasons=reasons, parent="p", candidate="c",
        comparisons=(
            comparison("manuals", "domain", gain, detectable=0.0333),
            comparison("prose", "general", loss),
            comparison("manuals", "domain", 0.05, "accuracy"),
        ),
        demands=(
            Demand(kind="gain", benchmark="held-out", source="manuals", state="shown", answer="promote",
                   reason=reasons[0], limit=-0.0512),
            Demand(kind="retention", benchmark="held-out", source="prose", state="not shown", answer="ask",
                   reason=reasons[1], limit=0.0211),
        ),
        flips=(
            Flips(benchmark="next-passage", source="manuals", against="champion", items=200, right_before=80,
                  right_after=90, negative=2, positive=12, negative_rate=interval(0.01, 0.009),
                  positive_rate=interval(0.06, 0.03), relative_negative_rate=0.0457, file="assess/flips.jsonl"),
        ),
        **more,
    )  # fmt: skip


def refresh(found=None, version=7, started="2026-05-04T09:12:44+00:00", **changes):
    choice = Choice(
        share=0.36, interval=interval(0.4, 0.1), reason="limited by general tolerance", law="warm", laws=(),
        params_non_embedding=142_000, tokens=800_000, parent_general_nats=3.5, parent_domain_nats=4.0,
        ceiling_nats=3.6, tolerance=0.02, predicted_general=interval(3.51), predicted_domain=interval(3.7),
    )  # fmt: skip
    made = Refresh(
        name=f"cane {started[:10]}", line="cane", base="nano", started=started, seconds={"train": 3600.0},
        params={"promote": {"max_general_loss": 0.02, "min_domain_gain": 0.0}, "train": {}, "choose": {}, "sweep": {}},
        ledgers=(), observations=(), curve=(), choice=choice, verdict=found or verdict(), version=version,
        lineage=Lineage(commit="4f2c1d9", dirty=False, config="9b1f", parent="cane v6", license="apache-2.0",
                        editions={"data/rows/nano/manuals": "5d41.dir"}),
    )  # fmt: skip
    return made.model_copy(update=changes)


def words(html):
    text = re.sub(r"<style>.*?</style>", " ", html, flags=re.S)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))


def sections(html):
    return re.findall(r'<section id="([\w-]+)"', html)


@pytest.fixture
def folder(tmp_path):
    """A refresh with flips, a matrix and a noise record; and an earlier one of its line."""
    place = tmp_path / "cane" / "one-on-6"
    suite = place / "assess" / "suite"
    suite.mkdir(parents=True)
    (place / "assess" / "candidate").mkdir()
    (place / "assess" / "candidate" / "held-out--manuals.parquet").write_bytes(b"")
    lines = [
        {"against": "champion", "benchmark": "next-passage", "source": "manuals", "id": name, "document": "d",
         "flip": kind, "golden": name == "d:1"}
        for name, kind in (("d:1", "negative"), ("d:2", "negative"), ("d:3", "positive"))
    ]  # fmt: skip
    (place / "assess" / "flips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = [
        {"id": "d:1", "context": "press the <script>cane</script>", "choices": ["juice & syrup", "rain"], "gold": 0},
        {"id": "d:3", "context": "not among the wrong ones", "choices": [], "gold": None},
    ]
    (suite / "next-passage--manuals.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    slices = tuple(
        Slice(name=f"prose-{n}", source="prose", role="general", refresh=f"r{n}", number=n,
              documents=9, bytes=9, arrived=9)
        for n in (1, 2)
    )  # fmt: skip
    rows = (Row(name="nano", label="base"), Row(name="x", label="v6", promoted=True), Row(name="y", label="v7"))
    matrix = Matrix(
        line="cane", models=rows, slices=slices, born=(1, 2), scores=((2.125, 2.25), (2.0625, 2.375), (None, 1.875)),
        figures={"general": {"step": interval(0.0417), "bwt": None}},
    )  # fmt: skip
    records.write(place / "matrix.json", matrix)
    rise = Rise(scale=0.01, parent=interval(0.0123), candidate=interval(0.0456), ratio=interval(3.7))
    shaken = Sensitivity(documents=5, draws=3, rises=(rise,), alarm=True, said="suffers 3.7 times as much")
    records.write(place / "noise.json", shaken)
    former = refresh(verdict("promote", gain=-0.0787), version=6, started="2026-04-01T00:00:00+00:00")
    records.write(tmp_path / "cane" / "zero-on-5" / "refresh.json", former)
    records.write(place / "refresh.json", refresh())
    return place


@pytest.fixture
def page(folder):
    return report.write(refresh(), folder / "report.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------- the first paragraph


@pytest.mark.parametrize(
    ("decision", "title", "told"),
    [
        ("promote", "Promoted", "was promoted"),
        ("refuse", "Refused", "was refused; the model in use stays"),
        ("ask", "Asks a person", "A person has to decide about version 7 of cane"),
    ],
)
def test_the_first_words_say_what_was_decided_and_what_it_changed(decision, title, told):
    html = report.render(refresh(verdict(decision)))
    assert f">{title}</h1>" in html
    first = lead.paragraph(refresh(verdict(decision)))
    assert first in words(html)
    assert told in first
    assert "manuals 12.3% better than its parent (bits per byte −13.3% to −11.3%)" in first
    assert "prose as well as its parent does, as far as 200 texts can tell" in first


def test_questions_that_lost_their_beginning_are_told_beside_their_score_and_where_most_did_in_the_first_words():
    for cut, most in ((12, False), (401, True)):
        found = verdict()
        answers = found.comparisons[2].model_copy(update={"requests": 800, "truncated": cut})
        found = found.model_copy(update={"comparisons": (*found.comparisons[:2], answers)})
        assert f"200 items, {cut} of 800 contexts cut" in words(report.render(refresh(found)))
        first = lead.paragraph(refresh(found))
        assert ("More than half of what is asked by next-passage of manuals lost its beginning" in first) == most


def test_only_where_a_person_is_asked_the_page_and_the_terminal_give_the_command_that_promotes():
    asked = lead.command(refresh())
    assert asked == "ratoon promote 7 --by 'YOUR NAME' --because 'WHY' --model cane"
    assert asked in words(report.render(refresh()))
    assert asked.split(" --because")[0] in report.summary(refresh())
    assert report.summary(refresh()).startswith("ASKS  cane version 7 is the challenger")
    for other in (refresh(verdict("promote")), refresh(verdict("refuse")), refresh(version=None)):
        assert "ratoon promote" not in report.render(other) + report.summary(other)


# ---------------------------------------------------------------- numbers are those of the records


def test_the_forest_shows_every_interval_limit_and_least_change_of_the_record():
    html = report.render(refresh())
    for expected in (
        "held-out on manuals: −12.3%, −13.3% to −11.3%, the gate&#39;s limit −5.1%, "
        "least change that would be seen +3.3%, win.",
        "held-out on prose: +0.7%, −0.3% to +1.7%, the gate&#39;s limit +2.1%, tie.",
        "next-passage on manuals: +5.0 pp, +4.0 pp to +6.0 pp, win.",
    ):  # fmt: skip
        assert expected in html


def test_an_older_record_without_demands_shows_the_limits_of_its_parameters():
    older = verdict().model_copy(update={"demands": ()})
    assert "held-out on prose: +0.7%, −0.3% to +1.7%, the gate&#39;s limit +2.0%" in report.render(refresh(older))


def test_each_demand_says_whether_it_was_shown_beside_its_reason():
    html = report.render(refresh())
    assert re.search(r'state promote">shown</span> the domain gained', html)
    assert re.search(r'state ask">not shown</span> the general text may', html)


def test_the_matrix_shows_each_score_and_none_where_a_model_was_not_asked(page):
    at = page.index('<section id="matrix"')
    found = words(page[at : page.index("</section>", at)])
    for score in ("2.125*", "2.250*", "2.062", "2.375*", "1.875"):
        assert f" {score} " in found
    assert "+0.042 (+0.032 to +0.052)" in found
    assert "v6: r1 2.062, r2 2.375." in found


def test_flips_are_counted_the_first_shown_with_their_words_and_the_list_named(page):
    at = page.index('<section id="flips"')
    found = words(page[at : page.index("</section>", at)])
    assert "80, 90" in found
    assert "0.1% to 1.9%" in found
    assert "press the <script>cane</script>" in found
    assert "juice & syrup (right)" in found
    assert "d:2" in found  # an item that is not in the suite is still named
    assert "not among the wrong ones" not in found
    assert '<a href="assess/flips.jsonl">' in page


def test_a_number_links_to_the_file_of_its_items_where_that_file_is(page):
    links = re.findall(r'<a href="([^"]+)"', page)
    assert "assess/candidate/held-out--manuals.parquet" in links
    assert "assess/candidate/held-out--prose.parquet" not in links  # it is not there
    assert {"matrix.json", "noise.json"} <= set(links)


def test_an_alarm_of_the_noise_record_is_an_alarm_on_the_page(page):
    at = page.index('<section id="noise"')
    found = words(page[at : page.index("</section>", at)])
    assert "Alarm Suffers 3.7 times as much" in found
    assert "+0.046 (+0.036 to +0.056)" in found


def test_scores_by_date_and_their_slope_are_the_records(folder):
    scores = {"base": 2.125, "parent": 2.0625, "candidate": 1.875}
    record = Periods(
        cutoff="2024-01-01",
        periods=(Period(name="after the cut-off", first="2024-01-02", last=None),),
        scores=(PeriodScore(source="prose", role="general", period="after", documents=31, bytes=9, scores=scores),),
        slopes=(Slope(source="prose", model="candidate", documents=31, per_year=interval(0.0317)),),
        undated={"manuals": 4},
    )
    records.write(folder / "periods.json", record)
    html = report.write(refresh(), folder / "report.html").read_text()
    at = html.index('<section id="periods"')
    found = words(html[at : html.index("</section>", at)])
    assert "prose, after 31 2.125 2.062 1.875" in found
    assert "+0.032 (+0.022 to +0.042)" in found
    assert "manuals 4 documents" in found


# ---------------------------------------------------------------- gain against forgetting


def test_earlier_refreshes_of_the_line_are_on_the_picture_with_their_own_numbers(page):
    assert "v6, promoted: domain text +7.9% gained, general text +0.7%." in page
    assert "v7, asks: domain text +12.3% gained, general text +0.7%." in page


def test_another_line_a_later_refresh_and_a_broken_record_are_not_on_the_picture(folder):
    records.write(folder.parent / "other" / "refresh.json", refresh(line="maize", version=2))
    records.write(folder.parent / "later" / "refresh.json", refresh(version=8, started="2027-01-01T00:00:00+00:00"))
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "refresh.json").write_text("{")
    found = beside.gather(refresh(), folder)
    assert [it.version for it in found.earlier] == [6]
    assert found.unread == ("broken",)
    assert "left out: broken." in report.write(refresh(), folder / "report.html").read_text()


def test_the_front_holds_what_no_other_betters_in_both():
    made = [
        pareto.Place(name, interval(gain), interval(lost), "promote")
        for name, gain, lost in (
            ("a", 0.1, 0.01), ("b", 0.05, 0.02), ("c", 0.2, 0.03), ("d", 0.1, 0.0), ("e", 0.2, 0.03)
        )
    ]  # fmt: skip
    assert [it.name for it in pareto.front(made)] == ["d", "c"]


# ---------------------------------------------------------------- absent, old and hostile


def test_a_record_alone_has_no_section_of_what_is_not_there(tmp_path):
    html = report.write(refresh(), tmp_path / "report.html").read_text()
    absent = {"matrix", "health", "calibration", "arms", "periods", "trajectory", "probes", "shift", "noise"}
    assert not absent & set(sections(html))
    bare = refresh(verdict().model_copy(update={"comparisons": (), "flips": (), "demands": ()}))
    assert not {"gain", "flips"} & set(sections(report.render(bare)))


def test_a_record_with_nothing_but_what_the_first_release_wrote_still_makes_a_page(folder):
    old = json.loads(refresh().model_dump_json())
    for name in ("decision", "champion", "demands", "level", "flips"):
        old["verdict"].pop(name)
    for item in old["verdict"]["comparisons"]:
        for name in ("documents", "tested", "p", "p_holm", "detectable"):
            item.pop(name)
    html = report.write(Refresh.model_validate(old), folder / "report.html").read_text()
    assert ">Refused</h1>" in html
    assert "flips" not in sections(html)


def test_names_from_the_records_beside_are_words_never_markup(folder):
    name = "<img src=x onerror=alert(1)>"
    for path in ("matrix.json", "noise.json", "assess/flips.jsonl", "assess/suite/next-passage--manuals.jsonl"):
        file = folder / path
        file.write_text(re.sub(r"prose\b|suffers|d:1|juice", name, file.read_text()))
    html = report.write(refresh(), folder / "report.html").read_text()
    assert "<img" not in html
    assert "<script" not in html
    assert unescape(html).count(name) >= 4


def test_a_number_that_is_none_is_said_and_never_drawn(folder):
    empty = verdict(gain=math.nan)
    html = report.write(refresh(empty), folder / "report.html").read_text()
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html, flags=re.S).lower().replace("nano", "")
