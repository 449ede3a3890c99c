"""Where mail goes: one file per kind. `KINDS` is the one list of brands."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

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
