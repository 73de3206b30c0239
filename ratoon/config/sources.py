"""data/sources/*.yaml: which text there is."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ratoon.config.declaration import Declared, Kind, Name, Role, Share
from ratoon.config.filters import Code


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


class WebPages(Declared):
    """How pages of WARC and WET archives become text, and which are left alone."""

    extractor: Literal["trafilatura", "resiliparse"] = Field(
        "trafilatura", description="of main text; resiliparse is several times faster and keeps more boilerplate"
    )
    prefer: Literal["precision", "balance", "recall"] = Field(
        "precision", description="precision: rather lose text than keep menus (FineWeb's setting, arXiv:2406.17557)"
    )
    max_bytes: PositiveInt = Field(5_000_000, description="of a page's HTML; longer pages are left out")
    block: tuple[str, ...] = Field(
        (), description="files of hosts or addresses, one per line; `datatrove`: the list in that package's wheel"
    )
    robots_agent: str | None = Field(
        None, description="obey, as this user agent, the robots.txt that lie with the pages; none: the crawler did"
    )
    robots: tuple[str, ...] = Field((), description="further archives that hold robots.txt")
    opt_out: bool = Field(True, description="leave out pages that reserve their rights (tdm-reservation, noai)")


class Files(Declared):
    """A file, folder, glob or fsspec URL: .txt .md .jsonl .parquet .csv .warc .wet, also .gz and .zst."""

    path: str = Field(description="relative to the project; a folder may be empty or not exist yet if optional")
    columns: Columns = Columns()
    web: WebPages = WebPages()
    optional: bool = Field(False, description="true: a path that holds nothing yet is not an error")


class Dataset(Declared):
    """A dataset of the Hugging Face hub, read when online."""

    dataset: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    columns: Columns = Columns()


Origin = Packages | Files | Dataset


class Split(Declared):
    """Portions of a source by the language of its documents, each packed and measured for itself."""

    by: Literal["language"] = "language"
    languages: tuple[Code, ...] = Field(
        (), max_length=100, description="these alone are portions; none: every language with min_share"
    )
    min_share: float = Field(
        0.05, ge=0.01, le=1, description="of the clean bytes, to be a portion where none are named"
    )
    rest: Literal["other", "drop"] = Field(
        "other", description="other languages and none: a portion `other`, or dropped"
    )
    weights: dict[Code | Literal["other"], PositiveFloat] = Field(
        default_factory=dict, description="portion -> how many times its share of the text it is read; left out: once"
    )

    @model_validator(mode="after")
    def check(self) -> "Split":
        if "other" in self.weights and self.rest == "drop":
            raise ValueError("weights: there is no portion other where rest is drop; take it out")
        if self.languages and (bare := sorted({*self.weights} - {*self.languages, "other"})):
            raise ValueError(f"weights: {bare[0]!r} is no portion; name it in languages or take it out")
        if len({*self.languages}) != len(self.languages):
            raise ValueError(f"languages: {list(self.languages)} names one twice")
        return self


class Source(Declared):
    """A declared corpus."""

    name: Name
    role: Role = Field(description="general: what must be kept; domain: what is to be learned")
    origins: tuple[Origin, ...] = Field(min_length=1)
    description: str = ""
    license: str | None = None
    language: str | None = None
    kind: Kind | Literal["auto"] = Field(
        "prose", description="which rules of prepare apply; auto: found for each document"
    )
    weight: PositiveFloat = Field(1.0, description="share among the sources of the same role")
    max_bad_share: Share = Field(
        0.01, description="share of records that may be unreadable before ingesting refuses the whole source"
    )
    split: Split | None = Field(
        None, description="none: one corpus, whatever it is written in", exclude_if=lambda split: split is None
    )

    @property
    def lists(self) -> tuple[str, ...]:
        """What its pages are held against, as declared."""
        webs = [origin.web for origin in self.origins if isinstance(origin, Files)]
        return tuple(name for web in webs for name in (*web.block, *web.robots))
