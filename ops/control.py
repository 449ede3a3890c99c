"""The control socket: how a command reaches the running relay. One line of JSON each way, one order a connection.

It is for root and the relay's own user only. Whoever reaches it can drop mail, so nobody else must.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
import struct
from asyncio import Task
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ops.orders import Answer, Hands, Order, OrderRefused, answer_text, order_text, read_answer, read_order
from ops.own_files import own_file
from routing.events import emit
from spool.contract import SpoolFull, SpoolUnavailable, Steps, unheard

_log = logging.getLogger("relay.control")
_LONGEST: Final = 1 << 20
_PATIENCE: Final = 10.0
"""Seconds that a client may take to say its order."""

_LOOK_EVERY: Final = 5.0
"""Seconds between two looks whether the socket is still there."""

_WORK: Final = 600.0
"""Seconds that a command waits for the answer; a long queue is dropped in far less."""


_THROUGH: Final = b"through "
"""Begins a line that tells how far an order is. Such a line is small enough to be sent whole or not at all."""


class NotRunning(Exception):
    """Nobody listens at the socket."""


def control_path(url: str, config: Path) -> Path:
    """Where the relay with this spool and this relay.yaml listens."""
    return own_file(url, config, ".control")


class Control:
    """The listening end. `start` raises OSError when the socket cannot be made. Who deletes it, as cleaners of folders
    do, would leave the relay without orders until a restart: every `look_every` seconds it is made anew then.
    """

    def __init__(self, path: Path, hands: Hands, look_every: float = _LOOK_EVERY) -> None:
        self._path = path
        self._hands = hands
        self._look_every = look_every
        self._listener: socket.socket | None = None
        self._file = (0, 0)
        self._accepting: Task[None] | None = None
        self._keeping: Task[None] | None = None
        self._answering: set[Task[None]] = set()

    def start(self) -> None:
        """Listen, in the place of a socket that an earlier relay left, but never in that of one that runs."""
        self._listen()
        self._keeping = asyncio.create_task(self._keep())

    def _listen(self) -> None:
        if _somebody_listens(self._path):
            raise OSError(errno.EADDRINUSE, "another relay with the same config listens there", str(self._path))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._path.unlink(missing_ok=True)
            listener.bind(str(self._path))
            self._path.chmod(0o600)  # nobody can connect before it listens
            there = self._path.stat()
            listener.listen(8)
        except BaseException:
            listener.close()
            raise
        self._listener, self._file = listener, (there.st_dev, there.st_ino)
        self._accepting = asyncio.create_task(self._accept(listener))

    async def stop(self) -> None:
        """Take no more orders; one that is being carried out breaks off between two mails."""
        await _end(self._keeping, self._accepting, *self._answering)
        if self._listener is None:
            return
        with suppress(OSError):
            if self._is_there():
                self._path.unlink()  # before it is closed: afterwards it may be another relay's
        self._listener.close()

    def _is_there(self) -> bool:
        """Whether the socket's file is there, and ours."""
        try:
            there = self._path.stat()
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == self._file

    async def _keep(self) -> None:
        told = False
        while True:
            await asyncio.sleep(self._look_every)
            if self._is_there():
                continue
            await _end(self._accepting)
            if self._listener is not None:
                self._listener.close()
            self._file = (0, 0)  # its number is free for another's
            try:
                self._listen()
            except OSError as error:
                if not told:
                    emit(_log, "control_lost", logging.ERROR, socket=str(self._path), error=error.strerror or error)
                told = True
            else:
                emit(_log, "control_again", logging.WARNING, socket=str(self._path), why="somebody deleted the socket")
                told = False

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:  # out of descriptors, or the client is gone already
                emit(_log, "control_refused", logging.WARNING, error=str(error))
                await asyncio.sleep(1)
                continue
            task = asyncio.create_task(self._serve(client))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _serve(self, client: socket.socket) -> None:
        with client:
            client.setblocking(False)
            answer = await self._answer(client)
            with suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(client, f"{answer}\n".encode())

    async def _answer(self, client: socket.socket) -> str:
        try:
            async with asyncio.timeout(_PATIENCE):
                text = await _line(client)
            user = _user_of(client)
            if user not in (0, os.geteuid()):
                emit(_log, "control_refused", logging.WARNING, user=user)
                return _error("only root and the relay's own user may give orders")
            order = read_order(text)
            return answer_text(await self._hands.carry_out(order, _teller(client) if order.progress else unheard))
        except (OrderRefused, SpoolFull, SpoolUnavailable) as error:
            return _error(str(error))
        except (TimeoutError, OSError):
            return _error("the order did not come")
        except Exception:
            _log.exception("an order failed by a bug of ours")
            return _error("the relay failed at it; its log says more")


def ask(path: Path, order: Order, patience: float = _WORK, told: Steps = unheard) -> Answer:
    """Give an order to the relay at `path` and wait up to `patience` seconds for its answer. Where the order wants to
    know, `told` hears how many mails it is through with.

    Raises NotRunning, OrderRefused, and OSError when it cannot be reached or does not answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
        client.settimeout(patience)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning from error
        except PermissionError as error:
            raise PermissionError(f"{path} is for root and the relay's own user: use sudo") from error
        client.sendall(f"{order_text(order)}\n".encode())
        with client.makefile("rb") as replies:
            while (reply := replies.readline(64 << 20)).startswith(_THROUGH):
                told(int(reply.removeprefix(_THROUGH)))
    if not reply.endswith(b"\n"):
        raise ConnectionError(
            "the relay went away before it answered; see `callpro-relay queue list` for what was done"
        )
    found: dict[str, Any] = json.loads(reply)
    if "error" in found:
        raise OrderRefused(found["error"])
    return read_answer(found)


async def _end(*tasks: Task[None] | None) -> None:
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # so many connect just now that we would have to wait
        except OSError:
            return False
        return True


def _teller(client: socket.socket) -> Steps:
    """Sends each count in a line of its own, before the answer. One without room is left out: the next is near."""

    def tell(done: int) -> None:
        with suppress(OSError):
            client.send(b"%s%d\n" % (_THROUGH, done), socket.MSG_DONTWAIT)

    return tell


async def _line(client: socket.socket) -> bytes:
    """Up to the end of the line, or of the connection."""
    text = b""
    while not text.endswith(b"\n") and len(text) < _LONGEST:
        part = await asyncio.get_running_loop().sock_recv(client, 65536)
        if not part:
            break
        text += part
    return text


def _user_of(client: socket.socket) -> int:
    """Who is at the other end, as the kernel knows it (unix(7), SO_PEERCRED)."""
    _, user, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(user)


def _error(text: str) -> str:
    return json.dumps({"error": text})
