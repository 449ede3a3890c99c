"""Files that others can read or change are refused, with the command that ends it; and the command does end it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from config.credentials import SecretExposed, resolve
from config.loading import load_relay, load_rules
from config.problems import ConfigInvalid
from tests.config.kinds import KINDS

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and become somebody else")
RELAY = 12345
"""A user and its own group that the machine does not know."""


@pytest.fixture
def secret(open_folder):
    path = open_folder / "the key"
    path.write_text("hunter2\n")
    return path


def mend_it(text: str) -> None:
    command = text.partition("run: ")[2]
    assert command
    subprocess.run(["sh", "-c", command], check=True)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o666, 0o660, 0o620, 0o777])
def test_a_secret_that_others_can_reach_is_refused_with_the_command_that_mends_it(secret, mode):
    secret.chmod(mode)
    with pytest.raises(SecretExposed, match=r"can be (read|changed) by") as refused:
        resolve(f"file:{secret}")
    assert "hunter2" not in f"{refused.value} {refused.value.mend}"
    mend_it(refused.value.mend)
    assert resolve(f"file:{secret}").reveal() == "hunter2"
    assert stat.S_IMODE(secret.stat().st_mode) & 0o077 in (0, 0o040)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_secret_of_its_owner_and_our_own_group_is_taken(secret, mode):
    secret.chmod(mode)
    assert resolve(f"file:{secret}").reveal() == "hunter2"


@pytest.mark.parametrize("octets", [b"hunter2", b"hunter2\n", b"hunter2\r\n", b"\xef\xbb\xbfhunter2\r\n"])
def test_a_secret_is_the_same_from_every_editor(secret, octets):
    """A mark at the beginning that nobody sees would be a wrong password, and a locked account."""
    secret.write_bytes(octets)
    secret.chmod(0o600)
    assert resolve(f"file:{secret}").reveal() == "hunter2"


def test_a_credential_of_systemd_is_taken_as_systemd_made_it(secret, monkeypatch):
    secret.chmod(0o444)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret.parent))
    assert resolve(f"systemd:{secret.name}").reveal() == "hunter2"


def said_to_the_relay(secret: Path) -> str:
    """What the relay's own user is told of a secret."""
    program = (
        "import os, sys; from config.credentials import resolve, SecretExposed, SecretMissing\n"
        f"os.setgroups([]); os.setgid({RELAY}); os.setuid({RELAY})\n"
        "try: print(resolve('file:' + sys.argv[1]).reveal())\n"
        "except SecretExposed as error: print(error, '; ', error.mend, sep='')\n"
        "except SecretMissing as error: print(error)\n"
    )
    made = subprocess.run([sys.executable, "-c", program, str(secret)], cwd=ROOT, capture_output=True, text=True)
    return made.stdout.strip() or made.stderr


@as_root
def test_root_may_lend_a_secret_to_the_relays_group(secret):
    os.chown(secret, 0, RELAY)
    secret.chmod(0o640)
    assert said_to_the_relay(secret) == "hunter2"
    assert resolve(f"file:{secret}").reveal() == "hunter2", "`check` by root says the same"


@as_root
@pytest.mark.parametrize("owner", [(0, 0), (RELAY, RELAY), (0, RELAY), (54321, 54321)])
def test_the_command_leaves_the_relay_able_to_read(secret, owner):
    os.chown(secret, *owner)
    secret.chmod(0o644)
    mend_it(said_to_the_relay(secret))
    assert said_to_the_relay(secret) == "hunter2"


RELAY_YAML = "listen: [{address: '127.0.0.1:2525'}]\nspool: {url: 'sqlite:////x/spool.db'}\n"
ROUTES_YAML = "upstreams:\n  a: {type: smtp, host: smtp.acme.nl}\nroutes:\n  - {from: acme.nl, via: a}\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "routes.d").mkdir()
    (tmp_path / "relay.yaml").write_text(RELAY_YAML)
    (tmp_path / "routes.yaml").write_text("")
    (tmp_path / "routes.d" / "acme.yaml").write_text(ROUTES_YAML)
    return tmp_path


def problems(folder: Path) -> list[str]:
    found = []
    for load in (lambda: load_relay(folder / "relay.yaml"), lambda: load_rules(folder, KINDS)):
        try:
            load()
        except ConfigInvalid as invalid:
            found += [str(problem) for problem in invalid.problems]
    return found


@pytest.mark.parametrize("name", ["relay.yaml", "routes.yaml", "routes.d/acme.yaml", "routes.d", "."])
def test_rules_that_everybody_can_change_are_refused_with_the_command_that_mends_it(folder, name):
    path = folder / name
    before = path.stat().st_mode
    path.chmod(before | 0o002)
    (said,) = problems(folder)
    assert said.startswith(f"{path}:1  can be changed by everybody on this machine; run: chmod o-w ")
    mend_it(said)
    assert path.stat().st_mode == before
    assert problems(folder) == []


def test_a_group_may_write_rules(folder):
    for path in (folder / "relay.yaml", folder / "routes.yaml", folder / "routes.d"):
        path.chmod(path.stat().st_mode | 0o020)
    assert problems(folder) == []


def test_what_is_no_file_holds_up_no_reload(folder):
    (folder / "routes.d" / "acme.yaml").unlink()
    os.mkfifo(folder / "routes.d" / "acme.yaml")
    (said,) = problems(folder)
    assert "acme.yaml:1  is not a regular file" in said


@as_root
@pytest.mark.parametrize("closed", ["routes.d", "."])
def test_a_folder_that_the_relay_may_not_look_into_is_no_empty_one(open_folder, closed):
    """It would refuse every customer in there for good."""
    (open_folder / "routes.d").mkdir()
    (open_folder / "routes.yaml").write_text(ROUTES_YAML)
    program = (
        "import os, sys; from pathlib import Path; from config.loading import load_rules\n"
        "from config.problems import ConfigInvalid; from tests.config.kinds import KINDS\n"
        f"os.setgroups([]); os.setgid({RELAY}); os.setuid({RELAY})\n"
        "try: print(len(load_rules(Path(sys.argv[1]), KINDS).routes))\n"
        "except ConfigInvalid as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(open_folder)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout == "1\n"
    (open_folder / closed).chmod(0o700)
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "cannot be read: Permission denied; check the " in made.stdout, made
