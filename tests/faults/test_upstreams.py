"""Between the real relay process and the look-alike of every kind: each fault at each step, all of them at once. The
outcome is the right word, the mail arrives afterwards, and nothing is left behind: no socket, no memory, no secret.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

import httpx
import pytest

from routing.outcome import Word
from spool.contract import id_number, id_text
from spool.sqlite_view import SqliteView
from spool.view import Filter
from tests.fakes.relay_process import RelayProcess
from tests.faults.proxy import HUGE, Fault, FaultProxy, HttpProxy
from tests.faults.street import KINDS, SECRETS, SENDER, Place, Words, certificates, token_words
from tests.waiting import until

EXTRA = "delivery: {retry: [1s], fallback_after: 1s}\nstatus: {address: '127.0.0.1:0', token: 'env:STATUS_TOKEN'}\n"
TWICE = ("smtp", "smtp_oauth", "graph", "mailgun")
"""Kinds that go through all of it a second time, to see whether memory grows: each way of speaking and logging in."""


@dataclass(frozen=True, slots=True)
class Way:
    """A route of its own: a proxy that leads to the look-alike, and what must come of its fault. `login` when it leads
    to the host that gives tokens: while an earlier token is good, mail goes out without that host.
    """

    domain: str
    proxy: FaultProxy
    word: Word
    upstream: str
    login: bool


async def open_ways(place: Place, authority, stack: AsyncExitStack) -> list[Way]:
    papers, ways = certificates(authority), []

    async def add(proxy: FaultProxy, word: Word, upstream, *, login: bool = False) -> None:
        await proxy.open()
        stack.push_async_callback(proxy.close)
        ways.append(Way(f"d{len(ways)}.example", proxy, word, upstream(proxy.port), login))

    def sorted_words(words: Words):
        return sorted(words.items(), key=lambda item: (item[0][0], item[0][1].name))

    for (step, fault), word in sorted_words(place.words):
        await add(place.proxy(place.target, papers, fault, step), word, place.upstream)
    if place.by_token:
        for (step, fault), word in sorted_words(token_words()):
            proxy = HttpProxy(place.token_target, papers, fault, step)
            proxy.method = "POST"
            await add(proxy, word, place.by_token, login=True)
    return ways


def rules(ways: list[Way]) -> str:
    upstreams = "".join(f"  u{number}: {{{way.upstream}}}\n" for number, way in enumerate(ways))
    routes = "".join(
        f"  - {{from: {way.domain}, via: u{number}, sender: {{address: {SENDER}}}, bounces: ops@{way.domain}}}\n"
        for number, way in enumerate(ways)
    )
    return f"upstreams:\n{upstreams}routes:\n{routes}"


async def send(relay: RelayProcess, way: Way, to: str) -> int:
    """A mail for a way; its number in the spool."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    content = f"From: info@{way.domain}\r\nTo: {to}\r\nSubject: a marked subject\r\n\r\nA marked word.\r\n.\r\n"
    for said in ("", f"MAIL FROM:<info@{way.domain}>\r\n", f"RCPT TO:<{to}>\r\n", "DATA\r\n", content):
        writer.write(said.encode())
        reply = (await reader.readline()).decode()
        assert reply[0] in "23", reply
    writer.close()
    return id_number(reply.split()[-1])


def first_words(relay: RelayProcess, numbers: list[int]) -> dict[int, str]:
    """What the first attempt at each mail came to, as its story tells."""
    view = SqliteView(f"sqlite:///{relay.spool}")
    try:
        told = {}
        for number in numbers:
            story = view.show(number)
            attempts = [entry for entry in story.entries if entry.outcomes] if story else []
            if attempts:
                ((_, outcome),) = attempts[0].outcomes
                told[number] = f"{outcome.word} at {outcome.stage}: {outcome.reply}"
        return told
    finally:
        view.close()


def still_waiting(relay: RelayProcess, numbers: set[int]) -> set[int]:
    view = SqliteView(f"sqlite:///{relay.spool}")
    try:
        return {mail.id for mail in view.list(Filter(ids=tuple(numbers)), len(numbers))}
    finally:
        view.close()


