"""Taking a mail apart: the tree, the parameters, the charsets, the limits, and no surprise on any bytes."""

from __future__ import annotations

import base64
import email
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upstreams.mime_content import Content, base64_of, content_of, octets_of
from upstreams.mime_parts import DEPTH_LIMIT, PARTS_LIMIT, Part, Unsayable, characters, take_apart


def apart(*lines: str) -> Part:
    return take_apart("\r\n".join([*lines, ""]).encode())


def nested(levels: int) -> bytes:
    content = b"\r\nhi\r\n"
    for level in range(levels):
        head = b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n" % level
        content = head + b"--b%d\r\n" % level + content + b"\r\n--b%d--\r\n" % level
    return content


def test_the_tree_points_into_the_mail_and_copies_nothing():
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    content = head + b"--b\r\n\r\nhi\r\n--b\r\nContent-ID: <x@y>\r\n\r\nho\r\n--b--\r\n"
    tree = take_apart(content)
    assert [part.encoded for part in tree.parts] == [b"hi", b"ho"]
    assert all(part.content is content for part in tree.parts)
    assert tree.parts[1].content_id == "x@y"


@pytest.mark.parametrize(
    ("value", "parameter", "expected"),
    [
        ('text/plain; name="a \\"b\\".txt"', "name", 'a "b".txt'),
        ("text/plain; NAME=a b.txt ; charset=utf-8", "name", "a b.txt"),
        ("text/plain; charset=us-ascii (plain)", "charset", "us-ascii"),
        ("text/plain; name*=utf-8'nl'%E2%82%AC.txt", "name", "€.txt"),
        ("text/plain; name*1=b.txt; name*0=a", "name", "ab.txt"),
        ("text/plain; name*0*=windows-1252''%80; name*1=.txt", "name", "€.txt"),
        ("text/plain; name*=x-no-such''%E9.txt", "name", "é.txt"),
        ("text/plain; name*=no-quotes", "name", "no-quotes"),
        ('text/plain; name="=?utf-8?b?4oKsLnR4dA==?="', "name", "€.txt"),
        ('text/plain; name="never closed', "name", '"never closed'),
        ("text/plain; name=a; name=b", "name", "a"),
    ],
)
def test_parameters(value, parameter, expected):
    assert apart(f"Content-Type: {value}", "", "x").parameters[parameter] == expected


@pytest.mark.parametrize(
    ("line", "kind", "name"),
    [
        ("attachment; filename=a.pdf", "attachment", "a.pdf"),
        ("INLINE", "inline", ""),
        ("form-data; filename=a.pdf", "attachment", "a.pdf"),
        ('attachment; filename="/etc/x/a.pdf"', "attachment", "/etc/x/a.pdf"),
    ],
)
def test_dispositions(line, kind, name):
    part = apart(f"Content-Disposition: {line}", "", "x")
    assert (part.disposition, part.filename) == (kind, name)


@pytest.mark.parametrize(
    ("octets", "charset", "expected"),
    [
        ("é€".encode(), "UTF-8", "é€"),
        (b"\x80", "iso-8859-1", "€"),
        (b"\xe9", "us-ascii", "é"),
        ("é".encode(), "", "é"),
        (b"\xe9", "utf-8", "é"),
        ("é".encode("utf-16"), "utf-16", "é"),
        (b"\\u0041", "unicode_escape", "\\u0041"),
        (b"abc", "zlib", "abc"),
        (b"abc", "a\x00b", "abc"),
        (b"\xa4", "iso-8859-15", "€"),
    ],
)
def test_a_wrong_charset_loses_nothing(octets, charset, expected):
    assert characters(octets, charset) == expected


def test_a_mail_without_mime_headers_is_plain_text():
    assert apart("Subject: x", "", "hi").media_type == "text/plain"
    assert apart("Content-Type: nonsense", "", "hi").media_type == "text/plain"


def test_limits_are_refused_by_name():
    assert take_apart(nested(DEPTH_LIMIT)).media_type == "multipart/mixed"
    with pytest.raises(Unsayable, match="levels"):
        take_apart(nested(DEPTH_LIMIT + 1))
    with pytest.raises(Unsayable, match="parts"):
        take_apart(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * PARTS_LIMIT)
    with pytest.raises(Unsayable, match="8 KB"):
        apart("Content-Type: text/plain; name=" + "a" * 9000, "", "x")


@pytest.mark.parametrize("kind", ["signed", "encrypted", "report", "digest", "x-made-up"])
def test_containers_that_cannot_be_built_anew_are_refused_wherever_they_stand(kind):
    with pytest.raises(Unsayable, match=f"multipart/{kind}"):
        apart(
            "Content-Type: multipart/mixed; boundary=b", "", "--b", f"Content-Type: Multipart/{kind}", "", "x", "--b--"
        )


