"""A DNS server on loopback, over UDP and TCP, with records that a test can change while it runs.

    async with FakeDns({"s1._domainkey.acme.nl": "v=DKIM1; k=rsa; p=..."}) as dns:
        ...                                     # ask dns.host, dns.port
        dns.put("acme.nl", "MX", "10 mail.acme.nl.")
        dns.put("acme.nl", "TXT", "v=spf1 -all")        # a text becomes strings of at most 255 octets
        dns.silent.add("slow.nl")               # never answered; `failing` answers SERVFAIL
        dns.asked                               # every name it was asked for

It answers NXDOMAIN for every name it does not know (and for none that has something below it), follows its own
CNAMEs, and must never ask anybody else.
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

    def __init__(self, records: Mapping[str, str] | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host, self.port = host, port
        self.asked: list[str] = []
        self.silent: set[str] = set()
        self.failing: set[str] = set()
        self._records: dict[tuple[dns.name.Name, str], list[str]] = {}
        for name, text in (records or {}).items():
            self.put(name, "TXT", text)

    def put(self, name: str, kind: str, *values: str) -> None:
        """These are the records of that type from now on; none: the name keeps only its other records."""
        key = (dns.name.from_text(name), kind)
        if values:
            self._records[key] = [_strings(value) if kind == "TXT" else value for value in values]
        else:
            self._records.pop(key, None)

    async def __aenter__(self) -> FakeDns:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, family=socket.AF_INET)
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

    @property
    def settings(self) -> str:
        """What makes the relay ask this server, as a line of relay.yaml."""
        return f"dns: {{servers: ['{self.host}:{self.port}'], timeout: 2s}}\n"

    def answer(self, query: bytes, limit: int = 65535) -> bytes | None:
        """The reply to one query, cut to its header and question when it is longer than `limit`; None for silence."""
        asked = dns.message.from_wire(query)
        reply = dns.message.make_response(asked)
        reply.flags |= dns.flags.AA | dns.flags.RA
        for question in asked.question:
            name = question.name.to_text(omit_final_dot=True).lower()
            self.asked.append(name)
            if name in self.silent:
                return None
            if name in self.failing:
                reply.set_rcode(dns.rcode.SERVFAIL)
            else:
                self._fill(reply, question.name, question.rdtype)
        wire = reply.to_wire()
        if len(wire) > limit:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
            wire = reply.to_wire()
        return wire

    def _fill(self, reply: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> None:
        kind = "TXT" if rdtype == dns.rdatatype.ANY else dns.rdatatype.to_text(rdtype)
        for _ in range(8):
            if (records := self._records.get((name, kind))) is not None:
                reply.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *records))
                return
            alias = self._records.get((name, "CNAME"))
            if alias is None:
                break
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", *alias))
            name = dns.name.from_text(alias[0])
        if not any(known.is_subdomain(name) for known, _ in self._records):
            reply.set_rcode(dns.rcode.NXDOMAIN)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                reply = self.answer(await reader.readexactly(length))
                if reply is not None:
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
        reply = self._server.answer(data, _UDP_LIMIT)
        if reply is not None:
            self._transport.sendto(reply, address)


def _strings(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    pieces = [escaped[start : start + _TEXT_LIMIT] for start in range(0, len(escaped), _TEXT_LIMIT)]
    return " ".join(f'"{piece}"' for piece in pieces)
