"""Questions about a corpus: what is in it, what changed, and why a document is where it is."""

import json
import shutil

import pytest
from small_sources import lines, notes, sentence

from ratoon.cli import main
from ratoon.config import ConfigError, Dedup, Files, HeldOut, NearDuplicates, PrepareConfig
from ratoon.corpus.accounts.change import change, kept
from ratoon.corpus.accounts.sample import sample
from ratoon.corpus.accounts.stats import place, stats
from ratoon.corpus.accounts.table import accounts, texts
from ratoon.corpus.accounts.why import why
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.sources import ingest
from ratoon.report import corpus_text

LONG = " ".join(sentence(i) for i in range(300, 312))


def config(**changes):
    return PrepareConfig(
        rules={"prose": {"min_bytes": 40}},
        held_out=HeldOut(share=0.2, min_documents=2),
        dedup=Dedup(near=NearDuplicates(agreement=0.5)),
    ).model_copy(update=changes)


@pytest.fixture
def make(tmp_path):
    """An edition of these texts, with its accounts."""

    def run(found, name="notes", asked=None):
        lines(tmp_path / name / "raw" / "a.jsonl", found)
        source = notes(name=name)
        ingest(source, tmp_path / name, tmp_path / "documents" / name)
        clean(source, asked or config(), tmp_path / "documents" / name, tmp_path / "clean" / name)
        return accounts(name, tmp_path / "documents" / name, tmp_path / "clean" / name)

    return run


TEXTS = [*(sentence(i) * 2 for i in range(60)), "short", sentence(3).upper() * 2, LONG, LONG + " And one word more."]


def test_every_document_has_one_fate_and_they_add_up_to_the_ledger_and_the_shards(make, tmp_path):
    from ratoon.corpus.edition import read_ledger

    of = make(TEXTS)
    funnel = read_ledger(of.clean).funnel
    counts = dict(of.documents["fate"].value_counts().iter_rows())
    parts = {part: counts.pop(part) for part in ("train", "held_out")}
    assert counts == funnel.dropped == {"duplicate": 1, "min_bytes": 1, "near_duplicate": 1}
    for part, number in parts.items():
        written = [row["id"] for path in shards(of.clean, f"{part}-") for row in rows(path)]
        assert len(written) == number
        assert sorted(written) == sorted(of.documents.filter(of.documents["fate"] == part)["id"])


def test_a_sample_is_the_same_for_the_same_seed_and_holds_every_reason(make):
    of = make(TEXTS)
    drawn = sample(of, 5)
    assert drawn == sample(of, 5)
    assert next(iter(drawn)) == "kept"
    assert {name: len(seen) for name, seen in drawn.items()} == {
        "kept": 5,
        "duplicate": 1,
        "min_bytes": 1,
        "near_duplicate": 1,
    }
    assert sample(of, 5, seed=1)["kept"] != drawn["kept"]
    assert drawn["min_bytes"][0].text == "short"
    with pytest.raises(ConfigError, match="did you mean 'duplicate'"):
        sample(of, 5, "duplicat")


def test_more_text_leaves_most_of_a_sample_as_it_was(make):
    few = sample(make(TEXTS), 20)["kept"]
    more = sample(make([*TEXTS, *(sentence(i) * 2 for i in range(1000, 1006))]), 20)["kept"]
    assert len({one.id for one in few} & {one.id for one in more}) >= 15


def test_why_names_the_rule_and_its_threshold(make):
    (story,) = why(make(TEXTS), "short", notes(), config())
    assert (story.fate, story.because) == ("min_bytes", "rule min_bytes: 40 (params.yaml, prepare.rules)")


def test_why_names_the_document_that_stands_for_a_duplicate(make):
    of = make(TEXTS)
    for fate, stands in {"duplicate": sentence(3) * 2, "near_duplicate": LONG + " And one word more."}.items():
        row = of.documents.filter(of.documents["fate"] == fate)
        (story,) = why(of, row["id"][0], notes(), config())
        assert story.stands is not None
        other = of.documents.filter(of.documents["id"] == story.stands[0])
        assert texts(of, other)["text"][0] == stands


def test_why_finds_by_beginning_of_id_by_place_and_by_words(make):
    of = make(TEXTS)
    whole = why(of, of.documents["id"][7], notes(), config())
    assert why(of, of.documents["id"][7][:12], notes(), config()) == whole
    assert why(of, of.documents["place"][7] + "", notes(), config())[0].place == whole[0].place
    assert why(of, f"Text {300}:", notes(), config())[0].text.startswith("Text 300")
    with pytest.raises(ConfigError, match="no document"):
        why(of, "nowhere", notes(), config())
    with pytest.raises(ConfigError, match="documents match"):
        why(of, "a.jsonl", notes(), config())