def test_what_stands_inside_a_forwarded_message_is_not_looked_at():
    tree = apart("Content-Type: message/rfc822", "", "Content-Type: multipart/signed", "", "x")
    assert (tree.media_type, tree.parts) == ("message/rfc822", ())


def test_clean_base64_is_passed_through_and_other_encodings_are_encoded():
    octets = bytes(range(256)) * 3
    lines = base64.encodebytes(octets).decode().splitlines()
    assert base64_of(apart("Content-Transfer-Encoding: base64", "", *lines)) == base64.b64encode(octets)
    assert base64_of(apart("", "raw")) == base64.b64encode(b"raw\r\n")
    quoted = apart("Content-Transfer-Encoding: Quoted-Printable", "", "=E9=", "x")
    assert base64_of(quoted) == base64.b64encode(b"\xe9x\r\n")


@given(st.binary(max_size=300), st.sampled_from([b"\r\n", b" ", b"\t\r\n", b"*"]), st.booleans())
def test_base64_with_anything_between_its_signs_is_the_same_file(octets, junk, padded):
    signs = base64.b64encode(octets)
    signs = signs if padded else signs.rstrip(b"=")
    untidy = junk.join(signs[i : i + 5] for i in range(0, len(signs), 5))
    part = take_apart(b"Content-Transfer-Encoding: base64\r\n\r\n" + untidy + b"\r\n")
    assert octets_of(part) == octets
    assert base64.b64decode(base64_of(part), validate=True) == octets


def sorted_out(*lines: str) -> Content:
    return content_of(apart(*lines))


def test_a_nested_container_of_files_only_gives_files():
    content = sorted_out(
        "Content-Type: multipart/mixed; boundary=a", "", "--a", "", "text", "--a",
        "Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: image/png; name=x.png", "", "x",
        "--b", "Content-Disposition: attachment", "", "y", "--b--", "--a--",
    )  # fmt: skip
    assert [text.value for text in content.texts] == ["text"]
    assert [file.filename for file in content.attachments] == ["x.png", "attachment.txt"]


BITS = [
    b"\r\n", b"\r\n", b"\r\n--b\r\n", b"\r\n--b--\r\n", b"\r\n--c\r\n", b"Content-Type: multipart/mixed; boundary=b",
    b"Content-Type: multipart/related; boundary=c; start=x", b"Content-Type: multipart/alternative; boundary=\"b\"",
    b"Content-Type: text/html; charset=\xff", b"Content-Transfer-Encoding: base64", b"Content-ID: <x>", b"AAA=",
    b"\x00\xff", b"Content-Disposition: attachment; filename*0*=''%", b'"', b"(", b";", b"=?utf-8?q?=",
]  # fmt: skip


@settings(max_examples=400)
@given(st.lists(st.sampled_from(BITS) | st.binary(max_size=8), max_size=25))
def test_any_bytes_give_content_or_a_named_reason(bits):
    try:
        content = content_of(take_apart(b"".join(bits)))
        for file in content.attachments:
            file.base64()
    except Unsayable as reason:
        named = str(reason)
    else:
        named = "carried"
    assert named


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1), min_size=1, max_size=4))
def test_what_the_standard_library_writes_is_read_back(texts):
    mail = email.message.EmailMessage(policy=email.policy.SMTP)
    mail.set_content("body")
    for text in texts:
        mail.add_attachment(text.encode(), maintype="application", subtype="octet-stream", filename="x.bin")
    content = content_of(take_apart(mail.as_bytes()))
    assert [octets_of(file.part) for file in content.attachments] == [text.encode() for text in texts]


def test_a_file_is_in_the_text_when_the_html_refers_to_it_and_not_otherwise():
    def mixed(*heads: str) -> Content:
        lines = ["Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: text/html", ""]
        lines += ['<img src="cid:logo%40acme.nl">', *[f"--b\r\n{head}\r\n\r\nx" for head in heads], "--b--"]
        return content_of(apart(*lines))

    content = mixed(
        "Content-Type: image/png\r\nContent-ID: <Logo@acme.nl>\r\nContent-Disposition: attachment",
        "Content-Type: application/pdf\r\nContent-ID: <other@acme.nl>",
        "Content-Type: application/pdf\r\nContent-Disposition: inline",
    )
    assert [(file.inline, file.in_text) for file in content.attachments] == [
        (True, True),
        (False, False),
        (True, False),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ("", "-----BEGIN PGP SIGNED MESSAGE-----", "Hash: SHA256", "", "caf\u00e9"),
        ("", "see below", "-----BEGIN PGP SIGNED MESSAGE-----", "Hash: SHA256", "", "hi"),
        ("Content-Type: application/octet-stream; name=smime.P7M", "", "x"),
        ("Content-Type: application/x-pkcs7-mime", "", "x"),
    ],
)
def test_what_must_keep_its_bytes_is_never_built_anew(lines):
    with pytest.raises(Unsayable):
        content_of(apart(*lines))
