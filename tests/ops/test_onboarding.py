"""The customers' sheets and routes: golden files that a person reads, records with our values, nothing left open."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import date
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from config.relay_settings import CallCentre
from ops.dmarc import Policy, Record
from ops.onboard_page import page
from ops.onboarding import LANGUAGES, VIAS, Customer, Known, default_sender, dkim_records, route, sheet, spf_with
from ops.spf import SpfCost

CASES = Path(__file__).parents[1] / "cases" / "sheets"
US = CallCentre(
    name="Callcenter B.V.", contact="mail@callcenter.nl", addresses=(IPv4Address("203.0.113.10"),),
    spf="spf.callcenter.nl",
)  # fmt: skip
KEY = "v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A"
TODAY = date(2026, 11, 24)
JARGON = (
    "SPF", "DKIM", "DMARC", "DNS", "CNAME", "TXT-record", "TXT record", "STARTTLS", "TLS", "PowerShell",
    "Exchange Online",
    "Microsoft Graph", "clientgeheim", "client secret", "MX-adres", "MX address", "RBAC for Applications",
    "API-sleutel",
    "API key", "sending key", "webhook signing key", "IPv4-adres", "IPv4 address", "connector", "Entra",
)  # fmt: skip
"""Words of the trade: where one stands, the list at the end must explain it."""
DMARC = Record("acme.nl", "v=DMARC1; p=reject", "reject", "", "", "r", "r", "u", False)
ALIASED = CallCentre(
    **{name: getattr(US, name) for name in ("name", "contact", "addresses", "spf")}, dkim="dkim.callcenter.nl"
)
KNOWN = {
    "": Known(),
    "-amid-records": Known(SpfCost("v=spf1 mx -all"), Policy(DMARC, "p", "reject", "acme.nl")),
    "-all-there": Known(SpfCost("v=spf1 include:spf.callcenter.nl -all"), Policy(DMARC, "p", "reject", "acme.nl")),
}


def customer(via: str, us: CallCentre = US) -> Customer:
    return Customer("acme.nl", via, us, default_sender("acme.nl", via, us), "Acme", key=KEY, upstream="our-server")


def golden() -> dict[str, str]:
    """Every sheet whose text is kept, by the name of its file."""
    made = {}
    for language in LANGUAGES:
        for via in VIAS:
            made[f"{via}-{language}"] = sheet(customer(via), language, KNOWN[""], TODAY)
        for name in ("-amid-records", "-all-there"):
            us = ALIASED if name == "-all-there" else US
            made[f"own-server{name}-{language}"] = sheet(customer("own-server", us), language, KNOWN[name], TODAY)
    return made


@pytest.mark.parametrize("name", sorted(golden()))
def test_a_sheet_is_what_its_golden_file_says(name: str) -> None:
    """To renew a golden file after a wanted change, run this test with RENEW_GOLDEN=1 and read the difference."""
    file = CASES / f"{name}.md"
    text = golden()[name]
    if os.environ.get("RENEW_GOLDEN"):
        file.write_text(text, "utf-8")
    assert text == file.read_text("utf-8")


@pytest.mark.parametrize("name", sorted(golden()))
def test_a_sheet_is_complete(name: str) -> None:
    """No hole, no machine word, our facts in it, steps counted from one, and each short word of its steps explained."""
    text = golden()[name]
    assert not re.search(r"\{[{%]|None|Undefined|\n\n\n", text)
    assert US.name in text
    assert US.contact in text
    steps = [int(number) for number in re.findall(r"^## (?:Stap|Step) (\d+):", text, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1))
    explained = set(re.findall(r"^- \*\*(.+?)\*\*:", text, re.MULTILINE))
    if not name.startswith("mailbox"):
        told = re.sub(r"\([^)]*\)", "", text) if name.endswith("nl") else text  # what English screens say
        assert {word for word in JARGON if re.search(rf"\b{word}\b", told)} <= explained


@pytest.mark.parametrize("via", ["smtp", "sendgrid"])
def test_addresses_that_nobody_gave_are_not_asked_to_be_let_in(via: str) -> None:
    nameless = CallCentre(name=US.name, contact=US.contact)
    for language, words in (("nl", "adressen"), ("en", "addresses")):
        told = sheet(customer(via, nameless), language, Known(), TODAY).partition("\n## ")[2]
        assert words in sheet(customer(via), language, Known(), TODAY).partition("\n## ")[2]
        assert words not in told


def test_both_languages_say_the_same_records() -> None:
    def code(text: str) -> set[str]:
        return {one for one in re.findall(r"`([^`\n]+)`", text) if "." in one and " " not in one}

    made = golden()
    for via in VIAS:
        assert code(made[f"{via}-nl"]) == code(made[f"{via}-en"]), via


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ("", "v=spf1 include:x.nl ~all"),
        ("v=spf1 mx -all", "v=spf1 mx include:x.nl -all"),
        ("v=spf1 include:X.nl ~all", "v=spf1 include:X.nl ~all"),
        ("v=spf1 mx", "v=spf1 mx include:x.nl"),
        ("v=spf1 mx redirect=y.nl", "v=spf1 mx include:x.nl redirect=y.nl"),
        ("v=spf1 +include:x.nl ?all", "v=spf1 +include:x.nl ?all"),
    ],
)
def test_the_record_with_ours_in_it(record: str, wanted: str) -> None:
    assert spf_with(record, ("include:x.nl",)) == wanted


def test_an_alias_spares_the_customer_work() -> None:
    (record,) = dkim_records(customer("own-server", ALIASED))
    assert (record.name, record.kind, record.value) == (
        "callpro._domainkey.acme.nl", "CNAME", "callpro.acme-nl.dkim.callcenter.nl.",
    )  # fmt: skip


def test_the_page_holds_all_of_it_and_fetches_nothing() -> None:
    told = page("# Titel <script>\n\n<script>alert(1)</script>\n\n| a | b |\n|---|---|\n| `x` | |\n", "nl")
    assert '<html lang="nl">' in told
    assert "<title>Titel &lt;script&gt;</title>" in told
    assert "<td><code>x</code></td>" in told
    assert "<script" not in told
    assert not re.search(r"(src|href)=|url\(|@import", told)


def test_a_name_of_odd_letters_is_shown_as_it_is() -> None:
    odd = replace(customer("mailbox"), display=r"Acme | *Service* [NL] <x> a\_b")
    for language in LANGUAGES:
        told = page(sheet(odd, language, Known(), TODAY), language)
        assert r"<td>Acme | *Service* [NL] &lt;x&gt; a\_b</td>" in told


def test_a_name_with_quotes_stays_a_name() -> None:
    odd = Customer("acme.nl", "mailbox", US, "acme@callcenter.nl", 'Acme "de beste" \\', upstream="our-server")
    assert 'name: "Acme \\"de beste\\" \\\\"' in route(odd)
