"""What the Prefect page of a run shows of the text on its way."""

from ratoon.records import Funnel, Ledger
from tasks import artifacts, prepare

FOUND = Funnel(
    documents_in=10,
    bytes_in=1000,
    documents_kept=6,
    bytes_kept=700,
    dropped={"short": 1, "duplicate": 3},
    dropped_bytes={"short": 10, "duplicate": 290},
)


def test_the_table_accounts_for_every_document_and_names_the_commonest_reason_first():
    ledger = Ledger(source="docs", role="general", stage="clean", config="c", funnel=FOUND, shards={})
    rows = list(prepare.funnel([ledger]))
    assert [row[""] for row in rows] == ["in", "- duplicate", "- short", "kept"]
    for column, total in (("documents", 10), ("bytes", 1000)):
        first, *others = [row[column] for row in rows]
        assert first == total == sum(others)


def test_every_source_of_a_refresh_is_shown_under_the_line_s_own_name(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(artifacts, "create_table_artifact", lambda **given: shown.update(given))
    params = type("P", (), {"refresh": type("R", (), {"line": "Ratoon nano_2"})})
    sources = [type("S", (), {"name": name}) for name in ("docs", "code")]
    monkeypatch.setattr(prepare, "resolve", lambda root, ask: (params, type("B", (), {"name": "nano"}), sources))
    read = lambda path, kind: Ledger(  # noqa: E731
        source=path.parent.name, role="general", stage="clean", config="c", funnel=FOUND, shards={}
    )
    monkeypatch.setattr(prepare.records, "read", read)
    prepare.show_funnel.fn(tmp_path, None)
    assert shown["key"] == "ratoon-nano-2-funnel"
    assert {"docs", "code"} <= {row["source"] for row in shown["table"]}
