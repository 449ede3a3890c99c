"""No secret and no word of a mail in any outcome, log line or repr, at DEBUG, quoted or not."""

from __future__ import annotations

import logging

import pytest

from tests.conformance.case import Trouble
from tests.conformance.harness import at, mail, sent

FILLERS = ("", *("x" * length for length in (*range(400, 500, 8), 960, 980)))
"""Replies are cut to a length: what is quoted behind these stands across the cut."""


@pytest.fixture
def logged(caplog):
    """Everything in every log record so far."""
    caplog.set_level(logging.DEBUG)
    return lambda: "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)


def test_a_secret_that_is_quoted_is_shown_nowhere(remote, setting, logged):
    for step, quoted in remote.echoes.items():

        async def story(place, step=step, quoted=quoted):
            seen = [repr(place.upstream), repr(vars(place.upstream))]
            if not place.secrets(step):
                seen.append(repr(await sent(place)))
                await place.hang_up()
            for secret in place.secrets(step):
                for filler in FILLERS:
                    place.script(step, quoted(filler + secret))
                    seen.append(repr(await place.upstream.send(mail())))
            return seen, place.secrets(step)

        seen, secrets = at(remote, setting, story)
        everything = "\n".join([*seen, logged()])
        assert secrets
        assert "there is no such thing as" in everything.lower()
        for secret in secrets:
            assert secret not in everything
            assert secret[:8] not in everything


def test_trouble_shows_neither_secret_nor_mail(case, step, setting, logged):
    async def story(place):
        place.script(step.name, Trouble.CUT)
        seen = [repr(await place.upstream.send(mail()))]
        place.release()
        seen += [repr(await place.upstream.send(mail())), repr(await place.upstream.probe()), repr(place.upstream)]
        return seen, [secret for echo in case.echoes for secret in place.secrets(echo)]

    seen, secrets = at(case, setting, story)
    everything = "\n".join([*seen, logged()])
    for hidden in (*secrets, "a secret subject"):
        assert hidden not in everything
