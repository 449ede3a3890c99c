"""The package under test. `scripts/test-package` builds it and says where it is; without that, all here is skipped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.package.debian import Debian


@pytest.fixture(scope="session")
def deb() -> Path:
    """The built package."""
    path = os.environ.get("RELAY_PACKAGE")
    if not path:
        pytest.skip("needs a built package: run scripts/test-package")
    return Path(path)


@pytest.fixture(scope="session")
def tree(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's files, unpacked, and its control files in DEBIAN."""
    folder = tmp_path_factory.mktemp("package") / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, folder], check=True)
    return folder


@pytest.fixture(scope="session")
def older(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package as a version before, with a routes.yaml that was worded otherwise."""
    folder = tmp_path_factory.mktemp("older") / "tree"
    subprocess.run(["cp", "-a", tree, folder], check=True)
    control = folder / "DEBIAN" / "control"
    lines = control.read_text("utf-8").splitlines(keepends=True)
    control.write_text("".join("Version: 0.0.9\n" if line.startswith("Version:") else line for line in lines))
    routes = folder / "etc/callpro-relay/routes.yaml"
    routes.write_text("# As an older version worded it.\n" + routes.read_text("utf-8"))
    made = folder.parent / "older.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", "-Znone", folder, made], check=True)
    return made


@pytest.fixture
def debian(deb: Path, older: Path, tmp_path: Path) -> Iterator[Debian]:
    """A booted Debian 12; in its /shared are the two packages and a spool of the first format."""
    root = os.environ.get("RELAY_DEBIAN_ROOT")
    if not root:
        pytest.skip("needs root and systemd-nspawn: scripts/test-package says what was missing")
    for name, path in (("new.deb", deb), ("older.deb", older),
                       ("format_1.sql", Path(__file__).parents[1] / "spool" / "format_1.sql")):  # fmt: skip
        (tmp_path / name).write_bytes(path.read_bytes())
    with Debian(Path(root), tmp_path) as booted:
        yield booted
