"""A DNS server for TXT records on loopback, over UDP and TCP, so that programs that are not ours look up our keys.

    async with FakeDns({"s1._domainkey.acme.nl": "v=DKIM1; k=rsa; p=..."}) as dns:
        ...                                     # ask dns.host, dns.port
        dns.asked                               # every name it was asked for

It answers NXDOMAIN for every name it does not know, and must never ask anybody else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

_TEXT_LIMIT = 255
_UDP_LIMIT = 1232


class FakeDns:
    """`records` are TXT records by name; long texts become several strings of at most 255 octets (RFC 6376 3.6.2.2)."""

    def __init__(self, records: Mapping[str, str], host: str = "127.0.0.1") -> None:
        self.host, self.port = host, 0
        self.asked: list[str] = []
        self._records = {dns.name.from_text(name): _strings(text) for name, text in records.items()}

    async def __aenter__(self) -> FakeDns:
        self._server = await asyncio.start_server(self._serve, self.host, 0, family=socket.AF_INET)
        self.port = self._server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(self.host, self.port)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()
        self._server.close()
        await self._server.wait_closed()

    def answer(self, query: bytes, limit: int = 65535) -> bytes:
        """The reply to one query, cut to its header and question when it is longer than `limit`."""
        asked = dns.message.from_wire(query)
        reply = dns.message.make_response(asked)
        reply.flags |= dns.flags.AA | dns.flags.RA
        for question in asked.question:
            self.asked.append(question.name.to_text(omit_final_dot=True).lower())
            text = self._records.get(question.name)
            if text is None:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            elif question.rdtype in (dns.rdatatype.TXT, dns.rdatatype.ANY):
                reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", "TXT", text))
        wire = reply.to_wire()
        if len(wire) > limit:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
            wire = reply.to_wire()
        return wire

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                reply = self.answer(await reader.readexactly(length))
                writer.write(len(reply).to_bytes(2, "big") + reply)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: FakeDns) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(self._server.answer(data, _UDP_LIMIT), address)


def _strings(text: str) -> str:
    pieces = [text[start : start + _TEXT_LIMIT] for start in range(0, len(text), _TEXT_LIMIT)]
    return " ".join(f'"{piece}"' for piece in pieces)
