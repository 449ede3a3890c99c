"""What is promised in the intake log and not in the database yet, and how the database takes it over.

All of it goes in one transaction that also says which generation of the log is in. A mail that is settled by then goes
in as settled: its content never enters the database. Used by the writer's thread alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from spool import intake_log, schema, statements
from spool.contract import Arrival, SpoolUnusable
from spool.inbox import Settle
from spool.intake_log import InLog, IntakeLog, LogDamaged, LogOfAnother
from spool.log_records import MailRecord, SettlementRecord, mail_octets, mail_record, settlement_octets
from spool.statements import Count

_PART: Final = 512 << 10
"""Octets of content that are read back from the log at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Ending:
    """A settlement that is on its way; `asked` is None for one that an earlier process wrote into the log."""

    record: SettlementRecord
    asked: Settle | None


def asked(endings: Iterable[Ending]) -> list[Settle]:
    """Those that somebody waits for."""
    return [ending.asked for ending in endings if ending.asked is not None]


@dataclass(slots=True)
class Batch:
    """What goes into the log with one sync: mails as (record, its octets, content), and settlements as octets. `taken`
    are numbers of mails that are in the log already.
    """

    taken: Container[int]
    marks: Sequence[bytes] = ()
    mails: list[tuple[MailRecord, bytes, bytes]] = field(default_factory=list)

    def add(self, arrival: Arrival) -> None:
        """Raises ValueError or TypeError for what cannot be kept."""
        if arrival.id in self.taken or any(record.id == arrival.id for record, _, _ in self.mails):
            raise ValueError(f"mail {arrival.id} is there already")
        record = mail_record(arrival)
        self.mails.append((record, mail_octets(record), arrival.content))

    @property
    def octets(self) -> int:
        return sum(len(head) + len(content) for _, head, content in self.mails) + sum(map(len, self.marks))


Unit = tuple[list[InLog], list[Ending]]


