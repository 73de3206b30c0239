"""What may be asked of one document: places where a number, a name, a definition or a body begins.

A candidate is a place: the text before it is shown, what begins there is the answer. Answers begin with white space,
where every byte-level tokenizer splits, and a number or name that already stands in the context is not asked for:
copying it would need no knowledge.
"""

import keyword
import re
from collections.abc import Iterator
from typing import NamedTuple

from ratoon.config import NextPassage
from ratoon.config.building import BuildRecipe, QuestionKind
from ratoon.evaluation.passages import passages, says_something

AFTER_BYTES = 200  # of the document after an answer, that an open book shows
LEAST_CONTEXT = 40  # bytes; less says too little to be asked about

NUMBER = re.compile(r"(?<=\S) (\d[\d.,:/-]*\d|\d{2,})(?=$|[\s.,;:)\]}])")
PROPER = re.compile(r"(?<=[\w,;)'\"] )[^\W\d_a-z][^\W\d_]+(?: [^\W\d_a-z][^\W\d_]+){0,2}\b")
IDENTIFIER = re.compile(r"(?<=\S )[^\W\d]\w{2,}\b")
WORD = re.compile(r"[^\W_]+")
# "A digraph is a graph ...", and "nodes : list of nodes" as numpydoc writes arguments.
DEFINITION = re.compile(
    r"(?:^|(?<=[.!?]\s)|(?<=\n))(?:(?:An?|The)\s+)?[`\w*][^\n.!?:;]{2,60}?"
    r"\s(?:is|are|means|denotes|represents|refers to)(?= (?:an?|the|one|any|each|all|every|whether|how|to)\s)"
    r"|^[ \t]*[`*]{0,2}\w+[`*]{0,2} :(?= \S)",
    re.M,
)
SIGNATURE = re.compile(
    r"^[ \t]*(?:(?:pub|export|static|async|public|private|final)\s+)*"
    r"(?:def|class|function|func|fn|interface|struct|enum|trait)\s+\w+[^\n]*[:{][ \t]*(?=\n)",
    re.M,
)
HEADING = re.compile(r"(?:\A\s*|^#{1,6} )([^\n#>][^\n]{11,99})(?=\n(?:[=~-]{3,}\n)?\s*\n)", re.M)
RESERVED = frozenset([*keyword.kwlist, *keyword.softkwlist, "this", "null", "true", "false", "function", "const"])


class Candidate(NamedTuple):
    """`shape`: answers of one shape are each other's wrong answers; `evidence`: what an open book shows."""

    document: str
    place: int
    kind: QuestionKind
    shape: str
    context: str
    answer: str
    evidence: str

    @property
    def id(self) -> str:
        return f"{self.document}:{self.kind}:{self.place}"

    @property
    def short(self) -> bool:
        return self.kind in ("number", "name")


def candidates(document: str, text: str, kind: QuestionKind, recipe: BuildRecipe) -> Iterator[Candidate]:
    """In the order of their places; of next passages in the order drawn by hash."""
    if kind == "passage":
        yield from _passages(document, text, recipe)
        return
    for begin, end, shape in FINDERS[kind](text, recipe):
        context = text[max(0, begin - recipe.context_bytes) : begin].encode()[-recipe.context_bytes :]
        said, answer = context.decode(errors="ignore"), text[begin:end]
        bare = kind != "title" and len(context) < LEAST_CONTEXT
        if bare or not says_something(said) or said[-1].isspace() or not says_something(answer.strip()):
            continue
        one = Candidate(document, begin, kind, shape, said, answer, said + text[begin : end + AFTER_BYTES])
        if not (one.short and stands(one, said)):
            yield one


def stands(one: Candidate, text: str) -> bool:
    """Whether its answer is in a text. A number or name as a whole: "is" is not in "this"."""
    wanted = one.answer.strip()
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text) is not None if one.short else wanted in text


Span = tuple[int, int, str]  # begin, end, shape


def numbers(text: str, recipe: BuildRecipe) -> Iterator[Span]:
    for found in NUMBER.finditer(text):
        yield found.start(), found.end(), re.sub(r"\d", "9", found[1])


def names(text: str, recipe: BuildRecipe) -> Iterator[Span]:
    """Proper names and identifiers in prose; identifiers in code. Of one style, words and rough length."""
    code = recipe.text == "code"
    for found in [*IDENTIFIER.finditer(text), *(() if code else PROPER.finditer(text))]:
        name = found[0]
        style = styled(name)
        if name in RESERVED or (found.re is IDENTIFIER and style in ("plain", "Title", "UPPER") and not code):
            continue
        yield found.start() - 1, found.end(), f"{style}/{len(name.split())}/{len(name).bit_length()}"


def styled(name: str) -> str:
    if "_" in name.strip("_"):
        return "UPPER_SNAKE" if name.isupper() else "snake_case"
    if re.search(r"[^\W\d_A-Z][A-Z]", name):
        return "camelCase"
    return "UPPER" if name.isupper() else "Title" if name[0].isupper() else "plain"


def definitions(text: str, recipe: BuildRecipe) -> Iterator[Span]:
    pattern = SIGNATURE if recipe.text == "code" else DEFINITION
    for found in pattern.finditer(text):
        yield from _passage(text, found.end(), recipe.answer_bytes, defined(found[0], text[found.end() :][:99]))


def defined(head: str, body: str) -> str:
    """What a definition's grammar gives away: its verb; in code how far its body is indented."""
    if body.startswith("\n"):
        return f"indented {len(body) - len(body.lstrip())}"
    return "argument" if head.endswith(":") else head.split()[-1]


def titles(text: str, recipe: BuildRecipe) -> Iterator[Span]:
    if recipe.text == "code":
        return
    for found in HEADING.finditer(text):
        begin = found.end()
        body = re.compile(r"\n(?:[=~-]{3,}\n)?\s*").match(text, begin)
        assert body
        yield from _passage(text, begin, len(body[0].encode()) + 2 * recipe.answer_bytes, str(len(body[0].encode())))


def _passage(text: str, begin: int, size: int, shape: str) -> Iterator[Span]:
    """`size` bytes from `begin` on, if the text is that long: passages of one kind are equally long."""
    raw = text[begin : begin + size].encode()
    if len(raw) >= size:
        yield begin, begin + len(raw[:size].decode(errors="ignore")), shape


def _passages(document: str, text: str, recipe: BuildRecipe) -> Iterator[Candidate]:
    form = NextPassage(
        kind="next_passage", context_bytes=recipe.context_bytes, continuation_bytes=max(40, recipe.answer_bytes)
    )
    raw = text.encode()
    for one in passages(document, text, form, recipe.seed):
        after = raw[one.place : one.place + form.continuation_bytes + AFTER_BYTES].decode(errors="ignore")
        evidence = one.context + after
        yield Candidate(document, one.place, "passage", "passage", one.context, one.continuation, evidence)


FINDERS = {"number": numbers, "name": names, "definition": definitions, "title": titles}
