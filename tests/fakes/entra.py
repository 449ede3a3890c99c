"""A look-alike of Microsoft Entra's token endpoint for one app: it checks every field, and signs nothing it should not.

It refuses as Entra does (AADSTS numbers with their HTTP statuses) and knows which tokens it gave for which scope, so
that the other look-alikes can ask. msal takes no plain http, so it always has TLS.

    async with FakeEntra(authority.server_context(), secret="s3cret") as entra:
        entra.authority, entra.tenant, entra.client_id      # for the settings
        entra.script.append(Response(503))                   # instead of the next answer to a token request
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections import deque
from dataclasses import dataclass
from urllib.parse import parse_qsl

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from tests.fakes.http_server import Fault, HttpServer, Request, Response

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ERRORS = {
    7000215: (401, "invalid_client", "Invalid client secret provided."),
    7000222: (401, "invalid_client", "The provided client secret keys for app are expired."),
    700016: (400, "unauthorized_client", "Application was not found in the directory."),
    90002: (400, "invalid_request", "Tenant not found."),
    900023: (400, "invalid_request", "Specified tenant identifier is neither a valid DNS name nor a valid domain."),
    65001: (400, "invalid_grant", "The user or administrator has not consented to use the application."),
    700027: (401, "invalid_client", "The certificate with identifier used to sign the client assertion is not known."),
    70011: (400, "invalid_scope", "The provided value for the input parameter 'scope' is not valid."),
    900144: (400, "invalid_request", "The request body must contain the expected parameters."),
}


def aadsts(number: int, extra: str = "") -> Response:
    """Entra's answer for an AADSTS number of `ERRORS`."""
    status, error, text = ERRORS[number]
    said = {
        "error": error,
        "error_description": f"AADSTS{number}: {text}{extra} Trace ID: 0f0e\r\nCorrelation ID: 1a1b",
        "error_codes": [number],
        "correlation_id": "1a1b",
    }
    return _json(status, said)


@dataclass(frozen=True, slots=True)
class Given:
    """A token that was given out."""

    token: str
    scope: str


class FakeEntra:
    """One tenant with one app. The app has a `secret`, or the `certificate` (PEM) that was uploaded for it;
    `roles` are the permissions in its tokens.

    `token_calls` counts token requests, `discoveries` the others; `given` lists the tokens; `revoked` may be added to.
    `before_answer` is awaited before each token answer: a cleared Event holds them.
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        *,
        secret: str | None = None,
        certificate: bytes | None = None,
        expires_in: int = 3599,
        roles: tuple[str, ...] = ("Mail.Send",),
    ) -> None:
        self.tenant = "aaaabbbb-0000-cccc-1111-dddd2222eeee"
        self.client_id = "00001111-aaaa-2222-bbbb-3333cccc4444"
        self.expires_in = expires_in
        self.roles = roles
        self.script: deque[Response | Fault] = deque()
        self.token_calls = 0
        self.discoveries = 0
        self.given: list[Given] = []
        self.revoked: set[str] = set()
        self.before_answer = asyncio.Event()
        self.before_answer.set()
        self.server = HttpServer(self._answer, tls)
        self._secret = secret
        self._certificate = x509.load_pem_x509_certificate(certificate) if certificate else None

    async def __aenter__(self) -> FakeEntra:
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.server.__aexit__(*error)

    @property
    def authority(self) -> str:
        return self.server.url

    def knows(self, token: str, scope: str) -> bool:
        """True for a token that was given for `scope` and not revoked."""
        return Given(token, scope) in self.given and token not in self.revoked

    async def _answer(self, request: Request) -> Response | Fault:
        if request.method == "GET" and request.target.endswith("/v2.0/.well-known/openid-configuration"):
            self.discoveries += 1
            return self._configuration(request)
        if request.method != "POST" or not request.target.endswith("/oauth2/v2.0/token"):
            return Response(404)
        self.token_calls += 1
        await self.before_answer.wait()
        if self.script:
            return self.script.popleft()
        return self._token(request)

    def _configuration(self, request: Request) -> Response:
        tenant = request.target.split("/")[1]
        if tenant != self.tenant:
            return aadsts(90002)
        base = f"{self.authority}/{tenant}"
        return _json(
            200,
            {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            },
        )

    def _token(self, request: Request) -> Response:
        if request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return aadsts(900144)
        form = dict(parse_qsl(request.body.decode("ascii"), strict_parsing=True))
        wrong = self._wrong(request.target.split("/")[1], form)
        if wrong:
            return aadsts(wrong)
        head = {"typ": "JWT", "nonce": secrets.token_urlsafe(32), "alg": "RS256", "x5t": secrets.token_urlsafe(20)}
        claims = {"aud": form["scope"], "tid": self.tenant, "appid": self.client_id, "roles": self.roles}
        token = f"{_part(head)}.{_part(claims)}.{secrets.token_urlsafe(256)}"
        self.given.append(Given(token, form["scope"]))
        said = {"token_type": "Bearer", "expires_in": self.expires_in, "ext_expires_in": self.expires_in}
        return _json(200, {**said, "access_token": token})

    def _wrong(self, tenant: str, form: dict[str, str]) -> int:
        """The AADSTS number of what is wrong with the request; 0 when it is right."""
        if tenant != self.tenant:
            return 90002
        if form.get("grant_type") != "client_credentials":
            return 900144
        if form.get("client_id") != self.client_id:
            return 700016
        scope = form.get("scope", "")
        if not scope.endswith("/.default") or " " in scope:
            return 70011
        if self._secret is not None:
            return 0 if form.get("client_secret") == self._secret else 7000215
        return 0 if self._signed(form) else 700027

    def _signed(self, form: dict[str, str]) -> bool:
        """Whether the client assertion (RFC 7523) is signed by the uploaded certificate and meant for us."""
        if "client_secret" in form or form.get("client_assertion_type") != ASSERTION_TYPE or not self._certificate:
            return False
        thumbprint = base64.urlsafe_b64encode(self._certificate.fingerprint(SHA256())).decode().rstrip("=")
        assertion = form.get("client_assertion", "")
        try:
            said = jwt.get_unverified_header(assertion)
            claims = jwt.decode(
                assertion,
                self._certificate.public_key(),  # type: ignore[arg-type]
                algorithms=["PS256"],
                audience=f"{self.authority}/{self.tenant}/oauth2/v2.0/token",
                options={"require": ["exp", "iss", "sub", "aud", "jti"]},
            )
        except jwt.PyJWTError:
            return False
        return said.get("x5t#S256", "").rstrip("=") == thumbprint and claims["iss"] == claims["sub"] == self.client_id


def _part(claims: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


def _json(status: int, said: dict[str, object]) -> Response:
    return Response(status, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(said).encode())
