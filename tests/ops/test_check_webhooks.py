"""`check` on webhooks: a listener and a key belong together, and a listener in the open is worth a word."""

from __future__ import annotations

import pytest

from ops.check import check
from tests.fakes.webhooks import SendGridWebhook
from upstreams import KINDS

SHAPES = {name: kind.settings for name, kind in KINDS.items()}
LISTENS = "webhooks: {address: '127.0.0.1:8026'}\n"


@pytest.fixture
def told(tmp_path, monkeypatch):
    """The problems of an upstream with these words, and of this relay.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEY", "SG.k")

    def run(words, relay):
        (tmp_path / "relay.yaml").write_text(relay)
        upstream = f"upstreams:\n  sg: {{type: sendgrid, api_key: 'env:KEY'{words}}}\n"
        (tmp_path / "routes.yaml").write_text(upstream + "routes:\n  - {from: acme.nl, via: sg}\n")
        checked = check((tmp_path / "relay.yaml").relative_to(tmp_path), SHAPES)
        return checked, [str(problem) for problem in checked.problems if "webhook" in str(problem)]

    return run


@pytest.fixture
def key():
    return f", webhook_key: {SendGridWebhook().key}"


def test_both_or_neither_is_silent(told, key):
    assert told(key, LISTENS)[1] == told("", "")[1] == []


def test_one_without_the_other_is_a_warning(told, key):
    checked, lines = told(key, "")
    assert lines == [
        "routes.yaml:2  warning: upstreams.sg.webhook_key: is of no use, as nothing listens; "
        "add `webhooks:` to relay.yaml, or leave it out"
    ]
    assert checked.good
    checked, lines = told("", LISTENS)
    assert lines == [
        "relay.yaml:1  warning: webhooks: listens for nobody, as no upstream has a webhook key; "
        "give an upstream its webhook key (docs/webhooks.md), or leave it out"
    ]
    assert checked.good


def test_a_listener_in_the_open_is_a_warning(told, key):
    checked, lines = told(key, "webhooks: {address: '0.0.0.0:8026'}\n")
    assert [line for line in lines if "has no TLS of its own" in line] == lines
    assert len(lines) == 1
    assert checked.good


@pytest.mark.parametrize("relay", ["webhooks: {}\n", "webhooks: {address: relay.callcenter.nl}\n", "webhooks: yes\n"])
def test_an_address_that_is_none_is_an_error(told, relay):
    checked, lines = told("", relay)
    assert not checked.good
    assert lines


def test_a_key_that_is_none_is_an_error(told):
    checked, lines = told(", webhook_key: SG.k", LISTENS)
    assert not checked.good
    assert "is not a verification key; copy it from SendGrid's event webhook settings" in lines[0]
