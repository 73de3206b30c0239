"""Training text and packed rows beside the held-out text, as `ratoon prepare` would leave them."""

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
from held_out_text import prose

from ratoon.corpus.tokenizer import load, tokenizer_digest
from ratoon.stream.rows import Index, ShardCounts, ShardPacker, dtype_for


def write_training(folder, texts, name="train-00000.parquet"):
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"id": [f"{folder.name}-{key}" for key in texts], "text": list(texts.values())}
    parquet.write_table(pyarrow.table(rows), folder / name)
    return folder


def training_texts(role, documents=40):
    return {f"t{i:03}": prose(f"{role} to train {i}", 120) for i in range(documents)}


def pack_rows(out, model, texts, base, row_tokens):
    """Both parts of a source as rows of this model's tokens."""
    encoder, separator = load(model)
    size = encoder.get_vocab_size()
    shards = {}
    for part in ("train", "held_out"):
        packer = ShardPacker(out / part / "a", size, separator=separator)
        ids = [np.array(encoder.encode(text, add_special_tokens=False).ids) for text in texts]
        for document in ids:
            packer.add(iter([document]))
        packer.close()
        tokens = sum(len(document) + 1 for document in ids)
        shards[part] = {"a": ShardCounts(tokens=tokens, documents=len(ids), bytes=sum(map(len, texts)))}
    index = Index(
        format=1,
        base=base,
        tokenizer=tokenizer_digest(model),
        vocabulary=size,
        dtype=dtype_for(size),
        separator=separator,
        row_tokens=row_tokens,
        shards=shards,
        totals={part: found["a"] for part, found in shards.items()},
    )
    (out / "rows.json").write_text(index.model_dump_json())
    return out
