"""Which parts of a mail are its text, which are its files, and their contents (RFC 2046, RFC 2387, RFC 2183).

For providers that build the MIME structure anew. Must never change what a reader would see: where text, pictures and
files stand in a way that cannot be built again, `Unsayable` says so.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote

from upstreams.mime_parts import Part, Unsayable, characters

_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_TAG: Final = re.compile(rb"<[^<>]*>")
_BLANK_LIMIT: Final = 4096
_PLAIN_ENCODINGS: Final = ("7bit", "8bit", "binary")
_SEALED: Final = ("application/pkcs7-mime", "application/x-pkcs7-mime")
_SEALED_FILE: Final = (".p7m", ".p7z")
"""By these a sealed mail is known whose type a gateway made application/octet-stream (RFC 8551 3.2.1)."""
_SIGNED_TEXT: Final = re.compile(r"^-----BEGIN PGP SIGNED MESSAGE-----", re.MULTILINE)
_EXTENSIONS: Final[Mapping[str, str]] = {
    "application/pdf": "pdf", "image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/svg+xml": "svg",
    "text/plain": "txt", "text/html": "html", "text/calendar": "ics", "text/csv": "csv", "message/rfc822": "eml",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Text:
    """One version of the text, as characters. `parameters` are those of its Content-Type."""

    media_type: str
    parameters: Mapping[str, str] = field(repr=False)
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file. `content_id` is "" or what the text may refer to it by; `in_text` when the HTML does. `inline` when the
    reader should show it in place: then, and where the mail says so.
    """

    media_type: str
    filename: str = field(repr=False)
    inline: bool
    content_id: str
    part: Part = field(repr=False)
    in_text: bool = False

    def base64(self) -> bytes:
        """The file as base64 without line ends; passed through undecoded where the mail holds clean base64."""
        return base64_of(self.part)


@dataclass(frozen=True, slots=True)
class Content:
    """The versions of the text (alternatives, in the mail's order; may be none) and the files."""

    texts: tuple[Text, ...]
    attachments: tuple[Attachment, ...]

    @property
    def flows(self) -> bool:
        """True when the short lines of a plain text are meant to be joined (RFC 3676)."""
        return any(text.parameters.get("format", "").lower() == "flowed" for text in self.texts)


def content_of(mail: Part) -> Content:
    """Text and files of a mail. Raises Unsayable when its layout needs more than alternatives, inline files and
    attachments can say: two texts below one another, two versions of one type, a picture found by its place.
    """
    if mail.media_type in _SEALED or mail.filename.lower().endswith(_SEALED_FILE):
        raise Unsayable(f"{mail.media_type} (a sealed S/MIME mail)")
    sorter = _Sorter()
    sorter.body(mail, alternative=True)
    return Content(tuple(sorter.texts), tuple(_with_places(sorter.texts, sorter.files)))


class _Sorter:
    """Collects texts and files while it goes down the tree once."""

    def __init__(self) -> None:
        self.texts: list[Text] = []
        self.files: list[Attachment] = []

    def body(self, part: Part, *, alternative: bool) -> None:
        """`part` is where the text is looked for; `alternative` allows types other than plain and HTML."""
        match part.media_type:
            case "multipart/alternative":
                self._alternatives(part)
            case "multipart/related":
                self._related(part)
            case "multipart/mixed":
                self._mixed(part)
            case _ if _is_text(part, any_type=alternative):
                self._add_text(part)
            case _:
                self._add_file(part)

    def _alternatives(self, part: Part) -> None:
        for version in part.parts:
            if not version.parts and not _is_text(version, any_type=True) and not version.filename:
                raise Unsayable(f"{version.media_type} as an alternative of the text")
            self.body(version, alternative=True)

    def _related(self, part: Part) -> None:
        """RFC 2387: the root is named by `start`, else the first; the others are its pictures."""
        start = part.parameters.get("start", "").strip("<> ")
        root = next((each for each in part.parts if start and each.content_id == start), part.parts[0])
        self.body(root, alternative=True)
        for other in part.parts:
            if other is not root:
                self._pictures(other)

    def _pictures(self, part: Part) -> None:
        for leaf in part.leaves():
            if not leaf.content_id and any(entry.name.lower() == "content-location" for entry in leaf.fields):
                raise Unsayable("a picture referred to by Content-Location")
            self._add_file(leaf)

    def _mixed(self, part: Part) -> None:
        """The first part that holds text is the body; a second one would have to stand below it."""
        begun = False
        for each in part.parts:
            if not _holds_text(each):
                for leaf in each.leaves():
                    self._add_file(leaf)
            elif not begun:
                begun = True
                self.body(each, alternative=False)
            elif not _blank(each):
                raise Unsayable("a second text below the first in multipart/mixed")

    def _add_text(self, part: Part) -> None:
        if any(text.media_type == part.media_type for text in self.texts):
            raise Unsayable(f"two {part.media_type} texts")
        value = characters(octets_of(part), part.parameters.get("charset", ""))
        if _SIGNED_TEXT.search(value):
            raise Unsayable("a text signed by PGP, whose bytes must stay")
        self.texts.append(Text(part.media_type, part.parameters, value))

    def _add_file(self, part: Part) -> None:
        inline = part.disposition == "inline"
        self.files.append(Attachment(part.media_type, _filename(part), inline, part.content_id, part))


