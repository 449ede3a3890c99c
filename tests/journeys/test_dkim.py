"""DKIM over the wire: legacy mail through the real relay and an SMTP hop, verified by programs that are not ours."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.fakes.dns import FakeDns
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails
from tests.journeys.verifiers import Verdict, mailauth, opendkim

RSA, ED = ("r1", "rsa-sha256"), ("e1", "ed25519-sha256")
GOOD = frozenset({(*RSA, "pass"), (*ED, "pass")})
BAD = frozenset({(*RSA, "fail"), (*ED, "fail")})
TO = "jan@example.nl"

HEAD = b"From: Acme <info@acme.nl>\r\nTo: jan@example.nl\r\nSubject: Uw afspraak\r\n"
UTF8 = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
MAILS = {
    "as-it-should-be": mails.plain("info@acme.nl", TO),
    "with-parts": mails.rich("info@acme.nl", f"Jan <{TO}>", cc="piet@example.nl"),
    "eight-bit-utf-8": HEAD + UTF8 + "\r\nGeachte José, één offerte à € 12,50 voor u.\r\n".encode(),
    "eight-bit-windows-1252": HEAD + "\r\nGeachte José, één café.\r\n".encode("windows-1252"),
    "eight-bit-fields": "From: Café Zuid <info@acme.nl>\r\nTo: Müller <jan@example.nl>\r\n".encode()
    + "Subject: Één\r\n\r\nDag.\r\n".encode("windows-1252"),
    "long-line": HEAD + b"\r\n" + b"een heel lange regel zonder einde " * 200 + b"\r\nen een korte\r\n",
    "long-line-in-eight-bit": HEAD + UTF8 + b"\r\n" + "één regel ".encode() * 300 + b"\r\n",
    "empty-body": HEAD + b"\r\n",
    "no-body-at-all": HEAD,
    "only-empty-lines": HEAD + b"\r\n\r\n\r\n\r\n",
    "trailing-empty-lines": HEAD + b"\r\nDag.\r\n\r\n\r\n\r\n",
    "white-space": HEAD + b"\r\nDag \t \r\n  ingesprongen   tekst\t\r\n \r\n",
    "dots": HEAD + b"\r\n.\r\n..\r\n.punt\r\n",
    "folded-fields": b"From: Acme\r\n <info@acme.nl>\r\nTo: \"Jansen,\r\n\tJan\"  <jan@example.nl> ,\r\n b@x.nl\r\n"
    b"Subject: een\r\n\t lang   onderwerp \r\nreferences: <1@acme.nl>\r\n <2@acme.nl>\r\n\t<3@acme.nl>\r\n\r\nDag.\r\n",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Keys:
    """Two private keys as files, and what their DNS records say."""

    rsa: Path
    ed: Path
    records: dict[str, str]


def make_keys(folder: Path, domain: str) -> Keys:
    private = {"r1": rsa.generate_private_key(65537, 2048), "e1": ed25519.Ed25519PrivateKey.generate()}
    files = {selector: folder / f"{selector}.pem" for selector in private}
    for selector, key in private.items():
        files[selector].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        files[selector].chmod(0o600)
    public = {
        "r1": private["r1"].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "e1": private["e1"].public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
    }
    kinds = {"r1": "rsa", "e1": "ed25519"}
    records = {
        f"{selector}._domainkey.{domain}": f"v=DKIM1; k={kinds[selector]}; p={base64.b64encode(octets).decode()}"
        for selector, octets in public.items()
    }
    return Keys(files["r1"], files["e1"], records | {f"_dmarc.{domain}": "v=DMARC1; p=reject; adkim=s"})


def signing_route(server: FakeSmtp, keys: Keys, domain: str, more: str = "") -> str:
    blocks = ", ".join(
        f'{{domain: {domain}, selector: {selector}, key: "file:{path}"}}'
        for selector, path in (("r1", keys.rsa), ("e1", keys.ed))
    )
    return (
        f"upstreams:\n  ours: {{type: smtp, host: 127.0.0.1, port: {server.port}, tls: none}}\n"
        f"routes:\n  - {{from: acme.nl, via: ours, dkim: [{blocks}]{more}}}\n"
    )


async def send_in_line_feeds(port: int, sender: str, recipient: str, content: bytes) -> None:
    """A client that ends every line in LF alone, the dot included."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    words = ("HELO old.test", f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA")
    stuffed = b"\n".join(b"." + line if line.startswith(b".") else line for line in content.splitlines())
    for line in (*(word.encode() for word in words), stuffed + b"\n.", b"QUIT"):
        assert (await reader.readline())[:1] in b"23"
        writer.write(line + b"\n")
    assert (await reader.readline()).startswith(b"221")
    writer.close()


async def received(server: FakeSmtp, relay: RelayProcess, count: int) -> bytes:
    while len(server.received) < count:
        await relay.event("delivered", after=len(relay.events))
    return server.received[count - 1].content


