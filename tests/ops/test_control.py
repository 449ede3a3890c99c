"""The control socket: what is no order, who hangs up, what is left of an earlier relay."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ops.control import Control, NotRunning, ask, control_path
from ops.orders import Action, Hands, Order, OrderRefused, subjects
from spool.holding import Scope
from spool.sqlite import SqliteSpool
from spool.view import Filter
from tests.waiting import until


def serving(folder: Path, test: Callable[[Path], Awaitable[None]]) -> None:
    """A control socket on a spool of its own, without delivery."""

    async def run() -> None:
        spool = await SqliteSpool.open(str(folder / "s.db"), size_limit=1 << 20)
        path = control_path(str(folder / "s.db"), folder / "relay.yaml")
        control = Control(path, Hands(spool, None, lambda: ("acme.nl",), time.time), look_every=0.05)
        control.start()
        try:
            await test(path)
        finally:
            await control.stop()
            await spool.close()
        assert not path.exists(), "left"

    asyncio.run(run())


def say(path: Path, octets: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(octets)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


@pytest.mark.parametrize(
    "octets",
    [b"", b"\n", b"no json\n", b"[]\n", b'{"action": "explode", "which": {}, "who": "", "reason": ""}\n', b"\xff\xfe\n",
     b'{"action": "drop"}\n', b'{"action": "drop", "which": {"ids": ["x"]}, "who": "", "reason": ""}\n'],
)  # fmt: skip
def test_what_is_no_order_is_refused_and_the_next_one_is_served(tmp_path, octets):
    async def test(path):
        assert "error" in json.loads(await asyncio.to_thread(say, path, octets))
        assert (await asyncio.to_thread(ask, path, Order(Action.HOLDS))).holds == ()

    serving(tmp_path, test)


def test_an_order_that_says_nothing_of_which_mail_is_refused(tmp_path):
    async def test(path):
        for action in (Action.DROP, Action.RETRY, Action.HOLD, Action.RELEASE):
            with pytest.raises(OrderRefused, match="which mail"):
                await asyncio.to_thread(ask, path, Order(action))

    serving(tmp_path, test)


def test_a_client_that_says_nothing_does_not_hold_up_the_others_nor_the_stop(tmp_path):
    async def test(path):
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(str(path))
        answer = await asyncio.to_thread(ask, path, Order(Action.HOLD, Filter(route="acme.nl"), "jan", "why"))
        assert (answer.done, answer.left) == (1, 0)
        answer = await asyncio.to_thread(ask, path, Order(Action.HOLDS))
        assert [(hold.subject, hold.who, hold.reason) for hold in answer.holds] == [("acme.nl", "jan", "why")]
        clients.append(silent)

    clients: list[socket.socket] = []
    serving(tmp_path, test)
    clients[0].close()


def test_a_socket_that_an_earlier_relay_left_is_replaced(tmp_path):
    path = control_path(str(tmp_path / "s.db"), tmp_path / "relay.yaml")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(NotRunning):
        ask(path, Order(Action.HOLDS))

    async def test(path):
        await asyncio.to_thread(ask, path, Order(Action.HOLDS))

    serving(tmp_path, test)
    with pytest.raises(NotRunning):
        ask(path, Order(Action.HOLDS))


def test_a_socket_that_somebody_deletes_is_made_anew(tmp_path, caplog):
    async def test(path):
        for _ in range(2):
            path.unlink()
            await until(path.exists, "the socket")
            assert (await asyncio.to_thread(ask, path, Order(Action.HOLDS))).holds == ()
            assert path.stat().st_mode & 0o777 == 0o600
        assert [record.message for record in caplog.records] == ["control_again"] * 2

    serving(tmp_path, test)


def test_what_another_put_in_the_place_of_the_socket_is_left_alone(tmp_path, caplog):
    """One that listens is another relay's: told once, not taken from it, and not deleted at the stop."""
    listening = socket.socket(socket.AF_UNIX)

    async def test(path):
        listening.bind(str(tmp_path / "other"))
        listening.listen()
        (tmp_path / "other").replace(path)
        await until(lambda: caplog.records, "a word about it")
        await asyncio.sleep(0.2)
        assert [record.message for record in caplog.records] == ["control_lost"]

    with pytest.raises(AssertionError, match="left"):
        serving(tmp_path, test)
    listening.close()


def test_the_socket_of_a_relay_that_runs_is_never_taken_from_it(tmp_path):
    async def test(path):
        other = Control(path, Hands(None, None, lambda: (), time.time))
        with pytest.raises(OSError, match="another relay with the same config"):
            other.start()
        await other.stop()
        await asyncio.to_thread(ask, path, Order(Action.HOLDS))

    serving(tmp_path, test)


@pytest.mark.parametrize(
    "which",
    [
        Filter(route="a.nl", sender="@b.nl"),
        Filter(route="a.nl", ids=(1,)),
        Filter(recipient="a@b.nl", route="a.nl"),
        Filter(older_than=1.0),
        Filter(sender="acme.nl"),
    ],
)
def test_a_hold_has_one_kind_of_subject(which):
    with pytest.raises(OrderRefused):
        subjects(which)


def test_the_subjects_of_a_hold():
    assert subjects(Filter(sender="@ACME.nl")) == ((Scope.SENDER, "@acme.nl"),)
    assert len(subjects(Filter(ids=(1, 2)))) == 2
