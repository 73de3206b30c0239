"""Parent and candidate continue the same beginnings of held-out documents; what came of it is measured and kept."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ratoon.config import AssessConfig, GenerationConfig, Role
from ratoon.corpus.tokenizer import tokenizer_digest
from ratoon.evaluation import asked, copying, health
from ratoon.evaluation.calibration import Calibration, calibrated
from ratoon.evaluation.harness import Precision, Scores, at_most, fits
from ratoon.evaluation.health import Health, Validity, Values, Writing
from ratoon.evaluation.suite import Suite, choose
from ratoon.lm.load import load_model, load_tokenizer, pick_device
from ratoon.records import read
from ratoon.stream.rows import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ratoon.evaluation.generate import Draw, Output

CHARS = 8  # of a text per token that is tokenised: more than any tokenizer needs on average
LEAST_CHARS = 2  # shorter per token than this, a text is not even tokenised
ARMS = ("parent", "candidate")


class Place(NamedTuple):
    """A source: where its held-out text and its training rows lie."""

    role: Role
    clean: Path
    rows: Path


class Begun(NamedTuple):
    """A document: what is shown of it, and what follows."""

    source: str
    document: str
    prompt: list[int]
    text: list[int]


class Models(NamedTuple):
    parent: Path
    candidate: Path
    row_tokens: int
    device: str = "auto"
    precision: Precision = "fp32"
    threads: int | None = None


def assess(
    models: Models,
    places: Mapping[str, Place],
    scores: Mapping[str, Path],
    tests: Suite,
    config: AssessConfig,
    out: Path,
) -> Health:
    """The health of both models; prompts and outputs go to `out`, a Parquet file, if anything is written.

    scores   arm -> folder of its scores on the suite `tests`
    """
    found: dict[str, Any] = {"valid": validity(scores, tests), "calibration": calibration(scores, tests, config.seed)}
    if config.generation:
        found |= write(models, places, config, config.generation, out)
    return Health(parent=models.parent.name, candidate=models.candidate.name, **found)


def write(
    models: Models, places: Mapping[str, Place], config: AssessConfig, asked_for: GenerationConfig, out: Path
) -> dict[str, Any]:
    from ratoon.evaluation.generate import Draw

    tokenizer = load_tokenizer(models.parent)
    sizes = room(asked_for, models.row_tokens)
    begun = [
        each
        for source, place in sorted(places.items())
        for each in beginnings(source, place.clean, tokenizer, asked_for.documents, sizes, config.seed)
    ]
    draw = Draw(asked_for.temperature, config.seed)
    outputs = {
        arm: continue_all(models, path, begun, sizes[1], draw) for arm, path in zip(ARMS, models[:2], strict=True)
    }
    alike(models, tokenizer, outputs)
    rows = [Rows.open(place.rows) for _, place in sorted(places.items())] if asked_for.searched_tokens else []
    values = measured(tokenizer, begun, outputs, rows, asked_for.searched_tokens)
    keep(out, tokenizer, begun, outputs, values)
    return {
        "prompt_tokens": sizes[0],
        "tokens": sizes[1],
        "temperature": asked_for.temperature,
        "searched_tokens": sum(min(it.num_tokens, asked_for.searched_tokens) for it in rows) if rows else None,
        "training_tokens": sum(it.num_tokens for it in rows) if rows else None,
        "writing": tuple(by_source(places, begun, values, config.confidence)),
        "samples": out.name,
    }


def room(asked_for: GenerationConfig, row_tokens: int) -> tuple[int, int]:
    """(tokens of a prompt, tokens written): a row also holds the token before a text."""
    written = min(asked_for.tokens, row_tokens // 2)
    return min(asked_for.prompt_tokens, row_tokens - written - 1), written


def beginnings(
    source: str, clean: Path, tokenizer: "PreTrainedTokenizerBase", count: int, sizes: tuple[int, int], seed: int
) -> list[Begun]:
    """Up to `count` documents that are longer than prompt and output together, by the hash of their id."""
    length = sum(sizes)
    chosen = choose(clean, 2 * count, seed, lambda document: len(document.text) >= LEAST_CHARS * length)
    texts = [document.text[: CHARS * length] for document in chosen]
    known = zip(chosen, asked.encode(tokenizer, texts), strict=True)
    found = [
        Begun(source, document.id, tokens[: sizes[0]], tokens[sizes[0] : length])
        for document, tokens in known
        if len(tokens) >= length
    ]
    return found[:count]


def continue_all(models: Models, path: Path, begun: Sequence[Begun], tokens: int, draw: "Draw") -> "list[Output]":
    from ratoon.evaluation.generate import Prompt, Writer

    tokenizer = load_tokenizer(path)
    prompts = [each.prompt for each in begun]
    if tokenizer_digest(path) != tokenizer_digest(models.parent):
        known = load_tokenizer(models.parent)
        prompts = list(asked.encode(tokenizer, [str(known.decode(prompt)) for prompt in prompts]))
    with at_most(models.threads):
        model = load_model(path, pick_device(models.device).type)
        fits(model, tokenizer, models.row_tokens, path)
        writer = Writer(model, tokenizer, models.row_tokens, bf16=models.precision == "bf16")
        prefix = asked.prefix_of(tokenizer)
        return writer.write([Prompt([prefix, *prompt], tokens) for prompt in prompts], draw)


def alike(models: Models, tokenizer: "PreTrainedTokenizerBase", outputs: "dict[str, list[Output]]") -> None:
    """Outputs of two tokenizers as tokens of the parent's: else their measures would be of two kinds."""
    if tokenizer_digest(models.parent) == tokenizer_digest(models.candidate):
        return
    for arm, found in outputs.items():
        again = asked.encode(tokenizer, [output.text for output in found])
        outputs[arm] = [output._replace(tokens=tuple(ids)) for output, ids in zip(found, again, strict=True)]


