"""CPU of one step at a time: a DKIM signature at 5 and 100 KB, and a mail as SendGrid's JSON at 100 KB.

Run as `python -m bench.signing_micro`. The best of five parts, in milliseconds of processor time.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from config.credentials import Secret
from config.rules import Dkim
from routing.mail import Outgoing
from routing.signing import Signer
from scripts.demo import new_signing_key
from upstreams.sendgrid_body import prepare

HEAD = (
    b"From: Klant <info@acme.nl>\r\nTo: jan@example.org\r\nSubject: Uw offerte\r\n"
    b"Date: Tue, 24 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@acme.nl>\r\nMIME-Version: 1.0\r\n"
)
LINE = b"Een regel tekst zoals die in een mail staat, met wat spaties erin.\r\n"


def text(size: int) -> bytes:
    return HEAD + b"Content-Type: text/plain\r\n\r\n" + LINE * (size // len(LINE))


def with_attachment(size: int) -> bytes:
    """A text, and a PDF in base64 that fills the rest."""
    encoded = base64.encodebytes(bytes(range(256)) * (size * 3 // 4 // 256)).replace(b"\n", b"\r\n")
    return (
        HEAD + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
        b"--b\r\nContent-Type: text/plain\r\n\r\nHallo\r\n"
        b"--b\r\nContent-Type: application/pdf; name=o.pdf\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; filename=o.pdf\r\n\r\n" + encoded + b"--b--\r\n"
    )


def best(step: Callable[[], object], times: int) -> float:
    parts = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(times):
            step()
        parts.append((time.process_time() - start) / times * 1000)
    return min(parts)


def main() -> None:
    key = Secret("file:bench", new_signing_key().decode())
    signer = Signer((Dkim(domain="acme.nl", selector="callpro", key=key),))
    mail = Outgoing("1", "acme.nl", "info@acme.nl", ("jan@example.org",), with_attachment(100_000))
    print("| step | ms |\n|---|---|")
    for name, step, times in (
        ("DKIM RSA-2048, 5 KB", lambda: signer.sign(text5, 1.0), 100),
        ("DKIM RSA-2048, 100 KB", lambda: signer.sign(text100, 1.0), 50),
        ("SendGrid's JSON, 100 KB with a PDF", lambda: prepare(mail, False), 20),
    ):
        print(f"| {name} | {best(step, times):.2f} |")


text5, text100 = text(5_000), text(100_000)

if __name__ == "__main__":
    main()
