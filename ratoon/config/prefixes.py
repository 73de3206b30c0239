"""prepare.prefixes: what is known of a document, packed beside it as a short text."""

from pydantic import Field, PositiveInt

from ratoon.config.declaration import Declared, Name

HOST = "host"
ADDRESSES = (HOST, "url")


class Prefixes(Declared):
    """`label: value` and two newlines, for each document that has the value (MeCo, arXiv:2501.01956)."""

    field: str = Field(
        HOST,
        pattern=r"^(host|url|source|date|language|license|metadata\.[^\s.]+)$",
        description="host: of the document's url; another column of documents; or metadata.KEY",
    )
    label: str | None = Field(
        None, pattern=r"^\S(.*\S)?$", description="none: URL for host and url, else the field's or the key's name"
    )
    max_chars: PositiveInt = Field(253, description="a longer value is no short prefix: its document has none")
    sources: tuple[Name, ...] = Field((), description="sources whose documents have prefixes; none: all")

    @property
    def named(self) -> str:
        """The label in force."""
        if self.label is not None:
            return self.label
        return "URL" if self.field in ADDRESSES else self.field.removeprefix("metadata.").capitalize()

    def of(self, source: str) -> "Prefixes | None":
        """What is asked for the documents of a source; None: no prefix."""
        return self if source in (self.sources or (source,)) else None
