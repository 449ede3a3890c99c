"""Tries to misuse our own listeners as a stranger would: is this relay open? For `doctor`; sends no mail.

Must never go further than RCPT, nor call a listener closed that it could not ask.
"""

from __future__ import annotations

import ipaddress
import smtplib
import socket
from collections.abc import Callable, Iterator
from typing import Final

from config.network import host_port, network
from config.relay_settings import Listen, Relay
from ops.alerts import SELF_TEST
from ops.doctor import Grade, Verdict

STRANGER: Final = "open-relay-test@stranger.invalid"
"""A sender that no rule names: `.invalid` belongs to nobody (RFC 2606 2)."""
_SENDERS: Final = (
    STRANGER,
    f"@stranger.invalid:{STRANGER}",
    "open-relay-test%stranger.invalid@stranger.invalid",
    '"open-relay-test@stranger.invalid"@stranger.invalid',
)
_VICTIM: Final = "victim@elsewhere.invalid"
_CHECK: Final = "open relay"
_BUG: Final = "this is a bug: report it, and close the port until it is mended"
_CLOSED: Final = "the connection was closed without an answer"
_TIMEOUT: Final = 10.0


def open_relay(relay: Relay, takes: Callable[[str], bool], timeout: float = _TIMEOUT) -> list[Verdict]:
    """What became of every attempt on the listeners of the running relay: one good verdict a listener, or what got in.

    `takes(sender)` says whether a rule takes mail of a sender. Every address of this machine is tried as the client's,
    so that one outside `allow` is among them where there is one. Blocks, for `timeout` seconds at most each time.
    """
    found: list[Verdict] = []
    for listen in relay.listen:
        found += [_balanced(listen, timeout)] if listen.proxy_protocol else _listener(listen, takes, timeout)
    return found


def _balanced(listen: Listen, timeout: float) -> Verdict:
    """Of a listener behind load balancers: it must not say a word to anybody else."""
    host, port = host_port(listen.address)
    balancers = [network(text) for text in listen.proxy_protocol]
    strangers = [own for own in _own_addresses(host) if not any(ipaddress.ip_address(own) in net for net in balancers)]
    for own in strangers:
        code, reply = _ask((own if _is_any(host) else host, port), own, STRANGER, timeout)
        if code is not None:
            return Verdict("", _CHECK, Grade.PROBLEM, listen.address, f"answered {own}, no balancer: {reply}", _BUG)
        if reply != _CLOSED:
            mend = "is the relay running, with this relay.yaml?"
            return Verdict("", _CHECK, Grade.WARNING, listen.address, f"could not be tried from {own}: {reply}", mend)
    if not strangers:
        mend = "run doctor on a machine that is none of them"
        return Verdict("", _CHECK, Grade.WARNING, listen.address, "not tried, for this is one of its balancers", mend)
    what = f"speaks with nobody but its load balancers ({len(strangers)} attempts closed)"
    return Verdict("", _CHECK, Grade.GOOD, listen.address, what)


def _listener(listen: Listen, takes: Callable[[str], bool], timeout: float) -> Iterator[Verdict]:
    host, port = host_port(listen.address)
    refused = 0
    for own in _own_addresses(host):
        allowed = any(ipaddress.ip_address(own) in network(text) for text in listen.allow)
        for sender in _SENDERS if allowed else (STRANGER,):
            code, reply = _ask((own if _is_any(host) else host, port), own, sender, timeout)
            tried = f"from {own}{'' if allowed else ', which is outside allow,'} as <{sender}>"
            if code is None or code == 421:
                mend = "is the relay running, with this relay.yaml?"
                yield Verdict("", _CHECK, Grade.WARNING, listen.address, f"could not be tried {tried}: {reply}", mend)
                return
            if code >= 400:
                refused += 1
                continue
            grade, mend = Grade.PROBLEM, _BUG
            if allowed and not listen.users and takes(sender):
                grade = Grade.WARNING
                mend = 'a rule takes every sender ("*"), so whoever may connect sends as anybody; name the domains'
            yield Verdict("", _CHECK, grade, listen.address, f"took a mail of a stranger {tried}: {reply}", mend)
            return
    what = f"lets in no sender without a route, and nobody outside allow ({refused} attempts refused)"
    yield Verdict("", _CHECK, Grade.GOOD, listen.address, what)


def _ask(where: tuple[str, int], own: str, sender: str, timeout: float) -> tuple[int | None, str]:
    """The code and text of the first refusal, or of the answer to RCPT; no code when it could not be asked."""
    client = smtplib.SMTP(timeout=timeout, source_address=(own, 0))
    try:
        code, said = client.connect(*where)
        if code == 220:
            client.helo(SELF_TEST)
            code, said = client.docmd("MAIL", f"FROM:<{sender}>")
            if code < 400:
                code, said = client.docmd("RCPT", f"TO:<{_VICTIM}>")
    except smtplib.SMTPServerDisconnected:
        return None, _CLOSED
    except OSError as error:
        return None, error.strerror or str(error) or type(error).__name__
    finally:
        client.close()
    return code, f"{code} {said.decode('utf-8', 'replace')}"


def _is_any(host: str) -> bool:
    return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_unspecified


def _own_addresses(host: str) -> list[str]:
    """Addresses of this machine that a client of the listener can have, loopback first."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    if host == "localhost" or ipaddress.ip_address(host).is_loopback:
        return [loopback]
    found = [] if _is_any(host) else [host]
    try:
        named = socket.getaddrinfo(socket.gethostname(), None, family, socket.SOCK_STREAM)
        found += [str(each[4][0]) for each in named]
    except OSError:
        pass  # a machine whose own name has no address; what we know already must do
    return list(dict.fromkeys([loopback, *found]))
