"""The relay as a running process: wires the rooms, tells systemd, reloads on SIGHUP, drains on SIGTERM.

All that can fail is done before anything is swapped: on any error the old rules stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from config.fields import Settings
from config.relay_settings import Relay
from config.rules import Route, Rules
from delivery.clock import StepWatch
from delivery.holds import HeldWay
from delivery.plan import Plan, build_plan
from delivery.scheduler import Scheduler
from intake.listeners import open_listeners
from intake.server import Intake
from ops import notify
from ops.activation import inherited
from ops.buffer_view import tell_left
from ops.check import Checked, check
from ops.control import Control, control_path
from ops.descriptors import within_limit
from ops.expiry import Expiry, calendar
from ops.expiry_watch import watch_expiry
from ops.nodes import rules_hash
from ops.once import first
from ops.orders import Hands
from ops.own_files import buffer_file, own_file
from ops.reload import Reloader, alone, tell_problem
from ops.rules_watch import Look, look, watch
from ops.watchdog import Watchdog, seconds_allowed
from routing.events import emit
from spool.contract import Spool, SpoolUnavailable
from spool.opening import is_shared, open_spool
from upstreams.base import Host, Kinds
from upstreams.tls import require_trust

if TYPE_CHECKING:
    from ops.seat import Seat
    from ops.status.web import Site
    from ops.webhook_listener import WebhookListener

_log = logging.getLogger("relay")

DRAIN_SECONDS: Final = 20.0
"""How long mail under way may take to finish at a stop; the unit's TimeoutStopSec is longer."""
_PRUNE_EVERY: Final = 3600.0
_LOOK_AT_CLOCK_EVERY: Final = 5.0


@dataclass(slots=True)
class _Rooms:
    """What a running relay consists of."""

    relay: Relay
    host: Host
    spool: Spool
    scheduler: Scheduler
    plan: Plan
    webhooks: WebhookListener | None
    site: Site | None = None

    def match(self, sender: str) -> Route | None:
        return self.plan.table.match(sender)


