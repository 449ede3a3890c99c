"""Completion: the engine on the real command line, and real shells that ask it."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import relay
from ops.completion import SCRIPTS, complete
from spool.contract import Arrival, id_text
from spool.sqlite import SqliteSpool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "relay.yaml"
    path.write_text(f"spool: {{url: 'sqlite:///{tmp_path}/spool.db'}}\n")
    (tmp_path / "routes.yaml").write_text(
        "upstreams: {out: {type: maildir, path: /var/empty}}\n"
        "routes: [{from: [acme.nl, acme.be], via: out}, {from: info@globex.nl, via: out}, {from: '<>', via: out}]\n"
    )
    return path


@pytest.fixture
def waiting(config: Path) -> str:
    """The id of a mail in the spool."""

    async def put() -> str:
        spool = await SqliteSpool.open(f"sqlite:///{config.parent}/spool.db", size_limit=1 << 30)
        number = spool.next_id()
        await spool.put(
            Arrival(number, "info@acme.nl", ("jan@example.org",), b"\r\nx\r\n", "acme.nl", 1.0, "127.0.0.1", "callpro")
        )
        await spool.close()
        return id_text(number)

    return asyncio.run(put())


def words(*line: str) -> list[str] | None:
    found = complete(relay._parser(), line)
    return None if found is None else [one.word for one in found]


def test_commands_and_their_options() -> None:
    assert words("qu") == ["queue"]
    assert words("queue", "re") == ["retry", "release"]
    assert "--settled" in (words("queue", "list", "--") or ())
    assert words("schema", "rel") == ["relay.yaml"]
    assert words("serve", "--log-format", "") == ["text", "json"]
    assert words("nonsense", "") is not None


def test_routes_senders_and_ids_come_from_where_the_config_points(config: Path, waiting: str) -> None:
    where = ("--config", str(config))
    assert words("queue", "retry", *where, "--route", "") == ["acme.nl", "info@globex.nl"]
    assert words("queue", "hold", *where, "--sender", "@") == ["@acme.nl", "@globex.nl"]
    assert words("route", *where, "klant@g") == ["klant@globex.nl"]
    assert words("queue", "show", f"--config={config}", waiting[:4]) == [waiting]
    assert words("queue", "drop", *where, waiting, "") == [waiting]


def test_nothing_is_offered_and_nothing_is_said_where_nothing_can_be_read(config: Path, capfd) -> None:
    (config.parent / "routes.yaml").write_text("routes: [")
    assert words("queue", "retry", "--config", str(config), "--route", "") == []
    assert words("queue", "show", "--config", str(config), "") == []
    assert words("queue", "show", "--config", "/nowhere/relay.yaml", "") == []
    assert capfd.readouterr() == ("", "")


def test_files_are_left_to_the_shell() -> None:
    assert words("check", "--config", "") is None
    assert words("route", "a@acme.nl", "--message", "") is None


@pytest.fixture
def shell(request, tmp_path: Path, monkeypatch) -> str:
    """A shell that finds `callpro-relay` on its path."""
    found = shutil.which(request.param)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{request.param} is needed in CI (scripts/peers installs it)")
        pytest.skip(f"{request.param} is not on this machine")
    program = tmp_path / "bin" / "callpro-relay"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/relay.py "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "script").write_text(SCRIPTS[request.param])
    return found


def run(shell: str, text: str) -> list[str]:
    done = subprocess.run([shell, "-c", text], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash"], indirect=True)
def test_bash(shell: str, config: Path, tmp_path: Path) -> None:
    def tab(line: str, *pieces: str) -> list[str]:
        last = len(pieces) - 1
        quoted = " ".join(f"'{piece}'" for piece in pieces)
        return run(shell, f". '{tmp_path}/script'; COMP_CWORD={last}; "
                   f"COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({quoted}); "
                   f"COMP_WORDBREAKS=$' \\t\\n\"><=;|&(:@'; _callpro_relay; "
                   "printf '%s\\n' \"${COMPREPLY[@]}\"")  # fmt: skip

    assert tab("callpro-relay queue f", "callpro-relay", "queue", "f") == ["find", "failures", "forecast"]
    where = f"callpro-relay route --config {config} "
    assert tab(f"{where}klant@a", "klant", "@", "a") == ["acme.nl"]  # bash replaces what stands behind the @
    files = tab(f"callpro-relay check --config {config.parent}/re", f"{config.parent}/re")
    assert files == [str(config)]


@pytest.mark.parametrize("shell", ["fish"], indirect=True)
def test_fish(shell: str, config: Path, tmp_path: Path) -> None:
    def tab(line: str) -> list[str]:
        return run(shell, f"source '{tmp_path}/script'; complete -C '{line}'")

    assert [line.split("\t")[0] for line in tab("callpro-relay queue f")] == ["find", "failures", "forecast"]
    assert tab(f"callpro-relay queue hold --config {config} --route ac") == ["acme.nl"]
    assert tab(f"callpro-relay check --config {config.parent}/re") == [str(config)]


@pytest.mark.parametrize("shell", ["zsh"], indirect=True)
def test_zsh(shell: str, config: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    started = subprocess.Popen([shell, "-f", "-i"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)

    def until(wanted: bytes) -> None:
        seen, deadline = b"", time.monotonic() + 60
        while wanted not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 65536)

    try:
        script = tmp_path / "script"
        os.write(master, f"autoload -U compinit; compinit -D -u; source {script}; echo rea''dy\n".encode())
        until(b"ready")
        os.write(master, f"callpro-relay queue hold --config {config} --route info\t".encode())
        until(b"info@globex.nl")
        os.write(master, b"\x15callpro-relay queue forec\t")
        until(b"forecast")
        os.write(master, b"\x15exit\n")
        started.wait(60)
    finally:
        started.kill()
        started.wait()
        os.close(master)
