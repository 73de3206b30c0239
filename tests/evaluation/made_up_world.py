"""A made-up encyclopedia: names and numbers that occur in training text too, sentences that occur only once."""

import random

import pyarrow
import pyarrow.parquet as parquet

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def word(draw, syllables=2):
    return "".join(draw.choice(SYLLABLES) for _ in range(syllables))


_draw = random.Random("world")
NAMES = sorted({word(_draw, 3).capitalize() for _ in range(300)})
NUMBERS = [f"{n}" for n in range(1100, 1900, 7)]


def words(draw, count):
    return " ".join(word(draw) for _ in range(count))


def article(seed):
    draw = random.Random(seed)
    first, second = draw.sample(NAMES, 2)
    return (
        f"On the {words(draw, 4)}\n\n"
        f"This {words(draw, 22)} in {draw.choice(NUMBERS)} with {words(draw, 12)}.\n"
        f"A {word(draw, 3)} is a {words(draw, 14)}. It was {words(draw, 16)} for {first} and {words(draw, 14)} "
        f"by {draw.choice(NUMBERS)} {words(draw, 9)}, under {second} {words(draw, 20)}.\n"
    )


def module(seed):
    draw = random.Random(seed)
    lines = [f"import {word(draw)}\n"]
    for _ in range(4):
        lines.append(f"\n\ndef {word(draw)}_{word(draw)}({word(draw)}, {word(draw)}):")
        lines += [f"    {word(draw)} = {word(draw)}_{draw.choice(NAMES).lower()} + {word(draw)}" for _ in range(5)]
        lines.append(f"    return {draw.choice(NAMES)}")
    return "\n".join(lines)


def almanac(number):
    """Training text that names every name and number."""
    draw = random.Random(number)
    return " ".join(f"{word(draw)} {name} {word(draw)}" for name in [*NAMES, *NUMBERS])


def edition(folder, held_out, training):
    folder.mkdir(parents=True, exist_ok=True)
    for part, texts in (("held_out", held_out), ("train", training)):
        rows = {"id": list(texts), "text": list(texts.values())}
        parquet.write_table(pyarrow.table(rows), folder / f"{part}-0.parquet")
    return folder
