"""The part of the command line that tells a Prefect server something: `ratoon deploy`, `ratoon notify`."""

from typing import Any

from ratoon import commands_deploy
from ratoon.cli_laws import as_json

DEPLOY = """\
    With the server of `ratoon up`, which calls this itself, or the one PREFECT_API_URL names: work pools, the
    deployments of prefect.yaml with today's names as choices of their forms, GPU slots, automations, messages.
    As often as one likes; after declaring a source, a base or a budget, so that the forms offer it."""
NOTIFY = """\
    A message for each version that is promoted, refused or waits for a person, and for each run that fails:
      ratoon notify add                 asks for the address of a webhook and does not show it
      ratoon notify add URL --name team      of Slack, Mattermost, Teams, Discord or what takes {"text": "..."}
      ratoon notify list                names and hosts, never addresses
      ratoon notify test                a message to all of them
      ratoon notify remove --name team
    operate.notify in params.yaml says which messages. An address is kept encrypted by Prefect and nowhere else."""


def add(verb: Any) -> None:
    verb("deploy", commands_deploy.deploy, "tell the Prefect server what can be started, with today's choices", DEPLOY)
    notify = verb("notify", commands_deploy.notify, "who gets a message of verdicts and failures", NOTIFY)
    notify.add_argument("step", choices=["add", "list", "test", "remove"], metavar="STEP")
    notify.add_argument("url", nargs="?", metavar="URL", help="address of a webhook; `-`: from standard input")
    notify.add_argument("--name", default="default", help="what the address is called (default: default)")
    as_json(notify)
