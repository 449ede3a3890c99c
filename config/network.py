"""Socket addresses and networks as ops write them.

Texts only: no name is ever looked up, so what is listened on is what stands in the file.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from config.fields import Mistake, is_loopback
from config.names import domain

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LIKE: Final = "write host and port, like 127.0.0.1:25 or [::1]:25"


def host_port(text: str) -> tuple[str, int]:
    """`127.0.0.1:25` -> ("127.0.0.1", 25); `[::1]:25` -> ("::1", 25). Port 0 means any free port.

    Takes IP addresses and `localhost`; raises Mistake for anything else.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise Mistake(f"{text} has no port", _LIKE)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise Mistake(f"{text} is an IPv6 address without brackets", _LIKE)
    bare = host.removeprefix("[").removesuffix("]")
    if bare.lower() == "localhost":
        return bare, int(port)
    try:
        return str(ipaddress.ip_address(bare)), int(port)
    except ValueError:
        raise Mistake(f"{text} has no IP address", f"{_LIKE} (0.0.0.0 for every address)") from None


def dns_server(text: str) -> tuple[str, int]:
    """`192.0.2.53` -> ("192.0.2.53", 53); a port other than 53 stands behind a colon, as in `host_port`."""
    try:
        return str(ipaddress.ip_address(text)), 53
    except ValueError:
        return host_port(text)


def server(text: str) -> str:
    """The name or IP address of a server, as it stands. Raises Mistake for a URL, a port behind it and the like."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    name, colon, port = text.rpartition(":")
    if "://" in text or "/" in text:
        raise Mistake(f"{text} is an address for a browser", "write the server's name alone, like smtp.acme.nl")
    if text.startswith("[") and text.endswith("]"):
        raise Mistake(f"{text} has brackets", f"write {text[1:-1]}")
    if colon and port.isdigit():
        raise Mistake(f"{text} holds the port", f"write `host: {name}` and `port: {port}`")
    if "@" in text:
        raise Mistake(f"{text} is a mail address", "write the server's name, like smtp.acme.nl")
    try:
        domain(text)
    except Mistake:
        raise Mistake(f"{text or 'it'} is not the name of a server", "write it like smtp.acme.nl") from None
    return text


def network(text: str) -> Network:
    """`192.0.2.0/24` or a single address. Raises Mistake for host bits, and for "everybody"."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Mistake(f"{text} is not a network", "write it like 192.0.2.0/24, 192.0.2.7 or 2001:db8::/32") from None
    if found.prefixlen == 0:
        raise Mistake(f"{text} lets everybody send through us", "name the networks of your own senders")
    if "/" in text and str(found.network_address) != str(ipaddress.ip_address(text.partition("/")[0])):
        raise Mistake(f"{text} names a host inside a network", f"write {found}, or the address without /")
    return found


def client(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of a client, from a socket. IPv4 that came through a socket of IPv6 (`::ffff:192.0.2.7`, as systemd
    makes them) counts as what ops know it by.
    """
    found = ipaddress.ip_address(text.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


def is_https_url(text: str) -> bool:
    """True for a whole https URL and nothing around it; plain http counts where it leads to this machine only."""
    try:
        parts = urlsplit(text)
        whole = bool(parts.hostname) and parts.port != 0 and text.isprintable() and " " not in text
    except ValueError:
        return False
    return whole and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(text)))


def listens_on_loopback(text: str) -> bool:
    """True when nobody outside this machine can reach the address. Raises Mistake as `host_port` does."""
    return is_loopback(host_port(text)[0])