def measured(
    tokenizer: "PreTrainedTokenizerBase",
    begun: Sequence[Begun],
    outputs: "Mapping[str, Sequence[Output]]",
    rows: Sequence[Rows],
    searched_tokens: int,
) -> dict[str, list[Values]]:
    """Arm -> values of each of its outputs; `text` is what the documents themselves go on with."""
    said = {arm: [(output.tokens, output.text, output.finished) for output in outputs[arm]] for arm in ARMS}
    own = [(tuple(each.text), str(tokenizer.decode(each.text)), None) for each in begun]
    everything: dict[str, Sequence[tuple[Sequence[int], str, bool | None]]] = {**said, "text": own}
    prompts = [str(tokenizer.decode(each.prompt)) for each in begun]
    written = [tokens for arm in everything.values() for tokens, _, _ in arm]
    shares = iter(copying.copied(written, rows, searched_tokens) if rows else [None] * len(written))
    return {
        arm: [
            {**health.measure(tokens, text, prompt, ended), "copied": next(shares)}
            for (tokens, text, ended), prompt in zip(arms, prompts, strict=True)
        ]
        for arm, arms in everything.items()
    }


def by_source(
    places: Mapping[str, Place], begun: Sequence[Begun], values: Mapping[str, Sequence[Values]], confidence: float
) -> Iterator[Writing]:
    for source, place in sorted(places.items()):
        mine = [number for number, each in enumerate(begun) if each.source == source]
        parent, candidate, text = ([values[arm][n] for n in mine] for arm in (*ARMS, "text"))
        yield Writing(
            source=source,
            role=place.role,
            prompts=len(mine),
            measures=health.compare(parent, candidate, text, confidence),
        )


def keep(
    out: Path,
    tokenizer: "PreTrainedTokenizerBase",
    begun: Sequence[Begun],
    outputs: "Mapping[str, Sequence[Output]]",
    values: Mapping[str, Sequence[Values]],
) -> None:
    """A row per prompt: the texts and their measures, so that every mean can be looked into."""
    import pyarrow
    import pyarrow.parquet as parquet

    found = []
    for number, each in enumerate(begun):
        row: dict[str, Any] = {"source": each.source, "document": each.document}
        row |= {"prompt": tokenizer.decode(each.prompt), "text": tokenizer.decode(each.text)}
        for arm in ARMS:
            row[arm] = outputs[arm][number].text
        for arm in (*ARMS, "text"):
            row |= {f"{arm}_{name}": value for name, value in values[arm][number].items()}
        found.append(row)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}")
    parquet.write_table(pyarrow.Table.from_pylist(found), beside, compression="zstd")
    beside.replace(out)


# ---------------------------------------------------------------- from the scores


def validity(scores: Mapping[str, Path], tests: Suite) -> tuple[Validity, ...]:
    known = {arm: {it.task: it.valid for it in read(scores[arm] / "scores.json", Scores).tasks} for arm in ARMS}
    found = []
    for task in tests.tasks:
        parent, candidate = (known[arm][task.name] for arm in ARMS)
        if parent is not None and candidate is not None:
            found.append(Validity(benchmark=task.benchmark, source=task.source, parent=parent, candidate=candidate))
    return tuple(found)


def calibration(scores: Mapping[str, Path], tests: Suite, seed: int) -> tuple[Calibration, ...]:
    import pyarrow.parquet as parquet

    found = []
    for task in tests.tasks:
        if task.kind != "choice":
            continue
        tables = {arm: parquet.read_table(scores[arm] / f"{task.name}.parquet").to_pydict() for arm in ARMS}
        each = {arm: calibrated(it["loglik_nats"], it["gold"], seed) for arm, it in tables.items()}
        found.append(Calibration(benchmark=task.benchmark, source=task.source, items=task.items, **each))
    return tuple(found)
