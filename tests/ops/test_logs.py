"""Log lines: one event, one line, whatever is in the fields."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import IO

import pytest

from ops.logs import set_up
from routing.events import emit
from tests.waiting import LONG


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers)
    levels = {
        name: logging.getLogger(name).level for name in (None, "httpx", "httpcore", "msal", "asyncio", "mail.log")
    }
    yield
    root.handlers[:] = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def line(style: str, *, level: int = logging.INFO, **fields: object) -> str:
    stream = io.StringIO()
    set_up(style, stream)
    emit(logging.getLogger("relay.test"), "deferred", level, **fields)
    return stream.getvalue()


def test_text_reads_as_key_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    out = line("text", mail="01H", seconds=0.25, to=("a@b.nl", "c@d.nl"), reply="451 4.7.1 try later", nothing=None)
    assert out.endswith(' deferred mail=01H seconds=0.25 to=a@b.nl,c@d.nl reply="451 4.7.1 try later"\n')


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[str]]:
    """A stream that $JOURNAL_STREAM names, as systemd does."""
    with (tmp_path / "journal").open("w+") as stream:
        there = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
        yield stream


def said(style: str, stream: IO[str], level: int) -> str:
    set_up(style, stream)
    emit(logging.getLogger("relay.test"), "deferred", level, route="acme.nl")
    stream.seek(0)
    return stream.read()


def test_the_journal_gets_priorities_and_no_time(journal: IO[str]) -> None:
    assert said("text", journal, logging.ERROR) == "<3>deferred route=acme.nl\n"


def test_the_journal_gets_priorities_before_json_too(journal: IO[str]) -> None:
    text = said("json", journal, logging.WARNING)
    assert text.startswith("<4>{")
    assert json.loads(text[3:])["route"] == "acme.nl"


def test_a_file_in_the_place_of_the_journal_gets_whole_lines(journal: IO[str], tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as file:
        assert "<" not in said("text", file, logging.ERROR)


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize(
    "evil", ["a\nb", "a\r\nforged event=delivered", "a\u2028b", "a\x1b[2Jb", 'a" b="c', "a\x00b", "\x85"]
)
def test_no_value_breaks_a_line_or_the_terminal(style: str, evil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    out = line(style, reply=evil)
    assert len(out.splitlines()) == 1
    assert "\x1b" not in out
    assert "\x00" not in out


def test_json_carries_fields_as_they_are() -> None:
    out = json.loads(line("json", mail="01H", seconds=0.25, to=["a@b.nl"]))
    assert (out["event"], out["level"], out["to"], out["seconds"]) == ("deferred", "info", ["a@b.nl"], 0.25)


def test_a_worker_says_its_number_in_each_line() -> None:
    for style, says in (
        ("text", " deferred mail=01H worker=2\n"),
        ("json", '"event": "deferred", "worker": 2, "mail"'),
    ):
        stream = io.StringIO()
        set_up(style, stream, worker=2)
        emit(logging.getLogger("relay.test"), "deferred", mail="01H")
        assert says in stream.getvalue()


def test_lines_of_several_processes_are_written_whole() -> None:
    """Each write is of whole lines, and no longer than the system writes in one piece."""
    written: list[str] = []

    class Noted(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    async def speak() -> None:
        set_up("text", Noted(), worker=1)
        for number in range(200):
            emit(logging.getLogger("relay.test"), "delivered", number=number, to="x" * (number % 90))
        await asyncio.sleep(0.1)

    asyncio.run(speak())
    assert 1 < len(written) < 20
    assert all(text.endswith("\n") and len(text) <= 4096 for text in written)
    assert "".join(written).count("\n") == 200


def test_a_reader_that_stands_still_stops_nothing_and_hears_the_rest_later() -> None:
    """The pipe is full: lines wait, those beyond a megabyte are counted, and what was kept comes in its order."""
    reading, writing = os.pipe()
    log, text = logging.getLogger("relay.test"), "é" * 3000
    with open(reading, encoding="utf-8") as reader, open(writing, "w", encoding="utf-8") as writer:
        set_up("text", writer)

        def speak() -> None:
            for number in range(600):
                emit(log, "delivered", logging.WARNING if number % 2 else logging.INFO, number=number, text=text)

        speaking = Thread(target=speak, daemon=True)
        speaking.start()
        speaking.join(LONG)
        assert not speaking.is_alive()
        heard: list[str] = []
        hearing = Thread(target=lambda: heard.extend(reader), daemon=True)
        hearing.start()
        while not any("log_lines_lost" in line for line in heard):
            logging.getLogger().handlers[0].flush()
        emit(log, "last")
        writer.close()
        hearing.join(LONG)
    kept = [line for line in heard if " number=" in line]
    assert [f"number={number} text={text}" in line for number, line in enumerate(kept)] == [True] * len(kept)
    assert 300 < len(kept) < 400
    assert f"ERROR log_lines_lost lines={600 - len(kept)} " in heard[-2]
    assert heard[-1].endswith(" last\n")


def test_the_end_of_the_process_waits_a_moment_for_the_reader() -> None:
    reading, writing = os.pipe()
    with open(reading) as reader, open(writing, "w") as writer:
        set_up("json", writer)
        for number in range(2000):
            emit(logging.getLogger("relay.test"), "delivered", number=number, to="x" * 60)
        heard: list[str] = []
        hearing = Thread(target=lambda: heard.extend(reader), daemon=True)
        hearing.start()
        logging.getLogger().handlers[0].close()
        writer.close()
        hearing.join(LONG)
    assert [json.loads(line)["number"] for line in heard] == list(range(2000))


def test_an_exception_is_told_with_its_traceback() -> None:
    stream = io.StringIO()
    set_up("text", stream)
    try:
        raise ValueError("our own bug")
    except ValueError:
        logging.getLogger("relay.test").exception("delivery failed")
    assert "delivery failed" in stream.getvalue()
    assert "ValueError: our own bug" in stream.getvalue()


class CountedWrites(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def test_the_lines_of_a_moment_are_one_write_in_their_order() -> None:
    stream, log = CountedWrites(), logging.getLogger("relay.test")
    set_up("json", stream)

    async def speak() -> None:
        for number in range(50):
            emit(log, "delivered", number=number)
        assert stream.writes == 0
        while not stream.writes:
            await asyncio.sleep(0.005)

    asyncio.run(speak())
    assert stream.writes == 1
    assert [json.loads(line)["number"] for line in stream.getvalue().splitlines()] == list(range(50))


def test_a_warning_is_written_at_once_behind_what_came_before() -> None:
    stream, log = CountedWrites(), logging.getLogger("relay.test")
    set_up("json", stream)

    async def speak() -> list[str]:
        emit(log, "delivered")
        emit(log, "held", logging.WARNING)
        return [json.loads(line)["event"] for line in stream.getvalue().splitlines()]

    assert asyncio.run(speak()) == ["delivered", "held"]


def test_a_loop_that_ended_leaves_no_line_behind() -> None:
    stream, log = CountedWrites(), logging.getLogger("relay.test")
    set_up("json", stream)

    async def speak(event: str) -> None:
        emit(log, event)

    asyncio.run(speak("first"))
    asyncio.run(speak("second"))
    emit(log, "third")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["first", "second", "third"]
