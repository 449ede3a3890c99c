"""Runs inside the container, as root: look-alikes of every kind beside the packaged unit, and a mail through each.

Secrets are given in all three ways: by systemd, by the unit's environment, by file. Exit 0 when all arrived.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.demo import SECRETS, look_alikes, send_all

CONFIG = Path("/etc/callpro-relay")
STATE = Path("/var/lib/callpro-relay")
AUTHORITY = Path("/usr/local/share/ca-certificates/ours.crt")
DROP_IN = Path("/etc/systemd/system/callpro-relay.service.d/ours.conf")
BY_SYSTEMD = ("ENTRA_SECRET", "MAILGUN_KEY")


async def main() -> int:
    """The exit code."""
    async with look_alikes(STATE) as street:
        routes = street.routes
        for name in BY_SYSTEMD:
            routes = routes.replace(f"env:{name}", f"systemd:{name}")
            (CONFIG / "secrets" / name).write_text(SECRETS[name])
        (CONFIG / "routes.yaml").write_text(routes)
        by_environment = [f"Environment={name}={value}" for name, value in SECRETS.items() if name not in BY_SYSTEMD]
        DROP_IN.parent.mkdir(parents=True, exist_ok=True)
        DROP_IN.write_text("\n".join(["[Service]", *by_environment]))
        owner = STATE.stat()
        os.chown(STATE / "dkim.pem", owner.st_uid, owner.st_gid)
        AUTHORITY.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(street.authority.bundle, AUTHORITY)
        for command in ("update-ca-certificates", "systemctl daemon-reload", "systemctl restart callpro-relay"):
            subprocess.run(command.split(), check=True)
        return 0 if await send_all(25, street.ways) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
