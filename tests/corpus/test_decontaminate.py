"""Decontamination: what holds an item is found, whatever it is dressed in; what only sounds like one stays."""

import random
import re
import unicodedata

import pyarrow as pa
import pytest
from odd_texts import ODD, OTHER, PROSE

from ratoon.config import ConfigError, Decontaminate, parse
from ratoon.corpus.decontaminate import Decontaminator, Item, Target, build, split, table

NAMES = [a + b + c for a in ("ka", "lo", "mi", "ru", "te", "so") for b in ("ban", "dor", "fen", "gul") for c in "aeiou"]
DEFAULT = Decontaminate()


def text(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(NAMES) for _ in range(count))


def finder(*items: Item, config: Decontaminate = DEFAULT, coverage: float | None = None) -> Decontaminator:
    return Decontaminator(build([Target("exam", items, coverage or config.coverage, config.least)], config))


def found(finder: Decontaminator, *texts: str) -> list[set[str]]:
    """Ids of the items for which each text goes."""
    return [{id_ for hit in hits if hit.removes for id_ in hit.items} for hits in finder.hits(list(texts))]


def items_of(rng: random.Random, lengths: list[int]) -> list[Item]:
    made = []
    for number, length in enumerate(lengths):
        words = text(rng, length).split()
        cut = rng.randrange(max(1, length // 2), length)
        made.append(Item(str(number), " ".join(words[:cut]), " ".join(words[cut:])))
    return made


# ---------------------------------------------------------------- recall and precision


@pytest.mark.parametrize("seed", range(3))
def test_every_planted_item_is_found_in_its_document_and_in_no_other(seed):
    rng = random.Random(seed)
    items = items_of(rng, [rng.choice([5, 6, 9, 12, 13, 14, 30, 100, 400]) for _ in range(150)])
    texts = [f"{text(rng, 40)}\n{item.question} {item.answer}\n{text(rng, 40)}" for item in items]
    clean = [text(rng, 120) for _ in range(100)]
    assert found(finder(*items), *texts, *clean) == [{item.id} for item in items] + [set()] * 100


def reference(items: list[Item], document: str, config: Decontaminate) -> set[str]:
    """The rule, spelled out slowly."""

    def words(of: str) -> list[str]:
        return re.findall(r"[^\W_]+", of.casefold())

    def grams(of: list[str]) -> list[tuple[str, ...]]:
        return [tuple(of[i : i + config.ngram]) for i in range(len(of) - config.ngram + 1)]

    held, found = words(document), set()
    in_document = set(grams(held))
    wordings = {tuple(words(f"{item.question} {item.answer}")) for item in items}
    times = {
        gram: sum(gram in grams(list(w)) for w in wordings) for wording in wordings for gram in grams(list(wording))
    }
    for item in items:
        whole = words(f"{item.question} {item.answer}")
        own = {i + k for i, g in enumerate(grams(whole)) if times[g] <= config.common for k in range(config.ngram)}
        hit = {
            i + k
            for i, g in enumerate(grams(whole))
            if times[g] <= config.common and g in in_document
            for k in range(config.ngram)
        }
        if own and len(hit) >= config.coverage * len(own):
            found.add(item.id)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_coverage_is_what_the_rule_spelled_out_slowly_says(seed):
    rng = random.Random(seed)
    config = Decontaminate(ngram=3, common=2, report_ngram=5)
    few = [NAMES[:7], NAMES[:5]][seed % 2]
    items = [Item(str(i), " ".join(rng.choice(few) for _ in range(rng.randrange(13, 30)))) for i in range(12)]
    documents = [" ".join(rng.choice(few) for _ in range(rng.randrange(0, 90))) for _ in range(40)]
    asked = finder(*items, config=config)
    long = {item.id for item, own in zip(items, own_words(asked, items), strict=True) if own}
    got = [ids & long for ids in found(asked, *documents)]
    assert got == [reference(items, document, config) for document in documents]
    assert any(got)
    assert not all(got)


def own_words(asked: Decontaminator, items: list[Item]) -> list[int]:
    own = {id_: int(n) for entry, n in zip(asked.index.entries, asked.index.own, strict=True) for id_ in entry.ids}
    return [own[item.id] for item in items]


def test_one_changed_word_in_forty_does_not_hide_an_item():
    rng = random.Random(1)
    words = text(rng, 40).split()
    asked = finder(Item("a", " ".join(words)))
    for place in range(40):
        changed = [*words[:place], "elsewhere", *words[place + 1 :]]
        assert found(asked, f"{text(rng, 30)} {' '.join(changed)} {text(rng, 30)}") == [{"a"}], place


def test_the_same_words_in_another_order_are_no_item():
    rng = random.Random(2)
    items = items_of(rng, [12, 20, 40, 200])
    shuffled = []
    for item in items:
        words = f"{item.question} {item.answer}".split()
        rng.shuffle(words)
        shuffled.append(" ".join(words))
    assert found(finder(*items), *shuffled) == [set()] * 4


def test_half_an_item_in_one_document_is_enough_and_less_is_not():
    rng = random.Random(3)
    words = text(rng, 40).split()
    asked = finder(Item("a", " ".join(words)))
    half, less = " ".join(words[5:25]), " ".join(words[5:24])
    assert found(asked, half, less) == [{"a"}, set()]
    assert found(asked, f"{half[:60]}", text(rng, 50)) == [set(), set()]


def test_two_documents_that_hold_half_each_of_what_is_asked_both_stay():
    rng = random.Random(4)
    words = text(rng, 40).split()
    asked = finder(Item("a", " ".join(words)))
    assert found(asked, " ".join(words[:14]), " ".join(words[26:])) == [set(), set()]
    assert found(asked, " ".join([*words[:14], "and", *words[26:]])) == [{"a"}]


def test_an_item_is_found_in_any_case_on_any_lines_and_in_any_form_of_its_letters():
    item = Item(
        "a", "Où est née l'idée que «ﬁn de siècle» désigne une époque?", "À Paris, selon Zola, vers 1886, dit-on"
    )
    whole = f"{item.question} {item.answer}"
    dressed = [
        whole.upper(),
        whole.replace(" ", "\r\n"),
        whole.replace(" ", "\u00a0 "),
        unicodedata.normalize("NFD", whole),
        whole.replace("ﬁn", "fin"),
        whole.replace("désigne", "dé\u00adsig\u200bne"),
        whole.replace(" ", "  \t*_"),
        "\ufeff" + whole.replace("'", "’").replace("«", '"').replace("»", '"'),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in whole),
    ]
    assert found(finder(item), *dressed) == [{"a"}] * len(dressed)
    short = finder(Item("b", "Où est née l'idée", "à Genève"))
    assert found(short, "OÙ\nEST NE\u0301E L’IDÉE? - À Genève", "Où est née une idée à Genève") == [{"b"}, set()]


# ---------------------------------------------------------------- short items


def test_a_short_item_is_found_only_whole_its_answer_soon_after_its_question():
    asked = finder(Item("a", "Who wrote the Origin of Species?", "Charles Darwin"))
    held = [
        "Q: who wrote the origin of species? A: Charles Darwin.",
        '{"question": "Who wrote the Origin of Species?", "answer": "Charles Darwin"}',
        "Who wrote the Origin of Species? The answer, surely, is Charles Darwin",
    ]
    kept = [
        "Who wrote the Origin of Species?",
        "Charles Darwin",
        "Charles Darwin. Who wrote the Origin of Species?",
        "Who wrote the Origin of all Species? Charles Darwin",
        "Who wrote the Origin of Species? Emma Darwin",
        "Who wrote the Origin of Species? It was written, as far as anybody knows, by Charles Darwin",
        "Who wrote the Origin of Species? Charles Darwinian",
    ]
    assert found(asked, *held, *kept) == [{"a"}] * len(held) + [set()] * len(kept)


def test_an_item_does_not_reach_from_one_document_into_the_next():
    rng = random.Random(5)
    short, long = Item("s", "Who wrote the Origin of Species?", "Charles Darwin"), Item("l", text(rng, 14))
    words = long.question.split()
    pieces = ["Who wrote the Origin of", "Species? Charles Darwin", " ".join(words[:7]), " ".join(words[7:])]
    assert found(finder(short, long), *pieces) == [set()] * 4


def test_questions_asked_of_many_answers_are_told_apart():
    items = [Item(str(i), "Which of these is a bird?", name) for i, name in enumerate(NAMES)]
    assert found(finder(*items), f"Which of these is a bird? {NAMES[7]}") == [{"7"}]


def test_a_question_of_two_words_is_found_with_its_answer_as_one_phrase():
    asked = finder(Item("a", "Capital France?", "The city of Paris"))
    assert found(asked, "x capital france the city of paris y", "capital france: it is the city of paris") == [
        {"a"},
        set(),
    ]


def test_what_is_too_short_to_tell_is_counted_and_not_looked_for():
    asked = finder(Item("a", "2 + 2", "4"), Item("b", ""), Item("c", "one two three four five"))
    assert asked.index.counts[0]._asdict() == {"items": 3, "covered": 0, "whole": 1, "too_short": 2}
    assert found(asked, "2 2 4") == [set()]


# ---------------------------------------------------------------- the wording of a benchmark


def test_an_instruction_that_all_items_share_removes_nothing_and_protects_nothing():
    rng = random.Random(6)
    instruction = text(rng, 40)
    items = [Item(str(i), f"{instruction} {text(rng, 20)}", text(rng, 2)) for i in range(30)]
    asked = finder(*items)
    own = items[4].question.removeprefix(instruction)
    assert found(asked, f"{text(rng, 30)} {instruction} {text(rng, 30)}", own) == [set(), {"4"}]
    assert found(finder(*items[:5]), instruction)[0] == {"0", "1", "2", "3", "4"}


def test_an_item_made_of_shared_wording_alone_is_still_found_whole():
    parts = [text(random.Random(i), 14) for i in range(4)]
    items = [Item(f"{i}{j}", parts[i], parts[j]) for i in range(4) for j in range(4)]
    asked = finder(*items, config=Decontaminate(common=1))
    assert asked.index.counts[0].whole == 0  # the places where two parts meet are their own
    same = text(random.Random(9), 30).split()
    nested = [Item(str(n), " ".join(same[:n])) for n in range(16, 31)]
    asked = finder(*nested, config=Decontaminate(common=1))
    assert asked.index.counts[0].whole == 14
    assert found(asked, " ".join(same[:20]) + " elsewhere") == [{str(n) for n in range(16, 21)}]


def test_items_with_one_wording_count_as_one_and_are_all_reported():
    rng = random.Random(7)
    wording = text(rng, 20)
    items = [Item(str(i), wording.upper() if i % 2 else wording) for i in range(30)]
    assert found(finder(*items), wording) == [{str(i) for i in range(30)}]


def test_a_longer_run_in_common_is_reported_and_removes_nothing():
    rng = random.Random(8)
    words = text(rng, 60).split()
    asked = finder(Item("a", " ".join(words)))
    (thirteen,), (twelve,) = asked.hits([" ".join(words[20:33])]), asked.hits([" ".join(words[20:32])])
    assert [(hit.how, hit.items, hit.removes) for hit in thirteen] == [("shared", ("a",), False)]
    assert twelve == ()
    assert asked.reasons([" ".join(words[20:33]), " ".join(words)]) == [None, "contaminated"]


# ---------------------------------------------------------------- what must not matter


def test_decontaminating_twice_removes_nothing_more():
    rng = random.Random(10)
    items = items_of(rng, [6, 12, 20, 50] * 5)
    texts = [*(f"{text(rng, 20)} {item.question} {item.answer}" for item in items), *(text(rng, 60) for _ in range(30))]
    asked = finder(*items)
    kept = [each for each, reason in zip(texts, asked.reasons(texts), strict=True) if reason is None]
    assert len(kept) == 30
    assert asked.reasons(kept) == [None] * 30


def test_neither_neighbours_nor_batches_nor_the_order_of_items_matter(monkeypatch):
    rng = random.Random(11)
    items = items_of(rng, [6, 12, 20, 50] * 5)
    texts = [*(f"{text(rng, 20)} {item.question} {item.answer} é" for item in items), *ODD.values(), text(rng, 500)]
    whole = finder(*items).hits(texts)
    assert [finder(*reversed(items)).hits([each])[0] for each in texts] == whole
    order = rng.sample(range(len(texts)), len(texts))
    monkeypatch.setattr(table, "PIECE", 17)
    mixed = finder(*items).hits(pa.chunked_array([[texts[i]] for i in order]))
    assert [mixed[order.index(i)] for i in range(len(texts))] == whole


def test_words_that_hash_alike_remove_nothing(monkeypatch):
    rng = random.Random(12)
    config = Decontaminate(common=1000)
    items = items_of(rng, [8, 12, 14, 20, 30] * 4)
    texts = [text(rng, 400) for _ in range(8)]
    texts[3] += f" {items[2].question} {items[2].answer} "
    exact = found(finder(*items, config=config), *texts)
    honest = split.words

    def weak(data, offsets):
        made = honest(data, offsets)
        return made._replace(hashes=made.hashes >> 62 << 62)

    monkeypatch.setattr(split, "words", weak)
    asked = finder(*items, config=config)
    assert found(asked, *texts) == exact
    assert any(exact)


def test_the_digest_names_items_and_thresholds_and_not_their_order():
    rng = random.Random(13)
    items = items_of(rng, [6, 20, 30])
    digest = finder(*items).index.digest
    assert finder(*reversed(items)).index.digest == digest
    assert finder(*items[:2]).index.digest != digest
    assert finder(*items, config=Decontaminate(common=11)).index.digest != digest
    assert finder(*items, coverage=0.6).index.digest != digest


def test_nothing_looked_for_finds_nothing():
    assert Decontaminator(build([], DEFAULT)).reasons([PROSE, OTHER, ""]) == [None] * 3
    assert finder().reasons([PROSE]) == [None]
    assert finder(Item("a", PROSE)).reasons([]) == []


@pytest.mark.parametrize(
    "poison",
    [
        "x" * 5_000_000,
        "who wrote the origin of species " * 60_000,
        "\n" * 1_000_000,
        "a b " * 500_000,
        "\\ud800 \u202e" * 50_000,
        "\ud7ff\U0010ffff\ufffe" * 50_000,
        "",
        " \t\u3000",
    ],
    ids=["one word", "a question again and again", "newlines", "letters", "overrides", "edges", "empty", "blank"],
)
def test_a_poisonous_document_passes_and_spoils_no_other(poison):
    rng = random.Random(14)
    items = [Item("s", "Who wrote the Origin of Species?", "Charles Darwin"), Item("l", text(rng, 30))]
    held = [f"{items[1].question}", f"{items[0].question} {items[0].answer}"]
    assert found(finder(*items), held[0], poison, held[1]) == [{"l"}, set(), {"s"}]


def test_thresholds_that_would_leave_items_unprotected_are_refused():
    with pytest.raises(ConfigError, match="ngram is 20, report_ngram 13, short 13; none may be smaller"):
        parse(Decontaminate, {"ngram": 20}, "params.yaml: prepare.decontaminate")
    with pytest.raises(ConfigError, match="coverage: Input should be greater than 0"):
        parse(Decontaminate, {"coverage": 0}, "params.yaml")
