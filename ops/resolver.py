"""Questions to the DNS, each asked once: the answer, that there is none, or that it is not known.

Only `route`, `doctor` and `onboard` ask; the library is imported at the first question. A time-out is "not known",
never "no".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final, Protocol

from config.network import dns_server
from config.relay_settings import Dns

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

IpAddress = IPv4Address | IPv6Address
_STRING: Final = 255
_TOGETHER: Final = 20
"""Questions on their way at one time."""


class Known(StrEnum):
    """What is known after a question."""

    FOUND = "found"
    EMPTY = "empty"
    """The name exists, without a record of this type."""
    NO_NAME = "no name"
    UNKNOWN = "unknown"
    """Nobody answered, or a server failed: ask again later."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`records` are texts: TXT joined, MX without preference, names lower case without the last dot.

    `alias` is the name at the end of CNAMEs, "" without one. `why` tells what stood in the way of an UNKNOWN.
    """

    known: Known
    records: tuple[str, ...] = ()
    alias: str = ""
    why: str = ""

    @property
    def void(self) -> bool:
        """True for a void lookup (RFC 7208 4.6.4): an answer without any record."""
        return self.known in (Known.EMPTY, Known.NO_NAME)


def zone_text(text: str) -> str:
    """A TXT value as a zone file takes it: one string, or several of at most 255 octets (RFC 1035 3.3.14)."""
    parts = [text[start : start + _STRING] for start in range(0, len(text), _STRING)]
    return " ".join(f'"{part}"' for part in parts)


class Lookup(Protocol):
    """Somebody who knows records."""

    async def ask(self, name: str, kind: str) -> Answer:
        """The records of type `kind` (TXT, A, AAAA, MX, PTR, CNAME) of `name`."""


@dataclass(frozen=True, slots=True)
class WithTxt:
    """The DNS as it would be with `record` as the only TXT record of `name`."""

    dns: Lookup
    name: str
    record: str

    async def ask(self, name: str, kind: str) -> Answer:
        """See `Lookup.ask`."""
        if kind == "TXT" and name.lower().rstrip(".") == self.name:
            return Answer(Known.FOUND, (self.record,))
        return await self.dns.ask(name, kind)


class LiveDns:
    """The DNS by the machine's servers, or those of `settings`. Answers are kept as long as this object."""

    def __init__(self, settings: Dns) -> None:
        self._settings = settings
        self._kept: dict[tuple[str, str], asyncio.Task[Answer]] = {}
        self._slots = asyncio.Semaphore(_TOGETHER)
        self._resolver: Resolver | None = None

    async def ask(self, name: str, kind: str) -> Answer:
        """See `Lookup.ask`."""
        key = (name.lower().rstrip("."), kind)
        if key not in self._kept:
            self._kept[key] = asyncio.get_running_loop().create_task(self._ask(*key))
        return await asyncio.shield(self._kept[key])

    async def _ask(self, name: str, kind: str) -> Answer:
        import dns.exception
        import dns.name
        import dns.resolver

        try:
            async with self._slots:
                found = await self._library().resolve(name + ".", kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as gone:
            target = _plain(gone.canonical_name.to_text())
            return Answer(Known.NO_NAME, alias=target if target != name else "")
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel):
            return Answer(Known.NO_NAME)
        except dns.resolver.NoNameservers:
            return Answer(Known.UNKNOWN, why="every DNS server answered with a failure")
        except dns.resolver.NoResolverConfiguration:
            return Answer(Known.UNKNOWN, why="this machine knows no DNS server; name one in `dns.servers`")
        except (dns.exception.DNSException, OSError) as error:
            return Answer(Known.UNKNOWN, why=f"no DNS server answered ({type(error).__name__})")
        target = _plain(found.canonical_name.to_text())
        alias = target if target != name else ""
        if found.rrset is None:
            return Answer(Known.EMPTY, alias=alias)
        return Answer(Known.FOUND, tuple(_text(record) for record in found.rrset), alias)

    def _library(self) -> Resolver:
        import dns.asyncresolver
        import dns.nameserver

        if self._resolver is None:
            made = dns.asyncresolver.Resolver(configure=not self._settings.servers)
            if self._settings.servers:
                made.nameservers = [dns.nameserver.Do53Nameserver(*dns_server(one)) for one in self._settings.servers]
            made.lifetime = self._settings.timeout
            self._resolver = made
        return self._resolver


def reverse_name(address: IpAddress) -> str:
    """Where the PTR record of an address stands."""
    return address.reverse_pointer


def _text(record: object) -> str:
    strings = getattr(record, "strings", None)
    if strings is not None:
        text = b"".join(strings).decode("utf-8", "backslashreplace")
        # It is shown on terminals and in sheets, and whoever owns the zone may have written anything.
        return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)
    for attribute in ("exchange", "target"):
        if (name := getattr(record, attribute, None)) is not None:
            return _plain(str(name))
    return str(record)


def _plain(name: str) -> str:
    return name.lower().rstrip(".")
