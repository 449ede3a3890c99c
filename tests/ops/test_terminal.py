"""Colour and progress: for people on a terminal, and never in what a script reads."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ops.progress import Progress, progress_line

ROOT = Path(__file__).resolve().parents[2]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (0, 20_000, 0.0, "[------------------------]  0 of 20,000 dropped"),
        (5_000, 20_000, 2.0, "[######------------------]  5,000 of 20,000 dropped, 2,500/s, 6s left"),
        (5_000, 2_000_000, 1.0, "[------------------------]  5,000 of 2,000,000 dropped, 5,000/s, 6m 39s left"),
        (1, 100_000, 1.0, "[------------------------]  1 of 100,000 dropped, 1/s, 27h 46m left"),
        (20_000, 20_000, 8.0, "[########################]  20,000 of 20,000 dropped, 2,500/s"),
        (21_000, 20_000, 8.0, "[########################]  21,000 of 20,000 dropped, 2,625/s"),
        (500, 0, 1.0, "500 dropped, 500/s"),
    ],
)
def test_what_a_bar_says(done: int, total: int, seconds: float, line: str) -> None:
    assert progress_line("dropped", done, total, seconds) == line


def test_a_bar_is_drawn_ten_times_a_second_and_taken_away(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    screen, now = Screen(), [0.0]
    with Progress("moved", 100, screen, lambda: now[0]) as progress:
        for done in range(100):
            now[0] = done / 100
            progress.to(done)
    drawn = screen.getvalue().split("\r")
    assert 9 <= len(drawn) <= 12
    assert "\x1b[3" not in screen.getvalue()
    assert drawn[-1] == "\x1b[K"


@pytest.mark.parametrize(("stream", "term"), [(io.StringIO(), "xterm"), (Screen(), "dumb")])
def test_nothing_is_drawn_where_nobody_looks(stream: io.StringIO, term: str, monkeypatch) -> None:
    monkeypatch.setenv("TERM", term)
    with Progress("moved", 100, stream) as progress:
        progress.to(50)
    assert stream.getvalue() == ""
    assert not progress.shown


def on_a_terminal(*command: str, **environment: str) -> str:
    """What a command writes when a terminal is on its standard output."""
    master, slave = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, ROOT / "relay.py", *command], stdin=slave, stdout=slave, stderr=slave,
        env={**os.environ, "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(slave)
    told = b""
    try:
        while part := os.read(master, 65536):
            told += part
    except OSError:  # the other end is closed
        pass
    done.wait(60)
    os.close(master)
    return told.decode()


def test_colour_is_for_a_terminal_only_and_no_color_is_honoured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "relay.yaml").write_text("limits: {recipients: many}\n")
    (tmp_path / "routes.yaml").write_text("routes: []\n")
    command = ("check", "--config", str(tmp_path / "relay.yaml"))
    assert "\x1b[31m" in on_a_terminal(*command)
    assert "\x1b" not in on_a_terminal(*command, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(*command, TERM="dumb")
    assert "\x1b" not in on_a_terminal(*command, "--json")
    piped = subprocess.run([sys.executable, ROOT / "relay.py", *command], capture_output=True, text=True, check=False)
    assert "\x1b" not in piped.stdout
    assert "relay.yaml:1" in piped.stdout
