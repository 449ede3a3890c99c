"""A process that puts, leases and settles as fast as it can until it is killed, and writes down what was promised.

`python -m tests.spool.crash_child SPOOL LEDGER`: the ledger gets `put ID` after each put returned, `try ID` before a
mail is handed to the make-believe upstream, and `done ID` when its settlement is on disk.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from spool.contract import Arrival, Settled, Settlement
from spool.sqlite import SqliteSpool


async def main(url: str, ledger: str) -> None:
    log = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(word: str, number: int) -> None:
        os.write(log, f"{word} {number}\n".encode())

    spool = await SqliteSpool.open(url, size_limit=1 << 30, memory=200_000)
    write("start", os.getpid())

    async def client(size: int) -> None:
        while True:
            number = spool.next_id()
            content = b"%d\r\n" % number + b"x" * size
            await spool.put(
                Arrival(number, "a@acme.nl", ("b@x.nl", "c@x.nl"), content, "acme.nl", time.time(), "127.0.0.1", "h")
            )
            write("put", number)

    async def deliver() -> None:
        while True:
            for mail in await spool.lease("acme.nl", 3, time.time()):
                write("try", mail.id)
                done = {recipient.address: Settled.DELIVERED for recipient in mail.recipients}
                number = mail.id
                spool.settle(Settlement(mail, done)).add_done_callback(lambda _, number=number: write("done", number))
            await asyncio.sleep(0.002)

    await asyncio.gather(deliver(), *(client(size) for size in (100, 3000, 20_000, 90_000)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
