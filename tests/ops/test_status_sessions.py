"""Who may act on the status page."""

from __future__ import annotations

import pytest

from config.credentials import Secret
from ops.status.sessions import COOKIE, Sessions, TooManyTries, right_form, set_cookie

TOKEN = "0123456789abcdef0123"


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(clock):
    return Sessions(Secret("env:T", TOKEN), clock)


def cookies(session) -> str:
    return f"other=1; {COOKIE}={session.key}"


def test_the_token_opens_a_session_and_nothing_else_does(sessions):
    for wrong in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é" * 20, "\udcff"[:0]):
        assert sessions.enter(wrong, "jan") is None
    session = sessions.enter(TOKEN, " Jan\n\x1b[2J  de Vries ")
    assert session.name == "Jan[2J de Vries"
    assert sessions.of(cookies(session)) is session
    for header in (
        "",
        COOKIE,
        f"{COOKIE}=",
        f"{COOKIE}={session.csrf}",
        f"{COOKIE}={session.key}x",
        "\x00=;;=",
        "a" * 9000,
    ):
        assert sessions.of(header) is None


@pytest.mark.parametrize("other", ['prefs={"dark":true,"rows":[1]}', 'a b="c d', "\x00", "é=ü", "=", "x"])
def test_cookies_of_other_programs_on_this_host_end_no_session(sessions, other):
    """A browser sends them to every port."""
    session = sessions.enter(TOKEN, "jan")
    for header in (f"{other}; {COOKIE}={session.key}", f"{COOKIE}={session.key};{other}"):
        assert sessions.of(header) is session


def test_a_session_ends_when_left_and_after_half_a_day(sessions, clock):
    one, other = sessions.enter(TOKEN, ""), sessions.enter(TOKEN, "")
    sessions.leave(one)
    assert sessions.of(cookies(one)) is None
    clock.now += 12 * 3600 - 1
    assert sessions.of(cookies(other)) is other
    clock.now += 2
    assert sessions.of(cookies(other)) is None


def test_a_guesser_is_stopped_and_let_in_later(sessions, clock):
    for _ in range(10):
        assert sessions.enter("guess", "") is None
    with pytest.raises(TooManyTries):
        sessions.enter(TOKEN, "")
    clock.now += 61
    assert sessions.enter(TOKEN, "") is not None


def test_sessions_do_not_grow_without_end(sessions):
    first = sessions.enter(TOKEN, "")
    for _ in range(150):
        sessions.enter(TOKEN, "")
    assert sessions.of(cookies(first)) is None


def test_without_a_token_nobody_enters(clock):
    nobody = Sessions(None, clock)
    assert not nobody.possible
    assert nobody.enter("", "") is None


def test_a_form_belongs_to_its_session(sessions):
    one, other = sessions.enter(TOKEN, ""), sessions.enter(TOKEN, "")
    assert right_form(one, one.csrf)
    for wrong in ("", other.csrf, one.csrf[:-1], one.key):
        assert not right_form(one, wrong)


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(sessions):
    assert "HttpOnly" in set_cookie("x")
    assert "SameSite=Strict" in set_cookie("x")
    assert "Max-Age=0" in set_cookie("")
