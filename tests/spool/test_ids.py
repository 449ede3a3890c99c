"""Numbers of mails: they rise, whatever the clock does, and read back from what people see."""

from __future__ import annotations

from spool.contract import id_number, id_text
from spool.ids import Numbers, first_number
from tests.spool.engines import Clock, arrival


def test_numbers_rise_whatever_the_clock_does_and_across_restarts(engine):
    numbers = []

    async def test(spool):
        for step in (0, 1, 0, -3600, 0, 0.001):
            engine.clock.now += step
            numbers.append(spool.next_id())
        mail = arrival(spool, engine.clock)
        numbers.append(mail.id)
        await spool.put(mail)

    engine.run(test)
    engine.clock.now -= 86400
    engine.run(test)
    assert numbers == sorted(set(numbers))
    assert all(0 < number < 1 << 63 and id_number(id_text(number)) == number for number in numbers)


def test_a_number_says_when_its_mail_came():
    clock = Clock(1_700_000_000.25)
    number = Numbers(clock, lambda bits: (1 << bits) - 1).next()
    assert first_number(clock.now) <= number < first_number(clock.now + 0.001)


def test_numbers_never_count_on_into_the_part_of_another_node():
    """With the clock standing still at the very end of a node's part, the next number is in its part all the same."""
    part = 14
    slot = 5
    numbers = Numbers(lambda: 1_700_000_000.25, lambda bits: (slot << part) | ((1 << part) - 2), run=part)
    given = [numbers.next() for _ in range(100)]
    assert given == sorted(set(given))
    assert {number >> part & 63 for number in given} == {slot}
