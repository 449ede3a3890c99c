"""Mails like CallPro's: Dutch names, accents, inline images, PDFs, large attachments. Written out, not generated."""

from __future__ import annotations

import base64
import email
import email.policy
from email.message import EmailMessage

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n" + bytes(
    range(256)
)


def plain(sender: str, to: str, subject: str = "Uw bevestiging") -> bytes:
    """A short mail in plain text, with CRLF line endings."""
    return (
        f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: Sun, 22 Nov 2026 10:00:00 +0100\r\n"
        f"Message-ID: <plain.1@callpro.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"\r\nBeste klant,\r\n\r\nUw afspraak staat.\r\n.\r\n..twee punten\r\n"
    ).encode()


def rich(sender: str, to: str, cc: str | None = None) -> bytes:
    """Text, HTML with an inline image, and a PDF; accents in names, subject, text and file name."""
    mail = EmailMessage(policy=email.policy.SMTP)
    mail["From"], mail["To"] = f"Reünie Café België <{sender}>", to
    if cc:
        mail["Cc"] = cc
    mail["Subject"] = "Één coördinatie: uw offerte à € 12,50"
    mail["Date"], mail["Message-ID"] = "Sun, 22 Nov 2026 10:00:00 +0100", "<rich.1@callpro.test>"
    mail.set_content("Geachte heer/mevrouw Müller,\n\nDe offerte à € 12,50 is bijgevoegd.\n", cte="quoted-printable")
    mail.add_alternative('<p>De offerte is <b>bijgevoegd</b>.</p><img src="cid:logo">', subtype="html")
    mail.get_payload()[1].add_related(PNG, "image", "png", cid="<logo>", filename="logo.png")  # type: ignore[union-attr, index]
    mail.add_attachment(PDF, "application", "pdf", filename="offerte-één.pdf")
    return mail.as_bytes()


def large(sender: str, to: str, octets: int) -> bytes:
    """A mail with one attachment of that many octets, which do not repeat."""
    mail = EmailMessage(policy=email.policy.SMTP)
    mail["From"], mail["To"], mail["Subject"] = sender, to, "Bijlage"
    mail["Date"], mail["Message-ID"] = "Sun, 22 Nov 2026 10:00:00 +0100", "<large.1@callpro.test>"
    mail.set_content("Zie bijlage.\n")
    block = bytes(range(256)) * 16
    data = b"".join(number.to_bytes(8, "big") + block for number in range(octets // (len(block) + 8) + 1))[:octets]
    mail.add_attachment(data, "application", "octet-stream", filename="opname.wav")
    return mail.as_bytes()


def parts(content: bytes) -> dict[str, bytes]:
    """What a reader sees: content type (or file name) -> decoded content of each leaf."""
    parsed = email.message_from_bytes(content, policy=email.policy.default)
    found = {}
    for part in parsed.walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            found[part.get_filename() or part.get_content_type()] = payload
    return found


def header(content: bytes, name: str) -> str:
    """A header as a reader sees it."""
    return str(email.message_from_bytes(content, policy=email.policy.default)[name])


def without_trace(content: bytes) -> bytes:
    """The mail without the trace header that the relay puts on top."""
    assert content.startswith(b"Received: "), content[:200]
    lines = content.split(b"\r\n")
    end = next(number for number, line in enumerate(lines[1:], 1) if not line.startswith((b" ", b"\t")))
    return b"\r\n".join(lines[end:])
