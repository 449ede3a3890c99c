"""Where mail goes: one file per kind. `KINDS` is the one list of brands."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from upstreams import connector, graph, maildir, sendgrid, smtp
from upstreams.base import Kind

_ALL: Final = (
    connector.KIND,
    graph.KIND,
    maildir.KIND,
    sendgrid.KIND,
    smtp.KIND,
)
KINDS: Final[Mapping[str, Kind]] = MappingProxyType({kind.name: kind for kind in _ALL})
"""`type:` in the YAML -> its kind."""
