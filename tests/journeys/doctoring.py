"""`doctor` as people run it, beside look-alikes: a folder with rules, and the verdicts it prints."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.fakes.relay_process import ROOT

US = "call_centre: {name: Callcenter B.V., contact: post@callcenter.nl, addresses: 203.0.113.10, spf: spf.callcenter.nl}\n"  # noqa: E501
SPF_NAME, SPF_RECORD = "spf.callcenter.nl", "v=spf1 ip4:203.0.113.10 -all"


class Clinic:
    """relay.yaml with `dns` and our own facts, routes.yaml with `routes`; `environment` holds the secrets."""

    def __init__(self, folder: Path, dns: str, routes: str, environment: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.environment = {"PATH": os.environ["PATH"], "SSL_CERT_FILE": os.environ.get("SSL_CERT_FILE", "")}
        self.environment = {name: value for name, value in self.environment.items() if value} | (environment or {})
        (folder / "relay.yaml").write_text(
            f"hostname: relay.test\nlisten: [{{address: '127.0.0.1:1'}}]\nspool: {{url: 'sqlite:///{folder}/spool.db'}}\n{dns}{US}"
        )
        self.write(routes)

    def write(self, routes: str) -> None:
        (self.folder / "routes.yaml").write_text(routes)

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Any command: exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "relay.py"), *arguments, "--config", str(self.folder / "relay.yaml"),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=self.environment,
        )  # fmt: skip
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    async def doctor(self, *arguments: str) -> dict[str, str]:
        """The worst grade of each check of the routes; the listeners are left out, for no relay runs here."""
        code, output = await self.run("doctor", "--json", *arguments)
        verdicts = [one for one in json.loads(output) if one["check"] != "open relay"]
        self.verdicts = verdicts
        worst = {}
        for verdict in sorted(verdicts, key=lambda one: ("good", "warning", "problem").index(one["grade"])):
            worst[verdict["check"]] = verdict["grade"]
        assert code == (1 if "problem" in worst.values() else 0), output
        return worst

    def said(self, check: str) -> str:
        """What the last look said of a check."""
        return " / ".join(
            f"{one['where']}: {one['what']} -> {one['mend']}" for one in self.verdicts if one["check"] == check
        )
