"""Score folders as the scorer leaves them, with numbers that are known."""

import json
import math

import pyarrow
import pyarrow.parquet as parquet


def write_scores(tests, out, cost):
    """A score folder for every item of the suite in `tests`; `cost`: (source, document id, text) -> bits per byte."""
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(tests.glob("*.jsonl")):
        source = file.stem.partition("--")[2]
        rows = []
        for line in file.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            size = len(item["text"].encode())
            nats = -cost(source, item["document"], item["text"]) * size * math.log(2)
            same = {key: item["id"] for key in ("id", "doc_hash", "prompt_hash", "target_hash")}
            rows.append({**same, "document": item["document"], "loglik_nats": [nats], "bytes": size})
        parquet.write_table(pyarrow.Table.from_pylist(rows), out / f"{file.stem}.parquet")
    return out
