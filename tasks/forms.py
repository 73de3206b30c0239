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
    return made


def offer(field: dict[str, Any], names: list[str]) -> None:
    """Where it takes one text or a list of texts. `null` and a default stay what they are."""
    for part in [field, *field.get("anyOf", ())]:
        if part.get("type") == "string":
            part.pop("pattern", None)  # a name that is offered is one that is allowed
            part["enum"] = names
        elif part.get("type") == "array":
            part["items"] = {"type": "string", "enum": names}
            part["uniqueItems"] = True
