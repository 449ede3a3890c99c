"""Whom the page believes: the Host header, and where a form came from. Pure.

A browser on this machine carries pages of strangers too; none of them may read from us or give us orders.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Final

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


def allowed_host(header: str, names: Collection[str]) -> bool:
    """True for an IP address, localhost, and the names that ops gave. A name of anybody else's may point here by the
    DNS alone; an address cannot.
    """
    found = _HOST.fullmatch(header)
    if found is None:
        return False
    host = found[1].strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost") or host in {name.lower() for name in names}:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def own_form(headers: Mapping[str, str]) -> bool:
    """True when a request with effects came from a page of ours, as far as the browser says (Fetch Metadata, Origin).

    Programs send neither header, and hold the token themselves.
    """
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower() != ""
