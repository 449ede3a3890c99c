"""The lookup order of the design, one row per sender."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.rules import Place, Route, RouteSettings
from routing.table import Table


def route(name: str, *patterns: str) -> Route:
    return Route(name, RouteSettings(from_=patterns or (name,), via=("out",)), Place("routes.yaml", 1))


def table(*names: str) -> Table:
    return Table(route(name) for name in names)


def matched(found: Route | None) -> str | None:
    return None if found is None else found.name


FULL = ("info@acme.nl", "acme.nl", "*.acme.nl", "*.sub.acme.nl", "münchen.de", "*.münchen.de", "*", "<>")


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("info@acme.nl", "info@acme.nl"),
        ("INFO@Acme.NL", "info@acme.nl"),
        ("info@acme.nl.", "info@acme.nl"),
        ("sales@acme.nl", "acme.nl"),
        ("sales@ACME.NL.", "acme.nl"),
        ("a@x.acme.nl", "*.acme.nl"),
        ("a@x.y.acme.nl", "*.acme.nl"),
        ("a@sub.acme.nl", "*.acme.nl"),
        ("a@x.sub.acme.nl", "*.sub.acme.nl"),
        ("a@X.SUB.ACME.NL.", "*.sub.acme.nl"),
        ("a@notacme.nl", "*"),
        ("a@münchen.de", "münchen.de"),
        ("a@MÜNCHEN.de", "münchen.de"),
        ("a@mu\u0308nchen.de", "münchen.de"),
        ("a@xn--mnchen-3ya.de", "münchen.de"),
        ("a@XN--MNCHEN-3YA.DE.", "münchen.de"),
        ("a@mail.münchen.de", "*.münchen.de"),
        ("a@mail.xn--mnchen-3ya.de", "*.münchen.de"),
        ("a@ａｃｍｅ.nl", "acme.nl"),
        ('"odd@local"@acme.nl', "acme.nl"),
        ("bare", "*"),
        ("a@", "*"),
        ("a@-nonsense-☃-.nl" + "x" * 80, "*"),
        ("", "<>"),
        ("<>", "<>"),
    ],
)
def test_lookup_order(sender, expected):
    assert matched(table(*FULL).match(sender)) == expected


@pytest.mark.parametrize("sender", ["", "<>"])
def test_star_never_takes_the_null_sender(sender):
    assert table("*", "acme.nl").match(sender) is None


@pytest.mark.parametrize("sender", ["a@acme.nl", "a@nl", "bare", "a@münchen.de", "a@[192.0.2.1]", "a@\ud800.nl"])
def test_without_a_rule_there_is_no_route(sender):
    assert table("globex.nl", "*.globex.nl", "<>").match(sender) is None


def test_a_parent_pattern_leaves_the_parent_itself_alone():
    assert table("*.acme.nl").match("a@acme.nl") is None


def test_one_route_with_several_patterns():
    several = Table([route("globex.nl", "globex.nl", "*.globex.nl", "ceo@hooli.nl")])
    senders = ("a@globex.nl", "a@x.globex.nl", "ceo@hooli.nl", "cto@hooli.nl")
    assert [matched(several.match(sender)) for sender in senders] == ["globex.nl"] * 3 + [None]


def test_a_pattern_used_twice_is_our_bug():
    with pytest.raises(ValueError, match="two routes"):
        Table([route("acme.nl"), route("ACME.nl")])


@given(st.text(max_size=60))
def test_any_sender_gets_an_answer(sender):
    assert matched(table("*", "<>").match(sender)) == ("<>" if sender in ("", "<>") else "*")


@given(st.from_regex(r"[a-z0-9]{1,9}(\.[a-z0-9]{1,9}){1,5}", fullmatch=True), st.booleans(), st.booleans())
def test_case_and_trailing_dot_never_matter(domain, upper, dot):
    written = (domain.upper() if upper else domain) + ("." if dot else "")
    assert matched(table(domain).match(f"a@{written}")) == domain
    assert matched(table(f"*.{domain}").match(f"a@x.{written}")) == f"*.{domain}"
