"""The YAML language server that editors use (npm: yaml-language-server), as an editor talks to it (LSP over stdio)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

SERVER = Path(__file__).parents[1] / "clients/node_modules/yaml-language-server/bin/yaml-language-server"


class LanguageServer:
    """One server for one folder. A context manager."""

    def __init__(self, node: str, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._told: list[dict[str, Any]] = []
        self._process = subprocess.Popen([node, SERVER, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> LanguageServer:
        abilities = {
            "textDocument": {
                "completion": {"completionItem": {"documentationFormat": ["markdown"]}},
                "hover": {"contentFormat": ["markdown"]},
                "publishDiagnostics": {},
            }
        }
        self.ask("initialize", processId=None, rootUri=self._folder.as_uri(), capabilities=abilities)
        self._send(method="initialized", params={})
        # Nothing is looked up elsewhere: only the schema that the file names.
        settings = {"yaml": {"schemaStore": {"enable": False}, "validate": True, "completion": True, "hover": True}}
        self._send(method="workspace/didChangeConfiguration", params={"settings": settings})
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def open(self, name: str, text: str) -> tuple[str, list[str]]:
        """Open a file as an editor does; its address, and what the server finds wrong with it."""
        uri = (self._folder / name).as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send(method="textDocument/didOpen", params={"textDocument": document})
        found = self._until(
            lambda m: m.get("method") == "textDocument/publishDiagnostics" and m["params"]["uri"] == uri
        )
        return uri, [one["message"] for one in found["params"]["diagnostics"]]

    def complete(self, uri: str, line: int, character: int) -> list[str]:
        """What it offers there, counted from 0."""
        found = self.ask("textDocument/completion", textDocument={"uri": uri}, position=_at(line, character))
        return [item["label"] for item in (found["items"] if isinstance(found, dict) else found or [])]

    def hover(self, uri: str, line: int, character: int) -> str:
        """What it says of the word there."""
        found = self.ask("textDocument/hover", textDocument={"uri": uri}, position=_at(line, character))
        return str(found["contents"]["value"]) if found else ""

    def ask(self, method: str, **params: Any) -> Any:
        """A request; its result."""
        self._number += 1
        self._send(id=self._number, method=method, params=params)
        return self._until(lambda m: m.get("id") == self._number and "method" not in m).get("result")

    def _until(self, wanted: Any) -> dict[str, Any]:
        while True:
            message = self._receive()
            if "id" in message and "method" in message:  # it asks the editor: nothing is configured
                items = message.get("params", {}).get("items")
                self._send(id=message["id"], result=[None] * len(items) if items else None)
            elif wanted(message):
                return message

    def _send(self, **message: Any) -> None:
        assert self._process.stdin
        content = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout
        length = 0
        while (line := self._process.stdout.readline()) != b"\r\n":
            if not line:
                raise EOFError("the language server ended")
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        found: dict[str, Any] = json.loads(self._process.stdout.read(length))
        return found


def _at(line: int, character: int) -> dict[str, int]:
    return {"line": line, "character": character}