class Service:
    """One relay, or with a `seat` one of its processes. `run` returns the exit code."""

    def __init__(self, config: Path, kinds: Kinds, seat: Seat | None = None) -> None:
        self._config = config
        self._seat = seat
        self._first = seat is None or seat.first
        self._kinds = kinds
        self._shapes: dict[str, type[Settings]] = {name: kind.settings for name, kind in kinds.items()}
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._files: Look = frozenset()

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT. 0 after a drain, 1 when the config is wrong.

        Raises SpoolUnusable when the spool cannot be opened, TrustUnusable when SSL_CERT_FILE is of no use, and OSError
        when an address cannot be listened on.
        """
        if self._seat is None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload.set)
        require_trust()
        self._files = look(self._config.parent)
        checked = self._seat.checked if self._seat else self._check()
        if checked.relay is None or checked.rules is None:
            return 1
        relay = checked.relay if self._seat else within_limit(checked.relay)
        own_name: str = "" if relay.hostname else await asyncio.to_thread(socket.getfqdn)
        host = Host(hostname=relay.hostname or own_name)
        plan = build_plan(checked.rules, self._kinds, host, None)
        password = relay.spool.password.reveal() if relay.spool.password else None
        spool = await open_spool(
            relay.spool.url,
            size_limit=relay.limits.spool_size,
            password=password,
            lease=relay.spool.lease,
            buffer=buffer_file(relay.spool.buffer, self._seat.number if self._seat else 1)
            if relay.spool.buffer
            else None,
            processes=relay.workers,
        )
        if self._first:
            tell_left(relay.spool, relay.workers)
        spool.tell_about(metadata.version("callpro-relay"), rules_hash(checked.rules))
        webhooks = self._webhooks(relay, spool, checked.rules)
        rooms = _Rooms(relay, host, spool, Scheduler(spool, plan, relay.delivery), plan, webhooks)
        try:
            await self._serve(rooms)
        finally:
            await spool.close()
        return 0

    async def _serve(self, rooms: _Rooms) -> None:
        self._take_signals()
        listeners = self._seat.listeners if self._seat else open_listeners(rooms.relay.listen, inherited(os.environ))
        intake = Intake(rooms.relay, rooms.spool, rooms.match, rooms.host.hostname, listeners=listeners)
        hands = Hands(rooms.spool, rooms.scheduler, lambda: rooms.plan.routes, time.time)
        reloader = self._reloader(rooms)
        hands.rehearse, hands.expiries = reloader.rehearse, partial(_expiries, rooms)
        rooms.site = await self._status(rooms, intake, hands)
        await rooms.scheduler.start()
        control = self._control(rooms, hands)
        try:
            await intake.start()
            if rooms.webhooks:
                await rooms.webhooks.start()
            status = _listening(intake, rooms)
            emit(_log, "started", listen=_addresses(intake), routes=len(rooms.plan.routes), spool=rooms.relay.spool.url)
            _spare_the_collector()
            notify.ready(status)
            if rooms.site:
                rooms.site.serving()
            chores = [asyncio.create_task(self._housekeeping(rooms)), asyncio.create_task(self._watch_clock(rooms))]
            more = (self._alerts(rooms), self._watchdog(rooms), self._doctor(rooms), self._watch_rules(rooms))
            chores += [task for task in more if task]
            chores += [asyncio.create_task(watch_expiry(hands.expiries, partial(first, rooms.spool)))]
            for chore in chores:
                chore.add_done_callback(tell_end)
            try:
                await self._until_stopped(rooms, intake, reloader)
            finally:
                for chore in chores:
                    chore.cancel()
                await asyncio.gather(*chores, return_exceptions=True)
        finally:
            notify.stopping()
            if rooms.site:
                rooms.site.draining()
            emit(_log, "stopping", seconds=DRAIN_SECONDS)
            deadline = time.monotonic() + DRAIN_SECONDS
            if rooms.webhooks:
                await rooms.webhooks.stop()
            if control:
                await control.stop()
            await intake.stop(DRAIN_SECONDS / 2)
            await rooms.scheduler.stop(max(1.0, deadline - time.monotonic()))
            if rooms.site:
                await rooms.site.stop()
            emit(_log, "stopped")

    async def _until_stopped(self, rooms: _Rooms, intake: Intake, reloader: Reloader) -> None:
        stop = asyncio.create_task(self._stop.wait())
        while not stop.done():
            asked = asyncio.create_task(self._reload.wait())
            await asyncio.wait((stop, asked), return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                self._reload.clear()
                notify.reloading()
                await (self._seat.reload(reloader) if self._seat else reloader.reload())
                if rooms.site:
                    rooms.site.facts.reload = reloader.last
                notify.ready(reloader.status(_listening(intake, rooms)))
            asked.cancel()

    async def _swap(self, rooms: _Rooms, plan: Plan, rules: Rules) -> None:
        rooms.plan = plan
        rooms.spool.tell_about(metadata.version("callpro-relay"), rules_hash(rules))
        if rooms.webhooks:
            rooms.webhooks.desk.replace(rules)
        await rooms.scheduler.replace(plan)

    def _reloader(self, rooms: _Rooms) -> Reloader:
        def read() -> Checked:
            return check(self._config, self._shapes)

        swap = partial(self._swap, rooms)
        agree = self._seat.agree if self._seat else alone
        return Reloader(read, lambda: rooms.plan, swap, self._kinds, rooms.host, rooms.relay, agree)

    def _watch_rules(self, rooms: _Rooms) -> asyncio.Task[None] | None:
        """A look at the files now and then, where ops want it and no parent does it."""
        if rooms.relay.watch is None or self._seat:
            return None
        return asyncio.create_task(watch(self._config.parent, self._files, rooms.relay.watch, self._reload.set))

    def _webhooks(self, relay: Relay, spool: Spool, rules: Rules) -> WebhookListener | None:
        """The listener for providers' events, where one is asked for; else its code is not even loaded."""
        if relay.webhooks is None or not self._first:
            return None
        from ops.webhook_listener import WebhookListener
        from ops.webhooks import WebhookDesk

        return WebhookListener(WebhookDesk(spool, self._kinds, rules), relay.webhooks.address)

    async def _status(self, rooms: _Rooms, intake: Intake, hands: Hands) -> Site | None:
        """The status page, where one is asked for; else its code is not even loaded. Mail goes on without it."""
        if rooms.relay.status is None or (self._seat and not self._seat.pages.shared):
            return None
        from ops.queue_options import view_of
        from ops.status.facts import Facts
        from ops.status.web import Site

        numbers = rooms.webhooks.desk.numbers if rooms.webhooks else None
        plan, view = lambda: rooms.plan, lambda: view_of(rooms.relay.spool)
        facts = Facts(rooms.relay, rooms.spool, rooms.scheduler, intake, plan, hands, view, numbers)
        site = Site(facts, rooms.relay.status.address, self._seat)
        try:
            await site.start()
        except OSError as error:
            emit(_log, "status_unavailable", logging.ERROR, error=str(error))
            return None
        return site

    def _control(self, rooms: _Rooms, hands: Hands) -> Control | None:
        """Where orders come in. A relay that nobody can give orders to still carries mail."""
        rooms.spool.on_hold(rooms.scheduler.recall)
        if not self._first:
            return None
        path = control_path(rooms.relay.spool.url, self._config)
        control = Control(path, hands)
        try:
            control.start()
        except OSError as error:
            why = "mail goes on; check --diff, expiry and queue holds cannot ask this relay"
            emit(_log, "control_unavailable", logging.ERROR, socket=str(path), error=error.strerror or error, why=why)
            return None
        return control

    def _alerts(self, rooms: _Rooms) -> asyncio.Task[None] | None:
        """Who is told of trouble, where ops say so; else its code is not even loaded."""
        if rooms.relay.alerts is None:
            return None
        from ops.alert_sending import Alerting
        from ops.alerts import ONCE

        def trouble() -> tuple[tuple[HeldWay, ...], Collection[str]]:
            return rooms.scheduler.held(), rooms.scheduler.unreachable()

        settings, plan, shared = rooms.relay.alerts, lambda: rooms.plan, is_shared(rooms.relay.spool.url)
        silent = () if self._first else ONCE
        alerting = Alerting(
            settings, rooms.spool, plan, trouble, rooms.host.hostname, shared=shared, others_tell=silent
        )
        if self._seat:
            self._seat.on_event = alerting.hear
        return asyncio.create_task(alerting.run())

    def _doctor(self, rooms: _Rooms) -> asyncio.Task[None] | None:
        """The daily look at every route, unless ops switched it off."""
        every = rooms.relay.doctor.every
        if not every or not self._first:
            return None
        from ops.doctor_watch import DoctorWatch, Memory, tell_log

        memory = Memory(own_file(rooms.relay.spool.url, self._config, ".doctor"))
        watch = DoctorWatch(self._config, memory, every, lambda: rooms.plan.routes, tell_log, Random())  # noqa: S311
        return asyncio.create_task(watch.run())

    def _check(self) -> Checked:
        checked = check(self._config, self._shapes)
        for problem in checked.problems:
            tell_problem(problem)
        return checked

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if self._seat:
            self._seat.obey(self._stop.set, self._reload.set)

    def _watchdog(self, rooms: _Rooms) -> asyncio.Task[None] | None:
        allowed = seconds_allowed(os.environ)
        if allowed is None:
            return None
        return asyncio.create_task(Watchdog(allowed, rooms.spool.probe, rooms.scheduler.stuck).run())

    async def _watch_clock(self, rooms: _Rooms) -> None:
        watch, all_waits = StepWatch(), False
        while True:
            await asyncio.sleep(_LOOK_AT_CLOCK_EVERY)
            if step := watch.look():
                rooms.scheduler.clock_set(step)
                all_waits = all_waits or step < 0
                name, tried = ("clock_set_forward", "mail that is due") if step > 0 else ("clock_set_back", "all mail")
                emit(_log, name, logging.WARNING, seconds=abs(step), why=f"{tried} is tried now")
            if all_waits:
                with contextlib.suppress(SpoolUnavailable):
                    await rooms.scheduler.try_all()
                    all_waits = False

    async def _housekeeping(self, rooms: _Rooms) -> None:
        while True:
            try:
                forgotten = await rooms.spool.prune(time.time() - rooms.relay.spool.history)
                if forgotten:
                    emit(_log, "history_pruned", mails=forgotten)
            except SpoolUnavailable as error:
                emit(_log, "history_not_pruned", logging.WARNING, why=str(error), again_in=_PRUNE_EVERY)
            except Exception:
                _log.exception("history could not be pruned by a bug of ours; it is tried again in an hour")
            await asyncio.sleep(_PRUNE_EVERY)


def _spare_the_collector() -> None:
    """What is there at the start stays: the garbage collector need not walk it again and again. A mail makes some 300
    objects that are gone with it, so Python's 700 would start a walk every two or three mails.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 20)


def tell_end(chore: asyncio.Task[None]) -> None:
    """What a chore that ends by itself died of: nobody waits for it, and it is not begun again."""
    if not chore.cancelled() and (error := chore.exception()):
        _log.error("a chore of the relay ended by a bug of ours, until a restart", exc_info=error)


def _expiries(rooms: _Rooms) -> tuple[Expiry, ...]:
    return calendar(rooms.relay, rooms.plan.routes.values(), rooms.plan.rules, rooms.host.trust.seen)


def _addresses(intake: Intake) -> list[str]:
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in intake.addresses]


def _listening(intake: Intake, rooms: _Rooms) -> str:
    return f"listening on {', '.join(_addresses(intake))}; {len(rooms.plan.routes)} routes"
