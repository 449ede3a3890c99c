"""What ends, and when: certificates, secrets and keys of the rules, and the certificates that upstreams showed us.

Reads what is at hand and connects to nobody. Must never show a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Final

from config.credentials import Secret
from config.relay_settings import Relay
from config.rules import Route, UpstreamRule, users_of
from ops.queue_view import age_text, plain

DAY: Final = 86400.0
STEPS: Final = (30, 14, 7, 1, 0)
"""Days before the end at which ops are told; 0 is the end itself."""
OLD_KEY: Final = 365
"""Days after which a DKIM key is called old."""
_SHOWN: Final = 10
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Expiry:
    """One thing that ends. `what` is its sort, `where` the upstream, route or host and the file:line, `routes` who
    needs it. `ends_at` and `made_at` are unix seconds, None when nobody knows; `source` is how we know.
    """

    what: str
    where: str
    routes: tuple[str, ...]
    ends_at: float | None
    source: str
    made_at: float | None = None

    @property
    def key(self) -> str:
        return f"{self.what} {self.where.partition(' (')[0]}"


def calendar(
    relay: Relay | None,
    routes: Iterable[Route],
    upstreams: Mapping[str, UpstreamRule],
    seen: Mapping[str, float],
) -> tuple[Expiry, ...]:
    """Everything, what ends first at the top, what is not known at the end. `seen` is when the certificates of hosts
    end, as they were shown to us last.
    """
    routes = tuple(routes)
    found = [*_listeners(relay), *_dkim(routes)]
    users = users_of(routes)
    for upstream in upstreams.values():
        found += _upstream(upstream, tuple(users.get(upstream.name, ())))
    found += [Expiry("TLS certificate", host, (), end, "as it was shown last") for host, end in sorted(seen.items())]
    return tuple(sorted(found, key=lambda one: (one.ends_at is None, one.ends_at or 0.0, one.key)))


def certificate_end(pem: str) -> float | None:
    """When the first certificate in a PEM ends; None when there is none that can be read."""
    if _BEGIN not in pem:
        return None
    from cryptography.x509 import load_pem_x509_certificate

    try:
        end = load_pem_x509_certificate(pem[pem.index(_BEGIN) :].encode()).not_valid_after_utc
    except ValueError:
        return None
    return end.timestamp()


def step_of(one: Expiry, now: float) -> int | None:
    """The step that it has come to: the smallest number of days of STEPS that it is within; None before all of them."""
    if one.ends_at is None:
        return None
    return min((step for step in STEPS if one.ends_at - now <= step * DAY), default=None)


def calendar_text(found: Sequence[Expiry], now: float) -> str:
    """A line for each, and who needs it below."""
    lines = []
    for one in found:
        step = step_of(one, now)
        mark = "  " if step is None else "! "
        lines.append(f"{mark}{_when(one, now):<28} {one.what:<16} {plain(one.where)} ({one.source})")
        if one.routes:
            more = " and more" if len(one.routes) > _SHOWN else ""
            lines.append(f"    needed by {plain(', '.join(one.routes[:_SHOWN]))}{more}")
    return "".join(f"{line}\n" for line in lines) or "Nothing that ends is known.\n"


def calendar_json(found: Sequence[Expiry], now: float) -> str:
    """A list of objects; times are ISO 8601 in UTC, `days` whole days from now."""
    return json.dumps([fields_of(one, now) for one in found], ensure_ascii=False, indent=2) + "\n"


def fields_of(one: Expiry, now: float) -> dict[str, object]:
    """One entry as a JSON object."""
    ends, made = one.ends_at, one.made_at
    return {
        **asdict(one),
        "ends_at": None if ends is None else datetime.fromtimestamp(ends, UTC).isoformat(timespec="seconds"),
        "made_at": None if made is None else datetime.fromtimestamp(made, UTC).isoformat(timespec="seconds"),
        "days": None if ends is None else int((ends - now) // DAY),
        "step": step_of(one, now),
    }


def _when(one: Expiry, now: float) -> str:
    if one.ends_at is not None:
        day = datetime.fromtimestamp(one.ends_at, UTC).date().isoformat()
        left = one.ends_at - now
        return f"{day} {'ended ' if left < 0 else 'in '}{age_text(abs(left))}{' ago' if left < 0 else ''}"
    if one.made_at is not None:
        old = ", change it" if now - one.made_at > OLD_KEY * DAY else ""
        return f"made {age_text(now - one.made_at)} ago{old}"
    return "not known"


def _listeners(relay: Relay | None) -> Iterator[Expiry]:
    for listen in relay.listen if relay else ():
        tls = getattr(listen, "tls", None)
        if tls is not None:
            try:
                end = certificate_end(Path(tls.certificate).read_text("ascii", "replace"))
            except OSError:
                end = None
            yield Expiry("TLS certificate", f"our listener {listen.address}", (), end, "read from its file")


def _dkim(routes: Iterable[Route]) -> Iterator[Expiry]:
    for route in routes:
        for dkim in route.settings.dkim:
            where = f"{dkim.selector}._domainkey.{dkim.domain} ({route.place})"
            yield Expiry("DKIM key", where, (route.name,), None, "by the age of its file", _made_at(dkim.key))


def _upstream(rule: UpstreamRule, users: tuple[str, ...]) -> Iterator[Expiry]:
    where = f"{rule.name} ({rule.place})"
    secrets = [(each.name, getattr(rule.settings, each.name)) for each in fields(rule.settings)]
    secrets = [(name, secret) for name, secret in secrets if isinstance(secret, Secret)]
    for name, secret in secrets:
        end = certificate_end(secret.reveal())
        if end is not None:
            yield Expiry("certificate", where, users, end, "read from its PEM")
        elif rule.expires is None and name != "password" and not secret.literal:
            yield Expiry(name.replace("_", " "), where, users, None, "write `expires:` on the upstream")
    if rule.expires is not None:
        end = datetime.combine(rule.expires, time(), UTC).timestamp()
        names = [name.replace("_", " ") for name, _ in secrets] or ["upstream"]
        yield Expiry(names[0], where, users, end, "stated by `expires:`")


def _made_at(secret: Secret) -> float | None:
    """By its file. Behind `systemd:` that is a copy of the unit's start, which says nothing."""
    scheme, _, path = secret.reference.partition(":")
    try:
        return Path(path).stat().st_mtime if scheme == "file" else None
    except OSError:
        return None
