"""Ordinary mail clients, each as a process of its own: swaks, msmtp, nodemailer and Python's smtplib."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

NODEMAILER = Path(__file__).resolve().parent.parent / "clients"


@dataclass(frozen=True, slots=True)
class Said:
    """A client's exit code and everything it printed."""

    code: int
    text: str


def program(name: str, missing: bool = False) -> str:
    """The path of a program. Where it is not installed the test is skipped by name, or fails in CI."""
    found = shutil.which(name)
    if found and not missing:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is needed in CI; scripts/peers installs it")
    pytest.skip(f"{name} is not on this machine; scripts/peers installs it")


async def run(*command: str, content: bytes = b"") -> Said:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(content), 60)
    return Said(process.returncode or 0, output.decode("utf-8", "replace"))


async def swaks(port: int, sender: str, recipients: list[str], content: bytes | None = None) -> Said:
    """Swaks; without `content` it makes a mail of its own."""
    command = [program("swaks"), "--server", f"127.0.0.1:{port}", "--from", sender, "--to", ",".join(recipients)]
    return await run(*command, *(["--data", "-"] if content else []), content=content or b"")


async def msmtp(port: int, sender: str, recipients: list[str], content: bytes) -> Said:
    """Msmtp, as a sendmail would be used: the mail on standard input."""
    return await run(
        program("msmtp"), "--host=127.0.0.1", f"--port={port}", "--tls=off", "--auth=off", f"--from={sender}",
        "--", *recipients, content=content,
    )  # fmt: skip


async def nodemailer(port: int, sender: str, recipients: list[str], mail: dict[str, object], count: int = 1) -> Said:
    """Nodemailer, with its pool: `mail` is its message object, sent `count` times on one connection."""
    node = program("node", missing=not (NODEMAILER / "node_modules" / "nodemailer").exists())
    asked = {"port": port, "envelope": {"from": sender, "to": recipients}, "mail": mail, "count": count}
    return await run(node, str(NODEMAILER / "send.mjs"), json.dumps(asked))


_SMTPLIB = """\
import smtplib, sys
with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=60) as client:
    refused = client.sendmail(sys.argv[2], sys.argv[3].split(","), sys.stdin.buffer.read())
print(refused)
"""


async def smtplib(port: int, sender: str, recipients: list[str], content: bytes) -> Said:
    """Python's own client."""
    return await run(sys.executable, "-c", _SMTPLIB, str(port), sender, ",".join(recipients), content=content)
