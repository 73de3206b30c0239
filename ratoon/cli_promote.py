"""The part of the command line that decides: `ratoon gate`, `ratoon promote`, `ratoon rollback`."""

from pathlib import Path
from typing import Any

from ratoon import commands_promote
from ratoon.cli_laws import as_json

GATE = """\
    FOLDER is a refresh's folder, or its folder `assess`; without it, the last refresh of this line. Reads the
    scores kept there item by item: no model, no network, and the same verdict every time.
      ratoon gate                                the last verdict again
      ratoon gate --params stricter.yaml         what another policy would have said (its section `promote`)
    Exit code 0: promote, 3: refuse, 4: ask."""
PROMOTE = """\
    For a version the gate asked about (`ratoon gate` says why; the report has pictures), or in spite of the gate.
      ratoon promote 7 --by 'Ann Lee' --because 'the loss on old manuals does not matter to us'
    The version must be of this line, be what was judged, and load. Who and why are kept as its tags."""


def add(verb: Any) -> None:
    gate = verb("gate", commands_promote.gate, "judge stored scores again, by the policy kept with them", GATE)
    gate.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")
    gate.add_argument("--params", type=Path, metavar="FILE", help="take the policy from this file's section `promote`")
    gate.set_defaults(anywhere=True)
    promote = verb("promote", commands_promote.promote, "make a version the champion by a person's word", PROMOTE)
    promote.add_argument("version", type=int, metavar="VERSION")
    promote.add_argument("--by", required=True, metavar="NAME", help="who decides")
    promote.add_argument("--because", required=True, metavar="TEXT", help="why, in a sentence")
    rollback = verb("rollback", commands_promote.rollback, "make the former champion the champion again")
    rollback.add_argument("--by", metavar="NAME", help="who decides")
    rollback.add_argument("--because", metavar="TEXT", help="why, in a sentence")
    for one in (gate, promote, rollback):
        one.add_argument("--model", help="registered model (default: the one of params.yaml)")
        as_json(one)
