"""A clock that was set back is noticed; one that is slewed or set forward is not."""

from __future__ import annotations

from delivery.clock import SetBack


def test_only_a_step_back_counts():
    wall, steady = [1000.0], [0.0]
    watch = SetBack(lambda: wall[0], lambda: steady[0])

    def later(by_wall: float, by_steady: float) -> float:
        wall[0] += by_wall
        steady[0] += by_steady
        return watch.look()

    assert later(10, 10) == 0
    assert later(8, 10) == 0, "slewed"
    assert later(86400, 10) == 0, "forward: what is due is due"
    assert later(-3590, 10) == 3600
    assert later(10, 10) == 0, "told once"
