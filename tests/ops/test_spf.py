"""SPF by RFC 7208, against a DNS server on loopback: results, limits, macros, and what a record costs."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from config.fields import Duration
from config.relay_settings import Dns
from ops.resolver import LiveDns
from ops.spf import Spf, SpfCost, SpfVerdict, check_host, cost_of
from tests.fakes.dns import FakeDns

Zone = dict[str, dict[str, list[str]]]
OURS = "203.0.113.10"


def txt(text: str) -> dict[str, list[str]]:
    return {"TXT": [text]}


async def served(zone: Zone, asking, silent=(), failing=()):
    async with FakeDns() as server:
        for name, kinds in zone.items():
            for kind, values in kinds.items():
                server.put(name, kind, *values)
        server.silent.update(silent)
        server.failing.update(failing)
        return await asking(LiveDns(Dns(servers=(f"127.0.0.1:{server.port}",), timeout=Duration(0.6))))


def judge(zone: Zone, address: str = OURS, sender: str = "jan@acme.nl", **trouble) -> SpfVerdict:
    return asyncio.run(
        served(zone, lambda dns: check_host(dns, ip_address(address), sender.rpartition("@")[2], sender), **trouble)
    )


def cost(zone: Zone, **trouble) -> SpfCost:
    return asyncio.run(served(zone, lambda dns: cost_of(dns, "acme.nl"), **trouble))


INCLUDED: Zone = {"spf.callcenter.nl": txt(f"v=spf1 ip4:{OURS} -all")}


@pytest.mark.parametrize(
    ("record", "more", "expected"),
    [
        ("v=spf1 ip4:203.0.113.0/24 -all", {}, Spf.PASS),
        ("v=spf1 ip4:203.0.113.11 -all", {}, Spf.FAIL),
        ("v=spf1 ~all", {}, Spf.SOFTFAIL),
        ("v=spf1 ?all", {}, Spf.NEUTRAL),
        ("v=spf1", {}, Spf.NEUTRAL),
        ("V=SPF1 IP4:203.0.113.10 -ALL", {}, Spf.PASS),
        ("v=spf10 +all", {}, Spf.NONE),
        ("v=spf1 include:spf.callcenter.nl -all", INCLUDED, Spf.PASS),
        # the -all of what is included does not end the record
        ("v=spf1 include:other.nl ip4:203.0.113.10 -all", {"other.nl": txt("v=spf1 -all")}, Spf.PASS),
        ("v=spf1 include:missing.nl ip4:203.0.113.10", {}, Spf.PERMERROR),
        ("v=spf1 a -all", {"acme.nl": {"A": [OURS]}}, Spf.PASS),
        ("v=spf1 a:mail.acme.nl/24 -all", {"mail.acme.nl": {"A": ["203.0.113.77"]}}, Spf.PASS),
        ("v=spf1 mx -all", {"acme.nl": {"MX": ["10 mx.acme.nl."]}, "mx.acme.nl": {"A": [OURS]}}, Spf.PASS),
        ("v=spf1 mx -all", {"acme.nl": {"MX": [f"1 m{n}.acme.nl." for n in range(11)]}}, Spf.PERMERROR),
        ("v=spf1 exists:%{i}.list.acme.nl -all", {f"{OURS}.list.acme.nl": {"A": ["127.0.0.2"]}}, Spf.PASS),
        ("v=spf1 exists:%{ir}.%{l1r-}.acme.nl -all", {"10.113.0.203.jan.acme.nl": {"A": ["127.0.0.2"]}}, Spf.PASS),
        ("v=spf1 redirect=spf.callcenter.nl", INCLUDED, Spf.PASS),
        ("v=spf1 redirect=missing.nl", {}, Spf.PERMERROR),
        ("v=spf1 -all redirect=spf.callcenter.nl", INCLUDED, Spf.FAIL),
        (
            "v=spf1 ptr:acme.nl -all",
            {"10.113.0.203.in-addr.arpa": {"PTR": ["mx.acme.nl."]}, "mx.acme.nl": {"A": [OURS]}},
            Spf.PASS,
        ),
        ("v=spf1 ipv4:203.0.113.10 -all", {}, Spf.PERMERROR),
        ("v=spf1 ip4:203.0.113.1000 -all", {}, Spf.PERMERROR),
        ("v=spf1 include: -all", {}, Spf.PERMERROR),
        ("v=spf1 ip4:203.0.113.10 include:%{z}.nl", {}, Spf.PERMERROR),
        ("v=spf1 unknown=modifier ip4:203.0.113.10", {}, Spf.PASS),
    ],
)
def test_what_our_address_gets(record: str, more: Zone, expected: Spf) -> None:
    zone = {name: dict(kinds) for name, kinds in more.items()}
    zone.setdefault("acme.nl", {})["TXT"] = ["unrelated=1", record]
    verdict = judge(zone)
    assert verdict.result is expected, verdict


def test_ipv6_and_its_prefix() -> None:
    zone: Zone = {"acme.nl": {"TXT": ["v=spf1 a//64 -all"], "AAAA": ["2001:db8::1"]}}
    assert judge(zone, "2001:db8::ffff").result is Spf.PASS
    assert judge(zone, "2001:db9::1").result is Spf.FAIL


def test_two_records_are_an_error_and_say_so() -> None:
    verdict = judge({"acme.nl": {"TXT": ["v=spf1 -all", f"v=spf1 ip4:{OURS}"]}})
    assert verdict.result is Spf.PERMERROR
    assert "2 SPF records" in verdict.why


def many(count: int) -> Zone:
    zone: Zone = {f"i{n}.nl": txt("v=spf1 ip4:192.0.2.1") for n in range(count)}
    zone["acme.nl"] = txt("v=spf1 " + " ".join(f"include:i{n}.nl" for n in range(count)) + f" ip4:{OURS} -all")
    return zone


def test_ten_lookups_pass_and_eleven_do_not() -> None:
    assert judge(many(10)).result is Spf.PASS
    over = judge(many(11))
    assert (over.result, "10 DNS lookups" in over.why) == (Spf.PERMERROR, True)
    assert (cost(many(10)).lookups, cost(many(10)).error) == (10, "")
    assert "needs 11 DNS lookups" in cost(many(11)).error


def test_lookups_inside_what_is_included_count() -> None:
    zone = many(5)
    zone["i0.nl"] = txt("v=spf1 a:x.nl a:y.nl mx:z.nl exists:q.nl -all")
    for name in ("x.nl", "y.nl", "q.nl"):
        zone[name] = {"A": ["192.0.2.9"]}
    zone["z.nl"] = {"MX": ["10 x.nl."]}
    found = cost(zone)
    assert found.lookups == 9
    assert {"i0.nl", "i4.nl"} <= found.includes


def test_two_void_lookups_pass_and_three_do_not() -> None:
    def zone(count: int) -> Zone:
        return {"acme.nl": txt("v=spf1 " + " ".join(f"a:gone{n}.nl" for n in range(count)) + f" ip4:{OURS} -all")}

    assert judge(zone(2)).result is Spf.PASS
    assert judge(zone(3)).result is Spf.PERMERROR
    assert cost(zone(2)).error == ""
    assert "3 names without any record" in cost(zone(3)).error


def test_a_circle_ends() -> None:
    zone: Zone = {"acme.nl": txt("v=spf1 include:b.nl -all"), "b.nl": txt("v=spf1 include:acme.nl -all")}
    assert judge(zone).result is Spf.PERMERROR
    assert cost(zone).error


@pytest.mark.parametrize("trouble", [{"silent": ["spf.callcenter.nl"]}, {"failing": ["spf.callcenter.nl"]}])
def test_a_dns_that_does_not_answer_is_not_a_no(trouble) -> None:
    zone: Zone = {"acme.nl": txt("v=spf1 include:spf.callcenter.nl -all")}
    assert judge(zone, **trouble).result is Spf.TEMPERROR
    found = cost(zone, **trouble)
    assert (found.error, bool(found.unknown)) == ("", True)


def test_a_record_without_end_is_not_followed_to_the_end() -> None:
    async def asking(dns: LiveDns) -> int:
        found = await cost_of(dns, "acme.nl")
        assert "needs more than 50 DNS lookups" in found.error
        return len(dns._kept)

    zone: Zone = {"acme.nl": txt("v=spf1 " + " ".join(f"a:h{n}.nl" for n in range(900)) + " -all")}
    assert asyncio.run(served(zone, asking)) < 60


def test_what_a_zone_says_cannot_move_the_cursor() -> None:
    verdict = judge({"acme.nl": txt(f"v=spf1 exists:x\x1b[2J.nl ip4:{OURS} -all")})
    assert "\x1b" not in verdict.why
    found = cost({"acme.nl": txt(f"v=spf1 ip4:{OURS} note=\x1b]0;x\x07 -all")})
    assert found.record == f"v=spf1 ip4:{OURS} note=?]0;x? -all"