def test_why_finds_words_in_every_shard(tmp_path):
    for name in ("a", "b"):
        lines(
            tmp_path / "raw" / name / f"{name}.jsonl",
            [f"Both hold these words, in {name} too, and are long enough.", *map(sentence, range(40))],
        )
    source = notes(origins=(Files(path="raw/a"), Files(path="raw/b")))
    ingest(source, tmp_path, tmp_path / "documents")
    clean(source, config(), tmp_path / "documents", tmp_path / "clean")
    of = accounts("notes", tmp_path / "documents", tmp_path / "clean")
    assert of.documents["stem"].n_unique() == 2
    found = why(of, "hold these words", source, config())
    assert sorted(story.place for story in found) == ["raw/a/a.jsonl:1", "raw/b/b.jsonl:1"]


@pytest.mark.parametrize("asked", ["raw/a.jsonl:3", "a.jsonl:3"])
def test_why_takes_a_whole_place_before_a_part_of_one(make, asked):
    (story,) = why(make(TEXTS), asked, notes(), config())
    assert story.place == "raw/a.jsonl:3"


def test_a_change_accounts_for_every_document_of_both_editions(make, tmp_path):
    shutil.copytree(make(TEXTS).clean, tmp_path / "before")
    after = make([*TEXTS[1:], sentence(900) * 2], asked=config(rules={"prose": {"min_bytes": 4}}))
    before = accounts("notes", tmp_path / "documents" / "notes", tmp_path / "before")
    moves = change(before, after)
    assert sum(move.documents for move in moves if move.before != "not there") == len(before.documents)
    assert sum(move.documents for move in moves if move.after != "not there") == len(after.documents)
    assert kept(moves) == (2, 1)
    assert [move.documents for move in change(after, after) if move.before != move.after] == []


def test_stats_count_lengths_licences_clusters_and_what_sources_share(make):
    one, other = make(TEXTS), make(TEXTS[:10], "others")
    found = stats(one, [other])
    assert found.lengths["100%"] == len(LONG + " And one word more.")
    assert found.clusters == {"2": 2}
    assert found.shared["others"].documents == 10
    assert sum(count.documents for count in found.by["place"]) == 61


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example:80/x/y", "a.example"),
        ("a/b/c.txt", "a/b"),
        ("a.txt:3", "a.txt:3"),
        ("http://[broken/x", "none"),
        (None, "none"),
    ],
)
def test_a_place_is_a_host_or_a_folder(url, expected):
    assert place(url) == expected


def test_texts_of_others_cannot_steer_the_terminal(make):
    of = make([*TEXTS, "\x1b[2J\x1b[31m a text that would clear the screen, and paint it red \x07"])
    shown = corpus_text.sample(sample(of, 100))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The declared shape of a project, with one source."""
    (tmp_path / "data/sources").mkdir(parents=True)
    (tmp_path / "data/sources/notes.yaml").write_text("name: notes\nrole: general\norigins: [{path: raw}]\n")
    (tmp_path / "params.yaml").write_text(
        "refresh: {sources: [notes, notes]}\nprepare:\n  rules: {prose: {min_bytes: 40}}\n"
        "  held_out: {share: 0.2, min_documents: 2}\n"
        "sweep: {tokens: 100}\ntrain: {tokens: 100, learning_rate: 1.0e-3, rows_per_step: 1}\n"
    )
    lines(tmp_path / "raw/a.jsonl", TEXTS)
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "ingest", "notes"]) == 0
    assert main(["prepare", "clean", "notes"]) == 0
    return tmp_path


def test_the_command_answers_in_words_and_in_json(project, capsys):
    for words in (["show"], ["stats"], ["sample", "-n", "2"], ["why", "short", "--source", "notes"]):
        asked = ["corpus", *words] if words[0] == "why" else ["corpus", *words, "notes"]
        capsys.readouterr()
        assert main(asked) == 0
        plain = capsys.readouterr().out
        assert "notes" in plain or "short" in plain
        assert max(len(line) for line in plain.splitlines()) <= 80
        assert main([*asked, "--json"]) == 0
        for text in capsys.readouterr().out.splitlines() if words[0] == "sample" else [capsys.readouterr().out]:
            if text:
                json.loads(text)


def test_the_command_compares_with_an_edition_in_a_folder(project, capsys):
    shutil.copytree(project / "data/clean/notes", project / "old")
    assert main(["corpus", "diff", "notes", "--against", "old"]) == 0
    assert "0 documents came in, 0 went out" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["0", "-3"])
def test_fewer_than_one_document_to_look_at_is_no_question(project, capsys, number):
    capsys.readouterr()
    assert main(["corpus", "sample", "notes", "-n", number]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f"ratoon corpus sample: --number is {number}; give 1 or more documents of each fate" in told.err


def test_stats_of_a_source_wait_for_no_other(project, capsys):
    declared = (project / "data/sources/notes.yaml").read_text()
    (project / "data/sources/later.yaml").write_text(declared.replace("name: notes", "name: later"))
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("[notes, notes]", "[notes, later]"))
    capsys.readouterr()
    assert main(["corpus", "stats", "notes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["shared"] == {}
    assert main(["corpus", "stats", "later"]) == 2
    assert "source 'later': no clean edition" in capsys.readouterr().err


def test_a_source_without_an_edition_is_told_how_to_get_one(project, capsys):
    shutil.rmtree(project / "data/clean")
    assert main(["corpus", "sample", "notes"]) == 2
    assert "run `ratoon prepare`" in capsys.readouterr().err
