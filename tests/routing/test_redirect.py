"""The field that names the true recipients: nothing in an address can begin another line or field."""

from __future__ import annotations

from routing.headers import fields, header_end, value
from routing.redirect import tell_recipients

CONTENT = b"From: a@acme.nl\r\nTo: b@example.org\r\n\r\nDag.\r\n"


def test_it_goes_behind_the_other_fields_and_the_body_stays():
    assert tell_recipients(CONTENT, ["b@example.org", "c@example.org"]) == CONTENT.replace(
        b"\r\n\r\n", b"\r\nX-Intended-Recipients: b@example.org, c@example.org\r\n\r\n"
    )


def test_no_address_can_smuggle_in_a_field():
    wicked = ["a@x.nl\r\nBcc: evil@example.org", '"a\r\n\r\nb\x00"@x.nl', "één@münchen.de", "geen adres"]
    told = tell_recipients(CONTENT, wicked)
    assert [field.name for field in fields(told)] == ["From", "To", "X-Intended-Recipients"]
    assert told[: header_end(told)].isascii()
    assert told.endswith(b"\r\n\r\nDag.\r\n")
    shown = value(told, "X-Intended-Recipients")
    assert shown is not None
    assert b"xn--mnchen-3ya.de" in shown


def test_a_thousand_recipients_are_folded():
    everybody = [f"klant{number}@example.org" for number in range(1000)]
    told = tell_recipients(CONTENT, everybody)
    assert max(map(len, told.split(b"\r\n"))) <= 78
    shown = value(told, "X-Intended-Recipients")
    assert shown is not None
    assert b"".join(shown.split()).decode() == ",".join(everybody)


def test_a_mail_without_a_header_or_an_empty_line_keeps_its_octets():
    assert tell_recipients(b"\r\nDag.\r\n", ["b@x.nl"]) == b"X-Intended-Recipients: b@x.nl\r\n\r\nDag.\r\n"
    assert tell_recipients(b"To: b@x.nl\r\n", ["b@x.nl"]) == b"To: b@x.nl\r\nX-Intended-Recipients: b@x.nl\r\n"
