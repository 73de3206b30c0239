"""Repair and masking on the way in: what is stored, what is counted, and which editions change with it."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import yaml
from private_texts import MAKERS, email
from small_sources import lines, notes, sentence, tree

from ratoon import stages
from ratoon.config import Amend, ConfigError, PrepareConfig, parse
from ratoon.config.amend import Private
from ratoon.corpus import amend as amending
from ratoon.corpus.amend.mask import FINDERS
from ratoon.corpus.documents import Tally, identify, rows, tally_of
from ratoon.corpus.edition import read_ledger, shards
from ratoon.corpus.sources import ingest

ROOT = Path(__file__).parents[2]
KINDS = get_args(Private)
ALL = Amend(repair=True, mask=KINDS)


def documents(out):
    return [row for path in shards(out) for row in rows(path)]


def planted(count, seed=1):
    """Texts, some with private strings, and those strings."""
    r = random.Random(seed)
    texts, strings = [], []
    for i in range(count):
        kind = r.choice(list(MAKERS)) if i % 3 == 0 else None
        if kind:
            strings.append((kind, MAKERS[kind](r)))
        texts.append(sentence(i) + (f" See {strings[-1][1]} ." if kind else ""))
    return texts, strings


def test_private_strings_never_reach_the_disk_not_even_in_what_comes_with_a_text(tmp_path):
    r = random.Random(2)
    secret = [email(r) for _ in range(6)]
    record = {
        "text": f"{sentence(1)} {secret[0]}",
        "url": f"https://x.org/{secret[1]}",
        "author": {"mail": [secret[2]], secret[3]: "\ud800"},
        "note": 7,
    }
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / f"{secret[4]}.jsonl").write_text(json.dumps(record) + "\n" + json.dumps({"text": sentence(2)}))
    ledger = ingest(notes(), tmp_path, tmp_path / "out", asked=ALL)
    stored = b"".join(tree(tmp_path / "out").values()) + json.dumps(documents(tmp_path / "out")).encode()
    assert not any(item.encode() in stored for item in secret)
    first, second = sorted(documents(tmp_path / "out"), key=lambda row: row["text"])
    assert first["text"] == f"{sentence(1)} <EMAIL>"
    assert first["id"] == identify("notes", first["text"])
    assert first["url"] == "https://x.org/<EMAIL>"
    assert json.loads(first["metadata"]) == {"author": {"mail": ["<EMAIL>"], "<EMAIL>": "\ud800"}, "note": 7}
    assert second["url"] == "raw/<EMAIL>:2"  # the suffix may be of the address
    assert ledger.amended["email"].model_dump() == {"documents": 2, "occurrences": 6}


def beside(tmp_path, fields):
    """A record whose text has these fields with it."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_text(json.dumps({"text": sentence(1)} | fields))


def test_numbers_that_come_with_a_text_are_masked_as_their_digits_are(tmp_path):
    plain = {"id": 4111111111111112, "year": 2024, "share": 0.5, "seen": True, "none": None, "wide": [1, [2.0]]}
    cards = {"card": 4111111111111111, "gaps": 4111111111111111.0, "list": [[5500005555555559]]}
    beside(tmp_path, plain | cards)
    ledger = ingest(notes(), tmp_path, tmp_path / "out", asked=ALL)
    (row,) = documents(tmp_path / "out")
    assert json.loads(row["metadata"]) == {**plain, "card": "<CARD>", "gaps": "<CARD>", "list": [["<CARD>"]]}
    assert ledger.amended["card"].model_dump() == {"documents": 1, "occurrences": 3}


def test_bytes_that_come_with_a_text_are_masked_as_they_are_stored(tmp_path):
    table = pa.table({"text": [sentence(1)], "raw": [b"of jane.roe@corp-mail.org"]})
    (tmp_path / "raw").mkdir()
    parquet.write_table(table, tmp_path / "raw" / "a.parquet")
    ingest(notes(), tmp_path, tmp_path / "out", asked=ALL)
    assert json.loads(documents(tmp_path / "out")[0]["metadata"]) == {"raw": "b'of <EMAIL>'"}


