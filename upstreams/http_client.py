"""The one border between the relay and httpx: a request goes in, a `Reply` or an `Outcome` comes out, no exception.

Must never repeat a request, follow a redirect, take a proxy or a password from the environment, keep a cookie, or
log a URL or a header. So httpx makes the request, and goes to httpcore, the pool that httpx itself stands on, without
the client around it. Both are imported at the first use: a relay whose routes are all SMTP does not pay for them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from config.fields import is_loopback
from routing.outcome import Hint, Outcome, Stage, Who, Word
from upstreams.tls import Trust

if TYPE_CHECKING:
    import httpcore

CONNECT_SECONDS: Final = 15.0
IDLE_SECONDS: Final = 15.0
"""Well under what the providers keep idle connections, so that a request is seldom written to one just given up."""
BODY_SECONDS: Final = 10.0
REPLY_LIMIT: Final = 256 * 1024
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "callpro-relay"}


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
        self._timeouts = dict.fromkeys(("read", "write", "pool"), timeout) | {"connect": min(timeout, CONNECT_SECONDS)}
        self._connections = connections
        self._trust = trust or Trust()
        self._pool: httpcore.AsyncConnectionPool | None = None

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
        progress = _Progress(not content, self._trust)
        request = _request(method, url, headers, content)
        request.extensions = {"trace": progress.note, "timeout": self._timeouts}
        try:
            return await self._ask(request, reply_limit)
        except _transport_errors() as error:
            return _no_reply(error, progress, repeatable)
        finally:
            await progress.give_up()

    async def close(self) -> None:
        """Close every connection. The client may be used again afterwards, with new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    async def _ask(self, request: httpcore.Request, reply_limit: int) -> Reply:
        async with asyncio.timeout(self._timeout):
            pool = await self._opened()
            response = await pool.handle_async_request(request)
        try:
            body, whole = await _body(response, reply_limit)
        finally:
            await response.aclose()
        return Reply(response.status, _named(response.headers), body, whole)

    async def _opened(self) -> httpcore.AsyncConnectionPool:
        if self._pool is None:
            import httpcore

            from upstreams.http_streams import Backend

            context = await asyncio.to_thread(self._trust.for_http)
            self._pool = self._pool or httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=self._connections,
                max_keepalive_connections=self._connections,
                keepalive_expiry=IDLE_SECONDS,
                network_backend=Backend(),
            )
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
    or when it cannot be read. `now` is in unix seconds.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now)


class _Progress:
    """How far one request came, told by httpcore's trace events. One without a body is whole with its headers.

    It holds the connection until TLS is up: httpcore forgets it, still open, when it is cancelled there. A certificate
    is told to `trust` once for each connection.
    """

    __slots__ = ("_bodiless", "_connection", "_place", "_trust", "body_begun", "stage")

    def __init__(self, bodiless: bool, trust: Trust) -> None:
        self.stage = Stage.CONNECT
        self.body_begun = False
        self._bodiless = bodiless
        self._connection: Any = None
        self._trust = trust
        self._place = ""

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        match event:
            case "connection.connect_tcp.started":
                self._place = f"{info['host']}:{info['port']}"
            case "connection.connect_tcp.complete":
                self._connection = info["return_value"]
            case "connection.start_tls.complete":
                self._connection = None
                self._trust.saw(self._place, info["return_value"].get_extra_info("ssl_object"))
            case "connection.start_tls.started":
                self.stage = Stage.TLS
            case "http11.send_request_headers.started":
                self._connection = None
                self.stage = Stage.REQUEST
                self.body_begun = self._bodiless
            case "http11.send_request_body.started":
                self.body_begun = True

    async def give_up(self) -> None:
        """Close a connection that came to nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()


def _request(method: str, url: str, headers: Mapping[str, str], content: bytes) -> httpcore.Request:
    """httpx checks the URL and the headers, and adds Host and Content-Length."""
    import httpcore
    import httpx

    try:
        made = httpx.Request(method, url, headers={**_HEADERS, **headers}, content=content)
    except httpx.InvalidURL:
        raise ValueError("not a URL") from None
    to = made.url
    place = httpcore.URL(scheme=to.raw_scheme, host=to.raw_host, port=to.port, target=to.raw_path)
    return httpcore.Request(made.method, place, headers=made.headers.raw, content=content)


def _named(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """By name in lower case; what was said twice is joined by a comma, and octets beyond ASCII are made out."""
    import httpx

    return dict(httpx.Headers(headers).items())


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
    body, whole = bytearray(), True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in response.aiter_stream():
                body += chunk
                if len(body) >= limit:
                    break
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
    where = "after the request was sent" if progress.body_begun else "before the request was sent"
    return f"no reply in time, {where}" if late else f"connection lost {where}: {error or type(error).__name__}"