class Unabsorbed:
    """`mails` are in the log alone; `settled` are settlements that the database does not know, `unmarked` those of
    them that the log does not know either. `octets` is the content of mail that still waits.
    """

    def __init__(self, log: IntakeLog) -> None:
        self.log = log
        self.mails: dict[int, InLog] = {}
        self.settled: list[Ending] = []
        self.unmarked: list[Ending] = []
        self.octets = 0
        self._tried = 0
        self._mistrusted = False

    @classmethod
    def load(cls, path: Path) -> Unabsorbed:
        """What a crash left beside the database, which `schema.prepare` has seen. Raises SpoolUnusable."""
        with closing(schema.connect(path)) as connection:
            salt, absorbed, settled = connection.execute("SELECT salt, absorbed, settled FROM intake").fetchone()
        file = intake_log.path_of(path)
        found = cls(IntakeLog(file, salt, absorbed))
        try:
            left = found.log.recover()
        except LogDamaged as error:
            raise SpoolUnusable(
                f"the intake log {file} is damaged ({error}) and was left as it is: it holds mail that was accepted in "
                f"the last moment before a crash. Copy it away (`strings` shows what is in it), and move it aside to "
                f"start with the mail that {path.name} has"
            ) from error
        except LogOfAnother as error:
            raise SpoolUnusable(
                f"the mails in {file} were accepted for another {path.name}, or for a newer state of it than this one: "
                f"put that one back, or move {file} aside to start without those mails"
            ) from error
        except OSError as error:
            raise SpoolUnusable(f"{file} cannot be read ({error.strerror}); give it to the relay") from error
        for number, batch in enumerate(left.batches):
            for record in batch:
                if isinstance(record, InLog):
                    found.mails[record.record.id] = record
                    found.octets += record.record.size
                elif number >= settled or record.id in found.mails:
                    found.settled.append(Ending(record, None))
        found._mistrusted = bool(found.mails)
        return found

    @property
    def empty(self) -> bool:
        return not self.mails and not self.settled

    @property
    def _unused(self) -> bool:
        """Whether this generation of the log has nothing that could come a second time, so that it goes on."""
        return self.empty and self.log.untouched

    def greatest(self) -> int:
        """The greatest number of a mail, 0 when there is none."""
        return max(self.mails, default=0)

    def waiting(self) -> int:
        """How many of the mails nobody has settled."""
        ended = {one.record.id for one in self.settled if one.record.final}
        return len(self.mails.keys() - ended)

    def counted(self, count: Count) -> Count:
        """What waits, when `count` is what the database knows."""
        mails = dict(count.mails)
        for kept in self.mails.values():
            route = kept.record.row[1]
            mails[route] = mails.get(route, 0) + 1
        return Count(mails, count.octets + sum(kept.record.size for kept in self.mails.values()))

    def settle(self, asked: Settle) -> None:
        """A settlement came; it may also go into the log."""
        record = asked.record
        ending = Ending(record, asked)
        self.settled.append(ending)
        self.unmarked.append(ending)
        if record.final and record.id in self.mails:
            self.octets -= asked.octets

    def append(self, batch: Batch) -> None:
        """Write a batch to the log. Raises OSError."""
        parts: list[bytes] = list(batch.marks)
        places, at = [], sum(map(len, parts))
        for _, head, content in batch.mails:
            parts += (head, content)
            places.append(at + len(head))
            at += len(head) + len(content)
        start = self.log.append(parts)
        for (record, _, _), place in zip(batch.mails, places, strict=True):
            self.mails[record.id] = InLog(record, start + place)
            self.octets += record.size
        if batch.marks:
            self.unmarked.clear()

    def marks(self) -> list[bytes]:
        """The octets of settlements that are not in the log. What cannot be written the database refuses."""
        octets = []
        for ending in self.unmarked:
            with suppress(ValueError, TypeError):
                octets.append(settlement_octets(ending.record))
        return octets

    def write_all(self, connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> None:
        """In an open transaction: everything, new mail too. `committed` or another attempt follows."""
        if self._unused:
            statements.insert(connection, arrivals)
            return
        (absorbed,) = connection.execute("SELECT absorbed FROM intake").fetchone()
        if absorbed == self.log.generation:  # a commit that seemed to fail came through
            mails, settled = [], self.settled[self._tried :]
        else:
            mails, settled = list(self.mails.values()), self.settled
            self._tried = len(settled)
        self.write(connection, mails, settled)
        statements.insert(connection, arrivals)
        self.write_end(connection)

    def write(self, connection: sqlite3.Connection, mails: Sequence[InLog], settled: Sequence[Ending]) -> None:
        """In an open transaction: some of it."""
        if self._mistrusted:
            mails = [mail for mail in mails if not _is_there(connection, mail.record.id)]
        new = {mail.record.id for mail in mails}
        ended = {one.record.id: one.record for one in settled if one.record.final and one.record.id in new}
        # First what was known before: its content makes room.
        statements.apply(connection, [one.record for one in settled if one.record.id not in new])
        waiting = [mail for mail in mails if mail.record.id not in ended]
        for some in _in_parts(waiting):  # contents are read back, a few at a time
            read = [(mail.record, self.log.read(mail.place, mail.record.size)) for mail in some]
            statements.insert_records(connection, read)
        statements.insert_settled(
            connection, [(mail.record, ended[mail.record.id]) for mail in mails if mail.record.id in ended]
        )
        statements.apply(connection, [one.record for one in settled if one.record.id in new - ended.keys()])

    def write_end(self, connection: sqlite3.Connection) -> None:
        """In an open transaction: this generation of the log is in."""
        if self._unused:
            return
        connection.execute("UPDATE intake SET absorbed = ?, settled = 0", (self.log.generation,))

    def write_settled(self, connection: sqlite3.Connection) -> list[Ending]:
        """In an open transaction: what became of mail that the database has, alone, because that makes room."""
        known = [one for one in self.settled if one.record.id not in self.mails]
        statements.apply(connection, [one.record for one in known])
        connection.execute("UPDATE intake SET settled = ?", (self.log.number,))
        return known

    def committed(self) -> list[Ending]:
        """`write_all` is on disk: the log begins anew. Returns the settlements that were in it."""
        if self._unused:
            return []
        settled, self.settled = self.settled, []
        self.unmarked.clear()
        self.mails.clear()
        self.octets = self._tried = 0
        self._mistrusted = False
        self.log.begin_anew()
        return settled

    def forget(self, mails: Iterable[InLog], settled: Iterable[Ending]) -> None:
        """These are in the database, or nothing can be done for them."""
        for mail in mails:
            self.mails.pop(mail.record.id, None)
        gone = set(map(id, settled))
        self.settled = [one for one in self.settled if id(one) not in gone]
        self.unmarked = [one for one in self.unmarked if id(one) not in gone]
        self._tried = 0
        self._mistrusted = True

    def units(self) -> Iterator[Unit]:
        """The least that can be written by itself, one after the other: a mail with what became of it."""
        own: dict[int, list[Ending]] = {}
        for one in self.settled:
            own.setdefault(one.record.id, []).append(one)
        for mail in list(self.mails.values()):
            yield [mail], own.pop(mail.record.id, [])
        for settled in own.values():
            for one in settled:
                yield [], [one]


def take_over(path: Path) -> None:
    """Bring what a crash left in the log into the database, for those who work on the file without a relay. Raises
    SpoolUnusable and sqlite3.Error.
    """
    left = Unabsorbed.load(path)
    with closing(schema.connect(path)) as connection:
        if not left.empty:
            connection.execute("BEGIN IMMEDIATE")
            left.write_all(connection, ())
            connection.execute("COMMIT")
            left.committed()
    left.log.close(empty=True)


def _in_parts(mails: Sequence[InLog]) -> Iterator[list[InLog]]:
    part: list[InLog] = []
    room = _PART
    for mail in mails:
        part.append(mail)
        room -= mail.record.size
        if room <= 0:
            yield part
            part, room = [], _PART
    if part:
        yield part


def _is_there(connection: sqlite3.Connection, number: int) -> bool:
    return connection.execute("SELECT 1 FROM mail WHERE id = ?", (number,)).fetchone() is not None
