"""What the form of a deployment offers: beside types and descriptions, the names that are declared."""

import copy
from pathlib import Path
from typing import Any, get_args

from ratoon import config
from ratoon.config.arms import ArmName

HIDDEN = ("parent_run",)  # given by the flow above, never by a person


def choices(root: Path) -> dict[str, list[str]]:
    """Field of a form -> what is declared for it today."""
    params = config.load(root)
    bases = list(params.prepare.bases)
    lines = [params.refresh.line, *(f"ratoon-{base}" for base in bases)]
    sources = sorted(path.stem for path in (root / "data" / "sources").glob("*.yaml"))
    found = {
        "base": bases,
        "budget": ["default", *params.budgets],
        "sources": sources,
        "model": list(dict.fromkeys(lines)),
        "names": list(get_args(ArmName)),
    }
    return {field: names for field, names in found.items() if names}


def offered(schema: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """`schema` of a flow's parameters with the names as choices, and without what no person fills in."""
    made = copy.deepcopy(schema)
    for place in (made, *made.get("definitions", {}).values()):
        fields = place.get("properties", {})
        for hidden in HIDDEN:
            fields.pop(hidden, None)
        for field in fields.keys() & names.keys():
            offer(fields[field], names[field])
        for field in fields.values():
            plain(field)
    return made


def plain(field: dict[str, Any]) -> None:
    """A field that may be left empty as one field: the page shows `X or null` as a switch between two kinds.

    Empty is left out of what a page sends, so null is nothing anybody has to say.
    """
    default = field.get("default", ...)
    parts = [part for part in field.get("anyOf", ()) if part.get("type") != "null"]
    if len(parts) == 1 and default is None:
        del field["anyOf"], field["default"]
        field |= parts[0]
    elif isinstance(default, dict):
        field["default"] = {name: value for name, value in default.items() if value is not None}


def offer(field: dict[str, Any], names: list[str]) -> None:
    """Where it takes one text or a list of texts. A default stays what it is."""
    for part in [field, *field.get("anyOf", ())]:
        if part.get("type") == "string":
            part.pop("pattern", None)  # a name that is offered is one that is allowed
            part["enum"] = names
        elif part.get("type") == "array":
            part["items"] = {"type": "string", "enum": names}
            part["uniqueItems"] = True
