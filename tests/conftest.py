"""Fixtures that every room's tests share."""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import postgres
from tests.fakes.authority import Authority


@pytest.fixture
def authority(tmp_path, monkeypatch) -> Authority:
    """A test authority that this process trusts, through SSL_CERT_FILE, for the time of one test."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.bundle))
    return made


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter. Not so below `tmp_path`: any other run of pytest shuts its root again."""
    with tempfile.TemporaryDirectory(prefix="relay-open-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server for all tests of this process."""
    if postgres.programs() is None:
        pytest.skip("needs Debian's postgresql: scripts/peers installs it")
    server = postgres.Server().start()
    yield server
    server.remove()


_NUMBERS = itertools.count()


@pytest.fixture
def database(postgres_server):
    """The url of an empty database."""
    name = f"t{next(_NUMBERS)}"
    yield postgres_server.database(name)
    postgres_server.drop(name)


@pytest.fixture
def capture_events():
    """A function that gives what was logged since the test began: a dictionary per event."""
    found: list[dict[str, object]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append({"event": record.getMessage(), **getattr(record, "fields", {})})

    handler, logger = Keep(), logging.getLogger()
    logger.addHandler(handler)
    yield lambda: found
    logger.removeHandler(handler)
