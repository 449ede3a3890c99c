"""The declared losses of Graph and SendGrid: each sentence when, and only when, the mail at hand is concerned."""

from __future__ import annotations

import pytest

from config.credentials import Secret
from tests.upstreams.test_graph_large import mail_with
from upstreams.graph import KIND as GRAPH
from upstreams.graph import GraphSettings
from upstreams.sendgrid import KIND as SENDGRID
from upstreams.sendgrid import SendGridSettings

PLAIN = b"From: a@x.nl\r\nTo: b@y.nl\r\nSubject: geheim\r\nMessage-ID: <1@x.nl>\r\n\r\nhoi\r\n"
LARGE = mail_with(3_200_000)


def graph(content: bytes, large: str = "next") -> str:
    key = Secret("env:X", "s")
    given = GraphSettings(tenant="x.nl", client_id="1", client_secret=key, large=large)
    return "\n".join(GRAPH.losses(given, content))


def sendgrid(content: bytes, method: str) -> str:
    return "\n".join(SENDGRID.losses(SendGridSettings(api_key=Secret("env:X", "SG.k"), method=method), content))


@pytest.mark.parametrize("content", [PLAIN, LARGE])
def test_every_mail_by_graph_stays_in_sent_items_and_gets_another_return_path(content):
    said = graph(content, "draft")
    assert "Sent Items" in said
    assert "Return-Path becomes the mailbox" in said
    assert "geheim" not in said


@pytest.mark.parametrize(
    ("line", "one_request", "draft"),
    [
        ("Auto-Submitted: auto-generated", "with X-: Auto-Submitted.", "cannot hold these fields: Auto-Submitted."),
        ("References: <2@x.nl>", "do not begin with X-: References.", "cannot hold these fields: References."),
        ("X-CallPro-Id: 1", "never sent before: X-CallPro-Id.", ""),
        ("X-Empty: ", "never sent before: X-Empty.", "lost are: X-Empty."),
        ("List-Unsubscribe: <https://x.nl>", "do not begin with X-: List-Unsubscribe.", ""),
        ("List-Unsubscribe-Post: List-Unsubscribe=One-Click", "RFC 8058", "RFC 8058"),
        ("DKIM-Signature: v=1", "DKIM-Signature is taken out", "DKIM-Signature is taken out"),
        ("Resent-To: c@y.nl", "mail whom they name: Resent-To.", "mail whom they name: Resent-To."),
        ("no field at all", "no field are taken out", "no field are taken out"),
        ("Sender: c@y.nl", "do not begin with X-: Sender.", "Sender becomes the mailbox"),
        ("Importance: high", "do not begin with X-: Importance.", ""),
        ("Importance: urgent", "do not begin with X-: Importance.", "Importance is lost"),
        ("Date: Sun, 22 Nov 2026 07:29:05 +0100", "", "Date becomes"),
    ],
)  # fmt: skip
def test_a_field_is_named_where_it_is_lost(line, one_request, draft):
    raw = line.encode() + b"\r\n"
    assert_said(one_request, graph(PLAIN, "draft"), graph(raw + PLAIN, "draft"))
    large = graph(raw + LARGE, "draft")
    assert "cannot hold it:" not in large
    assert draft in large


def assert_said(sentence: str, without: str, having: str) -> None:
    assert sentence in having
    assert not sentence or sentence not in without


def test_a_draft_holds_five_x_fields_and_one_version_of_the_text():
    fields = "".join(f"X-Field-{number}: {number}\r\n" for number in range(7)).encode()
    assert "lost are: X-Field-5, X-Field-6." in graph(fields + LARGE, "draft")
    assert "lost are" not in graph(LARGE, "draft")
    both = mail_with(3_200_000, html="<p>Beste Jan</p>")
    assert "plain text beside the HTML is lost" in graph(both, "draft")
    assert "plain text beside the HTML is lost" not in graph(LARGE, "draft")
    flowed = LARGE.replace(b'charset="utf-8"', b"charset=utf-8; format=flowed", 1)
    assert "RFC 3676" in graph(flowed, "draft")


def test_a_message_id_that_is_none_is_replaced():
    assert "Message-ID is replaced" in graph(LARGE.replace(b"<1@initech.nl>", b"<1 @ initech>"), "draft")
    assert "Message-ID" not in graph(LARGE, "draft")


def test_a_mail_too_large_says_where_it_goes():
    assert "next upstream" in graph(LARGE)
    signed = graph(LARGE.replace(b"multipart/mixed", b"multipart/signed", 1), "draft")
    assert "multipart/signed" in signed
    assert "next upstream" in signed


def test_sendgrid_by_smtp_takes_out_only_its_own_field():
    assert "X-SMTPAPI" in sendgrid(b"x-smtpapi: {}\r\n" + PLAIN, "smtp")
    assert "X-SMTPAPI" not in sendgrid(PLAIN, "smtp")


def test_the_small_changes_of_sendgrids_api_are_named():
    odd = PLAIN.replace(b"To: b@y.nl", b'To: "Vries, J" <b@y.nl>\r\nContent-Type: text/plain; format=flowed')
    assert "names of people become spaces" in sendgrid(odd, "api")
    assert "RFC 3676" in sendgrid(odd, "api")
    for sentence in ("names of people", "RFC 3676"):
        assert sentence not in sendgrid(PLAIN, "api") + sendgrid(odd, "smtp")


def test_sendgrid_by_its_api_names_what_it_does_not_carry_or_why_it_refuses():
    assert "Not carried: Received, DKIM-Signature." in sendgrid(
        b"Received: x\r\nDKIM-Signature: v=1\r\n" + PLAIN, "api"
    )
    assert "Not carried" not in sendgrid(PLAIN, "api")
    refused = sendgrid(PLAIN.replace(b"To: b@y.nl", b"Content-Type: multipart/signed; boundary=b"), "api")
    assert "multipart/signed" in refused
    assert "`method: smtp`" in refused
