"""`ratoon bench` on a small project: build, list, show; and what is refused."""

import json
import shutil

import pytest
from made_up_world import almanac, article, edition

from ratoon import cli
from ratoon.corpus import portions
from ratoon.corpus.portions import Share

SOURCE = "role: {}\nlanguage: en\nlicense: MIT\nkind: prose\norigins:\n  - path: data/raw\n"


@pytest.fixture
def project(tmp_path, request):
    root = tmp_path / "project"
    for folder in ("data/sources", "data/benchmarks"):
        (root / folder).mkdir(parents=True)
    params = (request.config.rootpath / "params.yaml").read_text()
    (root / "params.yaml").write_text(
        params.replace("sources: [python-docs, python-code]", "sources: [world, almanac]")
    )
    for name, role in (("world", "domain"), ("almanac", "general")):
        (root / "data" / "sources" / f"{name}.yaml").write_text(f"name: {name}\n{SOURCE.format(role)}")
    shutil.copy(request.config.rootpath / "data" / "benchmarks" / "held-out.yaml", root / "data" / "benchmarks")
    held_out = {f"d{i:03}": article(i) for i in range(60)}
    edition(root / "data" / "clean" / "world", held_out, {f"t{i}": almanac(i) for i in range(2)})
    edition(root / "data" / "clean" / "almanac", {}, {"copy": f"Quoted: {article(7)}"})
    return root


def say(project, capsys, *arguments):
    code = cli.main(["--root", str(project), "bench", *arguments])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_a_benchmark_is_built_listed_and_shown_within_80_columns(project, capsys):
    command = ("build", "facts", "--source", "world", "--kinds", "name,title", "--items", "40")
    code, out, err = say(project, capsys, *command)
    assert (code, err) == (0, "")
    assert out.startswith("facts version 1 (new): ")
    assert "from 60 held-out documents of world; clear of 3 training documents" in out
    lines = (project / "data" / "benchmarks" / "facts" / "items.jsonl").read_text().splitlines()
    assert not any('"d007"' in line for line in lines)
    items = {json.loads(line)["id"]: json.loads(line) for line in lines}
    said = [out]
    code, out, _ = say(project, capsys, "list")
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["facts", "1", "choice", str(len(items))],
        ["held-out", "1", "rolling", "of", "every", "source"],
    ]
    said.append(out)
    code, out, _ = say(project, capsys, "show", "facts", "-n", "2")
    said.append(out)
    shown = [line.split()[-1] for line in out.splitlines() if line.startswith("---")]
    assert len(shown) == 4
    for name in shown:
        assert f"* {'ABCD'[items[name]['gold']]}: " in out
    assert all(len(line) < 80 for text in said for line in text.splitlines())
    code, out, _ = say(project, capsys, *command)
    assert out.startswith("facts version 1 (unchanged): ")


def test_a_build_that_is_killed_on_its_way_leaves_no_version_that_stands_for_two_sets_of_items(
    project, capsys, monkeypatch
):
    """Killed at each write in turn: whatever is on disk then, a version has but one set of items."""
    from ratoon.evaluation.building import publish

    root, folder = project, project / "data" / "benchmarks"
    command = ("build", "facts", "--source", "world", "--kinds", "title", "--items")
    stood: dict[int, str] = {}

    def note():
        if (folder / "facts.yaml").exists():
            made = publish.digest(folder / "facts")
            assert stood.setdefault(publish.known(root, "facts").version, made) == made

    def killed_after(count, whole):
        left = [count]

        def write(*given):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            whole(*given)

        return write

    for items, name, count in ((20, "replace", 1), (20, "write", 0), (24, "replace", 1), (28, "write", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(publish, name, killed_after(count, getattr(publish, name)))
            code, _, said = say(project, capsys, *command, str(items))
            assert (code, said.split(":")[1]) == (
                130,
                " stopped; what was finished is kept, and the same command goes on from there\n",
            )
        note()
        code, _, said = say(project, capsys, *command, str(items))
        assert (code, said) == (0, "")
        note()
    assert len(set(stood.values())) >= 3


def test_what_is_shown_and_built_can_be_read_by_a_program(project, capsys):
    _, out, _ = say(project, capsys, "build", "facts", "--source", "world", "--kinds", "title", "--json")
    assert json.loads(out)["kinds"]["title"]["items"] > 20
    _, out, _ = say(project, capsys, "show", "facts", "--json", "-n", "1")
    assert set(json.loads(out)) == {"kind", "id", "document", "question", "answers", "choices", "gold"}


@pytest.mark.parametrize(
    ("arguments", "letter"),
    [
        (("build", "facts", "--source", "wrold"), "no source 'wrold'; did you mean 'world'"),
        (("build", "facts", "--source", "world", "--kinds", "nmae"), "kinds.0: Input should be 'number'"),
        (("build", "facts", "--source", "world", "--items", "0"), "command line: items: "),
        (("build", "held-out", "--source", "world"), "is of kind held_out and was not built"),
        (("build", "facts", "--source", "world", "--least", "5000"), "held-out documents make no benchmark"),
        (("show", "held-out"), "of kind held_out, made anew of every source's held-out documents"),
        (("show", "exam"), "no benchmark 'exam'"),
        (("fetch", "held-out"), "only items of kind lm_eval are fetched"),
    ],
)
def test_what_cannot_be_done_is_answered_with_what_can(project, capsys, arguments, letter):
    code, out, err = say(project, capsys, *arguments)
    assert (code, out) == (2, "")
    assert letter in err
    assert [path.name for path in (project / "data" / "benchmarks").iterdir()] == ["held-out.yaml"]


def test_of_a_split_source_the_portions_are_named_and_no_other_source(project, capsys, monkeypatch):
    def shares(source, clean):
        names = ("en", "fr") if source.name == "world" else ("",)
        return tuple(Share(".".join(filter(None, (source.name, name))), name, 1.0) for name in names)

    monkeypatch.setattr(portions, "shares", shares)
    code, _, err = say(project, capsys, "build", "facts", "--source", "world")
    assert code == 2
    assert "source 'world': split into world.en, world.fr; name one of them: items are of one language" in err


def test_a_portion_of_a_source_that_is_not_split_is_refused(project, capsys):
    code, _, err = say(project, capsys, "build", "facts", "--source", "world.en")
    assert code == 2
    assert "source 'world.en': 'world' is not split; give it as --source world" in err


@pytest.mark.parametrize("name", ["../outside", "Facts", "a/b"])
def test_a_name_that_no_benchmark_may_have_is_refused_before_anything_is_written(project, capsys, name):
    before = sorted(project.rglob("*"))
    code, _, err = say(project, capsys, "build", name, "--source", "world", "--kinds", "title", "--items", "20")
    assert code == 2
    assert "command line: name: String should match pattern" in err
    assert sorted(project.rglob("*")) == before


def test_fewer_than_one_item_to_look_at_is_no_question(project, capsys):
    say(project, capsys, "build", "facts", "--source", "world", "--kinds", "title", "--items", "20")
    code, _, err = say(project, capsys, "show", "facts", "-n", "-1")
    assert (code, err) == (2, "ratoon: ratoon bench show: --number is -1; give 1 or more items of each kind\n")
