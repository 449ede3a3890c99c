"""Trust that was asked for and cannot be had is said at the start, before any server is blamed for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.authority import Authority
from upstreams.tls import TrustUnusable, require_trust


@pytest.mark.parametrize(("content", "why"), [(None, "cannot be read"), (b"no certificate", "holds no certificate")])
def test_a_file_of_no_use_is_named(
    content: bytes | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(TrustUnusable, match=why) as raised:
        require_trust()
    assert str(path) in str(raised.value)


def test_a_good_file_and_the_systems_own_are_taken(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    require_trust()
    monkeypatch.delenv("SSL_CERT_FILE")
    require_trust()
