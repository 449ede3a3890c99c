"""Every manner of old programs that the relay takes, by the real process: understood, mended by name, and delivered."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import mails

HEAD = (
    b"From: info@acme.nl\r\nTo: jan@example.nl\r\nSubject: Afspraak\r\n"
    b"Date: Sun, 22 Nov 2026 07:30:00 +0000\r\nMessage-ID: <1@acme.nl>\r\n"
)
MAIL = HEAD + b"\r\nTot morgen\r\n"
FROM, TO, DATA, QUIT = b"MAIL FROM:<info@acme.nl>\r\n", b"RCPT TO:<jan@example.nl>\r\n", b"DATA\r\n", b"QUIT\r\n"
SAME = FROM + TO + DATA + MAIL + b".\r\n"


@dataclass(frozen=True)
class Manner:
    """What the client says, what is mended, and a piece of what arrives. `cut` leaves without QUIT, with a RST."""

    said: bytes
    repairs: tuple[str, ...] = ()
    arrives: bytes = b"Tot morgen\r\n"
    cut: bool = False


def content(mail: bytes, *repairs: str, arrives: bytes = b"Tot morgen\r\n") -> Manner:
    """A mail as it is, in a dialogue as it should be."""
    return Manner(b"EHLO callpro\r\n" + FROM + TO + DATA + mail + b".\r\n" + QUIT, repairs, arrives)


MANNERS = {
    "no EHLO": Manner(SAME + QUIT),
    "HELO with SIZE": Manner(
        b"HELO callpro\r\n" + SAME.replace(b"nl>\r\nR", b"nl> SIZE=100 BODY=8BITMIME\r\nR", 1) + QUIT
    ),
    "LF only": Manner((b"HELO x\r\n" + SAME + QUIT).replace(b"\r\n", b"\n"), ("line_endings",)),
    "LF only in the mail": content(MAIL.replace(b"\r\n", b"\n") + b"\r\n", "line_endings"),
    "bare CR": content(MAIL.replace(b"Tot morgen", b"Tot morgen\rAcme"), "line_endings", arrives=b"morgen\r\nAcme\r\n"),
    "long lines": content(HEAD + b"\r\n" + b"Tot morgen " * 500 + b"\r\n", "long_lines", arrives=b"quoted-printable"),
    "a long header": content(b"X-Long: " + b"woord " * 400 + b"\r\n" + MAIL, "long_headers"),
    "windows-1252 in a header": content(
        b"X-Naam: caf\xe9\r\n" + MAIL.replace(b"Afspraak", b"Caf\xe9 \x80 5"),
        "raw_headers",
        arrives=b"Subject: =?utf-8?b?Q2Fmw6kg4oKsIDU=?=\r\n",
    ),
    "windows-1252 in the text": content(
        HEAD + b"\r\nCaf\xe9\r\n", "charset", "mime_version", arrives=b"charset=windows-1252"
    ),
    "no Date": content(re.sub(rb"Date:[^\r]*\r\n", b"", MAIL), "date", arrives=b"\r\nDate: "),
    "no Message-ID": content(re.sub(rb"Message-ID:[^\r]*\r\n", b"", MAIL), "message_id", arrives=b"@relay.test>\r\n"),
    "no MIME-Version": content(
        b"Content-Type: text/plain\r\n" + MAIL, "mime_version", arrives=b"MIME-Version: 1.0\r\n"
    ),
    "BOM": content(b"\xef\xbb\xbf" + MAIL, "leading_bytes"),
    "a From line of mbox": content(b"From info Sun Nov 22 07:30:00 2026\r\n" + MAIL, "leading_bytes"),
    "no empty line behind the header": content(HEAD + b"Tot morgen\r\n", "blank_line"),
    "padding with NUL": content(MAIL.replace(b"Acme", b"Acme\0\0") + b"\0\0\r\n", "nul_bytes"),
    "trailing garbage behind the mail": Manner(b"HELO x\r\n" + SAME + b"\x1a\0\0\r\n\r\n" + QUIT),
    "trailing blanks on commands": Manner((b"HELO x\r\n" + SAME).replace(b">\r\n", b"> \t \r\n", 2) + b"QUIT \r\n"),
    "RET, ENVID and NOTIFY": Manner(
        b"EHLO x\r\nMAIL FROM:<info@acme.nl> RET=HDRS ENVID=QQ1 AUTH=<>\r\n"
        b"RCPT TO:<jan@example.nl> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;jan@example.nl\r\n" + DATA + MAIL + b".\r\n"
    ),
    "no brackets": Manner(b"HELO x\r\nMAIL FROM: info@acme.nl\r\nRCPT TO: jan@example.nl\r\n" + DATA + MAIL + b".\r\n"),
    "a display name in MAIL FROM": Manner(
        b'HELO x\r\nMAIL FROM:"Acme, B.V." <info@acme.nl>\r\nRCPT TO:Jan <jan@example.nl>\r\n' + DATA + MAIL + b".\r\n"
    ),
    "no QUIT": Manner(b"EHLO x\r\n" + SAME, cut=True),
}
OURS = re.compile(rb"\AReceived: from [^\r]*\r\n(?:\t[^\r]*\r\n)+")
ROUTES = (
    "upstreams:\n  out: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none}}\n"
    "routes:\n  - {{from: acme.nl, via: out}}\n"
)


async def talk(port: int, octets: bytes, *, cut: bool = False) -> str:
    """The queue id of the one mail in it. Nothing hangs: all answers come within seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(octets)
    found = None
    while found is None:
        line = await asyncio.wait_for(reader.readline(), 60)
        assert line, "closed before the mail was taken"
        found = re.search(rb"queued as (\S+)", line)
    if cut:
        writer.transport.abort()
    else:
        if not octets.endswith((QUIT, b"QUIT\n", b"QUIT \r\n")):
            writer.write(QUIT)
        assert b"221 " in await asyncio.wait_for(reader.read(), 60)
        writer.close()
    return found[1].decode()


