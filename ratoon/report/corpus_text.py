"""What is asked of a corpus, as plain text of at most 80 columns."""

import textwrap
from collections.abc import Iterable, Sequence

from ratoon.corpus.accounts.change import Move, kept
from ratoon.corpus.accounts.sample import Seen
from ratoon.corpus.accounts.stats import Stats
from ratoon.corpus.accounts.why import Story
from ratoon.records import Ledger

WIDTH = 79
UNITS = ("B", "kB", "MB", "GB", "TB")


def size(number: float) -> str:
    for unit in UNITS[:-1]:
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} {UNITS[-1]}"


def table(rows: Iterable[Sequence[str]], indent: int = 2) -> list[str]:
    """First column to the left, the others to the right; the first gives way where the page is too narrow."""
    found = [list(row) for row in rows]
    if not found:
        return []
    widths = [max(len(row[i]) for row in found) for i in range(len(found[0]))]
    room = WIDTH - indent - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], room)
    lines = []
    for first, *others in found:
        cells = [x.rjust(width) for x, width in zip(others, widths[1:], strict=True)]
        lines.append(" " * indent + "  ".join([_cut(first, widths[0]).ljust(widths[0]), *cells]).rstrip())
    return lines


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"...{text[len(text) - width + 3 :]}"


def show(ledgers: Sequence[Ledger]) -> str:
    """The way of one source from its origins to rows."""
    lines = [f"{ledgers[0].source} ({ledgers[0].role})"]
    for ledger in ledgers:
        funnel = ledger.funnel
        lines.append(f"\n {ledger.stage:<7} edition {ledger.config}")
        rows = [("in", f"{funnel.documents_in:,}", size(funnel.bytes_in), "")]
        for reason, number in sorted(funnel.dropped.items(), key=lambda item: -item[1]):
            share = number / funnel.documents_in
            rows.append((f"- {reason}", f"{number:,}", size(funnel.dropped_bytes[reason]), f"{share:.1%}"))
        share = funnel.documents_kept / max(funnel.documents_in, 1)
        rows.append(("kept", f"{funnel.documents_kept:,}", size(funnel.bytes_kept), f"{share:.1%}"))
        if ledger.held_out_documents is not None:
            held = size(ledger.held_out_bytes or 0)
            rows.append(("of these held out", f"{ledger.held_out_documents:,}", held, ""))
        lines += table(rows, 3)
        for kind, change in ledger.amended.items():
            lines.append(f"   {kind}: {change.occurrences:,} in {change.documents:,} documents")
        for name, amounts in ledger.kept_by.items():
            lines += [f"   by {name}:", *table([(k, f"{a.documents:,}", size(a.bytes)) for k, a in amounts.items()], 5)]
        if ledger.portions:
            lines += ["   portions:", *table(portions(ledger), 5)]
        if ledger.tokens is not None:
            lines.append(f"   tokens: {ledger.tokens:,} to train on, {ledger.held_out_tokens or 0:,} held out")
    return "\n".join(lines)


def portions(ledger: Ledger) -> list[tuple[str, ...]]:
    """Of a source that is split, what each holds, and how much of it is held out."""
    found = []
    for name, each in sorted(ledger.portions.items(), key=lambda item: -item[1].bytes):
        tokens = () if each.tokens is None else (f"{each.tokens:,} tokens",)
        held = f"{each.held_out_documents:,} held out"
        found.append((name, f"{each.documents:,}", size(each.bytes), held, *tokens))
    return found


def stats(of: Stats) -> str:
    lines = [f"{of.source}: what is kept", "\n bytes of a document"]
    lines += table([tuple(of.lengths), tuple(f"{x:,}" for x in of.lengths.values())])
    for name, counts in of.by.items():
        lines += [f"\n {name}", *table([(one.name, f"{one.documents:,}", size(one.bytes)) for one in counts])]
    if of.clusters:
        lines.append("\n texts that stand for several documents")
        lines += table([(f"{name} documents", f"{number:,}") for name, number in of.clusters.items()])
    if of.shared:
        lines.append("\n also in other sources")
        lines += table([(name, f"{one.documents:,}", size(one.bytes)) for name, one in of.shared.items()])
    return "\n".join(lines)


def sample(found: dict[str, list[Seen]], width: int = 400) -> str:
    lines: list[str] = []
    for fate, seen in found.items():
        lines.append(f"=== {fate}: {len(seen)} of them")
        for one in seen:
            lines += [f"\n{one.id[:12]}  {size(one.bytes)}  {_cut(one.place, WIDTH - 26)}", _shown(one.text, width)]
        lines.append("")
    return "\n".join(lines).rstrip()


def why(stories: Sequence[Story]) -> str:
    lines: list[str] = []
    for one in stories:
        lines += [f"{one.id}  {_cut(one.place, WIDTH - 34)}", f"  {one.fate}"]
        lines += textwrap.wrap(one.because, WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
        if one.stands:
            lines.append(f"  {one.stands[0][:12]}  {_cut(one.stands[1], WIDTH - 18)}")
        lines += [f"  {name}: {value}" for name, value in one.noted.items()]
        lines += [_shown(one.text, 400), ""]
    return "\n".join(lines).rstrip()


def change(source: str, before: str, after: str, moves: list[Move]) -> str:
    came, left = kept(moves)
    lines = [f"{source}: edition {before} -> {after}: {came:,} documents came in, {left:,} went out"]
    rows = [(f"{move.before} -> {move.after}", f"{move.documents:,}", size(move.bytes)) for move in moves]
    lines += table([("was -> is", "documents", ""), *rows])
    for move in moves:
        if move.before != move.after:
            lines += [f"\n {move.before} -> {move.after}", *(f"   {_cut(place, WIDTH - 3)}" for place in move.examples)]
    return "\n".join(lines)


def _shown(text: str, width: int) -> str:
    plain = " ".join(text[: 2 * width].split())
    short = plain if len(plain) <= width and len(text) <= 2 * width else f"{plain[:width]} ..."
    # Control characters of somebody's text must not reach the terminal.
    safe = "".join(letter if letter.isprintable() else "?" for letter in short)
    return textwrap.fill(safe, WIDTH, initial_indent="    ", subsequent_indent="    ")
