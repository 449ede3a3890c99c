"""A server far away: everything passes through with a delay each way, and the turns of each connection are counted.

`far = Far(port, one_way=0.025)`; `far.port` is where to connect; `far.turns` counts how often a client spoke after it
was spoken to: the round trips that it waited for.
"""

from __future__ import annotations

import asyncio


class Far:
    """A proxy to 127.0.0.1:`port`. An async context manager. `one_way` is in seconds, each way."""

    def __init__(self, port: int, one_way: float = 0.0) -> None:
        self.turns = 0
        self.connections = 0
        self.port = 0
        self._to = port
        self._one_way = one_way
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Far:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        spoken_to = [True]
        for source, target, client in ((reader, back, True), (there, writer, False)):
            task = asyncio.create_task(self._pass_on(source, target, spoken_to, client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, spoken_to: list[bool], client: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(1 << 18):
                if client:
                    self.turns += spoken_to[0]
                spoken_to[0] = not client
                loop.call_later(self._one_way, target.write, data)
        except OSError:
            pass  # one side is gone: so is the other, soon
        loop.call_later(self._one_way, target.close)
