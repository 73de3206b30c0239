"""Addresses of people and machines: e-mail, IPv4 and IPv6.

Names that the RFCs set aside for examples (2606, 6761) are nobody's, and stay. So do addresses that are not public
(IANA's special-purpose registries), and numbers that only look like addresses:

- after a word such as "version", "release", "build" or "section", after v, ==, >=, ~, ^ or "name/" ("Chrome/1.2.3.4");
- one in a list with such a one ("versions 1.2.3.4 and 1.2.3.5");
- as part of a word or of a longer number ("lib-1.2.3.4", "1.2.3.4rc1", "1.2.3.4.5", "1.2.3.4.tar.gz", "1.2.3.4-1");
- ending in .0: a network or a version, no one machine;
- counted out (1.2.3.4, 5.6.7.8): an example;
- small in every part ("2.1.3.4 Results", "see 7.4.7.1"): the number of a section, unless its parts are all the same,
  or a word before it ("host", "ping"), // or a port says that it is an address. Of all addresses one in 5000 is.
"""

import ipaddress
import re
from collections.abc import Iterator
from itertools import pairwise

from ratoon.corpus.amend.finding import Finder, Span

# ---------------------------------------------------------------- e-mail

# Each part is bounded, as in RFC 5321, so that the search is linear in the text.
DOMAIN = re.compile(
    r"@((?:[^\W_](?:[\w-]{0,62})\.){1,8}(?:[^\W\d_]{2,24}|xn--[a-z0-9-]{2,59}))(?![\w(\[]|-\w|\.[^\W\d_])"
)
MOST_LOCAL = 64
LOCAL = re.compile(r"[\w.+%-]{1,65}\Z")
RESERVED = re.compile(r"(?i)(?:^|\.)(?:example(?:\.(?:com|net|org|edu))?|test|invalid|localhost|local|arpa)\Z")
# "icon@2x.png", "user@page.html": names of files.
FILES = frozenset(
    re.findall(r"\w+", "png jpg jpeg gif svg webp ico pdf css js ts json html htm xml yaml yml toml txt md rst py")
)
# "postgresql://name:password@host": the whole belongs to a URL.
IN_URL = re.compile(r"""://[^\s/@,;"'<>()]{0,128}\Z""")


def emails(text: str) -> Iterator[Span]:
    end = 0
    for match in DOMAIN.finditer(text):
        at = match.start()
        local = LOCAL.search(text, max(end, at - MOST_LOCAL - 1), at)
        if local is None or len(local[0]) > MOST_LOCAL:
            continue
        begin = local.start() + len(local[0]) - len(local[0].lstrip(".+%-"))
        if begin < at and not _no_person(text, begin, match):
            yield begin, match.end()
            end = match.end()


def _no_person(text: str, begin: int, domain: re.Match[str]) -> bool:
    host = domain[1]
    return (
        RESERVED.search(host) is not None
        or host.rpartition(".")[2].lower() in FILES
        or text[domain.start() - 1] == "."
        # "git@forge.org:group/project.git" is the address of a repository.
        or (text[begin : domain.start()] == "git" and text[domain.end() : domain.end() + 1] in (":", "/"))
        or IN_URL.search(text, max(0, begin - 128), begin) is not None
    )


# ---------------------------------------------------------------- IPv4

QUAD = re.compile(r"[0-9](?<![0-9.~^].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![0-9])")
JOINED_BEFORE = re.compile(r"(?:\w|[^\W\d]-|[^\W\d_]/|[=<>!~]=\s?|>\s|<\s)\Z")
JOINED_AFTER = re.compile(r"\w|\.\w|-[^\W\d]|-\d{1,3}(?![\d.])|\+\w")
LAST_WORD = re.compile(r"([A-Za-z]{1,20}|§+)[\s_:=(\[\"'`.#]{0,6}\Z")
VERSIONS = frozenset(
    re.findall(
        r"\S+",
        "v ver vers version versions release releases rev revision revisions build builds firmware update updates "
        "upgrade upgrades section sections sec chapter chapters clause clauses table tables figure figures fig "
        "appendix oid objectidentifier § §§",
    )
)
# "version is 1.2.3.4", "update to 1.2.3.4"
LINKS = frozenset(("is", "was", "to", "of", "from", "number", "no"))
AND = re.compile(r"\s{0,3}(?:,|;|/|-|–|and|or|to|through|,\s?and|,\s?or)\s{0,3}v?")
SMALL = 30
ADDRESS = re.compile(
    r"(?i)(?://|@|\b(?:ip|ipv4|addr|addresse?s?|hosts?|hostname|servers?|dns|nameservers?|resolvers?|ping|gateways?|peers?"
    r"|clients?|remote|router|inet|ssh|connect(?:ed|ing|s)?)\b[^\n]{0,24})\Z"
)
PORT = re.compile(r":[1-9][0-9]{1,4}(?![0-9])")

