"""The engines, one after the other."""

from __future__ import annotations

import pytest

from tests.spool.engines import ENGINES


@pytest.fixture(params=ENGINES)
def engine(request, tmp_path):
    return ENGINES[request.param](tmp_path)
