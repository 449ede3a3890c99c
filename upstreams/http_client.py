"""The one border between the relay and httpx: a request goes in, a `Reply` or an `Outcome` comes out, no exception.

Must never repeat a request, follow a redirect, take a proxy or a password from the environment, keep a cookie, or
log a URL or a header. So httpx reads the URL, and httpcore, which httpx itself stands on, speaks HTTP over connections
of ours (http_pool.py). Both are imported at the first use: a relay whose routes are all SMTP does not pay for them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from config.fields import is_loopback
from routing.outcome import Hint, Outcome, Stage, Who, Word
from upstreams.tls import Trust

if TYPE_CHECKING:
    import httpcore

    from upstreams.http_pool import Connection, Pool

CONNECT_SECONDS: Final = 15.0
BODY_SECONDS: Final = 10.0
REPLY_LIMIT: Final = 256 * 1024
LONGEST_RETRY_AFTER: Final = 86400.0
"""A stated wait is obeyed beyond the expiry of mail: an absurd one would keep it for years, and tell nobody."""
_HEADERS: Final = (
    (b"Accept", b"application/json"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"callpro-relay"),
)
_KNOWN_URLS: Final = 32
_CHUNKS_A_TURN: Final = 64
"""A body in chunks of an octet each costs seconds of work; everybody else has a turn meanwhile, and time its end."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the other side answered. Header names are lower case; `body` ends at the limit, the rest is not read.

    `whole` is False when the connection broke, or time was over, within the body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True


class HttpClient:
    """Connections to one provider with one credential. `connections` is how many at one time.

    `timeout` is in seconds, from connecting to the reply's headers; connecting alone may take 15 of them, and the
    reply's body another 10. `trust` is the host's (`Host.trust`); without it this client loads its own.
    """

    def __init__(self, timeout: float, connections: int, trust: Trust | None = None) -> None:
        self._timeout = timeout
        self._connections = connections
        self._trust = trust or Trust()
        self._pool: Pool | None = None
        self._place = lru_cache(_KNOWN_URLS)(_place)

    async def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes = b"",
        *,
        repeatable: bool = False,
        reply_limit: int = REPLY_LIMIT,
    ) -> Reply | Outcome:
        """Send one request, and read at most `reply_limit` octets of the reply's body.

        An Outcome means that there was no reply: RETRY or CONFIG when the mail cannot have arrived, UNKNOWN when the
        body had begun (RETRY when the request is `repeatable`, as a probe is). Raises ValueError for what is no URL.
        """
        request = _request(method, *self._place(url), headers, content)
        progress = _Progress(content)
        try:
            return await self._ask(request, progress, reply_limit)
        except _transport_errors() as error:
            return _no_reply(error, progress, repeatable)

    async def close(self) -> None:
        """Close every connection. The client may be used again afterwards, with new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def _ask(self, request: httpcore.Request, progress: _Progress, reply_limit: int) -> Reply:
        pool = self._opened()
        async with asyncio.timeout(self._timeout) as until_headers:
            connection = await pool.take(request.url.origin, progress.reached)
            try:
                request.stream = progress.on(connection)
                response = await connection.http.handle_async_request(request)
                until_headers.reschedule(None)
                body, whole = await _body(response, reply_limit)
                await response.aclose()
            finally:
                await pool.give_back(connection)
        return Reply(response.status, _named(response.headers), body, whole)

    def _opened(self) -> Pool:
        if self._pool is None:
            from upstreams.http_pool import Pool

            self._pool = Pool(self._connections, min(self._timeout, CONNECT_SECONDS), self._trust)
        return self._pool


def place_of(url: str) -> str:
    """Scheme, host and port of a URL: where a connection goes to."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def connects_to(timeout: float, *urls: str) -> str:
    """See `Upstream.connects_to`, for an upstream that connects to these within `timeout` seconds."""
    return f"{' and '.join(place_of(url) for url in urls)} in {min(timeout, CONNECT_SECONDS):g} s"


def is_base_url(text: str) -> bool:
    """True for the address of an API: https (plain http only to this machine), a host, a path and nothing behind it."""
    try:
        parts = urlsplit(text)
        whole = bool(parts.hostname) and "@" not in parts.netloc and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(text))
    return whole and safe and not parts.query and not parts.fragment


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait by a Retry-After header, which is seconds or an HTTP date (RFC 9110 10.2.3); None without one
    or when it cannot be read; no more than a day. `now` is in unix seconds.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


