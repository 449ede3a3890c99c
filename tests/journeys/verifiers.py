"""Programs that are not ours and verify DKIM: opendkim from Debian and mailauth from npm, both asking a local DNS."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.dns import FakeDns
from tests.journeys import clients

_OPENDKIM_RESULT = re.compile(r"dkim=(\w+)\s.*?header\.a=(\S+)\s+header\.s=(\S+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a receiver thinks of a mail. `dkim` is a set of (selector, algorithm, result); `dmarc` is `pass`, `fail` or
    `none`, or "" from a program that does not say.
    """

    dkim: frozenset[tuple[str, str, str]]
    dmarc: str = ""


async def opendkim(dns: FakeDns, folder: Path, content: bytes) -> Verdict:
    """Opendkim in its test mode, which takes the mail through the same steps as its milter."""
    found = shutil.which("opendkim") or shutil.which("opendkim", path="/usr/sbin:/usr/local/sbin")
    program = found or clients.program("opendkim")
    resolver, config, mail = folder / "unbound.conf", folder / "opendkim.conf", folder / "mail.eml"
    resolver.write_text(
        'server:\n  do-not-query-localhost: no\n  module-config: "iterator"\n'
        f'forward-zone:\n  name: "."\n  forward-addr: {dns.host}@{dns.port}\n'
    )
    config.write_text(f"Mode v\nAlwaysAddARHeader yes\nAuthservID receiver.test\nResolverConfiguration {resolver}\n")
    mail.write_bytes(content)
    said = await clients.run(program, "-x", str(config), "-vv", "-t", str(mail))
    assert "Authentication-Results" in said.text, said.text
    found_all = _OPENDKIM_RESULT.findall(said.text)
    return Verdict(frozenset((selector, algorithm, result) for result, algorithm, selector in found_all))


async def mailauth(dns: FakeDns, sender: str, content: bytes) -> Verdict:
    """Mailauth as a receiver: DKIM and DMARC, from an address that SPF says nothing of."""
    modules = clients.NODEMAILER / "node_modules" / "mailauth"
    node = clients.program("node", missing=not modules.exists())
    script = str(clients.NODEMAILER / "verify.mjs")
    said = await clients.run(node, script, f"{dns.host}:{dns.port}", sender, content=content)
    assert said.code == 0, said.text
    found = json.loads(said.text)
    dkim = frozenset((one["selector"], one["algorithm"], one["result"]) for one in found["dkim"])
    return Verdict(dkim, found["dmarc"])
