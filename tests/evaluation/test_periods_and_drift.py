"""Text by date, and whether it moved away from the model."""

import random
from datetime import date, timedelta

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from held_out_text import prose
from known_scores import write_scores

from ratoon.config import AssessConfig, Base, ConfigError, DriftConfig, PeriodsConfig, Scratch
from ratoon.evaluation import drift, periods
from ratoon.evaluation.slices import Document, Place
from ratoon.report import history as page

CONFIG = AssessConfig(
    bootstrap=400,
    periods=PeriodsConfig(min_documents=5, documents=60),
    drift=DriftConfig(min_documents=5, bootstrap=400, threshold=0.05),
)


def write(folder, dated):
    """dated: id -> date."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"id": list(dated), "text": [prose(key, 60) for key in dated], "date": list(dated.values())}
    schema = pyarrow.schema([(name, pyarrow.string()) for name in columns])
    parquet.write_table(pyarrow.table(columns, schema=schema), folder / "held_out-0.parquet")
    return Place(folder, "domain")


def scorer(cost):
    """Costs by model and document: (model's name, id) -> bits per byte."""
    return lambda model, tests, out: write_scores(tests, out, lambda source, key, text: cost(model.name, key))


# ---------------------------------------------------------------- periods


def test_borders_are_the_cut_off_and_the_refreshes_and_every_day_is_in_one_period():
    found = periods.between("2024-03-01", ["2025-01-15T10:00:00+00:00", "2024-08-01T00:00:00+00:00"])
    assert [(each.first, each.last) for each in found] == [
        (None, "2024-03-01"),
        ("2024-03-02", "2024-08-01"),
        ("2024-08-02", "2025-01-15"),
        ("2025-01-16", None),
    ]
    assert [each.name.split(",")[0] for each in found] == [
        "before the cut-off",
        "between the refresh",
        "between the refresh",
        "after the refresh",
    ]
    day = date(2024, 1, 1)
    while day < date(2025, 6, 1):
        assert sum(each.holds(day, day) for each in found) == 1
        day += timedelta(days=1)


def test_without_a_cut_off_or_a_refresh_there_is_no_period():
    assert periods.between(None, []) == ()


def test_a_vague_date_is_in_a_period_only_if_all_its_days_are():
    found = periods.between("2024-06-15", [])
    assert periods.place(Document("a", "", "2024-06"), found) is None
    assert periods.place(Document("a", "", "2024-05"), found) == 0
    assert periods.place(Document("a", "", "2025"), found) == 1
    with pytest.raises(KeyError):
        periods.place(Document("a", "", "soon"), found)


def test_each_period_of_each_model_is_scored_and_the_rest_is_counted(tmp_path):
    dated = {f"old{k}": "2023-05-01" for k in range(8)} | {f"new{k}": "2025-05-01" for k in range(8)}
    dated |= {"vague": "2024", "none": None, "odd": "yesterday"} | {f"mid{k}": "2024-04-01" for k in range(3)}
    spans = periods.between("2024-03-01", ["2024-08-01"])
    cost = scorer(lambda model, key: {"base": 2.0, "candidate": 1.8}[model] + 0.5 * key.startswith("new"))
    models = {name: tmp_path / name for name in ("base", "candidate")}
    places = {"news": write(tmp_path / "news", dated)}
    found = periods.measure(places, spans, "2024-03-01", models, tmp_path / "out", CONFIG, cost)
    assert [each.period for each in found.scores] == [spans[0].name, spans[2].name]
    assert found.scores[0].scores == pytest.approx({"base": 2.0, "candidate": 1.8})
    assert found.scores[1].scores == pytest.approx({"base": 2.5, "candidate": 2.3})
    assert (found.undated, found.unplaced) == ({"news": 2}, {"news": 1})
    assert found.scarce == (f"news {spans[1].name}: 3 documents",)


def test_a_source_without_dates_has_no_periods(tmp_path):
    spans = periods.between("2024-03-01", [])
    places = {"news": write(tmp_path / "news", dict.fromkeys("abcdefgh"))}
    assert periods.measure(places, spans, "2024-03-01", {"base": tmp_path}, tmp_path / "out", CONFIG, None) is None


def test_the_slope_after_the_cut_off_is_found_again(tmp_path):
    start = date(2024, 3, 2)
    dated = {f"d{k}": str(start + timedelta(days=12 * k)) for k in range(60)}
    cost = scorer(lambda model, key: 2 + 0.3 * 12 * int(key[1:]) / 365.25 + random.Random(key).gauss(0, 0.05))
    spans = periods.between("2024-03-01", [])
    places = {"news": write(tmp_path / "news", dated)}
    found = periods.measure(places, spans, "2024-03-01", {"base": tmp_path / "base"}, tmp_path / "out", CONFIG, cost)
    (slope,) = found.slopes
    assert slope.documents == 60
    assert slope.per_year.low < 0.3 < slope.per_year.high
    assert slope.per_year.high - slope.per_year.low < 0.1


def test_the_slope_is_that_of_weighted_least_squares():
    rng = np.random.default_rng(1)
    years, sizes = rng.uniform(0, 2, 40), rng.uniform(50, 500, 40)
    bits = sizes * (2 + 0.2 * years + rng.normal(0, 0.3, 40))
    expected = np.polyfit(years, bits / sizes, 1, w=np.sqrt(sizes))[0]
    assert periods.slope(years, bits, sizes, CONFIG).value == pytest.approx(expected)


def test_saying_what_a_base_was_trained_until_makes_no_other_base_of_it():
    shape = Scratch(
        kind="scratch", hidden=8, layers=1, heads=1, feed_forward=8, tokens=1, learning_rate=1, rows_per_step=1
    )
    bare = Base(name="nano", row_tokens=64, weights=shape)
    said = Base(name="nano", row_tokens=64, weights=shape, cutoff="2024-03-01")
    assert bare.digest() == said.digest()
    assert "cutoff" not in bare.model_dump()


# ---------------------------------------------------------------- drift


def sides_of(tmp_path, new, old, **more):
    place = write(tmp_path / "news", dict.fromkeys([*(f"n{k}" for k in range(new)), *(f"o{k}" for k in range(old))]))
    place = place._replace(**more)
    return {"news": (place, drift.by_arrival(place, {f"o{k}" for k in range(old)}, CONFIG))}


def measured(tmp_path, sides, factor, noise=0.02):
    cost = scorer(lambda model, key: (factor if key[0] == "n" else 1.0) * (2 + random.Random(key).gauss(0, noise)))
    (found,) = drift.measure(sides, tmp_path / "champion", tmp_path / "out", CONFIG, cost)
    return found


def test_text_that_got_harder_is_over_the_threshold_and_the_size_is_found_again(tmp_path):
    found = measured(tmp_path, sides_of(tmp_path, 40, 40), 1.2)
    assert found.over
    assert found.drift.low < 0.2 < found.drift.high
    assert "over the threshold of 5.0%; a compressor finds it" in found.said


@pytest.mark.parametrize("factor", [1.0, 1.02, 0.8])
def test_a_small_drift_or_a_gain_is_not_over_it_however_sure(tmp_path, factor):
    assert not measured(tmp_path, sides_of(tmp_path, 60, 60), factor, noise=0.001).over


def test_a_large_drift_on_few_noisy_documents_is_not_shown(tmp_path):
    found = measured(tmp_path, sides_of(tmp_path, 6, 6), 1.1, noise=0.6)
    assert found.drift.low < 0.05
    assert not found.over


def test_too_few_new_documents_are_told_and_nothing_is_scored(tmp_path):
    found = measured(tmp_path, sides_of(tmp_path, 3, 40), 2.0)
    assert found.drift is found.new is None
    assert found.said == "3 new and 40 old documents; 5 of each are needed"
    assert not (tmp_path / "out").exists()


def test_when_nothing_changed_few_intervals_lie_above_zero():
    rng = np.random.default_rng(0)
    asked = DriftConfig(bootstrap=200)
    sizes = np.full(40, 500.0)
    above = 0
    for seed in range(200):
        new, old = (sizes * rng.normal(2, 0.3, 40) for _ in range(2))
        above += drift.interval((new, sizes), (old, sizes), asked, seed).low > 0
    assert above <= 12  # 2.5% are expected: 5 of 200


def test_by_date_what_may_be_on_both_sides_is_on_neither(tmp_path):
    dated = {"a": "2024-05-01", "b": "2024-07-01", "c": "2024-06", "d": None, "e": "2024-06-15", "f": "2024-06-16"}
    place = write(tmp_path / "news", dated)
    found = drift.by_date(place, "2024-06-15T10:00:00+00:00", CONFIG)
    assert {document.id for document in found.new} == {"b", "f"}
    assert {document.id for document in found.old} == {"a", "e"}


def test_a_compressor_tells_text_that_is_harder_for_anyone():
    easy = [Document(str(k), "the cane grows tall " * 40, None) for k in range(10)]
    hard = [
        Document(str(k), "".join(chr(33 + c) for c in np.random.default_rng(k).integers(0, 90, 800)), None)
        for k in range(10)
    ]
    assert drift.compressed(hard, easy, 4096) > 5
    assert drift.compressed(easy, easy, 4096) == 0


def test_without_anything_to_be_newer_than_the_question_is_refused():
    with pytest.raises(ConfigError, match=r"run `ratoon refresh`, or set assess\.drift\.by: date"):
        drift.known_border("arrival", None, "2024-01-01", "ratoon-nano")
    with pytest.raises(ConfigError, match="write `cutoff: YYYY-MM-DD`"):
        drift.known_border("date", set(), None, "ratoon-nano")


def test_watched_sources_are_told_as_such(tmp_path):
    found = measured(tmp_path, sides_of(tmp_path, 10, 10, watched=True), 1.0)
    assert found.role == "watched"


@pytest.mark.parametrize(("by", "said"), [("arrival", "came since"), ("date", "is dated after")])
def test_what_is_said_of_drift_fits_80_columns_and_tells_portions_apart(by, said):
    names = ("a-source-of-many-languages.en", "a-source-of-many-languages.de")
    told = "new text costs +5.7% [+4.0%, +13.1%] bits per byte against older text, over the threshold of 3.0%"
    found = drift.Drift(
        line="ratoon-smollm2-135m",
        champion="v12",
        measured="2026-11-21T00:00:00+00:00",
        by=by,
        since="2026-01-01T00:00:00+00:00",
        threshold=0.03,
        sources=[
            drift.SourceDrift(source=name, role="domain", new_documents=20, old_documents=20, said=told)
            for name in names
        ],
        drifted=True,
    )
    lines = page.drift_text(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert said in " ".join(lines)
    assert all(name in " ".join(lines) for name in names)
