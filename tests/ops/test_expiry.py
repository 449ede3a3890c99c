"""The calendar: what is read, stated and seen, in order, and each step told once."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from config.credentials import Secret
from config.loading import load_rules
from config.problems import ConfigInvalid
from config.rules import Place, UpstreamRule
from ops.expiry import DAY, Expiry, calendar, calendar_json, calendar_text, certificate_end, step_of
from ops.expiry_watch import News
from ops.once import first
from spool.contract import SpoolUnavailable
from tests.fakes.authority import Authority
from tests.spool.engines import ENGINES, Postgres, Sqlite
from upstreams import KINDS

NOW = 1_700_000_000.0
SHAPES = {name: kind.settings for name, kind in KINDS.items()}


def ends(days: float, what: str = "api key") -> Expiry:
    return Expiry(what, "up (routes.yaml:2)", ("acme.nl",), NOW + days * DAY, "stated")


@pytest.mark.parametrize(
    ("days", "step"), [(31, None), (30, 30), (14.5, 30), (14, 14), (7, 7), (1.5, 7), (0.5, 1), (0, 0), (-3, 0)]
)
def test_the_step_that_something_has_come_to(days, step):
    assert step_of(ends(days), NOW) == step
    assert step_of(Expiry("DKIM key", "x", (), None, ""), NOW) is None


@pytest.mark.parametrize("engine", ENGINES)
def test_each_step_is_told_once_by_all_relays_together_also_after_restarts(engine, tmp_path, request):
    store = Sqlite(tmp_path) if engine == "sqlite" else Postgres(request.getfixturevalue("database"))

    async def days() -> None:
        told: list[int] = []
        one, renewed = ends(40), ends(400)
        for day in range(45):
            store.clock.now = NOW + day * DAY
            async with store.spool() as spool:
                relays = [News(partial(first, spool)), News(partial(first, spool))]
                told += [day for relay in (*relays, *relays) if await relay.has(one, store.clock.now)]
                assert not await relays[0].has(renewed, store.clock.now)
        assert told == [10, 26, 33, 39, 40]
        async with store.spool() as spool:
            assert await News(partial(first, spool)).has(renewed, NOW + 371 * DAY)

    asyncio.run(days())


def test_thousands_of_routes_are_walked_once():
    """The loop waits for it: by each of 5,000 upstreams it took four seconds in which no mail was taken."""
    walks = []

    class Settings:
        dkim = ()

        def __init__(self, upstream: str) -> None:
            self._upstream = upstream

        @property
        def upstreams(self) -> tuple[str, ...]:
            walks.append(self._upstream)
            return (self._upstream,)

    routes = [SimpleNamespace(name=f"r{number}", settings=Settings(f"u{number}")) for number in range(50)]
    place, settings = Place("routes.yaml", 1), KINDS["sendgrid"].settings(api_key=Secret("systemd:key", "SG.x"))
    rules = {f"u{number}": UpstreamRule(f"u{number}", "sendgrid", settings, place) for number in range(50)}
    found = calendar(None, routes, rules, {})
    assert [one.routes for one in found] == sorted((f"r{number}",) for number in range(50))
    assert len(walks) == 50


def test_a_step_that_the_spool_does_not_keep_is_news_at_the_next_look():
    answers: list[bool | Exception] = [SpoolUnavailable("away"), True]

    async def asked(mark: str, until: float) -> bool:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def look() -> None:
        news = News(asked)
        with pytest.raises(SpoolUnavailable):
            await news.has(ends(5), NOW)
        assert await news.has(ends(5), NOW)
        assert not await news.has(ends(5), NOW), "and it need not be asked again"

    asyncio.run(look())


def test_certificates_are_read_and_days_are_stated_and_hosts_were_seen(tmp_path, authority: Authority, monkeypatch):
    chain, private = authority.server_files(tmp_path)
    pem = private.read_bytes() + chain.read_bytes()
    monkeypatch.setenv("CERT", pem.decode())
    monkeypatch.setenv("KEY", "SG.x.y")
    key = tmp_path / "dkim.pem"
    key.write_bytes(private.read_bytes())
    key.chmod(0o600)
    os.utime(key, (NOW - 400 * DAY, NOW - 400 * DAY))
    (tmp_path / "routes.yaml").write_text(
        f"""\
upstreams:
  g: {{type: graph, tenant: x.nl, client_id: "1", certificate: "env:CERT"}}
  sg: {{type: sendgrid, api_key: "env:KEY", expires: 2023-11-20}}
  unknown: {{type: sendgrid, api_key: "env:KEY"}}
  own: {{type: smtp, host: localhost, port: 2525, tls: none}}
routes:
  - {{from: a.nl, via: [g, sg]}}
  - {{from: b.nl, via: unknown}}
  - {{from: c.nl, via: own, dkim: {{domain: c.nl, selector: s, key: "file:{key}"}}}}
""",
        "utf-8",
    )
    rules = load_rules(tmp_path, SHAPES)
    found = calendar(None, rules.routes, rules.upstreams, {"smtp.x.nl:587": NOW + 20 * DAY})
    told = {one.key: one for one in found}
    assert told["certificate g"].ends_at == certificate_end(pem.decode())
    assert told["certificate g"].routes == ("a.nl",)
    assert told["api key sg"].ends_at == datetime(2023, 11, 20, tzinfo=UTC).timestamp()
    assert (told["api key unknown"].ends_at, told["api key unknown"].source) == (
        None,
        "write `expires:` on the upstream",
    )
    assert found[0].key == "api key sg"
    text = calendar_text(found, NOW)
    assert "! 2023-11-20 in 5d 1h" in text
    assert "made 400d ago, change it" in text
    assert "smtp.x.nl:587 (as it was shown last)" in text
    rows = {row["where"]: row for row in json.loads(calendar_json(found, NOW))}
    assert (rows["smtp.x.nl:587"]["days"], rows["smtp.x.nl:587"]["step"]) == (20, 30)
    assert "SG.x.y" not in text + calendar_json(found, NOW)


@pytest.mark.parametrize("day", ["soon", "2027-02-30", "[2027-01-01]", "1-2-2027"])
def test_a_day_that_is_none_is_refused_with_what_to_write(tmp_path: Path, day: str):
    (tmp_path / "routes.yaml").write_text(
        f"upstreams:\n  own: {{type: smtp, host: localhost, port: 25, expires: {day}}}\nroutes: []\n", "utf-8"
    )
    with pytest.raises(ConfigInvalid, match=r"upstreams\.own\.expires: is not a day; write .* 2027-03-31"):
        load_rules(tmp_path, SHAPES)
