"""What an editor makes of our schemas: the real YAML language server on our files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.schema import relay_schema, routes_schema
from tests.config.language_server import SERVER, LanguageServer
from upstreams import KINDS

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[LanguageServer]:
    node = shutil.which("node")
    if node is None or not SERVER.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("node and yaml-language-server are needed in CI (scripts/peers installs them)")
        pytest.skip("node or yaml-language-server is not on this machine")
    for name, schema in (
        ("relay", relay_schema()),
        ("routes", routes_schema({name: kind.settings for name, kind in KINDS.items()})),
    ):
        (tmp_path / f"{name}.schema.json").write_text(json.dumps(schema))
    with LanguageServer(node, tmp_path) as server:
        yield server


def first_line(folder: Path, name: str) -> str:
    return f"# yaml-language-server: $schema=file://{folder}/{name}.schema.json\n"


@pytest.mark.parametrize("name", ["relay.yaml", "routes.yaml", "first-routes.yaml"])
def test_an_editor_finds_nothing_wrong_with_the_examples(editor: LanguageServer, tmp_path: Path, name: str) -> None:
    schema = "relay" if name == "relay.yaml" else "routes"
    _, wrong = editor.open(name, first_line(tmp_path, schema) + (EXAMPLES / name).read_text("utf-8"))
    assert wrong == []


def test_an_editor_marks_a_slip(editor: LanguageServer, tmp_path: Path) -> None:
    _, wrong = editor.open("relay.yaml", first_line(tmp_path, "relay") + "limits: {recipient: 5}\n")
    assert any("recipient" in message for message in wrong)
    _, wrong = editor.open("routes.yaml", first_line(tmp_path, "routes") + "routes: [{from: acme.nl, vai: x}]\n")
    assert wrong


def test_an_editor_completes_keys_kinds_and_values(editor: LanguageServer, tmp_path: Path) -> None:
    text = first_line(tmp_path, "routes") + (
        "upstreams:\n  one:\n    type: \n  two:\n    type: smtp\n    tls: \n    \nroutes:\n  - from: acme.nl\n    \n"
    )
    uri, _ = editor.open("routes.yaml", text)
    lines = text.splitlines()
    assert set(KINDS) <= set(editor.complete(uri, 3, len(lines[3])))
    assert {"starttls", "implicit", "none"} <= set(editor.complete(uri, 6, len(lines[6])))
    assert {"host", "port", "password"} <= set(editor.complete(uri, 7, 4))
    assert {"via", "sender", "dkim", "redirect"} <= set(editor.complete(uri, 10, 4))
    assert "Senders" in editor.hover(uri, 9, 6)
    uri, _ = editor.open("relay.yaml", first_line(tmp_path, "relay") + "limits:\n  \n")
    assert "message_size" in editor.complete(uri, 2, 2)
