"""DKIM signatures, verified by programs that are not ours: dkimpy, and opendkim where it is installed."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from dkim.canonicalization import CanonicalizationPolicy
from hypothesis import given
from hypothesis import strategies as st

from config.credentials import Secret
from config.rules import Dkim
from routing.headers import fields, split, value
from routing.signing import Signer, SigningKeyInvalid, canonical_body, canonical_field
from routing.transfer_encoding import seven_bit

NOW = 1793610000.0
HEAD = (
    b"Received: from callpro\r\n\tby relay.example; Mon, 2 Nov 2026 09:00:00 +0100\r\nFrom: Acme\r\n <info@acme.nl>\r\n"
    b"To:  jan@example.org,\r\n\tpiet@example.org \r\nsubject: a\t b  \r\nSubject: again\r\nX-Not: signed\r\n"
    b"List-Unsubscribe: <https://acme.nl/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
)
BODIES = {
    "plain": b"Text.\r\n",
    "eight-bit": "Één zin à € 5.\r\n".encode("windows-1252"),
    "long-line": b"x " * 5000 + b"\r\n",
    "empty": b"",
    "only-empty-lines": b"\r\n\r\n\r\n",
    "trailing-empty-lines": b"Text.\r\n\r\n\r\n",
    "trailing-spaces": b"Text \t \r\n  indented   twice\t\r\n \r\n",
    "dots": b".\r\n..\r\n.x\r\n",
}

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def pem(key: PrivateKey, encryption: KeySerializationEncryption | None = None) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


RSA_KEY = rsa.generate_private_key(65537, 2048)
ED_KEY = ed25519.Ed25519PrivateKey.generate()
BOTH = (
    Dkim(domain="acme.nl", selector="r1", key=Secret("env:RSA", pem(RSA_KEY))),
    Dkim(domain="acme.nl", selector="e1", key=Secret("env:ED", pem(ED_KEY))),
)


def records() -> dict[bytes, bytes]:
    rsa_public = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ed_public = ED_KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {
        b"r1._domainkey.acme.nl.": b"v=DKIM1; k=rsa; p=" + base64.b64encode(rsa_public),
        b"e1._domainkey.acme.nl.": b"v=DKIM1; k=ed25519; p=" + base64.b64encode(ed_public),
    }


def verified(content: bytes, index: int = 0) -> bool:
    """What dkimpy says of one signature, the first from the top at 0. It raises when a hash differs."""
    try:
        return bool(dkim.DKIM(content).verify(idx=index, dnsfunc=lambda name, timeout=5: records().get(name)))
    except dkim.ValidationError:
        return False


@pytest.mark.parametrize("body", BODIES)
def test_both_signatures_are_sound(body: str) -> None:
    signed = Signer(BOTH).sign(HEAD + b"\r\n" + BODIES[body], NOW)
    assert signed.endswith(seven_bit(HEAD + b"\r\n" + BODIES[body]))
    first, second = fields(signed)[:2]
    assert (first.name, second.name) == ("DKIM-Signature", "DKIM-Signature")
    assert verified(signed)
    assert verified(signed, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Text.", b"Test."),
        (b"<info@acme.nl>", b"<info@acme.org>"),
        (b"Subject: again", b"Subject: gain"),
        (b"Received:", b"From: evil@acme.nl\r\nReceived:"),
        (b"Text.\r\n", b"Text.\r\nMore.\r\n"),
    ],
)
def test_a_change_on_the_way_breaks_the_signature(old: bytes, new: bytes) -> None:
    signed = Signer(BOTH[:1]).sign(HEAD + b"\r\n" + BODIES["plain"], NOW)
    assert verified(signed)
    assert not verified(signed.replace(old, new))


def test_what_the_signature_says() -> None:
    raw = value(Signer(BOTH[:1]).sign(HEAD + b"\r\nText.\r\n", NOW), "DKIM-Signature") or b""
    tags = dict(tag.strip().split(b"=", 1) for tag in b"".join(raw.split()).split(b";"))
    assert tags[b"h"] == b"from:from:to:subject:subject:list-unsubscribe:list-unsubscribe-post"
    assert (tags[b"a"], tags[b"c"], tags[b"t"]) == (b"rsa-sha256", b"relaxed/relaxed", b"1793610000")
    assert (tags[b"d"], tags[b"s"]) == (b"acme.nl", b"r1")
    assert not {b"l", b"x"} & set(tags)
    assert max(map(len, raw.split(b"\r\n"))) <= 78


def test_signing_with_no_key_returns_the_mail() -> None:
    content = HEAD + b"\r\nText.\r\n"
    assert Signer(()).sign(content, NOW) == content


def test_a_mail_of_only_fields_is_signed() -> None:
    assert verified(Signer(BOTH).sign(HEAD, NOW))


LINES = st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"  ", b"b\xe9", b".", b" \r\n"]), max_size=12).map(
    b"".join
)


@given(LINES)
def test_our_relaxed_body_is_that_of_dkimpy(body: bytes) -> None:
    policy = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")
    assert canonical_body(body + b"\r\n") == policy.canonicalize_body(body + b"\r\n")


@pytest.mark.parametrize("line", [b"\r\n", b" \t\r\n", b"\r\r\n", b"\n"])
def test_empty_lines_cost_no_step_each(line: bytes) -> None:
    """17 million of them fit a mail; a loop over them kept every other client waiting for seconds."""

    def steps(body: bytes) -> int:
        seen: list[str] = []
        sys.setprofile(lambda _frame, event, _what: seen.append(event))
        try:
            canonical_body(body)
        finally:
            sys.setprofile(None)
        return len(seen)

    assert steps(b"Text.\r\n" + line * 50_000) == steps(b"Text.\r\n" + line * 5)


@given(LINES.map(lambda raw: raw.replace(b"\r\n", b"\r\n ")))
def test_our_relaxed_field_is_that_of_dkimpy(raw: bytes) -> None:
    policy = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")
    expected = policy.canonicalize_headers([(b"SubJect", raw + b"\r\n")])
    assert canonical_field("SubJect", raw) == b":".join(expected[0]).removesuffix(b"\r\n")


@given(LINES)
def test_everything_but_the_top_field_stays(body: bytes) -> None:
    signed = Signer(BOTH[1:]).sign(HEAD + b"\r\n" + body, NOW)
    assert signed[fields(split(signed)[0])[0].end :] == seven_bit(HEAD + b"\r\n" + body)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("no key at all, hush", "not a private key in PEM"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "neither RSA nor Ed25519"),
        (pem(RSA_KEY, BestAvailableEncryption(b"x")), "has a password"),
        ("-----BEGIN PRIVATE KEY-----\nMIIBVAIBADANBgkqhkiG\n-----END PRIVATE KEY-----\n", "not a private key in PEM"),
    ],
)
def test_a_bad_key_is_named_and_not_shown(key: str, says: str) -> None:
    with pytest.raises(SigningKeyInvalid, match=says) as caught:
        Signer((Dkim(domain="acme.nl", selector="s", key=Secret("file:/keys/acme", key)),))
    assert "file:/keys/acme" in str(caught.value)
    assert not any(line in str(caught.value) for line in key.splitlines())
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the short key; cryptography does not, and it is not installed")
    made = subprocess.run(["openssl", "genrsa", "768"], capture_output=True, text=True, check=True).stdout
    with pytest.raises(SigningKeyInvalid, match=r"768 bits|not a private key"):
        Signer((Dkim(domain="acme.nl", selector="s", key=Secret("env:K", made)),))


@pytest.mark.parametrize(
    ("domain", "selector"), [("acme.nl; l=0", "s"), ("acme.nl", "s;x=1"), ("a\r\nb", "s"), ("", "s")]
)
def test_a_name_that_is_none_cannot_reach_the_field(domain: str, selector: str) -> None:
    with pytest.raises(SigningKeyInvalid, match="is not a DNS name"):
        Signer((Dkim(domain=domain, selector=selector, key=Secret("env:K", pem(RSA_KEY))),))


def test_no_key_in_a_repr() -> None:
    assert "PRIVATE" not in repr(Signer(BOTH))
    assert str(RSA_KEY.private_numbers().d) not in repr(Signer(BOTH))


@pytest.mark.parametrize("body", BODIES)
def test_opendkim_verifies(body: str, tmp_path: Path) -> None:
    program = shutil.which("opendkim") or shutil.which("opendkim", path="/usr/sbin")
    if not program:
        pytest.skip("opendkim is not installed")
    keys = tmp_path / "keys"
    keys.write_bytes(b"".join(name.rstrip(b".") + b" " + text + b"\n" for name, text in records().items()))
    mail = tmp_path / "mail"
    mail.write_bytes(Signer(BOTH[:1]).sign(HEAD + b"Date: Mon, 2 Nov 2026 09:00:00 +0100\r\n\r\n" + BODIES[body], NOW))
    config = tmp_path / "opendkim.conf"
    config.write_text(f"TestPublicKeys {keys}\nMode v\n")
    done = subprocess.run([program, "-x", config, "-t", mail], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verification (s=r1" in done.stdout + done.stderr
    assert "succeeded" in done.stdout + done.stderr
