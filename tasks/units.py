"""A systemd unit of the person's own, so that the services come back after a reboot. `ratoon up --systemd`.

A user unit needs no root; `loginctl enable-linger` lets it start before anybody has logged in.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ratoon import records

UNIT = """\
# Written by `ratoon up --systemd`. Prefect, MLflow and the workers of {root}
[Unit]
Description=ratoon services of {root}
After=network.target
# Away for an hour or a day: it is tried again all the same.
StartLimitIntervalSec=0

[Service]
Type=exec
WorkingDirectory={directory}
ExecStart={command}
# Secrets, one NAME=VALUE a line, readable by you alone (chmod 600). It need not exist.
EnvironmentFile=-{secrets}
Restart=on-failure
RestartSec=10
# 2: asked for what cannot be done. Asking again would not help.
RestartPreventExitStatus=2
# A training that is under way saves before it goes.
TimeoutStopSec=180
KillMode=mixed
NoNewPrivileges=yes
UMask=0077

[Install]
WantedBy=default.target
"""


def unit(root: Path, options: Sequence[str] = ()) -> str:
    """The text of the unit: `ratoon up --watch` with these options, by this interpreter."""
    command = [sys.executable, "-m", "ratoon", "--root", str(root), "up", "--watch", *options]
    return UNIT.format(
        # A newline in a folder's name would begin a new setting.
        root=re.sub(r"\s", " ", _percent(str(root))),
        directory=_percent(str(root)),
        command=" ".join(quoted(part) for part in command),
        secrets=_percent(str(secrets_file(root))),
    )


def name(root: Path) -> str:
    return f"ratoon-{re.sub(r'[^A-Za-z0-9_.-]', '-', root.name) or 'project'}.service"


def folder() -> Path:
    """Where systemd looks for a person's own units."""
    return _config() / "systemd" / "user"


def secrets_file(root: Path) -> Path:
    return _config() / "ratoon" / name(root).replace(".service", ".env")


def write(root: Path, options: Sequence[str] = ()) -> Path:
    path = folder() / name(root)
    records.write_text(path, unit(root, options))
    return path


def what_next(root: Path) -> str:
    return (
        f"  systemctl --user daemon-reload && systemctl --user enable --now {name(root)}\n"
        f"  loginctl enable-linger    # starts it at boot, before anybody logs in\n"
        f"secrets, if it needs any: NAME=VALUE lines in {secrets_file(root)}, chmod 600"
    )


def quoted(part: str) -> str:
    """As systemd.service(5) reads a command line: it expands % and $, and unescapes within double quotes."""
    text = _percent(part).replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _config() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