# What IANA's registry of special-purpose addresses (RFC 6890 and its updates) does not call globally reachable, and
# multicast. Written out: the standard library's own list differs between releases of Python.
PRIVATE_V4 = tuple(
    (int(ipaddress.IPv4Network(net).network_address), int(ipaddress.IPv4Network(net).netmask))
    for net in re.findall(
        r"\S+",
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
        "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3",
    )
)


def _quads(text: str) -> Iterator[Span]:
    end, of_a_version = 0, False
    for match in QUAD.finditer(text):
        begin = match.start()
        listed = of_a_version and AND.fullmatch(text, end, begin) is not None
        of_a_version = listed or _version(text, begin)
        end = match.end()
        if not of_a_version and _public(match[0]) and not _number(text, begin, end):
            yield begin, end


def _version(text: str, end: int) -> bool:
    """Whether the word before says that a number of a version or section follows."""
    word = LAST_WORD.search(text, max(0, end - 26), end)
    if word and word[1].lower() in LINKS:
        word = LAST_WORD.search(text, max(0, word.start() - 26), word.start())
    return word is not None and word[1].lower() in VERSIONS


def _public(quad: str) -> bool:
    parts = quad.split(".")
    if any((len(part) > 1 and part[0] == "0") or int(part) > 255 for part in parts) or parts[-1] == "0":
        return False
    if {int(b) - int(a) for a, b in pairwise(parts)} in ({1}, {-1}):
        return False
    number = int.from_bytes(map(int, parts), "big")
    return not any(number & mask == net for net, mask in PRIVATE_V4)


def _number(text: str, begin: int, end: int) -> bool:
    """Whether it is part of a word or of a longer number, or the number of a section."""
    if JOINED_BEFORE.search(text, max(0, begin - 4), begin) or JOINED_AFTER.match(text, end):
        return True
    parts = [int(part) for part in text[begin:end].split(".")]
    if max(parts) > SMALL or len(set(parts)) == 1 or PORT.match(text, end):
        return False
    return ADDRESS.search(text, max(0, begin - 40), begin) is None


# ---------------------------------------------------------------- IPv6

# All that is public lies in 2000::/3. Three groups at least: x[2000::2] is a slice in Python.
GROUPS = re.compile(r"[23](?<![\w:.].)[0-9a-fA-F]{3}:[0-9a-fA-F:]{2,40}(?![\w:])")
EXAMPLES_V6 = tuple(ipaddress.IPv6Network(net) for net in ("2001:db8::/32", "3fff::/20", "2001:10::/28", "2001:2::/48"))


def _groups(text: str) -> Iterator[Span]:
    for match in GROUPS.finditer(text):
        try:
            address = ipaddress.IPv6Address(match[0])
        except ValueError:
            continue
        if len(match[0].replace("::", ":").strip(":").split(":")) > 2 and not any(
            address in net for net in EXAMPLES_V6
        ):
            yield match.span()


def addresses(text: str) -> Iterator[Span]:
    # No span of one lies in one of the other: a group of IPv6 with a dot beside it is none.
    return iter(sorted([*_quads(text), *_groups(text)]))


FINDERS = {
    "email": Finder("<EMAIL>", "@", emails),
    "ip": Finder("<IP_ADDRESS>", r"\d\.\d{1,3}\.\d{1,3}\.\d|[23][0-9a-fA-F]{3}:[0-9a-fA-F:]", addresses),
}
