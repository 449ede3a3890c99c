"""`route`: what a person and a script are told about one sender."""

from __future__ import annotations

import json

import pytest

from config.fields import Settings
from config.loading import load_rules
from ops.alignment import Relation
from ops.explain import explain, render_json, render_text
from routing.headers import values
from tests.config.kinds import KINDS
from upstreams.base import Kind

ROUTES = """\
upstreams:
  login: {type: smtp, host: smtp.acme.nl, username: me, password: "env:PASSWORD"}
  connector: {type: connector, source_address: 203.0.113.10}
routes:
  - {from: [acme.nl, "*.acme.nl", "ceo@globex.nl"], via: [login, connector]}
  - from: hooli.nl
    via: login
    sender: {address: hooli@callcenter.nl, name: Hooli}
    dkim: {domain: CallCenter.NL, selector: s1, key: "env:PASSWORD"}
  - {from: münchen.de, via: login, sender: {address: m@callcenter.nl, reply_to: none}}
  - {from: "*.umbrella.nl", via: login}
"""


@pytest.fixture
def rules(tmp_path, monkeypatch):
    monkeypatch.setenv("PASSWORD", "hunter2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "routes.yaml").write_text(ROUTES, "utf-8")
    return load_rules(tmp_path.relative_to(tmp_path), KINDS)


def test_a_route_in_words(rules):
    told = render_text(explain(rules, "Info@Acme.nl", ("a@example.org", "b@example.org")))
    assert told.splitlines() == [
        "Info@Acme.nl takes route acme.nl",
        "  rule       routes.yaml:5, from: acme.nl",
        "  via        login (smtp to smtp.acme.nl)  routes.yaml:2",
        "  else via   connector (connector, from source address 203.0.113.10)  routes.yaml:3",
        "               when login is",
        "               - on hold for this route after `config`, until a probe of it succeeds",
        "               - not reached for 5m, until a probe reaches it",
        "               - too small for the mail: for that mail alone",
        "               never after `unknown`: the mail may have been delivered already",
        "  envelope   MAIL FROM <Info@Acme.nl>",
        "             RCPT TO <a@example.org>",
        "             RCPT TO <b@example.org>",
        "  rewritten  no",
        "  signed     no (not by us)",
        "  DMARC      by login: can pass by SPF alone: forwarding breaks that, and large receivers want both",
        "               SPF: aligns, the return path is in acme.nl, From in acme.nl; "
        "counts if the SPF record of acme.nl names the sending server",
        "               DKIM: none of ours; ask whether that server signs",
        "             by connector: can pass by SPF alone: forwarding breaks that, and large receivers want both",
        "               SPF: aligns, the return path is in acme.nl, From in acme.nl; "
        "counts if the SPF record of acme.nl names the sending server",
        "               DKIM: none of ours; ask whether that server signs",
    ]


def test_when_each_way_is_used_and_what_ends_it(rules, tmp_path):
    more = ROUTES + (
        "  - {from: a.nl, via: [login, connector, third], spill_after: 10m, "
        "canary: {via: new, percent: 5, recipients: [t@callcenter.nl, '@b.nl']}}\n"
        "  - {from: b.nl, via: login, canary: {via: new, percent: 5}}\n"
    )
    extra = "  third: {type: connector, source_address: 203.0.113.11}\n"
    more = more.replace("routes:\n", extra + extra.replace("third", "new") + "routes:\n")
    (tmp_path / "routes.yaml").write_text(more, "utf-8")
    loaded = load_rules(tmp_path.relative_to(tmp_path), KINDS)
    ways = explain(loaded, "x@a.nl", fallback_after=120.0).ways
    assert [(way.role, way.name) for way in ways] == [
        ("via", "login"),
        ("else via", "connector"),
        ("else via", "third"),
        ("canary", "new"),
    ]
    assert ways[0].used == ()
    assert ways[2].used == (
        "when login, connector are, each for a reason of its own,",
        "- on hold for this route after `config`, until a probe of it succeeds",
        "- not reached for 2m, until a probe reaches it",
        "- too small for the mail: for that mail alone",
        "- by its pace not free within 10m: for as long as that is so",
        "never after `unknown`: the mail may have been delivered already",
    )
    assert ways[3].used == (
        "first for 5 of 100 mails, and for mail to none but t@callcenter.nl, @b.nl",
        "not while on hold, not reached, or without a free slot or room in its pace: then `via`, without a wait",
        "after `config`, a failed connect or `too large` the same mail goes on to `via`; after `unknown` never",
        "a probe that succeeds ends a hold, and one that reaches it an outage",
    )
    assert explain(loaded, "x@b.nl").ways[1].used[0] == "first for 5 of 100 mails"
    assert "  canary     new (connector, from source address 203.0.113.11)" in render_text(explain(loaded, "x@b.nl"))


@pytest.mark.parametrize(
    ("address", "pattern"),
    [
        ("info@acme.nl", "acme.nl"),
        ("info@x.y.acme.nl", "*.acme.nl"),
        ("CEO@globex.nl", "ceo@globex.nl"),
        ("a@MÜNCHEN.de", "xn--mnchen-3ya.de"),
    ],
)
def test_the_pattern_that_matched(rules, address, pattern):
    assert explain(rules, address).pattern == pattern


def test_rewriting_and_signing_without_a_mail(rules):
    explained = explain(rules, "info@hooli.nl")
    assert explained.sender == "hooli@callcenter.nl"
    assert explained.changes == (
        'From becomes "Hooli" <hooli@callcenter.nl>',
        "Reply-To becomes the original address",
    )
    assert explained.signatures == ("d=callcenter.nl s=s1 (record s1._domainkey.callcenter.nl)",)
    assert "Reply-To becomes nothing" in explain(rules, "a@münchen.de").changes


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_rewriting_of_the_mail_at_hand(rules, ending):
    mail = ending.join(("From: Info <info@hooli.nl>", "To: a@example.org", "Subject: private words", "", "more", ""))
    explained = explain(rules, "info@hooli.nl", (), mail.encode())
    assert explained.changes == ("MAIL FROM changes", "From changes", "Reply-To changes")
    assert "private words" not in render_text(explained) + render_json(explained)


def test_a_mail_that_is_right_already_stays(rules):
    mail = b"From: Hooli <hooli@callcenter.nl>\r\nSubject: x\r\n\r\nbody\r\n"
    assert explain(rules, "info@hooli.nl", (), mail).changes == ("MAIL FROM changes",)


def test_the_from_of_the_mail_at_hand_counts(rules):
    mail = b"From: Info <info@elsewhere.example>\nTo: a@example.org\n\nbody\n"
    by_login, _ = explain(rules, "info@acme.nl", (), mail).alignments
    assert (by_login.spf, by_login.dkim) == (Relation.NONE, Relation.NONE)
    (rewritten,) = explain(rules, "info@hooli.nl", (), mail).alignments
    assert (rewritten.spf, rewritten.dkim) == (Relation.SAME, Relation.SAME)


@pytest.mark.parametrize("senders", ["", "From: a@acme.nl, b@acme.nl\n", "From: a@acme.nl\nFrom: b@acme.nl\n"])
def test_a_mail_without_one_from_cannot_pass(rules, senders):
    explained = explain(rules, "info@acme.nl", (), f"{senders}To: a@example.org\n\nbody\n".encode())
    assert (explained.from_domain, explained.alignments) == (None, ())
    assert "DMARC      cannot pass: there must be one From field" in render_text(explained)


def test_what_each_upstream_would_lose_of_the_mail_at_hand(rules):
    def losses(settings: Settings, content: bytes) -> tuple[str, ...]:
        assert b"\r\n\r\n" in content
        return (f"X-Odd is lost at {settings.host}",) if values(content, "X-Odd") else ()

    kinds = {"smtp": Kind("smtp", Settings, lambda *_: pytest.fail("built"), losses)}
    mail = b"From: info@hooli.nl\nX-Odd: secret words\n\nbody\n"
    told = render_text(explain(rules, "info@hooli.nl", (), mail, kinds))
    assert "  loses      by login: X-Odd is lost at smtp.acme.nl\n" in told
    assert "secret words" not in told
    assert "loses" not in render_text(explain(rules, "info@hooli.nl", (), None, kinds))


@pytest.mark.parametrize(
    ("address", "why", "nearest"),
    [
        ("info@acm.nl", "no route takes acm.nl", ("did you mean acme.nl? (routes.yaml:5)",)),
        (
            "info@mail.hooli.nl",
            "no route takes mail.hooli.nl",
            ('hooli.nl does not take what is below it: add "*.hooli.nl" to that route',),
        ),
        (
            "info@umbrella.nl",
            "no route takes umbrella.nl",
            ("*.umbrella.nl takes only what is below it: add umbrella.nl to that route",),
        ),
        (
            "info@globex.nl",
            "no route takes globex.nl",
            ("ceo@globex.nl has a route, for that address alone: write globex.nl to take the whole domain",),
        ),
        ("info@munchen.de", "no route takes munchen.de", ()),
        ("info@zzzzz.example", "no route takes zzzzz.example", ()),
        ("root", "it has no domain", ()),
        (
            "acme.nl",
            "it has no domain",
            ("acme.nl is a domain with a route: ask for a sender of it, such as info@acme.nl",),
        ),
        ("<>", 'no route has `from: "<>"`', ()),
        ("", 'no route has `from: "<>"`', ()),
    ],
)
def test_why_not(rules, address, why, nearest):
    explained = explain(rules, address)
    assert explained.route is None
    assert explained.why_not is not None
    assert explained.why_not.startswith(why)
    assert explained.nearest == nearest
    assert render_text(explained).startswith(f"{address or '<>'} is refused: 550 5.7.1\n  why        {why}")


def test_json_has_every_field_and_no_secret(rules):
    said = json.loads(render_json(explain(rules, "info@hooli.nl", ("a@example.org",))))
    assert said["route"] == "hooli.nl"
    assert said["recipients"] == ["a@example.org"]
    assert said["ways"] == [
        {
            "name": "login",
            "kind": "smtp",
            "place": "routes.yaml:2",
            "goes_to": "smtp.acme.nl",
            "source_address": None,
            "losses": [],
            "role": "via",
            "used": [],
        }
    ]
    (alignment,) = said["alignments"]
    assert (alignment["way"], alignment["spf"], alignment["dkim"]) == ("login", "same", "same")
    assert "hunter2" not in json.dumps(said)


def test_a_redirected_route_says_who_gets_its_mail_and_its_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "routes.yaml").write_text(
        "upstreams: {out: {type: smtp, host: mail.callcenter.nl}}\n"
        "routes: {from: acme.nl, via: out, redirect: test@callcenter.nl, bounces: postmaster@callcenter.nl}\n"
    )
    found = explain(load_rules(tmp_path.relative_to(tmp_path), KINDS), "info@acme.nl", ("a@example.org", "b@x.nl"))
    assert (found.recipients, found.redirect) == (("test@callcenter.nl",), "test@callcenter.nl")
    told = render_text(found).splitlines()
    start = told.index("  envelope   MAIL FROM <info@acme.nl>")
    assert told[start + 1 : start + 4] == [
        "             RCPT TO <test@callcenter.nl>",
        "  redirected yes: every mail goes to this address, and to no recipient",
        "  reports    of undelivered mail go to postmaster@callcenter.nl",
    ]
    assert json.loads(render_json(found))["bounces"] == "postmaster@callcenter.nl"
