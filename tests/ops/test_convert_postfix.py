"""The converter: beside a real Postfix, which is asked the same questions, and by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import relay
from config.loading import load_rules
from ops.postfix_tables import logical_lines, split_names
from routing.table import Table
from upstreams import KINDS
from upstreams.smtp import SmtpSettings

SHAPES = {name: kind.settings for name, kind in KINDS.items()}
MAIN = """\
# A Postfix as a call centre has it.
compatibility_level = 3.6
smtp_sasl_auth_enable = yes
smtp_sender_dependent_authentication = yes
smtp_sasl_password_maps =
    texthash:$config_directory/sasl_passwd
sender_dependent_relayhost_maps = texthash:${config_directory}/relay, texthash:$config_directory/relay2
    inline:{ {@inline.nl = [smtp.inline.nl]:2525} }
relayhost = [smtp.default.nl]:587
smtp_tls_security_level = encrypt
"""
RELAY = """\
# who leaves by what
@acme.nl\t[smtp.acme.nl]:587
boss@acme.nl   [smtp.boss.nl]:2587
Sales@Acme.nl
# a comment in the middle of a line that goes on
   [smtp.sales.nl]

@globex.nl  [smtp.globex.nl]:submission
@plain.nl   smtp.plain.nl:2526
@dunno.nl   DUNNO
@globex.nl  [never.used.nl]
nodomain.nl [smtp.nodomain.nl]
<>  [smtp.bounce.nl]
@m365.nl [m365-nl.mail.protection.outlook.com]
@secure.nl [smtp.secure.nl]:587
"""
RELAY2 = "@acme.nl [second.table.nl]\n@second.nl [smtp.second.nl]:25\n"
PASSWORDS = """\
[smtp.acme.nl]:587 callpro@acme.nl:geheim:met:dubbele-punten
smtp.sales.nl  sales:hush hush
[smtp.globex.nl]:submission globex:pw1
klant@globex.nl  klant@globex.nl:pw2
@second.nl second:pw3
[smtp.nobody.nl] nobody:pw4
[smtp.secure.nl]:587 just-a-name
"""
SENDERS = (
    "info@acme.nl", "boss@acme.nl", "sales@acme.nl", "SALES@ACME.NL", "info@globex.nl", "klant@globex.nl",
    "x@plain.nl", "x@dunno.nl", "x@second.nl", "x@inline.nl", "x@m365.nl", "x@secure.nl",
)  # fmt: skip
PORTS = {"submission": 587}


@pytest.fixture
def postfix(tmp_path: Path) -> Path:
    """A folder with its files."""
    folder = tmp_path / "postfix"
    folder.mkdir()
    files = {"main.cf": MAIN, "master.cf": "", "relay": RELAY, "relay2": RELAY2, "sasl_passwd": PASSWORDS}
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def convert(folder: Path, *options: str) -> tuple[int, Path]:
    out = folder.parent / "etc" / "routes.d"
    (folder.parent / "etc").mkdir(exist_ok=True)
    (folder.parent / "etc" / "relay.yaml").write_text("")
    return relay.main(["convert-postfix", *options, "--out", str(out)]), out


def asked(folder: Path, parameter: str, *keys: str) -> str | None:
    """What the real Postfix finds, for the first of `keys` that it knows."""
    get = ["postconf", "-c", folder, "-x", "-h", parameter]
    maps = subprocess.run(get, capture_output=True, text=True, check=True).stdout.strip()
    for key in keys:
        for table in split_names(maps):
            done = subprocess.run(
                ["postmap", "-c", folder, "-q", key, table], capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                return done.stdout.removesuffix("\n")
    return None


@pytest.mark.parametrize("sender", SENDERS)
def test_a_real_postfix_gives_the_same_answers(postfix: Path, sender: str, monkeypatch, capsys) -> None:
    if not shutil.which("postmap"):
        if os.environ.get("CI") == "true":
            pytest.fail("postmap is needed in CI (Debian: postfix)")
        pytest.skip("Postfix is not on this machine")
    _, out = convert(postfix, "--main", str(postfix / "main.cf"))
    domain = f"@{sender.rpartition('@')[2]}"
    hop = asked(postfix, "sender_dependent_relayhost_maps", sender, domain)
    hop = "[smtp.default.nl]:587" if hop in (None, "DUNNO") else hop
    host, _, port = hop.replace("[", "").replace("]", "").partition(":")
    login = asked(postfix, "smtp_sasl_password_maps", sender, domain, host, hop)

    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(out.parent / "secrets"))
    capsys.readouterr()
    assert relay.main(["route", sender, "--no-dns", "--json", "--config", str(out.parent / "relay.yaml")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ways"][0]["goes_to"] == host
    rules = load_rules(out.parent, SHAPES)
    settings = rules.upstreams[told["ways"][0]["name"]].settings
    assert getattr(settings, "port", None) == int(PORTS.get(port, port or 25))
    if login and ":" in login:
        assert isinstance(settings, SmtpSettings)
        assert settings.password
        assert f"{settings.username}:{settings.password.reveal()}" == login
    else:
        assert getattr(settings, "password", None) is None


def test_what_is_written_passes_check_and_says_what_was_left_out(postfix: Path, capsys) -> None:
    code, out = convert(postfix, "--main", str(postfix / "main.cf"))
    told = capsys.readouterr().out
    assert code == 1
    for line, words in (
        ("relay:11", "stands at"), ("relay:12", "was @nodomain.nl meant?"), ("sasl_passwd:6", "no sender"),
        ("sasl_passwd:7", "not USERNAME:PASSWORD"), ("main.cf:9", 'from: "*"'), ("relay:9", "MX of smtp.plain.nl"),
    ):  # fmt: skip
        assert any(line in row and words in row for row in told.splitlines()), (line, told)
    secrets = out.parent / "secrets"
    assert relay.main(["check", "--config", str(out.parent / "relay.yaml")]) == 0
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o600}
    everything = told + capsys.readouterr().out + "".join(path.read_text() for path in out.iterdir())
    for password in ("geheim", "hush", "pw1", "pw2", "pw3", "pw4", "just-a-name"):
        assert password not in everything
    assert (secrets / "klant-at-globex.nl").read_text() == "pw2\n"
    assert "type: connector" in (out / "m365.nl.yaml").read_text()
    assert Table(load_rules(out.parent, SHAPES, outside_unit=True).routes).match("<>")


def test_nothing_is_overwritten(postfix: Path, capsys) -> None:
    code, out = convert(postfix, "--main", str(postfix / "main.cf"))
    before = {path: path.read_text() for path in out.parent.rglob("*") if path.is_file()}
    (out / "acme.nl.yaml").write_text("mine\n")
    (out / "globex.nl.yaml").unlink()
    code, _ = convert(postfix, "--main", str(postfix / "main.cf"))
    assert code == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not (out / "globex.nl.yaml").exists()
    assert (out / "acme.nl.yaml").read_text() == "mine\n"
    assert len(before) > 5


def test_tables_alone_are_enough(postfix: Path, capsys) -> None:
    code, out = convert(
        postfix, "--maps", f"hash:{postfix}/relay", "--passwords", str(postfix / "sasl_passwd"), "--json"
    )
    told = json.loads(capsys.readouterr().out)
    assert code == 1
    assert str(out / "acme.nl.yaml") in told["written"]
    assert any("give --main" in note["why"] for note in told["notes"])  # where @dunno.nl goes
    text = (out / "acme.nl.yaml").read_text()
    assert (
        'host: smtp.acme.nl, port: 587, tls: starttls, username: callpro@acme.nl, password: "systemd:smtp.acme.nl-587"'
        in text
    )


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("smtp_tls_wrappermode = yes\nsmtp_tls_security_level = encrypt", "port: 465, tls: implicit"),
        ("smtp_tls_security_level = may", "tls: starttls, username"),
        ("smtp_tls_security_level = none", "tls: starttls, username"),
        ("smtp_sasl_auth_enable = no\nsmtp_tls_security_level = none", "tls: none}"),
        ("smtp_use_tls = yes\nsmtp_sasl_auth_enable = no", "tls: starttls}"),
    ],
)
def test_tls_and_logins_as_main_cf_has_them(tmp_path: Path, lines: str, text: str) -> None:
    folder = tmp_path / "postfix"
    folder.mkdir()
    (folder / "relay").write_text("@acme.nl [smtp.acme.nl]:465\n")
    (folder / "sasl_passwd").write_text("[smtp.acme.nl]:465 a:b\n")
    common = "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/gone/sasl_passwd\n"
    (folder / "main.cf").write_text(f"{common}sender_dependent_relayhost_maps = hash:/gone/relay\n{lines}\n")
    _, out = convert(folder, "--main", str(folder / "main.cf"))
    assert text in (out / "acme.nl.yaml").read_text()


def test_transports_go_before_relayhosts(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "postfix"
    folder.mkdir()
    (folder / "transports").write_text(
        "@a.nl smtp:[one.nl]:26\n@b.nl acme-smtp:\n@c.nl error:no more\n@d.nl dunno\n@e.nl smtp:\n"
    )
    (folder / "relay").write_text("@a.nl [no.nl]\n@b.nl [two.nl]\n@c.nl [no.nl]\n@d.nl [three.nl]\n")
    code, out = convert(folder, "--maps", str(folder / "relay"), "--transports", str(folder / "transports"))
    assert code == 1
    told = capsys.readouterr().out
    assert "transport error" in told
    assert "transport acme-smtp may have options" in told
    assert "transports:5  @e.nl: its mail went straight" in told
    assert sorted(path.name for path in out.iterdir()) == ["a.nl.yaml", "b.nl.yaml", "d.nl.yaml"]
    assert "host: one.nl, port: 26" in (out / "a.nl.yaml").read_text()


def test_tables_that_have_no_text_are_told(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "postfix"
    folder.mkdir()
    (folder / "main.cf").write_text(
        "sender_dependent_relayhost_maps = pcre:/etc/postfix/x, mysql:/etc/postfix/y, hash:/nowhere/z\n"
        "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = static:user:topsecret\n"
    )
    code, _ = convert(folder, "--main", str(folder / "main.cf"))
    told = capsys.readouterr().out
    assert code == 1
    assert "pcre:/etc/postfix/x" in told
    assert "mysql:/etc/postfix/y" in told
    assert "/nowhere/z: cannot be read" in told
    assert "topsecret" not in told


def test_a_table_in_the_wrong_place_gives_nothing_away(postfix: Path, capsys) -> None:
    (postfix / "sasl_passwd").write_bytes(b"@acme.nl callpro:topsecret\nastray:topsecret\n@x\x1b[2J.nl [a.nl]\n")
    code, out = convert(postfix, "--maps", str(postfix / "sasl_passwd"))
    told = capsys.readouterr().out
    assert code == 1
    assert "sasl_passwd:1  @acme.nl: its value is not one host" in told
    assert "sasl_passwd:2  this line: has no value" in told
    assert "topsecret" not in told
    assert "\x1b" not in told
    assert not list(out.glob("*"))


def test_lines_are_read_as_postfix_reads_them() -> None:
    text = "# c\na 1\n  # not the end\n\n  2\nb\t3 # no comment\n c\n"
    assert list(logical_lines(text)) == [(2, "a 1 2"), (6, "b\t3 # no comment c")]


def test_without_a_table_it_says_what_to_name(capsys) -> None:
    assert relay.main(["convert-postfix", "--out", "/nowhere"]) == 2
    assert "--main main.cf" in capsys.readouterr().err
