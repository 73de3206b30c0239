"""Messages of `ratoon notify` against servers that take what the makers of each chat document, and nothing else.

Slack: docs.slack.dev, "Sending messages using incoming webhooks", "Formatting message text"; Discord: "Execute
Webhook"; Mattermost: "Incoming webhooks"; Teams: "Create and send messages" with the Adaptive Card schema; Google Chat:
"Send messages with webhooks".
"""

import re
from types import SimpleNamespace
from urllib.parse import urlsplit

import jsonschema
import pytest
from prefect.server.utilities.user_templates import render_user_template_sync, validate_user_template
from webhook_receiver import receiver

from tasks import announce, messages, notify

ADDRESSES = {
    "slack": "https://hooks.slack.com/services/T000/B000/x",
    "discord": "https://discord.com/api/webhooks/1/x",
    "teams": "https://default0.1f.environment.api.powerplatform.com:443/powerautomate/automations/direct/workflows/0/"
    "triggers/manual/paths/invoke?api-version=1&sig=x",
    "mattermost": "https://chat.example.org/hooks/x",
    "google": "https://chat.googleapis.com/v1/spaces/A/messages?key=x&token=y",
}


def fields(required, **properties):
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def text(**more):
    return {"type": "string", "minLength": 1, **more}


PARSE = {"type": "array", "items": {"enum": ["roles", "users", "everyone"]}, "uniqueItems": True}
BLOCK = fields(
    ["type", "text"],
    type={"const": "TextBlock"},
    text=text(),
    wrap={"type": "boolean"},
    weight={"enum": ["Lighter", "Default", "Bolder"]},
)
CARD = fields(
    ["type", "version", "body"],
    **{"$schema": {"const": "http://adaptivecards.io/schemas/adaptive-card.json"}},
    type={"const": "AdaptiveCard"},
    version=text(pattern=r"^1\.[0-5]$"),
    body={"type": "array", "minItems": 1, "items": BLOCK},
)
ATTACHMENT = fields(
    ["contentType", "content"],
    contentType={"const": "application/vnd.microsoft.card.adaptive"},
    contentUrl={"type": "null"},
    content=CARD,
)
TAKEN = {
    "slack": fields(["text"], text=text(maxLength=40_000, pattern=r"^(?:[^<>&]|&(?:amp|lt|gt);)*$")),
    "discord": fields(["content"], content=text(maxLength=2000), allowed_mentions=fields([], parse=PARSE)),
    "mattermost": fields(["text"], text=text(maxLength=16_383)),
    "google": fields(["text"], text=text(maxLength=4096)),
    "teams": fields(
        ["type", "attachments"],
        type={"const": "message"},
        attachments={"type": "array", "minItems": 1, "items": ATTACHMENT},
    ),
}


@pytest.fixture
def chats():
    """A server whose path names a chat, and what it took; what its makers do not document it refuses."""

    def well(path, headers, body):
        asked = jsonschema.Draft202012Validator(TAKEN[path.strip("/")])
        return headers["Content-Type"] == "application/json" and asked.is_valid(body)

    with receiver(well) as found:
        yield found


def sent(chats, chat, summary, link="report: file:///r", name="ratoon-nano"):
    """A refusal as the automation of this address words it, sent as its block sends it; what arrived."""
    server, taken = chats
    block = notify.webhook(ADDRESSES[chat])
    data = {"name": block.name, "json_data": block.json_data}
    kept = SimpleNamespace(id="00000000-0000-0000-0000-000000000000", data=data)
    (action,) = notify.telling("refused", "team", kept).actions
    payload = {"summary": summary, "link": link}
    event = SimpleNamespace(event="ratoon.refused", resource=SimpleNamespace(name=name), payload=payload)
    words = [render_user_template_sync(template, {"event": event}) for template in (action.subject, action.body)]
    block.secrets = type(block.secrets)({"url": f"{server}/{chat}"})
    block.notify(body=words[1], subject=words[0])
    return taken[-1][1]


def shown(body):
    """Its text as a person reads it, without the marks of the form."""
    found = body.get("text") or body.get("content")
    if found is None:
        (attachment,) = body["attachments"]
        found = "\n".join(block["text"] for block in attachment["content"]["body"])
    return found.replace("\n\n", "\n")


