"""Address lists in header fields (RFC 5322 3.4 and 4.4), read leniently from raw bytes and written strictly.

Knows comments, quoted names, encoded words, groups and obsolete routes. Must never raise on anything a mail holds, take
linear time on it, and never write a mailbox that reads as another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import idna

from routing.encoded_words import decode, encode, text_of

_ENCODED_WORD: Final = re.compile(rb"=\?[^?\s]+\?[BbQq]\?[^?\s]*\?=")
_ATOM: Final = re.compile(rb'\[[^\[\]\s<>,"]*\]|[^\s"(<>@,;:]+')
_SPACE: Final = re.compile(rb"\s+")
_QUOTED: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*"', re.DOTALL)
_PLAIN_PHRASE: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_NOT_IN_ADDRESS: Final = re.compile(r'[\x00-\x20\x7f-\x9f<>(),:;"]+')
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_QUOTED_LOCAL: Final = re.compile(r'"(?:[^"\\]|\\.)*"@')
_NOT_IN_NAME: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_QUOTED_NAME_LIMIT: Final = 60


@dataclass(frozen=True, slots=True)
class Mailbox:
    """`name` is plain text without control characters ("" when there is none), `address` has an "@"."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Token:
    """`kind`: atom, quoted, comment, space, or one of the specials `< > @ , ; :` for themselves."""

    kind: str
    raw: bytes


def addresses(raw_value: bytes) -> tuple[Mailbox, ...]:
    """The mailboxes of a To, Cc, Bcc, From, Sender or Reply-To value, in order, members of groups included.

    An entry without an "@" (`undisclosed-recipients`, a bare name) is no mailbox and is left out.
    """
    return tuple(mailbox for entry in _entries(tokens(raw_value)) if (mailbox := _mailbox(entry)))


def encode_phrase(name: str) -> bytes:
    """A display name for the wire: atoms, a quoted string, or encoded words (folded, at most 76 octets a line)."""
    name = _NOT_IN_NAME.sub(" ", name).strip()
    if not name.isascii() or len(name) > _QUOTED_NAME_LIMIT or "=?" in name:
        return encode(name)
    if not name or _PLAIN_PHRASE.fullmatch(name):
        return name.encode("ascii")
    return b'"' + re.sub(r'(["\\])', r"\\\1", name).encode("ascii") + b'"'


def write_mailbox(mailbox: Mailbox) -> bytes:
    """`Name <address>`, or the bare address when there is no name."""
    address, name = write_address(mailbox.address), encode_phrase(mailbox.name)
    return name + b" <" + address + b">" if name else address


def write_address(address: str) -> bytes:
    """An address for the wire: the domain in ASCII (IDNA), without anything that could end it early."""
    local, at, domain = clean_address(address).rpartition("@")
    return (local + at).encode("utf-8", "replace") + ascii_domain(domain)


def clean_address(address: str) -> str:
    """The address without what cannot stand in one: it can neither end early nor begin a new line."""
    address = _CONTROL.sub("", address)
    quoted = _QUOTED_LOCAL.match(address)
    local, domain = (address[: quoted.end()], address[quoted.end() :]) if quoted else address.rpartition("@")[::2]
    if quoted:
        return local + re.sub(r"[\s<>,;]+", "", domain)
    at = "@" if "@" in address else ""
    return _NOT_IN_ADDRESS.sub("", local) + at + re.sub(r"[\s<>(),;\"]+", "", domain)


def ascii_domain(domain: str) -> bytes:
    """The domain as A-labels (RFC 5890); UTF-8 when it is no valid name, for the next hop to judge."""
    if domain.isascii():
        return domain.encode("ascii")
    try:
        return idna.encode(domain, uts46=True)
    except idna.IDNAError:
        return domain.encode("utf-8", "replace")


def tokens(raw: bytes) -> Iterator[Token]:
    """All of `raw` in pieces. A quote or parenthesis that nothing closes counts as an atom."""
    position, quotes, comments = 0, True, True
    while position < len(raw):
        end, kind = position + 1, "atom"
        first = raw[position : position + 1]
        if first in (b"<", b">", b"@", b",", b";", b":"):
            kind = first.decode("ascii")
        elif first == b'"':
            # One failed search is enough: searching again at each further quote would take quadratic time.
            quoted = _QUOTED.match(raw, position) if quotes else None
            quotes = quoted is not None
            end, kind = (quoted.end(), "quoted") if quoted else (end, "atom")
        elif first == b"(":
            closed = _comment_end(raw, position) if comments else 0
            comments = closed > 0
            end, kind = (closed, "comment") if closed else (end, "atom")
        elif space := _SPACE.match(raw, position):
            end, kind = space.end(), "space"
        elif atom := _ENCODED_WORD.match(raw, position) or _ATOM.match(raw, position):
            end = atom.end()
        yield Token(kind, raw[position:end])
        position = end


