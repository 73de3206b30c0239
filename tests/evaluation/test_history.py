"""What is kept of every refresh, and the matrix that comes of it."""

import pyarrow
import pyarrow.parquet as parquet
import pytest
from held_out_text import prose
from known_scores import write_scores

from ratoon.config import AssessConfig, ConfigError, HistoryConfig
from ratoon.corpus.clean import held_out, text_key
from ratoon.evaluation import forgetting, history, slices
from ratoon.evaluation.history import History, Row
from ratoon.evaluation.slices import Place
from ratoon.report import history as page

CONFIG = AssessConfig(bootstrap=200, max_bytes=300, history=HistoryConfig(documents=12, min_documents=5))
SETTINGS = {"row_tokens": 128, "precision": "fp32"}


class Line:
    """A model line whose models cost what the test says."""

    def __init__(self, root):
        self.root, self.folder = root, root / "history"
        self.found = History(line="ratoon-nano", rows=(Row(name="nano", label="base"),))
        self.texts = {"docs": {}, "code": {}}

    def edition(self, share=1.0, **new):
        """Adds documents to the sources, all of them held out."""
        for source, count in new.items():
            begin = len(self.texts[source])
            self.texts[source] |= {f"{k:03}": prose(f"{source} {k}", 60) for k in range(begin, begin + count)}
        places = {}
        for source, texts in self.texts.items():
            folder = self.root / "clean" / source
            folder.mkdir(parents=True, exist_ok=True)
            columns = {"id": [f"{source}-{key}" for key in texts], "text": list(texts.values())}
            columns["date"] = [None] * len(texts)
            schema = pyarrow.schema([(name, pyarrow.string()) for name in columns])
            parquet.write_table(pyarrow.table(columns, schema=schema), folder / "held_out-0.parquet")
            places[source] = Place(folder, "general" if source == "docs" else "domain")
        return places

    def refresh(self, name, parent, costs, places, promoted=True, share=1.0):
        """costs: row -> slice -> bits per byte; rows other than `name` are asked about the new text alone."""
        self.found = history.gather(self.folder, self.found, places, name, CONFIG, share)
        own = Row(
            name=name,
            label=name,
            parent=parent,
            promoted=promoted,
            started=f"2026-01-0{len(self.found.rows)}",
            slices=tuple(each.name for each in self.found.slices),
            spoiled=history.spoiled(self.folder, self.found, share),
        )
        self.found = self.found.with_row(own)
        for row, known in costs.items():
            self.ask(row, known)

    def ask(self, row, known):
        folders = {each.name: (each.role, self.folder / "slices" / each.name) for each in self.found.slices}
        tests = slices.suite_of({k: v for k, v in folders.items() if k in known}, CONFIG, self.root / "suite")
        scores = write_scores(self.root / "suite", self.root / f"scores-{row}", lambda source, *_: known[source])
        named = {task.name: task.source for task in tests.tasks}
        made = history.record(self.folder, self.found.row(row), scores, named)
        self.found = self.found.with_row(made.model_copy(update={"settings": SETTINGS}))

    def matrix(self, name):
        return forgetting.matrix_of(self.folder, self.found, name, CONFIG)


@pytest.fixture
def line(tmp_path):
    return Line(tmp_path)


@pytest.fixture
def chain(line):
    """Two refreshes that each bring text of both sources."""
    line.refresh(
        "one",
        "nano",
        {"nano": {"docs.r1": 2.0, "code.r1": 3.0}, "one": {"docs.r1": 2.1, "code.r1": 2.0}},
        line.edition(docs=20, code=20),
    )
    line.refresh(
        "two",
        "one",
        {
            "nano": {"docs.r2": 2.0, "code.r2": 3.5},
            "one": {"docs.r2": 2.0, "code.r2": 3.0},
            "two": {"docs.r1": 2.2, "docs.r2": 1.9, "code.r1": 2.3, "code.r2": 2.5},
        },
        line.edition(docs=10, code=10),
    )
    return line


def test_figures_of_a_chain_are_those_worked_out_by_hand(chain):
    found = chain.matrix("two")
    assert [row.label for row in found.models] == ["base", "one", "two"]
    assert found.born == (1, 1, 2, 2)
    value = {name: each.value for name, each in found.figures["domain"].items()}
    assert value["bwt"] == pytest.approx(-(2.3 - 2.0))
    assert value["forgetting"] == pytest.approx(0.3)
    assert value["fwt"] == pytest.approx(3.5 - 3.0)
    assert value["plasticity"] == pytest.approx(((3.0 - 2.0) + (3.0 - 2.5)) / 2)
    assert value["acc"] == pytest.approx(-(2.3 + 2.5) / 2)
    assert value["total"] == pytest.approx(((3.0 - 2.3) + (3.5 - 2.5)) / 2)
    assert found.figures["general"]["bwt"].value == pytest.approx(-0.1)
    assert found.figures["docs"] == found.figures["general"]
    assert found.figures["all"]["bwt"].value == pytest.approx(-0.2)


def test_after_the_first_refresh_what_needs_two_is_none(line):
    costs = {"nano": {"docs.r1": 2.0, "code.r1": 3.0}, "one": {"docs.r1": 2.1, "code.r1": 2.0}}
    line.refresh("one", "nano", costs, line.edition(docs=20, code=20))
    found = line.matrix("one").figures["domain"]
    assert found["bwt"] is found["forgetting"] is found["fwt"] is None
    assert found["step"].value == pytest.approx(1.0)


def test_only_documents_that_no_earlier_refresh_brought_make_a_new_slice(chain):
    first, second = (set(history.ids(chain.folder, each)) for each in chain.found.slices if each.source == "code")
    assert len(first) == 20
    assert len(second) == 10
    assert not first & second
    kept = {each.name: each for each in chain.found.slices}
    assert kept["code.r1"].documents == 12  # bounded by assess.history.documents
    assert kept["code.r1"].arrived == 20
    assert kept["code.r2"].documents == 10


