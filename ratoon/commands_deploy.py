"""What the commands do that tell a Prefect server something: deployments, and who gets messages."""

import argparse
import getpass
import json
import os
import sys
from pathlib import Path

from ratoon.commands import DONE, embedded
from ratoon.config import ConfigError, load


def deploy(asked: argparse.Namespace, root: Path) -> int:
    load(root)  # a wrong key is told at once
    embedded(root)
    os.environ.setdefault("RATOON_ROOT", str(root))
    from tasks import deployments

    deployments.register(root, lambda line: print(line, flush=True))
    return DONE


def notify(asked: argparse.Namespace, root: Path) -> int:
    operate = load(root).operate
    url = address(asked.url) if asked.step == "add" else None
    embedded(root)
    from tasks import deployments
    from tasks import notify as it

    if asked.step == "add":
        host = it.add(str(url), asked.name)
        where = "; `ratoon up` makes it heard" if not deployments.tell(operate) else ""
        print(json.dumps({"name": asked.name, "host": host}) if asked.json else f"{asked.name}: {host}{where}")
    elif asked.step == "remove":
        it.remove(asked.name)
        deployments.tell(operate)
        print(json.dumps({"removed": asked.name}) if asked.json else f"{asked.name}: removed")
    elif asked.step == "test":
        if not it.test():
            raise ConfigError("ratoon notify test: no Prefect server sends messages; `ratoon up` starts one")
        print("{}" if asked.json else "sent: every address of `ratoon notify list` gets a message within seconds")
    else:
        found = it.addresses()
        lines = [f"{name}: {host}" for name, host in sorted(found.items())] or ["none; `ratoon notify add`"]
        print(json.dumps(found, indent=2) if asked.json else "\n".join(lines))
    return DONE


def address(given: str | None) -> str:
    """As it was given; best not in a shell's history: from standard input, the environment or asked for."""
    if given == "-":
        return sys.stdin.readline().strip()
    if given or (given := os.environ.get("RATOON_NOTIFY_URL")):
        return given
    if not sys.stdin.isatty():
        raise ConfigError("ratoon notify add: no address; give one, or `-` for standard input, or RATOON_NOTIFY_URL")
    return getpass.getpass("address of the webhook (not shown): ").strip()