async def strike(relay: RelayProcess, place: Place, ways: list[Way], number: int) -> list[int]:
    """One mail for every way, each meeting its fault; then all of them arrive. The numbers of the mails."""
    for way in ways:
        await way.proxy.arm()
    to = {way.domain: f"{way.domain.split('.')[0]}x{number}@example.nl" for way in ways}
    ids = await asyncio.gather(*(send(relay, way, to[way.domain]) for way in ways))
    told = {}

    def all_told() -> bool:
        told.update(first_words(relay, [each for each in ids if each not in told]))
        return len(told) == len(ids)

    try:
        await until(all_told)
    except TimeoutError:
        hung = [way.proxy.name for way, each in zip(ways, ids, strict=True) if each not in told]
        raise AssertionError(f"hung past its time: {hung}") from None
    for way in ways:
        await way.proxy.open()
    wrong = [
        f"{way.proxy.name}: {way.word} expected, {told[each]}"
        for way, each in zip(ways, ids, strict=True)
        if not told[each].startswith((f"{way.word} ", "sent ") if way.login and number else f"{way.word} ")
    ]
    assert not wrong, "\n".join(wrong)
    assert not [way.proxy.name for way in ways if not way.proxy.struck and way.proxy.fault is not Fault.REFUSE]
    held = [way for way in ways if way.word is Word.CONFIG]
    await asyncio.gather(*(relay.command("queue", "release", "--route", way.domain) for way in held))
    waiting = set(ids)

    def all_settled() -> bool:
        waiting.intersection_update(still_waiting(relay, waiting))
        return not waiting

    try:
        await until(all_settled)
    except TimeoutError:
        missing = [way.proxy.name for way, each in zip(ways, ids, strict=True) if each in waiting]
        raise AssertionError(f"never settled after {missing}; {relay.log()[-3000:]}") from None
    assert not [way.proxy.name for way in ways if to[way.domain] not in place.delivered()], "never arrived"
    got = Counter(place.delivered())
    # A server that takes the mail and then refuses it lies: no client can know.
    lies = (". SAY_421", "REPLY ECHO")
    twice = [way for way in ways if way.word is Word.UNKNOWN or way.proxy.name in lies]
    doubled = [way.proxy.name for way in ways if got[to[way.domain]] > (2 if way in twice else 1)]
    assert not doubled, "twice, though nothing was in doubt"
    return ids


def sockets(relay: RelayProcess) -> int:
    found = 0
    for name in os.listdir(f"/proc/{relay.pid}/fd"):
        try:
            found += os.readlink(f"/proc/{relay.pid}/fd/{name}").startswith("socket:")
        except OSError:
            continue
    return found


def memory(relay: RelayProcess, what: str) -> int:
    """`VmRSS` or `VmHWM`, in octets."""
    match = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{relay.pid}/status").read_text())
    assert match
    return int(match[1]) << 10


async def pages(relay: RelayProcess, ids: list[int]) -> list[str]:
    """The status page, the story of each mail on it, and what monitoring reads."""
    (at,) = [str(event["address"]) for event in relay.events if event["event"] == "status_listening"][-1:]
    found = []
    async with httpx.AsyncClient(base_url=f"http://{at}", timeout=60) as client:
        for path in ("/", "/metrics", "/healthz", "/readyz", *(f"/mail/{id_text(each)}" for each in ids)):
            answer = await client.get(path)
            assert answer.status_code == 200, (path, answer.text)
            found.append(answer.text)
    return found


async def no_secret(relay: RelayProcess, place: Place, ways: list[Way], ids: list[int]) -> None:
    """Nowhere that anybody may look."""
    shown = [relay.log(), *await pages(relay, ids)]
    seen = len(shown)
    commands = (("queue", "list", "--settled", "--json"), ("queue", "holds"), ("queue", "failures"), ("check",))
    shown += [said for _, said in await asyncio.gather(*(relay.command(*command) for command in commands))]
    octets = b"".join(path.read_bytes() for path in relay.folder.glob("spool.db*") if path.is_file())
    everything = "\n".join(shown).encode() + octets
    for secret in (*SECRETS.values(), *place.secrets()):
        for form in (secret, quote_plus(secret), base64.b64encode(secret.encode()).decode().rstrip("=")):
            assert form.encode() not in everything
    quoted = sum("there is no such thing as" in page for page in shown[1:seen])
    refused = [way for way in ways if way.proxy.fault is Fault.ECHO and way.word is Word.CONFIG]
    assert quoted == len(refused), "what a server said is shown"
    assert b"marked word" not in "\n".join(shown).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_at_every_step(kind, authority, tmp_path):
    environment = {**SECRETS, "SSL_CERT_FILE": str(authority.bundle)}

    async def story() -> None:
        async with AsyncExitStack() as stack:
            place = await stack.enter_async_context(KINDS[kind](authority))
            ways = await open_ways(place, authority, stack)
            relay = RelayProcess(
                tmp_path / "r",
                rules(ways),
                environment=environment,
                extra=EXTRA,
            )
            await stack.enter_async_context(relay)
            idle = sockets(relay)
            sizes: list[int] = []
            for number in range(2 if kind in TWICE else 1):
                ids = await strike(relay, place, ways, number)
                # Each may keep a connection, one to Entra, and one that died and that the next mail would find.
                kept = sum(len(way.proxy.connected) for way in ways) + 2 * len(ways)
                await until(lambda kept=kept: sockets(relay) <= idle + kept)
                sizes.append(memory(relay, "VmRSS"))
            assert sockets(relay) <= idle + 3 * len(ways)
            assert sizes[-1] < sizes[0] + (16 << 20), "memory grows with every fault"
            assert memory(relay, "VmHWM") < sizes[0] + 4 * HUGE, "what the other side says is kept without a limit"
            await no_secret(relay, place, ways, ids)
            assert await relay.stop() == 0
            assert not [
                event for event in relay.events if "bug" in str(event["event"]) or event["event"] == "stray output"
            ]

    asyncio.run(story())
