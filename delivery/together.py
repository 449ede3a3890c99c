"""What this relay's delivery hears of the other relays on its spool, and does because of it.

Made only where several relays share the spool. Must never send because of what another says, nor stop for good.
"""

from __future__ import annotations

from delivery.shares import Shares
from spool.cluster import Cluster, News


class Together:
    """The ears of one scheduler."""

    def __init__(self, cluster: Cluster, shares: Shares) -> None:
        self._shares = shares
        cluster.listen(self)

    def news(self, news: News) -> None:
        """See `Ears.news`."""

    def wanted(self, limit: str, part: int) -> None:
        """See `Ears.wanted`."""
        self._shares.wanted(limit, part)

    def freed(self, limit: str) -> None:
        """See `Ears.freed`."""
        self._shares.freed(limit)

    def reborn(self) -> None:
        """See `Ears.reborn`."""
        self._shares.reborn()
