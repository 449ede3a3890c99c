"""The example files load with the real kinds, and say what the defaults are."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from config.relay_settings import Relay
from ops.check import check
from tests.keys import rsa_key
from upstreams import KINDS

EXAMPLES = Path(str(resources.files("config.examples")))
SHAPES = {name: kind.settings for name, kind in KINDS.items()}


@pytest.fixture
def credentials(tmp_path, monkeypatch) -> None:
    """The secrets that the example refers to."""
    for name in ("umbrella-dkim", "callcenter-dkim"):
        (tmp_path / name).write_text(rsa_key("example").pem)
    for name in ("acme-smtp", "initech-graph", "sendgrid", "mailgun", "campaign-monitor"):
        (tmp_path / name).write_text("not-a-real-one\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))


@pytest.mark.usefixtures("credentials")
def test_the_examples_are_without_a_problem():
    checked = check(EXAMPLES / "relay.yaml", SHAPES)
    assert [str(problem) for problem in checked.problems] == []
    assert checked.rules is not None
    assert {upstream.kind for upstream in checked.rules.upstreams.values()} == set(SHAPES)
    assert len(checked.rules.tests) > 3


@pytest.mark.usefixtures("credentials")
def test_the_example_of_relay_yaml_says_the_defaults():
    assert check(EXAMPLES / "relay.yaml", SHAPES).relay == Relay()


def test_outside_the_unit_the_secrets_are_warnings(monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    strict, looking = (check(EXAMPLES / "relay.yaml", SHAPES, outside_unit=flag) for flag in (False, True))
    assert len(strict.errors) == 8
    assert strict.rules is None
    assert looking.good
    assert len(looking.problems) == 8


def test_outside_the_unit_what_a_secret_holds_is_not_judged(tmp_path, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "relay.yaml").write_text("")
    graph = "{type: graph, tenant: acme.nl, client_id: c, certificate: systemd:acme-certificate}"
    (tmp_path / "routes.yaml").write_text(f"upstreams: {{out: {graph}}}\nroutes: {{from: acme.nl, via: out}}")
    looking = check(tmp_path / "relay.yaml", SHAPES, outside_unit=True)
    assert [problem.path for problem in looking.problems if "certificate" in problem.path] == [
        "upstreams.out.certificate"
    ]
    assert looking.good