def test_every_sort_of_mail_carries_two_signatures_that_others_verify(tmp_path: Path) -> None:
    """The next hop has no 8BITMIME, so what was 8-bit must have been encoded before it was signed."""

    async def journey() -> None:
        keys = make_keys(tmp_path, "acme.nl")
        async with FakeDns(keys.records) as dns, FakeSmtp(keywords=("PIPELINING", "SIZE 36700160")) as server:
            async with RelayProcess(tmp_path / "relay", signing_route(server, keys, "acme.nl")) as relay:
                arrived = {}
                for number, (name, content) in enumerate(MAILS.items(), 1):
                    said = await clients.smtplib(relay.port, "info@acme.nl", [TO], content)
                    assert said.code == 0, said.text
                    arrived[name] = await received(server, relay, number)
                await send_in_line_feeds(relay.port, "info@acme.nl", TO, MAILS["dots"])
                arrived["line-feeds-alone"] = await received(server, relay, len(MAILS) + 1)
            assert [name for name, content in arrived.items() if not content.isascii()] == []
            byopendkim = {name: await opendkim(dns, tmp_path, content) for name, content in arrived.items()}
            assert {name: verdict for name, verdict in byopendkim.items() if verdict.dkim != GOOD} == {}
            checks = (mailauth(dns, "info@acme.nl", content) for content in arrived.values())
            bymailauth = dict(zip(arrived, await asyncio.gather(*checks), strict=True))
            assert {name: verdict for name, verdict in bymailauth.items() if verdict != Verdict(GOOD, "pass")} == {}
            assert mails.parts(arrived["with-parts"]) == mails.parts(MAILS["with-parts"])

    asyncio.run(journey())


TAMPERINGS = {
    "text": (b"Uw afspraak staat.", b"Uw afspraak vervalt."),
    "from": (b"From: info@acme.nl", b"From: info@acme.nl.example"),
    "second-from": (b"Received: ", b"From: evil@acme.nl\r\nReceived: "),
    "more-text": (b"..twee punten\r\n", b"..twee punten\r\nMeer.\r\n"),
    "subject": (b"Subject: Uw", b"Subject: Onze"),
}


def test_what_was_tampered_with_fails_at_both(tmp_path: Path) -> None:
    async def journey() -> None:
        keys = make_keys(tmp_path, "acme.nl")
        async with FakeDns(keys.records) as dns, FakeSmtp() as server:
            async with RelayProcess(tmp_path / "relay", signing_route(server, keys, "acme.nl")) as relay:
                await clients.smtplib(relay.port, "info@acme.nl", [TO], MAILS["as-it-should-be"])
                whole = await received(server, relay, 1)
            assert (await mailauth(dns, "info@acme.nl", whole)) == Verdict(GOOD, "pass")
            for name, (old, new) in TAMPERINGS.items():
                forged = whole.replace(old, new, 1)
                assert forged != whole, name
                assert (name, (await opendkim(dns, tmp_path, forged)).dkim) == (name, BAD)
                told = await mailauth(dns, "info@acme.nl", forged)  # a body hash that differs is "neutral" to it
                assert {one[:2] for one in told.dkim} == {RSA, ED}, name
                assert "pass" not in {one[2] for one in told.dkim} | {told.dmarc}, name

    asyncio.run(journey())


@pytest.mark.parametrize("reply_to", ["original", "none", "desk@callcenter.nl"])
def test_a_rewritten_sender_passes_the_strictest_dmarc(reply_to: str, tmp_path: Path) -> None:
    """From, MAIL FROM and the signature are of our domain; CallPro's own old signature is gone."""

    async def journey() -> None:
        keys = make_keys(tmp_path, "callcenter.nl")
        content = b"DKIM-Signature: v=1; a=rsa-sha256; d=acme.nl; s=old; b=x\r\n" + mails.rich("info@acme.nl", TO)
        sender = f", sender: {{address: acme@callcenter.nl, name: Acmé & Zonen, reply_to: {reply_to}}}"
        async with FakeDns(keys.records) as dns, FakeSmtp() as server:
            route = signing_route(server, keys, "callcenter.nl", sender)
            async with RelayProcess(tmp_path / "relay", route) as relay:
                said = await clients.smtplib(relay.port, "info@acme.nl", [TO], content)
                assert said.code == 0, said.text
                arrived = await received(server, relay, 1)
                (tmp_path / "sent.eml").write_bytes(content)
                told = await relay.command("route", "info@acme.nl", "--no-dns", "--message", str(tmp_path / "sent.eml"))
            assert told[0] == 0
            assert "by ours: can pass by SPF and by DKIM" in told[1]
            assert "our signature d=callcenter.nl aligns" in told[1]
            assert server.received[0].sender == "acme@callcenter.nl"
            assert mails.header(arrived, "From") == "Acmé & Zonen <acme@callcenter.nl>"
            replies = {"original": "Reünie Café België <info@acme.nl>", "none": "None"}.get(reply_to, reply_to)
            assert mails.header(arrived, "Reply-To") == replies
            assert await mailauth(dns, "acme@callcenter.nl", arrived) == Verdict(GOOD, "pass")
            assert (await opendkim(dns, tmp_path, arrived)).dkim == GOOD

    asyncio.run(journey())