def _comment_end(raw: bytes, position: int) -> int:
    """Behind the parenthesis that closes the comment at `position`; 0 when none does."""
    depth = 0
    for hit in re.finditer(rb"\\.|[()]", raw[position:], re.DOTALL):
        depth += {b"(": 1, b")": -1}.get(hit[0], 0)
        if depth == 0 and hit[0] == b")":
            return position + hit.end()
    return 0


@dataclass(slots=True)
class _Entry:
    """What stands between two separators: the words before an angle address, and what is inside it."""

    phrase: list[Token]
    angle: list[Token] | None = None


def _entries(pieces: Iterator[Token]) -> Iterator[_Entry]:
    entry, inside = _Entry([]), False
    for token in pieces:
        if inside and entry.angle is not None and not _ends_angle(token, entry.angle):
            entry.angle.append(token)
        elif token.kind in (",", ";"):
            yield entry
            entry, inside = _Entry([]), False
        elif token.kind == "<":
            if entry.angle:  # the comma before this one was forgotten
                yield entry
                entry = _Entry([])
            entry.angle, inside = [], True
        elif token.kind == ">":
            inside = False
        elif token.kind == ":":
            entry = _Entry([])
        else:
            entry.phrase.append(token)
    yield entry


def _ends_angle(token: Token, angle: list[Token]) -> bool:
    """A comma ends an angle address that was never closed, except in a route (RFC 5322 4.4): `<@a,@b:user@domain>`."""
    if token.kind != ",":
        return token.kind in ("<", ">", ";")
    return not angle or angle[0].kind != "@"


def _mailbox(entry: _Entry) -> Mailbox | None:
    words, target = (entry.phrase, entry.angle) if entry.angle is not None else _bare(entry.phrase)
    raw = b"".join(t.raw for t in target if t.kind not in ("space", "comment"))
    if raw.startswith(b"@"):
        raw = raw.partition(b":")[2]
    local, _, domain = raw.rpartition(b"@")
    if not local or not domain:
        return None
    named = [t for t in words if t.kind != "comment"]
    name = _text(named) or _text([t for t in (*words, *target) if t.kind == "comment"])
    return Mailbox(name, clean_address(text_of(raw)))


def _bare(phrase: list[Token]) -> tuple[list[Token], list[Token]]:
    """An entry without angle brackets: the words before, and the address itself (with the comments)."""
    visible = [index for index, token in enumerate(phrase) if token.kind not in ("space", "comment")]
    at = next((place for place in reversed(range(len(visible))) if phrase[visible[place]].kind == "@"), -1)
    if at < 1:
        return phrase, []
    start = visible[at - 1]
    while start > 0 and phrase[start - 1].kind in ("atom", "quoted"):
        start -= 1
    return phrase[:start], phrase[start:]


def _text(pieces: list[Token]) -> str:
    return " ".join(decode(b"".join(_content(token) for token in pieces)).split())


def _content(token: Token) -> bytes:
    if token.kind == "space":
        return b" "
    if token.kind not in ("quoted", "comment"):
        return token.raw
    return re.sub(rb"\\(.)", rb"\1", token.raw[1:-1], flags=re.DOTALL)


def encode_names(raw: bytes) -> bytes:
    """An address list with its 8-bit display names and comments as encoded words and its 8-bit domains as A-labels;
    all else as it is. A local part in 8-bit cannot be said in ASCII and stays.
    """
    written: list[bytes] = []
    held: list[Token] = []
    inside = False
    for token in (*tokens(raw), Token(",", b"")):
        if token.kind not in ("<", ">", ",", ";", ":"):
            held.append(token)
            continue
        is_address = inside or (token.kind not in ("<", ":") and any(t.kind == "@" for t in held))
        written.append(_ascii_address(held) if is_address else _ascii_phrase(held))
        written.append(token.raw)
        held, inside = [], token.kind == "<" or (inside and token.kind == ":")
    return b"".join(written)


def _ascii_phrase(words: list[Token]) -> bytes:
    raw = b"".join(token.raw for token in words)
    if raw.isascii():
        return raw
    name = encode_phrase(_text([token for token in words if token.kind != "comment"]))
    comments = [_ascii_comment(token) for token in words if token.kind == "comment"]
    return b" " + b" ".join(piece for piece in (name, *comments) if piece) + b" "


def _ascii_address(words: list[Token]) -> bytes:
    written: list[bytes] = []
    after_at = False
    for token in words:
        if token.kind == "comment":
            written.append(_ascii_comment(token))
        elif after_at and token.kind == "atom":
            written.append(ascii_domain(text_of(token.raw)))
        else:
            written.append(token.raw)
        after_at = token.kind == "@" or (after_at and token.kind in ("space", "comment"))
    return b"".join(written)


def _ascii_comment(token: Token) -> bytes:
    return token.raw if token.raw.isascii() else b"(" + encode(_text([token])) + b")"
