"""Tokens of a Microsoft Entra app, by client credentials, through msal: one app, any number of scopes.

Must never log or repeat a secret or a token. msal is imported at the first token (it is large, and a relay without
Entra routes never needs it) and works in a thread of its own; its requests go out through `HttpClient`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from config.credentials import Secret
from config.fields import Fault, Settings, setting
from routing.outcome import Outcome, Stage, Word
from upstreams.api_reply import json_object
from upstreams.entra_errors import refusal
from upstreams.http_client import HttpClient, Reply, is_base_url, retry_after

EARLY_SECONDS: Final = 300.0
"""A token is renewed this long before it ends; until then it serves when Entra cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntraApp(Settings):
    """The app registration that a kind logs in with; its settings class derives from this one."""

    tenant: str = setting(
        doc="The customer's tenant: its id or its domain.", example="aaaabbbb-0000-cccc-1111-dddd2222eeee"
    )
    client_id: str = setting(
        doc="The application (client) id of the app registration.", example="00001111-aaaa-2222-bbbb-3333cccc4444"
    )
    client_secret: Secret | None = setting(
        default=None, doc="The app's client secret, by reference.", example="systemd:initech-graph"
    )
    certificate: Secret | None = setting(
        default=None,
        doc="Instead of a secret: one PEM with the private key and its certificate, by reference.",
        example="systemd:initech-certificate",
    )
    authority: str = setting(
        default="https://login.microsoftonline.com", doc="Where tokens come from; another one for a national cloud."
    )

    def faults(self) -> Iterator[Fault]:
        if (self.client_secret is None) == (self.certificate is None):
            yield Fault("", "takes exactly one of client_secret and certificate", "keep the one the customer gave you")
        if self.tenant.lower() in ("common", "organizations", "consumers") or not _is_segment(self.tenant):
            yield Fault("tenant", "is not one customer's tenant", "write the tenant's id or domain")
        if not _is_segment(self.client_id):
            yield Fault("client_id", "is not a client id", "write the application (client) id")
        if not is_base_url(self.authority) or not re.fullmatch(r"https://[^/]+/?", self.authority):
            yield Fault(
                "authority", "is not the address of a login host", "write it like the default, https and a host"
            )
        yield from _certificate_faults(self.certificate)


