"""From declarations to a judge and its report: what is looked for, who goes for it, and what is said of that."""

import json
import pickle
import random
from functools import partial

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from small_sources import lines, notes, recipe, tree
from test_decontaminate import text

from ratoon.config import AssessConfig, Benchmark, ConfigError, Decontaminate, HeldOutTargets, parse
from ratoon.corpus.clean import clean, held_out, text_key
from ratoon.corpus.decontaminate import Item, read
from ratoon.corpus.decontaminate import report as reports
from ratoon.corpus.decontaminate.judge import judge
from ratoon.corpus.documents import SCHEMA
from ratoon.corpus.judge import COLUMNS, Court, Documents
from ratoon.corpus.sources import ingest
from ratoon.evaluation import suite

NEVER = {"key": text_key, "held_out": partial(held_out, share=0.0)}


def exam(path="exam.jsonl", name="exam", **columns) -> Benchmark:
    form = {"kind": "items", "path": path, "columns": columns}
    return parse(Benchmark, {"name": name, "version": 1, "form": form}, "benchmarks/exam.yaml")


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def documents(*texts: str) -> Documents:
    rows = [
        {name: None for name in SCHEMA.names} | {"id": str(i), "text": each, "source": "notes"}
        for i, each in enumerate(texts)
    ]
    return Documents(pa.RecordBatch.from_pylist(rows, SCHEMA).select(list(COLUMNS)))


def test_items_are_read_as_their_columns_are_declared(tmp_path):
    write(
        tmp_path / "exam.jsonl",
        {"q": "What is a?", "options": ["one", "two"], "key": 1, "n": 7},
        {"q": "What is b?", "options": ["one", "two"], "key": "A", "n": "x"},
        {"q": "What is c?", "options": ["one", "2"], "key": "2", "n": "y"},
        {"q": 5, "options": [1, 2.5], "key": "1", "n": "\ud800"},
    )
    found = read(exam(question="q", choices="options", answer="key", id="n"), tmp_path)
    assert found == (
        Item("7", "What is a?", "two"),
        Item("x", "What is b?", "one"),
        Item("y", "What is c?", "2"),
        Item("\\ud800", "5", "1"),
    )
    assert read(exam(question="q", answer=None), tmp_path)[1] == Item("1", "What is b?")


@pytest.mark.parametrize(
    ("content", "columns", "letter"),
    [
        ('{"question": "a"\n', {}, "exam.jsonl:1: not JSON"),
        ('\n["a"]\n', {}, "exam.jsonl:2: found list; one object a line is read"),
        (b"\xff\xfe\n", {}, "exam.jsonl:1: not JSON"),
        ("[" * 100_000, {}, "exam.jsonl:1: not JSON"),
        ('{"prompt": "a", "answer": "b"}', {}, "exam.jsonl:1: no column 'question'; there are answer, prompt"),
        ('{"question": ["a"], "answer": "b"}', {}, "column 'question' is list; a text or a number is read"),
        ('{"question": "a", "answer": null}', {}, "column 'answer' is NoneType"),
        ('{"question": "a", "answer": "C", "o": ["x", "y"]}', {"choices": "o"}, "is 'C': none of the 2 choices, nor"),
        ('{"question": "a", "answer": -1, "o": ["x", "y"]}', {"choices": "o"}, "is -1: none of the 2 choices"),
        ('{"question": "a", "answer": "A", "o": "xy"}', {"choices": "o"}, "column 'o' is no list of choices"),
        ('{"question": "a", "answer": "b", "n": 1}\n' * 2, {"id": "n"}, "exam.jsonl:2: id '1' is that of .*:1 too"),
        ("\n\n", {}, "exam.jsonl: holds no item"),
    ],
)
def test_a_file_of_items_that_is_not_as_declared_is_refused_with_its_line(tmp_path, content, columns, letter):
    (tmp_path / "exam.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=letter):
        read(exam(**columns), tmp_path)


@pytest.mark.parametrize(
    ("choices", "problem"),
    [
        (["x"], "holds one choice, which is always right"),
        (["x", "y", "x "], "holds 'x' more than once, and one of them counts as wrong"),
        (["x", " "], "holds an empty choice, number 1"),
    ],
)
def test_items_to_choose_in_have_something_to_choose(tmp_path, choices, problem):
    item = {"question": "a", "answer": 0, "o": ["x", "y"]}
    write(tmp_path / "exam.jsonl", item, item | {"o": choices})
    asked = exam(choices="o")
    assert len(read(asked, tmp_path)) == 2  # text is kept clear of them, whatever they are
    asked = asked.model_copy(update={"form": asked.form.model_copy(update={"ask": "choice"})})
    with pytest.raises(
        ConfigError, match=rf"exam\.jsonl:2: column 'o' {problem}; give two or more choices, each anoth"
    ):
        read(asked, tmp_path)


def test_a_benchmark_without_its_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"benchmark 'exam': exam\.jsonl: not found; put the items there"):
        read(exam(), tmp_path)
    with pytest.raises(ConfigError, match=r"columns\.anwser: no key 'anwser'"):
        exam(anwser="a")


