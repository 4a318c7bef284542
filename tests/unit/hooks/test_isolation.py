"""A plugin behind its thread: late calls, quarantine and probing. Calls are held back by events, never by sleeping."""

import threading

import pytest

from wva_core.errors import ParameterError
from wva_core.hooks.isolation import IsolatedPlugin

LONG = 30.0  # seconds a call that is expected back may take on a busy machine


class Gate:
    """A hook that waits until it is let go, and counts how often it was called."""

    def __init__(self):
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.calls = 0

    def __call__(self, answer=None):
        self.calls += 1
        self.entered.release()
        assert self.open.wait(LONG)
        return answer


@pytest.fixture
def plugin():
    plugin = IsolatedPlugin("analyzer slow")
    yield plugin
    plugin.close()


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


def ask(plugin, function, timeout=LONG, **arguments):
    return plugin.begin("assess", function, arguments).outcome(timeout)


def make_late(plugin, gate):
    """One call that is late, and back again when this returns."""
    call = plugin.begin("assess", gate, {})
    outcome = call.outcome(0.0)
    gate.open.set()
    assert call._finished.wait(LONG)
    gate.open.clear()
    return outcome


def test_an_answer_in_time_counts(plugin):
    outcome = ask(plugin, lambda value: value + 1, value=1)
    assert (outcome.value, outcome.failure) == (2, None)
    assert outcome.seconds >= 0.0


def test_every_call_runs_on_one_thread_of_its_own(plugin):
    threads = {ask(plugin, threading.get_ident).value for _ in range(3)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_late_answer_never_counts(plugin, gate):
    outcome = plugin.begin("assess", gate, {"answer": "late"}).outcome(0.0)
    assert outcome.value is None
    assert str(outcome.failure) == (
        "analyzer slow: assess: did not answer within 0 s; its result is dropped and it is quarantined"
        " until the call returns; make it faster or raise the interval"
    )


def test_while_its_thread_is_away_a_plugin_is_not_called_again(plugin, gate):
    plugin.begin("assess", gate, {}).outcome(0.0)
    assert gate.entered.acquire(timeout=LONG)
    outcome = ask(plugin, gate)
    assert gate.calls == 1
    assert (plugin.is_stuck, plugin.is_quarantined) == (True, True)
    assert str(outcome.failure) == (
        "analyzer slow: assess: is quarantined: its call to assess has still not come back;"
        " find out what it waits for; it is probed once that call returns"
    )


def test_after_it_came_back_one_call_is_left_out_and_the_next_is_a_probe(plugin, gate):
    make_late(plugin, gate)
    left_out = ask(plugin, lambda: "early")
    assert str(left_out.failure) == (
        "analyzer slow: assess: is quarantined after a late call and probed with the next one;"
        " make it faster, raise the interval, or disable the entry"
    )
    assert ask(plugin, lambda: "probe").value == "probe"
    assert not plugin.is_quarantined


def test_every_late_probe_doubles_the_calls_left_out_up_to_32(plugin, gate):
    make_late(plugin, gate)
    counted = []
    for _ in range(7):
        left_out = 0
        while plugin.is_quarantined:
            assert ask(plugin, lambda: None).failure is not None
            left_out += 1
        counted.append(left_out)
        make_late(plugin, gate)
    assert counted == [1, 2, 4, 8, 16, 32, 32]


def test_a_call_left_out_says_how_many_more_are(plugin, gate):
    make_late(plugin, gate)
    ask(plugin, lambda: None)
    make_late(plugin, gate)
    assert "is quarantined after a late call and left out of 1 more calls" in str(ask(plugin, lambda: None).failure)


def test_a_probe_in_time_ends_the_quarantine_for_good(plugin, gate):
    for _ in range(3):
        while plugin.is_quarantined:
            ask(plugin, lambda: None)
        make_late(plugin, gate)
    while plugin.is_quarantined:
        ask(plugin, lambda: None)
    assert ask(plugin, lambda: 1).value == 1
    make_late(plugin, gate)
    assert ask(plugin, lambda: None).failure is not None  # one call left out, as after the first late call
    assert ask(plugin, lambda: 2).value == 2


def test_a_call_that_raises_loses_its_result_and_is_called_again(plugin):
    def broken():
        raise ValueError("no capacity")

    outcome = ask(plugin, broken)
    assert str(outcome.failure) == (
        "analyzer slow: assess: raised ValueError: no capacity;"
        " its vote is left out of this cycle; see its log, or disable the entry"
    )
    assert isinstance(outcome.failure.__cause__, ValueError)
    assert ask(plugin, lambda: 1).value == 1


def test_an_error_of_this_project_is_told_in_its_own_words(plugin):
    def broken():
        raise ParameterError("is not positive", object="fit", key="mu", value=-1)

    assert "raised fit: mu: is not positive (got -1); its vote" in str(ask(plugin, broken).failure)


def test_a_plugin_that_wants_to_end_the_process_ends_nothing(plugin):
    def leave():
        raise SystemExit(1)

    assert "raised SystemExit: 1" in str(ask(plugin, leave).failure)
    assert ask(plugin, lambda: 1).value == 1


def test_a_call_in_spite_of_quarantine_runs_after_the_late_one(plugin, gate):
    order = []
    late = plugin.begin("assess", lambda: (gate(), order.append("late")), {})
    late.outcome(0.0)
    told = plugin.begin("stop", lambda: order.append("told"), {}, in_quarantine=True)
    gate.open.set()
    assert told.outcome(LONG).failure is None
    assert order == ["late", "told"]


def test_its_thread_ends_when_it_is_closed(plugin):
    thread = ask(plugin, threading.current_thread).value
    plugin.close()
    thread.join(LONG)
    assert not thread.is_alive()


def test_a_closed_plugin_whose_call_never_returns_can_be_used_again_when_it_does(plugin, gate):
    late = plugin.begin("assess", gate, {})
    late.outcome(0.0)
    plugin.close()
    assert ask(plugin, lambda: 1).failure is not None
    gate.open.set()
    assert late._finished.wait(LONG)
    while plugin.is_quarantined:
        ask(plugin, lambda: 1)
    assert ask(plugin, lambda: 1).value == 1