class EntraTokens:
    """The tokens of one app. One call at a time for each scope, however many mails wait for it.

    Requests go out through `http`, whose owner closes it. `clock` counts seconds and never goes back.
    """

    def __init__(self, app: EntraApp, http: HttpClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._http = http
        self._tokens: dict[str, _Token] = {}
        self._calls: dict[str, asyncio.Task[str | Outcome]] = {}
        self._msal: Any = None
        self._building = asyncio.Lock()

    async def token(self, scope: str) -> str | Outcome:
        """A token for `scope` (`https://graph.microsoft.com/.default`), kept or new; an Outcome when there is none."""
        kept = self._tokens.get(scope)
        now = self._clock()
        if kept is not None and now < kept.ends_at - EARLY_SECONDS:
            return kept.text
        result = await asyncio.shield(self._call(scope))
        temporary = isinstance(result, Outcome) and result.word in (Word.RETRY, Word.WAIT)
        if temporary and kept is not None and self._tokens.get(scope) is kept and now < kept.ends_at:
            return kept.text
        return result

    def forget(self, scope: str, token: str) -> None:
        """Use `token` no more: the other side refused it. The next one is fetched anew."""
        kept = self._tokens.get(scope)
        if kept is not None and kept.text == token:
            del self._tokens[scope]

    async def close(self) -> None:
        """Give up the calls under way."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _call(self, scope: str) -> asyncio.Task[str | Outcome]:
        if scope not in self._calls:
            call = asyncio.create_task(self._fetch(scope))
            self._calls[scope] = call
            call.add_done_callback(lambda _: self._calls.pop(scope, None))
        return self._calls[scope]

    async def _fetch(self, scope: str) -> str | Outcome:
        loop = asyncio.get_running_loop()
        # Not the loop's own threads: name look-ups need those, and this one waits for a look-up.
        pool = ThreadPoolExecutor(1, thread_name_prefix="entra")
        try:
            async with self._building:
                asked_at = self._clock()
                answer = await loop.run_in_executor(pool, self._ask_msal, scope, loop)
        except _NoTokenError as none:
            return none.outcome
        finally:
            pool.shutdown(wait=False)
        if "access_token" not in answer:
            return refusal(200, answer, self._hidden())
        token = _Token(answer["access_token"], asked_at + float(answer.get("expires_in", 0)))
        self._tokens[scope] = token
        return token.text

    def _ask_msal(self, scope: str, loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
        """In the thread. msal's own cache is emptied first: what is kept is decided in one place, here."""
        if self._msal is None:
            import msal

            self._msal = msal.ConfidentialClientApplication(
                self._app.client_id,
                client_credential=_credential(self._app),
                authority=f"{self._app.authority.rstrip('/')}/{self._app.tenant}",
                instance_discovery=False,
                http_client=_Door(self._http, loop, self._hidden()),
            )
        self._msal.remove_tokens_for_client()
        answer: dict[str, Any] = self._msal.acquire_token_for_client(scopes=[scope])
        return answer

    def _hidden(self) -> str:
        return self._app.client_secret.reveal() if self._app.client_secret else ""


@dataclass(frozen=True, slots=True)
class _Token:
    """`ends_at` is in seconds of the clock. The repr hides the text."""

    text: str
    ends_at: float

    def __repr__(self) -> str:
        return f"_Token(ends_at={self.ends_at})"


class _NoTokenError(Exception):
    """Carries an outcome through msal, which would lose it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class _Response:
    """What msal reads from an HTTP client's answer."""

    status_code: int
    text: str
    headers: Mapping[str, str]


class _Door:
    """msal's HTTP client: it asks the event loop to do the request, and waits in msal's thread."""

    def __init__(self, http: HttpClient, loop: asyncio.AbstractEventLoop, hidden: str) -> None:
        self._http = http
        self._loop = loop
        self._hidden = hidden

    def get(self, url: str, params: Any = None, headers: Mapping[str, str] | None = None, **_: Any) -> _Response:
        return self._ask("GET", f"{url}?{urlencode(params)}" if params else url, headers or {}, b"")

    def post(self, url: str, params: Any = None, data: Any = None, headers: Any = None, **_: Any) -> _Response:
        form = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self._ask("POST", f"{url}?{urlencode(params)}" if params else url, form, urlencode(data or {}).encode())

    def close(self) -> None:
        """Nothing: the connections are not msal's."""

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> _Response:
        exchange = self._http.exchange(method, url, headers, body, repeatable=True)
        reply = asyncio.run_coroutine_threadsafe(exchange, self._loop).result()
        if isinstance(reply, Outcome):
            stage = Stage.LOGIN if reply.stage is Stage.REQUEST else reply.stage
            raise _NoTokenError(replace(reply, reply=f"login host: {reply.reply}", stage=stage))
        return self._checked(reply)

    def _checked(self, reply: Reply) -> _Response:
        """Only what msal can use goes on; it would log a body that is no JSON, or forget why Entra said no."""
        said = json_object(reply.body)
        if reply.status == 200 and not reply.whole:
            raise _NoTokenError(Outcome(Word.RETRY, "login host: its answer broke off", Stage.LOGIN, reply.status))
        if reply.status != 200 or said is None:
            wait = retry_after(reply.headers, time.time())
            raise _NoTokenError(refusal(reply.status, said or {}, self._hidden, wait))
        return _Response(reply.status, reply.body.decode("utf-8"), reply.headers)


def _credential(app: EntraApp) -> str | dict[str, str]:
    """As msal takes it. With the certificate itself at hand msal names it by its SHA-256 thumbprint."""
    if app.client_secret is not None:
        return app.client_secret.reveal()
    assert app.certificate is not None  # noqa: S101 - EntraApp.faults saw to it
    pem = app.certificate.reveal()
    return {"private_key": pem, "public_certificate": pem}


def _is_segment(text: str) -> bool:
    return bool(text) and all(c.isascii() and (c.isalnum() or c in ".-") for c in text) and text.strip(".") != ""


def _certificate_faults(certificate: Secret | None) -> Iterator[Fault]:
    if certificate is None:
        return
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    pem = certificate.reveal().encode()
    mend = "put the private key (without a passphrase) and its certificate into one PEM file"
    try:
        key = load_pem_private_key(pem, None)
        public = load_pem_x509_certificate(pem).public_key()
    except (ValueError, TypeError) as error:
        yield Fault("certificate", f"cannot be used: {str(error)[:100]}", mend)
        return
    if key.public_key() != public:
        yield Fault("certificate", "holds a key and a certificate that do not belong together", mend)
