"""Repair and masking of one text: what is found, what is left alone, and that looking twice changes nothing."""

import random
import re
from typing import get_args

import polars as pl
import pytest
from ftfy import fix_text
from ftfy.badness import BADNESS_RE
from odd_texts import ODD
from private_texts import CARRIERS, HARMLESS, MAKERS, credential, iban

from ratoon.config import Amend
from ratoon.config.amend import Private
from ratoon.corpus import packages
from ratoon.corpus.amend import amend, content
from ratoon.corpus.amend.mask import FINDERS, mask, suspects
from ratoon.corpus.amend.numbers import LENGTHS, luhn, mod97
from ratoon.corpus.amend.repair import KNOWN, SETTINGS, repair

KINDS = get_args(Private)
ALL = Amend(repair=True, mask=KINDS)
MEGABYTES_5 = 5_000_000


def one(text, asked=ALL):
    ((text, counts),) = amend([text], asked)
    return text, dict(counts)


# ---------------------------------------------------------------- what is found


def test_there_is_a_finder_for_every_kind_that_can_be_asked_for():
    assert set(FINDERS) == set(KINDS)
    assert len({finder.token for finder in FINDERS.values()}) == len(KINDS)


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("kind", MAKERS)
def test_every_planted_private_string_gives_way_to_its_token(kind, carrier):
    r = random.Random(f"{kind} {carrier}")
    for _ in range(60):
        planted = MAKERS[kind](r)
        text, counts = mask(carrier.format(planted), KINDS)
        assert (text, counts) == (carrier.format(FINDERS[kind].token), {kind: 1}), planted


def test_of_planted_credentials_nearly_all_are_found_and_only_the_value_goes():
    r = random.Random(5)
    found = 0
    for _ in range(500):
        line, value = credential(r)
        text, counts = mask(line, ["credential"])
        found += counts["credential"]
        assert text == (line.replace(value, "<CREDENTIAL>") if counts else line)
    assert found >= 490  # a drawn value may look like a word


def test_a_private_string_is_found_wherever_it_stands_in_a_long_text():
    r = random.Random(7)
    planted = {kind: [make(r) for _ in range(20)] for kind, make in MAKERS.items()}
    strings = [item for items in planted.values() for item in items]
    r.shuffle(strings)
    text, counts = mask("\n".join(f"{i} of them: {item} ;" for i, item in enumerate(strings)), KINDS)
    assert counts == {kind: 20 for kind in MAKERS}
    assert not any(item in text for item in strings)


def test_a_kind_that_is_not_asked_for_stays():
    r = random.Random(3)
    for kind, make in MAKERS.items():
        text = f"Here: {make(r)}"
        assert mask(text, [other for other in KINDS if other != kind])[0] == text


def test_the_order_in_which_kinds_are_asked_for_is_of_no_account():
    r = random.Random(4)
    text = " ; ".join(make(r) for make in MAKERS.values())
    assert mask(text, KINDS) == mask(text, KINDS[::-1])
    assert content(Amend(mask=KINDS)) == content(Amend(mask=KINDS[::-1]))


def test_a_truncated_private_key_goes_up_to_where_its_lines_end():
    body = "\n".join(random.Random(i).randbytes(32).hex() for i in range(4))
    text, counts = mask(f"a\n-----BEGIN RSA PRIVATE KEY-----\n{body}\nThat was the key, and this is not.", KINDS)
    assert text == "a\n<PRIVATE_KEY>\nThat was the key, and this is not."
    assert counts == {"private_key": 1}


# ---------------------------------------------------------------- what stays


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_looks_private_stays(name):
    assert mask(HARMLESS[name], KINDS) == (HARMLESS[name], {})


@pytest.mark.parametrize(("package", "form"), [("networkx", "prose"), ("networkx", "code"), ("numpy", "prose")])
def test_real_documentation_and_source_without_an_at_sign_change_in_nothing(package, form):
    records = packages.read(packages.installed(package, form), form)
    texts = [item.text for item in records if not re.search(r"\w@\w", item.text)]
    assert len(texts) > 200
    assert [text for text, _ in amend(texts, Amend(mask=KINDS))] == texts


