"""Sheets as text: a template filled in, and Markdown as a page that prints well.

The libraries are imported here alone, so that only `onboard` loads them. What is filled in can never become HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from html import escape
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markdown_it import MarkdownIt

_TEMPLATES: Final = "ops.sheets"


def filled(name: str, facts: Mapping[str, Any]) -> str:
    """The template `name`, such as `nl/graph.md`, with these facts."""
    environment = Environment(
        loader=FunctionLoader(_source),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - it is Markdown; what becomes HTML is escaped there
    )
    text = environment.get_template(name).render(**facts)
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for number, line in enumerate(lines) if line or (number and lines[number - 1])]
    return "\n".join(kept).strip("\n") + "\n"


def page(markdown: str, language: str) -> str:
    """A sheet as one HTML page, with nothing to fetch."""
    title = markdown.partition("\n")[0].lstrip("# ")
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    fill = partial(str.replace, _source("page.html"))
    text = fill("{{ body }}", body)
    return text.replace("{{ title }}", escape(title)).replace("{{ language }}", language)


def _source(name: str) -> str:
    return resources.files(_TEMPLATES).joinpath(*name.split("/")).read_text("utf-8")
