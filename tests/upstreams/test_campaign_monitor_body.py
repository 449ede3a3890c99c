"""Mails as Campaign Monitor's JSON: golden mails, what is refused by name, names that make no other recipient."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.campaign_monitor import checked, one, people
from tests.fakes.http_server import Request
from tests.upstreams.sendgrid_cases import cases
from upstreams.campaign_monitor_body import BODY_LIMIT, letter_of
from upstreams.mime_parts import Unsayable

REFUSED_HERE_TOO = {case.name for case in cases() if case.name.startswith("refused-")} - {
    "refused-empty-file",  # SendGrid takes none; nothing says that of Campaign Monitor
    "refused-header-twice",  # other header fields are not carried at all
}
REFUSED_ONLY_HERE = {
    "alternative-in-related-in-mixed": "a picture inside the text (Content-ID)",
    "related-in-alternative": "a picture inside the text (Content-ID)",
    "picture-beside-the-text": "a picture inside the text (Content-ID)",
    "invitation": "text/calendar as a version of the text",
    "names": "2 addresses in Reply-To",
}


def judged(body: bytes) -> dict[str, object]:
    """The request as the look-alike reads it; it raises when a rule is broken."""
    return checked(Request("POST", "/", {"content-type": "application/json; charset=utf-8"}, body, 1))


def made(content: bytes, *recipients: str, group: str | None = None) -> dict[str, object]:
    return judged(letter_of(content, group).request(recipients or ("a@x.nl",)))


def mail(*lines: str, body: str = "hi") -> bytes:
    return "\r\n".join(["From: Anna <anna@acme.nl>", "To: a@x.nl", *lines, "", body, ""]).encode()


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_golden_mails_are_carried_or_refused_by_name(case):
    if case.name in REFUSED_HERE_TOO or case.name in REFUSED_ONLY_HERE:
        with pytest.raises(
            Unsayable, match=re.escape(REFUSED_ONLY_HERE[case.name]) if case.name in REFUSED_ONLY_HERE else None
        ):
            letter_of(case.mail.content, None)
        return
    letter = letter_of(case.mail.content, None)
    if not letter.shown(case.mail.recipients).to:
        return
    request = judged(letter.request(case.mail.recipients))
    if not case.carried:
        return
    like = case.expected["request"]
    texts = {text["type"]: text["value"] for text in like["content"]}
    assert {"text/plain": request.get("Text"), "text/html": request.get("HTML")} == {
        "text/plain": texts.get("text/plain"), "text/html": texts.get("text/html")
    }  # fmt: skip
    assert request["Subject"] == like["subject"]
    assert one(request["From"], "From")[1] == like["from"]["email"]
    files = [(each["Content"], each["Type"]) for each in request.get("Attachments", [])]
    assert files == [(each["content"], each["type"]) for each in like.get("attachments", [])]
    everybody = {
        person["email"]
        for each in like["personalizations"]
        for name in ("to", "cc", "bcc")
        for person in each.get(name, ())
    }
    assert {address for _, address in people(request, "To", "CC", "BCC")} == everybody


def test_nothing_is_tracked_and_no_style_moved():
    request = made(mail("Subject: x"))
    assert [request[name] for name in ("TrackOpens", "TrackClicks", "InlineCSS")] == [False] * 3
    assert request["ConsentToTrack"] == "No"
    assert "Group" not in request
    assert made(mail("Subject: x"), group="CallPro")["Group"] == "CallPro"


def test_an_empty_mail_still_has_a_subject_and_a_text():
    request = made(mail("X: y", body=""))
    assert (request["Subject"], request["Text"].strip()) == ("(no subject)", "")


def html_mail(html: str, header: str, more: str = "") -> bytes:
    picture = base64.b64encode(b"picture").decode()
    return mail(
        "Content-Type: multipart/related; boundary=b",
        body=f"--b\r\nContent-Type: text/html{more}\r\n\r\n{html}\r\n"
        f"--b\r\nContent-Type: image/png; name=a.png\r\n{header}"
        f"Content-Transfer-Encoding: base64\r\n\r\n{picture}\r\n--b--",
    )


@pytest.mark.parametrize(
    "html",
    [
        '<img src="cid:logo@acme">',
        "<img src=CID:LOGO@ACME>",
        '<img src="cid:logo%40acme">',
        '<img src="c&#105;d:logo&#64;acme">',
        '<div style="background:url(cid:logo@acme)">',
    ],
)
def test_a_picture_inside_the_text_is_refused(html):
    with pytest.raises(Unsayable, match="picture inside the text"):
        letter_of(html_mail(html, "Content-ID: <logo@acme>\r\n"), None)


@pytest.mark.parametrize(
    ("html", "header"),
    [
        ("<p>no picture", "Content-ID: <logo@acme>\r\n"),
        ("<p>cid: 7", "Content-ID: <logo@acme>\r\n"),
        ('<img src="cid:another">', "Content-ID: <logo@acme>\r\n"),
        ('<img src="cid:">', ""),
    ],
)
def test_a_file_that_the_text_does_not_show_is_a_file(html, header):
    (attachment,) = made(html_mail(html, header))["Attachments"]
    assert attachment == {"Content": base64.b64encode(b"picture").decode(), "Name": "a.png", "Type": "image/png"}


def test_a_request_too_large_is_refused_by_name():
    with pytest.raises(Unsayable, match="10 MB"):
        letter_of(mail("Subject: x", body="a" * BODY_LIMIT), None)


NAMES = st.lists(
    st.sampled_from(
        [
            '"',
            "\\",
            "<",
            ">",
            ",",
            ";",
            "@",
            "(",
            ")",
            "e@y.nl",
            "é",
            " ",
            "Jan",
            ":",
            "[",
            "]",
            "=?utf-8?q?=3C?=",
            "\t",
        ]
    ),
    max_size=8,
).map("".join)


@given(NAMES, NAMES, NAMES)
def test_no_name_makes_another_recipient_or_sender(first, second, sender):
    def quoted(name: str) -> str:
        return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'

    people_named = f"To: {quoted(first)} <a@x.nl>\r\nCc: {quoted(second)} <b@x.nl>\r\n"
    content = f"From: {quoted(sender)} <anna@acme.nl>\r\n{people_named}\r\nhi\r\n"
    request = made(content.encode(), "a@x.nl", "b@x.nl", "c@x.nl")
    assert [address for _, address in people(request, "To", "CC", "BCC")] == ["a@x.nl", "b@x.nl", "c@x.nl"]
    assert one(request["From"], "From")[1] == "anna@acme.nl"
    assert (len(request["To"]), len(request["CC"]), len(request["BCC"])) == (1, 1, 1)


def test_an_ordinary_name_stays_as_it_is():
    content = b"From: =?utf-8?q?Zo=C3=AB?= de Vries <anna@acme.nl>\r\nTo: a@x.nl <a@x.nl>\r\n\r\nhi\r\n"
    request = made(content)
    assert request["From"] == "Zoë de Vries <anna@acme.nl>"
    assert request["To"] == ["a@x.nl"]
