"""The laws by name. Each equation's file is imported when its law is asked for."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from ratoon.config import ConfigError
from ratoon.laws.form import Form
from ratoon.laws.tables.reading import closest

MakeForm = Callable[[tuple[str, ...]], Form]
Home = tuple[str, str] | tuple[str, str, dict[str, Any]]  # file, name in it, and what to call it with beside domains


class Catalog(Mapping[str, Any]):
    """name -> what a file of `equations` calls it."""

    def __init__(self, homes: Mapping[str, Home]) -> None:
        self._homes = homes

    def __getitem__(self, name: str) -> Any:
        file, attribute, *options = self._homes[name]
        found = getattr(import_module(f"ratoon.laws.equations.{file}"), attribute)
        return partial(found, **options[0]) if options else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


LAWS: Mapping[str, Form] = Catalog(
    {
        "warm": ("warm", "FORM"),
        "dcpt": ("dcpt", "FORM"),
        "cmr": ("cmr", "FORM"),
        "bimix": ("bimix", "FORM"),
        "almr": ("almr", "FORM"),
        "chinchilla": ("chinchilla", "FORM"),
        "coupled": ("coupled", "FORM"),
        "average": ("average", "FORM"),
        "crosslingual": ("crosslingual", "FORM"),
        "crossdomain": ("crossdomain", "FORM"),
        "repetition": ("repetition", "FORM"),
        "target-repetition": ("repetition", "TARGET"),
        "forgetting": ("injection", "FORM"),
        "fine-tuned": ("injection", "FINE_TUNED"),
        "dynamics": ("dynamics", "FORM"),
    }
)
# Laws of whole mixtures, input h: as many parameters as there are domains, so they are made for theirs.
MIXTURES: Mapping[str, MakeForm] = Catalog(
    {
        "mixing": ("mixing", "form"),
        "loglinear": ("loglinear", "form"),
        "additive": ("additive", "form"),
        "joint": ("additive", "form", {"joint": True}),
    }
)


def law_named(name: str, domains: tuple[str, ...] = ()) -> Form:
    """The law of this name; a law of mixtures is made for `domains`, the columns of its input h."""
    if name in LAWS:
        return LAWS[name]
    if name not in MIXTURES:
        known = [*LAWS, *MIXTURES]
        raise ConfigError(f"no law {name!r}{closest(name, known)}; there are {', '.join(known)}")
    if not domains:
        raise ConfigError(
            f"{name} is a law of whole mixtures; name the shares' columns, --columns 'h=mix_*' or h=web+code+maths"
        )
    return MIXTURES[name](domains)
