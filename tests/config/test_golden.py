"""Whole folders of configuration against the text that ops see: all mistakes at once, each with its place and mend."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops.check import check, render_text
from tests.config.kinds import KINDS
from tests.keys import rsa_key

CASES = Path(__file__).parents[1] / "cases" / "config"


@pytest.fixture
def secrets(tmp_path, monkeypatch) -> None:
    """The credentials that the cases refer to."""
    for name in ("acme-smtp", "initech-graph", "mailgun", "cm"):
        (tmp_path / name).write_text("t0p-s3cret\n")
    (tmp_path / "umbrella-dkim").write_text(rsa_key("umbrella").pem)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("GOLDEN_SECRET", "t0p-s3cret")


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_case_prints_what_its_golden_file_says(case, monkeypatch):
    """To renew a golden file after a wanted change, run this test with RENEW_GOLDEN=1 and read the difference."""
    golden = CASES / case / "expected.txt"
    monkeypatch.chdir(CASES / case)
    printed = render_text(check(Path("relay.yaml"), KINDS)) + "\n"
    if os.environ.get("RENEW_GOLDEN"):
        golden.write_text(printed, "utf-8")
    assert printed == golden.read_text("utf-8")


def test_the_mistakes_name_no_secret():
    printed = (CASES / "twenty-mistakes" / "expected.txt").read_text("utf-8")
    for secret in ("correct horse", "t0p-s3cret", "MIIEpAIBAAKCAQEA"):
        assert secret not in printed
    assert len(printed.splitlines()) > 20
