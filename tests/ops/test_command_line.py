"""The command line as a whole: every command there is, what scripts can read of it, and what its help says."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import relay

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_JSON = {
    "serve": "its log has --log-format json",
    "schema": "prints JSON anyway",
    "example": "prints a file",
    "completion": "prints a shell's script",
}
"""Every other command is one that a script would read."""


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command that does something, by its words."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for word, deeper in action.choices.items():
            yield from leaves(deeper, f"{name} {word}".strip())
    if not below:
        yield name, parser


COMMANDS = dict(leaves(relay._parser()))


def test_they_are_found() -> None:
    assert {"serve", "check", "queue list", "queue drop"} <= set(COMMANDS)
    assert set(WITHOUT_JSON) <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_script_can_read_it(name: str) -> None:
    options = {option for action in COMMANDS[name]._actions for option in action.option_strings}
    assert ("--json" in options) != (name in WITHOUT_JSON), WITHOUT_JSON.get(name, "add --json, or say here why not")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_its_help_says_what_each_option_is(name: str) -> None:
    parser = COMMANDS[name]
    assert parser.description
    parser.format_help()  # a stray % would raise
    silent = [action.option_strings or action.dest for action in parser._actions if not action.help]
    assert silent == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("check", 0),
        ("route info@acme.nl --no-dns", 0),
        ("route info@nobody.example --no-dns", 1),
        ("queue list", 0),
        ("queue list --settled", 0),
        ("queue find --to jan@example.org", 1),
        ("queue failures", 0),
        ("queue failures --each", 0),
        ("queue forecast", 0),
        ("queue holds", 0),
        ("queue hold --route acme.nl", 0),
        ("queue release --route acme.nl", 1),
        ("queue retry --route acme.nl", 1),
        ("queue drop --route acme.nl", 2),
        ("queue drop --route acme.nl --yes", 1),
    ],
)
def test_what_it_prints_is_json(line: str, code: int, beside_a_spool: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "relay.py", *line.split(), "--json", "--config", beside_a_spool],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    told = "callpro-relay: no relay runs on this spool: nothing leaves until it is started\n"  # for people
    assert (done.returncode, done.stderr.removeprefix(told)) == (code, "")
    json.loads(done.stdout)


@pytest.fixture
def beside_a_spool(tmp_path: Path) -> Path:
    """The config of a relay that ran here and does not run now."""
    from spool.schema import prepare

    config = tmp_path / "relay.yaml"
    config.write_text(f"spool: {{url: 'sqlite:///{tmp_path}/spool.db'}}\n")
    (tmp_path / "routes.yaml").write_text(
        f"upstreams: {{out: {{type: maildir, path: {tmp_path}/out}}}}\nroutes: [{{from: acme.nl, via: out}}]\n"
    )
    prepare(tmp_path / "spool.db")
    return config


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("queu list", "there is no 'queu'; did you mean queue?"),
        ("queue relaese --route acme.nl", "there is no 'relaese'; did you mean release?"),
        ("schema routes.yml", "did you mean routes.yaml?"),
        ("xyzzy", "invalid choice: 'xyzzy'"),
        ("queue list --limit 0", "'0' is no number of lines; write one from 1 on"),
        ("queue find --to jan@example.nl --limit -3", "'-3' is no number of lines"),
        ("queue find --to jan", "'jan' is nobody: write info@acme.nl, or @acme.nl for all of a domain"),
        ("queue drop --sender @", "'@' is nobody"),
        ("send --from j\u00f6@acme.nl --to jan@example.nl", "cannot be said in SMTP: write it without accents"),
        ("route j\u00f6@acme.nl", "cannot be said in SMTP: write it without accents"),
        ("route info@acme.nl --to j\u00f6@example.nl", "cannot be said in SMTP: write it without accents"),
        ("queue drop --older-than 999999w --yes", "is longer than a hundred years; write at most 36500d"),
        ("send --from info@acme.nl --to jan@example.nl\x0bBcc:jan", "on one line"),
    ],
)
def test_a_slip_of_the_pen_is_told_what_was_meant(line: str, words: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        relay.main(line.split(" "))
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("acme.nl", "@acme.nl"),
        ("@Acme.NL", "@acme.nl"),
        ("Info@Acme.nl", "Info@acme.nl"),
        ("m\u00fcnchen.de", "@xn--mnchen-3ya.de"),
        ("info@m\u00fcnchen.de", "info@xn--mnchen-3ya.de"),
        ("<>", ""),
    ],
)
def test_whose_mail_is_asked_for_may_be_written_as_people_do(text: str, meant: str) -> None:
    for line in (["list", "--sender", text], ["drop", "--recipient", text], ["hold", "--sender", text]):
        asked = relay._parser().parse_args(["queue", *line])
        assert getattr(asked, line[1].removeprefix("--")) == meant


@pytest.mark.parametrize(
    ("text", "name"),
    [("Acme.NL", "acme.nl"), ("*.m\u00fcnchen.de", "*.xn--mnchen-3ya.de"), ("<>", "<>"), ("a, b", "a, b")],
)
def test_a_route_is_named_as_rules_write_it(text: str, name: str) -> None:
    for word in ("list", "drop", "hold", "release"):
        assert relay._parser().parse_args(["queue", word, "--route", text]).route == name


def test_the_help_begins_where_people_are_at_night(capsys) -> None:
    with pytest.raises(SystemExit):
        relay.main(["--help"])
    told = capsys.readouterr().out
    named = re.findall(r"^  callpro-relay (queue \w+|\w+) ", told, re.MULTILINE)
    assert len(named) > 4
    assert set(named) <= set(COMMANDS)


def test_check_beside_the_secrets_finds_a_name_that_is_misspelt(beside_a_spool: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "")  # so that what `check` sets is taken back
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    folder = beside_a_spool.parent
    out = "type: smtp, host: smtp.acme.nl, username: a, password: 'systemd:acme-smtp'"
    (folder / "routes.yaml").write_text(f"upstreams: {{out: {{{out}}}}}\nroutes: [{{from: acme.nl, via: out}}]\n")
    assert relay.main(["check", "--config", str(beside_a_spool)]) == 0  # who may not read them is only warned
    (folder / "secrets").mkdir(mode=0o700)
    (folder / "secrets" / "acme-smpt").write_text("pw")
    assert relay.main(["check", "--config", str(beside_a_spool)]) == 1
    assert "acme-smtp" in capsys.readouterr().out
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    (folder / "secrets" / "acme-smpt").rename(folder / "secrets" / "acme-smtp")
    (folder / "secrets" / "acme-smtp").chmod(0o600)
    assert relay.main(["check", "--config", str(beside_a_spool)]) == 0


def test_check_finds_what_systemd_would_not_load(beside_a_spool: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "")  # so that what `check` sets is taken back
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    folder = beside_a_spool.parent / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "key").symlink_to("/dev/null")
    (folder / "acme:smtp").write_text("pw")
    (folder / "acme-smtp~").write_text("pw")
    assert relay.main(["check", "--config", str(beside_a_spool)]) == 1
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{folder}/acme:smtp:1  has a name that systemd starts no unit with; use letters, digits, - _ and . only",
        f"{folder}/key:1  is a link, which systemd does not load from a folder; put a copy there",
    ]
