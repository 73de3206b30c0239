"""What is asked for, as frozen models. `params.yaml` is their file; each default has its one home here.

Everything below the door trusts these models: keys are known, numbers in range, names declared.
"""

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

T = TypeVar("T", bound=BaseModel)

Role = Literal["general", "domain"]
Kind = Literal["prose", "web", "code", "table"]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]


class ConfigError(ValueError):
    """What a person asked for cannot be done as asked. The message is the whole letter."""


class Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """Twelve hex digits that name this content, the same on every machine."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


# ---------------------------------------------------------------- data/sources/*.yaml


class Columns(Declared):
    """Which field of a record holds what. Only `text` must exist; the others are kept when found."""

    text: str = "text"
    url: str = "url"
    date: str = "date"
    language: str = "language"
    license: str = "license"


class Packages(Declared):
    """Text that ships with installed Python packages: real, pinned, and there without a network."""

    packages: tuple[str, ...] = Field(min_length=1, description="distribution names, as pip knows them")
    content: Literal["prose", "code"] = Field(
        description="prose: docstrings and documentation files; code: Python source"
    )


class Files(Declared):
    """A file, folder, glob or fsspec URL: .txt .md .jsonl .parquet .csv, also .gz and .zst."""

    path: str = Field(description="relative to the project; a folder may be empty or not exist yet if optional")
    columns: Columns = Columns()
    optional: bool = Field(False, description="true: a path that holds nothing yet is not an error")


class Dataset(Declared):
    """A dataset of the Hugging Face hub, read when online."""

    dataset: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    columns: Columns = Columns()


Origin = Packages | Files | Dataset


class Source(Declared):
    """A declared corpus."""

    name: Name
    role: Role = Field(description="general: what must be kept; domain: what is to be learned")
    origins: tuple[Origin, ...] = Field(min_length=1)
    description: str = ""
    license: str | None = None
    language: str | None = None
    kind: Kind = Field("prose", description="which rules of prepare apply")
    weight: PositiveFloat = Field(1.0, description="share among the sources of the same role")
    max_bad_share: Share = Field(
        0.01, description="share of records that may be unreadable before ingesting refuses the whole source"
    )


# ---------------------------------------------------------------- models/bases/*.yaml


class Scratch(Declared):
    """A Llama trained here from nothing on the general sources."""

    kind: Literal["scratch"]
    tokenizer: str | None = Field(None, description="take the tokenizer of this base; none: train one")
    vocabulary: PositiveInt = Field(2048, ge=512)
    hidden: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    feed_forward: PositiveInt
    context: PositiveInt = 512
    tokens: PositiveInt = Field(description="tokens of general text to train on")
    learning_rate: PositiveFloat
    rows_per_step: PositiveInt
    decay_share: Share = 0.2
    seed: int = 0

    @model_validator(mode="after")
    def check(self) -> "Scratch":
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        return self


class Pretrained(Declared):
    """A local directory, or a hub id when online, that transformers loads from safetensors."""

    kind: Literal["pretrained"]
    path: str
    revision: str | None = None


class Gguf(Declared):
    """A GGUF file inside an installed Python package, converted once to safetensors."""

    kind: Literal["gguf"]
    package: str
    file: str = Field(description="glob inside the package's folder; it must match one file")


class Base(Declared):
    name: Name
    description: str = ""
    license: str | None = None
    row_tokens: PositiveInt = Field(description="length of the packed rows, at most the model's context")
    family: tuple[Name, ...] = Field((), description="smaller bases that share its tokenizer: cheap proxies")
    weights: Scratch | Pretrained | Gguf = Field(discriminator="kind")

    @model_validator(mode="after")
    def check(self) -> "Base":
        if isinstance(self.weights, Scratch) and self.row_tokens > self.weights.context:
            raise ValueError(f"row_tokens {self.row_tokens} is more than the context {self.weights.context}")
        return self


# ---------------------------------------------------------------- data/benchmarks/*.yaml


class HeldOutText(Declared):
    """How well the model predicts held-out documents: bits per byte, lower is better."""

    kind: Literal["held_out"]


class NextPassage(Declared):
    """Which passage continues this one? Accuracy, higher is better; guessing gives 1 / assess.choices."""

    kind: Literal["next_passage"]
    context_bytes: PositiveInt = Field(240, ge=40, description="of the document, shown before the choices")
    continuation_bytes: PositiveInt = Field(80, ge=40, description="of each choice, the same for all")


class Benchmark(Declared):
    """An evaluation set, made from the held-out documents of every source of a refresh."""

    name: Name
    version: PositiveInt = Field(description="raise it when the same documents would give other items")
    description: str = ""
    min_documents: PositiveInt = Field(20, ge=2, description="fewer usable held-out documents than this is refused")
    form: HeldOutText | NextPassage = Field(discriminator="kind")

    @property
    def metric(self) -> Literal["bits_per_byte", "accuracy"]:
        return "bits_per_byte" if isinstance(self.form, HeldOutText) else "accuracy"


# ---------------------------------------------------------------- params.yaml


Thresholds = dict[str, float | int | list[float]]


class HeldOut(Declared):
    share: float = Field(0.02, gt=0, lt=0.5, description="of documents, chosen by the hash of their text")
    max_tokens: PositiveInt = Field(50_000, description="tokens of it scored while training, per source")
    min_documents: PositiveInt = Field(20, description="fewer held-out documents than this is refused")


class NearDuplicates(Declared):
    """Two texts are near-duplicates when all rows of one band of their MinHash signatures agree."""

    ngram: PositiveInt = Field(5, description="words; a shorter text is compared as a whole only")
    bands: PositiveInt = Field(14, description="with 8 rows: half the pairs of Jaccard similarity 0.68 are found")
    rows: PositiveInt = Field(8, description="per band")
    agreement: Share = Field(0.0, description="estimated similarity that a pair must reach too; 0: a band is enough")


class Paragraphs(Declared):
    """Documents made of what others say."""

    min_words: PositiveInt = Field(8, description="of a line, to count as a paragraph")
    max_share: float = Field(0.8, ge=0, lt=1, description="of a document's words in paragraphs that others hold")


class Dedup(Declared):
    """Texts that are there more than once. What an earlier edition kept stays; later texts give way."""

    exact: Literal["normalised", "raw"] = Field(
        "normalised", description="normalised: without regard to case and white space; raw: byte for byte"
    )
    near: NearDuplicates | None = Field(None, description="none: exact duplicates alone")
    paragraphs: Paragraphs | None = Field(None, description="none: documents are compared as a whole only")
    across: tuple[Name, ...] = Field((), description="sources, highest priority first: a text is in the first of them")
    copies: dict[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=1, le=255)]] = Field(
        default_factory=dict, description="size of a cluster -> times its survivor is trained on, from that size on"
    )

    @model_validator(mode="after")
    def check(self) -> "Dedup":
        if self.exact == "raw" and (self.near or self.paragraphs or self.across or self.copies):
            raise ValueError(
                "exact: raw keeps apart what the other keys join; set exact: normalised, or leave them out"
            )
        if len(set(self.across)) != len(self.across):
            raise ValueError(f"across: {list(self.across)} names a source twice")
        return self

    @property
    def joint(self) -> bool:
        """Whether more is asked than the first of equal texts."""
        return bool(self.near or self.paragraphs or self.across or self.copies)

    def above(self, source: str) -> tuple[str, ...]:
        """The sources whose texts this one must not repeat."""
        return self.across[: self.across.index(source)] if source in self.across else ()


class PrepareConfig(Declared):
    bases: tuple[str, ...] = Field(("nano",), description="bases whose tokenizer the corpora are packed with")
    rules: dict[Kind, Thresholds] = Field(description="per kind of text: rule -> threshold; a rule left out is off")
    languages: dict[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], Thresholds] = Field(
        default_factory=dict, description="rules of web text in these languages, in place of rules.web"
    )
    dedup: Dedup = Dedup()
    held_out: HeldOut = HeldOut()


class Schedule(Declared):
    """Learning rate against step. Warm-up is linear from 0."""

    name: Literal["wsd", "cosine", "constant"] = "wsd"
    warmup_steps: NonNegativeInt = Field(20, description="absolute, so that runs of any length start alike")
    decay_share: Share = Field(0.2, description="wsd: of the steps, linear to the floor at the end")
    floor: Share = Field(0.0, description="last learning rate as a share of the peak")


class TrainConfig(Declared):
    """How one model is continued. The same recipe serves proxies and target, so that they compare."""

    tokens: PositiveInt = Field(description="tokens of the target run")
    learning_rate: PositiveFloat
    rows_per_step: PositiveInt
    micro_rows: PositiveInt | None = Field(
        None, description="rows per forward pass; none: rows_per_step. Gradients accumulate over the rest"
    )
    schedule: Schedule = Schedule()
    weight_decay: NonNegativeFloat = 0.1
    beta1: Share = 0.9
    beta2: Share = 0.95
    max_norm: PositiveFloat = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt | None = Field(None, description="CPU threads; none: all cores")
    block_rows: PositiveInt = Field(100, description="rows over which the shares hold exactly")
    evaluations: PositiveInt = Field(10, description="held-out evaluations over the run, the last at its end")
    checkpoints: PositiveInt = Field(4, description="times the exact state is saved over the run")
    seed: int = 0

    @model_validator(mode="after")
    def check(self) -> "TrainConfig":
        if self.micro_rows and self.rows_per_step % self.micro_rows:
            raise ValueError(f"rows_per_step {self.rows_per_step} is not a multiple of micro_rows {self.micro_rows}")
        return self


class SweepConfig(Declared):
    ratios: tuple[Share, ...] | None = Field(
        None,
        description="domain shares to try, each at every size and length, at least five different ones; none: begin "
        "with `start` and add the runs that narrow the choice most per FLOP, until width, price or max_runs says stop",
    )
    start: tuple[Share, ...] = Field(
        (0.1, 0.4, 0.8),
        description="domain shares of the first runs, at the target's own size; the middle one is run at full length",
    )
    width: PositiveFloat = Field(0.05, description="of the 90% interval of the best share: narrow enough, stop")
    price: NonNegativeFloat | None = Field(
        None,
        description="nats of domain loss that as many FLOPs as the target run's are worth: a run that saves less than "
        "its part is not made; none: what the same FLOPs would gain in a longer target run; 0: no run is too dear",
    )
    budget: PositiveFloat | None = Field(
        None, description="FLOPs of the whole sweep at most, in target runs; none: no limit but the others"
    )
    max_runs: PositiveInt = Field(12, description="groups (one size at one ratio) at most, the first ones included")
    tokens: PositiveInt = Field(description="tokens of the longest proxy run")
    horizons: PositiveInt = Field(4, description="run lengths per ratio and size, each half of the next")
    workers: PositiveInt | None = Field(None, description="proxy runs at once; none: one per core on CPU, 1 on GPU")

    @field_validator("ratios")
    @classmethod
    def enough(cls, ratios: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if ratios is None:
            return None
        if len(set(ratios)) != len(ratios):
            raise ValueError(f"ratios {list(ratios)} repeat; each is one run")
        if len(ratios) < 5:
            raise ValueError(f"{len(ratios)} ratios; the laws need at least five")
        return tuple(sorted(ratios))

    @field_validator("start")
    @classmethod
    def spread(cls, start: tuple[float, ...]) -> tuple[float, ...]:
        if len({round(share, 2) for share in start}) < 3 or len(set(start)) != len(start):
            raise ValueError(f"start {list(start)}: three or more different shares show how loss bends with the share")
        if not (min(start) > 0 and max(start) < 1):
            raise ValueError(f"start {list(start)}: shares of 0 and 1 are another regime, which no law bridges")
        return tuple(sorted(start))


class ChooseConfig(Declared):
    tolerance: PositiveFloat = Field(0.02, description="how far general loss may rise above the parent's, relative")
    confidence: float = Field(0.9, gt=0.5, lt=1, description="with which the chosen ratio must stay under it")
    goal: Literal["ceiling", "weighted"] = Field(
        "ceiling",
        description="ceiling: least domain loss with general loss within tolerance; weighted: least sum of both, each "
        "relative to the parent's, whatever the tolerance",
    )
    general_weight: Share = Field(0.5, description="of general loss in the weighted goal; domain loss has the rest")
    overrun_price: NonNegativeFloat = Field(
        1.0,
        description="nats of domain loss that a nat of general loss above its ceiling costs, where regret is counted",
    )
    bootstrap: PositiveInt = Field(400, ge=50, description="resamples of whole runs")
    law: Literal["auto", "combined", "warm", "dcpt", "cmr"] = Field(
        "auto", description="auto: the smallest held-out error; combined: all, weighed by their held-out errors"
    )
    near_tie: float = Field(
        1.5,
        ge=1,
        description="auto: held-out errors within this factor of the least are a tie, which goes to the law that stays "
        "bounded; the longest runs of one sweep share their luck, so an error is no surer than this",
    )
    rival: float = Field(
        2.0, ge=1, description="auto: laws within this factor of the least held-out error widen the interval by theirs"
    )
    form_doubt: Share = Field(
        1.0,
        description="part of a law's held-out error that is carried to the target although noise would explain it; 0: "
        "one of the laws is taken to be the truth, as it is in simulations of them",
    )
    sharpness: NonNegativeFloat = Field(
        2.0, description="combined: a law's weight is its held-out error to minus this power"
    )
    same_size: float = Field(1.25, ge=1, description="a law of one size speaks for a target within this factor of it")
    few_groups: PositiveInt = Field(6, description="fewer trunks than this are warned of")
    min_agreement: Share = Field(0.2, description="share of starts at the optimum below which a fit is warned of")
    extrapolate: bool = Field(False, description="true: answer for targets beyond far_tokens and far_size too")
    far_tokens: float = Field(10.0, ge=1, description="times the longest run's tokens, beyond which it is far")
    far_size: float = Field(4.0, ge=1, description="times the largest model run, beyond which it is far")
    domain_epochs: PositiveFloat = Field(
        16.0, description="times the domain text may be read at most (mixtures tolerate 15 to 20, arXiv:2605.12715)"
    )
    ratio: Share | None = Field(None, description="take this domain share and do not choose")
    seed: int = 0


class AssessConfig(Declared):
    max_documents: PositiveInt = Field(300, description="held-out documents scored per source")
    max_bytes: PositiveInt = Field(4096, description="of each of these documents")
    choices: PositiveInt = Field(4, ge=2, description="passages to choose from in a multiple-choice item")
    items: PositiveInt = Field(200, description="multiple-choice items per source")
    bootstrap: PositiveInt = Field(2000, ge=200)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    seed: int = 0


class GateConfig(Declared):
    min_domain_gain: NonNegativeFloat = Field(
        0.0, description="relative fall of domain bits per byte that must lie below the whole interval"
    )
    max_general_loss: NonNegativeFloat = Field(
        0.02, description="relative rise of general bits per byte that the whole interval must stay under"
    )
    max_benchmark_loss: Share = Field(
        0.1, description="absolute fall in accuracy that the interval must exclude, for every benchmark"
    )


class RefreshConfig(Declared):
    base: Name = "nano"
    sources: tuple[Name, ...] = Field(min_length=2, description="declared in data/sources")
    model: Name | None = Field(None, description="registered model; none: ratoon-<base>")
    budget: str = Field("default", description="an entry of budgets")
    push: bool = Field(True, description="push the editions to the DVC remote")

    @property
    def line(self) -> str:
        return self.model or f"ratoon-{self.base}"


class Params(Declared):
    """params.yaml as a whole: one section per verb."""

    refresh: RefreshConfig
    prepare: PrepareConfig
    sweep: SweepConfig
    choose: ChooseConfig = ChooseConfig()
    train: TrainConfig
    assess: AssessConfig = AssessConfig()
    promote: GateConfig = GateConfig()
    budgets: dict[str, dict[str, dict[str, Any]]] = Field(
        default_factory=dict, description="named changes to the sections above: budget -> section -> key -> value"
    )


class Ask(Declared):
    """What a person may ask of one refresh without editing params.yaml. Empty fields: as params.yaml says."""

    base: str | None = Field(None, description="a base declared in models/bases")
    budget: str | None = Field(None, description="an entry of budgets in params.yaml, such as small")
    ratio: Share | None = Field(None, description="take this domain share and do not choose one, 0..1")
    tolerance: PositiveFloat | None = Field(None, description="how far general loss may rise, 0.02 for 2%")
    tokens: PositiveInt | None = Field(None, description="tokens of the target run")
    seed: int | None = Field(None, description="order of the data and of every draw")
    force: bool = Field(False, description="go on even where nothing is new since the last refresh")

    def changes(self) -> dict[str, dict[str, Any]]:
        """As sections of params.yaml."""
        wanted: dict[str, dict[str, Any]] = {
            "refresh": {"base": self.base},
            "choose": {"ratio": self.ratio, "tolerance": self.tolerance, "seed": self.seed},
            "train": {"tokens": self.tokens, "seed": self.seed},
            "promote": {"max_general_loss": self.tolerance},
        }
        return {
            section: kept
            for section, keys in wanted.items()
            if (kept := {key: value for key, value in keys.items() if value is not None})
        }


# ---------------------------------------------------------------- reading


def load(root: Path, *, budget: str | None = None, changes: dict[str, dict[str, Any]] | None = None) -> Params:
    """params.yaml under `root`, with a named budget and then `changes` (section -> key -> value) laid over it.

    Raises ConfigError with the place, what was found and what is allowed.
    """
    path = root / "params.yaml"
    raw = read_yaml(path)
    name = budget or (raw.get("refresh") or {}).get("budget", "default")
    budgets = raw.get("budgets") or {}
    if name != "default":
        if name not in budgets:
            raise ConfigError(f"{path.name}: budgets: {unknown('budget', name, ['default', *budgets])}")
        raw = merge(raw, budgets[name])
        raw["refresh"]["budget"] = name
    raw = merge(raw, changes or {})
    return parse(Params, raw, path.name)


def merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `under`, section by section."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged


def source(root: Path, name: str) -> Source:
    return declared(root / "data" / "sources", name, Source, "source")


def base(root: Path, name: str) -> Base:
    return declared(root / "models" / "bases", name, Base, "base")


def benchmark(root: Path, name: str) -> Benchmark:
    return declared(root / "data" / "benchmarks", name, Benchmark, "benchmark")


def declared(folder: Path, name: str, model: type[T], word: str) -> T:
    """The declaration `name` in `folder`; its file is called like it."""
    path = folder / f"{name}.yaml"
    if not path.exists():
        found = sorted(p.stem for p in folder.glob("*.yaml"))
        place = f"{folder.parent.name}/{folder.name}/{name}.yaml"
        raise ConfigError(f"{unknown(word, name, found)}\n  to declare it, write {place}")
    item = parse(model, read_yaml(path), f"{folder.name}/{path.name}")
    if item.name != name:  # type: ignore[attr-defined]
        raise ConfigError(f"{folder.name}/{path.name}: name is {item.name!r}; it must be the file's, {name!r}")  # type: ignore[attr-defined]
    return item


def unknown(word: str, name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(allowed) or 'none yet'}"
    return f"no {word} {name!r}{hint}"


def read_yaml(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ConfigError(f"{path}: not found; run from the project's folder or pass --root")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: found {type(raw).__name__}, expected keys and values")
    return raw


def parse(model: type[T], raw: dict[str, Any], where: str) -> T:
    """`raw` as `model`; each thing wrong on a line of its own, with its place and the keys allowed there."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {line}" for line in _letters(model, error))) from None


def _letters(model: type[BaseModel], error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        if item["type"] == "extra_forbidden":
            keys = _keys_at(model, item["loc"][:-1])
            lines.append(f"{place}: {unknown('key', str(item['loc'][-1]), keys)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = item.get("input")
            found = f" (found {given!r})" if isinstance(given, str | int | float | bool | None) else ""
            lines.append(f"{place}: {message}{found}")
    return lines


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    here: Any = model
    for part in loc:
        field = getattr(here, "model_fields", {}).get(part)
        here = field.annotation if field is not None else None
        if type(None) in get_args(here):
            here = get_args(here)[0]
    return sorted(getattr(here, "model_fields", {}))