# ---------------------------------------------------------------- the judge and its report


@pytest.fixture
def asked(tmp_path):
    rng = random.Random(0)
    questions = [text(rng, n) for n in (3, 20, 20, 20)]
    write(tmp_path / "exam.jsonl", *({"question": q, "answer": f"of course {i}"} for i, q in enumerate(questions)))
    write(tmp_path / "other.jsonl", {"question": questions[1], "answer": "no"}, {"question": "2", "answer": "4"})
    texts = [
        f"{text(rng, 30)} {questions[1]} {text(rng, 30)}",
        text(rng, 60),
        f"{questions[0]}: of course 0",
        f"{text(rng, 5)} {' '.join((questions[2] + ' of course 2').split()[:13])}",
        f"{questions[3]} of course 3 and {questions[1]}",
    ]
    benchmarks = [exam(), exam("other.jsonl", "other"), Benchmark(name="held", version=1, form={"kind": "held_out"})]
    return judge(Decontaminate(coverage=0.7), benchmarks, tmp_path, tmp_path, **NEVER), texts


def test_the_judge_drops_what_holds_an_item_and_notes_which(asked):
    made, texts = asked
    found = Court([pickle.loads(pickle.dumps(made))])(documents(*texts))
    assert found.reasons == ["contaminated", None, "contaminated", None, "contaminated"]
    noted = found.notes["contamination"].to_pylist()
    assert noted[1] is None
    assert [(hit["target"], hit["items"], hit["how"]) for hit in noted[0]] == [
        ("exam", ["1"], "covered"),
        ("other", ["0"], "covered"),
    ]
    assert noted[2] == [{"target": "exam", "items": ["0"], "how": "whole", "share": 1.0}]
    assert noted[3] == [{"target": "exam", "items": ["2"], "how": "shared", "share": 0.0}]


def verdicts(path, made, texts):
    found = Court([made])(documents(*texts))
    columns = {"id": [str(i) for i in range(len(texts))], "reason": pa.array(found.reasons, pa.string()), **found.notes}
    parquet.write_table(pa.table(columns), path)
    return path


def test_the_report_counts_items_once_and_documents_for_each_benchmark(asked, tmp_path):
    made, texts = asked
    files = [verdicts(tmp_path / f"{i}.parquet", made, part) for i, part in enumerate((texts[:2], texts[2:], []))]
    found = reports.contamination(made.index, files)
    one, other = found.targets["exam"], found.targets["other"]
    assert (found.documents, found.index) == (3, made.index.digest)
    assert (one.items, one.sought_by_coverage, one.sought_whole, one.too_short) == (4, 3, 1, 0)
    assert (one.found_by_coverage, one.found_whole, one.documents) == (2, 1, 3)
    assert (other.items, other.too_short, other.found_by_coverage, other.documents) == (2, 1, 1, 2)
    assert one.examples[0].model_dump() == {
        "item": "1",
        "document": "0",
        "how": "covered",
        "share": one.examples[0].share,
    }
    shown = reports.show(found).splitlines()
    assert shown[1].split() == ["exam", "4", "0", "3", "1", str(one.shared), "3"]
    assert shown[-1] == "3 documents dropped for one or more"


def test_what_the_judge_answers_has_the_index_in_its_digest(asked, tmp_path):
    made, _ = asked
    assert made.content() == ("decontaminate", made.index.digest)
    again = judge(Decontaminate(coverage=0.7), [exam()], tmp_path, tmp_path, **NEVER)
    assert again.content() != made.content()


# ---------------------------------------------------------------- held-out documents


def test_no_other_document_of_any_source_holds_half_of_a_held_out_one(tmp_path):
    rng = random.Random(1)
    texts = [text(rng, 80) for _ in range(40)]
    lines(tmp_path / "raw" / "a.jsonl", [*texts, "too short to be looked for"])
    ingest(notes(), tmp_path, tmp_path / "documents" / "notes")
    fate = partial(held_out, share=0.3)
    config = Decontaminate(held_out=HeldOutTargets(sources=("notes",)))
    made = judge(config, [], tmp_path, tmp_path / "documents", text_key, fate)
    kept = [each for each in texts if fate(text_key(each))]
    trained = [each for each in texts if not fate(text_key(each))]
    assert 3 < len(kept) < 25
    assert made.index.counts[0].items - made.index.counts[0].too_short == len(kept)
    quote = f"{trained[0]} {' '.join(kept[0].split()[:45])} {trained[1]}"
    found = Court([made])(documents(kept[0].upper(), kept[1], trained[0], quote, quote.replace(" ", "\n")))
    assert found.reasons == [None, None, None, "contaminated", "contaminated"]
    assert found.notes["contamination"].to_pylist()[:3] == [None] * 3