class _Progress:
    """How far one request came; and its body, which httpcore asks for once the headers are written."""

    __slots__ = ("_connection", "_content", "body_begun", "stage")

    def __init__(self, content: bytes) -> None:
        self.stage = Stage.CONNECT
        self.body_begun = False
        self._content = content
        self._connection: Connection | None = None

    def reached(self, stage: Stage) -> None:
        self.stage = stage

    def on(self, connection: Connection) -> _Progress:
        """The request goes out on this one. Without a body it is whole with its headers."""
        self.stage = Stage.REQUEST
        self.body_begun = not self._content
        self._connection = connection
        return self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, after one turn of the event loop: a connection that broke meanwhile is known to have taken none."""
        import httpcore

        if not self._content:
            return
        await asyncio.sleep(0)
        if self._connection is not None and self._connection.stream.broken:
            raise httpcore.WriteError("the connection broke after the headers")
        self.body_begun = True
        yield self._content


def _place(url: str) -> tuple[httpcore.URL, bytes]:
    """What httpx makes of a URL: for httpcore, and for the Host header."""
    import httpcore
    import httpx

    try:
        to = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("not a URL") from None
    return httpcore.URL(scheme=to.raw_scheme, host=to.raw_host, port=to.port, target=to.raw_path), to.netloc


def _request(
    method: str, place: httpcore.URL, host: bytes, headers: Mapping[str, str], content: bytes
) -> httpcore.Request:
    """h11 checks the headers, and refuses what would be a line of its own."""
    import httpcore

    ours = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
    named = {name.lower() for name, _ in ours}
    lines = [(b"Host", host), *(line for line in _HEADERS if line[0].lower() not in named), *ours]
    if content or method in ("POST", "PUT", "PATCH"):
        lines.append((b"Content-Length", b"%d" % len(content)))
    return httpcore.Request(method, place, headers=lines)


def _named(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """By name in lower case; what was said twice is joined by a comma, and octets beyond ASCII are made out."""
    found: dict[str, str] = {}
    for octets, value in headers:
        name, text = octets.decode("ascii").lower(), _text(value)
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _transport_errors() -> tuple[type[Exception], ...]:
    """All that can go wrong between here and the other side."""
    import httpcore

    return (
        TimeoutError,
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
    )


async def _body(response: httpcore.Response, limit: int) -> tuple[bytes, bool]:
    """The reply's body as far as it came, and whether that was all that was wanted: once the status is known, a cut
    after it changes nothing.
    """
    body, whole, chunks = bytearray(), True, 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in response.aiter_stream():
                body += chunk
                if len(body) >= limit:
                    break
                if (chunks := chunks + 1) % _CHUNKS_A_TURN == 0:
                    await asyncio.sleep(0)
    except _transport_errors():
        whole = False
    return bytes(body[:limit]), whole


def _no_reply(error: Exception, progress: _Progress, repeatable: bool) -> Outcome:
    certificate = _certificate_error(error)
    if certificate is not None:
        return Outcome(
            Word.CONFIG,
            f"certificate not accepted: {certificate.verify_message}",
            Stage.TLS,
            hint=Hint(
                Who.US,
                "The other side's certificate is not trusted for that host name: check base_url, or add "
                "the missing authority to this machine's trust and restart the relay.",
                "Het certificaat van de andere kant wordt voor die hostnaam niet vertrouwd: controleer "
                "base_url, of voeg de ontbrekende uitgever toe aan de vertrouwde certificaten van deze "
                "machine en herstart de relay.",
            ),
        )
    doubtful = progress.body_begun and not repeatable
    return Outcome(Word.UNKNOWN if doubtful else Word.RETRY, _sentence(error, progress), progress.stage)


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _sentence(error: Exception, progress: _Progress) -> str:
    """What happened, without the URL: it may hold more than a log should."""
    import httpcore

    late = isinstance(error, TimeoutError | httpcore.TimeoutException)
    if progress.stage is not Stage.REQUEST:
        return "timed out while connecting" if late else f"cannot connect: {error}"
    if isinstance(error, httpcore.LocalProtocolError):
        return "a request that HTTP cannot say"  # its words quote the header field, which may be a token
    where = "after the request was sent" if progress.body_begun else "before the request was sent"
    if isinstance(error, httpcore.RemoteProtocolError) and error.__cause__ is not None:
        return f"an answer that is no HTTP, {where}: {error}"
    return f"no reply in time, {where}" if late else f"connection lost {where}: {error or type(error).__name__}"
