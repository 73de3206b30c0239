"""Private strings that are nobody's, drawn anew for every test, and texts that only look as if they held some."""

import random
import string

from ratoon.corpus.amend.numbers import LENGTHS, luhn, mod97

ALNUM = string.ascii_letters + string.digits
BASE64 = ALNUM + "+/"


def drawn(random_: random.Random, alphabet: str, count: int) -> str:
    return "".join(random_.choice(alphabet) for _ in range(count))


def email(r):
    name = r.choice(["ana.{}", "b-{}", "{}_x", "{}", "{}+list"]).format(drawn(r, string.ascii_lowercase, 6))
    return f"{name}@{drawn(r, string.ascii_lowercase, 7)}.{r.choice(['com', 'org', 'co.uk', 'de', 'museum', 'io'])}"


def ipv4(r):
    return (
        f"{r.choice([41, 62, 81, 93, 130, 145, 185, 212])}.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(1, 255)}"
    )


def ipv6(r):
    groups = [f"{r.randrange(1, 1 << 16):x}" for _ in range(6)]
    whole = f"2a{r.randrange(256):02x}:" + ":".join(groups) + ":1"
    return r.choice([whole, f"2620:{groups[0]}::{groups[1]}", f"2a02:{groups[2]}:{groups[3]}::1"])


def phone(r):
    def d(n):
        return drawn(r, string.digits, n)

    return r.choice(
        [
            f"+1 ({r.randrange(2, 10)}{d(2)}) {r.randrange(2, 10)}{d(2)}-{d(4)}",
            f"+1-{r.randrange(2, 10)}{d(2)}-{r.randrange(2, 5)}{d(2)}-{d(4)}",
            f"+1{r.randrange(2, 10)}{d(2)}{r.randrange(2, 5)}{d(6)}",
            f"+44 20 7{d(3)} {d(4)}",
            f"+44 (0)20 7{d(3)} {d(4)}",
            f"+49 30 {d(7)}",
            f"+4930{d(7)}",
            f"+33 {r.randrange(1, 7)} {d(2)} {d(2)} {d(2)} {d(2)}",
            f"+33.1.{d(2)}.{d(2)}.{d(2)}.{d(2)}",
            f"+86 139 {d(4)} {d(4)}",
            f"+254 7{d(2)} {d(6)}",
        ]
    )


def card(r):
    start, size = r.choice([("4", 16), ("51", 16), ("2221", 16), ("37", 15), ("6011", 16), ("3530", 16), ("3014", 14)])
    body = start + drawn(r, string.digits, size - len(start) - 1)
    digits = next(body + last for last in string.digits if luhn(body + last))
    cuts = {16: (4, 8, 12), 15: (4, 10), 14: (4, 10)}[size]
    gap = r.choice(["", " ", "-"])
    return gap.join(digits[a:b] for a, b in zip((0, *cuts), (*cuts, size), strict=True))


