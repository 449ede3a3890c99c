"""The schema takes what the reader takes and refuses slips of the pen, by an independent validator."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from config.schema import relay_schema, routes_schema
from tests.config.kinds import KINDS

CASES = Path(__file__).parents[1] / "cases" / "config"
EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
RELAY, ROUTES = Draft202012Validator(relay_schema()), Draft202012Validator(routes_schema(KINDS))


def test_they_are_schemas():
    Draft202012Validator.check_schema(relay_schema())
    Draft202012Validator.check_schema(routes_schema(KINDS))
    Draft202012Validator.check_schema(routes_schema({}))


@pytest.mark.parametrize(
    ("validator", "path"),
    [
        (RELAY, CASES / "design" / "relay.yaml"),
        (ROUTES, CASES / "design" / "routes.d" / "klant.yaml"),
        (RELAY, EXAMPLES / "relay.yaml"),
    ],
)
def test_it_takes_files_that_load(validator, path):
    assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text("utf-8")))] == []


@pytest.mark.parametrize(
    "text",
    [
        "routes: {from: acme.nl, via: out}",
        "routes: [{from: [acme.nl, '*.acme.nl'], via: [a, b], dkim: [], pace: {concurrency: 4}}]",
        "upstreams: {a: {type: smtp, host: smtp.acme.nl, port: 25, timeout: 90s}, b: {type: everything, room: 5KB}}",
        "upstreams: {a: {type: connector, source_address: 203.0.113.10}}",
        "upstreams:\nroutes:\ntests:\n",
    ],
)
def test_it_takes(text):
    assert ROUTES.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "route: []",
        "routes: [{from: acme.nl}]",
        "routes: [{from: [], via: a}]",
        "routes: [{from: no, via: a}]",
        "routes: [{from: acme.nl, via: a, unknown: maybe}]",
        "upstreams: {a: {host: smtp.acme.nl}}",
        "upstreams: {a: {type: smpt, host: smtp.acme.nl}}",
        "upstreams: {a: {type: smtp}}",
        "upstreams: {a: {type: smtp, host: smtp.acme.nl, prot: 5}}",
        "upstreams: {a: {type: smtp, host: smtp.acme.nl, port: 70000}}",
        "upstreams: {a: {type: smtp, host: smtp.acme.nl, tls: maybe}}",
        "upstreams: {a: {type: smtp, host: smtp.acme.nl, timeout: soon}}",
        "upstreams: {a: {type: everything, folder: here}}",
        "upstreams: {'a b': {type: smtp, host: smtp.acme.nl}}",
    ],
)
def test_it_refuses(text):
    assert not ROUTES.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text", ["workers: many", "limits: {recipients: 0}", "spool: {history: x}", "nope: 1", "listen: []"]
)
def test_it_refuses_in_relay_yaml(text):
    assert not RELAY.is_valid(yaml.safe_load(text))


def test_editors_get_sentences_defaults_and_examples():
    login = routes_schema(KINDS)["$defs"]["smtp"]["properties"]
    assert login["port"] == {
        "description": "Its port.",
        "type": "integer",
        "minimum": 1,
        "maximum": 65535,
        "default": 587,
    }
    assert login["host"]["examples"] == ["smtp.acme.nl"]
    assert "systemd:NAME" in login["password"]["description"]
    assert relay_schema()["properties"]["delivery"]["properties"]["retry"]["default"][:2] == [60, 300]
