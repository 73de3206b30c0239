"""Prefixes beside packed rows, and what a row becomes by them, token by token."""

import json

import numpy as np

from ratoon.corpus.packed import PREFIXES_FORMAT
from ratoon.stream.rows import Rows


def prefix_of(document):
    """Of some tokens, another for each document; every fifth has none."""
    return [400 + (document * 7 + n) % 100 for n in range(document % 5)]


def give(folder, of=prefix_of, format=PREFIXES_FORMAT):
    """Packed rows with prefixes beside them."""
    index = json.loads((folder / "rows.json").read_text())
    found = [of(n) for n in range(index["totals"]["train"]["documents"])]
    ends = np.cumsum([0, *(len(each) for each in found)])
    (folder / "train" / "a.prefix_starts-k").write_bytes(ends.astype("<u8").tobytes())
    tokens = np.array([token for each in found for token in each], index["dtype"])
    (folder / "train" / "a.prefixes-k").write_bytes(tokens.tobytes())
    index["prefixes"] = {"format": format, "key": "k", "field": "host", "documents": 1, "tokens": int(ends[-1])}
    (folder / "rows.json").write_text(json.dumps(index))
    return folder


def by_hand(folder, row, apart, row_tokens=16):
    """(tokens, whether each has a loss) of a row: token by token, as the rule says it."""
    documents = [(n, t, p) for n, d in enumerate(Rows.open(folder).documents()) for p, t in enumerate(d.tolist())]
    tokens, lossy = [], []
    for at, (document, token, place) in enumerate(documents[row * row_tokens : (row + 1) * row_tokens]):
        first, begins = at == 0, place == 0
        prefix = prefix_of(document) if first or begins else []
        tokens += [*prefix, token]
        context = bool(prefix) if first or (begins and apart) else True
        lossy += [False] * len(prefix) + [context and not (first and not begins)]
    return tokens, lossy
