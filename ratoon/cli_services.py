"""The options of `ratoon up`, `down`, `status`, `logs`."""

import argparse
from collections.abc import Callable
from typing import Any

from ratoon import commands_services
from ratoon.cli_laws import as_json

UP = """\
    Twice is once: what runs stays, what died is started again. Everything listens on this machine alone, unless
    --host says otherwise; then both pages want a login, whose secrets come from the environment:
      PREFECT_SERVER_API_AUTH_STRING=NAME:PASSWORD  MLFLOW_TRACKING_USERNAME  MLFLOW_TRACKING_PASSWORD
    docs/security.md says who can reach what; docs/operations.md what to do after a reboot."""


def add(verb: Callable[..., Any]) -> None:
    up = verb("up", commands_services.up, "start Prefect, MLflow and workers here, and open their pages to you", UP)
    up.add_argument("--prefect-port", type=int, default=4200, help="first port to try (default 4200)")
    up.add_argument("--mlflow-port", type=int, default=5000, help="first port to try (default 5000)")
    up.add_argument("--host", help="address to listen on; 0.0.0.0: all of this machine's (default 127.0.0.1)")
    up.add_argument("--login", action="store_true", help="ask for name and password on this machine too")
    up.add_argument(
        "--gpu",
        action=argparse.BooleanOptionalAction,
        help="a worker for the pool gpu too (default: where torch sees a GPU)",
    )
    up.add_argument(
        "--watch", action="store_true", help="stay, and start again what dies; Ctrl-C or `ratoon down` ends it"
    )
    up.add_argument("--systemd", action="store_true", help="print a user unit that does that after each boot")
    up.add_argument("--write", action="store_true", help="with --systemd: put it where systemd looks")
    verb("down", commands_services.down, "stop what `ratoon up` started")
    as_json(verb("status", commands_services.status, "what runs here, and which model is the champion"))
    logs = verb("logs", commands_services.logs, "the end of a service's log")
    logs.add_argument("service", choices=["prefect", "mlflow", "worker", "worker-gpu", "deploy", "keeper"])
    logs.add_argument("-f", "--follow", action="store_true", help="stay, and print what is added")
    logs.add_argument("--lines", type=int, default=100, metavar="N", help="how many from the end (default 100)")
