"""What a terminal can do: whether somebody looks, and colour for them alone. Never a colour for a pipe or a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TextIO

Paint = Callable[[str, str], str]
"""Text and colour -> what to print."""

_CODES: Final = {"red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def is_terminal(stream: TextIO) -> bool:
    """True where somebody looks, and the screen can be written over."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """True on a terminal, unless NO_COLOR says otherwise (no-color.org: set, and not empty)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def plain(text: str, _colour: str) -> str:
    """No colour."""
    return text


def paint_for(stream: TextIO) -> Paint:
    """What colours a text (red, green, yellow, cyan) where `stream` has colours, and leaves it as it is elsewhere."""
    return (lambda text, colour: f"\x1b[{_CODES[colour]}m{text}\x1b[0m") if has_colour(stream) else plain