def iban(r, country=None):
    country = country or r.choice(sorted(LENGTHS))
    rest = drawn(r, string.digits, LENGTHS[country] - 4)
    whole = next(made for n in range(2, 99) if mod97(made := f"{country}{n:02d}{rest}"))
    return r.choice([whole, " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))])


def private_key(r):
    kind = r.choice(["RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", ""])
    body = "\n".join(drawn(r, BASE64, 64) for _ in range(r.randrange(2, 6)))
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{body}\n-----END {kind}PRIVATE KEY-----"


def access_token(r):
    hexes = "0123456789abcdef"
    return r.choice(
        [
            "AK" + "IA" + drawn(r, string.ascii_uppercase + "234567", 16),
            f"gh{r.choice('pousr')}_" + drawn(r, ALNUM, 36),
            "github" + "_pat_" + drawn(r, ALNUM, 22) + "_" + drawn(r, ALNUM, 59),
            "gl" + "pat-" + drawn(r, ALNUM, 20),
            "xo" + "xb-" + drawn(r, string.digits, 12) + "-" + drawn(r, ALNUM, 24),
            "AI" + "za" + drawn(r, ALNUM, 35),
            "sk" + "_live_" + drawn(r, ALNUM, 24),
            "sk" + "-proj-" + drawn(r, ALNUM, 48),
            "sk" + "-ant-api03-" + drawn(r, ALNUM, 90),
            "h" + "f_" + drawn(r, ALNUM, 34),
            "np" + "m_" + drawn(r, ALNUM, 36),
            "py" + "pi-AgE" + drawn(r, ALNUM, 80),
            "S" + "G." + drawn(r, ALNUM, 22) + "." + drawn(r, ALNUM, 43),
            "do" + "p_v1_" + drawn(r, hexes, 64),
            "ey" + "J" + drawn(r, ALNUM, 30) + ".ey" + "J" + drawn(r, ALNUM, 40) + "." + drawn(r, ALNUM, 43),
        ]
    )


def credential(r):
    """The line, and the value in it."""
    value = r.choice(
        [
            drawn(r, ALNUM, 20),
            drawn(r, "0123456789abcdef", 32),
            drawn(r, BASE64, 40),
            drawn(r, ALNUM, 8) + "-7q" * 2 + "Z9",
        ]
    )
    line = r.choice(
        [
            'password = "{}"',
            "'api_key': '{}',",
            "export SECRET_KEY={}",
            "client_secret: {}",
            'auth_token: str = "{}"',
            "aws_secret_access_key = {}",
            "curl --token {} now",
            "<password>{}</password>",
            "Authorization: Bearer {}",
        ]
    )
    return line.format(value), value


MAKERS = {
    "email": email,
    "ip": lambda r: r.choice([ipv4, ipv6])(r),
    "phone": phone,
    "card": card,
    "iban": iban,
    "private_key": private_key,
    "access_token": access_token,
}
CARRIERS = (
    "Please write to {} before noon.",
    "It was {}, and nobody knew why.\nThe next line.",
    "({})",
    "{}",
    "On the form: {}. That is all.",
    "x = '{}'  # from the log",
)

# What is nobody's, or nothing of the kind.
HARMLESS = {
    "version": "Install version 1.2.3.4, then v145.12.3.9, and see release 93.184.216.34 of it.",
    "versions in a list": "Versions 93.18.2.1, 93.18.2.2 and 93.18.2.3 are affected.",
    "pins": "foo==93.18.2.1\nbar >= 93.18.2.2, ~=93.18.2.3\nchrome/93.18.2.4 lib-93.18.2.5.tar.gz 93.18.2.6rc1",
    "sections": "See 7.4.7.1, and then 2.1.3.4 Results.\n3.2.1.4 Method",
    "dunder": '__version__ = "93.18.2.1"',
    "object identifiers": "ObjectIdentifier('2.5.29.17'), oid 1.3.101.112 and 1.3.6.1.4.1.311",
    "private addresses": "10.0.0.1 127.0.0.1 192.168.1.20 172.16.4.4 169.254.1.1 192.0.2.44 198.51.100.7 0.0.0.0 "
    "255.255.255.0",
    "not addresses": "256.1.1.1 01.2.3.4 93.184.216 93.184.216.34.5",
    "private ipv6": "::1 fe80::1 fc00::12 2001:db8::8a2e:370:7334 ff02::1 x[2000::2] 12:34:56 std::vector a::b",
    "example mail": "user@example.com, root@localhost, me@host.test, a@b.example git@github.com:org/x.git icon@2x.png",
    "decorators": "@pytest.mark.slow\n@app.get('/')\ndef f(): return A@B.reshape(2)\n@a.b\n@c.d",
    "handles": "Follow @ratoon at https://mastodon.social/@ratoon",
    "urls": "postgresql://scott:tiger@localhost/test redis://user@cache.internal.net:6379/0",
    "quantities": "+48.8577+002.2950 +1.23456789 a +12345678 +2019 2020 -123456789 1e+123456789 "
    "+10 20 30 40 50 60 00:00+01:00",
    "fiction": "+1 (212) 555-0123",
    "national numbers": "030 1234567, (555) 123-4567, 0800 123456",
    "wrong checksum": "4111 1111 1111 1112, 4111-1111-1111-1113, GB82 WEST 1234 5698 7654 33, DE89370400440532013001",
    "long numbers": "0.4111111111111111 41111111111111114111 default_rng(4111111111111111) "
    "4111_1111_1111_1111 id4111111111111111",
    "placeholders": 'password = "your-password"\nsecret: xxxxxxxxxxxx\nAPI_KEY=changeme123456\n'
    'token = "abcdef0123456789"\n'
    'password="<password here 1a2b>"\napi_key=${API_KEY_2B3C4D}\npassword: {{ vault.db_pass1a2b }}\n'
    'secret = "********"\n'
    'token="%s"\npwd = "hunter2"\nclient_secret = "example-1a2b3c4d5e"',
    "programs": "password = get_password1(user)\ntoken = self.tokens2[i]\nsecret_key = settings.SECRET_KEY_V2\n"
    "private_key: ed25519.Ed25519PrivateKey = Ed25519PrivateKey.generate()\nnext_page_token = 'a1b2c3d4e5f6'\n"
    "tokens = tokenizer2.encode(text1)\npassword: Optional[str] = None\ntoken_type: bearer\nkey = 'k1j2h3g4f5d6'",
    "token forms": "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx AKIAIOSFODNN7EXAMPLE "
    "sk-your-key-here-0123456789abcdef012345 hf_",
    "key forms": "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n-----BEGIN PUBLIC KEY-----\n"
    "MIIB\n-----BEGIN RSA PRIVATE KEY-----",
    "masked before": "<EMAIL> <IP_ADDRESS> <PHONE> <CARD> <IBAN> <PRIVATE_KEY> <ACCESS_TOKEN> password='<CREDENTIAL>'",
}