def _with_places(texts: Iterable[Text], files: list[Attachment]) -> Iterable[Attachment]:
    """The files, those marked that the HTML refers to (RFC 2392), wherever they stand and whatever the mail calls them:
    every mail reader shows them in place.
    """
    if not any(file.content_id for file in files):
        return files
    import html  # its table of names is big, and few relays need it

    written = "".join(text.value for text in texts if text.media_type == "text/html")
    readable = unquote(html.unescape(written)).lower()
    return [
        replace(file, inline=True, in_text=True)
        if file.content_id and f"cid:{file.content_id.lower()}" in readable
        else file
        for file in files
    ]


def _is_text(part: Part, *, any_type: bool) -> bool:
    if part.disposition == "attachment" or not part.media_type.startswith("text/"):
        return False
    return any_type or (part.media_type in ("text/plain", "text/html") and not part.filename)


def _holds_text(part: Part) -> bool:
    """Whether a part of multipart/mixed is (or leads to) a text to read rather than a file."""
    if part.media_type in ("multipart/alternative", "multipart/related"):
        return True
    return any(map(_holds_text, part.parts)) if part.parts else _is_text(part, any_type=False)


def _blank(part: Part) -> bool:
    """Some programs close a mail with an empty text behind the files; nobody sees it."""
    if part.media_type not in ("text/plain", "text/html") or part.end - part.start > _BLANK_LIMIT:
        return False
    octets = octets_of(part)
    if part.media_type == "text/html":
        octets = b"picture" if b"<img" in octets.lower() else _TAG.sub(b"", octets).replace(b"&nbsp;", b"")
    return not octets.strip()


def _filename(part: Part) -> str:
    """The file's name without a path; a plain one where the mail gives none, as most providers want one."""
    name = part.filename.replace("\\", "/").rpartition("/")[2].strip()
    stem = "message" if part.media_type == "message/rfc822" else part.media_type.partition("/")[0]
    stem = stem if stem in ("image", "audio", "video", "message") else "attachment"
    return name or f"{stem}.{_EXTENSIONS.get(part.media_type, 'bin')}"


def octets_of(part: Part) -> bytes:
    """The body with its transfer encoding taken off (RFC 2045 6). Raises Unsayable for one that is not known."""
    if part.transfer_encoding in _PLAIN_ENCODINGS:
        return part.encoded
    decoder = _DECODERS.get(part.transfer_encoding)
    if decoder is None:
        raise Unsayable("a Content-Transfer-Encoding that is not in RFC 2045")
    return decoder(part.encoded)


def base64_of(part: Part) -> bytes:
    """The body as base64 without line ends, untouched where it is clean base64 already."""
    if part.transfer_encoding != "base64":
        return base64.b64encode(octets_of(part))
    joined = part.encoded.translate(None, b"\r\n \t")
    if len(joined) % 4 == 0 and not joined.rstrip(b"=").translate(None, _BASE64) and not joined.endswith(b"==="):
        return joined
    return base64.b64encode(_unbase64(joined))


def _unbase64(encoded: bytes) -> bytes:
    """Base64 as mail holds it: characters outside the alphabet are ignored (RFC 2045 6.8), a missing `=` is put back.

    Raises Unsayable when something follows the padding: what was meant cannot be known.
    """
    signs = encoded.translate(None, bytes(set(range(256)) - set(_BASE64 + b"=")))
    body, _, rest = signs.partition(b"=")
    if rest.strip(b"="):
        raise Unsayable("base64 that goes on behind its end")
    try:
        return base64.b64decode(body + b"=" * (-len(body) % 4))
    except binascii.Error:
        raise Unsayable("base64 that is cut off") from None


_DECODERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "base64": _unbase64,
    "quoted-printable": binascii.a2b_qp,
}
