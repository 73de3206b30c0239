"""Who is told of a verdict or a failure: addresses of webhooks, each a secret in a Prefect block, and what they get."""

import os
import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import get_current_settings

from ratoon import config
from ratoon.config import ConfigError, Happening
from tasks import announce, embedded, messages
from tasks.automations import OURS

PREFIX = "ratoon-notify-"
VARIABLE = "RATOON_NOTIFY_URL"
TYPE = "custom-webhook"
TEST = "ratoon.test"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
EVENTS: dict[Happening, set[str]] = {
    "promoted": {announce.VERDICTS["promote"], announce.ROLLED_BACK, TEST},
    "refused": {announce.VERDICTS["refuse"]},
    "asked": {announce.VERDICTS["ask"]},
    "failed": {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
}
SUBJECT: dict[Happening, str] = {
    "promoted": "{{ event.resource.name }}: {{ event.event | replace('ratoon.', '') }}",
    "refused": "{{ event.resource.name }}: refused",
    "asked": "{{ event.resource.name }}: a person has to say",
    "failed": "{{ flow.name }} {{ flow_run.state.name | lower }}: {{ flow_run.name }}",
}
SAID = "{{ event.payload.summary }}\n{{ event.payload.link }}"
FAILED = """\
why: {{ flow_run.state.message | truncate(300) }}
run it again: it goes on where it was
PAGE/runs/flow-run/{{ flow_run.id }}"""


def add(url: str, name: str = "default") -> str:
    """Keep an address under a name; an older one of that name gives way. Returns its host, which may be shown."""
    host = checked(url)
    if not NAME.fullmatch(name):
        raise ConfigError(f"ratoon notify: --name {name!r}: small letters, digits and dashes, 40 at most")
    webhook(url.strip()).save(PREFIX + name, overwrite=True)
    return host


def webhook(url: str) -> CustomWebhookNotificationBlock:
    """What sends to this address, in the form its chat takes."""
    parts = urlsplit(url)
    return CustomWebhookNotificationBlock(
        name=str(parts.hostname),
        url="{{url}}",
        json_data=messages.payload(messages.form_of(parts)),
        secrets={"url": url},  # type: ignore[arg-type]
    )


def checked(url: str) -> str:
    """Its host. The letter does not repeat the address: it is a secret."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("ratoon notify: the address does not begin with https:// and a host; nothing was kept")
    return parts.hostname


def take_from_environment() -> None:
    """For containers and scripts: the address of RATOON_NOTIFY_URL, under the name `environment`."""
    if url := os.environ.get(VARIABLE):
        add(url, "environment")


def kept(client: SyncPrefectClient) -> dict[str, BlockDocument]:
    """Name -> block, without its secrets."""
    found = client.read_block_documents_by_type(TYPE, include_secrets=False) if has_type(client) else []
    return {it.name.removeprefix(PREFIX): it for it in found if it.name and it.name.startswith(PREFIX)}


def has_type(client: SyncPrefectClient) -> bool:
    return any(it.slug == TYPE for it in client.read_block_types())


def addresses() -> dict[str, str]:
    """Name -> host."""
    with get_client(sync_client=True) as client:
        return {name: str(block.data.get("name", "?")) for name, block in kept(client).items()}


def remove(name: str) -> None:
    with get_client(sync_client=True) as client:
        found = kept(client)
        if name not in found:
            raise ConfigError(f"ratoon notify: {config.unknown('address', name, sorted(found))}")
        client.delete_block_document(found[name].id)


def automations(client: SyncPrefectClient, kinds: Sequence[Happening]) -> Iterator[AutomationCore]:
    for name, block in sorted(kept(client).items()):
        for kind in kinds:
            yield telling(kind, name, block)


def telling(kind: Happening, name: str, block: BlockDocument) -> AutomationCore:
    """Failures are told of what a deployment started: at a terminal they are seen, and a part tells with its whole."""
    failed = kind == "failed"
    said = FAILED.replace("PAGE", page()) if failed else SAID
    about = {"prefect.resource.id": "prefect.flow-run.*" if failed else "ratoon.line.*"}
    related = {"prefect.resource.role": "deployment"} if failed else {}
    form = messages.form_kept(block.data)
    subject, body = messages.subject(form, SUBJECT[kind]), messages.body(form, said)
    return AutomationCore(
        name=f"{OURS}{kind}, told to {name}",
        description=f"A message to the address `{name}` of `ratoon notify`.",
        trigger=EventTrigger(
            expect=EVENTS[kind],
            match=ResourceSpecification.model_validate(about),
            match_related=ResourceSpecification.model_validate(related),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[SendNotification(block_document_id=block.id, subject=subject, body=body)],
    )


def page() -> str:
    """Of Prefect, as this machine reaches it: the server does not know its own address."""
    settings = get_current_settings()
    return (settings.ui_url or settings.api.url or "").removesuffix("/").removesuffix("/api")


def test() -> bool:
    """Whether there is a server that sends it on."""
    payload = {"summary": "a test of `ratoon notify`\nnothing happened\nnothing is to do", "link": ""}
    announce.announce(TEST, "ratoon", payload)
    return embedded.served()
