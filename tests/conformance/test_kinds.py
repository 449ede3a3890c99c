"""Every kind brings its cases, and a case that leaves something out is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from routing.outcome import Word
from tests.conformance.case import Step, all_cases, cases_of, incomplete
from tests.conformance.harness import at
from upstreams import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_brings_its_cases(kind):
    assert cases_of(kind), "CASES is empty"


def test_a_case_leaves_nothing_out(case):
    assert incomplete(case) == []


def test_a_kind_without_cases_fails():
    """What the test above says of one that has just been added to KINDS."""
    with pytest.raises(AssertionError, match="pigeon has no cases: write "):
        cases_of("pigeon")
    more = {**KINDS, "pigeon": replace(KINDS["smtp"], name="pigeon")}
    assert all_cases(more) == all_cases(KINDS)


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ({"replies": ()}, "no documented answer means config"),
        ({"steps": ()}, "no step"),
        ({"steps": (Step("X", None, Word.RETRY),)}, "step X without a word or a reason"),
    ],
)
def test_a_case_that_leaves_something_out_is_found(left_out, said):
    case = replace(cases_of("smtp")[0], **left_out)
    assert said in " ".join(incomplete(case))


def test_one_mail_has_as_many_recipients_as_the_provider_page_says(case, setting):
    async def story(place):
        return place.upstream.recipients_limit

    assert at(case, setting, story) == case.limit


def test_a_kind_says_where_it_connects_and_names_no_secret(case, setting):
    async def story(place):
        return place.upstream.connects_to

    said = at(case, setting, story)
    assert bool(said) == case.remote
    assert not said or "in " in said
