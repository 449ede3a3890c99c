"""The SQLite file: its tables, how it is opened, and when it is refused.

It must never create a file in the place of one that was there, nor change a file it does not know.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from spool import log_check
from spool.contract import SpoolUnusable
from spool.filtering import PART

_APPLICATION: Final = 0x43505253

# `waiting` is small on purpose: all that asks about the backlog walks it or its two indexes, and never the history.
_FIRST: Final = f"""
CREATE TABLE mail (
  id INTEGER PRIMARY KEY, route TEXT NOT NULL, sender TEXT NOT NULL, received_at REAL NOT NULL, size INTEGER NOT NULL,
  peer TEXT NOT NULL, helo TEXT NOT NULL, message_id TEXT, repairs TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, settled_at REAL) STRICT;
CREATE INDEX settled_by_route ON mail (route) WHERE settled_at IS NOT NULL;
CREATE TABLE waiting (
  id INTEGER PRIMARY KEY, route TEXT NOT NULL, due_at REAL NOT NULL, size INTEGER NOT NULL,
  leased INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX waiting_by_due ON waiting (route, due_at);
CREATE INDEX waiting_by_route ON waiting (route);
CREATE TABLE content (mail INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE TABLE recipient (
  mail INTEGER NOT NULL, address TEXT NOT NULL, domain TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
  doubts INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (mail, address)) STRICT, WITHOUT ROWID;
CREATE INDEX recipient_by_domain ON recipient (domain, mail);
CREATE TABLE event (
  number INTEGER PRIMARY KEY, mail INTEGER NOT NULL, at REAL NOT NULL, text TEXT NOT NULL,
  upstream TEXT, seconds REAL, results TEXT) STRICT;
CREATE INDEX event_by_mail ON event (mail);
PRAGMA application_id = {_APPLICATION};
"""
# How much left by an account in each slot of time, so that a limit holds over a restart.
_SPENT: Final = """
CREATE TABLE spent (
  account TEXT NOT NULL, slot INTEGER NOT NULL, mails INTEGER NOT NULL, recipients INTEGER NOT NULL,
  PRIMARY KEY (account, slot)) STRICT, WITHOUT ROWID;
"""
# What a provider told of a mail stands among its events: `told` is the word, `source` the provider's id of the event.
# A `seal` is the mark of one signed request.
_PROVIDER_EVENTS: Final = """
ALTER TABLE event ADD COLUMN told TEXT;
ALTER TABLE event ADD COLUMN recipient TEXT;
ALTER TABLE event ADD COLUMN source TEXT;
CREATE UNIQUE INDEX event_by_source ON event (mail, source) WHERE source IS NOT NULL;
CREATE TABLE seal (mark TEXT PRIMARY KEY, until REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX seal_by_until ON seal (until);
"""
# What people hold, see spool/holding.py. Failures have an index of their own, because they are few.
_HOLDS: Final = """
ALTER TABLE waiting ADD COLUMN released_at REAL NOT NULL DEFAULT 0;
CREATE TABLE hold (
  scope TEXT NOT NULL, subject TEXT NOT NULL, since REAL NOT NULL, who TEXT NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY (scope, subject)) STRICT, WITHOUT ROWID;
CREATE INDEX failure ON recipient (mail) WHERE state IN ('failed', 'expired', 'dropped');
"""
# A recipient is found by walking an eighth of the mail for one domain; a new row goes to the end of its eighth, where
# an index by address would dirty a page of its own for every recipient.
_FINDING: Final = f"""
DROP INDEX recipient_by_domain;
CREATE INDEX recipient_by_part ON recipient (domain, {PART.format("address")}, mail);
"""
# For people who look: how much went through, who ordered what, and an index that only slow mail is in.
_LOOKING: Final = """
CREATE TABLE volume (
  slot INTEGER NOT NULL, route TEXT NOT NULL, customer TEXT NOT NULL, mails INTEGER NOT NULL,
  recipients INTEGER NOT NULL, delivered INTEGER NOT NULL, failed INTEGER NOT NULL,
  PRIMARY KEY (slot, route, customer)) STRICT, WITHOUT ROWID;
CREATE TABLE given_order (
  number INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL,
  reason TEXT NOT NULL, done INTEGER NOT NULL, passed INTEGER NOT NULL) STRICT;
CREATE INDEX slow ON mail (received_at) WHERE settled_at > received_at + 60.0;
"""
# Whose sender knows that it is late, and what providers told of mail that did not arrive or was not wanted, which is
# little of all they tell.
_AFTERWARDS: Final = """
ALTER TABLE waiting ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;
CREATE INDEX bad_news ON event (mail) WHERE told IN ('bounced', 'dropped', 'complained');
"""
# Ties the intake log beside the file to it, and says what of that log is in here: all of the generations up to
# `absorbed`, and of the next one what became of mail in the batches before `settled`.
_INTAKE_LOG: Final = """
CREATE TABLE intake (
  one INTEGER PRIMARY KEY CHECK (one = 1), salt BLOB NOT NULL, absorbed INTEGER NOT NULL, settled INTEGER NOT NULL
) STRICT;
INSERT INTO intake VALUES (1, randomblob(16), 0, 0);
"""
_STEPS: Final = (_FIRST, _SPENT, _PROVIDER_EVENTS, _HOLDS, _FINDING, _LOOKING, _AFTERWARDS, _INTAKE_LOG)
"""From an empty file to the present format; a released step is never changed, only followed by another."""

VERSION: Final = len(_STEPS)

_NO_ROOM: Final = 1 << 20
"""Octets: with less than this on the disk it is room that lacks when a spool cannot be opened."""
_PLACE_AT_FAULT: Final = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
}
"""What SQLite says when the disk or its rights are amiss, and not what is in the file."""
_CHECKED: Final = ("waiting", "hold", "spent", "seal", "intake")
"""Checked at every start: what says which mail waits. A million rows take 0.2 s. The rest is as long as the history."""


def path_of(url: str) -> Path:
    """The file behind `sqlite:////absolute/path` or `sqlite:///relative/path`; a plain path is taken as it is."""
    parts = urlsplit(url)
    if not parts.scheme:
        return Path(url)
    if parts.scheme != "sqlite" or parts.netloc or not parts.path.startswith("/") or len(parts.path) < 2:
        raise SpoolUnusable(f"spool.url {url!r} is not understood; write sqlite:////var/lib/callpro-relay/spool.db")
    return Path(parts.path[1:])


def prepare(path: Path) -> None:
    """Make the file ready to be opened: create it when there is none, bring an older one to the present format, refuse
    what is not ours.

    Raises SpoolUnusable with what to do.
    """
    _create_empty(path)
    try:
        wrong = log_check.damage(path)
    except OSError as error:
        raise SpoolUnusable(f"the spool {path} cannot be read ({error.strerror}); give it to the relay") from error
    if wrong is not None:
        raise SpoolUnusable(damaged(path, wrong))
    connection = sqlite3.connect(_uri(path, "rw"), uri=True, isolation_level=None)
    try:
        _check(connection, path)
    except sqlite3.DatabaseError as error:
        raise SpoolUnusable(_unopened(path, error)) from error
    finally:
        connection.close()


def connect(path: Path) -> sqlite3.Connection:
    """The one connection that writes. Every commit is on disk when it returns (WAL with synchronous=FULL)."""
    connection = sqlite3.connect(_uri(path, "rw"), uri=True, isolation_level=None, cached_statements=256)
    # A checkpoint every 2000 pages (8 MB), where a page that was used again and again is copied back once: mail that
    # leaves soon uses the same pages. The write-ahead log is cut back should a reader have made it long.
    # Deleted content is not overwritten (that doubles the writing): its pages are the first to be used again.
    for setting in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "wal_autocheckpoint = 2000",
        f"journal_size_limit = {64 << 20}",
        "secure_delete = OFF",
        "cache_size = -4000",
    ):
        connection.execute(f"PRAGMA {setting}")
    return connection


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, for another process. Raises SpoolUnusable."""
    try:
        connection = sqlite3.connect(_uri(path, "ro"), uri=True, isolation_level=None)
        _refuse_strangers(path, *_format(connection))
        if _format(connection)[1] < VERSION:
            raise SpoolUnusable(f"the spool {path} was written by an older relay: restart the relay, then ask again")
    except sqlite3.OperationalError as error:
        if _missing(path):
            raise SpoolUnusable(f"there is no spool at {path} yet: `serve` makes it; is `spool.url` right?") from None
        raise SpoolUnusable(
            f"the spool {path} cannot be read ({error}); is the path right? Only root (sudo) and the relay may read it"
        ) from error
    except sqlite3.DatabaseError as error:
        raise SpoolUnusable(damaged(path, error)) from error
    return connection


def _missing(path: Path) -> bool:
    """Whether nothing is there; False where we may not look."""
    try:
        return not path.exists()
    except OSError:
        return False


def write_nothing(connection: sqlite3.Connection) -> None:
    """In the transaction of `connection`, write the format number anew: a commit that changes nothing."""
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(str(path.absolute()))}?mode={mode}"


def _create_empty(path: Path) -> None:
    try:
        # Mail is nobody else's business: SQLite gives its other files the same permissions.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except FileNotFoundError as error:
        raise SpoolUnusable(
            f"the spool's folder {path.parent} does not exist; create it, owned by the relay"
        ) from error
    except OSError as error:
        raise SpoolUnusable(f"the spool {path} cannot be written ({error.strerror}); give it to the relay") from error


def _check(connection: sqlite3.Connection, path: Path) -> None:
    application, version = _format(connection)
    if connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() or version:
        _refuse_strangers(path, application, version)
    if version < VERSION:
        steps = "".join(_STEPS[version:])
        connection.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;")
    for table in _CHECKED:
        (found,) = connection.execute(f"PRAGMA quick_check('{table}')").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found.replace("\n", " "))


def _refuse_strangers(path: Path, application: int, version: int) -> None:
    if application != _APPLICATION or version < 1:
        raise SpoolUnusable(f"{path} is a database, but not a spool of this relay; point spool.url at another file")
    if version > VERSION:
        raise SpoolUnusable(
            f"the spool {path} has format {version}, this relay knows format {VERSION}: start the relay version that "
            "wrote it and let it empty its queue, or point spool.url at another file"
        )


def _format(connection: sqlite3.Connection) -> tuple[int, int]:
    """Whose file it is, and in which format; (0, 0) when it is empty."""
    names = ("application_id", "user_version")
    application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int(application), int(version)


def is_damage(error: Exception) -> bool:
    """True when the file is not what was written: it does not heal by itself."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _unopened(path: Path, error: sqlite3.DatabaseError) -> str:
    """A full disk, or a folder that must not be written in, is no damage: moving the spool away would be the damage."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _PLACE_AT_FAULT:
        return damaged(path, error)
    disk = os.statvfs(path.parent)
    if disk.f_bavail * disk.f_frsize < _NO_ROOM:
        return f"the disk of the spool {path} is full ({error}): make room; the mail in it is safe"
    mend = f"see whether the relay may write in {path.parent}, and whether the disk is well; the mail in it is safe"
    return f"the spool {path} cannot be opened ({error}): {mend}"


def damaged(path: Path, error: object) -> str:
    """What to do about a file that is not what was written."""
    return (
        f"the spool {path} is damaged ({error}) and was left as it is: copy it and its -wal and -intake files "
        f"away, save what can be saved with `sqlite3 {path} .recover`, and move all three aside to start with an empty "
        "spool"
    )