@pytest.mark.parametrize("name", ODD)
def test_texts_hard_on_rules_stay_unless_they_hold_something(name):
    assert mask(ODD[name], KINDS)[0] == ODD[name]


# ---------------------------------------------------------------- checks of numbers


def test_luhn_and_mod_97_find_every_single_wrong_digit():
    card, account = "4111111111111111", "GB82WEST12345698765432"
    assert luhn(card)
    assert mod97(account)
    for check, right in ((luhn, card), (mod97, account)):
        for place, old in enumerate(right):
            wrong = [d for d in "0123456789" if d != old] if old.isdigit() else []
            assert not any(check(right[:place] + new + right[place + 1 :]) for new in wrong)


def test_an_iban_of_every_country_is_found_and_one_digit_more_is_none():
    r = random.Random(1)
    for country in LENGTHS:
        account = iban(r, country)
        assert mask(f"to {account} now", ["iban"])[0] == "to <IBAN> now"
        assert mask(f"to {account}7 now", ["iban"])[0] == f"to {account}7 now"


# ---------------------------------------------------------------- repair


WRITTEN = (
    "d\u00e9j\u00e0 vu \u2013 \u201cquoted\u201d",
    "caf\u00e9 \u2026 na\u00efve",
    "\u65e5\u672c\u8a9e \u306e \u6587",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u2014 \u0432\u0441\u0435\u043c",
)


@pytest.mark.parametrize("text", WRITTEN)
@pytest.mark.parametrize("wrong", ["latin-1", "windows-1252"])
def test_text_decoded_wrongly_is_as_it_was(text, wrong):
    from ftfy.bad_codecs import ok

    assert ok  # registers the sloppy codecs, which know every byte
    broken = text.encode().decode(f"sloppy-{wrong}" if wrong == "windows-1252" else wrong)
    assert broken != text
    assert one(f"One.\n{broken}\nThree.", Amend(repair=True)) == (f"One.\n{text}\nThree.", {"repair": 1})


def test_what_is_not_handed_to_the_library_is_what_it_leaves_alone():
    r = random.Random(23)
    texts = [fragments(r) for _ in range(1000)]
    for text in [*texts, *ODD.values(), *(text.encode().decode("latin-1") for text in ODD.values())]:
        if repair(text).text == text:
            assert fix_text(text, SETTINGS) == text


def test_every_letter_the_library_looks_for_is_one_we_look_for():
    assert not [letter for letter in BADNESS_RE.pattern if not letter.isascii() and not re.match(f"[{KNOWN}]", letter)]


LEFT = {
    "curly quotes": "\u201cquoted\u201d and \u2018so\u2019",
    "ligatures": "e\ufb03cient \ufb01eld",
    "width": "\uff26\uff35\uff2c\uff2c \uff11\uff12",
    "line breaks": "a\r\nb\rc\u2028d\u2029e",
    "decomposed letters": "cafe\u0301",
    "entities": "write &amp;lt; for &lt;, and &eacute;",
    "accents": "\u00c0 l'\u00e9cole, d\u00e9j\u00e0 \u00bb non \u00ab, \u00e3 \u00c3",
    "right to left": "\u202eabc\u202c \u200e\u200f",
    "emoji": "\U0001f469\u200d\U0001f680 \U0001f9ed",
}


@pytest.mark.parametrize("name", LEFT)
def test_repair_leaves_what_an_author_may_have_meant(name):
    assert one(LEFT[name], Amend(repair=True)) == (LEFT[name], {})


def test_repair_takes_out_control_characters_and_terminal_colours():
    assert one("a\x1b[31mb\x1b[0m\x07c\ufeff", Amend(repair=True)) == ("abc", {"repair": 1})


