"""What is said to be lost by Campaign Monitor is what its requests leave out."""

from __future__ import annotations

import json

import pytest

from tests.upstreams.sendgrid_cases import cases
from upstreams.campaign_monitor_body import letter_of
from upstreams.campaign_monitor_losses import losses_of
from upstreams.mime_parts import Unsayable

PLAIN = b"From: Anna <anna@acme.nl>\r\nTo: a@x.nl\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (b"", ()),
        (b"X-Secret: hush\r\nmessage-id: <1@x>\r\nx-secret: 2\r\n", ("left out: x-secret, message-id.",)),
        (b'Cc: "Vries, de" <b@x.nl>\r\n', ("Punctuation",)),
        (b"Reply-To: Verkoop <v@acme.nl>\r\n", ("Reply-To",)),
        (b"Reply-To: v@acme.nl\r\n", ()),
        (b"Reply-To: v@acme.nl, w@acme.nl\r\n", ("refused: 2 addresses in Reply-To",)),
    ],
)
def test_each_loss_is_a_sentence_and_no_content_shows(more, said):
    losses = losses_of(PLAIN + more + b"\r\nhush\r\n")
    assert len(losses) == len(said)
    assert all(part in loss for part, loss in zip(said, losses, strict=True))
    assert "hush" not in "".join(losses)


def test_html_alone_and_files_shown_in_place():
    html = PLAIN.replace(b"text/plain", b"text/html")
    assert "plain version" in losses_of(html + b"\r\n<p>hi\r\n")[0]
    mixed = PLAIN.replace(b"text/plain", b"multipart/mixed; boundary=b")
    body = b"\r\n--b\r\n\r\nhi\r\n--b\r\nContent-Type: image/png\r\nContent-Disposition: inline\r\n\r\nx\r\n--b--\r\n"
    assert "become attachments" in losses_of(mixed + body)[0]


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_a_mail_that_is_refused_says_only_that(case):
    losses = losses_of(case.mail.content)
    try:
        said = json.dumps(dict(letter_of(case.mail.content, None).fields))
    except Unsayable as reason:
        said = ""
        refused = f"Campaign Monitor's API cannot carry it, it would be refused: {reason}."
    else:
        refused = ""
    assert (losses == (refused,)) is not bool(said)
