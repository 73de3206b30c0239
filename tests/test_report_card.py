"""The model card is the record again, as Markdown that a hub reads; its energy follows from what is declared."""

import json
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import ModelCard

from ratoon import config, records, report
from ratoon.config.budget import Budget
from ratoon.layout import Layout
from ratoon.records import Choice, Comparison, Flips, Interval, Lineage, Refresh, Verdict
from ratoon.report import card, energy, forest
from ratoon.report.beside import Beside, gather
from ratoon.training.request import Result

ALONE = Beside()


def interval(value, half=0.01):
    return Interval(value=value, low=value - half, high=value + half, confidence=0.9)


def comparison(source, role, metric="bits_per_byte", **more):
    change = interval(-0.1234 if role == "domain" else 0.0021)
    return Comparison(
        benchmark="held-out", source=source, role=role, metric=metric, items=1200, parent=interval(0.612),
        candidate=interval(0.5871), difference=change, relative=change if metric == "bits_per_byte" else None,
        outcome="win" if role == "domain" else "tie", detectable=0.0111, **more,
    )  # fmt: skip


def refresh(license="apache-2.0", budget=None, device="cuda", decision="ask", source="manuals"):
    choice = Choice(
        share=0.36, interval=interval(0.4, 0.1), reason="limited by general tolerance", law="warm", laws=(),
        params_non_embedding=142_000, tokens=800_000, parent_general_nats=3.5, parent_domain_nats=4.0,
        ceiling_nats=3.6, tolerance=0.02, predicted_general=interval(3.5123), predicted_domain=interval(3.7456),
        warnings=("extrapolates beyond the largest share",),
    )  # fmt: skip
    flips = Flips(
        benchmark="next-passage", source=source, against="parent", items=9, right_before=4, right_after=3,
        negative=1, positive=0, negative_rate=interval(0.1), positive_rate=interval(0.0), relative_negative_rate=None,
    )  # fmt: skip
    return Refresh(
        name="cane 2026-05-04", line="cane", base="nano", started="2026-05-04T09:12:44+00:00",
        seconds={"train": 3600.0, "sweep": 900.0}, params={"train": {"budget": budget or {}, "device": device}},
        ledgers=(), observations=(), curve=(), choice=choice, version=7,
        verdict=Verdict(
            decision=decision, promoted=decision == "promote", reasons=("the domain gained 12.3%",), parent="p",
            candidate="c", comparisons=(comparison(source, "domain"), comparison("prose", "general", "accuracy")),
            flips=(flips,),
        ),
        lineage=Lineage(
            commit="4f2c1d9", dirty=False, config="9b1f03aa", parent="cane v6", license=license,
            editions={"data/rows/nano/manuals": "5d41402a.dir"},
        ),
    )  # fmt: skip


def front(made, **more):
    return yaml.safe_load(card.text(made, ALONE, **more).split("---\n")[1])


# ---------------------------------------------------------------- front matter


def test_a_hubs_own_reader_finds_licence_base_and_every_result():
    read = ModelCard(card.text(refresh(), ALONE, base_model="someone/nano"))
    assert read.data.license == "apache-2.0"
    assert read.data.base_model == "someone/nano"
    assert read.data.library_name == "transformers"
    found = {(it.dataset_type, it.metric_type): it.metric_value for it in read.data.eval_results}
    assert found == {("held-out--manuals", "bits_per_byte"): 0.5871, ("held-out--prose", "accuracy"): 0.5871}


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        (None, {"license": "unknown"}),
        ("House Licence 2", {"license": "other", "license_name": "house-licence-2"}),
    ],
)
def test_a_licence_is_one_a_hub_knows_or_another_by_its_name(license, expected):
    found = front(refresh(license))
    assert {key: found[key] for key in found if key.startswith("license")} == expected


def test_a_base_without_a_name_on_a_hub_is_not_named_to_it():
    assert "base_model" not in front(refresh())


@pytest.mark.parametrize(("path", "there", "expected"), [
    ("someone/model", False, "someone/model"), ("models/weights", True, None), ("/a/b/c", False, None),
])  # fmt: skip
def test_only_a_path_that_is_no_folder_is_a_hubs_name(tmp_path, path, there, expected):
    if there:
        (tmp_path / path).mkdir(parents=True)
    base = config.Base(name="x", row_tokens=8, weights={"kind": "pretrained", "path": path})
    assert report.hub_name(base, tmp_path) == expected


# ---------------------------------------------------------------- numbers


def test_the_card_holds_the_records_numbers():
    text = card.text(refresh(), ALONE)
    for expected in (
        "| held-out | manuals | Bits per byte | 1,200 | 0.612 | 0.587 | −12.3% (−13.3% to −11.3%) | 1.1% | win |",
        "| held-out | prose | Accuracy | 1,200 | 61.2% | 58.7% | +0.2 pp (−0.8 pp to +1.2 pp) | 1.1 pp | tie |",
        "| Mixture | 36% domain text, 64% general text |",
        "predicted 3.746 (3.736 to 3.756 at 90%), measured not measured",
        "| data/rows/nano/manuals | 5d41402a.dir |",
        "| Parent | cane v6 |",
        "ratoon promote 7 --by 'YOUR NAME' --because 'WHY'",
        "- extrapolates beyond the largest share",
        "- 1 answers that the parent had right are wrong.",
        "held-out on prose: a change below 1.1 pp would likely not have been seen.",
    ):
        assert expected in text


