"""`nodes`: who shares the spool, and what differs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from config.loading import load_rules
from ops.nodes_command import nodes_text, rules_hash, warnings_of
from spool.view import NodeLine
from upstreams import KINDS

NODE = NodeLine("relay-a:12", "0.1.0", "abc", 1.0, 0.5, 0.0, 3, True)


def test_nodes_that_agree_are_no_reason_to_warn():
    assert warnings_of([NODE, replace(NODE, name="relay-b:7")]) == []
    assert "relay-a:12" in nodes_text([NODE])
    assert nodes_text([]).startswith("One relay")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rules": "other"}, "rules differ"),
        ({"version": "0.2.0"}, "versions differ"),
        ({"alive": False, "seen_ago": 42.0}, "no sign of life for 42 s"),
        ({"skew": -2.5}, "is 2.5 s ahead"),
    ],
)
def test_what_differs_is_said(changes, word):
    other = replace(NODE, name="relay-b:7", **changes)
    (warning,) = warnings_of([NODE, other])
    assert word in warning
    assert f"Warning: {warning}" in nodes_text([NODE, other])
    assert json.dumps(warning)


def test_the_hash_is_of_the_rules_and_not_of_their_files(tmp_path):
    kinds = {name: kind.settings for name, kind in KINDS.items()}
    text = "upstreams: {box: {type: maildir, path: /var/box}}\nroutes:\n  - {from: acme.nl, via: box}\n"
    hashes = []
    for folder, written in (("a", text), ("b", "# a comment\n" + text), ("c", text.replace("acme", "globex"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "routes.yaml").write_text(written)
        hashes.append(rules_hash(load_rules(tmp_path / folder, kinds)))
    assert hashes[0] == hashes[1] != hashes[2]
