"""How a cycle's time is shared out."""

from wva_core.engine import Deadline


class Stopwatch:
    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


def test_time_runs_down_and_never_below_nothing():
    watch = Stopwatch()
    deadline = Deadline(8.0, watch)
    watch.time += 3.0
    assert deadline.remaining() == 5.0
    watch.time += 30.0
    assert deadline.remaining() == 0.0


def test_a_step_gets_half_of_what_is_left_so_that_the_next_has_time_too():
    watch = Stopwatch()
    deadline = Deadline(8.0, watch)
    first = deadline.step()
    assert first.remaining() == 4.0
    watch.time += 4.0  # the first step uses all of its time
    assert (first.remaining(), deadline.step().remaining()) == (0.0, 2.0)


def test_without_an_end_every_step_may_take_for_ever():
    assert Deadline(None).remaining() is None
    assert Deadline(None).step().remaining() is None
