"""Journeys there and back: the relay hands a mail to a provider, and the provider tells later what became of it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.fakes.authority import Authority
from tests.fakes.mailgun import FakeMailgun
from tests.fakes.relay_process import ROOT, RelayProcess
from tests.fakes.sendgrid import FakeSendGrid
from tests.fakes.smtp import FakeSmtp
from tests.fakes.webhooks import MailgunWebhook, SendGridWebhook, post
from tests.journeys import clients, mails

SECRETS = {"SENDGRID_KEY": "SG.journey.s3cret", "MAILGUN_KEY": "mailgun-s3cret", "MAILGUN_SIGNING": "signing-s3cret"}
WEBHOOKS = "webhooks: {address: '127.0.0.1:0'}\n"
TO, BCC = "jan@example.nl", "stil@example.nl"


async def webhook_port(relay: RelayProcess, after: int = 0) -> int:
    listening = await relay.event("webhooks_listening", after=after)
    return int(str(listening["address"]).rpartition(":")[2])


async def timeline(relay: RelayProcess, mail: str) -> list[tuple[str, str | None, str]]:
    """(event, recipient, text) of what the provider told, as `queue show` has it."""
    code, shown = await relay.command("queue", "show", mail, "--json")
    assert code == 0, shown
    return [
        (entry["event"], entry["recipient"], entry["text"])
        for entry in json.loads(shown)["timeline"]
        if entry["recipient"] is not None
    ]


def test_sendgrid_by_smtp_tells_of_a_bounce(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        webhook = SendGridWebhook()
        users = {"apikey": SECRETS["SENDGRID_KEY"]}
        async with FakeSmtp(starttls=authority.server_context(), users=users) as sendgrid:
            routes = (
                f'upstreams:\n  sg: {{type: sendgrid, api_key: "env:SENDGRID_KEY", host: localhost,'
                f" port: {sendgrid.port}, webhook_key: {webhook.key}}}\nroutes:\n  - {{from: acme.nl, via: sg}}\n"
            )
            async with RelayProcess(tmp_path / "relay", routes, extra=WEBHOOKS, environment=SECRETS) as relay:
                port = await webhook_port(relay)
                content = mails.plain("info@acme.nl", TO)
                said = await clients.smtplib(relay.port, "info@acme.nl", [TO, BCC], content)
                assert said.code == 0, said.text
                delivered = await relay.event("delivered")
                (mail,) = sendgrid.received
                relay_id = json.loads(mails.header(mail.content, "X-SMTPAPI"))["unique_args"]["relay_id"]
                assert relay_id == delivered["mail"]

                events = [
                    webhook.event("delivered", relay_id, email=TO, response="250 2.0.0 OK"),
                    webhook.event("bounce", relay_id, email=BCC, reason="550 5.1.1 no such user", type="bounce"),
                ]
                signed = webhook.signed(events)
                assert await post(port, "/webhooks/sg", *signed) == 200
                assert await post(port, "/webhooks/sg", *signed) == 208
                assert await post(port, "/webhooks/sg", *SendGridWebhook().signed(events)) == 401
                assert await timeline(relay, relay_id) == [
                    ("delivered", TO, "250 2.0.0 OK"),
                    ("bounced", BCC, "550 5.1.1 no such user"),
                ]
                _, text = await relay.command("queue", "show", relay_id)
                assert f"bounced   sg\n      {BCC}\n        550 5.1.1 no such user\n" in text
                bounced = await relay.event("provider_bounced", mail=relay_id, route="acme.nl", upstream="sg")
                assert bounced["recipient"] == BCC
                await relay.stop()
                await relay.start()
                _, text = await relay.command("queue", "failures", "--csv")
                (row,) = csv.DictReader(io.StringIO(text))
                assert (row["customer"], row["failed"], row["provider_bounced"]) == ("acme.nl", "0", "1")

    asyncio.run(journey())


def test_sendgrid_by_its_api_tells_of_a_complaint(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        webhook = SendGridWebhook()
        async with FakeSendGrid(key=SECRETS["SENDGRID_KEY"], tls=authority.server_context()) as sendgrid:
            routes = (
                f'upstreams:\n  sg: {{type: sendgrid, method: api, api_key: "env:SENDGRID_KEY",'
                f' base_url: "{sendgrid.url}", webhook_key: {webhook.key}}}\n'
                "routes:\n  - {from: acme.nl, via: sg}\n"
            )
            async with RelayProcess(tmp_path / "relay", routes, extra=WEBHOOKS, environment=SECRETS) as relay:
                port = await webhook_port(relay)
                await clients.smtplib(relay.port, "info@acme.nl", [TO], mails.plain("info@acme.nl", TO))
                delivered = await relay.event("delivered")
                relay_id = sendgrid.delivered[0].custom_args["relay_id"]
                assert relay_id == delivered["mail"]
                signed = webhook.signed([webhook.event("spamreport", relay_id, email=TO)])
                assert await post(port, "/webhooks/sg", *signed) == 200
                assert await timeline(relay, relay_id) == [("complained", TO, "")]

    asyncio.run(journey())


def test_mailgun_tells_of_a_deferral_and_no_token_works_twice(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        webhook = MailgunWebhook(SECRETS["MAILGUN_SIGNING"])
        async with FakeMailgun(key=SECRETS["MAILGUN_KEY"], tls=authority.server_context()) as mailgun:
            routes = (
                f'upstreams:\n  mg: {{type: mailgun, domain: {mailgun.domain}, api_key: "env:MAILGUN_KEY",'
                f' base_url: "{mailgun.url}", webhook_signing_key: "env:MAILGUN_SIGNING"}}\n'
                "routes:\n  - {from: tyrell.nl, via: mg}\n"
            )
            async with RelayProcess(tmp_path / "relay", routes, extra=WEBHOOKS, environment=SECRETS) as relay:
                port = await webhook_port(relay)
                await clients.smtplib(relay.port, "info@tyrell.nl", [TO], mails.plain("info@tyrell.nl", TO))
                await relay.event("delivered")
                relay_id = mailgun.delivered[0].variables["relay_id"]

                status = {"code": 451, "message": "4.7.1 later", "attempt-no": 1}
                seal = webhook.seal()
                deferred = webhook.event(
                    "failed", relay_id, severity="temporary", recipient=TO, **{"delivery-status": status}
                )
                assert await post(port, "/webhooks/mg", *webhook.signed(deferred, seal=seal)) == 200
                forged = webhook.signed(webhook.event("complained", relay_id, recipient=TO), seal=seal)
                assert await post(port, "/webhooks/mg", *forged) == 406

                seen = len(relay.events)
                await relay.stop(signal.SIGKILL)
                await relay.start()
                assert await post(await webhook_port(relay, seen), "/webhooks/mg", *forged) == 406
                assert await timeline(relay, relay_id) == [("deferred", TO, "451 4.7.1 later")]
                assert "signing-s3cret" not in relay.log()

    asyncio.run(journey())


def test_new_keys_count_after_a_reload(tmp_path: Path) -> None:
    def routes(webhook: SendGridWebhook) -> str:
        return (
            "upstreams:\n  sg: {type: sendgrid, api_key: 'env:SENDGRID_KEY', webhook_key: " + webhook.key + "}\n"
            "routes:\n  - {from: acme.nl, via: sg}\n"
        )

    async def journey() -> None:
        old, new = SendGridWebhook(), SendGridWebhook()
        async with RelayProcess(tmp_path / "relay", routes(old), extra=WEBHOOKS, environment=SECRETS) as relay:
            port = await webhook_port(relay)
            assert await post(port, "/webhooks/sg", *old.signed([])) == 200
            relay.write_routes(routes(new))
            assert (await relay.reload())["event"] == "reloaded"
            assert await post(port, "/webhooks/sg", *old.signed([])) == 401
            assert await post(port, "/webhooks/sg", *new.signed([])) == 200

    asyncio.run(journey())


_SERVE = """\
import asyncio, os, pathlib, signal, sys
sys.path.insert(0, sys.argv[2])
from ops.service import Service
from upstreams import KINDS
async def run():
    asyncio.get_running_loop().call_later(1, os.kill, os.getpid(), signal.SIGTERM)
    return await Service(pathlib.Path(sys.argv[1]), KINDS).run()
code = asyncio.run(run())
print(code, sorted({"ops.webhooks", "ops.webhook_listener", "h11"} & set(sys.modules)))
"""


def test_without_the_listener_its_code_is_not_even_loaded(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(
        f"upstreams:\n  sg: {{type: sendgrid, api_key: 'env:SENDGRID_KEY', webhook_key: {SendGridWebhook().key}}}\n"
        "routes:\n  - {from: acme.nl, via: sg}\n",
        "utf-8",
    )
    config = tmp_path / "relay.yaml"
    plain = f"listen: [{{address: '127.0.0.1:0'}}]\nspool: {{url: 'sqlite:///{tmp_path}/spool.db'}}\n"
    for extra, loaded in (("", []), (WEBHOOKS, ["h11", "ops.webhook_listener", "ops.webhooks"])):
        config.write_text(plain + extra, "utf-8")
        done = subprocess.run(
            [sys.executable, "-c", _SERVE, str(config), str(ROOT)],
            env={"SENDGRID_KEY": "SG.k"}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stdout == f"0 {loaded}\n", done.stderr
