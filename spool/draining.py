"""Mail of a local buffer on its way into the database, a part at a time.

A part is first committed there and then forgotten here, so it can be broken off at any moment: what is there already is
not kept twice. A mail that the database cannot keep must never hold up those behind it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from routing.events import emit
from spool.buffer import Buffer
from spool.contract import Arrival, SpoolFull, SpoolUnavailable, id_text
from spool.postgres import PostgresSpool
from spool.postgres_statements import NumberTaken
from spool.statements import Unreadable

_LOG = logging.getLogger("relay.spool")
_MAILS: Final = 100
_OCTETS: Final = 4 << 20


class Drain:
    """`moved` counts what arrived there, `stuck` are mails that stay until somebody looks, or the next start."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self.moved = 0
        self.stuck: set[int] = set()

    @property
    def left(self) -> int:
        """Mails that can be moved."""
        return self._buffer.mails - len(self.stuck)

    async def step(self, there: PostgresSpool) -> bool:
        """Move a part; False when there was none. Raises SpoolFull or SpoolUnavailable when one side fails at it, and
        SpoolUnusable.
        """
        mails = await self._buffer.oldest(_MAILS, _OCTETS, self.stuck)
        outcomes = await asyncio.gather(*(self._copy(there, mail) for mail in mails), return_exceptions=True)
        arrived = [mail.id for mail, outcome in zip(mails, outcomes, strict=True) if outcome is True]
        await self._buffer.forget(arrived)
        self.moved += len(arrived)
        for outcome in outcomes:
            if isinstance(outcome, SpoolFull | SpoolUnavailable):
                raise outcome
        return bool(mails)

    async def _copy(self, there: PostgresSpool, mail: Arrival | Unreadable) -> bool:
        """True when it is there. Raises SpoolFull or SpoolUnavailable."""
        if isinstance(mail, Unreadable):
            return self._keep_back(mail.id, mail.error)
        try:
            await there.put_again(mail)
        except NumberTaken:
            number = there.next_id()
            emit(_LOG, "spool.renumbered", logging.WARNING, mail=id_text(mail.id), now=id_text(number))
            await there.put_again(replace(mail, id=number))
        except (SpoolFull, SpoolUnavailable):
            raise
        except Exception as error:
            return self._keep_back(mail.id, error)
        return True

    def _keep_back(self, number: int, error: object) -> bool:
        self.stuck.add(number)
        do = f"it stays in {self._buffer.path}; the next start tries it again"
        emit(_LOG, "spool.mail_not_moved", logging.CRITICAL, mail=id_text(number), error=str(error), do=do)
        return False
