"""What each chat takes of a message: the form of the body, what is escaped, how long it may be.

By the host of the webhook, as the makers document it:

Slack        {"text"}; & < > escaped (docs.slack.dev, "Formatting message text")
Discord      {"content"}, 2,000 characters at the most, or it is refused; nobody is called by a name in the text
             (discord.com/developers, "Execute Webhook"). An address that ends in /slack takes Slack's form
Teams        a message with one Adaptive Card, of Workflows and of the older connectors; a line of Markdown ends with an
             empty one (learn.microsoft.com, "Create and send messages", "Format cards in Teams")
all others   {"text"}: Mattermost, Google Chat, Rocket.Chat and what is made like them
"""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import SplitResult

Form = Literal["slack", "discord", "teams", "text"]
HOSTS: dict[Form, tuple[str, ...]] = {
    "slack": ("hooks.slack.com", "hooks.slack-gov.com"),
    "discord": ("discord.com", "discordapp.com"),
    "teams": ("webhook.office.com", "logic.azure.com", "api.powerplatform.com"),
}
SUBJECT_CHARACTERS, BODY_CHARACTERS = 180, 1800  # both and the line between them: within Discord's 2,000
CARD = "application/vnd.microsoft.card.adaptive"
ESCAPED = 'replace("&", "&amp;") | replace("<", "&lt;") | replace(">", "&gt;")'


def form_of(address: SplitResult) -> Form:
    host = (address.hostname or "").rstrip(".")
    for form, ends in HOSTS.items():
        if any(host == end or host.endswith(f".{end}") for end in ends):
            return "text" if form == "discord" and address.path.rstrip("/").endswith("/slack") else form
    return "text"


def payload(form: Form) -> dict[str, Any]:
    """The body that is sent; Prefect puts in subject and body."""
    whole = "{{subject}}\n{{body}}"
    if form == "discord":
        return {"content": whole, "allowed_mentions": {"parse": []}}
    if form == "teams":
        lines = [line("{{subject}}", weight="Bolder"), line("{{body}}")]
        schema = "http://adaptivecards.io/schemas/adaptive-card.json"
        card = {"$schema": schema, "type": "AdaptiveCard", "version": "1.2", "body": lines}
        return {"type": "message", "attachments": [{"contentType": CARD, "contentUrl": None, "content": card}]}
    return {"text": whole}


def line(text: str, **style: str) -> dict[str, Any]:
    return {"type": "TextBlock", "text": text, "wrap": True, **style}


def form_kept(block: Mapping[str, Any]) -> Form:
    """Of an address that was kept: its block's fields without the secret."""
    body = block.get("json_data") or {}
    if "attachments" in body:
        return "teams"
    if "content" in body:
        return "discord"
    return "slack" if block.get("name") in HOSTS["slack"] else "text"


def subject(form: Form, template: str) -> str:
    return fitted(form, template, SUBJECT_CHARACTERS)


def body(form: Form, template: str) -> str:
    return fitted(form, template, BODY_CHARACTERS)


def fitted(form: Form, template: str, characters: int) -> str:
    """A template of Jinja's whose words this chat takes as they are. Cut first: half an escape would be a wrong one."""
    steps = [f'truncate({characters}, true, "...", 0)']
    steps += [ESCAPED] if form == "slack" else []
    steps += [r'replace("\n", "\n\n")'] if form == "teams" else []
    return f"{{% filter {' | '.join(steps)} %}}{template}{{% endfilter %}}"
