"""Where a route's signature is put on: by what each upstream does to a mail, and by `always`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from config.credentials import Secret
from config.fields import setting
from config.rules import Dkim, Route, Rules
from delivery.plan import Plan, build_plan
from tests.delivery.room import BAD_LOGIN, CONTENT, Scripted, ScriptedSettings, kinds, room, route, rules
from tests.waiting import until
from upstreams.base import Host
from upstreams.traits import Signing, Traits

PEM = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PLAIN = Dkim(domain="acme.nl", selector="s1", key=Secret("env:K", PEM))
ALWAYS = Dkim(domain="acme.nl", selector="s2", key=Secret("env:K", PEM), always=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider(ScriptedSettings):
    signing: Signing = setting(default="ours", doc="As in Traits.")

    def traits(self) -> Traits:
        return Traits(signing=self.signing)


def signing_rules(routes: tuple[Route, ...], **signing: Signing) -> Rules:
    """Rules in which the named upstreams do this to a mail; the others say nothing of it."""
    made = rules(routes)
    entries = {
        name: replace(entry, settings=Provider(signing=signing[name])) if name in signing else entry
        for name, entry in made.upstreams.items()
    }
    return replace(made, upstreams=entries)


def plan(routes: tuple[Route, ...], *upstreams: Scripted, **signing: Signing) -> Plan:
    return build_plan(signing_rules(routes, **signing), kinds(*upstreams), Host("relay.callcenter.nl"), None)


@pytest.mark.parametrize(
    ("dkim", "signed"),
    [
        ((PLAIN,), {"kept", "silent"}),
        ((ALWAYS,), {"kept", "silent", "theirs"}),
        ((PLAIN, ALWAYS), {"kept", "silent", "theirs"}),
        ((), set()),
    ],
)
def test_which_upstreams_get_a_signature(dkim: tuple[Dkim, ...], signed: set[str]) -> None:
    via = ("kept", "silent", "theirs", "rebuilt")
    routes = (route("acme.nl", via=via, dkim=dkim), route("globex.nl", via="kept"))
    made = plan(routes, *map(Scripted, via), kept="ours", theirs="theirs", rebuilt="rebuilt")
    assert set(made.signers) == {("acme.nl", name) for name in signed}
    if dkim == (PLAIN, ALWAYS):
        at_ours = made.signers["acme.nl", "kept"].sign(CONTENT, 0)
        at_theirs = made.signers["acme.nl", "theirs"].sign(CONTENT, 0)
        assert (at_ours.count(b"s=s1;"), at_ours.count(b"s=s2;")) == (1, 1)
        assert (at_theirs.count(b"s=s1;"), at_theirs.count(b"s=s2;")) == (0, 1)


def test_a_fallback_signs_what_the_first_upstream_would_not_take_signed(tmp_path: Path) -> None:
    async def scenario() -> None:
        provider, ours = Scripted("provider", BAD_LOGIN), Scripted("ours")
        routes = (route("acme.nl", via=("provider", "ours"), dkim=(PLAIN,)),)
        async with room(tmp_path, routes, Scripted("provider"), Scripted("ours")) as r:
            await r.scheduler.replace(plan(routes, provider, ours, provider="rebuilt"))
            await r.put()
            await until(lambda: bool(ours.mails), "the mail at the fallback")
            assert [mail.content for mail in provider.mails] == [CONTENT]
            assert ours.mails[0].content.startswith(b"DKIM-Signature: ")
            assert ours.mails[0].content.endswith(CONTENT)

    asyncio.run(scenario())
