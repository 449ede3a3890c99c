"""Fixtures of the journeys."""

from __future__ import annotations

import pytest

from tests.spool.engines import ENGINES


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest) -> str | None:
    """For `RelayProcess`: its own spool file, then a database."""
    return None if request.param == "sqlite" else str(request.getfixturevalue("database"))