def test_each_manner_is_understood_and_each_repair_is_named(tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeSmtp() as server, RelayProcess(tmp_path, ROUTES.format(port=server.port)) as relay:
            for name, manner in MANNERS.items():
                number = await talk(relay.port, manner.said, cut=manner.cut)
                accepted = await relay.event("accepted", mail=number)
                assert tuple(accepted.get("repairs") or ()) == manner.repairs, name
                assert (accepted["sender"], accepted["to"]) == ("info@acme.nl", ["jan@example.nl"]), name
                await relay.event("delivered", mail=number)
                arrived = OURS.sub(b"", server.received[-1].content)
                assert manner.arrives in arrived, name
                if not manner.repairs:
                    assert arrived == MAIL, name
                    continue
                code, shown = await relay.command("queue", "show", number)
                assert code == 0, shown
                assert all(repair in shown for repair in manner.repairs), (name, shown)
                # What was mended once is right: the same mail again needs no repair, and leaves as it came.
                again = await talk(relay.port, content(arrived.replace(b"\r\n.", b"\r\n..")).said)
                assert "repairs" not in await relay.event("accepted", mail=again), name
                await relay.event("delivered", mail=again)
                assert OURS.sub(b"", server.received[-1].content) == arrived, name

    asyncio.run(journey())


# ---- a conforming mail leaves as it came ----------------------------------------------------------------------------

ATEXT = st.text("abcdefghijklmnopqrstuvwxyzABCDEF0123456789-_.", min_size=1, max_size=12)
WORDS = st.lists(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30), min_size=1, max_size=8
)
LINE = st.binary(max_size=998).map(lambda raw: re.sub(rb"[\r\n\0]", b"", raw)) | st.sampled_from(
    [b".", b"..", b"", b" ", b"--b", b"From x", b"x" * 998, b"\t", b"\x1a", b".\x0b"]
)


@st.composite
def conforming(draw: st.DrawFn) -> bytes:
    """A mail as RFC 5322 and RFC 2045 want it, in every order and manner that they leave open."""
    lines = draw(st.lists(LINE, max_size=15))
    body = b"".join(line + b"\r\n" for line in lines)
    fields = [b"From: info@acme.nl", b"Date: Sun, 22 Nov 2026 07:30:00 +0000"]
    fields.append(b"Message-ID: <%s@acme.nl>" % draw(ATEXT).strip(".").encode().replace(b"..", b".") or b"x")
    if not body.isascii() or draw(st.booleans()):
        fields += [b"MIME-Version: 1.0", b"Content-Type: text/plain; charset=utf-8", b"Content-Transfer-Encoding: 8bit"]
    for name in draw(
        st.lists(st.sampled_from(["Subject", "X-A", "Received", "Comments", "List-Id", "to"]), max_size=5)
    ):
        fold = draw(st.sampled_from([" ", "\r\n ", "\r\n\t"]))
        fields.append(f"{name}: {fold.join(draw(WORDS))}".encode())
    return b"\r\n".join([*draw(st.permutations(fields)), b"", b""]) + body


class Background:
    """A relay and a server behind it, on a loop in a thread of their own, so that a property can use them."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._folder = folder

    def __enter__(self) -> Background:
        self.call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _start(self) -> None:
        self.server = await FakeSmtp().__aenter__()
        self.relay = await RelayProcess(self._folder, ROUTES.format(port=self.server.port)).__aenter__()

    async def _stop(self) -> None:
        await self.relay.__aexit__(None, None, None)
        await self.server.__aexit__(None, None, None)

    def through(self, mail: bytes) -> tuple[bytes, dict[str, object]]:
        """What arrives of a mail without our trace header, and its `accepted` event."""
        return self.call(self._through(mail))

    async def _through(self, mail: bytes) -> tuple[bytes, dict[str, object]]:
        wire = re.sub(rb"(?m)^\.", b"..", mail.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
        number = await talk(self.relay.port, b"EHLO x\r\n" + FROM + TO + DATA + wire + b".\r\n" + QUIT)
        await self.relay.event("delivered", mail=number)
        accepted = await self.relay.event("accepted", mail=number)
        self.relay.events.clear()
        return OURS.sub(b"", self.server.received.pop().content), accepted


def test_a_conforming_mail_leaves_byte_for_byte_as_it_came(tmp_path: Path) -> None:
    with Background(tmp_path) as background:

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(conforming())
        def property_(mail: bytes) -> None:
            arrived, accepted = background.through(mail)
            assert "repairs" not in accepted
            assert arrived == mail

        property_()
        for sample in (mails.plain("info@acme.nl", "j@x.nl"), mails.rich("info@acme.nl", "j@x.nl")):
            assert background.through(sample)[0] == sample
