"""Folded stacks (`a;b;c 12` a line, as `py-spy record --format raw` writes them) as a flame graph in SVG.

Run as `python -m bench.flame STACKS PICTURE.svg "title"`. A box is as wide as its share of the samples; what called it
stands below it. Its full name and share show when the pointer rests on it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

WIDTH, ROW, LEAST = 1200, 16, 0.004
COLOURS = {"intake": "#f2a65a", "spool": "#77bfa3", "delivery": "#e4716f", "upstreams": "#6ca0dc", "routing": "#c9a7eb",
           "ops": "#d9c86e"}  # fmt: skip
OTHER = "#c8ccd0"


@dataclass
class Box:
    """One function at one place in the stacks, with all samples at or above it."""

    samples: int = 0
    above: dict[str, Box] = field(default_factory=lambda: defaultdict(Box))


def read(lines: list[str]) -> Box:
    root = Box()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        box = root
        box.samples += int(count)
        for name in stack.split(";"):
            box = box.above[name]
            box.samples += int(count)
    return root


def depth(box: Box, total: int) -> int:
    return 1 + max((depth(one, total) for one in box.above.values() if one.samples >= total * LEAST), default=0)


def draw(name: str, box: Box, left: float, level: int, total: int, height: int) -> list[str]:
    width = box.samples / total * WIDTH
    top = height - (level + 1) * ROW
    room = next((colour for word, colour in COLOURS.items() if f"({word}/" in name), OTHER)
    label = escape(name.partition(" (")[0])[: max(0, int(width / 6.6))]
    share = f"{box.samples / total:.1%}"
    parts = [
        f'<g><title>{escape(name)}: {share}</title><rect x="{left:.1f}" y="{top}" width="{max(0.5, width - 0.5):.1f}" '
        f'height="{ROW - 1}" fill="{room}"/>'
        + (f'<text x="{left + 2:.1f}" y="{top + 11}">{label}</text>' if len(label) > 2 else "")
        + "</g>"
    ]
    for one, inside in sorted(box.above.items()):
        if inside.samples >= total * LEAST:
            parts += draw(one, inside, left, level + 1, total, height)
        left += inside.samples / total * WIDTH
    return parts


def main(stacks: str, picture: str, title: str) -> None:
    root = read(Path(stacks).read_text().splitlines())
    height = (depth(root, root.samples) + 2) * ROW
    body = "\n".join(draw("all", root, 0.0, 0, root.samples, height))
    head = f"{title}; coloured by room: {'  '.join(COLOURS)}; {root.samples} samples"
    box = f'viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11"'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n<text x="4" y="12">{escape(head)}</text>'
    Path(picture).write_text(f"{start}\n{body}\n</svg>\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
