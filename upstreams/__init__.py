"""Where mail goes: one file per kind. `KINDS` is the one list of brands."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from config.fields import Settings
from upstreams import campaign_monitor, connector, graph, maildir, mailgun, sendgrid, smtp, smtp_oauth
from upstreams.base import Kinds

_ALL: Final = (
    campaign_monitor.KIND,
    connector.KIND,
    graph.KIND,
    maildir.KIND,
    mailgun.KIND,
    sendgrid.KIND,
    smtp.KIND,
    smtp_oauth.KIND,
)
KINDS: Final[Kinds] = MappingProxyType({kind.name: kind for kind in _ALL})
SHAPES: Final[Mapping[str, type[Settings]]] = MappingProxyType({kind.name: kind.settings for kind in _ALL})
"""`type:` in the YAML -> the class of its settings, as `config` is handed it."""
