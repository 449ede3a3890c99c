"""What is in the package, and what must not be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from config.problems import Problem
from ops.check import check
from upstreams import KINDS

LIBRARY = "usr/lib/callpro-relay"


def test_only_what_runs_is_in_it(tree: Path) -> None:
    packages = {path.name.partition("-")[0] for path in (tree / LIBRARY).rglob("*.dist-info")}
    assert {"callpro_relay", "aiosmtpd", "httpx", "msal", "cryptography"} <= packages
    assert not packages & {"pytest", "pip", "setuptools", "mypy", "ruff", "hypothesis", "trustme", "jsonschema"}
    assert not [path for path in (tree / LIBRARY).rglob("tests") if path.is_dir()]


def test_nothing_in_it_names_the_folder_of_its_build(tree: Path) -> None:
    ours = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink() and path.suffix != ".so"]
    root = str(Path(__file__).resolve().parents[2]).encode()
    assert [path for path in ours if root in path.read_bytes()] == []


def test_it_runs_on_the_systems_python(tree: Path) -> None:
    program = (tree / LIBRARY / "bin/callpro-relay").read_text()
    assert program.startswith(f"#!/{LIBRARY}/bin/python3 ")
    assert (tree / LIBRARY / "bin/python3").readlink() == Path("/usr/bin/python3")
    assert list((tree / LIBRARY).rglob("relay.cpython-311.pyc"))


def test_the_first_config_is_good_inside_the_unit(tree: Path) -> None:
    checked = check(tree / "etc/callpro-relay/relay.yaml", {name: kind.settings for name, kind in KINDS.items()})
    assert [str(problem) for problem in checked.problems if isinstance(problem, Problem)] == []
    assert (tree / "DEBIAN/conffiles").read_text().split() == [
        "/etc/callpro-relay/relay.yaml",
        "/etc/callpro-relay/routes.yaml",
    ]
    assert (tree / "etc/callpro-relay/secrets").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["relay", "routes"])
def test_editors_find_the_schema_that_the_first_line_names(tree: Path, name: str) -> None:
    for file in (
        tree / "etc/callpro-relay" / f"{name}.yaml",
        tree / "usr/share/doc/callpro-relay/examples" / f"{name}.yaml",
    ):
        text = file.read_text("utf-8")
        found = re.match(r"# yaml-language-server: \$schema=file://(/\S+)\n", text)
        assert found
        schema = json.loads((tree / found[1].lstrip("/")).read_text("utf-8"))
        assert [error.message for error in Draft202012Validator(schema).iter_errors(yaml.safe_load(text))] == []


def test_man_pages_are_well_formed(tree: Path) -> None:
    pages = sorted(tree.glob("usr/share/man/man*/*.gz"))
    assert [page.name for page in pages] == ["callpro-relay.1.gz", "callpro-relay.yaml.5.gz"]
    if not shutil.which("man"):
        pytest.skip("man is not on this machine")
    for page in pages:
        plain = {"LC_ALL": "C.UTF-8", "MANWIDTH": "80", "PATH": "/usr/bin:/bin"}
        command = ["man", "--warnings", "-E", "UTF-8", "-l", page]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain)
        assert done.stderr == ""
        assert "callpro-relay" in done.stdout
    assert "queue drop" in done.stdout or "routes.yaml" in done.stdout
