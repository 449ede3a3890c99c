"""The one border between the relay and httpx: a request goes in, a `Reply` or an `Outcome` comes out, no exception.

Must never repeat a request, follow a redirect, take a proxy or a password from the environment, keep a cookie, or
log a URL or a header. So it uses httpx's transport alone, without the client around it. httpx is imported at the first
use: a relay whose routes are all SMTP does not pay for it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from config.fields import is_loopback
from routing.outcome import Hint, Outcome, Stage, Who, Word
from upstreams.tls import Trust

if TYPE_CHECKING:
    import httpx

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
        self._connections = connections
        self._trust = trust or Trust()
        self._transport: httpx.AsyncHTTPTransport | None = None

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
        import httpx

        progress = _Progress(not content)
        request = _request(method, url, headers, content, progress)
        request.extensions["timeout"] = httpx.Timeout(
            self._timeout, connect=min(self._timeout, CONNECT_SECONDS)
        ).as_dict()
        try:
            return await self._ask(request, reply_limit)
        except (TimeoutError, httpx.TransportError) as error:
            return _no_reply(error, progress, repeatable)
        finally:
            await progress.give_up()

    async def close(self) -> None:
        """Close every connection. The client may be used again afterwards, with new ones."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _ask(self, request: httpx.Request, reply_limit: int) -> Reply:
        async with asyncio.timeout(self._timeout):
            transport = await self._opened()
            response = await transport.handle_async_request(request)
        stream = response.extensions.get("network_stream")
        tls = stream.get_extra_info("ssl_object") if stream is not None else None
        self._trust.saw(f"{request.url.host}:{request.url.port or 443}", tls)
        try:
            body, whole = await _body(response, reply_limit)
        finally:
            await response.aclose()
        return Reply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, body, whole)

    async def _opened(self) -> httpx.AsyncHTTPTransport:
        if self._transport is None:
            import httpx

            verify = await asyncio.to_thread(self._trust.for_http)
            limits = httpx.Limits(
                max_connections=self._connections,
                max_keepalive_connections=self._connections,
                keepalive_expiry=IDLE_SECONDS,
            )
            self._transport = self._transport or httpx.AsyncHTTPTransport(verify, trust_env=False, limits=limits)
        return self._transport


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

    It holds the connection until TLS is up: httpcore forgets it, still open, when it is cancelled there.
    """

    __slots__ = ("_bodiless", "_connection", "body_begun", "stage")

    def __init__(self, bodiless: bool) -> None:
        self.stage = Stage.CONNECT
        self.body_begun = False
        self._bodiless = bodiless
        self._connection: Any = None

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        match event:
            case "connection.connect_tcp.complete":
                self._connection = info["return_value"]
            case "connection.start_tls.complete":
                self._connection = None
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


def _request(method: str, url: str, headers: Mapping[str, str], content: bytes, progress: _Progress) -> httpx.Request:
    import httpx

    try:
        return httpx.Request(
            method, url, headers={**_HEADERS, **headers}, content=content, extensions={"trace": progress.note}
        )
    except httpx.InvalidURL:
        raise ValueError("not a URL") from None


async def _body(response: httpx.Response, limit: int) -> tuple[bytes, bool]:
    """The reply's body as far as it came, and whether that was all that was wanted: once the status is known, a cut
    after it changes nothing.
    """
    import httpx

    body, whole = bytearray(), True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) >= limit:
                    break
    except (httpx.TransportError, TimeoutError):
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
    import httpx

    late = isinstance(error, TimeoutError | httpx.TimeoutException)
    if progress.stage is not Stage.REQUEST:
        return "timed out while connecting" if late else f"cannot connect: {error}"
    where = "after the request was sent" if progress.body_begun else "before the request was sent"
    return f"no reply in time, {where}" if late else f"connection lost {where}: {error or type(error).__name__}"
