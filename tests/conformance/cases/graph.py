"""Microsoft Graph's sendMail (microsoft-graph.md, sections 5 and 7), beside look-alikes of Entra and Graph."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from config.credentials import Secret
from config.fields import Duration
from routing.outcome import Word
from tests.conformance.case import Case, Documented, Place, Setting
from tests.conformance.entra_step import TOKEN_REPLIES, TOKEN_STEP, AfterEntra, quoted_by_entra
from tests.conformance.harness import SENDER
from tests.conformance.http_place import HttpPlace, http_steps
from tests.fakes.entra import FakeEntra
from tests.fakes.graph import FakeGraph, error
from tests.fakes.http_server import Response
from upstreams.base import Host, Upstream
from upstreams.graph import KIND, GraphSettings

SECRET = "s3cr~et.Value+/=8Q"


class GraphPlace(AfterEntra, HttpPlace):
    """Graph, with Entra before it."""

    def __init__(self, entra: FakeEntra, graph: FakeGraph, upstream: Upstream) -> None:
        super().__init__(graph.server, upstream, graph.script.append)
        self.entra, self._graph = entra, graph

    def delivered(self) -> list[str]:
        return [recipient for sent in self._graph.sent for recipient in sorted(sent.recipients)]

    def secrets(self, step: str) -> tuple[str, ...]:
        return (SECRET,) if step == "token" else tuple(given.token for given in self.entra.given[:1])


@asynccontextmanager
async def place(setting: Setting) -> AsyncIterator[Place]:
    tls = setting.authority.server_context()
    async with FakeEntra(tls, secret=SECRET) as entra, FakeGraph(entra, {SENDER}, tls=tls) as graph:
        settings = GraphSettings(
            tenant=entra.tenant,
            client_id=entra.client_id,
            client_secret=Secret("file:x", SECRET),
            authority=entra.authority,
            base_url=graph.base_url,
            timeout=Duration(max(1.0, setting.timeout)),
        )
        upstream = KIND.build("initech-graph", settings, Host("relay.example"))
        try:
            yield GraphPlace(entra, graph, upstream)
        finally:
            await upstream.close()
        assert entra.server.problems == graph.server.problems == []


def quoted(text: str) -> Response:
    return error(403, "X", f"there is no such thing as {text}")


REPLIES = (
    Documented(error(400, "ErrorInvalidRecipients", "At least one recipient is not valid."), "request", Word.REJECT),
    Documented(
        error(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content."),
        "request",
        Word.REJECT,
    ),
    Documented(error(400, "InvalidInternetMessageHeader", "should start with 'x-'"), "request", Word.REJECT),
    Documented(error(400, "BadRequest"), "request", Word.REJECT),
    Documented(error(400, "ErrorInvalidRequest"), "request", Word.REJECT),
    Documented(error(400, "SomethingNew"), "request", Word.REJECT),
    Documented(error(400, "ErrorMessageSizeExceeded"), "request", Word.REJECT),
    Documented(error(400, "BadRequest", "The maximum request length supported is 4MB."), "request", Word.REJECT),
    Documented(error(413, ""), "request", Word.REJECT),
    Documented(error(401, "InvalidAuthenticationToken"), "request", Word.CONFIG),
    Documented(
        error(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again."), "request", Word.CONFIG
    ),
    Documented(error(403, "ErrorAccessDenied", "Access to OData is disabled."), "request", Word.CONFIG),
    Documented(error(403, "ErrorSendAsDenied"), "request", Word.CONFIG),
    Documented(error(403, "ErrorMessageSubmissionBlocked"), "request", Word.CONFIG),
    Documented(error(403, "SomethingNew"), "request", Word.CONFIG),
    Documented(error(403, "ErrorQuotaExceeded"), "request", Word.CONFIG),
    Documented(error(429, "ErrorQuotaExceeded"), "request", Word.CONFIG),
    Documented(error(507, "ErrorQuotaExceeded"), "request", Word.CONFIG),
    Documented(error(429, "ErrorExceededMessageLimit"), "request", Word.WAIT),
    Documented(error(403, "ErrorExceededMessageLimit"), "request", Word.WAIT),
    Documented(error(404, "ErrorInvalidUser"), "request", Word.CONFIG),
    Documented(error(404, "ResourceNotFound"), "request", Word.CONFIG),
    Documented(error(404, "MailboxNotEnabledForRESTAPI"), "request", Word.CONFIG),
    Documented(error(404, ""), "request", Word.CONFIG),
    Documented(error(405, ""), "request", Word.CONFIG),
    Documented(error(408, ""), "request", Word.RETRY),
    Documented(error(409, ""), "request", Word.RETRY),
    Documented(error(412, ""), "request", Word.RETRY),
    Documented(error(429, "ErrorTooManyObjectsOpened"), "request", Word.RETRY),
    Documented(error(500, "generalException"), "request", Word.RETRY),
    Documented(error(500, "ErrorInternalServerTransientError"), "request", Word.RETRY),
    Documented(error(503, "ServiceUnavailable"), "request", Word.RETRY),
    Documented(error(502, ""), "request", Word.UNKNOWN),
    Documented(error(504, ""), "request", Word.UNKNOWN),
    Documented(error(504, "ServiceUnavailable"), "request", Word.UNKNOWN),
    Documented(error(507, ""), "request", Word.CONFIG),
    Documented(error(509, ""), "request", Word.RETRY),
    Documented(error(200, ""), "request", Word.UNKNOWN),
    Documented(error(201, ""), "request", Word.UNKNOWN),
    Documented(error(204, ""), "request", Word.UNKNOWN),
    Documented(error(302, ""), "request", Word.CONFIG),
    Documented(error(202, ""), "request", Word.SENT),
)

CASES = (
    Case(
        name="graph",
        open=place,
        limit=500,
        replies=TOKEN_REPLIES + REPLIES,
        steps=(TOKEN_STEP, *http_steps(reply=Word.SENT)),
        echoes={"token": quoted_by_entra, "request": quoted},
        refuses=False,
    ),
)