def test_too_few_new_documents_wait_for_the_next_refresh(line):
    places = line.edition(docs=20, code=20)
    line.refresh("one", "nano", {}, places)
    line.refresh("two", "one", {}, line.edition(code=3))
    assert [each.name for each in line.found.slices] == ["code.r1", "docs.r1"]
    line.refresh("three", "two", {}, line.edition(code=3))
    assert [each.name for each in line.found.slices] == ["code.r1", "docs.r1", "code.r2"]
    assert line.found.slices[-1].arrived == 6


def test_what_was_kept_stays_when_the_same_refresh_is_run_again_and_when_text_goes(chain):
    before = {p: p.read_bytes() for p in chain.folder.rglob("*.parquet")}
    chain.texts["code"] = {}
    places = chain.edition(code=30)
    again = history.gather(chain.folder, chain.found, places, "two", CONFIG, 1.0)
    assert again.slices == chain.found.slices
    assert {p: p.read_bytes() for p in chain.folder.rglob("*.parquet")} == before
    assert history.load(chain.folder, "ratoon-nano").slices == chain.found.slices


def test_text_that_came_with_a_refused_refresh_is_learned_by_the_next_that_continues(chain):
    """`refused` is no ancestor of `three`, which continued `two` on the text of both."""
    later = {"code.r1": 2.3, "code.r2": 2.5, "code.r3": 2.4, "docs.r1": 2.2, "docs.r2": 1.9}
    costs = {"nano": {"code.r3": 3.0}, "two": {"code.r3": 2.8}, "refused": later}
    chain.refresh("refused", "two", costs, chain.edition(code=10), promoted=False)
    last = {**later, "code.r4": 2.0}
    costs = {"nano": {"code.r4": 3.0}, "two": {"code.r4": 2.6}, "three": last}
    chain.refresh("three", "two", costs, chain.edition(code=10))
    found = chain.matrix("three")
    assert [row.name for row in found.models] == ["nano", "one", "two", "three"]
    assert dict(zip([each.name for each in found.slices], found.born, strict=True))["code.r3"] == 3
    assert [row.name for row in chain.matrix("refused").models] == ["nano", "one", "two", "refused"]


def test_text_that_is_watched_is_a_group_of_its_own_with_no_figure_of_learning(line):
    places = line.edition(docs=20, code=20)
    places["code"] = places["code"]._replace(watched=True)
    costs = {"nano": {"docs.r1": 2.0, "code.r1": 3.0}, "one": {"docs.r1": 2.1, "code.r1": 2.9}}
    line.refresh("one", "nano", costs, places)
    found = line.matrix("one").figures
    assert set(found["watched"]) == {"acc", "step", "total"}
    assert found["watched"]["step"].value == pytest.approx(0.1)
    assert found["all"] == found["general"]
    assert "code (watched)" in page.text(line.matrix("one"), {})


def test_slices_whose_text_is_no_longer_held_out_are_left_out_and_that_is_said(chain):
    share = 0.3
    assert not all(held_out(text_key(text), share) for text in chain.texts["code"].values())
    chain.refresh("three", "two", {}, chain.edition(code=0), share=share)
    assert set(chain.found.row("three").spoiled) == {"code.r1", "code.r2", "docs.r1", "docs.r2"}
    chain.found = chain.found.with_row(chain.found.row("three").model_copy(update={"settings": SETTINGS}))
    found = chain.matrix("three")
    assert not found.slices
    assert not found.figures
    assert "no longer held out: code.r1" in found.notes[0]
    assert "no longer held out" in page.text(found, {})


def test_scores_under_other_settings_are_not_compared(chain):
    old = chain.found.row("one").model_copy(update={"settings": {**SETTINGS, "row_tokens": 64}})
    chain.found = chain.found.with_row(old)
    found = chain.matrix("two")
    assert found.scores[1] == (None,) * 4
    assert found.figures["domain"]["bwt"] is None
    assert "one was scored with another row_tokens" in found.notes[0]


def test_a_line_without_a_refresh_is_told_what_to_do(line):
    with pytest.raises(ConfigError, match="run `ratoon refresh`"):
        line.matrix("nano")


def test_kept_text_that_is_damaged_is_named(chain):
    file = chain.folder / "slices" / "code.r1" / history.IDS
    file.write_bytes(b"?")
    with pytest.raises(ConfigError, match=r"ids\.parquet: kept text is missing or damaged"):
        history.ids(chain.folder, chain.found.slices[0])


def test_the_page_is_at_most_80_columns_of_ascii_and_marks_what_was_not_read_yet(chain):
    said = page.text(chain.matrix("two"), {})
    assert max(map(len, said.splitlines())) <= 80
    assert said.isascii()
    assert "3.000*" in said  # the base on text of the first refresh
    assert "2.300 " in said


def test_a_long_line_shows_its_newest_refreshes_and_says_how_many_more_there_are(line):
    known = {}
    for number in range(1, 14):
        places = line.edition(docs=20 if number == 1 else 6, code=20 if number == 1 else 6)
        name, parent = f"r{number:02}", f"r{number - 1:02}" if number > 1 else "nano"
        known |= {f"docs.r{number}": 2.0, f"code.r{number}": 3.0}
        fresh = {key: value for key, value in known.items() if key.endswith(f".r{number}")}
        line.refresh(name, parent, {name: known, "nano": fresh}, places)
    said = page.text(line.matrix("r13"), {})
    assert max(map(len, said.splitlines())) <= 80
    assert "5 earlier refreshes not shown" in said
