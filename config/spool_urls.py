"""Where mail lives, as a url: a file or a database. Judges what is written, and never looks whether it is there."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from config.fields import Mistake


def spool_url(url: str) -> str:
    """A url of one of the two engines: a file, or a database with a name."""
    if url.partition("://")[0] not in ("postgresql", "postgres"):
        sqlite_path(url)
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Mistake("is not understood", "write postgresql://relay@db.example/relay") from None
    if not parts.path.strip("/"):
        raise Mistake("names no database", "write postgresql://relay@db.example/relay")
    if ":" in parts.netloc.rpartition("@")[0] or "password" in dict(parse_qsl(parts.query)):
        raise Mistake("has a password in it", 'leave it out, and write `password: "systemd:spool-db"` beside it')
    return url


def buffer_url(text: str) -> str:
    """`sqlite`, for a file in the state folder, or the file itself."""
    if text != "sqlite":
        try:
            sqlite_path(text)
        except Mistake as mistake:
            raise Mistake(
                "is neither `sqlite` nor a file's url", "write sqlite, or sqlite:////path/buffer.db"
            ) from mistake
    return text


def sqlite_path(url: str) -> Path:
    """`sqlite:////var/lib/x.db` -> /var/lib/x.db: the path is absolute, so there are four slashes."""
    scheme, _, path = url.partition("://")
    like = "write sqlite:////var/lib/callpro-relay/spool.db"
    if scheme != "sqlite":
        raise Mistake("is neither a sqlite nor a postgresql url", f"{like} or postgresql://relay@db.example/relay")
    if not path.startswith("//") or path.endswith("/"):
        raise Mistake("does not name a file by its full path", f"{like} (four slashes)")
    if not path.isprintable() or set("?#%") & set(path):
        raise Mistake("has a character that a url gives another meaning", like)
    return Path(path[1:])
