"""The pages that people see and the orders that they give there: who may, in which language, and what comes of it.

Orders need a session and a form of that session, and are carried out by the same hands as those of the command line.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, get_args
from urllib.parse import quote, urlencode, urlsplit

import h11

from ops.http_listener import BodyTooLarge, Request, Response
from ops.orders import Action, OrderRefused
from ops.status import pages, snapshot
from ops.status.charts import Period
from ops.status.forms import NotUnderstood, OrderForm, fields_of, mail_id, order_form, search
from ops.status.guards import own_form
from ops.status.pages import Reader
from ops.status.sessions import Session, Sessions, TooManyTries, cookie, right_form, set_cookie
from ops.status.words import language_of, say_in
from routing.events import emit
from spool.contract import SpoolFull, SpoolUnavailable, SpoolUnusable
from spool.opening import is_shared
from spool.view import Filter, SpoolView

if TYPE_CHECKING:
    from ops.status.web import Site

_log = logging.getLogger("status")

_HTML: Final = ("Content-Type", "text/html; charset=utf-8")
_ASSETS: Final = {
    "/style.css": "text/css; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}
_LANGUAGE: Final = "callpro_relay_language"
Make = Callable[[SpoolView], bytes | None]


class Desk:
    """One for a site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        status = site.facts.relay.status
        self._sessions = Sessions(status.token if status else None, site.facts.clock)
        self._shown: dict[str, Callable[[Reader, dict[str, str]], Awaitable[Response]]] = {
            "/": self._overview,
            "/volumes": self._volumes,
            "/mails": self._mails,
            "/rules": self._rules,
            "/orders": self._orders,
            "/calendar": self._calendar,
            "/nodes": self._nodes,
            "/login": self._login_page,
        }

    async def answer(self, request: Request) -> Response:
        parts = urlsplit(request.target)
        if parts.path in _ASSETS:
            body = pages.asset(parts.path[1:])
            return Response(200, body, (("Content-Type", _ASSETS[parts.path]),))
        reader = self._reader(request, parts.path)
        try:
            if request.method == "POST":
                return await self._taken(request, reader)
            if request.method not in ("GET", "HEAD"):
                return Response(405, headers=(("Allow", "GET, HEAD, POST"),))
            fields = fields_of(parts.query)
            if fields.get("lang") in ("en", "nl"):
                return _language_chosen(parts.path, fields)
            return await self._show(reader, fields)
        except NotUnderstood:
            return self._message(reader, 400, "There is no such page.")
        except BodyTooLarge:
            return Response(413)
        except SpoolUnusable as error:
            return self._message(reader, 503, "The spool cannot be read just now", await self._why(reader, error))
        except h11.RemoteProtocolError:
            raise
        except Exception:
            _log.exception("the page %s failed by a bug of ours", reader.path)
            return self._message(reader, 500, "This page failed by a bug of ours; the log says more.")

    def _reader(self, request: Request, path: str) -> Reader:
        cookies = request.headers.get("cookie", "")
        language = language_of(request.headers.get("accept-language", ""), cookie(cookies, _LANGUAGE))
        session = self._sessions.of(cookies)
        told = ""
        if session is not None and request.method == "GET":
            told, session.told = session.told, ""
        shared = is_shared(self._site.facts.relay.spool.url)
        return Reader(language, path, session, self._sessions.possible, told, shared)

    async def _why(self, reader: Reader, error: SpoolUnusable) -> str:
        """What is wrong, and what becomes of new mail meanwhile."""
        buffered, now = await self._site.buffered(), self._site.facts.clock()
        here = pages.buffer_text(buffered, now, say_in(reader.language))
        return f"{error}. {here}" if here else str(error)

    # ---- looking -----------------------------------------------------------------------------------------------

    async def _show(self, reader: Reader, fields: dict[str, str]) -> Response:
        if reader.path.startswith("/mail/"):
            return await self._mail(reader)
        shown = self._shown.get(reader.path)
        return await shown(reader, fields) if shown else self._message(reader, 404, "There is no such page.")

    async def _snapshot(self) -> snapshot.Snapshot:
        await self._site.count()
        taken = snapshot.take(self._site.facts, *await self._site.look())
        return replace(taken, buffered=await self._site.buffered())

    async def _made(self, make: Make) -> Response:
        body = await self._site.off_the_loop(make)
        return Response(200, body or b"", (_HTML,))

    async def _overview(self, reader: Reader, _fields: dict[str, str]) -> Response:
        taken = await self._snapshot()
        return await self._made(lambda view: pages.overview(view, taken, reader))

    async def _volumes(self, reader: Reader, fields: dict[str, str]) -> Response:
        period: Period = next((one for one in get_args(Period) if one == fields.get("period")), "day")
        taken, route = await self._snapshot(), fields.get("route", "")
        return await self._made(lambda view: pages.volumes(view, taken, reader, period, route))

    async def _mails(self, reader: Reader, fields: dict[str, str]) -> Response:
        number = mail_id(fields.get("q", ""))
        if number is not None:
            return _to(f"/mail/{quote(fields['q'].strip().upper())}")
        which, say = search(fields), say_in(reader.language)
        if which is None:
            return _to("/")
        taken = await self._snapshot()
        title = say("Waiting mail")
        if which.recipient is not None:
            title = say("Mail to {what}", what=which.recipient)
        elif which.sender is not None:
            title = say("Mail from {what}", what=which.sender)
        elif which.route is not None:
            title = say("Waiting mail of route {what}", what=which.route)
        more = f"/mails?{urlencode({'route': which.route})}&" if which.route else "/mails?"
        after = mail_id(fields.get("after", "")) or 0
        wanted = pages.Wanted(which, title, which.settled is None, after, more)
        return await self._made(lambda view: pages.mails(view, taken, reader, wanted))

    async def _mail(self, reader: Reader) -> Response:
        number = mail_id(reader.path.removeprefix("/mail/"))
        taken = await self._snapshot()
        body = None
        if number is not None:
            body = await self._site.off_the_loop(lambda view: pages.mail(view, taken, reader, number))
        if body is None:
            return self._message(reader, 404, "There is no such mail, or its history is over.")
        return Response(200, body, (_HTML,))

    async def _rules(self, reader: Reader, _fields: dict[str, str]) -> Response:
        taken = await self._snapshot()
        return await self._made(lambda view: pages.rules(view, taken, reader))

    async def _calendar(self, reader: Reader, _fields: dict[str, str]) -> Response:
        taken = await self._snapshot()
        return await self._made(lambda view: pages.calendar(view, taken, reader))

    async def _nodes(self, reader: Reader, _fields: dict[str, str]) -> Response:
        if not reader.shared:
            return self._message(reader, 200, "This relay has its spool to itself.")
        from spool.postgres_node import this_process

        own, taken = this_process(0.0).name, await self._snapshot()
        return await self._made(lambda view: pages.nodes(view, taken, reader, own))

    async def _orders(self, reader: Reader, _fields: dict[str, str]) -> Response:
        taken = await self._snapshot()
        return await self._made(lambda view: pages.orders(view, taken, reader))

    async def _login_page(self, reader: Reader, _fields: dict[str, str]) -> Response:
        return self._page(reader, 200, "login", wrong="")

    def _message(self, reader: Reader, status: int, text: str, more: str = "") -> Response:
        return self._page(reader, status, "message", text=say_in(reader.language)(text), more=more)

    def _page(self, reader: Reader, status: int, name: str, **values: object) -> Response:
        return Response(status, pages.render(name, reader, self._site.facts.clock(), **values), (_HTML,))

    # ---- acting ------------------------------------------------------------------------------------------------

    async def _taken(self, request: Request, reader: Reader) -> Response:
        if not own_form(request.headers):
            emit(_log, "status_refused", logging.WARNING, status=403, why="a form of another site")
            return self._message(reader, 403, _FOREIGN)
        fields = fields_of(await request.body())
        if reader.path == "/login":
            return self._enter(request, reader, fields)
        session = reader.session
        if session is None or not right_form(session, fields.get("csrf", "")):
            return self._message(reader, 403, _FOREIGN)
        if reader.path == "/logout":
            self._sessions.leave(session)
            return _to("/", ("Set-Cookie", set_cookie("")))
        if reader.path != "/order":
            return self._message(reader, 404, "There is no such page.")
        who = f"{session.name or 'somebody'} (status page, {request.peer})"
        return await self._order(reader, session, order_form(fields, who))

    def _enter(self, request: Request, reader: Reader, fields: dict[str, str]) -> Response:
        try:
            session = self._sessions.enter(fields.get("token", ""), fields.get("name", ""))
        except TooManyTries:
            return self._page(reader, 429, "login", wrong="Too many tries; wait a minute.")
        if session is None:
            emit(_log, "status_login_refused", logging.WARNING, peer=request.peer)
            return self._page(reader, 403, "login", wrong="That is not the token.")
        emit(_log, "status_login", peer=request.peer, who=session.name or None)
        return _to("/", ("Set-Cookie", set_cookie(session.key)))

    async def _order(self, reader: Reader, session: Session, form: OrderForm) -> Response:
        if form.order.action is Action.DROP and not form.sure:
            return await self._ask_whether(reader, form)
        say = say_in(reader.language)
        try:
            answer = await self._site.facts.hands.carry_out(form.order)
            self._site.forget()
        except (OrderRefused, SpoolFull, SpoolUnavailable) as error:
            return self._message(reader, 409, "Not all is well", str(error))
        if answer.done:
            session.told = say("Done: {done}. Left alone: {left}.", done=answer.done, left=answer.left)
        elif form.order.action is Action.RELEASE:
            session.told = say("Nothing was on hold there.")
        else:
            session.told = say("Nothing was done: {left} left alone.", left=answer.left)
        return _to(form.back)

    async def _ask_whether(self, reader: Reader, form: OrderForm) -> Response:
        """How many it would be, before it is done."""
        which, now = form.order.which, self._site.facts.clock()

        def make(view: SpoolView) -> bytes:
            count = view.count(which)
            return pages.render("confirm", reader, now, form=form, count=count, subject=_fields_of(which))

        return await self._made(make)


_FOREIGN: Final = "The form is from another session; go back, renew the page and try again."


def _fields_of(which: Filter) -> list[tuple[str, str]]:
    """The hidden fields that say again which mail it is."""
    from spool.contract import id_text

    if which.ids:
        return [("mail", id_text(which.ids[0]))]
    return [("route", which.route)] if which.route is not None else [("sender", which.sender or "")]


def _to(where: str, *headers: tuple[str, str]) -> Response:
    return Response(303, headers=(("Location", where), *headers))


def _language_chosen(path: str, fields: dict[str, str]) -> Response:
    """Keep the choice, and show the same page again. The path is one of ours: it cannot lead to another site."""
    rest = {name: value for name, value in fields.items() if name != "lang"}
    where = "/" + quote(path.lstrip("/")) + (f"?{urlencode(rest)}" if rest else "")
    kept = f"{_LANGUAGE}={fields['lang']}; Path=/; SameSite=Lax; Max-Age=31536000"
    return _to(where, ("Set-Cookie", kept))
