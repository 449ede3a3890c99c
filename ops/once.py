"""What several relays on one spool would each say or do, done by the first of them. Restarts count as others.

It must never be asked about mail: that is what leases are for.
"""

from __future__ import annotations

from spool.contract import Notice, Spool


async def first(spool: Spool, mark: str, until: float) -> bool:
    """True for whoever of all who share the spool asks first about `mark`, until that time (unix seconds). On disk
    when it returns. Raises SpoolFull and SpoolUnavailable.
    """
    return await spool.note(Notice("", frozenset(), (), f"once {mark}", until)) is not None
