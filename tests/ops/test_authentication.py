"""What `check` says of signatures and small mailboxes, with the real kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from config.problems import Problem
from ops.check import check
from tests.keys import rsa_key
from upstreams import KINDS

Told = Callable[[str], tuple[Problem, ...]]
ToldOf = Callable[..., tuple[Problem, ...]]

UPSTREAMS = """\
upstreams:
  graph: {type: graph, tenant: acme.nl, client_id: 00001111-aaaa-2222-bbbb-3333cccc4444, client_secret: "env:KEY"}
  oauth: {type: smtp_oauth, tenant: acme.nl, client_id: 00001111-aaaa-2222-bbbb-3333cccc4444, client_secret: "env:KEY"}
  connector: {type: connector, host: acme-nl.mail.protection.outlook.com}
  office: {type: smtp, host: SMTP.Office365.com., username: me, password: "env:KEY"}
  sendgrid: {type: sendgrid, api_key: "env:KEY"}
  mailbox: {type: graph, tenant: acme.nl, client_id: 00001111-aaaa-2222-bbbb-3333cccc4444, client_secret: "env:KEY",
    mailbox: Info@Acme.nl}
  mailgun: {type: mailgun, domain: MG.Acme.nl, api_key: "env:KEY"}
  api: {type: sendgrid, method: api, api_key: "env:KEY"}
  campaign: {type: campaign_monitor, client_id: x, api_key: "env:KEY"}
  login: {type: smtp, host: smtp.notoffice365.com, username: me, password: "env:KEY"}
  ours: {type: smtp, host: mail.callcenter.nl}
  local: {type: smtp, host: localhost, tls: none}
