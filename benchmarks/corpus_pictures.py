"""The pictures of docs/corpus.md, from the editions of this project: the way from documents to what is trained on.

ratoon prepare && python benchmarks/corpus_pictures.py
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from ratoon import config
from ratoon.corpus.accounts.table import KEPT, Accounts, accounts
from ratoon.corpus.edition import read_ledger
from ratoon.layout import Layout

COLOURS = {"general": "#3b6ea8", "domain": "#c2571a"}
GREY = "#b8b8b8"
BINS = np.geomspace(16, 512_000, 46)


def funnel(layout: Layout, sources: list[config.Source]) -> plt.Figure:
    """Bytes left after each reason, by source."""
    figure, axes = plt.subplots(1, len(sources), figsize=(4.6 * len(sources), 3.4), layout="constrained")
    for axis, source in zip(np.atleast_1d(axes), sources, strict=True):
        told = read_ledger(layout.clean(source.name)).funnel
        steps = sorted(told.dropped_bytes.items(), key=lambda item: -item[1])
        names = ["documents", *(name.replace("_", " ") for name, _ in steps), "kept"]
        starts = told.bytes_in - np.cumsum([0, *(size for _, size in steps)])
        left = [told.bytes_in, *starts[1:], told.bytes_kept]
        lost = [0, *(size for _, size in steps), 0]
        rows = np.arange(len(names))[::-1]
        axis.barh(rows, np.array(left) / 1e6, color=COLOURS[source.role])
        axis.barh(rows, np.array(lost) / 1e6, left=np.array(left) / 1e6, color=GREY)
        counts = [told.documents_in, *(-told.dropped[name] for name, _ in steps), told.documents_kept]
        for row, number, size, gone in zip(rows, counts, left, lost, strict=True):
            axis.text((size + gone) / 1e6, row, f" {number:,}", va="center", fontsize=8)
        axis.set_yticks(rows, names, fontsize=8)
        axis.set_xlim(0.95 * told.bytes_kept / 1e6, 1.012 * told.bytes_in / 1e6)
        axis.set_xlabel("MB left (the axis does not begin at 0)", fontsize=8)
        axis.set_title(f"{source.name}: documents by step", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def lengths(found: list[tuple[config.Source, Accounts]]) -> plt.Figure:
    """Lengths of documents, kept and dropped."""
    figure, axes = plt.subplots(1, len(found), figsize=(4.6 * len(found), 2.6), layout="constrained", sharex=True)
    for axis, (source, of) in zip(np.atleast_1d(axes), found, strict=True):
        kept = of.documents["fate"].is_in(KEPT).to_numpy()
        sizes = of.documents["bytes"].to_numpy()
        axis.hist(
            [sizes[kept], sizes[~kept]],
            BINS,
            stacked=True,
            color=[COLOURS[source.role], GREY],
            label=["kept", "dropped"],
        )
        axis.set_xscale("log")
        axis.set_xlabel("bytes of a document", fontsize=8)
        axis.set_ylabel("documents", fontsize=8)
        axis.set_title(source.name, fontsize=9)
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    layout = Layout(options.root)
    sources = [config.source(options.root, name) for name in config.load(options.root).refresh.sources]
    found = [(one, accounts(one.name, layout.documents(one.name), layout.clean(one.name))) for one in sources]
    plt.rcParams["svg.hashsalt"] = "ratoon"  # the same picture, the same file
    for name, figure in {"corpus-funnel": funnel(layout, sources), "corpus-lengths": lengths(found)}.items():
        figure.savefig(options.out / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
