"""The doctor's look at the ways out: connect, TLS, login, token, and as far as a mail comes without being sent.

An upstream of its own is built for it and closed again. Must never send a mail.
"""

from __future__ import annotations

import asyncio
from typing import Final

from config.credentials import Secret
from config.fields import Settings
from config.shapes import shapes_of
from ops.doctor import Grade, Patient, Verdict
from routing.outcome import Outcome, Stage, Word
from upstreams.base import Rehearsal, Upstream

PATIENCE: Final = 60.0
"""Seconds for one way."""


async def ways(patient: Patient) -> list[Verdict]:
    """Every upstream of the route, one after another: they may be the same account."""
    return [await _way(patient, name) for name in patient.route.settings.upstreams]


async def _way(patient: Patient, name: str) -> Verdict:
    rule = patient.rules.upstreams[name]
    where = f"{name} ({rule.place})"
    if unread := _unread(rule.settings):  # an empty password is a failed login, and may lock the account
        what = f"not tried, for {', '.join(unread)} cannot be read here"
        mend = "run it as root (sudo); what the unit alone has (env:) the daily look tries, and `send`"
        return patient.verdict("way out", Grade.WARNING, where, what, mend)
    upstream = patient.kinds[rule.kind].build(name, rule.settings, patient.host)
    try:
        async with asyncio.timeout(PATIENCE):
            if patient.us is None or not patient.sender:
                outcome, far = await upstream.probe(), type(upstream).rehearse is Upstream.rehearse
            else:
                mail = Rehearsal(patient.sender, patient.us.contact, patient.invented)
                outcome, far = await upstream.rehearse(mail), True
    except TimeoutError:
        what = f"did not answer within {PATIENCE:g} seconds"
        return patient.verdict("way out", Grade.PROBLEM, where, what, "see whether the server is up, and a firewall")
    finally:
        await upstream.close()
    return _judged(patient, where, outcome, far)


def _unread(settings: Settings) -> list[str]:
    """The references whose secrets only the running unit has."""
    values = [getattr(settings, shape.name) for shape in shapes_of(type(settings))]
    return [value.reference for value in values if isinstance(value, Secret) and not value.reveal()]


def _judged(patient: Patient, where: str, outcome: Outcome, far: bool) -> Verdict:
    mend = outcome.hint.en if outcome.hint else ""
    said = f"{outcome.reply} (at {outcome.stage})"
    match outcome.word:
        case Word.SENT if patient.invented and outcome.hint is not None:
            mend = "name a sender that exists: `mailbox:`, a line in `tests:`, or --from"
            return patient.verdict("way out", Grade.WARNING, where, _ready(patient, outcome), mend)
        case Word.SENT if far or patient.us is not None:
            return patient.verdict("way out", Grade.GOOD, where, _ready(patient, outcome))
        case Word.SENT:
            mend = "write `call_centre.contact`, so that more can be tried without sending"
            return patient.verdict("way out", Grade.GOOD, where, f"{outcome.reply}", mend)
        case Word.CONFIG:
            return patient.verdict("way out", Grade.PROBLEM, where, said, mend)
        case Word.REJECT if outcome.stage is Stage.RECIPIENT:
            mend = mend or "it may mind our contact address alone: try `send` with another recipient"
            return patient.verdict("way out", Grade.WARNING, where, said, mend)
        case Word.REJECT:
            return patient.verdict("way out", Grade.PROBLEM, where, said, mend or "see what the server minds")
        case Word.RETRY if outcome.stage in (Stage.CONNECT, Stage.TLS) and outcome.code is None:
            mend = mend or "see whether the host and port are right, and a firewall in between"
            return patient.verdict("way out", Grade.PROBLEM, where, said, mend)
    return patient.verdict("way out", Grade.WARNING, where, said, mend or "temporary, it says: look again later")


def _ready(patient: Patient, outcome: Outcome) -> str:
    told = f"ready: {outcome.reply}"
    if outcome.stage is Stage.RECIPIENT:
        who = f"any sender of {patient.sender.rpartition('@')[2]}" if patient.invented else patient.sender
        told = f"takes mail from {who} to outside: {outcome.reply}"
    return f"{told} ({outcome.hint.en})" if outcome.hint else told
