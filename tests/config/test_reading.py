"""Any settings class is read by its annotations; every way to write it wrong is told with its mend."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from config.nodes import parse
from config.problems import Problems
from config.reading import Reader, did_you_mean
from tests.config.kinds import Entra, Everything, Keyed, Login


def read(settings, text, outside_unit=False):
    """The settings (or None) and the problems as ops see them."""
    problems = Problems()
    node = parse(text.encode(), "f.yaml", problems)
    made = None if node is None else Reader(problems, outside_unit).block(settings, node, "")
    return made, [str(problem) for problem in problems.found()]


def told(settings, text, **options):
    return read(settings, text, **options)[1]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("text: plain words", "text", "plain words"),
        ("text: 0123", "text", "0123"),
        ('text: "no"', "text", "no"),
        ("whole: -5", "whole", -5),
        ("real: 2.5", "real", 2.5),
        ("flag: true", "flag", True),
        ("flag: Off", "flag", False),
        ("span: 5m", "span", 300),
        ("room: 64KB", "room", 65536),
        ("folder: /var/lib", "folder", Path("/var/lib")),
        ("folder:", "folder", None),
        ("source: 203.0.113.10", "source", IPv4Address("203.0.113.10")),
        ("choice: green", "choice", "green"),
        ("inner: {host: smtp.acme.nl}", "inner", Login(host="smtp.acme.nl")),
        ("inner: null", "inner", None),
        ("several: [1, 2]", "several", (1, 2)),
        ("several: 3", "several", (3,)),
        ("several: []", "several", ()),
        ("several:", "several", ()),
        ("blocks: {host: a.nl}", "blocks", (Login(host="a.nl"),)),
        ("blocks: [{host: a.nl}, {host: b.nl, port: 25}]", "blocks", (Login(host="a.nl"), Login(host="b.nl", port=25))),
        ("with-dash: x", "with_", "x"),
        ("", "at_least_one", ("x",)),
    ],
)
def test_reads(text, name, expected):
    made, problems = read(Everything, text)
    assert problems == []
    assert getattr(made, name) == expected
    assert type(getattr(made, name)) is type(expected) or name in ("span", "room")


HALF = "has only half of a login; write username and password, or neither"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("txt: x", "txt: is not a key here; did you mean text?"),
        ("with-dsh: x", "with-dsh: is not a key here; did you mean with-dash?"),
        ("text: no", 'text: no without quotes means yes or no in YAML; write "no"'),
        ("text:", "text: has no value; write one, or remove the key"),
        ('text: ""', "text: is empty; write a value, or remove the key"),
        ("text: [a]", "text: should be one value, not a list; write a single value, in quotes if it has brackets"),
        ("text: {a: b}", "text: should be one value, not a block; write a single value, in quotes if it has brackets"),
        ("whole: five", "whole: is not a whole number; write digits only, without quotes"),
        ("whole: 101", "whole: is too large; write at most 100"),
        ("whole: -6", "whole: is too small; write at least -5"),
        ("real: 10.5", "real: is too large; write at most 10"),
        ("flag: 1", "flag: is neither true nor false; write true or false, without quotes"),
        ('flag: "true"', "flag: is neither true nor false; write true or false, without quotes"),
        ("span: 2h", "span: is too large; write at most 3600"),
        ("span: 5 min", "span: is not a length of time; write one number and one unit: 90s, 5m, 2h or 3d"),
        ("room: 0", "room: is too small; write at least 1"),
        ("folder: spool", "folder: is not a full path; write it from the root, like /var/lib/callpro-relay"),
        ("source: 300.1.1.1", "source: is not an IPv4 address; write it like 203.0.113.10"),
        ("choice: grene", "choice: is not one of the choices; did you mean green?"),
        ("choice: blue", "choice: is not one of the choices; write one of: green, red"),
        ("inner: x", "inner: should be a block of keys; write `key: value` lines under it"),
        ("inner: {}", "inner.host: is missing; add it, like `host: smtp.acme.nl` (The customer's server)"),
        ("several: [1, x]", "several[1]: is not a whole number; write digits only, without quotes"),
        ("several: [1, 10]", "several[1]: is too large; write at most 9"),
        ("several: x", "several: is not a whole number; write digits only, without quotes"),
        ("blocks: [{host: a.nl}, {hst: b}]", "blocks[1].hst: is not a key here; did you mean host?"),
        ("at_least_one: []", "at_least_one: is empty; write at least one, or remove the key"),
        ("- a", "should be a block of keys; write `key: value` lines under it"),
        ("blocks: [{host: a.nl, username: x}]", f"blocks[0]: {HALF}"),
    ],
)
def test_says_what_is_wrong_and_what_to_write(text, problem):
    assert f"f.yaml:1  {problem}" in told(Everything, text)


def test_all_at_once_and_in_order():
    lines = [line.partition("  ")[0] for line in told(Everything, "whole: x\nreal: y\nnope: 1\nspan: z\nflag: 3")]
    assert lines == [f"f.yaml:{number}" for number in (1, 2, 3, 4, 5)]


def test_a_fault_stands_where_its_key_stands(monkeypatch):
    monkeypatch.setenv("PASSWORD", "hunter2")
    text = "host: smtp.acme.nl\nusername: me\npassword: env:PASSWORD\ntls: none"
    assert told(Login, text) == ["f.yaml:4  tls: sends the password in clear; write starttls or implicit"]


# ---- secrets ---------------------------------------------------------------------------------------------------

LITERAL = "is a secret in the file itself; write systemd:NAME, file:PATH or env:NAME"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (Login, "{host: smtp.acme.nl, username: me, password: hunter2}"),
        (Login, "{host: localhost.acme.nl, username: me, password: hunter2}"),
        (Login, "{host: smtp.acme.nl, username: me, password: 'vault:hunter2'}"),
        (Keyed, "{api_key: hunter2}"),
        (Keyed, "{api_key: hunter2, base_url: 'https://127.0.0.1.acme.nl/'}"),
        (Entra, "{tenant: t, client_id: c, client_secret: hunter2, base_url: 'http://127.0.0.1:80/'}"),
        (Everything, "{secrets: ['env:PASSWORD', hunter2]}"),
    ],
)
def test_a_literal_secret_never_leaves_the_machine(settings, text, monkeypatch):
    monkeypatch.setenv("PASSWORD", "x")
    problems = told(settings, text)
    assert len(problems) == 1
    assert problems[0].endswith(LITERAL)
    assert "hunter2" not in problems[0]


@pytest.mark.parametrize(
    ("settings", "text", "key"),
    [
        (Login, "{host: localhost, username: me, password: hunter2}", "password"),
        (Login, "{host: '::1', username: me, password: hunter2}", "password"),
        (Keyed, "{api_key: hunter2, base_url: 'http://127.0.0.1:8080/v3'}", "api_key"),
        (
            Entra,
            "{tenant: t, client_id: c, client_secret: hunter2, base_url: 'http://[::1]/', authority: 'https://localhost'}",
            "client_secret",
        ),
    ],
)
def test_a_literal_secret_is_taken_on_loopback_with_a_warning(settings, text, key):
    made, problems = read(settings, text)
    assert getattr(made, key).reveal() == "hunter2"
    assert len(problems) == 1
    assert "warning" in problems[0]
    assert "hunter2" not in problems[0] + repr(made)


def test_secrets_by_reference(tmp_path, monkeypatch):
    (tmp_path / "smtp").write_text("hunter2\n")
    (tmp_path / "smtp").chmod(0o600)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("PASSWORD", "hunter2")
    for reference in ("systemd:smtp", "env:PASSWORD", f"file:{tmp_path}/smtp"):
        made, problems = read(Login, f"host: smtp.acme.nl\nusername: me\npassword: {reference}")
        assert problems == []
        assert made.password.reveal() == "hunter2"
        assert made.password.reference == reference


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("env:NOT_THERE", "the environment has no variable NOT_THERE"),
        ("env:EMPTY", "env:EMPTY is empty"),
        ("file:/nowhere/at/all", "cannot read /nowhere/at/all: No such file"),
        ("file:/dev/zero", "cannot read /dev/zero: not a regular file"),
        ("systemd:smtp", "systemd:smtp needs $CREDENTIALS_DIRECTORY"),
        ('""', "is empty"),
        ("", "is empty"),
        ('"file:/\\0"', "not UTF-8 text, or not a path"),
    ],
)
def test_a_secret_that_cannot_be_read_is_a_problem(reference, why, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("EMPTY", "")
    problems = told(Keyed, f"api_key: {reference}")
    assert len(problems) == 1
    assert why in problems[0]


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("systemd:", "is not a credential name"),
        ("systemd:..", "is not a credential name"),
        ("systemd:../x", "is not a credential name"),
        ("systemd: smtp", "is not a credential name"),
        ("file:smtp", "does not name the file from the root"),
        ("file:~/smtp", "does not name the file from the root"),
        ("env:", "is not the name of a variable"),
        ("env:A B", "is not the name of a variable"),
        ("env:\\0", "is not the name of a variable"),
    ],
)
@pytest.mark.parametrize("outside_unit", [False, True])
def test_a_name_that_no_secret_can_have_is_an_error_wherever_one_looks(
    reference, why, outside_unit, tmp_path, monkeypatch
):
    (tmp_path / "smtp").write_text("x")
    (tmp_path / "smtp").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    _, problems = read(Keyed, f'api_key: "{reference}"', outside_unit=outside_unit)
    assert len(problems) == 1
    assert why in problems[0]
    assert "warning" not in problems[0]


def test_a_large_file_is_no_secret(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * (65 << 10))
    (tmp_path / "large").chmod(0o600)
    assert "larger than" in told(Keyed, f"api_key: file:{tmp_path}/large")[0]


@pytest.mark.parametrize("reference", ["systemd:key", "env:NOT_THERE"])
def test_outside_the_unit_what_it_alone_may_have_is_only_a_warning(reference, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    made, problems = read(Keyed, f"api_key: {reference}", outside_unit=True)
    assert problems == ["f.yaml:1  warning: api_key: is only readable in the running unit; so it was not checked"]
    assert made.api_key.reveal() == ""
    assert len(told(Keyed, f"api_key: {reference}")) == 1


def test_a_folder_of_credentials_that_is_shut_is_as_none(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "no"))
    _, problems = read(Keyed, "api_key: systemd:key", outside_unit=True)
    assert problems == ["f.yaml:1  warning: api_key: is only readable in the running unit; so it was not checked"]


def test_root_finds_what_the_running_unit_loads_besides_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr("config.credentials.OF_UNIT", tmp_path / "unit")
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "key").write_text("hunter2")
    made, _ = read(Keyed, "api_key: systemd:key")
    assert made.api_key.reveal() == "hunter2"


@pytest.mark.parametrize(
    ("word", "expected"),
    [("acme-logn", "acme-login"), ("ACME-LOGIN", "acme-login"), ("zzz", None), ("", None), ("x" * 10_000, None)],
)
def test_did_you_mean(word, expected):
    assert did_you_mean(word, ["acme-login", "globex"]) == expected
