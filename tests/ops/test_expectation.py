"""The DMARC result that `route` expects, on a table of cases with a DNS server on loopback (RFC 9989)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from config.loading import load_rules
from ops.dmarc import organisation_of, policy_of
from ops.explain import Explanation, expected, explain
from tests.fakes.dns import FakeDns
from tests.fakes.relay_process import ROOT
from tests.keys import rsa_key
from tests.ops.dns_kit import asked
from upstreams import KINDS

KEY = rsa_key("ours")
SPF = "v=spf1 include:spf.callcenter.nl -all"
OWN = "{type: smtp, host: mail.callcenter.nl}"
ENTRA = "tenant: acme.nl, client_id: 00001111-aaaa-2222-bbbb-3333cccc4444, client_secret: 'env:KEY'"
GRAPH = f"{{type: graph, {ENTRA}}}"
SENDER = ", sender: {address: acme@callcenter.nl, name: Acme}"


def dkim(domain: str) -> str:
    return f", dkim: {{domain: {domain}, selector: cp, key: 'env:KEY'}}"


@dataclass(frozen=True)
class Case:
    """Records, rule and sender; `result`, and which half is good."""

    result: str
    spf: str
    dkim: str
    records: dict[str, str]
    more: str = ""
    upstream: str = OWN
    sender: str = "info@acme.nl"
    told: tuple[str, ...] = ()
    twice: tuple[str, ...] = field(default=())


OURS = KEY.record
P = {"_dmarc.acme.nl": "v=DMARC1; p=reject"}
OK = {"acme.nl": SPF, "cp._domainkey.acme.nl": OURS}
SHOP = {"shop.acme.nl": SPF}
CASES = {
    "spf alone": Case("pass", "yes", "no", {**P, "acme.nl": SPF}, told=("passes by SPF alone",)),
    "dkim alone": Case("pass", "no", "yes", {**P, "acme.nl": "v=spf1 -all", "cp._domainkey.acme.nl": OURS},
                       dkim("acme.nl"), told=("passes by DKIM alone", "gets fail")),
    "both": Case("pass", "yes", "yes", {**P, **OK}, dkim("acme.nl"), told=("passes by SPF and DKIM",)),
    "neither": Case("fail", "no", "no", {**P, "acme.nl": "v=spf1 -all"}, told=("no such mail arrives",)),
    "no spf record at all": Case("fail", "no", "no", P, told=("acme.nl has no SPF record",)),
    "another key": Case("fail", "no", "no", {**P, "cp._domainkey.acme.nl": rsa_key("other").record}, dkim("acme.nl"),
                        told=("another key",)),
    "a revoked key": Case("fail", "no", "no", {**P, "cp._domainkey.acme.nl": "v=DKIM1; p="}, dkim("acme.nl"),
                          told=("revoked",)),
    "rewritten, our own records": Case("pass", "yes", "yes", {
        "_dmarc.callcenter.nl": "v=DMARC1; p=none", "callcenter.nl": SPF, "cp._domainkey.callcenter.nl": OURS,
    }, SENDER + dkim("callcenter.nl")),
    "rewritten, signed as the customer": Case("fail", "no", "no", {
        "_dmarc.callcenter.nl": "v=DMARC1; p=none", "_dmarc.acme.nl": "v=DMARC1; p=none",
        "callcenter.nl": "v=spf1 -all", "cp._domainkey.acme.nl": OURS,
    }, SENDER + dkim("acme.nl"), told=("does not align", "it arrives all the same")),
    "relaxed: signed by the parent": Case("pass", "no", "yes", {**P, **OK}, dkim("acme.nl"), sender="a@shop.acme.nl"),
    "strict adkim: signed by the parent": Case("fail", "no", "no", {
        "_dmarc.acme.nl": "v=DMARC1; p=reject; adkim=s", **OK,
    }, dkim("acme.nl"), sender="a@shop.acme.nl", told=("adkim=s",)),
    "strict adkim, same name": Case("pass", "yes", "yes", {"_dmarc.acme.nl": "v=DMARC1; p=reject; adkim=s", **OK},
                                    dkim("acme.nl")),
    "strict aspf, mailbox below": Case("fail", "no", "no", {"_dmarc.acme.nl": "v=DMARC1; p=reject; aspf=s",
                                                            "mail.acme.nl": SPF},
                                       upstream=GRAPH.replace("}", ", mailbox: x@mail.acme.nl}"), told=("aspf=s",)),
    "relaxed aspf, mailbox below": Case("pass", "yes", "no", {
        **P, "mail.acme.nl": "v=spf1 include:spf.protection.outlook.com -all",
        "spf.protection.outlook.com": "v=spf1 ip4:40.92.0.0/15 -all",
    }, upstream=GRAPH.replace("}", ", mailbox: x@mail.acme.nl}")),
    "sp counts below": Case("fail", "no", "no", {"_dmarc.acme.nl": "v=DMARC1; p=reject; sp=none; np=quarantine",
                                                 "shop.acme.nl": "v=spf1 -all"}, sender="a@shop.acme.nl",
                            told=("sp=none",)),
    "np counts for a name that is not there": Case("fail", "no", "no", {
        "_dmarc.acme.nl": "v=DMARC1; p=reject; sp=none; np=quarantine"}, sender="a@gone.acme.nl",
        told=("np=quarantine", "it goes to spam")),
    "p counts below without sp": Case("pass", "yes", "no", {**P, **SHOP}, sender="a@shop.acme.nl", told=("p=reject",)),
    "a record of its own below": Case("pass", "yes", "no", {**P, **SHOP, "_dmarc.shop.acme.nl": "v=DMARC1; p=none"},
                                      sender="a@shop.acme.nl", told=("_dmarc.shop.acme.nl says p=none",)),
    "psd=n cuts the parent off": Case("fail", "no", "no", {
        **P, **OK, "shop.acme.nl": "v=spf1 -all", "_dmarc.shop.acme.nl": "v=DMARC1; p=reject; psd=n",
    }, dkim("acme.nl"), sender="a@shop.acme.nl"),
    "psd=y above: each below is an organisation": Case("fail", "no", "no", {
        "_dmarc.gov.nl": "v=DMARC1; p=reject; psd=y", "cp._domainkey.b.gov.nl": OURS, "a.gov.nl": "v=spf1 -all",
    }, dkim("b.gov.nl"), sender="x@a.gov.nl"),
    "no record anywhere": Case("no policy", "yes", "no", {"acme.nl": SPF}, told=("no DMARC record to pass", "SPF")),
    "two records are none": Case("no policy", "yes", "no", {**P, "acme.nl": SPF}, twice=("_dmarc.acme.nl",),
                                 told=("2 DMARC records",)),
    "two spf records": Case("fail", "no", "no", {**P, "acme.nl": SPF}, twice=("acme.nl",), told=("2 SPF records",)),
    "more than ten lookups": Case("fail", "no", "no", {
        **P, "acme.nl": "v=spf1 " + " ".join(f"include:i{n}.nl" for n in range(10)) + " include:spf.callcenter.nl -all",
        **{f"i{n}.nl": "v=spf1 ip4:192.0.2.1" for n in range(10)},
    }, told=("more than 10 DNS lookups",)),
    "the tenant's records are there": Case("pass", "yes", "yes", {
        **P, "acme.nl": "v=spf1 include:spf.protection.outlook.com -all",
        "spf.protection.outlook.com": "v=spf1 ip4:40.92.0.0/15 -all",
        "selector1._domainkey.acme.nl": OURS, "selector2._domainkey.acme.nl": OURS,
    }, upstream=GRAPH),
    "sendgrid without its records": Case("not known", "not known", "no", P, told=("s1._domainkey.acme.nl",),
                                         upstream="{type: sendgrid, api_key: 'env:WORD'}"),
    "sendgrid, strict aspf": Case("fail", "no", "no", {"_dmarc.acme.nl": "v=DMARC1; p=reject; aspf=s"},
                                  upstream="{type: sendgrid, api_key: 'env:WORD'}"),
    "campaign monitor": Case("pass", "no", "yes", {**P, "cm._domainkey.acme.nl": OURS}, told=("passes by DKIM alone",),
                             upstream="{type: campaign_monitor, api_key: 'env:WORD'}"),
    "campaign monitor without its record": Case("fail", "no", "no", P, told=("cm._domainkey.acme.nl",),
                                                upstream="{type: campaign_monitor, api_key: 'env:WORD'}"),
    "mailgun, strict adkim": Case("fail", "no", "no", {"_dmarc.acme.nl": "v=DMARC1; p=reject; adkim=s; aspf=s"},
                                  upstream="{type: mailgun, domain: mg.acme.nl, api_key: 'env:WORD'}"),
    "the null sender": Case("pass", "no", "yes", {**P, **OK}, dkim("acme.nl"), sender="<>"),
}  # fmt: skip


def written(folder: Path, case: Case, dns: str) -> bytes | None:
    """The case as files; the mail that goes with the null sender."""
    (folder / "relay.yaml").write_text(
        "call_centre: {name: C, contact: post@callcenter.nl, addresses: 203.0.113.10, spf: spf.callcenter.nl}\n" + dns
    )
    upstreams = f"upstreams:\n  out: {case.upstream}\n"
    (folder / "routes.yaml").write_text(f"{upstreams}routes:\n  - {{from: ['{case.sender}'], via: out{case.more}}}\n")
    return b"From: info@acme.nl\r\n\r\nx\r\n" if case.sender == "<>" else None


def route(folder: Path, case: Case, dns: str, *options: str) -> tuple[int, str]:
    """The command itself."""
    written(folder, case, dns)
    done = subprocess.run(
        [sys.executable, ROOT / "relay.py", "route", case.sender, "--config", folder / "relay.yaml", *options],
        capture_output=True, text=True, env={"KEY": KEY.pem, "WORD": "SG.a.b"}, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", CASES)
def test_the_expected_result(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    monkeypatch.setenv("KEY", KEY.pem)
    monkeypatch.setenv("WORD", "SG.a.b")
    content = written(tmp_path, case, "")
    rules = load_rules(tmp_path, {kind: one.settings for kind, one in KINDS.items()})

    async def run() -> Explanation:
        records = {"spf.callcenter.nl": "v=spf1 ip4:203.0.113.10 -all", **case.records}
        async with FakeDns(records) as dns:
            for twice in case.twice:
                dns.put(twice, "TXT", records[twice], records[twice] + " ")
            explained = explain(rules, case.sender, (), content)
            return await expected(explained, rules, asked(dns), (IPv4Address("203.0.113.10"),))

    (found,) = asyncio.run(run()).expected
    assert (found.result, found.spf, found.dkim) == (case.result, case.spf, case.dkim), found.told
    for words in case.told:
        assert words in " / ".join(found.told)


def test_in_words_and_without_the_dns(tmp_path: Path) -> None:
    async def run() -> tuple[str, str]:
        async with FakeDns({**P, **OK, "spf.callcenter.nl": "v=spf1 ip4:203.0.113.10 -all"}) as dns:
            case = CASES["both"]
            _, told = await asyncio.to_thread(route, tmp_path, case, dns.settings)
            _, said = await asyncio.to_thread(route, tmp_path, case, dns.settings, "--json")
            assert [one["result"] for one in json.loads(said)["expected"]] == ["pass"]
            dns.asked.clear()
            _, offline = await asyncio.to_thread(route, tmp_path, case, dns.settings, "--no-dns")
            assert dns.asked == []
            return told, offline

    told, offline = asyncio.run(run())
    assert "  DMARC      by out: passes by SPF and DKIM\n" in told
    assert "our 203.0.113.10 passes: include:spf.callcenter.nl in the SPF record of acme.nl" in told
    assert "DMARC: _dmarc.acme.nl says p=reject (adkim=r, aspf=r)" in told
    assert "by out: can pass by SPF and by DKIM" in offline


def test_a_dead_dns_leaves_the_rules(tmp_path: Path) -> None:
    async def run() -> str:
        async with FakeDns() as dns:
            dns.silent.update(("_dmarc.acme.nl",))
            case = CASES["both"]
            code, told = await asyncio.to_thread(route, tmp_path, case, dns.settings.replace("2s", "0.3"))
            assert code == 0
            return told

    told = asyncio.run(run())
    assert "not known: TXT of _dmarc.acme.nl is not known" in told
    assert "can pass by SPF and by DKIM" in told


async def organisation(records: dict[str, str], name: str) -> tuple[str, list[str]]:
    async with FakeDns(records) as dns:
        return await organisation_of(asked(dns), name), dns.asked


def test_a_long_name_costs_eight_questions() -> None:
    name = ".".join(f"l{number}" for number in range(12)) + ".acme.nl"
    found, questions = asyncio.run(organisation({"_dmarc.acme.nl": "v=DMARC1; p=none"}, name))
    assert found == "acme.nl"
    assert len(questions) == 8
    assert questions[1] == "_dmarc.l7.l8.l9.l10.l11.acme.nl"


@pytest.mark.parametrize(
    ("records", "name", "expected"),
    [
        ({"_dmarc.acme.nl": "v=DMARC1; p=none"}, "a.b.acme.nl", "acme.nl"),
        ({"_dmarc.nl": "v=DMARC1; p=none; psd=y"}, "a.b.acme.nl", "acme.nl"),
        ({"_dmarc.b.acme.nl": "v=DMARC1; p=none; psd=n", "_dmarc.acme.nl": "v=DMARC1; p=none"}, "a.b.acme.nl",
         "b.acme.nl"),
        ({}, "a.b.acme.nl", "a.b.acme.nl"),
    ],
)  # fmt: skip
def test_the_organisation(records: dict[str, str], name: str, expected: str) -> None:
    assert asyncio.run(organisation(records, name))[0] == expected


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("v=DMARC1; p=bogus", None),
        ("v=DMARC1; p=bogus; rua=mailto:d@acme.nl", "none"),
        ("v=DMARC1", None),
        ("v=DMARC1;p=REJECT;pct=50;rf=afrf", "reject"),
        ("p=reject; v=DMARC1", None),
        ("v=DMARC2; p=reject", None),
    ],
)
def test_which_records_count(text: str, policy: str | None) -> None:
    async def run() -> str | None:
        async with FakeDns({"_dmarc.acme.nl": text}) as dns:
            found = await policy_of(asked(dns), "acme.nl")
            return found.record.p if found.record else None

    assert asyncio.run(run()) == policy
