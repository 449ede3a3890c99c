"""What `serve` has in memory: the parts of what is configured, and no other command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.demo import new_signing_key

ROOT = Path(__file__).resolve().parents[2]

_SERVE = """\
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[2])
import relay, ops.service
class Service(ops.service.Service):
    async def run(self):
        asyncio.get_running_loop().call_later(1, os.kill, os.getpid(), signal.SIGTERM)
        return await super().run()
ops.service.Service = Service
code = relay.main(["serve", "--config", sys.argv[1]])
heavy = {"cryptography", "html", "difflib", "ops.convert_postfix", "ops.onboarding", "ops.doctor", "ops.completion"}
print(code, sorted(heavy & set(sys.modules)))
"""


def test_a_relay_holds_what_its_rules_need(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(new_signing_key())
    key.chmod(0o600)
    (tmp_path / "relay.yaml").write_text(
        f"listen: [{{address: '127.0.0.1:0'}}]\nspool: {{url: 'sqlite:///{tmp_path}/spool.db'}}\n", "utf-8"
    )
    upstream = "upstreams:\n  own: {type: smtp, host: 127.0.0.1, port: 2525, tls: none}\n"
    dkim = f", dkim: {{domain: acme.nl, selector: r1, key: 'file:{key}'}}"
    for extra, loaded in (("", []), (dkim, ["cryptography"])):
        (tmp_path / "routes.yaml").write_text(f"{upstream}routes:\n  - {{from: acme.nl, via: own{extra}}}\n", "utf-8")
        done = subprocess.run(
            [sys.executable, "-c", _SERVE, str(tmp_path / "relay.yaml"), str(ROOT)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stdout == f"0 {loaded}\n", done.stderr
