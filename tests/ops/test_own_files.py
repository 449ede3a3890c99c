"""Where a relay keeps what is its own: found by commands, and never another relay's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.own_files import own_file, where_nobody_answers

DATABASE = "postgresql://relay@db.example/relay"


def test_beside_a_spool_file_whatever_the_config() -> None:
    for config in (Path("/etc/a/relay.yaml"), Path("/etc/b/relay.yaml")):
        found = own_file("sqlite:////var/lib/x/spool.db", config, ".control")
        assert found == Path("/var/lib/x/spool.db.control")


def test_with_a_database_in_the_state_folder_by_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/ours:/var/lib/more")
    one, other = (own_file(DATABASE, Path(f"/etc/{name}/relay.yaml"), ".doctor") for name in "ab")
    assert one.parent == other.parent == Path("/var/lib/ours")
    assert one.name != other.name
    assert one.suffix == ".doctor"
    monkeypatch.chdir(tmp_path)
    assert own_file(DATABASE, Path("relay.yaml"), ".x") == own_file(DATABASE, tmp_path / "relay.yaml", ".x")
    monkeypatch.delenv("STATE_DIRECTORY")
    assert own_file(DATABASE, Path("relay.yaml"), ".x").parent == Path("/var/lib/callpro-relay")


def test_a_config_behind_a_link_is_the_same_after_the_link_was_turned(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    link, found = tmp_path / "now", []
    for release in ("one", "two"):
        link.unlink(missing_ok=True)
        link.symlink_to(release)
        found.append(own_file(DATABASE, link / "relay.yaml", ".control"))
    assert found[0] == found[1]


def test_where_to_look_when_nobody_answers_is_said() -> None:
    path = Path("/var/lib/callpro-relay/relay-1.control")
    assert str(path) in where_nobody_answers(path, DATABASE)
    assert "STATE_DIRECTORY" in where_nobody_answers(path, DATABASE)
    assert "STATE_DIRECTORY" not in where_nobody_answers(path, "sqlite:////x.db")
