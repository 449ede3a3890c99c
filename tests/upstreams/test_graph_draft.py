"""A mail as a draft: what its JSON says, where each file goes, and what is refused by name."""

from __future__ import annotations

import base64
import json
from email import policy
from email.message import EmailMessage

import pytest

from tests.upstreams.test_graph_large import mail_with, octets
from upstreams.graph_draft import UPLOAD_SIZE, draft_of
from upstreams.mime_parts import Unsayable

LIMIT = 4 << 20
HEAD = b"From: a@x.nl\r\nTo: b@y.nl\r\nSubject: x\r\n"


def said(content: bytes) -> dict:
    return json.loads(draft_of(content, LIMIT).body)


def test_html_is_the_text_and_its_picture_keeps_its_place():
    mail = EmailMessage(policy=policy.SMTP)
    mail["From"] = "a@x.nl"
    mail.set_content("plat")
    mail.add_alternative('<p>caf\u00e9 <img src="cid:logo@x"></p>', subtype="html")
    html = mail.get_payload()[1]
    html.add_related(b"\x89PNG", "image", "png", cid="<logo@x>", filename="logo.png", disposition="inline")
    made = said(mail.as_bytes())
    assert made["body"]["contentType"] == "HTML"
    assert "café" in made["body"]["content"]
    assert made["attachments"] == [
        {
            "@odata.type": "#microsoft.graph.fileAttachment",
            "name": "logo.png",
            "isInline": True,
            "contentId": "logo@x",
            "contentType": "image/png",
            "contentBytes": base64.b64encode(b"\x89PNG").decode(),
        }
    ]


def test_a_mail_of_headers_alone_has_an_empty_text_and_nothing_made_up():
    assert said(b"Subject: x\r\n\r\n") == {"subject": "x", "body": {"contentType": "Text", "content": ""}}


def test_files_go_inside_alone_or_in_pieces_by_their_size():
    draft = draft_of(mail_with(UPLOAD_SIZE - 1, UPLOAD_SIZE, 100_000, 50_000), LIMIT)
    assert len(draft.body) <= LIMIT
    assert [file["name"] for file in json.loads(draft.body)["attachments"]] == ["factuur-0.pdf", "factuur-2.pdf"]
    assert [file.size for file in draft.posts] == [50_000]
    assert [file.size for file in draft.uploads] == [UPLOAD_SIZE]
    assert json.loads(draft.uploads[0].announced()) == {
        "AttachmentItem": {
            "attachmentType": "file",
            "name": "factuur-1.pdf",
            "size": UPLOAD_SIZE,
            "isInline": False,
            "contentType": "application/pdf",
        }
    }
    assert draft.uploads[0].octets() == octets(UPLOAD_SIZE)


def test_the_largest_file_that_is_posted_fits_one_request():
    posted = draft_of(mail_with(2_900_000, UPLOAD_SIZE - 1), LIMIT).posts
    assert [len(file.described()) <= LIMIT for file in posted] == [True]


@pytest.mark.parametrize("room", range(140_000, 141_000, 83))
def test_a_draft_never_outgrows_its_limit(room):
    draft = draft_of(mail_with(100_000, 5_000, 300), room)
    assert len(draft.body) <= room
    assert len(draft.posts) + len(json.loads(draft.body).get("attachments", [])) == 3


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (HEAD + b"From: c@x.nl\r\n\r\nhoi\r\n", "2 addresses in From"),
        (HEAD + b"Subject: y\r\n\r\nhoi\r\n", "2 Subject fields"),
        (HEAD + b"Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n\r\nhoi\r\n", "2 Message-ID fields"),
        (HEAD + b"Content-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\n", "text/calendar"),
        (HEAD + b"Content-Type: multipart/report; boundary=b\r\n\r\n--b--\r\n", "multipart/report"),
        (HEAD + b"Content-Type: application/pkcs7-mime\r\n\r\nx\r\n", "S/MIME"),
        (HEAD + b"Content-Type: application/pdf; name=a.pdf\r\n\r\n", "an empty file"),
        (HEAD + b"\r\n" + b"x" * LIMIT, "a text larger than one request"),
    ],
)
def test_what_a_draft_cannot_say_is_refused_by_name(content, named):
    with pytest.raises(Unsayable, match=named):
        draft_of(content, LIMIT)


def test_header_fields_of_ours_are_one_line_of_ascii():
    made = said(HEAD + b"X-Long: a\r\n b\r\nX-8bit: caf\xc3\xa9\r\nX-Q: =?utf-8?q?=C3=A9?=\r\nX-None:\r\n\r\nhoi\r\n")
    assert made["internetMessageHeaders"] == [
        {"name": "X-Long", "value": "a b"},
        {"name": "X-8bit", "value": "=?utf-8?b?Y2Fmw6k=?="},
        {"name": "X-Q", "value": "=?utf-8?q?=C3=A9?="},
    ]
