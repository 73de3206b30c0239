"""Keys and tokens that say what they are: blocks of private keys, and tokens with the prefix of who issued them.

Prefixes and lengths are those the issuers publish. Lengths are taken as least ones: they have grown before. Examples
(see `placeholder`) stay, and so does what is too even to be drawn at random.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator

from ratoon.corpus.amend.finding import Finder, Span, entropy, placeholder

# ---------------------------------------------------------------- private keys

BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
END = re.compile(r"-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
# What stands in a block whose end is missing: lines of base 64, between them how string literals write line ends.
BODY = re.compile(
    r"(?:(?:\s|\\[nr]|[\"',]){0,80}[A-Za-z0-9+/=]{32,})*+(?:(?:\s|\\[nr]|[\"',]){0,80}[A-Za-z0-9+/]+={1,2})?"
)
MOST_BODY = 1 << 15
LEAST_BODY = 64  # characters of base 64; the smallest key, Ed25519, has as many
BASE64 = re.compile(r"[A-Za-z0-9+/=]{20,}")


def private_keys(text: str) -> Iterator[Span]:
    begins = list(BEGIN.finditer(text))
    ends = list(END.finditer(text)) if begins else []
    places = [match.start() for match in ends]
    for number, begin in enumerate(begins):
        # Never beyond the next block, so that the search is linear.
        limit = begins[number + 1].start() if number + 1 < len(begins) else len(text)
        limit = min(limit, begin.end() + MOST_BODY)
        at = bisect_left(places, begin.end())
        if at < len(places) and places[at] < limit:
            body, end = text[begin.end() : places[at]], ends[at].end()
        else:
            body = BODY.match(text, begin.end(), limit)[0]  # type: ignore[index]
            end = begin.end() + len(body)
        lines = BASE64.findall(body)
        if sum(map(len, lines)) >= LEAST_BODY and not placeholder(max(lines, key=len)):
            yield begin.start(), end


# ---------------------------------------------------------------- tokens

W = r"[A-Za-z0-9_-]"
TOKENS = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Z0-9])",  # Amazon
    r"gh[pousr]_[A-Za-z0-9]{36,}",  # GitHub
    r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{50,}",
    rf"gl(?:pat|dt|rt|ptt|cbt|ft|soat|imt|agent|oas|ffct)-{W}{{20,}}",  # GitLab
    r"xox[abeoprs]-(?:[0-9]{8,}-)?[A-Za-z0-9-]{16,}",  # Slack
    r"xapp-[0-9]-[A-Za-z0-9-]{20,}",
    r"hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,}",
    rf"AIza{W}{{35}}",  # Google
    rf"ya29\.{W}{{20,}}",
    rf"GOCSPX-{W}{{28}}",
    r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"whsec_[A-Za-z0-9+/]{32,}",
    rf"sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]{{3,8}}-|or-v1-)?{W}{{32,}}",  # OpenAI and others
    r"hf_[A-Za-z0-9]{34,}",  # Hugging Face
    r"gsk_[A-Za-z0-9]{40,}",
    r"r8_[A-Za-z0-9]{37,}",
    r"npm_[A-Za-z0-9]{36,}",
    rf"pypi-AgE{W}{{50,}}",
    r"rubygems_[a-f0-9]{48}",
    rf"dckr_(?:pat|oat)_{W}{{27,}}",  # Docker
    r"do[opr]_v1_[a-f0-9]{64}",  # DigitalOcean
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # Shopify
    rf"SG\.{W}{{20,24}}\.{W}{{39,50}}",  # SendGrid
    r"SK[0-9a-f]{32}",  # Twilio
    r"key-[0-9a-f]{32}",  # Mailgun
    r"[0-9a-f]{32}-us[0-9]{1,2}",  # Mailchimp
    rf"[0-9]{{8,10}}:AA{W}{{33}}",  # Telegram
    r"dapi[0-9a-f]{32}",  # Databricks
    rf"hv[sbr]\.{W}{{24,}}",  # HashiCorp Vault
    rf"[A-Za-z0-9]{{14}}\.atlasv1\.{W}{{60,}}",
    r"glsa_[A-Za-z0-9]{32}_[a-fA-F0-9]{8}",  # Grafana
    rf"glc_{W}{{32,}}",
    r"lin_api_[A-Za-z0-9]{40,}",
    r"ntn_[A-Za-z0-9]{40,}",
    r"ATATT3[A-Za-z0-9_=-]{40,}",  # Atlassian
    r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}",  # Postman
    r"NRAK-[A-Z0-9]{27}",  # New Relic
    r"sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,}",  # Square
    r"LTAI[A-Za-z0-9]{16,20}",  # Alibaba
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}",
    r"AccountKey=[A-Za-z0-9+/]{86}==",  # Azure storage
    rf"eyJ{W}{{15,}}\.eyJ{W}{{15,}}\.{W}{{20,}}",  # JSON Web Token
)
TOKEN = re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(TOKENS)})")
# Without look-around, and repeated at least once instead of as often: matches more, and is fast.
HINT = "|".join(re.sub(r"\(\?!.*?\)", "", re.sub(r"\{\d+(,\d*)?\}", "+", form)) for form in TOKENS)
LEAST_ENTROPY = 2.8  # bits per character


def tokens(text: str) -> Iterator[Span]:
    for match in TOKEN.finditer(text):
        if entropy(match[0]) >= LEAST_ENTROPY and not placeholder(match[0]):
            yield match.span()


FINDERS = {
    "private_key": Finder("<PRIVATE_KEY>", r"PRIVATE KEY(?: BLOCK)?-----", private_keys),
    "access_token": Finder("<ACCESS_TOKEN>", HINT, tokens),
}
