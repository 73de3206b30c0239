"""What the rules must know of a language beside its thresholds: stop words, and how long a word is where none is
set off by spaces. Thresholds per language are in params.yaml.

Stop words: English after Gopher (arXiv:2112.11446), the others after the published configuration of FineWeb2
(arXiv:2506.20920). Where a script writes no spaces a character counts as 1/characters of a word. The figures are
mean word lengths by the frequencies in the lists of jieba 0.42 (1.66) and of the Thai National Corpus in pythainlp
(3.2; the Thai Textbook Corpus gives 3.0), marks above and below a letter not counted.
"""

from typing import NamedTuple


class Language(NamedTuple):
    stop_words: tuple[str, ...]
    characters: float | None = None  # per word; None: words are set off by spaces

    @property
    def scale(self) -> float:
        return self.characters or 1.0


def _words(spaced: str) -> tuple[str, ...]:
    return tuple(spaced.split())


LANGUAGES = {
    "de": Language(_words("der und die in von im den des mit das er dem als wurde für")),
    "en": Language(_words("the be to of and that have with")),
    "fr": Language(_words("de la le et à en l' des du les est d' un une il dans par au")),
    "sw": Language(_words("ya na wa katika kwa ni la za mwaka")),
    "th": Language(_words("ใน ที่ และ ของ เป็น มี การ ได้"), characters=3.1),
    "zh": Language(_words("的 年 在 月 是 和 日 了 於 · 為 有 被 人 中 为 他 與 後 也 而 由"), characters=1.66),
}
UNKNOWN = Language(())
UNDETERMINED = "und"  # ISO 639
LONGER = {"deu": "de", "ger": "de", "eng": "en", "fra": "fr", "fre": "fr", "swa": "sw", "swh": "sw", "tha": "th"}
LONGER |= {"cmn": "zh", "zho": "zh"}


def short(label: str) -> str:
    """`de` for de-AT, deu, deu_Latn, DE: the key of the tables here and in params.yaml."""
    first = label.replace("-", "_").partition("_")[0].lower()
    return LONGER.get(first, first)


def language(code: str | None) -> Language:
    """None: English, as nothing else is said. A language without an entry has spaces and no known stop words."""
    return LANGUAGES.get(short(code), UNKNOWN) if code else LANGUAGES["en"]
