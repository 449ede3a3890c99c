"""What one HTTP exchange costs the relay: `HttpClient` to a bare TLS server in another process, ten at one time.

Run as `python -m bench.http_micro [--requests N] [--size OCTETS]`. Prints the best of five parts, in milliseconds of
this process's own processor time. The server reads what Content-Length says and answers 202.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import tempfile
import time
from pathlib import Path
from typing import cast

import uvloop

from tests.fakes.authority import Authority
from upstreams.http_client import HttpClient, Reply

AT_ONCE = 10
HEADERS = {"Content-Type": "text/plain", "Authorization": f"Bearer {'x' * 800}", "client-request-id": "x" * 36}
ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nrequest-id: 1234\r\n\r\n"


class Server(asyncio.Protocol):
    """Answers each request once it is whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._read = bytearray()

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n") + 4) > 3:
            length = int(self._read[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self._read) < end + length:
                return
            del self._read[: end + length]
            self._transport.write(ANSWER)


def serve(folder: str, told: multiprocessing.connection.Connection) -> None:
    async def listen() -> None:
        authority = Authority(Path(folder))
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, ssl=authority.server_context())
        told.send((server.sockets[0].getsockname()[1], str(authority.bundle)))
        await server.serve_forever()

    uvloop.run(listen())


async def ask(url: str, requests: int, size: int) -> None:
    client, body, left = HttpClient(60, AT_ONCE), b"x" * size, 0

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            reply = await client.exchange("POST", url, HEADERS, body)
            if not isinstance(reply, Reply) or reply.status != 202:
                raise SystemExit(f"no answer: {reply}")

    parts = []
    for _ in range(6):  # the first one connects
        left, start = requests // 5, time.process_time()
        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        parts.append((time.process_time() - start) * 5000 / requests)
    await client.close()
    print(f"{min(parts[1:]):.3f} ms of processor for a request of {size} octets, {AT_ONCE} at one time")


def main() -> None:
    parser = argparse.ArgumentParser(description="What one HTTP exchange costs.")
    parser.add_argument("--requests", type=int, default=5000, help="default: 5000")
    parser.add_argument("--size", type=int, default=6900, help="octets; default: 6900, a mail of 5 KB in base64")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder, contextlib.ExitStack() as stack:
        told, teller = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, teller), daemon=True)
        process.start()
        stack.callback(process.terminate)
        port, bundle = told.recv()
        os.environ["SSL_CERT_FILE"] = bundle
        uvloop.run(ask(f"https://localhost:{port}/v1.0/users/info@initech.nl/sendMail", asked.requests, asked.size))


if __name__ == "__main__":
    main()