def test_keys_that_mask_to_the_same_keep_their_values(tmp_path):
    votes = {"jane.roe@corp-mail.org": 1, "john.doe@corp-mail.org": 2, "<EMAIL> 2": 3, "other": 4}
    beside(tmp_path, {"votes": votes})
    ingest(notes(), tmp_path, tmp_path / "out", asked=ALL)
    (row,) = documents(tmp_path / "out")
    assert json.loads(row["metadata"])["votes"] == {"<EMAIL>": 1, "<EMAIL> 3": 2, "<EMAIL> 2": 3, "other": 4}


def test_counts_add_up_from_shards_to_ledger_and_are_the_tokens_stored(tmp_path):
    texts, strings = planted(300)
    for i in range(5):
        lines(tmp_path / "raw" / f"{i}.jsonl", texts[i::5])
    ledger = ingest(notes(), tmp_path, tmp_path / "out", asked=Amend(mask=KINDS))
    total = Tally()
    for path in shards(tmp_path / "out"):
        total.add(tally_of(path))
    assert total.changes() == ledger.amended == read_ledger(tmp_path / "out").amended
    wanted = Counter(kind for kind, _ in strings)
    assert {kind: item.occurrences for kind, item in ledger.amended.items()} == wanted
    stored = [row["text"] for row in documents(tmp_path / "out")]
    assert {kind: sum(FINDERS[kind].token in text for text in stored) for kind in wanted} == wanted
    assert ledger.funnel.documents_in == ledger.funnel.documents_kept == 300
    assert ledger.funnel.bytes_kept == sum(len(text.encode()) for text in stored)


def test_each_kind_is_switched_and_counted_on_its_own(tmp_path):
    texts, strings = planted(200)
    lines(tmp_path / "raw" / "a.jsonl", [*texts, "caf\u00c3\u00a9 " + sentence(999)])
    for asked in [Amend(repair=True), *(Amend(mask=(kind,)) for kind in MAKERS)]:
        ledger = ingest(notes(), tmp_path, tmp_path / "out", asked=asked)
        own = {kind: item.occurrences for kind, item in ledger.amended.items()}
        assert own == (
            {"repair": 1} if asked.repair else {kind: n for kind, n in wanted(strings).items() if kind in asked.mask}
        )


def wanted(strings):
    return Counter(kind for kind, _ in strings)


def test_an_edition_of_which_nothing_is_asked_is_the_same_bytes(tmp_path):
    texts, _ = planted(60)
    lines(tmp_path / "raw" / "a.jsonl", texts)
    ingest(notes(), tmp_path, tmp_path / "plain")
    ingest(notes(), tmp_path, tmp_path / "off", asked=Amend())
    assert tree(tmp_path / "plain") == tree(tmp_path / "off")
    assert "amended" not in json.loads((tmp_path / "plain" / "ledger.json").read_text())
    assert [row["text"] for row in documents(tmp_path / "plain")] == texts


def test_switching_reads_again_and_asking_the_same_reads_nothing(tmp_path, monkeypatch):
    texts, _ = planted(60)
    lines(tmp_path / "raw" / "a.jsonl", texts)
    out = tmp_path / "out"
    plain = ingest(notes(), tmp_path, out)
    masked = ingest(notes(), tmp_path, out, asked=Amend(mask=("email", "ip")))
    assert not set(plain.shards) & set(masked.shards)
    assert plain.config != masked.config
    before = tree(out)
    monkeypatch.setattr(amending, "amended", lambda *_: pytest.fail("read again"))
    ingest(notes(), tmp_path, out, asked=Amend(mask=("ip", "email")))
    assert tree(out) == before


def test_the_edition_is_the_same_for_any_number_of_processes_and_any_way_there(tmp_path):
    texts, _ = planted(120)
    for i in range(4):
        lines(tmp_path / "raw" / f"{i}.jsonl", texts[i::4])
    one = ingest(notes(), tmp_path, tmp_path / "one", processes=1, asked=ALL)
    assert one == ingest(notes(), tmp_path, tmp_path / "two", processes=2, asked=ALL)
    ingest(notes(), tmp_path, tmp_path / "way")
    ingest(notes(), tmp_path, tmp_path / "way", asked=ALL)
    assert tree(tmp_path / "one") == tree(tmp_path / "two") == tree(tmp_path / "way")


