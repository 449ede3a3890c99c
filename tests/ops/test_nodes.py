"""`nodes`: who shares the spool, and what differs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from config.loading import load_rules
from ops.nodes import rules_hash, warnings_of
from ops.nodes_command import nodes_json, nodes_text
from spool.view import NodeLine, Taken
from upstreams import KINDS

NODE = NodeLine(7, "relay-a:12", "0.1.0", "abc", 1.0, 0.5, 0.0, 30.0)
OTHER = replace(NODE, number=8, name="relay-b:7")
THIRD = replace(NODE, number=9, name="relay-c:9")


def test_nodes_that_agree_are_no_reason_to_warn():
    assert warnings_of([NODE, OTHER, replace(THIRD, rules="", version="")]) == []
    text = nodes_text([NODE, OTHER], [Taken(8, "acme.nl", 3, 1.0), Taken(8, "globex.nl", 2, 2.0)])
    assert [line.split()[:4] for line in text.splitlines()[1:]] == [
        ["relay-a:12", "0.1.0", "abc", "0"],
        ["relay-b:7", "0.1.0", "abc", "5"],
    ]
    assert nodes_text([], []).startswith("One relay")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rules": "other"}, "Other rules than the others: relay-b:7 -> Copy routes.yaml"),
        ({"version": "0.2.0"}, "Another version than the others: relay-b:7 (0.2.0) -> Finish"),
        ({"seen_ago": 16.0}, "No sign of life of relay-b:7 for 16s -> Look there: systemctl status"),
        ({"seen_ago": 42.0, "rules": "other"}, "No sign of life of relay-b:7 for 42s -> "),
        ({"skew": -2.5}, "The clock of relay-b:7 is 2.5 s ahead"),
        ({"skew": 2.5}, "The clock of relay-b:7 is 2.5 s behind"),
    ],
)
def test_what_differs_is_said_with_what_to_do(changes, words):
    lines = [NODE, replace(OTHER, **changes), THIRD]
    (warning,) = warnings_of(lines)
    assert warning.text.startswith(words)
    assert f"Warning: {warning.text}" in nodes_text(lines, [])
    told = json.loads(nodes_json(lines, [Taken(7, "acme.nl", 3, 1.0)]))
    assert told["warnings"] == [warning.text]
    assert told["nodes"][0]["under_way"] == [{"route": "acme.nl", "mails": 3, "oldest": 1.0}]
    assert [node["alive"] for node in told["nodes"]] == [True, changes.get("seen_ago") != 42.0, True]


def test_of_two_that_differ_nobody_knows_who_is_right():
    (warning,) = warnings_of([NODE, replace(OTHER, rules="def")])
    assert warning.text.startswith("The rules of the relays differ: relay-a:12 (abc), relay-b:7 (def) -> Copy")


def test_the_hash_is_of_the_rules_and_not_of_their_files(tmp_path):
    kinds = {name: kind.settings for name, kind in KINDS.items()}
    text = "upstreams: {box: {type: maildir, path: /var/box}}\nroutes:\n  - {from: acme.nl, via: box}\n"
    hashes = []
    for folder, written in (("a", text), ("b", "# a comment\n" + text), ("c", text.replace("acme", "globex"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "routes.yaml").write_text(written)
        hashes.append(rules_hash(load_rules(tmp_path / folder, kinds)))
    assert hashes[0] == hashes[1] != hashes[2]
