"""The calendar: what is read, stated and seen, in order, and each step told once."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.loading import load_rules
from config.problems import ConfigInvalid
from ops.expiry import DAY, Expiry, calendar, calendar_json, calendar_text, certificate_end, step_of
from ops.expiry_watch import Told
from tests.fakes.authority import Authority
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


def test_each_step_is_told_once_also_after_a_restart(tmp_path):
    file = tmp_path / "told"
    told: list[int] = []
    clock, memory, one = NOW, Told(file), ends(40)
    for day in range(45):
        clock = NOW + day * DAY
        memory = Told(file) if day % 5 == 0 else memory
        told += [day for _ in memory.news([one], clock)]
    assert told == [10, 26, 33, 39, 40]
    renewed = ends(400)
    assert memory.news([renewed], clock) == []
    assert memory.news([renewed], NOW + 371 * DAY) == [renewed]


def test_a_memory_that_cannot_be_read_tells_again_and_goes_on(tmp_path):
    (tmp_path / "told").write_text("{not json", "utf-8")
    assert len(Told(tmp_path / "told").news([ends(5)], NOW)) == 1


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
