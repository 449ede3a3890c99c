"""Alerts on their way: by mail through a route that works, by webhook, by command.

Must never hold up mail or the log, nor raise: what cannot be told by one way is told by the others and in the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from email.utils import formatdate
from typing import Any, Final

from config.relay_settings import Alerts
from delivery.holds import HeldWay
from delivery.plan import Plan
from ops.alerts import Alert, Desk, Ear, shared_mark
from ops.once import first
from routing.events import emit
from routing.outcome import Outcome
from spool.contract import Arrival, Spool, SpoolFull, SpoolUnavailable, id_text
from upstreams.http_client import HttpClient

_log = logging.getLogger("relay.alerts")
_PATIENCE: Final = 30.0
_LOOK_EVERY: Final = 5.0
_WAITING: Final = 200
"""Most events that may wait to be looked at; beyond it they are in the log alone."""

Trouble = Callable[[], tuple[tuple[HeldWay, ...], Collection[str]]]
"""The ways on hold, and the upstreams that are unreachable."""


class Alerting:
    """Hears the log from `start` on and tells people. `plan` gives the rules in force, `trouble` what does not work;
    `shared`: other relays on the spool find out the same. Nothing is told of the events `others_tell`.
    """

    def __init__(
        self,
        settings: Alerts,
        spool: Spool,
        plan: Callable[[], Plan],
        trouble: Trouble,
        hostname: str,
        clock: Callable[[], float] = time.time,
        *,
        shared: bool = False,
        others_tell: Collection[str] = (),
    ) -> None:
        self._others_tell = others_tell
        self._settings = settings
        self._spool = spool
        self._plan = plan
        self._trouble = trouble
        self._hostname = hostname
        self._clock = clock
        self._shared = shared
        self._desk = Desk(settings)
        self._heard: asyncio.Queue[tuple[str, Mapping[str, Any]]] = asyncio.Queue(_WAITING)
        self._loop = asyncio.get_running_loop()
        self._ear = Ear(self.hear)
        self._http = HttpClient(_PATIENCE, 1)

    async def run(self) -> None:
        """Until it is cancelled."""
        root = logging.getLogger()
        root.addHandler(self._ear)
        try:
            while True:
                await self._next()
        finally:
            root.removeHandler(self._ear)
            await self._http.close()

    async def _next(self) -> None:
        try:
            event, fields = await asyncio.wait_for(self._heard.get(), _LOOK_EVERY)
            told = self._desk.hear(event, fields, self._clock())
            alerts = [told] if told else []
        except TimeoutError:
            alerts = self._desk.due(self._clock())
        for alert in alerts:
            if await self._ours(alert):
                await self.send(alert)

    async def _ours(self, alert: Alert) -> bool:
        """Whether no other relay on the spool tells it. In doubt we do: twice is better than never."""
        same = shared_mark(alert) if self._shared else None
        if same is None:
            return True
        mark, seconds = same
        try:
            async with asyncio.timeout(_PATIENCE):
                ours = await first(self._spool, mark, self._clock() + seconds)
        except (SpoolFull, SpoolUnavailable, TimeoutError):
            return True
        if not ours:
            emit(_log, "alert_told_elsewhere", alert=alert.text)
        return ours

    def hear(self, event: str, fields: Mapping[str, Any]) -> None:
        """An event of the log, or one of another process. From any thread."""
        if event in self._others_tell:
            return
        with suppress(RuntimeError):  # the loop is closed: we are gone
            self._loop.call_soon_threadsafe(self._keep, event, dict(fields))

    def _keep(self, event: str, fields: Mapping[str, Any]) -> None:
        with suppress(asyncio.QueueFull):
            self._heard.put_nowait((event, fields))

    async def send(self, alert: Alert) -> None:
        """By every way that ops gave."""
        ways = {"mail": self._by_mail, "webhook": self._by_webhook, "command": self._by_command}
        wanted = [name for name in ways if getattr(self._settings, name)]
        results = await asyncio.gather(*[ways[name](alert) for name in wanted], return_exceptions=True)
        for name, result in zip(wanted, results, strict=True):
            problem = result if isinstance(result, str) else f"{type(result).__name__}: {result}" if result else None
            if problem is None:
                emit(_log, "alert_sent", by=name, alert=alert.text)
            else:
                emit(_log, "alert_failed", logging.WARNING, by=name, alert=alert.text, why=problem)

    async def _by_mail(self, alert: Alert) -> str | None:
        """Into the spool, under the first sender whose route works and is not what the alert is about."""
        mail = self._settings.mail
        assert mail is not None  # noqa: S101 - `send` looked
        chosen = next(((sender, route) for sender in mail.from_ if (route := self._route(sender, alert))), None)
        if chosen is None:
            return "no route of its senders works just now"
        sender, route = chosen
        number = self._spool.next_id()
        content = letter(alert, sender, mail.to, id_text(number), self._hostname)
        await self._spool.put(Arrival(number, sender, mail.to, content, route, self._clock(), "relay", self._hostname))
        return None

    def _route(self, sender: str, alert: Alert) -> str | None:
        plan = self._plan()
        route = plan.table.match(sender)
        if route is None or self._spool.held.route(route.name):
            return None
        held, away = self._trouble()
        broken = {way.upstream for way in held if way.route == route.name} | {*away}
        if alert.event in ("held", "unreachable", "doctor_problem", "quota_near"):
            broken |= {str(alert.fields.get("upstream"))}
            if alert.event != "quota_near" and alert.fields.get("route") == route.name:
                return None
        return route.name if set(route.settings.via) - broken else None

    async def _by_webhook(self, alert: Alert) -> str | None:
        assert self._settings.webhook is not None  # noqa: S101 - `send` looked
        headers = {"Content-Type": "application/json"}
        url = self._settings.webhook.reveal()
        reply = await self._http.exchange("POST", url, headers, as_json(alert, self._hostname), repeatable=True)
        if isinstance(reply, Outcome):
            return reply.reply
        return None if reply.status // 100 == 2 else f"it answered {reply.status}"

    async def _by_command(self, alert: Alert) -> str | None:
        process = await asyncio.create_subprocess_exec(
            *self._settings.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_PATIENCE):
                _, complaint = await process.communicate(as_json(alert, self._hostname))
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        said = " ".join(complaint.decode("utf-8", "replace").split())[:200]
        return None if process.returncode == 0 else f"it ended with {process.returncode}: {said}"


def as_json(alert: Alert, hostname: str) -> bytes:
    """`text` is what chat services show; the rest is for programs."""
    text = f"{hostname}: {alert.text}{_left_out(alert)}"
    said = {"text": text, "event": alert.event, "relay": hostname, "at": alert.at, "fields": dict(alert.fields)}
    return json.dumps(said, ensure_ascii=False, default=str).encode("utf-8", "replace")


def letter(alert: Alert, sender: str, to: tuple[str, ...], number: str, hostname: str) -> bytes:
    """The mail. What others said is in its text only, and never in the header."""
    words = alert.event.replace("_", " ").replace(".", " ")
    lines = [alert.text + _left_out(alert), ""]
    lines += [f"{name}: {' '.join(str(value).split())}" for name, value in alert.fields.items()]
    lines += [
        "",
        f"callpro-relay on {hostname}. A trouble is told once while it lasts, and again after `alerts.repeat`.",
    ]
    head = (
        f"From: callpro-relay <{sender}>",
        f"To: {', '.join(to)}",
        f"Subject: callpro-relay {hostname}: {words}",
        f"Date: {formatdate(alert.at)}",
        f"Message-ID: <{number}@{hostname}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: base64",
    )
    body = base64_lines("\r\n".join(lines) + "\r\n")
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode("ascii", "replace")


def base64_lines(text: str) -> str:
    """Whatever an upstream or a client said, in lines that no server minds."""
    from base64 import encodebytes

    return encodebytes(text.encode("utf-8", "replace")).decode("ascii").replace("\n", "\r\n")


def _left_out(alert: Alert) -> str:
    return f" (and {alert.left_out} more before, which the cap left to the log)" if alert.left_out else ""