def test_repair_comes_before_masking():
    assert one("to ana\ufeff.b@firm-x.de", ALL) == ("to <EMAIL>", {"repair": 1, "email": 1})


# ---------------------------------------------------------------- promises about any text


def credential_line(r):
    return credential(r)[0]


def fragments(r):
    pieces = [*HARMLESS.values(), *ODD.values(), *(make(r) for make in MAKERS.values()), credential(r)[0]]
    pieces += [
        "\u00c3\u00a9",
        "\u00e2\u20ac\u2122",
        "\u0081",
        "@",
        "+",
        "://",
        ":",
        "=",
        "'",
        '"',
        "-----BEGIN PRIVATE KEY-----",
    ]
    pieces += ["password", "4111", "GB82", "\x1b[31m", "\ufeff", ".", "-", " ", "\n", "<", ">", "1.2", "\x1c", "\u0130"]
    cut = [piece[r.randrange(len(piece)) :][: r.randrange(1, 60)] if piece else "" for piece in pieces]
    return "".join(r.choice(cut) for _ in range(r.randrange(1, 12)))


def test_amending_again_changes_nothing_and_one_text_is_of_no_account_to_another():
    r = random.Random(20)
    texts = [fragments(r) for _ in range(1000)]
    together = list(amend(texts, ALL))
    assert sum(bool(counts) for _, counts in together) > 100
    assert [one(text) for text in texts[:100]] == [(text, dict(counts)) for text, counts in together[:100]]
    assert list(amend(texts[::-1], ALL)) == together[::-1]
    again = list(amend([text for text, _ in together], ALL))
    assert again == [(text, {}) for text, _ in together]


def test_the_quick_look_passes_over_no_text_in_which_something_is_found():
    r = random.Random(21)
    texts = [fragments(r) for _ in range(1000)] + [
        make(r) for make in (*MAKERS.values(), credential_line) for _ in range(50)
    ]
    for kind, finder in FINDERS.items():
        looked = suspects(pl.Series(texts), [kind])
        assert not [text for text, odd in zip(texts, looked, strict=True) if not odd and list(finder.find(text))]


def test_counts_are_the_tokens_that_appeared():
    r = random.Random(22)
    for text, (masked, counts) in [(t, mask(t, KINDS)) for t in (fragments(r) for _ in range(500))]:
        appeared = {kind: masked.count(f.token) - text.count(f.token) for kind, f in FINDERS.items()}
        # A private string inside another goes with it.
        assert all(count <= counts[kind] for kind, count in appeared.items())
        assert masked == text or counts


ADVERSARIAL = (
    *("a", "@", "a@", "a@a.", "1", "1.", "1.1.1.1 ", "+", "+1", "+1 ", "4", "4111 ", "4111-", "GB82 ", "GB82WEST"),
    *("2001:", "2001::", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "-----BEGIN A B C ", "password"),
    *("password=", 'password = "', "secret_key", "api_key: ", "--token ", "Bearer ", "://", "://a:", "ghp_a1", "eyJa."),
    *("sk-", "xoxb-1", "0a1f", "=", '"', " ", "\n"),
)


def test_a_line_made_to_exhaust_a_pattern_ends_and_is_kept():
    # A quarter of a megabyte of one thing, for each pattern; where a search were not linear this would not end.
    for piece in ADVERSARIAL:
        text = piece * (MEGABYTES_5 // 20 // len(piece))
        masked, counts = mask(text, KINDS)
        assert masked == text or counts


@pytest.mark.parametrize("piece", ["a", "é", "1.", "@", "password="])
def test_five_megabytes_on_one_line_are_amended(piece):
    text = piece * (MEGABYTES_5 // len(piece))
    assert one(text, ALL) == (text, {})


def test_poison_documents_come_out_as_they_went_in():
    for text in ("", "\n" * 1_000_000, " \t\n", "x" * 10_000 + " " + "y" * 10_000, "\u202e" * 5000, "\\ud800 \\udfff"):
        assert one(text) == (text, {})
