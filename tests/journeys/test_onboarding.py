"""Journeys of a new customer: the sheet is made, the customer does what it says, and `doctor` turns green."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.fakes.authority import Authority
from tests.fakes.dns import FakeDns
from tests.fakes.entra import FakeEntra
from tests.fakes.graph import FakeGraph
from tests.journeys.doctoring import SPF_NAME, SPF_RECORD, Clinic
from tests.journeys.test_doctor import tenant_records

OURS = """\
upstreams:
  our-server: {type: smtp, host: mail.callcenter.nl, port: 25}
routes:
  - {from: "<>", via: our-server}
"""


def install(clinic: Clinic, out: Path, domain: str) -> None:
    """What `onboard` says to do next: the route and the key into their folders."""
    for folder in ("routes.d", "secrets"):
        (clinic.folder / folder).mkdir(exist_ok=True)
    (clinic.folder / "routes.d" / f"{domain}.yaml").write_text((out / f"{domain}.yaml").read_text())
    key = out / f"{domain}-dkim"
    if key.exists():
        target = clinic.folder / "secrets" / key.name
        target.write_text(key.read_text())
        target.chmod(0o600)


def records_in(sheet: str) -> list[tuple[str, str, str]]:
    """Name, type and value of every record that a sheet asks for."""
    return re.findall(r"^\| `([^`]+)` \| (TXT|CNAME) \| `([^`]+)` \|$", sheet, re.MULTILINE)


@pytest.mark.parametrize("language", ["nl", "en"])
def test_own_server_red_first_then_green_by_the_sheet_alone(tmp_path: Path, language: str) -> None:
    async def journey() -> None:
        async with FakeDns({SPF_NAME: SPF_RECORD, "acme.nl": "v=spf1 ip4:192.0.2.1 -all"}) as dns:
            dns.put("10.113.0.203.in-addr.arpa", "PTR", "mail.callcenter.nl.")
            dns.put("mail.callcenter.nl", "A", "203.0.113.10")
            clinic = Clinic(tmp_path / "etc", dns.settings, OURS)
            relay = clinic.folder / "relay.yaml"
            relay.write_text(relay.read_text().replace("spf: spf.", "dkim: dkim.callcenter.nl, spf: spf."))
            out = tmp_path / "acme"
            code, told = await clinic.run("onboard", "acme.nl", "--via", "own-server", "--out", str(out))
            assert code == 0, told
            assert (out / "acme.nl-dkim").stat().st_mode & 0o777 == 0o600
            assert "PRIVATE KEY" not in told + "".join(file.read_text() for file in out.glob("acme.nl-*.*"))
            install(clinic, out, "acme.nl")
            code, checked = await clinic.run("check")
            assert code == 0, checked
            seen = await clinic.doctor("acme.nl", "--no-probes")
            assert (seen["SPF"], seen["DKIM"], seen["DMARC"]) == ("problem", "problem", "warning")

            sheet = (out / f"acme.nl-{language}.md").read_text()
            asked = records_in(sheet)
            assert [kind for _, kind, _ in asked] == ["TXT", "CNAME", "TXT"]
            assert asked[0][2] == "v=spf1 ip4:192.0.2.1 include:spf.callcenter.nl -all"
            ours = re.search(r"publish in our own DNS: (\S+)\. TXT \"(.+)\"", told)
            assert ours
            assert all(len(part) <= 255 for part in ours[2].split('" "')), "a zone file takes no longer string"
            dns.put(ours[1], "TXT", ours[2].replace('" "', ""))
            for number, (check, record) in enumerate(zip(("SPF", "DKIM", "DMARC"), asked, strict=True)):
                dns.put(*record)
                seen = await clinic.doctor("acme.nl", "--no-probes")
                assert seen[check] == "good", clinic.said(check)
                assert ("problem" in seen.values()) == (number == 0)
            assert set(seen.values()) == {"good"}, clinic.verdicts

            again = tmp_path / "again"  # the sheet once more: what is done is marked as done, and the key is the same
            code, told = await clinic.run("onboard", "acme.nl", "--via", "own-server", "--out", str(again))
            assert (code, (again / "acme.nl-dkim").exists()) == (0, False)
            assert f"kept as it was in {clinic.folder}/secrets" in told
            assert ours[2] in told
            assert (again / f"acme.nl-{language}.md").read_text().count("☑") == 2

    asyncio.run(journey())


def test_graph_names_what_is_missing_until_the_customer_answers(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        tls = authority.server_context()
        async with (
            FakeDns() as dns,
            FakeEntra(tls, secret="entra-s3cret", roles=()) as entra,
            FakeGraph(entra, {"info@initech.nl"}, tls=tls) as graph,
        ):
            graph.scope = set()
            clinic = Clinic(tmp_path / "etc", dns.settings, OURS)
            out = tmp_path / "initech"
            code, told = await clinic.run("onboard", "initech.nl", "--via", "graph", "--out", str(out))
            assert code == 0, told
            install(clinic, out, "initech.nl")
            code, told = await clinic.run("check")
            assert code == 1
            for key in ("tenant", "client_id"):
                assert f"initech.nl.yaml:{4 + (key == 'tenant') + 2 * (key == 'client_id')}  " in told, told
                assert f"upstreams.initech.nl-graph.{key}: is empty; write a value" in told
            assert await clinic.doctor("initech.nl") == {"rules": "problem"}

            stub = clinic.folder / "routes.d" / "initech.nl.yaml"
            text = stub.read_text().replace('tenant: ""', f"tenant: {entra.tenant}")
            text = text.replace('client_id: ""', f"client_id: {entra.client_id}")
            text = text.replace(
                "    mailbox:", f"    authority: {entra.authority}\n    base_url: {graph.base_url}\n    mailbox:"
            )
            stub.write_text(text)
            assert await clinic.doctor("initech.nl") == {"rules": "problem"}
            assert "initech.nl-secret: No such file" in clinic.said("rules")
            secret = clinic.folder / "secrets" / "initech.nl-secret"
            secret.write_text("entra-s3cret\n")
            secret.chmod(0o600)
            seen = await clinic.doctor("initech.nl")
            assert (seen["way out"], seen["SPF"], seen["DKIM"], seen["DMARC"]) == (
                "problem", "warning", "warning", "warning",
            )  # fmt: skip
            graph.scope.add("info@initech.nl")
            assert (await clinic.doctor("initech.nl"))["way out"] == "good"
            tenant_records(dns, "initech.nl")
            assert set((await clinic.doctor("initech.nl")).values()) == {"good"}, clinic.verdicts
            assert graph.sent == []

    asyncio.run(journey())


@pytest.mark.parametrize("via", ["connector", "smtp", "smtp_oauth", "sendgrid", "mailgun", "mailbox"])
def test_every_way_has_sheets_and_a_route(tmp_path: Path, via: str) -> None:
    async def journey() -> None:
        async with FakeDns() as dns:
            clinic = Clinic(tmp_path / "etc", dns.settings, OURS)
            out = tmp_path / "out"
            code, told = await clinic.run("onboard", "hooli.nl", "--via", via, "--out", str(out))
            assert code == 0, told
            install(clinic, out, "hooli.nl")
            code, told = await clinic.run("check")
            asks = {"connector": "host", "smtp": "username", "smtp_oauth": "tenant", "mailgun": "domain"}
            if via in asks:
                assert (code, f".{asks[via]}: is empty" in told) == (1, True), told
            else:
                assert code == 0 or "cannot read" in told, told
            before = (out / "hooli.nl.yaml").read_text() + "# an edit\n"
            (out / "hooli.nl.yaml").write_text(before)
            code, told = await clinic.run("onboard", "hooli.nl", "--via", via, "--out", str(out))
            assert (code, (out / "hooli.nl.yaml").read_text()) == (0, before)
            assert "kept as it was" in told
            code, told = await clinic.run("onboard", "hooli.nl", "--via", via, "--out", str(out), "--json")
            made = json.loads(told)
            told = "\n".join(made["next"])
            assert "callpro-relay check && callpro-relay doctor hooli.nl\nsystemctl re" in told
            named = re.findall(r'"systemd:(hooli\.nl-\w+)"', before)
            assert re.findall(r"cat > \S+/secrets/(\S+)\)", told) == named
            assert ("restart" in made["next"][-1]) == bool(named)
            for name in named:  # what is there is never written over, and wants no restart
                (clinic.folder / "secrets" / name).write_text("x")
            code, told = await clinic.run("onboard", "hooli.nl", "--via", via, "--out", str(out))
            assert (code, "cat >" in told, told.endswith("systemctl reload callpro-relay\n")) == (0, False, True)
            assert ["hooli.nl-nl.html", "the sheet"] in made["files"]

    asyncio.run(journey())


@pytest.mark.parametrize(
    ("records", "in_dutch", "in_english"),
    [
        (["v=spf1 include:spf.callcenter.nl -all", "v=spf1 mx -all"], "**meer dan één**", "**more than one**"),
        (
            [f"v=spf1 {' '.join(f'a:h{n}.nl' for n in range(10))} -all"],
            "elkaar 11 keer naar",
            "records 11 times in all",
        ),
        (
            ["v=spf1 include:spf.callcenter.nl ip4:1.2.3 -all"],
            "ontvangers kunnen dit record niet gebruiken",
            "ip4:1.2.3",
        ),
    ],
)
def test_an_spf_record_that_fails_is_never_called_right(
    tmp_path: Path, records: list[str], in_dutch: str, in_english: str
) -> None:
    async def journey() -> None:
        async with FakeDns({SPF_NAME: SPF_RECORD}) as dns:
            dns.put("acme.nl", "TXT", *records)
            for number in range(10):
                dns.put(f"h{number}.nl", "A", "192.0.2.1")
            clinic = Clinic(tmp_path / "etc", dns.settings, OURS)
            code, told = await clinic.run("onboard", "acme.nl", "--via", "own-server", "--out", str(tmp_path / "out"))
            assert (code, "acme.nl with our SPF: " in told) == (0, True), told
            for language, words in (("nl", in_dutch), ("en", in_english)):
                sheet = (tmp_path / "out" / f"acme.nl-{language}.md").read_text()
                assert words in sheet, sheet
                assert "☑" not in sheet

    asyncio.run(journey())


def test_our_own_spf_record(tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeDns() as dns:
            clinic = Clinic(tmp_path, dns.settings, OURS)
            code, told = await clinic.run("onboard", "--spf")
            assert (code, told.splitlines()[0]) == (1, 'spf.callcenter.nl. TXT "v=spf1 ip4:203.0.113.10 -all"')
            dns.put(SPF_NAME, "TXT", "v=spf1 ip4:203.0.113.11 a:x.nl -all")
            dns.put("x.nl", "A", "192.0.2.1")
            code, told = await clinic.run("onboard", "--spf")
            assert code == 1
            assert "does not name 203.0.113.10" in told
            assert "also lets 203.0.113.11/32 send" in told
            assert "a:x.nl costs every customer one of their ten lookups" in told
            dns.put(SPF_NAME, "TXT", SPF_RECORD)
            assert (await clinic.run("onboard", "--spf"))[0] == 0
            code, told = await clinic.run("onboard", "--spf", "--json")
            assert json.loads(told)["findings"] == [
                {"grade": "good", "what": "the DNS says the same; it costs a customer one lookup"}
            ]
            dns.silent.add(SPF_NAME)
            code, told = await clinic.run("onboard", "--spf")
            assert (code, "warning  not known" in told) == (0, True)

    asyncio.run(journey())


def test_bad_input_gets_a_clear_word(tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeDns() as dns:
            clinic = Clinic(tmp_path, dns.settings, OURS)
            for words, said in (
                (["acme.nl"], "name a domain and a way"),
                (["acme", "--via", "graph"], "is no domain of a customer"),
                (["a b.nl", "--via", "graph"], "is not a domain"),
                (["../etc.nl", "--via", "graph"], "is not a domain"),
                (["acme.nl", "--via", "mailbox", "--sender", "x@acme.nl"], "is the customer's own"),
                (["acme.nl", "--via", "graph", "--sender", "nobody"], "is not an address"),
            ):
                code, told = await clinic.run("onboard", *words)
                assert code in (1, 2), told
                assert said in told, told
                assert "Traceback" not in told
            out = tmp_path / "out"
            out.mkdir()
            (out / "acme.nl-dkim").write_text("no key")
            code, told = await clinic.run("onboard", "acme.nl", "--via", "own-server", "--out", str(out))
            assert (code, "holds no key that can be read" in told) == (1, True)
            assert (out / "acme.nl-dkim").read_text() == "no key"
            clinic.write(OURS.replace("our-server", "x").replace("mail.callcenter.nl", "localhost"))
            code, told = await clinic.run("onboard", "acme.nl", "--via", "own-server")
            assert (code, "no server of our own" in told) == (1, True)
            (clinic.folder / "relay.yaml").write_text("{}\n")
            code, told = await clinic.run("onboard", "acme.nl", "--via", "graph")
            assert (code, "call_centre:" in told) == (1, True)

    asyncio.run(journey())