def test_training_text_is_kept_clear_of_built_and_fetched_items_and_held_out_documents_keep_their_own(tmp_path):
    rng = random.Random(3)
    texts = [text(rng, 80) for _ in range(40)]
    fate = partial(held_out, share=0.3)
    kept = next(each for each in texts if fate(text_key(each)))
    words = kept.split()
    context, answer = " ".join(words[10:45]), f" {words[45]}"
    built = {"context": context, "choices": [answer, " other"], "gold": 0, "id": "d:name:9", "document": "d"}
    write(tmp_path / "built.jsonl", built)
    columns = {"question": "context", "choices": "choices", "answer": "gold", "id": "id", "document": "document"}
    form = {"kind": "items", "path": "built.jsonl", "source": "notes", "ask": "choice", "columns": columns}
    made = parse(Benchmark, {"name": "built", "version": 1, "form": form}, "benchmarks/built.yaml")
    question, several = text(rng, 30), text(rng, 9)
    (tmp_path / "data" / "benchmarks" / "arc").mkdir(parents=True)
    fetched = {"id": "0", "document": "0", "question": question, "choices": [" a", " b"], "gold": 1}
    write(
        tmp_path / "data" / "benchmarks" / "arc" / "items.jsonl", fetched | {"context": f"{text(rng, 40)} {question}"}
    )
    arc = parse(Benchmark, {"name": "arc", "version": 1, "form": {"kind": "lm_eval", "task": "arc_easy"}}, "arc.yaml")
    write(tmp_path / "several.jsonl", {"question": several, "answer": ["of course", "naturally"]})
    asked = [made, arc, exam("several.jsonl", "several")]
    judged = judge(Decontaminate(), asked, tmp_path, tmp_path, text_key, fate)
    trained = next(each for each in texts if not fate(text_key(each)))
    quote = f"{trained} {context}{answer}"
    assert not fate(text_key(quote))
    found = Court([judged])(
        documents(kept, trained, quote, question.upper(), f"{several} of course", f"{several}: naturally", several)
    )
    assert found.reasons == [None, None, *["contaminated"] * 4, None]


# ---------------------------------------------------------------- the clean edition


def edition(tmp_path, name, also=(), **options):
    ingest(notes(), tmp_path, tmp_path / "documents" / "notes")
    return clean(notes(), recipe(), tmp_path / "documents" / "notes", tmp_path / name, also=also, **options)


def test_an_edition_says_what_was_removed_for_which_benchmark_and_keeps_the_rest(tmp_path):
    rng = random.Random(2)
    question = text(rng, 30)
    write(tmp_path / "exam.jsonl", {"question": question, "answer": "yes"})
    texts = [text(rng, 40) for _ in range(30)]
    lines(tmp_path / "raw" / "a.jsonl", [*texts, f"{texts[0]} {question}"])
    lines(tmp_path / "raw" / "b.jsonl", [question.upper()])
    exams = judge(Decontaminate(), [exam()], tmp_path, tmp_path, **NEVER)
    ledger = edition(tmp_path, "clean", (exams,))
    assert ledger.funnel.dropped == {"contaminated": 2}
    assert ledger.funnel.documents_kept == 30
    found = reports.load(tmp_path / "clean")
    assert found is not None
    assert ledger.shards[reports.FILE]
    assert (found.documents, found.targets["exam"].found_by_coverage, found.index) == (2, 1, exams.index.digest)
    edition(tmp_path, "again", (exams,), processes=2)
    assert tree(tmp_path / "again") == tree(tmp_path / "clean")
    without = edition(tmp_path, "without")
    assert without.config not in (ledger.config, "")
    assert reports.load(tmp_path / "without") is None
    # Switched off where it was on, nothing of it is left.
    edition(tmp_path, "clean")
    assert tree(tmp_path / "clean") == tree(tmp_path / "without")


# ---------------------------------------------------------------- evaluation


def test_models_are_not_asked_items_from_files_and_the_suite_says_why(tmp_path):
    clean = tmp_path / "clean"
    clean.mkdir()
    rows = [{"id": str(i), "text": f"document {i}"} for i in range(30)]
    parquet.write_table(pa.Table.from_pylist(rows), clean / "held_out-0.parquet")
    benchmark = Benchmark(name="held-out", version=1, form={"kind": "held_out"})
    sources = {"notes": ("general", clean)}
    without = suite.build([benchmark], sources, AssessConfig(), tmp_path / "without")
    found = suite.build([exam(), benchmark], sources, AssessConfig(), tmp_path / "suite")
    assert found.skipped == {"exam": suite.NOT_ASKED}
    assert found.tasks == without.tasks
    assert found.digest == without.digest
    assert suite.load(tmp_path / "suite") == found
    with pytest.raises(ConfigError, match="no benchmark to score a model on; exam: kind items keeps"):
        suite.build([exam()], sources, AssessConfig(), tmp_path / "none")
