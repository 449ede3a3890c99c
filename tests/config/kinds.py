"""Stand-in kinds with the keys of the design's examples: the reader must not need to know the real ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from config.credentials import Secret
from config.fields import Duration, Fault, Settings, Size, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Login(Settings):
    host: str = setting(doc="The customer's server.", example="smtp.acme.nl")
    port: int = setting(default=587, doc="Its port.", minimum=1, maximum=65535)
    tls: Literal["starttls", "implicit", "none"] = setting(default="starttls", doc="How it is encrypted.")
    username: str | None = setting(default=None, doc="The login.")
    password: Secret | None = setting(default=None, doc="Its password.")
    timeout: Duration = setting(default=Duration(60), doc="How long one step may take.", minimum=1)

    def faults(self) -> Iterator[Fault]:
        if self.tls == "none" and self.password is not None and not self.loopback():
            yield Fault("tls", "sends the password in clear", "write starttls or implicit")
        if (self.username is None) != (self.password is None):
            yield Fault("", "has only half of a login", "write username and password, or neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector(Settings):
    host: str | None = setting(default=None, doc="The tenant's MX host.")
    source_address: IPv4Address = setting(doc="Our address.", example="203.0.113.10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entra(Settings):
    tenant: str = setting(doc="The tenant.")
    client_id: str = setting(doc="The app.")
    client_secret: Secret | None = setting(default=None, doc="Its secret.")
    certificate: Secret | None = setting(default=None, doc="Or its certificate.")
    base_url: str = setting(default="https://graph.example", doc="Where it is.")
    authority: str = setting(default="https://login.example", doc="Where tokens come from.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed(Settings):
    method: Literal["smtp", "api"] = setting(default="smtp", doc="How it is handed over.")
    api_key: Secret = setting(doc="The key.", example="env:KEY")
    domain: str | None = setting(default=None, doc="The sending domain.")
    region: Literal["us", "eu"] = setting(default="us", doc="Where the account is.")
    client_id: str | None = setting(default=None, doc="The client.")
    base_url: str | None = setting(default=None, doc="Where it is.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything(Settings):
    """One field of every sort, for the reader's own tests."""

    text: str = setting(default="", doc="Text.")
    whole: int = setting(default=0, doc="A number.", minimum=-5, maximum=100)
    real: float = setting(default=0.0, doc="A number.", maximum=10)
    flag: bool = setting(default=False, doc="A flag.")
    span: Duration = setting(default=Duration(1), doc="A time.", minimum=1, maximum=3600)
    room: Size = setting(default=Size(1), doc="A size.", minimum=1)
    folder: Path | None = setting(default=None, doc="A folder.")
    source: IPv4Address | None = setting(default=None, doc="An address.")
    choice: Literal["red", "green"] = setting(default="red", doc="A choice.")
    inner: Login | None = setting(default=None, doc="A block.")
    several: tuple[int, ...] = setting(default=(), doc="Numbers.", maximum=9)
    blocks: tuple[Login, ...] = setting(default=(), doc="Blocks.")
    at_least_one: tuple[str, ...] = setting(default=("x",), doc="Texts.")
    secrets: tuple[Secret, ...] = setting(default=(), doc="Secrets.")
    host: str | None = setting(default=None, doc="A host.")
    with_: str | None = setting(default=None, doc="A key that is no name.", key="with-dash")


KINDS: Final[Mapping[str, type[Settings]]] = MappingProxyType(
    {
        "smtp": Login,
        "connector": Connector,
        "graph": Entra,
        "smtp_oauth": Entra,
        "sendgrid": Keyed,
        "mailgun": Keyed,
        "campaign_monitor": Keyed,
        "everything": Everything,
    }
)
