"""The PostgreSQL spool: its tables, how it is reached, and when it is refused.

Code and tables may differ by a few versions: each step only adds what older code can leave alone, or says from which
version of the code on it can be used. It must never change tables that are not ours.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import conninfo

from spool.contract import SpoolUnusable

SCHEMA: Final = "callpro_relay"
LOCK_SECONDS: Final = 15.0
"""Seconds to wait for a lock that somebody else has, such as an administrator's on a table. Longer than a transaction
may stand still; shorter than the watchdog's look, for a restart of ours would not help.
"""
_LOCK: Final = 0x43505253
"""The advisory lock under which tables are made and changed."""

_BUNDLES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")

# `waiting` is small on purpose, and a lease changes no column with an index, so that it is a cheap update in place.
_FIRST: Final = """
CREATE TABLE mail (
  id bigint PRIMARY KEY, route text NOT NULL, sender text NOT NULL, received_at float8 NOT NULL, size bigint NOT NULL,
  peer text NOT NULL, helo text NOT NULL, message_id text, repairs text NOT NULL,
  attempts integer NOT NULL DEFAULT 0, settled_at float8);
CREATE INDEX slow ON mail (received_at) WHERE settled_at > received_at + 60.0;
CREATE TABLE waiting (
  id bigint PRIMARY KEY, route text NOT NULL, due_at float8 NOT NULL, received_at float8 NOT NULL, size bigint NOT NULL,
  sender text NOT NULL, domain text NOT NULL, released_at float8 NOT NULL DEFAULT 0,
  warned boolean NOT NULL DEFAULT false, node bigint)
  WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX waiting_by_due ON waiting (route, due_at, id);
CREATE TABLE content (mail bigint PRIMARY KEY, bytes bytea NOT NULL)
  WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE content ALTER bytes SET STORAGE EXTERNAL;
CREATE TABLE recipient (
  mail bigint NOT NULL, address text NOT NULL, domain text NOT NULL, part smallint NOT NULL,
  state text NOT NULL DEFAULT 'waiting', doubts integer NOT NULL DEFAULT 0, PRIMARY KEY (mail, address));
CREATE INDEX recipient_by_part ON recipient (domain, part, mail);
CREATE INDEX failure ON recipient (mail) WHERE state IN ('failed', 'expired', 'dropped');
CREATE TABLE event (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mail bigint NOT NULL, at float8 NOT NULL, text text NOT NULL,
  upstream text, seconds float8, results text, told text, recipient text, source text);
CREATE INDEX event_by_mail ON event (mail);
CREATE INDEX bad_news ON event (mail) WHERE told IN ('bounced', 'dropped', 'complained');
CREATE UNIQUE INDEX event_by_source ON event (mail, source) WHERE source IS NOT NULL;
CREATE TABLE seal (mark text PRIMARY KEY, until float8 NOT NULL);
CREATE INDEX seal_by_until ON seal (until);
CREATE TABLE spent (
  account text NOT NULL, slot bigint NOT NULL, mails bigint NOT NULL, recipients bigint NOT NULL,
  PRIMARY KEY (account, slot));
CREATE TABLE hold (
  scope text NOT NULL, subject text NOT NULL, since float8 NOT NULL, who text NOT NULL, reason text NOT NULL,
  mail bigint, PRIMARY KEY (scope, subject));
CREATE TABLE volume (
  slot bigint NOT NULL, route text NOT NULL, customer text NOT NULL, mails bigint NOT NULL, recipients bigint NOT NULL,
  delivered bigint NOT NULL, failed bigint NOT NULL, PRIMARY KEY (slot, route, customer));
CREATE TABLE given_order (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at float8 NOT NULL, who text NOT NULL, action text NOT NULL,
  subject text NOT NULL, reason text NOT NULL, done bigint NOT NULL, passed bigint NOT NULL);
CREATE TABLE node (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, slot integer NOT NULL UNIQUE, name text NOT NULL,
  machine text NOT NULL, process bigint NOT NULL, born text NOT NULL, started_at float8 NOT NULL,
  seen_at float8 NOT NULL, lease float8 NOT NULL, skew float8 NOT NULL DEFAULT 0,
  version text NOT NULL DEFAULT '', rules text NOT NULL DEFAULT '');
