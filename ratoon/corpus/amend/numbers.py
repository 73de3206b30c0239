"""Numbers of people: telephone, payment card, bank account. Each has a form and a check; what fails it stays.

Telephone: in international form alone, a plus sign and a country code in use (ITU-T E.164), because any other run of
digits may be anything. Nine to fifteen digits in groups, or ten to fifteen in one piece; +1 has ten after it, area and
exchange not beginning with 0 or 1, and 555-01xx, which is set aside for fiction, stays. Card: a range that a scheme
issues, grouped as on the card or in one piece, Luhn's checksum (ISO/IEC 7812). IBAN: length of its country, remainder 1
modulo 97 (ISO 13616).
"""

import re
from collections.abc import Iterator

from ratoon.corpus.amend.finding import Finder, Span

# ---------------------------------------------------------------- telephone

PLUS = re.compile(r"\+(?=[(0-9])(?:[ \u00a0\u202f]?\(?[0-9]+\)?|[.\-\u2010\u2011/]\(?[0-9]+\)?){1,10}")
GROUP = re.compile(r"\(0\)|[0-9]+")
COUNTRY = re.compile(
    r"1|7|2(?:[07]|1[1-368]|[234]\d|5[0-8]|6\d|9[017-9])|3(?:[0-469]|[57]\d|8[0-35-79])|4(?:[013-9]|2[013])"
    r"|5(?:[1-8]|[09]\d)|6(?:[0-6]|7[02-9]|8[0-35-9]|9[0-2])|8(?:[1246]|00|08|5[02356]|7[08]|8[0-368])"
    r"|9(?:[0-58]|6[0-8]|7[0-79]|9[2-68])"
)
NORTH_AMERICA = re.compile(r"1[2-9]\d\d[2-9]\d{6}")
FICTION = re.compile(r"1\d{3}55501\d\d")
GOES_ON = re.compile(r"\w|[.,][0-9]")  # a quantity
MOST_DIGITS = 15


def phones(text: str) -> Iterator[Span]:
    for match in PLUS.finditer(text):
        before = text[match.start() - 1 : match.start()]
        if before.isalnum() or before in ("_", "+", ".", ")", "]", "^"):
            continue
        if end := _phone_end(match):
            yield match.start(), end


def _phone_end(match: re.Match[str]) -> int:
    """Where the number ends; 0 if it is none."""
    groups = list(GROUP.finditer(match.string, match.start(), match.end()))
    digits, count = "", 0
    for group in groups:
        own = "" if group[0] == "(0)" else group[0]
        if len(digits) + len(own) > (11 if digits[:1] == "1" else MOST_DIGITS):
            break
        digits, count = digits + own, count + 1
    kept = groups[:count]
    if not kept or not _phone(digits, kept, match.string):
        return 0
    end = kept[-1].end()
    return 0 if GOES_ON.match(match.string, end) else end


def _phone(digits: str, groups: list[re.Match[str]], text: str) -> bool:
    if len(digits) < (9 if len(groups) > 1 else 10) or not COUNTRY.match(digits):
        return False
    if digits[0] == "1":
        return NORTH_AMERICA.fullmatch(digits) is not None and FICTION.fullmatch(digits) is None
    sizes = [len(group[0]) for group in groups[1:] if group[0] != "(0)"]
    if sum(size == 1 for size in sizes) > 1:
        return False
    # "+48.8577" is a coordinate: dots part groups only throughout, three times at least.
    dots = text.count(".", groups[0].start(), groups[-1].end())
    return dots == 0 or dots == len(groups) - 1 >= 3


# ---------------------------------------------------------------- payment card

# First what a card shows, in groups; then in one piece.
CARD = re.compile(
    r"[2-6](?<![\w.+/#\-].)(?<![0-9]{4}[ ].)"
    r"(?:[0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?(?!\1[0-9]{4})"
    r"|[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5}|[0-9]{12,18})(?![\w/*]|[.\-][0-9])"
)
CALL = re.compile(r"[\w\]]\(\Z")
ISSUED = re.compile(
    r"4(?:\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|64[4-9]\d|65\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}|5[0678]\d{14}"
)


def cards(text: str) -> Iterator[Span]:
    for match in CARD.finditer(text):
        digits = re.sub(r"[ -]", "", match[0])
        if ISSUED.fullmatch(digits) and luhn(digits) and not _argument(match):
            yield match.span()


def _argument(match: re.Match[str]) -> bool:
    """In one piece, right after the parenthesis of a call: the seed of a generator, as a rule."""
    return match[0].isdigit() and CALL.search(match.string, max(0, match.start() - 2), match.start()) is not None


def luhn(digits: str) -> bool:
    """Whether the last digit checks the others."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


# ---------------------------------------------------------------- IBAN

# Characters of an IBAN by country: SWIFT's registry.
LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
IBAN = re.compile(r"[A-Z](?<![\w/+=\-].)[A-Z][0-9][0-9](?:[ \u00a0-]?[A-Z0-9]){11,29}")
LETTERS = {letter: str(value) for value, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ", start=10)}


def ibans(text: str) -> Iterator[Span]:
    for match in IBAN.finditer(text):
        left = LENGTHS.get(match[0][:2], 0)
        for place, letter in enumerate(match[0]):
            left -= letter.isalnum()
            if not left:
                end = match.start() + place + 1
                if not text[end : end + 1].isalnum() and mod97("".join(filter(str.isalnum, match[0][: place + 1]))):
                    yield match.start(), end
                break


def mod97(iban: str) -> bool:
    """Whether its check digits are right."""
    turned = iban[4:] + iban[:4]
    return int("".join(LETTERS.get(letter, letter) for letter in turned)) % 97 == 1


FINDERS = {
    "iban": Finder("<IBAN>", r"[A-Z]{2}[0-9]{2}[ \x{a0}-]?[A-Z0-9]{2}[A-Z0-9 \x{a0}-]{8}", ibans),
    "card": Finder("<CARD>", r"[2-6][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{2}", cards),
    "phone": Finder("<PHONE>", r"\+[(0-9]", phones),
}
