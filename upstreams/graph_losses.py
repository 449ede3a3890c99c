"""What a mail loses on its way through Graph: the declared table, as sentences about the mail at hand. Pure.

Must never quote a mail: header fields are named, their contents are not. From microsoft-graph.md 1, 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from routing.headers import Field, fields
from upstreams.graph_draft import HEADERS_LIMIT, carried_headers, draft_of, importance, message_id
from upstreams.graph_message import graph_message
from upstreams.mime_content import content_of
from upstreams.mime_parts import Unsayable, take_apart

_BY_MIME: Final = frozenset({
    "from", "to", "cc", "bcc", "subject", "date", "message-id", "reply-to", "mime-version",
    "content-type", "content-transfer-encoding", "content-disposition", "content-id", "content-language",
})  # fmt: skip
"""What no source says is lost; all else that does not begin with X- may be."""

_BY_DRAFT: Final = frozenset({
    "from", "to", "cc", "bcc", "subject", "reply-to", "message-id", "importance", "list-unsubscribe", "mime-version",
    "content-type", "content-transfer-encoding", "content-disposition",
})  # fmt: skip
"""What a draft says in words of its own."""

_SIGNED_OR_LOST: Final = frozenset({"dkim-signature", "list-unsubscribe-post", "return-path"})
"""Fields with a sentence of their own, in both modes."""

_RESENT: Final = frozenset({"resent-to", "resent-cc", "resent-bcc"})

_ALWAYS: Final = (
    "A copy stays in the mailbox's Sent Items: Graph has no switch for that.",
    "Return-Path becomes the mailbox: what fails after Graph took the mail is reported into its Inbox, not to the "
    "envelope sender.",
)
_BUILT_ANEW: Final = "Exchange may build the mail's structure and encodings anew."
_SIGNATURE: Final = "DKIM-Signature is taken out: Exchange changes what it signs, and the customer's tenant signs."
_ONE_CLICK: Final = (
    "List-Unsubscribe-Post is lost, and with it the one-click unsubscribe (RFC 8058): bulk mail needs another way out."
)


def by_mime(content: bytes) -> tuple[str, ...]:
    """What a mail within the limit loses."""
    return (*_ALWAYS, _BUILT_ANEW, *_mime_headers(fields(content)))


def by_draft(content: bytes, limit: int) -> tuple[str, ...]:
    """What a mail over the limit (in octets of a request) loses as a draft, or why it cannot be one."""
    try:
        handed = graph_message(content, (_ANYBODY,)).content
        draft_of(handed, limit)
        return (*_ALWAYS, *_draft_content(handed), *_draft_headers(fields(content)))
    except Unsayable as reason:
        return (f"It is too large for one request, and a draft cannot hold it: {reason}. {_NEXT}",)


def by_next(length: int, limit: int) -> tuple[str, ...]:
    """What becomes of a mail over the limit that may not be a draft. Both in octets of base64."""
    return (f"It is too large for one request ({length} octets in base64, at most {limit}). {_NEXT}",)


_ANYBODY: Final = "somebody@example.org"
_NEXT: Final = "The route's next upstream takes it; without one it is refused (5.3.4)."


def _mime_headers(found: tuple[Field, ...]) -> Iterator[str]:
    yield from _common_headers(found)
    if others := _others(found, _BY_MIME | _SIGNED_OR_LOST | _RESENT):
        yield f"Exchange may drop fields that do not begin with X-: {others}."
    if ours := _listed(field.name for field in found if field.name.lower().startswith("x-")):
        yield f"A mailbox may drop fields that it never sent before: {ours}."


def _draft_content(content: bytes) -> Iterator[str]:
    yield "Exchange builds the mail anew from its fields: text, files and header."
    parts = content_of(take_apart(content))
    if len(parts.texts) > 1:
        yield "The plain text beside the HTML is lost: a draft holds one version, Exchange makes the other from it."
    if parts.flows:
        yield "The plain text keeps its short lines: a draft cannot say that they flow (RFC 3676)."


def _draft_headers(found: tuple[Field, ...]) -> Iterator[str]:
    yield "Date becomes the time of sending."
    yield from _common_headers(found)
    names = {field.name.lower() for field in found}
    if "sender" in names:
        yield "Sender becomes the mailbox."
    if "message-id" in names and not message_id(found):
        yield "Message-ID is replaced by one of Exchange's: a draft cannot hold one of that form."
    if "importance" in names and not importance(found):
        yield "Importance is lost: it is neither low, normal nor high."
    if others := _others(found, _BY_DRAFT | _SIGNED_OR_LOST | _RESENT | {"date", "sender"}):
        yield f"A draft cannot hold these fields: {others}."
    if over := _listed(field.name for field in carried_headers(found)[1]):
        yield f"A draft holds {HEADERS_LIMIT} fields that begin with X-, and none that is empty; lost are: {over}."


def _common_headers(found: tuple[Field, ...]) -> Iterator[str]:
    names = {field.name.lower() for field in found}
    if "dkim-signature" in names:
        yield _SIGNATURE
    if "list-unsubscribe-post" in names:
        yield _ONE_CLICK
    if resent := _listed(field.name for field in found if field.name.lower() in _RESENT):
        yield f"These are taken out, as Graph would mail whom they name: {resent}."
    if "" in names:
        yield "Header lines that are no field are taken out."


def _others(found: tuple[Field, ...], told: frozenset[str]) -> str:
    return _listed(
        field.name for field in found if not field.name.lower().startswith("x-") and field.name.lower() not in told
    )


def _listed(names: Iterable[str]) -> str:
    """Each name once, as it was first written."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.lower(), name)
    return ", ".join(name for name in first.values() if name)
