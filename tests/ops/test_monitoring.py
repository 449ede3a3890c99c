"""Alert rules and dashboard: right by Prometheus's own tool, and about numbers that the relay really gives."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from tests.fakes.relay_process import ROOT, RelayProcess
from tests.journeys.clients import program
from tests.spool.engines import Sqlite, arrival, put_all

FOLDER = ROOT / "monitoring"
PAGE = 4096
LEAF = b"\x0d"
"""How a page of rows begins in SQLite's file."""
ROUTES = """\
upstreams:
  up: {type: maildir, path: %s, pace: {per_day: 100}}
routes:
  - {from: acme.nl, via: up}
"""


def promtool(*arguments: str, given: str = "") -> None:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=FOLDER, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def scraped(tmp_path_factory) -> str:
    """What a fresh relay answers."""
    folder = tmp_path_factory.mktemp("metrics")

    async def ask() -> str:
        extra = "status: {address: '127.0.0.1:0'}\nwebhooks: {address: '127.0.0.1:0'}\n"
        async with RelayProcess(folder / "r", ROUTES % (folder / "maildir"), extra=extra) as relay:
            where = (await relay.event("status_listening"))["address"]
            async with httpx.AsyncClient(timeout=60) as browser:
                return (await browser.get(f"http://{where}/metrics")).text

    return asyncio.run(ask())


def test_damage_in_the_spool_is_a_number(tmp_path):
    """A page of content that is garbage: met when the mail in it is to leave."""
    box = tmp_path / "r" / "spool.db"
    box.parent.mkdir()
    engine = Sqlite(box.parent)
    engine.run(lambda spool: put_all(spool, [arrival(spool, engine.clock, content=b"x" * 3000) for _ in range(20)]))
    octets = box.read_bytes()
    pages = [octets[at : at + PAGE] for at in range(0, len(octets), PAGE)]
    spoilt = [b"\xff" * PAGE if page[:1] == LEAF and b"x" * 2000 in page else page for page in pages]
    assert spoilt != pages
    box.write_bytes(b"".join(spoilt))

    async def ask() -> str:
        extra = "status: {address: '127.0.0.1:0'}\n"
        async with RelayProcess(box.parent, ROUTES % (tmp_path / "maildir"), extra=extra, spool=box) as relay:
            where = (await relay.event("status_listening"))["address"]
            await relay.event("spool.damaged")
            async with httpx.AsyncClient(timeout=60) as browser:
                return (await browser.get(f"http://{where}/metrics")).text

    assert "\ncallpro_relay_spool_damaged 1.0\n" in asyncio.run(ask())


def test_a_sound_spool_is_a_number_too(scraped):
    assert "\ncallpro_relay_spool_damaged 0.0\n" in scraped


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:callpro_relay|process)_[a-z_]+", text))


def given(text: str) -> set[str]:
    """Every series name that a scrape can hold: those of families without a sample yet too."""
    found = names_in("\n".join(line for line in text.splitlines() if not line.startswith("#")))
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE):
        found.add(name)
        found |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else set()
    return found


def test_alert_rules_are_right_and_each_has_its_test():
    promtool("check", "rules", "alerts.yaml")
    promtool("test", "rules", "alerts.test.yaml")
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text("utf-8"))["groups"][0]["rules"]
    tests = yaml.safe_load((FOLDER / "alerts.test.yaml").read_text("utf-8"))["tests"]
    tried = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert tried == {rule["alert"] for rule in rules}


def test_a_scrape_is_right_by_prometheus(scraped):
    promtool("check", "metrics", given=scraped)


_UNDER_THE_UNIT = """\
mount -t proc -o subset=pid proc /proc || exit 77
exec "$0" -c 'from ops.status.metrics import process, render; print(render([*process()]).decode())'
"""


def test_the_process_is_measured_where_the_unit_hides_proc():
    """ProcSubset=pid: nothing but processes is in /proc."""
    if os.getuid():
        pytest.skip("only root can mount a /proc of its own")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _UNDER_THE_UNIT, sys.executable],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip("no mount namespaces here")
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert re.search(rf"^{name} [0-9.e+]+$", done.stdout, re.MULTILINE), done.stdout + done.stderr


@pytest.mark.parametrize("file", ["alerts.yaml", "grafana-dashboard.json"])
def test_what_is_asked_for_is_what_the_relay_gives(scraped, file):
    asked = names_in((FOLDER / file).read_text("utf-8"))
    assert len(asked) > 10
    assert asked - given(scraped) == set()


def test_every_expression_of_the_dashboard_is_promql(tmp_path: Path):
    board = json.loads((FOLDER / "grafana-dashboard.json").read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = [{"record": f"x:{number}", "expr": expression} for number, expression in enumerate(asked)]
    file = tmp_path / "board.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}), "utf-8")
    promtool("check", "rules", str(file))
    places = [panel["gridPos"] for panel in board["panels"]]
    taken = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(taken) == len(set(taken)), "panels lie on one another"
    assert len({panel["id"] for panel in board["panels"]}) == len(places)


def test_the_page_about_it_names_every_metric(scraped):
    documented = names_in((ROOT / "docs" / "monitoring.md").read_text("utf-8"))
    families = set(re.findall(r"^# TYPE (callpro_relay_\S+) ", scraped, re.MULTILINE))
    assert families - documented == set()