CREATE TABLE tally (slot integer PRIMARY KEY, octets bigint NOT NULL);
"""
# Shared limits, see spool/postgres_pace.py: what was sent by slots of time, and what is under way.
_PACE: Final = """
CREATE TABLE account (name text PRIMARY KEY);
CREATE TABLE pace (
  account text NOT NULL, length integer NOT NULL, slot bigint NOT NULL, units bigint NOT NULL,
  PRIMARY KEY (account, length, slot));
CREATE TABLE fare (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account text NOT NULL, node bigint NOT NULL,
  recipients bigint NOT NULL);
CREATE INDEX fare_by_account ON fare (account);
CREATE INDEX fare_by_node ON fare (node);
"""
# What nodes tell one another, see spool/postgres_slots.py and postgres_troubles.py. What hangs on a node goes with its
# row, also where older code takes it out.
_CLUSTER: Final = """
CREATE TABLE slots (
  name text NOT NULL, node bigint NOT NULL REFERENCES node (id) ON DELETE CASCADE, held integer NOT NULL DEFAULT 0,
  taken_at float8 NOT NULL, wanted integer NOT NULL DEFAULT 0, waits_since float8 NOT NULL DEFAULT 0,
  asked_at float8 NOT NULL, PRIMARY KEY (name, node));
CREATE TABLE closed_way (
  route text NOT NULL, upstream text NOT NULL, settings text NOT NULL, since float8 NOT NULL, outcome text NOT NULL,
  failures integer NOT NULL, next_probe float8 NOT NULL, found_by text NOT NULL,
  prober bigint REFERENCES node (id) ON DELETE SET NULL, left_at float8,
  alone bigint REFERENCES node (id) ON DELETE CASCADE, PRIMARY KEY (route, upstream, settings));
CREATE TABLE silent_host (
  place text NOT NULL, node bigint NOT NULL REFERENCES node (id) ON DELETE CASCADE, since float8 NOT NULL,
  reply text NOT NULL, asked_at float8 NOT NULL, PRIMARY KEY (place, node));
CREATE TABLE salt (octets text NOT NULL);
INSERT INTO salt VALUES (gen_random_uuid()::text);
"""

_SESSION: Final = f"""
SET search_path = {SCHEMA}; SET TIME ZONE 'UTC'; SET idle_in_transaction_session_timeout = '10s';
SET statement_timeout = 0; SET default_transaction_isolation = 'read committed';
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'; """
"""What our statements and promises go by. statement_timeout would end a wait for a lock that a client may well wait
for. Of synchronous_commit only `off` breaks the promise of the 250; the rest is up to ops.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A change of the tables. `oldest` is the version of the code that can still use them afterwards."""

    change: str
    oldest: int


_STEPS: Final = (Step(_FIRST + _PACE, 1), Step(_CLUSTER, 1))
"""From nothing to the present tables; a released step is never changed, only followed by another."""

VERSION: Final = len(_STEPS)


