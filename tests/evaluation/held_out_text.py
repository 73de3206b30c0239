"""Held-out text of made-up sentences, as `ratoon prepare` would leave it."""

import random

import pyarrow
import pyarrow.parquet as parquet

WORDS = ("field", "cane", "root", "stem", "leaf", "rain", "soil", "press", "juice", "syrup", "mill", "harvest", "tall")


def prose(seed, words):
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) + ("\n" if i % 9 == 8 else " ") for i in range(words))


def write_held_out(folder, texts, name="held_out-00000.parquet"):
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"id": [f"{folder.name}-{key}" for key in texts], "text": list(texts.values())}
    parquet.write_table(pyarrow.table(rows), folder / name)
    return folder
