"""The engines, one after the other."""

from __future__ import annotations

import pytest

from tests.spool.engines import ENGINES, Buffered, Postgres, Sqlite


@pytest.fixture(params=ENGINES)
def engine(request, tmp_path):
    if request.param == "sqlite":
        return Sqlite(tmp_path)
    if request.param == "buffered":
        return Buffered(request.getfixturevalue("database"), folder=tmp_path)
    return Postgres(request.getfixturevalue("database"))
