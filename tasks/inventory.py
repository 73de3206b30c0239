"""What is installed here, as a CycloneDX bill of materials (`make sbom`), held against the pins of constraints.txt.

From the packages' own metadata, without a network: any scanner that has a list of known holes reads the file.
"""

import importlib.metadata as metadata
import json
import re
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from ratoon import records

# Parts of an environment, not of the program.
TOOLS = {"pip", "setuptools", "wheel"}


def canonical(name: str) -> str:
    """As package indexes compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, metadata.Distribution]:
    # The first on the path is the one that is imported.
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        found.setdefault(canonical(distribution.metadata["Name"]), distribution)
    return dict(sorted(found.items()))


def reached(start: str, within: dict[str, metadata.Distribution]) -> set[str]:
    """`start` and everything it needs, as far as it is installed."""
    found, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name in within and name not in found:
            found.add(name)
            waiting += needed(within[name])
    return found


def needed(distribution: metadata.Distribution) -> Iterator[str]:
    """Names of what it asks for here; what its extras ask for counts where it is installed."""
    for line in distribution.requires or []:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:  # of a very old package
            continue
        extras = re.findall(r"extra\s*==\s*['\"]([^'\"]+)", str(wanted.marker or ""))
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ["", *extras]):
            yield canonical(wanted.name)


def bill(within: dict[str, metadata.Distribution], top: str = "ratoon") -> dict[str, Any]:
    """CycloneDX 1.6. The same installation gives the same bytes."""
    parts = {name: item for name, item in within.items() if name != top}
    refs = {name: f"pkg:pypi/{name}@{item.version}" for name, item in within.items()}
    listed = [component(name, item, refs[name]) for name, item in parts.items()]
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(sorted(refs.values())))
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "components": listed,
        "dependencies": [
            {"ref": refs[name], "dependsOn": sorted({refs[other] for other in needed(item) if other in refs})}
            for name, item in within.items()
        ],
    }
    if top in within:
        document["metadata"] = {"component": {**component(top, within[top], refs[top]), "type": "application"}}
    return document


def component(name: str, item: metadata.Distribution, ref: str) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "library", "bom-ref": ref, "name": name, "version": item.version, "purl": ref}
    fields: Any = item.metadata
    expression, text = fields.get("License-Expression"), fields.get("License")
    if expression:
        found["licenses"] = [{"expression": expression}]
    elif text and len(text) < 100 and "\n" not in text:  # some put the whole licence here
        found["licenses"] = [{"license": {"name": text}}]
    return found


def pins(lines: Iterable[str]) -> dict[str, str]:
    split = [line.split("==", 1) for line in lines if "==" in line and not line.startswith("#")]
    return {canonical(name): version.split(";")[0].strip() for name, version in split}


def strays(within: dict[str, metadata.Distribution], pinned: dict[str, str], top: str = "ratoon") -> list[str]:
    """What the program reaches that no pin names, or that is of another version than its pin."""
    if top not in within:
        return [f"{top}: not installed here, so nothing could be held against its pin; `make sbom` installs it"]
    found = []
    for name in sorted(reached(top, within) - TOOLS - {top}):
        version = within[name].version.split("+")[0]  # a local label, such as +cpu, says how it was built
        if name not in pinned:
            found.append(f"{name} {version}: no pin")
        elif pinned[name].split("+")[0] != version:
            found.append(f"{name} {version}: pinned to {pinned[name]}")
    return found


def main(arguments: list[str]) -> int:
    target, constraints = Path(arguments[0]), Path(arguments[1])
    within = installed()
    document = bill(within)
    records.write_text(target, json.dumps(document, indent=2) + "\n")
    different = strays(within, pins(constraints.read_text(encoding="utf-8").splitlines()))
    print(f"{target}: {len(document['components'])} packages; {len(different)} not as {constraints} pins them")
    print("\n".join(f"  {line}" for line in different), end="\n" if different else "")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