def test_a_name_that_is_markup_is_words_on_the_card():
    made = refresh(source="<img src=x>|[a](b)\n# x")
    text = card.text(made, ALONE)
    body = text.split("---\n", 2)[2]
    assert "\\<img src=x\\>\\|\\[a\\](b) \\# x" in body
    assert "\n# x" not in body
    assert all(line.count("|") - line.count("\\|") == 10 for line in body.split("\n") if line.startswith("| held-out"))
    assert yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"][0]["dataset"]["name"].startswith("held")


def test_the_card_is_written_beside_the_page_and_is_the_same_for_the_same_record(tmp_path):
    made = refresh()
    path = report.write_card(made, tmp_path / "one")
    again = Refresh.model_validate_json(made.model_dump_json())
    assert path.name == "model-card.md"
    assert path.read_text() == report.write_card(again, tmp_path / "two").read_text()


def test_a_record_of_the_first_release_makes_a_card():
    old = json.loads(refresh().model_dump_json())
    for name in ("decision", "flips", "demands", "champion", "level"):
        old["verdict"].pop(name)
    for item in old["verdict"]["comparisons"]:
        item.pop("detectable")
    text = card.text(Refresh.model_validate(old), ALONE)
    assert "0.612 | 0.587 | −12.3% (−13.3% to −11.3%) | not measured | win |" in text


# ---------------------------------------------------------------- energy


def test_energy_is_time_times_what_was_declared_over_all_devices():
    declared = {"power": 350.0, "devices": 4, "carbon": 400.0, "price": 2.5}
    found = energy.spent(refresh(budget=declared), ALONE)
    assert found.watt_hours == pytest.approx(1 * 4 * 350)
    assert found.grams == pytest.approx(1.4 * 400)
    assert found.money == pytest.approx(4 * 2.5)
    said = " ".join(energy.sentences(found))
    assert "1.4 kWh, 1 h 00 min of training on 4 devices at 350 W each (as declared)" in said
    assert "560 g CO2" in said


def test_an_assumed_power_is_said_to_be_one_and_carbon_and_cost_are_never_assumed():
    found = energy.spent(refresh(device="cpu"), ALONE)
    assert found.watt_hours == pytest.approx(100)
    said = " ".join(energy.sentences(found))
    assert "an assumption" in said
    assert "CO2" not in said
    assert "Cost" not in said


def test_the_runs_own_time_is_taken_before_that_of_its_stage(tmp_path):
    result = Result(
        name="t", model="m", steps=1, tokens=1, params_non_embedding=1, seconds=1800.0, tokens_per_second=1.0,
        observations=(),
    )  # fmt: skip
    records.write(tmp_path / "train" / "result.json", result)
    made = refresh(device="cpu")
    assert energy.spent(made, gather(made, tmp_path)).watt_hours == pytest.approx(50)
    assert energy.spent(made.model_copy(update={"seconds": {}}), ALONE) is None
    assert "not known" in energy.sentences(None)[0]


def test_declaring_power_and_carbon_changes_no_digest_of_those_who_do_not():
    assert set(Budget().model_dump()) == {
        "hours", "money", "flops", "memory", "price", "devices"
    }  # fmt: skip


def test_a_refresh_leaves_page_and_card_and_the_card_in_the_models_own_directory(tmp_path):
    from tasks import promote

    made = refresh()
    weights = tmp_path / "weights"
    weights.mkdir()
    made = made.model_copy(update={"verdict": made.verdict.model_copy(update={"candidate": str(weights)})})
    base = config.Base(name="nano", row_tokens=8, weights={"kind": "pretrained", "path": "someone/nano"})
    job = SimpleNamespace(folder=tmp_path / "refresh", base=base, layout=Layout(tmp_path))
    promote.tell(job, made, {"MLflow: train": "http://127.0.0.1:5000/#/runs/7"})
    page, card_file = (tmp_path / "refresh" / name for name in ("report.html", report.CARD))
    assert "127.0.0.1:5000" in page.read_text()
    assert (weights / "README.md").read_text() == card_file.read_text()
    assert ModelCard.load(weights / "README.md").data.base_model == "someone/nano"


def test_where_no_change_could_be_seen_none_is_named():
    few = comparison("prose", "general", "accuracy").model_copy(update={"detectable": 7.4})
    found = refresh()
    found = found.model_copy(update={"verdict": found.verdict.model_copy(update={"comparisons": (few,)})})
    assert "held-out on prose: so few documents that no change could have been seen." in card.limits(found, ALONE)
    assert (card.least(few), "no change could be seen" in forest.said(few, None)) == ("none", True)
    assert "740" not in forest.plot([few], {}, "few")
