"""Journeys through `doctor`: each kind red first, then green as the DNS and the other side change. Nothing is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.authority import Authority
from tests.fakes.dns import FakeDns
from tests.fakes.entra import FakeEntra
from tests.fakes.graph import FakeGraph
from tests.fakes.mailgun import FakeMailgun
from tests.fakes.sendgrid import FakeSendGrid
from tests.fakes.smtp import FakeSmtp
from tests.journeys.doctoring import SPF_NAME, SPF_RECORD, Clinic
from tests.keys import rsa_key

OUTLOOK = "spf.protection.outlook.com"
ENTRA_SECRET = "entra-s3cret"


def tenant_records(dns: FakeDns, domain: str) -> None:
    """What a customer with Microsoft 365 publishes."""
    dns.put(OUTLOOK, "TXT", "v=spf1 ip4:40.92.0.0/15 -all")
    dns.put(domain, "TXT", f"v=spf1 include:{OUTLOOK} ip4:127.0.0.9 ~all")
    for selector in ("selector1", "selector2"):
        target = f"{selector}-{domain.replace('.', '-')}._domainkey.initech.onmicrosoft.com"
        dns.put(f"{selector}._domainkey.{domain}", "CNAME", f"{target}.")
        dns.put(target, "TXT", rsa_key("tenant").record)
    dns.put(f"_dmarc.{domain}", "TXT", "v=DMARC1; p=reject")


def test_our_own_server_turns_green_record_by_record(tmp_path: Path) -> None:
    async def journey() -> None:
        key = rsa_key("ours")
        async with FakeDns({SPF_NAME: SPF_RECORD, "_dmarc.acme.nl": "v=DMARC1; p=reject"}) as dns:
            routes = (
                "upstreams:\n  ours: {type: smtp, host: mail.callcenter.nl, port: 25}\nroutes:\n"
                "  - from: acme.nl\n    via: ours\n    dkim: {domain: acme.nl, selector: cp, key: 'env:KEY'}\n"
            )
            clinic = Clinic(tmp_path, dns.settings, routes, {"KEY": key.pem})
            seen = await clinic.doctor("acme.nl", "--no-probes")
            assert seen == {"SPF": "problem", "DKIM": "problem", "DMARC": "problem", "reverse name": "warning"}
            assert 'publish at acme.nl: TXT "v=spf1 include:spf.callcenter.nl ~all"' in clinic.said("SPF")
            strings = f'"{key.record[:255]}" "{key.record[255:]}"'
            assert f"publish at cp._domainkey.acme.nl: TXT {strings}" in clinic.said("DKIM")

            dns.put("acme.nl", "TXT", f"v=spf1 include:{SPF_NAME} ~all")
            seen = await clinic.doctor("acme.nl", "--no-probes")
            assert (seen["SPF"], seen["DKIM"], seen["DMARC"]) == ("good", "problem", "warning")
            assert "1 of 10 lookups" in clinic.said("SPF")

            dns.put("cp._domainkey.acme.nl", "TXT", rsa_key("another").record)
            assert (await clinic.doctor("acme.nl", "--no-probes"))["DKIM"] == "problem"
            assert "another key" in clinic.said("DKIM")
            dns.put("cp._domainkey.acme.nl", "TXT")
            dns.put("cp._domainkey.acme.nl", "CNAME", "cp.acme-nl.dkim.callcenter.nl.")
            assert (await clinic.doctor("acme.nl", "--no-probes"))["DKIM"] == "problem"
            assert "publish at cp.acme-nl.dkim.callcenter.nl" in clinic.said("DKIM")
            dns.put("cp.acme-nl.dkim.callcenter.nl", "TXT", key.record)
            dns.put("10.113.0.203.in-addr.arpa", "PTR", "mail.callcenter.nl.")
            dns.put("mail.callcenter.nl", "A", "203.0.113.10")
            seen = await clinic.doctor("acme.nl", "--no-probes")
            assert set(seen.values()) == {"good"}, clinic.verdicts

            dns.put(
                "acme.nl",
                "TXT",
                "v=spf1 " + "".join(f"a:h{n}.acme.nl " for n in range(10)) + f"include:{SPF_NAME} ~all",
            )
            dns.put("h0.acme.nl", "A", "192.0.2.1")
            assert (await clinic.doctor("acme.nl", "--no-probes"))["SPF"] == "problem"
            assert "11 DNS lookups" in clinic.said("SPF")

            dns.failing.add("acme.nl")
            assert (await clinic.doctor("acme.nl", "--no-probes"))["SPF"] == "warning"
            code, told = await clinic.run("doctor", "acme.nl", "--no-probes")
            assert code == 0
            assert told.startswith("acme.nl\n  warning  SPF            acme.nl: TXT of acme.nl is not known")
            assert told.endswith("3 good, 1 warning, 0 problems\n")

    asyncio.run(journey())


def test_graph_secret_then_scope_then_mailbox_then_green(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        tls = authority.server_context()
        async with (
            FakeDns() as dns,
            FakeEntra(tls, secret=ENTRA_SECRET, roles=()) as entra,
            FakeGraph(entra, set(), tls=tls) as graph,
        ):
            routes = (
                f"upstreams:\n  initech: {{type: graph, tenant: {entra.tenant}, client_id: {entra.client_id},"
                f' client_secret: "env:SECRET", authority: "{entra.authority}", base_url: "{graph.base_url}"}}\n'
                f"  box: {{type: maildir, path: {tmp_path}/box}}\n"
                'routes:\n  - {from: initech.nl, via: initech}\n  - {from: "<>", via: box}\n'
                "tests:\n  - {from: info@initech.nl, via: initech}\n"
            )
            tenant_records(dns, "initech.nl")
            clinic = Clinic(tmp_path, dns.settings, routes, {"SECRET": "wrong"})
            assert (await clinic.doctor("initech.nl"))["way out"] == "problem"
            assert "AADSTS7000215" in clinic.said("way out")

            clinic.environment["SECRET"] = ENTRA_SECRET
            assert (await clinic.doctor("initech.nl"))["way out"] == "problem"
            assert "ErrorInvalidUser" in clinic.said("way out")
            graph.mailboxes.add("info@initech.nl")
            graph.scope = set()
            assert (await clinic.doctor("initech.nl"))["way out"] == "problem"
            assert "Test-ServicePrincipalAuthorization" in clinic.said("way out")
            graph.scope = {"info@initech.nl"}
            seen = await clinic.doctor("initech.nl")
            assert set(seen.values()) == {"good"}, clinic.verdicts
            assert "nothing else that it looked at; its token says no Mail.Send" in clinic.said("way out")
            entra.roles = ("Mail.Send",)
            await clinic.doctor("initech.nl")
            assert "every mailbox of the tenant" in clinic.said("way out")
            assert (graph.sent, dict(graph.inboxes)) == ([], {})
            for given in entra.given:
                assert given.token not in str(clinic.verdicts)

    asyncio.run(journey())


def test_a_connector_is_known_as_far_as_rcpt(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        refused = "550 5.7.64 TenantAttribution; Relay Access Denied"
        async with (
            FakeDns() as dns,
            FakeSmtp(starttls=authority.server_context(), replies={"RCPT": refused}) as tenant,
        ):
            routes = (
                f"upstreams:\n  globex: {{type: connector, host: localhost, port: {tenant.port},"
                " source_address: 127.0.0.9}\nroutes:\n  - {from: globex.nl, via: globex}\n"
            )
            clinic = Clinic(tmp_path, dns.settings, routes)
            seen = await clinic.doctor()
            assert seen == {
                "SPF": "warning", "SPF of our hop": "warning", "DKIM": "warning", "DMARC": "warning",
                "way out": "problem",
            }  # fmt: skip
            assert "5.7.64" in clinic.said("way out")
            tenant.script({"CONNECT": "421 4.7.0 busy"})
            assert (await clinic.doctor())["way out"] == "warning"
            assert "look again later" in clinic.said("way out"), "whoever answers is behind no firewall"
            tenant.script({"CONNECT": []})
            assert f"include:{OUTLOOK}" in clinic.said("SPF")
            tenant.script({"RCPT": []})
            tenant_records(dns, "globex.nl")
            seen = await clinic.doctor()
            assert set(seen.values()) == {"good"}, clinic.verdicts
            assert "takes mail from any sender of globex.nl to outside" in clinic.said("way out")
            assert tenant.received == []
            assert tenant.commands[-4:] == [
                "MAIL FROM:<postmaster@globex.nl>",
                "RCPT TO:<post@callcenter.nl>",
                "RSET",
                "QUIT",
            ]

    asyncio.run(journey())


def test_sendgrid_minds_the_sender_and_its_records(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeDns() as dns, FakeSendGrid(verified=("other.nl",), tls=authority.server_context()) as sendgrid:
            routes = (
                f"upstreams:\n  sg: {{type: sendgrid, method: api, api_key: 'env:KEY', base_url: '{sendgrid.url}'}}\n"
                "routes:\n  - {from: umbrella.nl, via: sg}\n"
            )
            clinic = Clinic(tmp_path, dns.settings, routes, {"KEY": sendgrid.key})
            seen = await clinic.doctor()
            assert (seen["way out"], seen["DKIM"]) == ("problem", "warning")
            assert "verified Sender Identity" in clinic.said("way out")
            sendgrid.verified = ("umbrella.nl",)
            for selector in ("s1", "s2"):
                dns.put(f"{selector}._domainkey.umbrella.nl", "CNAME", f"{selector}.u1.wl.sendgrid.net.")
                dns.put(f"{selector}.u1.wl.sendgrid.net", "TXT", rsa_key("sendgrid").record)
            dns.put("_dmarc.umbrella.nl", "TXT", "v=DMARC1; p=reject")
            seen = await clinic.doctor()
            assert set(seen.values()) == {"good"}, clinic.verdicts
            sendgrid.scopes = ("templates.read",)
            assert (await clinic.doctor())["way out"] == "problem"
            assert sendgrid.delivered == []

    asyncio.run(journey())


def test_mailgun_minds_its_domain(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeDns() as dns, FakeMailgun(tls=authority.server_context(), domain="mg.hooli.nl") as mailgun:
            way = f"{{type: mailgun, domain: mg.hooli.nl, api_key: 'env:KEY', base_url: '{mailgun.url}'}}"
            routes = f"upstreams:\n  mg: {way}\nroutes:\n  - {{from: hooli.nl, via: mg}}\n"
            clinic = Clinic(tmp_path, dns.settings, routes, {"KEY": "wrong"})
            assert (await clinic.doctor())["way out"] == "problem"
            clinic.environment["KEY"] = mailgun.key
            mailgun.trouble = "Domain mg.hooli.nl is not allowed to send: unverified"
            seen = await clinic.doctor()
            assert (seen["way out"], seen["DKIM"], seen["DMARC"]) == ("problem", "warning", "warning")
            mailgun.trouble = ""
            dns.put("mx._domainkey.mg.hooli.nl", "TXT", rsa_key("mailgun").record)
            dns.put("_dmarc.hooli.nl", "TXT", "v=DMARC1; p=quarantine")
            seen = await clinic.doctor()
            assert (seen["way out"], seen["DKIM"], mailgun.delivered) == ("good", "good", [])

    asyncio.run(journey())


def test_a_login_that_is_refused_and_one_that_may_not_use_the_sender(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with (
            FakeDns({"acme.nl": "v=spf1 ip4:127.0.0.0/8 -all", "_dmarc.acme.nl": "v=DMARC1; p=none"}) as dns,
            FakeSmtp(starttls=authority.server_context(), users={"callpro": "s3cret"}) as server,
        ):
            dns.put("localhost", "A", "127.0.0.1")
            routes = (
                f"upstreams:\n  acme: {{type: smtp, host: localhost, port: {server.port}, username: callpro,"
                " password: 'env:WORD'}\nroutes:\n  - {from: acme.nl, via: acme}\n"
            )
            clinic = Clinic(tmp_path, dns.settings, routes, {"WORD": "wrong-s3cret"})
            assert (await clinic.doctor("info@acme.nl"))["way out"] == "problem"
            assert "535" in clinic.said("way out")
            assert "wrong-s3cret" not in str(clinic.verdicts)
            clinic.environment["WORD"] = "s3cret"
            server.script({"MAIL": "553 5.7.1 sender address not owned by user callpro"})
            assert (await clinic.doctor())["way out"] == "problem"
            server.script({"MAIL": []})
            seen = await clinic.doctor()
            assert set(seen.values()) == {"good"}, clinic.verdicts
            assert server.received == []
            logins = len(server.logins)
            del clinic.environment["WORD"]
            assert (await clinic.doctor())["way out"] == "warning"
            assert "not tried, for env:WORD cannot be read here" in clinic.said("way out")
            assert len(server.logins) == logins, "an empty password is a failed login at the customer's"

    asyncio.run(journey())


def test_smtp_oauth_logs_in_as_the_mailbox_and_no_further(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        tls, scope = authority.server_context(), "https://outlook.office365.com/.default"
        may: set[str] = set()
        async with FakeDns() as dns, FakeEntra(tls, secret=ENTRA_SECRET) as entra:
            outlook = FakeSmtp(
                starttls=tls,
                mechanisms=("XOAUTH2",),
                bearer=lambda mailbox, token: mailbox in may and entra.knows(token, scope),
            )
            async with outlook:
                routes = (
                    f"upstreams:\n  oauth: {{type: smtp_oauth, tenant: {entra.tenant}, client_id: {entra.client_id},"
                    f' client_secret: "env:SECRET", authority: "{entra.authority}", host: localhost,'
                    f" port: {outlook.port}}}\n  box: {{type: maildir, path: {tmp_path}/box}}\n"
                    'routes:\n  - {from: cyberdyne.nl, via: oauth}\n  - {from: "<>", via: box}\n'
                )
                tenant_records(dns, "cyberdyne.nl")
                clinic = Clinic(tmp_path, dns.settings, routes, {"SECRET": ENTRA_SECRET})
                assert (await clinic.doctor("cyberdyne.nl"))["way out"] == "warning"  # nobody named a mailbox
                assert "name a sender that exists" in clinic.said("way out")
                assert outlook.logins == []
                assert (await clinic.doctor("cyberdyne.nl", "--from", "info@cyberdyne.nl"))["way out"] == "problem"
                may.add("info@cyberdyne.nl")
                seen = await clinic.doctor("cyberdyne.nl", "--from", "info@cyberdyne.nl")
                assert set(seen.values()) == {"good"}, clinic.verdicts
                assert "takes mail from info@cyberdyne.nl" in clinic.said("way out")
                assert outlook.received == []

    asyncio.run(journey())


def test_what_is_amiss_around_it(tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeDns() as dns:
            old = "{type: smtp, host: smtp.office365.com, username: a@acme.nl, password: 'env:WORD'}"
            routes = f"upstreams:\n  old: {old}\nroutes:\n  - {{from: [acme.nl, shop@b.nl], via: old}}\n"
            clinic = Clinic(tmp_path, dns.settings, routes, {"WORD": "x"})
            assert (await clinic.doctor("--no-probes"))["rules"] == "warning"
            assert "off by default from the end of December 2026" in clinic.said("rules")
            assert (await clinic.doctor("b.nl", "--no-probes"))["rules"] == "warning"
            code, told = await clinic.run("doctor", "nobody.nl")
            assert (code, told) == (1, "callpro-relay: no route takes nobody.nl; `callpro-relay route` tells why\n")
            clinic.write(routes.replace("via: old", "via: gone"))
            assert await clinic.doctor() == {"rules": "problem"}
            relay = tmp_path / "relay.yaml"  # nothing more can be tried of a folder, whatever is written of us
            relay.write_text(relay.read_text().partition("call_centre:")[0])
            clinic.write(
                f"upstreams: {{box: {{type: maildir, path: {tmp_path}/box}}}}\nroutes: [{{from: a.nl, via: box}}]\n"
            )
            await clinic.doctor()
            assert clinic.said("way out").endswith("-> "), clinic.said("way out")

    asyncio.run(journey())


@pytest.mark.parametrize("stage", ["nobody listens", "no TLS"])
def test_a_server_that_cannot_be_reached(authority: Authority, tmp_path: Path, stage: str) -> None:
    async def journey() -> None:
        async with FakeDns() as dns, FakeSmtp(starttls=authority.server_context(), advertise_starttls=False) as server:
            port = server.port if stage == "no TLS" else 1
            routes = (
                f"upstreams:\n  a: {{type: smtp, host: localhost, port: {port}}}\nroutes:\n  - {{from: a.nl, via: a}}\n"
            )
            clinic = Clinic(tmp_path, dns.settings, routes)
            assert (await clinic.doctor())["way out"] == "problem"

    asyncio.run(journey())
