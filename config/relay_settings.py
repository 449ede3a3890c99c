"""What ops write in relay.yaml, as typed values: the machine's own settings, read once at start.

Shapes only. Must never name a brand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from config import names, network
from config.credentials import Secret
from config.fields import Duration, Fault, Settings, Size, setting
from config.spool_urls import buffer_url, spool_url

SHORTEST_TOKEN: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenTls(Settings):
    """TLS for clients of a listener: STARTTLS (RFC 3207)."""

    certificate: Path = setting(
        doc="PEM file with our certificate and those between it and its authority.",
        example="/etc/callpro-relay/tls/fullchain.pem",
    )
    key: Secret = setting(doc="The certificate's private key, PEM without a password.", example="systemd:smtp-key")
    required: bool = setting(default=False, doc="Refuse mail that is not handed over inside TLS.")


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Settings):
    name: str = setting(doc="The name that the client logs in with.", example="scanner")
    password: Secret = setting(doc="Its password.", example="systemd:scanner")


@dataclass(frozen=True, slots=True, kw_only=True)
class PerPeer(Settings):
    """What one address may ask; an IPv6 network (/64) counts as one."""

    connections: int | None = setting(default=None, doc="Most connections at one time.", minimum=1)
    connections_per_minute: int | None = setting(default=None, doc="Most new connections in a minute.", minimum=1)
    mails_per_minute: int | None = setting(default=None, doc="Most mails in a minute.", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen(Settings):
    address: str = setting(
        doc="Host and port to accept mail on, `127.0.0.1:25` or `[::1]:25`.",
        example="127.0.0.1:25",
        check=network.host_port,
    )
    allow: tuple[str, ...] = setting(
        default=("127.0.0.0/8", "::1"),
        doc="Networks that may connect. Required when the address is not loopback.",
        example="192.0.2.0/24",
        check=network.network,
    )
    proxy_protocol: tuple[str, ...] = setting(
        default=(),
        doc="Load balancers in front, which say with PROXY protocol v2 who the client is: `allow` then means that "
        "client, and nobody but these networks gets in.",
        example="192.0.2.7",
        check=network.network,
    )
    per_peer: PerPeer | None = setting(default=None, doc="What one address may ask; without it, as much as it likes.")
    tls: ListenTls | None = setting(default=None, doc="Offers STARTTLS; without it there is none.")
    users: tuple[User, ...] = setting(default=(), doc="Who must log in before sending; without it nobody has to.")

    def faults(self) -> Iterator[Fault]:
        if self.users and self.tls is None and not network.listens_on_loopback(self.address):
            wrong = "would send their passwords over the network in clear"
            yield Fault("users", wrong, "add `tls:` with a certificate to this listener")
        names_ = [user.name for user in self.users]
        for number, name in enumerate(names_):
            if name in names_[:number]:
                yield Fault(f"users[{number}].name", f"{name} stands here twice", "keep one of the two")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings(Settings):
    url: str = setting(
        default="sqlite:////var/lib/callpro-relay/spool.db",
        doc="Where mail lives until settled: sqlite:////path/to/spool.db, or for several relays together "
        "postgresql://user@host/database.",
        check=spool_url,
    )
    password: Secret | None = setting(
        default=None, doc="The password of the database user.", example="systemd:spool-db"
    )
    lease: Duration = setting(
        default=Duration(30),
        doc="PostgreSQL: how long a relay gives no sign of life before the others send the mail that it had taken.",
        minimum=2,
        maximum=600,
    )
    buffer: str | None = setting(
        default=None,
        doc="PostgreSQL: where new mail is kept on this machine while the database takes none: `sqlite` for a file in "
        "the state folder, or sqlite:////path/buffer.db; left out: it is answered 451.",
        example="sqlite",
        check=buffer_url,
    )
    history: Duration = setting(default=Duration(30 * 86400), doc="How long what happened to a mail is kept.")

    def faults(self) -> Iterator[Fault]:
        if self.buffer is not None and not self.url.startswith("postgres"):
            wrong = "stands in front of a database only, and `url` is a file of this machine already"
            yield Fault("buffer", wrong, "leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Settings):
    message_size: Size = setting(default=Size(35 << 20), doc="Largest mail accepted.", minimum=1024)
    recipients: int = setting(default=500, doc="Most recipients of one mail.", minimum=1)
    connections: int = setting(default=1000, doc="Most connections at one time, for each of `workers`.", minimum=1)
    content_memory: Size = setting(
        default=Size(32 << 20),
        doc="Mail that is still coming in, of all clients together; beyond it they wait, the slowest are sent away.",
        minimum=1 << 20,
    )
    spool_size: Size = setting(
        default=Size(10 << 30), doc="When the spool holds this much, mail is refused with 452.", minimum=1024
    )

    def faults(self) -> Iterator[Fault]:
        if self.spool_size < self.message_size:
            wrong = f"is less than `message_size` ({self.message_size} octets): a mail between them hears 452 for ever"
            yield Fault("spool_size", wrong, "write more, or a smaller `message_size`", warning=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Settings):
    expire: Duration = setting(
        default=Duration(3 * 86400), doc="How long a mail is tried before it is given up.", minimum=1
    )
    retry: tuple[Duration, ...] = setting(
        default=tuple(Duration(s) for s in (60, 300, 900, 1800, 3600, 7200, 14400)),
        doc="Waits between tries; the last one repeats.",
        minimum=1,
    )
    fallback_after: Duration = setting(
        default=Duration(300), doc="How long an upstream is unreachable before the next one in `via` is used."
    )
    delay_warning: Duration | None = setting(
        default=None,
        doc="After how long the sender of a mail that is still being tried is told so, once; left out: never.",
        example="4h",
        minimum=1,
    )

    def faults(self) -> Iterator[Fault]:
        if self.delay_warning is not None and self.delay_warning >= self.expire:
            wrong = f"is no shorter than `expire` ({self.expire:g} seconds), so nobody would ever be told"
            yield Fault("delay_warning", wrong, "write a shorter time, such as 4h")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Settings):
    """Where people and monitors look. With a token people may also act."""

    address: str = setting(
        default="127.0.0.1:8025",
        doc="Host and port of the status page, /metrics, /healthz and /readyz, in plain HTTP.",
        check=network.host_port,
    )
    token: Secret | None = setting(
        default=None,
        doc="Whoever knows it may hold, release, retry and drop mail on the page; left out: the page only shows.",
        example="systemd:status-token",
    )
    hosts: tuple[str, ...] = setting(
        default=(),
        doc="Names by which the page may be asked for besides localhost and IP addresses, behind a proxy.",
        example="relay.callcenter.nl",
        check=names.domain,
    )

    def loopback(self) -> bool:
        return network.listens_on_loopback(self.address)

    def faults(self) -> Iterator[Fault]:
        if self.token is not None and len(self.token.reveal()) < SHORTEST_TOKEN:
            wrong = f"is shorter than {SHORTEST_TOKEN} characters, and could be guessed"
            yield Fault("token", wrong, "make one with `openssl rand -hex 24`")
        if not self.loopback():
            wrong = "can be reached from other machines, in clear text: addresses of mail are on the page"
            mend = "listen on 127.0.0.1, and look through an SSH tunnel or a proxy with TLS and a login"
            yield Fault("address", wrong, mend, warning=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks(Settings):
    """Where providers tell what became of a mail; each upstream has a path of its own, `/webhooks/NAME`."""

    address: str = setting(
        doc="Host and port to take providers' events on, in plain HTTP: a proxy with TLS stands in front.",
        example="127.0.0.1:8026",
        check=network.host_port,
    )

    def faults(self) -> Iterator[Fault]:
        if not network.listens_on_loopback(self.address):
            wrong = "can be reached from other machines, and has no TLS of its own"
            mend = "listen on 127.0.0.1 behind a proxy, or let nobody but the proxy get there"
            yield Fault("address", wrong, mend, warning=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertMail(Settings):
    """Alerts by mail."""

    from_: tuple[str, ...] = setting(
        key="from",
        doc="Senders of ours: an alert takes the route of the first whose route works and is not what it is about.",
        example="relay@callcenter.nl",
        check=names.address,
    )
    to: tuple[str, ...] = setting(doc="Who is told.", example="beheer@callcenter.nl", check=names.address)

    def faults(self) -> Iterator[Fault]:
        if not all(address.isascii() for address in (*self.from_, *self.to)):
            yield Fault("", "has an address with letters beyond plain ASCII", "write it without accents")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts(Settings):
    """Who is told of trouble, once while it lasts: by every way that stands here."""

    mail: AlertMail | None = setting(default=None, doc="By mail, through a route that works.")
    webhook: Secret | None = setting(
        default=None,
        doc="By POST of JSON to this https URL, by reference: whoever knows such a URL may write there.",
        example="systemd:alert-webhook",
    )
    command: tuple[str, ...] = setting(
        default=(), doc="By a program and its arguments; JSON stands on its input.", example="/usr/local/bin/page-us"
    )
    per_hour: int = setting(
        default=20, doc="Most alerts in any hour; the next one says how many were left out.", minimum=1
    )
    repeat: Duration = setting(
        default=Duration(86400), doc="How long a trouble that lasts is not told again.", minimum=60
    )

    def faults(self) -> Iterator[Fault]:
        if not (self.mail or self.webhook or self.command):
            yield Fault("", "tells nobody", "write `mail:`, `webhook:` or `command:`, or leave it out")
        url = self.webhook.reveal() if self.webhook else ""
        if url and not network.is_https_url(url):
            yield Fault("webhook", "is no https URL", "store the whole URL that the service gave you")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns(Settings):
    """Whom `route`, `doctor` and `onboard` ask; mail itself never waits for these."""

    servers: tuple[str, ...] = setting(
        default=(),
        doc="DNS servers to ask instead of the machine's own: an IP address, with a port when it is not 53.",
        example="192.0.2.53",
        check=network.dns_server,
    )
    timeout: Duration = setting(default=Duration(5), doc="How long one question may take.", minimum=0.05, maximum=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor(Settings):
    """The look at every route that the relay takes by itself."""

    every: Duration = setting(
        default=Duration(86400), doc="How often each route is looked at; 0 switches it off.", minimum=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCentre(Settings):
    """Facts about ourselves, for `doctor` and for the sheets that `onboard` writes to customers."""

    name: str = setting(doc="Our name, as customers know it.", example="Callcenter B.V.")
    contact: str = setting(
        doc="Where customers write to, who gets what is sent to `<Postmaster>` without a domain, and the recipient "
        "that probes name; they send nothing.",
        example="mail@callcenter.nl",
        check=names.address,
    )
    addresses: tuple[IPv4Address, ...] = setting(
        default=(), doc="Every public IPv4 address that our mail leaves from.", example="203.0.113.10"
    )
    spf: str | None = setting(
        default=None,
        doc="The name that customers include in their SPF record; its own record holds our addresses.",
        example="spf.callcenter.nl",
        check=names.domain,
    )
    dkim: str | None = setting(
        default=None,
        doc="The domain of ours below which the customers' DKIM records stand, so that they publish an alias only.",
        example="dkim.callcenter.nl",
        check=names.domain,
    )

    def faults(self) -> Iterator[Fault]:
        if not self.contact.rpartition("@")[0].isascii():
            wrong = "has letters before the @ that few servers take"
            yield Fault("contact", wrong, "write those without accents")
        if self.spf is not None and not self.addresses:
            yield Fault("addresses", "is missing, and the SPF record must name them", "add our public IPv4 addresses")


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay(Settings):
    """relay.yaml, read once at start."""

    hostname: str | None = setting(
        default=None, doc="The name we give in greetings and EHLO; default: this machine's.", check=names.domain
    )
    listen: tuple[Listen, ...] = setting(default=(Listen(address="127.0.0.1:25"),), doc="Where mail is accepted.")
    spool: SpoolSettings = setting(default=SpoolSettings(), doc="Where mail lives until settled.")
    limits: Limits = setting(default=Limits(), doc="What one client or one mail may ask of us.")
    delivery: Delivery = setting(default=Delivery(), doc="When and how often we try.")
    status: Status | None = setting(default=None, doc="The status page; off when absent.")
    webhooks: Webhooks | None = setting(default=None, doc="Providers' events; off when absent.")
    alerts: Alerts | None = setting(default=None, doc="Who is told of trouble; nobody when absent: the log has it.")
    dns: Dns = setting(default=Dns(), doc="Whom the commands that look into the DNS ask.")
    doctor: Doctor = setting(default=Doctor(), doc="The look at every route that the relay takes by itself.")
    call_centre: CallCentre | None = setting(
        default=None, doc="Who we are; `onboard` needs it, and `doctor` compares the customers' records with it."
    )
    watch: Duration | None = setting(
        default=None,
        doc="How often to look whether routes.yaml or routes.d changed, and reload then; left out: only when told.",
        example="10s",
        minimum=1,
    )
    workers: int = setting(
        default=1,
        doc="Processes that share the port, for machines with many cores; above 1 it needs PostgreSQL.",
        minimum=1,
        maximum=32,
    )

    def faults(self) -> Iterator[Fault]:
        addresses = [listen.address for listen in self.listen]
        for number, address in enumerate(addresses):
            if address in addresses[:number] and network.host_port(address)[1]:  # port 0 is another one each time
                yield Fault(f"listen[{number}].address", f"{address} stands here twice", "keep one of the two")
        taken = dict.fromkeys(addresses, "mail is accepted")
        for name, other in (("status", self.status), ("webhooks", self.webhooks)):
            if other is not None and network.host_port(other.address)[1]:
                if other.address in taken:
                    wrong = f"{other.address} is where {taken[other.address]}"
                    yield Fault(f"{name}.address", wrong, "give it a port of its own")
                taken[other.address] = "the status page is"
        if self.workers > 1 and not self.spool.url.startswith("postgres"):
            wrong = "above 1 needs a database, for one file has one writer"
            mend = "write 1 (one process takes some two thousand mails a second), or a PostgreSQL url under `spool:`"
            yield Fault("workers", wrong, mend)
