"""`queue forecast` on a real spool and real files: what people and scripts read."""

from __future__ import annotations

import asyncio
import json
import time

import relay
from spool.contract import Arrival
from spool.sqlite import SqliteSpool
from spool.view import Spent

RULES = """
upstreams:
  acme-365: {type: maildir, path: /var/tmp/nowhere, pace: {per_minute: 30, per_day: 1000}}
  try-out: {type: maildir, path: /var/tmp/nowhere}
routes:
  - {from: acme.nl, via: acme-365}
  - {from: globex.nl, via: try-out}
"""


def asked(folder, capsys, *arguments: str) -> tuple[int, str]:
    code = relay.main(["queue", "forecast", "--config", str(folder / "relay.yaml"), *arguments])
    return code, capsys.readouterr().out


def fill(folder, sent: int, mails: int) -> None:
    (folder / "relay.yaml").write_text(f"spool: {{url: 'sqlite:///{folder}/spool.db'}}\n")
    (folder / "routes.yaml").write_text(RULES)

    async def run() -> None:
        spool = await SqliteSpool.open(f"sqlite:///{folder}/spool.db", size_limit=1 << 30)
        now = time.time()
        for number in range(mails):
            name = "globex.nl" if number == 0 else "acme.nl"
            to = ("a@example.org", "b@example.org")
            mail = Arrival(spool.next_id(), f"x@{name}", to, b"Subject: x\r\n\r\n", name, now, "127.0.0.1", "c")
            await spool.put(mail)
        if sent:
            await spool.spend([Spent("upstream acme-365", now - 7200, sent, sent)])
        await spool.close()

    asyncio.run(run())


def test_it_tells_queues_and_limits(tmp_path, capsys):
    fill(tmp_path, sent=100, mails=62)
    code, text = asked(tmp_path, capsys)
    assert code == 0
    assert "acme.nl  61 mails for 122 by acme-365: empty in 2m at its pace" in text
    assert "globex.nl  1 mail for 2 by try-out: no pace makes it wait" in text
    assert "upstream acme-365  100 of 1000 recipients in 24 hours, not reached as things go" in text
    code, text = asked(tmp_path, capsys, "--json")
    found = json.loads(text)
    assert [(queue["route"], queue["mails"], queue["recipients"]) for queue in found["queues"]] == [
        ("acme.nl", 61, 122),
        ("globex.nl", 1, 2),
    ]
    assert found["quotas"] == [{"account": "upstream acme-365", "used": 100, "per_day": 1000, "full_at": None}]


def test_a_limit_that_will_be_reached_is_a_problem_found(tmp_path, capsys):
    fill(tmp_path, sent=950, mails=62)
    code, text = asked(tmp_path, capsys)
    assert code == 1
    assert "950 of 1000 recipients in 24 hours, reached" in text


def test_no_mail_is_no_problem(tmp_path, capsys):
    fill(tmp_path, sent=0, mails=0)
    code, text = asked(tmp_path, capsys)
    assert code == 0
    assert text.startswith("No mail waits.")
