"""What a reload changes, customer by customer, and that no secret is in it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.loading import load_rules
from ops.rules_diff import Change, RuleSet, changes, changes_text
from ops.rules_watch import Watcher, look
from ops.service import tell_end
from upstreams import KINDS

OLD = """\
upstreams:
  acme: {type: smtp, host: localhost, username: acme, password: geheim-1}
  spare: {type: smtp, host: localhost, port: 2525, tls: none}
routes:
  - {from: acme.nl, via: acme}
  - {from: [globex.nl, "*.globex.nl"], via: spare, pace: {per_minute: 30}}
  - {from: weg.nl, via: spare}
"""


def rules(folder: Path, text: str) -> RuleSet:
    (folder / "routes.yaml").write_text(text, "utf-8")
    found = load_rules(folder, {name: kind.settings for name, kind in KINDS.items()})
    return RuleSet({route.name: route for route in found.routes}, found.upstreams)


def test_a_moved_line_and_a_comment_change_nobody(tmp_path):
    old = rules(tmp_path, OLD)
    assert changes(old, rules(tmp_path, f"# hello\n{OLD}")) == ()
    assert changes_text(()) == "No customer changes.\n"


def test_each_customer_with_every_value_that_changes(tmp_path):
    old = rules(tmp_path, OLD)
    new = rules(
        tmp_path,
        """\
upstreams:
  acme: {type: smtp, host: localhost, username: acme, password: geheim-2, timeout: 20s}
  spare: {type: maildir, path: /var/mail/spare}
routes:
  - {from: acme.nl, via: [acme, spare], sender: {address: post@callcenter.nl}}
  - {from: [globex.nl, "*.globex.nl"], via: spare, pace: {per_minute: 60}}
  - {from: nieuw.nl, via: acme}
""",
    )
    found = changes(old, new)
    assert found == (
        Change(
            "acme.nl",
            "changed",
            (
                "via: acme -> acme, spare",
                "sender: not set -> {address: post@callcenter.nl}",
                "upstream acme timeout: 60 -> 20",
                "upstream acme password: another value",
            ),
        ),
        Change("globex.nl", "changed", ("pace.per_minute: 30 -> 60", "upstream spare type: smtp -> maildir")),
        Change("nieuw.nl", "added", ("via: acme",)),
        Change("weg.nl", "removed"),
    )
    text = changes_text(found)
    assert "geheim" not in text
    assert text.startswith("acme.nl: changed\n    via: acme -> acme, spare\n")
    assert text.endswith("weg.nl: removed\n4 customers change\n")


def test_a_secret_that_is_another_one_now_is_told_by_its_reference(tmp_path, monkeypatch):
    monkeypatch.setenv("ACME", "geheim-1")
    old = rules(tmp_path, OLD.replace("geheim-1", '"env:ACME"'))
    monkeypatch.setenv("ACME", "geheim-2")
    new = rules(tmp_path, OLD.replace("geheim-1", '"env:ACME"'))
    (change,) = changes(old, new)
    assert change.what == ("upstream acme password: another value behind env:ACME",)


def test_files_are_reported_once_when_they_are_quiet(tmp_path):
    (tmp_path / "routes.d").mkdir()
    (tmp_path / "routes.yaml").write_text("a", "utf-8")
    watcher = Watcher(look(tmp_path))
    assert not watcher.changed(look(tmp_path))
    (tmp_path / "routes.d" / "acme.nl.yaml").write_text("half", "utf-8")
    assert not watcher.changed(look(tmp_path)), "it may still be written"
    (tmp_path / "routes.d" / "acme.nl.yaml").write_text("half and more", "utf-8")
    assert not watcher.changed(look(tmp_path))
    assert watcher.changed(look(tmp_path))
    assert not watcher.changed(look(tmp_path)), "refused or not, once"
    (tmp_path / "routes.d" / ".swap").write_text("an editor's", "utf-8")
    assert not watcher.changed(look(tmp_path))
    assert not watcher.changed(look(tmp_path))
    (tmp_path / "routes.yaml").unlink()
    assert [watcher.changed(look(tmp_path)) for _ in range(3)] == [False, True, False]


@pytest.mark.parametrize("name", ["routes.d", "routes.d/acme.nl.yaml"])
def test_a_mode_that_is_mended_is_a_change(tmp_path, name):
    """`run: chmod o-w ...` is what a refusal says."""
    (tmp_path / "routes.d").mkdir()
    (tmp_path / "routes.d" / "acme.nl.yaml").write_text("a", "utf-8")
    (tmp_path / name).chmod(0o777)
    watcher = Watcher(look(tmp_path))
    (tmp_path / name).chmod(0o755)
    assert [watcher.changed(look(tmp_path)) for _ in range(3)] == [False, True, False]


def test_a_file_that_is_put_back_meanwhile_is_no_change(tmp_path):
    first, other = frozenset({("a", 1, 1, 1)}), frozenset({("a", 2, 2, 2)})
    watcher = Watcher(first)
    assert [watcher.changed(seen) for seen in (other, first, first)] == [False, False, False]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_is_shut_for_a_while_ends_no_watching(open_folder):
    (open_folder / "rules" / "routes.d").mkdir(parents=True)
    (open_folder / "rules" / "routes.d" / "acme.yaml").write_text(OLD, "utf-8")
    program = (
        "import os, pathlib, sys; from ops.rules_watch import look\n"
        "os.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
        "print([seen[0][-9:] for seen in look(pathlib.Path(sys.argv[1])) if seen[0].endswith('.yaml')])\n"
    )

    def seen(shut: Path | None) -> str:
        if shut:
            shut.chmod(0o700)
        command = [sys.executable, "-c", program, str(open_folder / "rules")]
        return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True).stdout.strip()

    assert [seen(None), seen(open_folder / "rules" / "routes.d"), seen(open_folder / "rules")] == [
        "['acme.yaml']",
        "[]",
        "[]",
    ]


def test_a_chore_that_dies_is_told_loudly(caplog):
    async def chore() -> None:
        raise KeyError("a bug")

    async def begin() -> None:
        dying, stopped = asyncio.create_task(chore()), asyncio.create_task(asyncio.sleep(60))
        for each in (dying, stopped):
            each.add_done_callback(tell_end)
        stopped.cancel()
        await asyncio.wait((dying, stopped))

    asyncio.run(begin())
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "KeyError" in caplog.text