routes:
"""
DKIM = 'dkim: {domain: acme.nl, selector: s1, key: "env:PEM"}'
ALWAYS = DKIM.replace("}", ", always: true}")
SENDER = "sender: {address: acme@callcenter.nl}"


@pytest.fixture
def told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToldOf:
    """Check these routes; what is said of them."""
    monkeypatch.setenv("PEM", rsa_key("acme").pem)
    monkeypatch.setenv("KEY", "SG.key")

    def run(*routes: str) -> tuple[Problem, ...]:
        (tmp_path / "relay.yaml").write_text("")
        (tmp_path / "routes.yaml").write_text(UPSTREAMS + "".join(f"  - {{{route}}}\n" for route in routes))
        checked = check(tmp_path / "relay.yaml", {name: kind.settings for name, kind in KINDS.items()})
        return tuple(problem for problem in checked.problems if problem.path.startswith("route "))

    return run


@pytest.fixture
def told(told_of: ToldOf) -> Told:
    """Check one route beside another that takes its reports; what is said of it."""
    reports = "from: <>, via: local"
    return lambda route: told_of(*([route] if "<>" in route else [route, reports]))


@pytest.mark.parametrize(
    ("routes", "stuck", "says"),
    [
        (["acme.nl, via: [graph, oauth]"], "acme.nl", "reports on its undelivered mail cannot leave: a mailbox"),
        (["acme.nl, via: office"], "acme.nl", "cannot leave: a mailbox (office)"),
        (["acme.nl, via: graph", "globex.nl, via: oauth"], "acme.nl", "cannot leave, as those of 1 other route: "),
        (["acme.nl, via: graph", "<>, via: oauth"], "<>", "its mail cannot leave: a mailbox (oauth) sends nothing"),
        (["acme.nl, via: [graph, connector]", "globex.nl, via: login"], None, ""),
        (["acme.nl, via: graph", "<>, via: [oauth, local]"], None, ""),
    ],
)
def test_mail_of_the_null_sender_that_cannot_leave(
    routes: list[str], stuck: str | None, says: str, told_of: ToldOf
) -> None:
    problems = told_of(*(f"from: {route}" for route in routes))
    about = [problem for problem in problems if "null sender" in problem.wrong]
    assert [(problem.path, problem.warning) for problem in about] == ([(f"route {stuck}", True)] if stuck else [])
    assert all(says in problem.wrong for problem in about)


@pytest.mark.parametrize(
    ("via", "says"),
    [
        ("graph", "30 mails a minute and to 10,000 recipients a day"),
        ("oauth", "30 mails a minute"),
        ("office", "30 mails a minute"),
        ("connector", "10,000 outside recipients a day"),
        ("login", None),
        ("sendgrid", None),
        ("local", None),
    ],
)
def test_one_mailbox_for_a_customers_whole_traffic(via: str, says: str | None, told: Told) -> None:
    problems = told(f"from: acme.nl, via: {via}, {SENDER}")
    assert [problem.path for problem in problems] == (["route acme.nl, sender"] if says else [])
    assert all(problem.warning and says and says in problem.wrong for problem in problems)
    assert told(f"from: acme.nl, via: {via}") == ()


def test_our_own_server_without_a_signature(told: Told) -> None:
    (problem,) = told("from: acme.nl, via: [login, ours]")
    assert (problem.path, problem.warning) == ("route acme.nl", True)
    assert "leaves by ours" in problem.wrong
    assert told(f"from: acme.nl, via: ours, {DKIM}") == ()
    assert told("from: acme.nl, via: [login, local]") == ()
    assert told("from: <>, via: ours") == ()


@pytest.mark.parametrize(
    ("via", "dkim", "warning"),
    [
        ("login", DKIM, None),
        ("sendgrid", DKIM, True),
        ("connector", DKIM, True),
        ("graph", DKIM, True),
        ("api", DKIM, True),
        ("sendgrid", ALWAYS, None),
        ("graph", ALWAYS, False),
        ("oauth", ALWAYS, False),
        ("api", ALWAYS, False),
        ("[graph, ours]", DKIM, None),
        ("[graph, api]", DKIM, True),
        ("[graph, sendgrid]", ALWAYS, None),
    ],
)
def test_a_signature_that_nobody_gets(via: str, dkim: str, warning: bool | None, told: Told) -> None:
    problems = told(f"from: acme.nl, via: {via}, {dkim}")
    assert [problem.warning for problem in problems] == ([] if warning is None else [warning])
    assert all(problem.path == "route acme.nl, dkim" for problem in problems)


@pytest.mark.parametrize(("keys", "warned"), [(["ED"], True), (["RSA"], False), (["ED", "RSA"], False)])
def test_a_key_that_large_receivers_do_not_read_stands_not_alone(
    keys: list[str], warned: bool, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    monkeypatch.setenv("ED", private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    monkeypatch.setenv("RSA", rsa_key("acme").pem)
    blocks = ", ".join(f'{{domain: acme.nl, selector: {name}, key: "env:{name}"}}' for name in keys)
    problems = told(f"from: acme.nl, via: login, dkim: [{blocks}]")
    assert [problem.wrong for problem in problems] == (
        ["has an Ed25519 key only, which large receivers do not read"] if warned else []
    )
    assert all(problem.warning for problem in problems)


@pytest.mark.parametrize(
    ("senders", "more", "warned"),
    [
        ("acme.nl", "", False),
        ("[globex.nl, acme.nl]", "", False),
        ("'*.acme.nl'", "", False),
        ("info@mail.acme.nl", "", False),
        ("'*'", "", False),
        ("<>", "", False),
        ("globex.nl", "", True),
        ("acme.nl", f", {SENDER}", True),
        ("globex.nl", ", sender: {address: globex@acme.nl}", False),
    ],
)
def test_a_signature_that_aligns_with_nobody(senders: str, more: str, warned: bool, told: Told) -> None:
    problems = told(f"from: {senders}, via: login, {DKIM}{more}")
    assert [problem.path.partition(", ")[2] for problem in problems] == (["dkim.domain"] if warned else [])


@pytest.mark.parametrize(
    ("route", "failing"),
    [
        ("from: acme.nl, via: mailgun", None),
        ("from: shop.acme.nl, via: mailgun", None),
        ("from: '*', via: mailgun", None),
        ("from: <>, via: mailgun", None),
        ("from: globex.nl, via: mailgun", "globex.nl"),
        ("from: [acme.nl, info@globex.nl, '*.hooli.nl'], via: [sendgrid, mailgun]", "globex.nl or hooli.nl"),
        ("from: globex.nl, via: mailgun, sender: {address: info@mg.acme.nl}", None),
        ("from: acme.nl, via: mailgun, sender: {address: info@globex.nl}", "globex.nl"),
        (f"from: globex.nl, via: mailgun, {ALWAYS.replace('acme', 'globex')}", None),
        ("from: globex.nl, via: campaign", None),
    ],
)
def test_mail_that_no_receiver_can_authenticate(route: str, failing: str | None, told: Told) -> None:
    problems = told(route)
    assert all(problem.warning for problem in problems)
    assert [problem.wrong for problem in problems] == (
        []
        if failing is None
        else [
            f"leaves by mailgun, where neither the return path nor a signature is in {failing}: "
            "no such mail passes DMARC"
        ]
    )


@pytest.mark.parametrize(
    ("route", "refused"),
    [
        ("from: acme.nl, via: mailbox", None),
        ("from: INFO@acme.nl, via: mailbox", None),
        ("from: '*', via: mailbox", None),
        ("from: '*.nl', via: mailbox", None),
        ("from: globex.nl, via: mailbox, sender: {address: info@ACME.nl}", None),
        ("from: globex.nl, via: graph", None),
        ("from: sales@acme.nl, via: mailbox", "sales@acme.nl"),
        ("from: '*.acme.nl', via: mailbox", "*.acme.nl"),
        ("from: [acme.nl, globex.nl], via: mailbox", "globex.nl"),
        ("from: acme.nl, via: mailbox, sender: {address: sales@acme.nl}", "sales@acme.nl"),
    ],
)
def test_a_mailbox_that_is_not_the_senders(route: str, refused: str | None, told: Told) -> None:
    said = [problem.wrong for problem in told(route) if "a day" not in problem.wrong]
    assert said == ([f"leaves by mailbox as info@acme.nl, where mail From {refused} is refused"] if refused else [])
