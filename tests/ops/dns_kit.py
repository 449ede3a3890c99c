"""The relay's own view of a look-alike DNS server."""

from __future__ import annotations

from config.fields import Duration
from config.relay_settings import Dns
from ops.resolver import LiveDns
from tests.fakes.dns import FakeDns


def asked(server: FakeDns, seconds: float = 2.0) -> LiveDns:
    return LiveDns(Dns(servers=(f"{server.host}:{server.port}",), timeout=Duration(seconds)))
