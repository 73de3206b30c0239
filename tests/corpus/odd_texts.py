"""Texts that are hard on rules: small ones that sit at the edges of what a word, a line and a repetition are."""

PROSE = (
    "The river was quiet in the morning, and nobody had come to the market yet. A letter lay on the table; it had "
    'been there for days. "We ought to answer it," she said, but the others were not so sure of that. They have '
    "waited long enough, he thought, and with the window open they could hear the bells from the other bank. It "
    "would be a long day. Few of them knew what was written in it, or why it had been sent to this house at all.\n"
)
OTHER = (
    "Stones for the bridge came by cart from the north, and the masons worked with them until the first snow. "
    "Nobody had promised that the work would end this year. The town had paid for half of it. Have patience, wrote "
    "the builder to the council, and be sure of the rest. In spring the second arch was closed, and people crossed "
    "it on foot to see the fair. It has stood since then, and of the old ferry only the bell is left to us.\n"
)
ODD = {
    "empty": "",
    "blank": " \t\n \u3000\n",
    "newlines": "\n" * 300,
    "one word": "word",
    "one character a line": "\n".join("abcdefghij" * 20),
    "prose": PROSE,
    "two paragraphs": PROSE + "\n" + OTHER,
    "paragraph again": PROSE + "\n" + PROSE,
    "three of four paragraphs again": PROSE + "\n" + OTHER + "\n" + PROSE + "\n" + OTHER,
    "line again": PROSE + OTHER + "See the notes below.\n" * 2,
    "newline at both ends": "\n" + PROSE + OTHER,
    "carriage returns": PROSE.replace(". ", ".\r\n"),
    "unicode line breaks": PROSE.replace(". ", ".\u2028"),
    "form feeds": PROSE.replace(". ", ".\f"),
    "long word": PROSE + "x" * 10_000 + ".\n" + OTHER,
    "long words only": " ".join("pneumono" * 3 for _ in range(80)),
    "short words only": "to be of a " * 40,
    "right to left override": "\u202e" + PROSE + "\u202d",
    "zero width": PROSE.replace(" ", " \u200b"),
    "no-break spaces": PROSE.replace(" ", "\u00a0"),
    "combining marks": PROSE.replace("e", "e\u0301"),
    "emoji": PROSE + "🧭" * 40 + "\n",
    "nul": PROSE.replace("river", "ri\0ver"),
    "hashes": PROSE + "# " * 60,
    "ellipses": PROSE.replace(".", "... "),
    "ellipsis characters": PROSE.replace(",", "…").replace(".", "…"),
    "lines ending in ellipses": PROSE.replace(". ", "...\n"),
    "bullets": "".join(f"- {sentence.strip()}.\n" for sentence in (PROSE + OTHER).split(".") if sentence.strip()),
    "round bullets": "".join(f"  • {sentence.strip()}\n" for sentence in (PROSE + OTHER).split(".")),
    "numbers": " ".join(f"{i}.{i % 7}" for i in range(300)),
    "table": "\n".join(f"row {i},{i * i},{i % 3},of the table" for i in range(80)),
    "markdown table": "\n".join(f"| item {i} | {i * 3} | the price of it |" for i in range(40)),
    "rule lines": PROSE + "=" * 70 + "\n" + OTHER + "-" * 70 + "\n",
    "one word again and again": "again " * 500,
    "one sentence again and again": "We have to be there with the others. " * 30,
    "shouted": PROSE.upper() + OTHER.upper(),
    "no stop words": " ".join(f"river stone bridge market{i}" for i in range(40)) + ".",
    "lorem ipsum": PROSE + "Lorem ipsum dolor sit amet, consectetur.\n" + OTHER,
    "braces": PROSE + "if (a) { return that; } else be\n" + OTHER,
    "brace alone": PROSE + "{\n" + OTHER,
    "cookies": PROSE + "This site uses cookies to be of help.\n" + OTHER,
    "javascript": PROSE + "Please enable JavaScript to go on.\n" + OTHER,
    "citations": PROSE.replace(".", ".[12]") + OTHER.replace(".", "[edit]."),
    "no ends": "\n".join((PROSE + OTHER).replace(".", "").split(",")),
    "short lines": "\n".join(part for part in (PROSE + OTHER).replace(",", ".").split(". ")),
    "abbreviations": "Dr. Smith of the U.S. met Mrs. Jones, i.e. the writer, with Prof. A. B. Lee. " + PROSE,
    "contractions": "It's not that they don't know. We're sure they've been told, and she'd have said so. " * 1 + PROSE,
    "addresses": PROSE + "See https://example.org/a/b?c=d and write to foo.bar@example.org of that.\n",
    "code": "def f(x):\n    return {k: v for k, v in x.items() if k != 'a'}\n" * 6,
    "french": "Il n'est pas venu à l'heure, et l'homme d'ici a attendu dans le froid. " * 2 + "La nuit est douce.",
    "german": "Der Zug fährt heute nicht, und die Leute warten auf dem Bahnsteig mit den Koffern. Das wurde gesagt.",
    "chinese": "今天天气很好，我们去公园玩。他说明年还要来这里看花。" * 3,
    "thai": "วันนี้อากาศดีมาก และเราไปเที่ยวที่สวนของเมือง " * 3,
    "arabic": "ذهبنا إلى السوق في الصباح وعدنا قبل الظهر، ثم جلسنا قرب النهر. هل تذكر ذلك اليوم؟",
}