def options_of(url: str, password: str | None = None) -> dict[str, str]:
    """What libpq is told for `url` (`postgresql://user@host/database?...`). Raises SpoolUnusable.

    A silent network is noticed within some ten seconds, only a server that may write is taken (name the replicas beside
    the first, `@a.example,b.example`), and a server that is not this machine has to prove itself by TLS.
    """
    try:
        given = {key: str(value) for key, value in conninfo.conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error as error:
        raise SpoolUnusable(f"spool.url is not understood: {str(error).splitlines()[0]}") from error
    if not given.get("dbname"):
        raise SpoolUnusable("spool.url names no database; write postgresql://relay@db.example/relay")
    if password is not None:
        given["password"] = password
    places = f"{given.get('host', '')},{given.get('hostaddr', '')}".split(",")
    trusted = all(not place or place.startswith("/") or _is_here(place) for place in places)
    if not trusted or "service" in given:
        given.setdefault("sslmode", "verify-full")
        if given["sslmode"] != "verify-full":
            raise SpoolUnusable("spool.url asks for no verified TLS; leave `sslmode` out, or write verify-full")
    if given.get("sslmode") == "verify-full":
        given.setdefault("sslrootcert", _authorities())
    defaults = {
        "connect_timeout": "5",
        "application_name": "callpro-relay",
        "target_session_attrs": "read-write",
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "tcp_user_timeout": "10000",
    }
    return {**defaults, **given, "client_encoding": "utf8"}


def shown(url: str) -> str:
    """`url` without a password, for logs."""
    before, at, after = url.rpartition("@")
    scheme, slashes, login = before.partition("://")
    return f"{scheme}{slashes}{login.partition(':')[0]}{at}{after}" if at else url


def connect(options: dict[str, str], *, patient: bool = False) -> psycopg.Connection:
    """A connection whose every commit is on the database's disk, and on its synchronous replica's where it has one,
    whatever the server, the database or the role has set for its sessions (`_SESSION`).

    A `patient` one waits for a lock as long as it takes.
    """
    connection = psycopg.connect(autocommit=True, **options)  # type: ignore[arg-type]
    most = 0 if patient else LOCK_SECONDS
    try:
        connection.execute(f"{_SESSION}SET lock_timeout = {most * 1000:.0f}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(options: dict[str, str]) -> None:
    """Make the tables, or bring them to this version; one relay does it while others wait. Raises SpoolUnusable."""
    try:
        with connect(options, patient=True) as connection, connection.transaction():
            _refuse_encoding(connection.info.parameter_status("server_encoding") or "")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            version, oldest = _format(connection)
            refuse_newer(version, oldest)
            if version < VERSION:
                _change(connection, version)
    except psycopg.Error as error:
        raise SpoolUnusable(unusable(error)) from error


def check(connection: psycopg.Connection) -> None:
    """Raises SpoolUnusable when this code cannot read these tables."""
    version, oldest = _format(connection)
    if version == 0:
        raise SpoolUnusable("the database has no spool yet: a relay makes it at its first start")
    refuse_newer(version, oldest)
    if version < VERSION:
        raise SpoolUnusable("the spool was written by an older relay: restart one with this version, then ask again")


def refuse_newer(version: int, oldest: int) -> None:
    """Newer tables are used as long as they allow it, so that nodes can be renewed one by one."""
    if oldest > VERSION:
        raise SpoolUnusable(
            f"the spool has format {version}, which needs a relay that knows format {oldest}, and this one knows "
            f"{VERSION}: install the newer version here too"
        )


def unusable(error: psycopg.Error) -> str:
    """A sentence for people. The database's own words never hold our password."""
    said = " ".join(str(error).split()) or type(error).__name__
    return f"the database of spool.url cannot be used: {said}"


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authorities() -> str:
    """The file of the authorities that the system trusts; libpq does not find it by itself everywhere."""
    named = (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *_BUNDLES)
    found = next((name for name in named if name and os.path.isfile(name)), None)
    if found is None:
        raise SpoolUnusable("no file of trusted authorities is found: install ca-certificates, or set SSL_CERT_FILE")
    return found


def _refuse_encoding(name: str) -> None:
    """What a server answered may hold any letter. SQL_ASCII, which clusters made without a locale have, keeps UTF-8 as
    it is.
    """
    if name not in ("UTF8", "SQL_ASCII"):
        make = "CREATE DATABASE relay OWNER relay ENCODING 'UTF8' LOCALE 'C.UTF-8' TEMPLATE template0"
        raise SpoolUnusable(f"the database is in {name}, which cannot keep all letters; make it anew: {make}")


def _format(connection: psycopg.Connection) -> tuple[int, int]:
    """Format of the tables and oldest code for them; (0, 0) when there are none."""
    if connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.format",)).fetchone() == (None,):
        return 0, 0
    row = connection.execute(f"SELECT version, oldest FROM {SCHEMA}.format").fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def _change(connection: psycopg.Connection, version: int) -> None:
    if version == 0:
        if connection.execute("SELECT to_regnamespace(%s)", (SCHEMA,)).fetchone() == (None,):
            connection.execute(f"CREATE SCHEMA {SCHEMA}")  # IF NOT EXISTS asks for the right to make one all the same
        connection.execute("CREATE TABLE format (version integer NOT NULL, oldest integer NOT NULL)")
        connection.execute("INSERT INTO format VALUES (0, 0)")
    for step in _STEPS[version:]:
        connection.execute(step.change)
    oldest = max(step.oldest for step in _STEPS)
    connection.execute("UPDATE format SET version = %s, oldest = %s", (VERSION, oldest))
