"""The kind `maildir`: whole files only, the envelope on top, the mail untouched."""

from __future__ import annotations

import asyncio
import mailbox
import resource
import signal
from pathlib import Path

from routing.outcome import Word
from tests.upstreams.smtp_kit import CONTENT, mail, ours
from upstreams.maildir import KIND, MaildirSettings


def _built(path: Path):
    return KIND.build("here", MaildirSettings(path=path), ours())


async def _send(path: Path, *mails):
    way = _built(path)
    results = await asyncio.gather(*(way.send(one) for one in mails))
    await way.close()
    return results


def test_mail_is_a_file_in_new_with_its_envelope_on_top(tmp_path):
    (results,) = asyncio.run(_send(tmp_path / "box", mail("b@x.nl", "c@x.nl")))
    assert {outcome.word for outcome in results.values()} == {Word.SENT}
    (path,) = (tmp_path / "box" / "new").iterdir()
    top = b"Return-Path: <a@acme.nl>\r\nX-Envelope-To: b@x.nl\r\nX-Envelope-To: c@x.nl\r\n"
    assert path.read_bytes() == top + CONTENT
    assert path.name == results["b@x.nl"].upstream_id
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list((tmp_path / "box" / "tmp").iterdir())


def test_another_program_reads_it(tmp_path):
    asyncio.run(_send(tmp_path, mail(sender="")))
    (message,) = mailbox.Maildir(tmp_path, create=False)
    assert (message["Return-Path"], message["X-Envelope-To"], message["Subject"]) == ("<>", "b@x.nl", "hi")


def test_names_are_unique_at_any_speed(tmp_path):
    results = asyncio.run(_send(tmp_path, *(mail(id=str(number)) for number in range(50))))
    assert len({one["b@x.nl"].upstream_id for one in results}) == 50
    assert len(list((tmp_path / "new").iterdir())) == 50


def test_a_line_break_in_an_address_makes_no_header(tmp_path):
    asyncio.run(_send(tmp_path, mail("b@x.nl\r\nX-Evil: 1")))
    (path,) = (tmp_path / "new").iterdir()
    assert path.read_bytes().split(b"\r\n")[1] == b"X-Envelope-To: b@x.nlX-Evil: 1"


def test_probe_writes_and_leaves_nothing(tmp_path):
    outcome = asyncio.run(_built(tmp_path / "box").probe())
    assert outcome.word is Word.SENT
    assert list(tmp_path.iterdir()) == [], "no folder either: it would be the user's who looked"
    asyncio.run(_send(tmp_path / "box", mail()))
    assert asyncio.run(_built(tmp_path / "box").probe()).word is Word.SENT
    assert list((tmp_path / "box" / "tmp").iterdir()) == []


def test_folder_that_cannot_be_is_config(tmp_path):
    (tmp_path / "file").write_text("in the way")
    way = _built(tmp_path / "file" / "box")
    for outcome in (asyncio.run(way.probe()), asyncio.run(way.send(mail()))["b@x.nl"]):
        assert (outcome.word, "must be a folder" in str(outcome.hint)) == (Word.CONFIG, True)


def test_full_disk_is_retry_and_leaves_no_half_mail(tmp_path):
    """A file size limit of the process stands in for the full disk: the write stops half-way with an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        (results,) = asyncio.run(_send(tmp_path, mail(content=b"x" * 20_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert results["b@x.nl"].word is Word.RETRY
    assert not list((tmp_path / "tmp").iterdir())
    assert not list((tmp_path / "new").iterdir())


def test_relative_path_is_a_fault():
    assert [fault.key for fault in MaildirSettings(path=Path("box")).faults()] == ["path"]
    assert not list(MaildirSettings(path=Path("/var/box")).faults())
