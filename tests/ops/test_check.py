"""`check`: tests of the rules, keys, and the warnings that only the whole of the rules can give."""

from __future__ import annotations

import json

import pytest

from ops.check import check, render_json, render_text
from tests.config.kinds import KINDS

LOGIN = "upstreams: {out: {type: smtp, host: mail.callcenter.nl}, next: {type: smtp, host: next.callcenter.nl}}\n"
ROUTES = LOGIN + 'routes:\n- {from: [acme.nl, "*.acme.nl"], via: [out, next]}\n- {from: <>, via: out}\n'


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Write routes.yaml and check it: the problems as ops see them."""
    monkeypatch.chdir(tmp_path)

    def run(routes, relay=""):
        (tmp_path / "relay.yaml").write_text(relay)
        (tmp_path / "routes.yaml").write_text(routes)
        return check((tmp_path / "relay.yaml").relative_to(tmp_path), KINDS)

    return run


def lines(checked):
    return [str(problem) for problem in checked.problems]


@pytest.mark.parametrize(
    "test",
    [
        "{from: x@acme.nl, via: [out, next]}",
        "{from: X@Mail.ACME.nl, via: [out, next]}",
        "{from: x@unknown.nl, refused: true}",
        "{from: <>, via: out}",
    ],
)
def test_a_test_that_holds_is_silent(told, test):
    checked = told(f"{ROUTES}tests: {test}")
    assert lines(checked) == []
    assert checked.good
    assert render_text(checked) == "good, 2 routes, 2 upstreams, 1 test passed"


@pytest.mark.parametrize(
    ("test", "wrong"),
    [
        ("{from: x@unknown.nl, via: out}", "is refused, for no route takes it, and should leave via out"),
        (
            "{from: x@acme.nl, via: out}",
            "leaves via out, then next (route acme.nl, routes.yaml:3), and should leave via out",
        ),
        (
            "{from: x@acme.nl, via: [next, out]}",
            "leaves via out, then next (route acme.nl, routes.yaml:3), and should leave via next, then out",
        ),
        ("{from: <>, refused: true}", "leaves via out (route <>, routes.yaml:4), and should be refused"),
    ],
)
def test_a_test_that_fails_is_an_error_and_the_rules_are_not_handed_out(told, test, wrong):
    checked = told(f"{ROUTES}tests:\n  - {test}")
    sender = test.partition(", ")[0].removeprefix("{from: ")
    assert lines(checked) == [f"routes.yaml:6  tests: {sender}: {wrong}; mend the route, or the test"]
    assert (checked.good, checked.rules) == (False, None)
    assert checked.relay is not None
    assert render_text(checked).endswith("\n1 error")


@pytest.mark.parametrize("rules", ["", "routes: []", f"{LOGIN}routes: []"])
def test_rules_without_any_route_are_an_error_for_they_refuse_all_mail_for_good(told, rules):
    checked = told(rules)
    assert lines(checked)[0] == (
        "routes.yaml:1  routes: has no route at all, so all mail would be refused for good; add one"
    )
    assert (checked.good, checked.rules) == (False, None)


def test_problems_of_both_files_come_at_once(told):
    checked = told("routes: {from: acme.nl, via: out}", relay="workers: 3")
    assert [line.partition(" ")[0] for line in lines(checked)] == ["relay.yaml:1", "routes.yaml:1"]
    assert (checked.relay, checked.rules) == (None, None)


def test_more_workers_than_processors(told, monkeypatch):
    database = "spool: {url: 'postgresql://relay@db/relay'}"
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    assert lines(told(ROUTES, relay=f"{database}\nworkers: 2")) == []
    checked = told(ROUTES, relay=f"{database}\nworkers: 3")
    assert lines(checked) == [
        "relay.yaml:1  warning: workers: 3 processes share 2 processors, and more of them than processors bring "
        "nothing; write 2 or fewer"
    ]
    assert checked.good


def test_an_upstream_that_no_route_uses(told):
    checked = told(LOGIN + "routes: {from: acme.nl, via: out}")
    assert lines(checked) == [
        "routes.yaml:1  warning: upstreams.next: no route uses it; name it in `via`, or remove it"
    ]
    assert checked.good
    assert render_text(checked).endswith("good, 1 route, 2 upstreams, no tests, 1 warning")


def test_a_key_that_cannot_sign_is_an_error_without_the_key(told, monkeypatch):
    monkeypatch.setenv("KEY", "-----BEGIN NOTHING hunter2")
    dkim = "dkim: {domain: acme.nl, selector: s1, key: 'env:KEY'}"
    checked = told(LOGIN + f"routes: {{from: acme.nl, via: [out, next], {dkim}}}")
    (line,) = lines(checked)
    assert line.startswith("routes.yaml:2  route acme.nl: dkim for 'acme.nl'")
    assert "not a private key" in line
    assert "hunter2" not in line
    assert not checked.good


def test_json_says_the_same(told):
    checked = told(f"{ROUTES}tests: {{from: x@acme.nl, refused: true}}")
    assert json.loads(render_json(checked)) == {
        "good": False,
        "problems": [
            {
                "file": "routes.yaml",
                "line": 5,
                "path": "tests: x@acme.nl",
                "wrong": "leaves via out, then next (route acme.nl, routes.yaml:3), and should be refused",
                "mend": "mend the route, or the test",
                "warning": False,
            }
        ],
    }


def test_a_redirected_route_is_told_at_every_check(told):
    checked = told(LOGIN + "routes: {from: acme.nl, via: [out, next], redirect: test@callcenter.nl}")
    assert lines(checked) == [
        "routes.yaml:2  warning: routes[0].redirect: sends every mail of this route to test@callcenter.nl, and none to "
        "its recipients; take it out when the trial is over"
    ]
    assert checked.good


def test_bounces_for_the_null_sender_alone_are_of_no_use(told):
    checked = told(LOGIN + "routes: {from: <>, via: [out, next], bounces: postmaster@callcenter.nl}")
    assert lines(checked) == [
        "routes.yaml:2  warning: routes[0].bounces: is of no use: mail of the null sender is never reported on; "
        "leave it out"
    ]


@pytest.mark.parametrize("key", ["redirect", "bounces"])
@pytest.mark.parametrize(
    ("address", "wrong"),
    [
        ("callcenter.nl", "callcenter.nl is not an address; write it like info@acme.nl"),
        ('"Test <test@callcenter.nl>"', "Test <test@callcenter.nl> is not a plain address; write only the address"),
        ("test@münchen.de", "'test@münchen.de' is not in plain letters; write it without accents"),
    ],
)
def test_redirect_and_bounces_take_a_plain_address(told, key, address, wrong):
    checked = told(LOGIN + f"routes: {{from: acme.nl, via: [out, next], {key}: {address}}}")
    (line,) = lines(checked)
    assert line.startswith(f"routes.yaml:2  routes[0].{key}: {wrong}")
    assert not checked.good
