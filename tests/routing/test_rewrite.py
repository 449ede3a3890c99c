"""Sending from another mailbox: the golden mails, the policies, and what no config or mail may bring about."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.rules import Sender
from intake.repairs import repair
from routing.addresses import Mailbox, addresses
from routing.headers import fields, mailboxes, split, value, values
from routing.rewrite import rewrite

MAILS = Path(__file__).parents[1] / "cases" / "mails"
HOOLI = Sender(address="hooli@callcenter.nl")
NAMES = sorted(path.stem for path in MAILS.glob("*.eml"))


def mail(*lines: bytes) -> bytes:
    return b"\r\n".join((*lines, b"To: jan@example.org", b"", b"From: body\r\n"))


@pytest.mark.parametrize("name", NAMES)
def test_golden_mails(name: str) -> None:
    repaired = (MAILS / f"{name}.repaired").read_bytes()
    assert rewrite("info@acme.nl", repaired, HOOLI).content == (MAILS / f"{name}.rewritten").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_second_time_changes_nothing(name: str) -> None:
    once = rewrite("info@acme.nl", (MAILS / f"{name}.repaired").read_bytes(), HOOLI)
    twice = rewrite(once.sender, once.content, HOOLI)
    assert twice.content is once.content
    assert twice.changes == ()


def test_from_and_mail_from_change_together_and_replies_go_to_the_original() -> None:
    changed = rewrite("bounce@acme.nl", mail(b'From: "Acme, Ltd" <info@acme.nl>', b"Sender: x@acme.nl"), HOOLI)
    assert changed.sender == "hooli@callcenter.nl"
    assert mailboxes(changed.content, "From") == (Mailbox("Acme, Ltd", "hooli@callcenter.nl"),)
    assert mailboxes(changed.content, "Reply-To") == (Mailbox("Acme, Ltd", "info@acme.nl"),)
    assert value(changed.content, "Sender") is None
    assert changed.changes == ("MAIL FROM", "From", "Sender", "Reply-To")


def test_a_null_envelope_sender_stays_null() -> None:
    changed = rewrite("", mail(b"From: info@acme.nl"), HOOLI)
    assert changed.sender == ""
    assert "MAIL FROM" not in changed.changes
    assert mailboxes(changed.content, "From") == (Mailbox("", "hooli@callcenter.nl"),)


def test_the_configured_name_wins_and_is_encoded() -> None:
    changed = rewrite(
        "info@acme.nl", mail(b"From: X <info@acme.nl>"), Sender(address="k@callcenter.nl", name="Één & Co")
    )
    assert (value(changed.content, "From") or b"").isascii()
    assert mailboxes(changed.content, "From") == (Mailbox("Één & Co", "k@callcenter.nl"),)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"info@acme.nl <info@acme.nl>", ""),
        (b'"Jan (info@acme.nl)" <info@acme.nl>', "Jan"),
        (b"\"'info@acme.nl'\" <info@acme.nl>", ""),
        (b'"Acme, info@acme.nl" <info@acme.nl>', "Acme"),
        (b'"Info @ Acme" <info@acme.nl>', "Info @ Acme"),
        (b"=?utf-8?q?info=40acme=2Enl?= <info@acme.nl>", ""),
        (b"=?utf-8?q?info=EF=BC=A0acme=2Enl?= <info@acme.nl>", ""),
        (b"info@acme.nl (Jan)", "Jan"),
    ],
)
def test_no_address_in_the_display_name(raw: bytes, name: str) -> None:
    changed = rewrite("info@acme.nl", mail(b"From: " + raw), HOOLI)
    assert mailboxes(changed.content, "From") == (Mailbox(name, "hooli@callcenter.nl"),)


def test_an_existing_reply_to_is_kept() -> None:
    changed = rewrite("info@acme.nl", mail(b"From: info@acme.nl", b"Reply-To: Help <help@acme.nl>"), HOOLI)
    assert values(changed.content, "Reply-To") == (b" Help <help@acme.nl>",)


def test_an_empty_reply_to_is_none() -> None:
    changed = rewrite("info@acme.nl", mail(b"From: info@acme.nl", b"Reply-To:"), HOOLI)
    assert values(changed.content, "Reply-To") == (b" info@acme.nl",)


def test_reply_to_none_and_fixed() -> None:
    given_mail = mail(b"From: info@acme.nl", b"Reply-To: help@acme.nl", b"Reply-To: b@acme.nl")
    none = rewrite("info@acme.nl", given_mail, Sender(address="h@c.nl", reply_to="none"))
    fixed = rewrite("info@acme.nl", given_mail, Sender(address="h@c.nl", reply_to="Desk <desk@c.nl>"))
    assert values(none.content, "Reply-To") == ()
    assert values(fixed.content, "Reply-To") == (b" Desk <desk@c.nl>",)


def test_the_original_from_stays_readable_when_asked_for() -> None:
    asked = Sender(address="hooli@callcenter.nl", original_from=True)
    given_mail = mail("From: Café Zuid <info@acme.nl>".encode(), b"X-Original-From: someone@else.nl")
    changed = rewrite("info@acme.nl", given_mail, asked)
    assert values(changed.content, "X-Original-From") == (b" =?utf-8?q?Caf=C3=A9_Zuid?= <info@acme.nl>",)
    assert "X-Original-From" in changed.changes
    assert rewrite(changed.sender, changed.content, asked).content is changed.content
    assert values(rewrite("info@acme.nl", given_mail, HOOLI).content, "X-Original-From") == (b" someone@else.nl",)


def test_several_from_fields_become_one_and_all_get_the_reply() -> None:
    changed = rewrite("info@acme.nl", mail(b"From: A <a@acme.nl>", b"FROM: b@acme.nl", b"from : a@acme.nl"), HOOLI)
    assert mailboxes(changed.content, "From") == (Mailbox("A", "hooli@callcenter.nl"),)
    assert [box.address for box in mailboxes(changed.content, "Reply-To")] == ["a@acme.nl", "b@acme.nl", "a@acme.nl"]


def test_without_from_the_envelope_sender_gets_the_reply() -> None:
    changed = rewrite("info@acme.nl", mail(b"Subject: x"), HOOLI)
    assert values(changed.content, "From") == (b" hooli@callcenter.nl",)
    assert values(changed.content, "Reply-To") == (b" info@acme.nl",)


def test_a_mail_that_is_right_already_is_the_same_object_with_its_signature() -> None:
    right = mail(b"From: Hooli\r\n <HOOLI@callcenter.nl>".replace(b"HOOLI", b"hooli"), b"DKIM-Signature: v=1; b=x")
    unchanged = rewrite("hooli@callcenter.nl", right, HOOLI)
    assert unchanged.content is right
    assert unchanged.changes == ()


def test_the_old_signature_goes_as_its_from_changes() -> None:
    changed = rewrite("info@acme.nl", mail(b"DKIM-Signature: v=1;\r\n b=x", b"From: info@acme.nl"), HOOLI)
    assert value(changed.content, "DKIM-Signature") is None
    assert "DKIM-Signature" in changed.changes


RAW = st.text('<>@,;:"\\()[] \t=?éab.nl', max_size=40).map(lambda text: text.encode("utf-8"))
FIELDS = st.lists(
    st.tuples(st.sampled_from([b"From", b"from ", b"Sender", b"Reply-To", b"X"]), RAW).map(b": ".join), max_size=5
)
OUR_FIELDS = {"from", "sender", "reply-to", "x-original-from", "x"}
ANY_TEXT = st.text('\r\n\0<>@,;:"\\ éab.nl\u2028', max_size=30)
SENDERS = st.builds(
    Sender,
    address=ANY_TEXT.map(lambda text: f"{text}@c.nl"),
    name=st.none() | ANY_TEXT,
    reply_to=st.sampled_from(["original", "none"]) | ANY_TEXT,
    original_from=st.booleans(),
)


@given(FIELDS, SENDERS, st.sampled_from(["", "info@acme.nl"]), st.binary(max_size=40))
def test_no_config_and_no_mail_brings_in_a_field(
    lines: list[bytes], sender: Sender, envelope: str, body: bytes
) -> None:
    content = b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
    changed = rewrite(envelope, content, sender)
    assert split(changed.content)[1] == b"\r\n" + body
    assert {field.name.strip().lower() for field in fields(changed.content)} <= OUR_FIELDS
    assert len(values(changed.content, "From")) == 1
    assert len(addresses(values(changed.content, "From")[0])) <= 1


@given(FIELDS, st.binary(max_size=60))
def test_after_the_repairs_the_from_is_always_ours(lines: list[bytes], body: bytes) -> None:
    content = repair(b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body, 0, "relay.example", "1").content
    changed = rewrite("info@acme.nl", content, HOOLI)
    assert [box.address for box in mailboxes(changed.content, "From")] == ["hooli@callcenter.nl"]


@given(FIELDS, SENDERS, st.binary(max_size=60))
def test_an_address_that_is_one_is_only_written_once(lines: list[bytes], sender: Sender, body: bytes) -> None:
    sound = Sender(address="hooli@callcenter.nl", name=sender.name, original_from=sender.original_from)
    content = b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
    once = rewrite("info@acme.nl", content, sound)
    twice = rewrite(once.sender, once.content, sound)
    assert twice.content is once.content
    assert twice.changes == ()