def test_later_documents_change_nothing_in_shards_that_were_there(tmp_path):
    texts, _ = planted(90)
    lines(tmp_path / "raw" / "old.jsonl", texts)
    before = ingest(notes(), tmp_path, tmp_path / "out", asked=ALL).shards
    lines(tmp_path / "raw" / "newer.jsonl", planted(90, seed=2)[0])
    after = ingest(notes(), tmp_path, tmp_path / "out", asked=ALL).shards
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1


def test_how_records_are_taken_together_is_of_no_account(monkeypatch, tmp_path):
    texts, _ = planted(100)
    lines(tmp_path / "raw" / "a.jsonl", texts)
    ingest(notes(), tmp_path, tmp_path / "many", asked=ALL)
    monkeypatch.setattr(amending, "BLOCK_RECORDS", 3)
    monkeypatch.setattr(amending, "BLOCK_CHARS", 200)
    ingest(notes(), tmp_path, tmp_path / "few", asked=ALL)
    assert tree(tmp_path / "many") == tree(tmp_path / "few")


def test_a_text_of_which_repair_leaves_nothing_is_dropped_and_counted(tmp_path):
    lines(tmp_path / "raw" / "a.jsonl", ["\x01\x02\x03", *(sentence(i) for i in range(5))])
    ledger = ingest(notes(max_bad_share=0.5), tmp_path, tmp_path / "out", asked=ALL)
    assert ledger.funnel.dropped == {"empty text": 1}
    assert ledger.examples == {"empty text": ["raw/a.jsonl:1"]}
    assert ledger.funnel.documents_in == 6
    assert not ledger.amended


def test_a_bad_record_is_dropped_with_its_reason_though_others_are_amended(tmp_path):
    lines(tmp_path / "raw" / "a.jsonl", planted(30)[0])
    with (tmp_path / "raw" / "a.jsonl").open("a") as file:
        file.write('{"no": 1}\nnot json\n')
    ledger = ingest(notes(max_bad_share=0.5), tmp_path, tmp_path / "out", asked=ALL)
    assert ledger.funnel.dropped == {"no text": 1, "not JSON": 1}
    assert ledger.examples["not JSON"] == ["raw/a.jsonl:32"]


# ---------------------------------------------------------------- as it is asked for


def project(root, kind, amend):
    for name in ("data/sources", "data/raw"):
        (root / name).mkdir(parents=True)
    lines(root / "data" / "raw" / "a.jsonl", [f"{sentence(1)} caf\u00c3\u00a9 {email(random.Random(1))}"])
    source = {"name": "notes", "role": "general", "kind": kind, "origins": [{"path": "data/raw"}]}
    (root / "data" / "sources" / "notes.yaml").write_text(yaml.safe_dump(source))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["prepare"]["amend"] = amend
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return root


@pytest.mark.parametrize("kind", ["prose", "code", "table", "auto"])
def test_a_kind_of_source_is_amended_only_where_its_own_entry_says_so(tmp_path, kind):
    others = {
        other: {"repair": True, "mask": ["email"]} for other in ("prose", "web", "code", "table") if other != kind
    }
    untouched = stages.ingest(project(tmp_path / "a", kind, others), "notes")
    assert not untouched.amended
    repaired = stages.ingest(project(tmp_path / "b", kind, {kind: {"repair": True}}), "notes")
    assert set(repaired.amended) == {"repair"}
    masked = stages.ingest(project(tmp_path / "c", kind, {kind: {"mask": ["email"]}}), "notes")
    assert set(masked.amended) == {"email"}


def test_nothing_is_amended_unless_asked():
    assert PrepareConfig(rules={}).amend == {}
    assert not Amend().asked
    assert amending.content(Amend()) == amending.content(None) == ()


def test_a_kind_of_private_string_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(
        ConfigError, match=r"params.yaml: amend.prose.mask.0: Input should be 'email'.*\(found 'mail'\)"
    ):
        parse(PrepareConfig, {"rules": {}, "amend": {"prose": {"mask": ["mail"]}}}, "params.yaml")
    with pytest.raises(ConfigError, match="did you mean 'repair'"):
        parse(Amend, {"repairs": True}, "params.yaml")