SUMMARY = "domain code -0.3%\nwhy: bits per byte +4.1%, allowed +2.0%\nthe champion stays"


@pytest.mark.parametrize("chat", ADDRESSES)
def test_every_chat_takes_a_verdict_in_its_own_form_and_shows_all_its_lines(chats, chat):
    body = sent(chats, chat, SUMMARY)
    assert shown(body) == f"ratoon-nano: refused\n{SUMMARY}\nreport: file:///r"


@pytest.mark.parametrize("chat", ADDRESSES)
def test_every_chat_takes_a_verdict_that_is_far_too_long_and_full_of_signs(chats, chat):
    body = sent(chats, chat, 'a <b> & @everyone {{url}} "c"\n' * 400, name="<x>&" * 100)
    said = shown(body)
    assert "..." in said
    assert ADDRESSES[chat] not in said
    assert ("&lt;b&gt; &amp;" if chat == "slack" else "<b> &") in said


def test_on_teams_each_line_stands_by_itself_and_the_first_is_bold(chats):
    (attachment,) = sent(chats, "teams", SUMMARY)["attachments"]
    first, rest = attachment["content"]["body"]
    assert (first["weight"], first["text"]) == ("Bolder", "ratoon-nano: refused")
    assert rest["text"].split("\n\n") == [*SUMMARY.splitlines(), "report: file:///r"]


def test_on_discord_nobody_is_called_by_what_a_message_says(chats):
    assert sent(chats, "discord", "@everyone")["allowed_mentions"] == {"parse": []}


@pytest.mark.parametrize(
    ("address", "form"),
    [
        ("https://hooks.slack.com/services/T/B/x", "slack"),
        ("https://hooks.slack-gov.com/services/T/B/x", "slack"),
        ("https://discordapp.com/api/webhooks/1/x", "discord"),
        ("https://canary.discord.com/api/webhooks/1/x", "discord"),
        ("https://discord.com/api/webhooks/1/x/slack", "text"),
        ("https://prod-23.westeurope.logic.azure.com:443/workflows/0/triggers/manual/paths/invoke?sig=x", "teams"),
        ("https://contoso.webhook.office.com/webhookb2/0@0/IncomingWebhook/0/0", "teams"),
        ("https://notdiscord.com/api/webhooks/1/x", "text"),
        ("https://discord.com.example.org/hooks/x", "text"),
        ("http://127.0.0.1:8065/hooks/x", "text"),
    ],
)
def test_the_form_follows_the_host_and_not_what_looks_like_it(address, form):
    assert messages.form_of(urlsplit(address)) == form


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=list(ADDRESSES))
def test_the_form_of_an_address_is_known_from_what_is_kept_of_it(address):
    block = notify.webhook(address)
    assert messages.form_kept({"name": block.name, "json_data": block.json_data}) == messages.form_of(urlsplit(address))
    assert address not in str(block.model_dump(exclude={"secrets"}))


@pytest.mark.parametrize("form", ["slack", "discord", "teams", "text"])
@pytest.mark.parametrize("kind", list(notify.SUBJECT))
def test_every_template_is_one_that_prefect_takes(form, kind):
    for template in (messages.subject(form, notify.SUBJECT[kind]), messages.body(form, notify.SAID)):
        validate_user_template(template)
    run = SimpleNamespace(name="sweep nano", id="1", state=SimpleNamespace(name="Failed", message="a & <b>"))
    said = render_user_template_sync(
        messages.body(form, notify.FAILED), {"flow_run": run, "flow": SimpleNamespace(name="sweep")}
    )
    assert re.search("a &amp; &lt;b&gt;" if form == "slack" else "a & <b>", said)


def test_forty_sources_do_not_push_the_reason_out_of_a_message():
    item = SimpleNamespace(benchmark="held-out", role="domain", source="portion", relative=SimpleNamespace(value=0.1))
    verdict = SimpleNamespace(comparisons=[item] * 40, decision="refuse", reasons=["too much was lost"])
    lines = announce.summary(SimpleNamespace(verdict=verdict, version=3)).splitlines()
    assert len(lines) == 3
    assert len(lines[0]) <= announce.REASON_CHARACTERS
    assert lines[1:] == ["why: too much was lost", "the champion stays"]
