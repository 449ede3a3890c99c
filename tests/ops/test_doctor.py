"""`doctor`: which routes are meant, whose address is tried, and the quota from the spool."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from config.loading import load_rules
from config.relay_settings import Relay, SpoolSettings
from config.rules import Rules
from ops.doctor import Grade, chosen, domains_of, sender_of
from ops.doctor_quota import quota
from spool.sqlite import SqliteSpool
from spool.view import Spent
from upstreams import KINDS

ROUTES = """\
upstreams:
  ours: {type: smtp, host: mail.callcenter.nl, port: 25, pace: {per_day: 100}}
routes:
  - {from: [acme.nl, "*.acme.nl"], via: ours}
  - {from: ["ceo@globex.nl", "cfo@globex.nl"], via: ours}
  - {from: hooli.nl, via: ours, sender: {address: hooli@callcenter.nl}}
  - {from: "<>", via: ours}
  - {from: "*", via: ours}
tests:
  - {from: info@acme.nl, via: ours}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    return load_rules(tmp_path, {name: kind.settings for name, kind in KINDS.items()})


@pytest.mark.parametrize(
    ("asked", "routes"),
    [
        ("acme.nl", ["acme.nl"]),
        ("shop.acme.nl", ["acme.nl"]),
        ("info@ACME.nl", ["acme.nl"]),
        ("*.acme.nl", ["acme.nl"]),
        ("globex.nl", ["ceo@globex.nl"]),
        ("<>", ["<>"]),
        ("nobody.nl", []),
        (None, ["acme.nl", "ceo@globex.nl", "hooli.nl", "<>", "*"]),
    ],
)
def test_whom_it_means(rules: Rules, asked: str | None, routes: list[str]) -> None:
    assert [route.name for route in chosen(rules, asked)] == routes


def test_which_sender_is_tried(rules: Rules) -> None:
    acme, globex, hooli, null, _ = rules.routes
    assert sender_of(acme, rules) == ("info@acme.nl", False)
    assert sender_of(acme, rules, "sales@shop.acme.nl") == ("sales@shop.acme.nl", False)
    assert sender_of(acme, rules, "x@globex.nl") == ("info@acme.nl", False)  # of another route
    assert sender_of(globex, rules) == ("ceo@globex.nl", False)
    assert sender_of(hooli, rules) == ("hooli@callcenter.nl", False)
    assert sender_of(null, rules) == ("", True)
    assert (domains_of(acme), domains_of(hooli), domains_of(null)) == (("acme.nl",), ("callcenter.nl",), ())


@pytest.mark.parametrize(("used", "grade"), [(10, Grade.GOOD), (100, Grade.PROBLEM)])
def test_the_quota_is_read_from_the_spool(rules: Rules, tmp_path: Path, used: int, grade: Grade) -> None:
    relay = Relay(spool=SpoolSettings(url=f"sqlite:///{tmp_path}/spool.db"))
    now = 1_800_000_000.0
    assert quota(relay, rules, frozenset(("acme.nl",)), now) == []  # before the first start

    async def spend() -> None:
        spool = await SqliteSpool.open(relay.spool.url, size_limit=1 << 30)
        await spool.spend([Spent("upstream ours", now - 3600 * 5, 1, used)])
        await spool.close()

    asyncio.run(spend())
    (verdict,) = quota(relay, rules, frozenset(("acme.nl",)), now)
    assert (verdict.route, verdict.grade) == ("acme.nl", grade)
    assert verdict.what.startswith(f"{used} of 100 recipients in 24 hours")


def test_a_spool_that_cannot_be_read_is_said(rules: Rules, tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_text("no database, and long enough to be read as one " * 20)
    relay = Relay(spool=SpoolSettings(url=f"sqlite:///{tmp_path}/spool.db"))
    (verdict,) = quota(relay, rules, frozenset(("acme.nl",)))
    assert (verdict.route, verdict.check, verdict.grade) == ("", "quota", Grade.WARNING)
