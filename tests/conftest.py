"""Fixtures that every room's tests share."""

from __future__ import annotations

import pytest

from tests.fakes.authority import Authority


@pytest.fixture
def authority(tmp_path, monkeypatch) -> Authority:
    """A test authority that this process trusts, through SSL_CERT_FILE, for the time of one test."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.bundle))
    return made
