"""`ratoon up`, `down`, `status`, `logs`: the services of one machine."""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from ratoon.commands import DONE, embedded
from ratoon.config import ConfigError


def up(asked: argparse.Namespace, root: Path) -> int:
    if asked.write and not asked.systemd:
        raise ConfigError("ratoon up --write: only --systemd has something to write; add it, or leave --write out")
    if asked.systemd:
        return systemd(asked, root)
    embedded(root)
    from tasks import access, environment, launch, orphans, services, zombies
    from tasks import status as state

    # A host that was not named is the one it had before; so is whether there is a login.
    given = asked.host is not None or asked.login
    bind = access.bind(asked.host or access.HOST, asked.login, os.environ) if given else None
    gpu = launch.sees_gpu() if asked.gpu is None else asked.gpu

    def start() -> None:
        services.up(root, prefect_port=asked.prefect_port, mlflow_port=asked.mlflow_port, bind=bind, gpu=gpu)
        environment.apply(root)  # from here on the servers'
        zombies.bury()
        orphans.crash(root)
        if told := state.pages_told(state.pages(root)):
            services.say("\n".join(told))

    if not asked.watch:
        start()
        return DONE
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    services.watch(root, start, ended)
    return DONE


def systemd(asked: argparse.Namespace, root: Path) -> int:
    from tasks import units

    options = [f"--prefect-port={asked.prefect_port}", f"--mlflow-port={asked.mlflow_port}"]
    options += [f"--host={asked.host}"] if asked.host else []
    options += ["--login"] if asked.login else []
    options += [] if asked.gpu is None else ["--gpu" if asked.gpu else "--no-gpu"]
    if asked.write:
        print(f"{units.write(root, options)} written; next:")
    else:
        print(units.unit(root, options))
        print(f"`ratoon up --systemd --write` puts it in {units.folder()}; then:", file=sys.stderr)
    print(units.what_next(root), file=sys.stdout if asked.write else sys.stderr)
    return DONE


def down(asked: argparse.Namespace, root: Path) -> int:
    embedded(root)
    from tasks import services

    services.down(root)
    return DONE


def status(asked: argparse.Namespace, root: Path) -> int:
    embedded(root)
    from tasks import status as state

    return state.show(root, as_json=asked.json)


def logs(asked: argparse.Namespace, root: Path) -> int:
    from tasks import logbook

    if not asked.follow:
        print(logbook.end(root, asked.service, asked.lines))
        return DONE
    pieces: Any = logbook.follow(root, asked.service, asked.lines)
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    return DONE
