"""Whom the status page believes, and what it makes of a search."""

from __future__ import annotations

import pytest

from ops.status.forms import search
from ops.status.guards import allowed_host, own_form
from spool.view import Filter


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8025", "localhost", "LOCALHOST:1", "[::1]:8025", "relay.localhost", "192.0.2.7", "Relay.NL:443"]
)
def test_a_host_that_can_only_be_us_is_taken(host):
    assert allowed_host(host, ("relay.nl",))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8025",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "[::1",
        "[::1].evil.example",
        "relay.nl.evil.example",
        "2130706433",
        "0x7f000001",
        "127.0.0.1:8025, evil.example",
        "127.0.0.1 ",
    ],
)
def test_any_other_name_is_refused(host):
    assert not allowed_host(host, ("relay.nl",))


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({"host": "127.0.0.1:8025"}, True),
        ({"host": "127.0.0.1:8025", "origin": "http://127.0.0.1:8025", "sec-fetch-site": "same-origin"}, True),
        ({"host": "127.0.0.1:8025", "origin": "http://127.0.0.1:9999"}, False),
        ({"host": "127.0.0.1:8025", "origin": "http://evil.example"}, False),
        ({"host": "127.0.0.1:8025", "origin": "null"}, False),
        ({"host": "127.0.0.1:8025", "origin": "http://[::1"}, False),
        ({"host": "127.0.0.1:8025", "sec-fetch-site": "same-site"}, False),
        ({"host": "127.0.0.1:8025", "sec-fetch-site": "cross-site"}, False),
        ({"host": "", "origin": "null"}, False),
    ],
)
def test_a_form_of_another_page_is_refused(headers, ours):
    assert own_form(headers) is ours


@pytest.mark.parametrize(
    ("text", "meant"),
    [("jan@acme.nl", "jan@acme.nl"), ("acme.nl", "@acme.nl"), (" @m\u00fcnchen.de", "@xn--mnchen-3ya.de"), ("<>", "")],
)
def test_a_search_takes_a_domain_as_people_write_it(text, meant):
    assert search({"q": text}) == Filter(recipient=meant, settled=None)
    assert search({"q": text, "by": "sender"}) == Filter(sender=meant, settled=None)
